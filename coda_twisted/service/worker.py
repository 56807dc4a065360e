"""
One of several processes that serve the same port.

It is started by the service's main process, with the settings and orders on its
standard input, a listening socket, and a pipe for what it has to say
(:mod:`coda_twisted.service.control`).  It ends when it is told to, and at once when
its main process is gone.  It never ends by itself: asked to by SIGTERM, it has the
main process start its successor first.
"""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogBeginner
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread
from zope.interface import implementer

from coda_twisted.service.control import (
    ORDERS,
    REPORTS,
    SOCKET,
    Lines,
    Message,
    read_settings,
    write,
)
from coda_twisted.service.descriptors import raise_limit
from coda_twisted.service.guarding import SharedGuard
from coda_twisted.service.server import Door, make_proxy

__all__ = ["Report", "Worker", "main"]


LOG_DELAY = 0.05
"""Seconds after which a line of the log is sent, with all that have come meanwhile."""


class Worker(Protocol):
    """
    A worker's end of the conversation with the main process.

    :param settings: What the main process has said first.
    :param descriptor: The listening socket.
    :ivar report: Sends its log there.
    """

    def __init__(self, reactor: Any, settings: Message, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._lines = Lines(self._heard)
        self.report = Report(reactor, self.tell)
        self._guard = SharedGuard(reactor, self.tell, settings["word"])
        self._proxy = make_proxy(
            settings["options"],
            reactor,
            settings["name"],
            guard=self._guard,
            prefix=f"r{settings['number']}-",
        )
        self._door: Door | None = None
        self._ending = False

    def connectionMade(self) -> None:
        """Begin to accept."""
        with socket.socket(fileno=self._descriptor) as listening:
            port = self._reactor.adoptStreamPort(
                listening.fileno(), listening.family, self._proxy
            )
        self._door = Door(self._reactor, port, self._proxy, raise_limit())
        self.tell({"say": "ready"})

    def tell(self, message: Message) -> None:
        """Say something to the main process."""
        if self.transport is not None:
            self.transport.write(write(message))

    def dataReceived(self, data: bytes) -> None:
        """Take orders."""
        self._lines.feed(data)

    def _heard(self, line: bytes) -> None:
        message = json.loads(line)
        if message["say"] == "drain":
            self._drain(message["seconds"], message["idle"])
        else:
            self._guard.heard(message)

    def _drain(self, seconds: float | None, idle: float) -> None:
        door, self._door = self._door, None
        if door is not None:
            # Without an end there is a successor, who accepts what is queued.
            door.close(last=seconds is not None)
        drained = self._proxy.drain(seconds, idle)
        if seconds == 0:
            self._proxy.stop()
        if not self._ending:
            self._ending = True
            closed = drained.addCallback(lambda _: self._proxy.client.close())
            closed.addCallback(self._leave)

    def _leave(self, _: object) -> None:
        """End once all is said."""
        self.report.flush()
        transport: Any = self.transport
        transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """All is said, or the main process is gone: there is nobody to serve for."""
        if self._reactor.running:
            self._reactor.stop()


@implementer(ILogObserver)
class Report:
    """
    Sends the log to the main process, a little later, many lines at once.

    :param tell: Sends a message.
    """

    def __init__(self, reactor: Any, tell: Callable[[Message], None]) -> None:
        self._reactor = reactor
        self._tell = tell
        self._lines: list[tuple[str, str]] = []
        self._sending: IDelayedCall | None = None

    def __call__(self, event: LogEvent) -> None:
        """Take note of an event."""
        text = formatEvent(event)
        failure = event.get("log_failure")
        if failure is not None:
            text = f"{text}\n{failure.getTraceback()}"
        level = event.get("log_level")
        self._note(level.name if level else "info", text)

    def _note(self, level: str, text: str) -> None:
        if not isInIOThread():
            self._reactor.callFromThread(self._note, level, text)
            return
        self._lines.append((level, text))
        if self._sending is None:
            self._sending = self._reactor.callLater(LOG_DELAY, self._send)

    def _send(self) -> None:
        self._sending = None
        lines, self._lines = self._lines, []
        self._tell({"say": "log", "lines": lines})

    def flush(self) -> None:
        """Send what there is."""
        if self._sending is not None:
            self._sending.cancel()
            self._send()


def main() -> None:
    """Serve until told otherwise."""
    # A terminal sends its signals to all processes; the main one decides.
    for name in ("SIGINT", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    settings = read_settings(ORDERS)

    from twisted.internet import reactor, stdio

    standard_io: Any = stdio.StandardIO  # Windows has another, for the type checker
    loop: Any = reactor
    worker = Worker(loop, settings, SOCKET)
    globalLogBeginner.beginLoggingTo([worker.report], redirectStandardIO=False)
    signal.signal(
        signal.SIGTERM,
        lambda *_: loop.callFromThread(worker.tell, {"say": "leave"}),
    )
    standard_io(worker, stdin=ORDERS, stdout=REPORTS)
    loop.run(installSignalHandlers=False)
