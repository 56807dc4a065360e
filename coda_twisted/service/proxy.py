"""What all connections of the service's clients share."""

from __future__ import annotations

from email.utils import formatdate
from itertools import count
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from coda_twisted.service.access import Access
from coda_twisted.service.accesslog import AccessLog
from coda_twisted.service.frontend import ClientConnection, NearEnd
from coda_twisted.service.limits import Limits
from coda_twisted.service.pipes import Pipes

if TYPE_CHECKING:
    from coda_twisted.client.exchange import Client

__all__ = ["Proxy"]


class Proxy(Factory):
    """
    What all clients' connections share.

    :param client: Carries requests; whoever made it closes it.
    :param limits: How long a client may take.
    :param log_queries: Whether the access log shows what is behind a ``?``.
    :param quiet: Whether there is no access log.
    :param prefix: What the requests' ids begin with.
    :ivar numbers: Number the requests.
    :ivar pipes: For what is relayed past our memory.
    :ivar access_log: ``None`` if there is to be none.
    :ivar name: Who we are in ``Via`` and ``Proxy-Status``; no two are the same, so
        that one of us can stand behind another.
    :ivar keep_alive: Seconds for which a connection without a request is kept.
    :ivar draining: Whether each answer from now on is its connection's last.
    """

    noisy = False
    log = Logger()

    def __init__(
        self,
        client: Client,
        clock: IReactorTime,
        access: Access,
        name: bytes,
        *,
        limits: Limits | None = None,
        log_queries: bool = False,
        quiet: bool = False,
        prefix: str = "r",
    ) -> None:
        self.client = client
        self.clock = clock
        self.access = access
        self.name = name
        self.limits = limits or Limits()
        self.pipes = Pipes()
        self.connections: set[ClientConnection | NearEnd] = set()
        self.access_log = None if quiet else AccessLog(clock, queries=log_queries)
        self.keep_alive = self.limits.keep_alive
        self.draining = False
        self.numbers = count(1)
        self._prefix = prefix
        self._date: tuple[int, bytes] = (-1, b"")
        self._empty: list[Deferred[None]] = []
        self._cut: IDelayedCall | None = None

    def buildProtocol(self, addr: IAddress | None) -> ClientConnection:
        """Make the protocol of one connection."""
        return ClientConnection(self)

    def id_of(self, number: int) -> str:
        """Name a request, for the log and for pages."""
        return f"{self._prefix}{number}"

    def date(self) -> bytes:
        """Write the time as fields have it (RFC 9110 5.6.7)."""
        now = int(self.clock.seconds())
        if self._date[0] != now:
            self._date = now, formatdate(now, usegmt=True).encode("ascii")
        return self._date[1]

    def make_room(self) -> None:
        """Close what can be spared: idle connections to servers, and pipes."""
        self.client.close_idle()
        self.pipes.close()

    def drain(self, seconds: float | None, idle: float) -> Deferred[None]:
        """
        Let what is under way come to its end; each answer is its connection's last.

        Nothing keeps new connections from coming; whoever listens sees to that.

        :param seconds: When to end what is left, tunnels included; ``None`` for never.
        :param idle: Seconds for which a connection without a request is kept.
        :returns: Fires when the last connection is gone.
        """
        self.draining = True
        if self.keep_alive is None or self.keep_alive > idle:
            self.keep_alive = idle
        for connection in list(self.connections):
            connection.wind_down()
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None
        if seconds is not None and self.connections:
            self._cut = self.clock.callLater(seconds, self._cut_short)
        return self._emptied()

    def _cut_short(self) -> None:
        self._cut = None
        self.log.info("{n} connections are cut", n=len(self.connections))
        self.stop()

    def stop(self) -> Deferred[None]:
        """
        End all connections.

        :returns: Fires when the last one is gone.
        """
        empty = self._emptied()
        for connection in list(self.connections):
            connection.drop()
        return empty

    def _emptied(self) -> Deferred[None]:
        empty: Deferred[None] = Deferred()
        empty.addCallback(lambda _: self.pipes.close())
        if self.connections:
            self._empty.append(empty)
        else:
            empty.callback(None)
        return empty

    def forget(self, connection: ClientConnection | NearEnd) -> None:
        """Take note that a connection is gone."""
        self.connections.discard(connection)
        if self.connections:
            return
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None
        waiting, self._empty = self._empty, []
        for empty in waiting:
            empty.callback(None)
