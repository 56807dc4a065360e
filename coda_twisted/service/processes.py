"""The service in several processes: the main one listens and looks after workers."""

from __future__ import annotations

import hmac
import json
import os
import sys
from collections.abc import Hashable
from itertools import groupby
from operator import itemgetter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from coda_twisted.client.guard import LogonGuard
from coda_twisted.service.control import (
    ORDERS,
    REPORTS,
    SOCKET,
    Lines,
    Message,
    pack,
    write,
)
from coda_twisted.service.descriptors import raise_limit
from coda_twisted.service.guarding import GuardedLogons
from coda_twisted.service.lifecycle import BACKLOG, ListeningService
from coda_twisted.service.listening import shared_sockets
from coda_twisted.service.options import PASSWORD_VARIABLE, Options
from coda_twisted.service.supervisor import Supervisor

__all__ = ["WorkerProcess", "WorkersService"]

# Not -m, which would have the current directory come first, and is not to be trusted.
_PROGRAM = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from coda_twisted.service.worker import main; main()"
)


class WorkersService(ListeningService):
    """
    Serve in processes of their own, each with a socket of its own for the same port.

    The sockets are this process's.  They outlive any worker, and with them what is
    queued there.
    """

    def __init__(
        self, reactor: Any, options: Options, name: bytes, notes: list[str]
    ) -> None:
        super().__init__(reactor, options, name, notes)
        self._sockets: list[Any] = []
        self._key = os.urandom(32)
        self._supervisor = Supervisor(reactor, options["workers"], self._spawn)
        self._logons = GuardedLogons(LogonGuard(reactor), self._tell_others)

    def _bind(self, address: str, port: int) -> tuple[str, int]:
        self._sockets = shared_sockets(address, port, self._options["workers"], BACKLOG)
        host, port, *_ = self._sockets[0].getsockname()
        return host, port

    def startService(self) -> None:
        """Start the workers."""
        raise_limit()
        super().startService()
        # Not before the reactor takes note of children that end.
        self._reactor.callWhenRunning(self._supervisor.start)

    def _spawn(self, place: int, number: int) -> WorkerProcess:
        worker = WorkerProcess(
            number, self._settings(number), self._supervisor, self._logons
        )
        environment = {**os.environ, "PYTHONPATH": _path()}
        environment.pop(PASSWORD_VARIABLE, None)
        descriptors: dict[int, Any] = {ORDERS: "w", 1: "r", 2: "r", REPORTS: "r"}
        descriptors[SOCKET] = self._sockets[place].fileno()
        try:
            self._reactor.spawnProcess(
                worker,
                sys.executable,
                [sys.executable, "-c", _PROGRAM],
                env=environment,
                childFDs=descriptors,
            )
        except OSError as error:
            self._reactor.callLater(0, worker.failed, error)
        return worker

    def _settings(self, number: int) -> Message:
        options = self._options
        secret = repr((options["user"], options["password"], options["realm"]))
        word = hmac.digest(self._key, secret.encode("utf-8", "surrogatepass"), "sha256")
        return {
            "options": dict(options),
            "name": self._own_name,
            "number": number,
            "word": word.hex(),
        }

    def _tell_others(self, message: Message, but: Hashable) -> None:
        for worker in self._supervisor.children:
            if worker.number != but and isinstance(worker, WorkerProcess):
                worker.tell(message)

    def _renew(self, options: Options) -> None:
        self._options = options
        self.log.info("the password and --proxy-ca were read again; workers change")
        self._supervisor.reload()

    def _end(self, seconds: float) -> Deferred[Any]:
        ended = self._supervisor.stop(seconds)
        for each in self._sockets:
            each.close()
        return ended

    def cut(self) -> None:
        """End all workers."""
        self._supervisor.cut()


class WorkerProcess(ProcessProtocol):
    """
    A worker, as the main process sees it.

    :param settings: What it is told first.
    """

    log = Logger()

    def __init__(
        self,
        number: int,
        settings: Message,
        supervisor: Supervisor,
        logons: GuardedLogons,
    ) -> None:
        self.number = number
        self._settings = settings
        self._supervisor = supervisor
        self._logons = logons
        self._orders = True
        self._reports = Lines(self._heard)
        self._words = {1: Lines(self._printed), 2: Lines(self._printed)}

    def connectionMade(self) -> None:
        """Tell it what it is to do."""
        self.transport.writeToChild(ORDERS, pack(self._settings))  # type: ignore[union-attr]
        del self._settings

    def tell(self, message: Message) -> None:
        """Say something to it, while it can hear."""
        if self._orders and self.transport is not None:
            self.transport.writeToChild(ORDERS, write(message))

    def drain(self, seconds: float | None, idle: float) -> None:
        """Have it end in good order."""
        self.tell({"say": "drain", "seconds": seconds, "idle": idle})

    def kill(self) -> None:
        """Have the system end it."""
        if self.transport is not None and self.transport.pid:
            self.transport.signalProcess("KILL")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Take what it says."""
        (self._reports if childFD == REPORTS else self._words[childFD]).feed(data)

    def _heard(self, line: bytes) -> None:
        message = json.loads(line)
        match message["say"]:
            case "log":
                self._log(message["lines"])
            case "ready":
                self._supervisor.ready(self)
            case "leave":
                self._supervisor.leaves(self)
            case _:
                self._logons.heard(self.number, self.tell, message)

    def _log(self, lines: list[tuple[str, str]]) -> None:
        """
        Log what a worker has sent at once, as one event for each level.

        An event costs as much as the request that it tells of.
        """
        for level, several in groupby(lines, itemgetter(0)):
            self.log.emit(
                LogLevel.lookupByName(level),
                "{text}",
                text="\n".join(f"worker {self.number}: {text}" for _, text in several),
            )

    def _printed(self, line: bytes) -> None:
        """Log what Python, or a library in C, had to say."""
        text = line.decode("utf-8", "replace")
        self.log.warn("worker {n}: {text}", n=self.number, text=text)

    def childConnectionLost(self, childFD: int) -> None:
        """Take note that it does not hear any more."""
        if childFD == ORDERS:
            self._orders = False

    def processEnded(self, reason: Failure) -> None:
        """Take note of its end."""
        self._logons.gone(self.number)
        self._supervisor.ended(self, _how(reason))

    def failed(self, error: OSError) -> None:
        """Take note that it could not be started."""
        self._supervisor.ended(self, f"could not be started ({error})")


def _how(reason: Failure) -> str:
    """Say how a process ended."""
    if reason.check(ProcessDone):
        return "ended"
    signal = getattr(reason.value, "signal", None)
    if signal is not None:
        return f"was killed by signal {signal}"
    return f"failed with status {getattr(reason.value, 'exitCode', None)}"


def _path() -> str:
    """Where a worker finds the modules that this process finds."""
    return os.pathsep.join(map(os.path.abspath, sys.path))
