"""
The service's life, with workers and without: begin, listen, reload, end.

What carries requests is not imported here: a main process whose workers do that has
no need of it.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.usage import UsageError

from coda_twisted.service.argv import wipe
from coda_twisted.service.options import Options
from coda_twisted.service.signals import Signals

__all__ = ["BACKLOG", "STOP_IDLE", "CannotServe", "ListeningService", "make_service"]

BACKLOG = 1024
"""Connections that may wait to be accepted: a build starts hundreds at once."""

STOP_IDLE = 0.5
"""
Seconds for which a connection without a request is kept when the service stops.

A request that was sent before the client could know is still answered
(RFC 9112 9.3.1 has clients expect that race).
"""


def make_service(options: Options, reactor: Any) -> ListeningService:
    """Assemble the service that *options* describe; nothing listens yet."""
    name = b"coda-" + os.urandom(4).hex().encode("ascii")
    notes = []
    if options.exposed:
        notes.append(_about_exposed(wipe(options.exposed)))
    if options["workers"]:
        from coda_twisted.service.processes import WorkersService

        return WorkersService(reactor, options, name, notes)
    from coda_twisted.service.server import ProxyService

    return ProxyService(reactor, options, name, notes)


def _about_exposed(wiped: bool) -> str:
    seen = (
        "it was wiped from the list of processes, where others could see it until now"
        if wiped
        else "every user of this machine can see it in the list of processes"
    )
    return (
        f"a password was given on the command line: {seen}. "
        "Use --password-file instead."
    )


class CannotServe(SystemExit, Exception):
    """
    Ends the program with one line that says why.

    An Exception too: in the background twistd's parent process hears of nothing else,
    and would wait for ever.
    """


class ListeningService(Service):
    """
    Listen while running; the parts that are the same with and without workers.

    Under twistd the port is bound before privileges are dropped; twist knows no such
    moment, and it is bound at the start.

    :param name: Who we are in ``Via``.
    :param notes: Warnings to log at the start.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, options: Options, name: bytes, notes: list[str]
    ) -> None:
        self._reactor = reactor
        self._options = options
        self._own_name = name
        self._notes = notes
        self._bound = False
        self._signals = Signals(reactor)

    def privilegedStartService(self) -> None:
        """Bind the port."""
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """Bind the port if that was not done yet, and begin."""
        super().startService()
        if not self._bound:
            self._listen()
        for note in self._notes:
            self.log.warn("{note}", note=note)
        self._signals.on_hang_up(self.reload)

    def _listen(self) -> None:
        address, port = str(self._options["listen-address"]), self._options["port"]
        try:
            host, port = self._bind(address, port)
        except (CannotListenError, OSError) as error:
            reason = getattr(error, "socketError", error)
            raise CannotServe(
                f"coda-proxy cannot listen on {_url(address, port)}: "
                f"{getattr(reason, 'strerror', reason)}. "
                "Is it running already? Choose another port by --port."
            ) from None
        self._bound = True
        workers = self._options["workers"]
        self.log.info(
            "coda-proxy serves {url}, upstream: {upstream}{workers}",
            url=_url(host, port),
            upstream=str(self._options["proxy"] or "direct"),
            workers=f", workers: {workers}" if workers else "",
        )

    def _bind(self, address: str, port: int) -> tuple[str, int]:
        """Listen; say where it came to be."""
        raise NotImplementedError

    def reload(self) -> None:
        """Read the files again, and do as they say from now on."""
        try:
            self._renew(self._options.read_again())
        except UsageError as error:
            self.log.error(
                "nothing was reloaded, all goes on as before: {error}", error=error
            )

    def _renew(self, options: Options) -> None:
        raise NotImplementedError

    def stopService(self) -> Deferred[Any]:
        """Stop listening, let what is under way end in time, end the rest."""
        super().stopService()
        seconds = self._options["drain-timeout"]
        ended = self._end(seconds)
        if not ended.called:
            self._signals.on_end(self.cut)
            self.log.info(
                "stopping: what is under way has {seconds:g} s to end; "
                "a second signal ends it now",
                seconds=seconds,
            )
        return ended.addBoth(self._ended)

    def _ended(self, result: Any) -> Any:
        self._signals.restore()
        return result

    def _end(self, seconds: float) -> Deferred[Any]:
        raise NotImplementedError

    def cut(self) -> None:
        """End what is under way."""
        raise NotImplementedError


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
