"""
Connections that wait for their next request.

A key says all that makes two connections interchangeable: the way, the tunnel's
end, and whose connection it is.  So a connection that was authenticated as one
user is never found under another's key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Hashable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from coda_twisted.client.connection import HTTPConnection, State

__all__ = ["Pool"]

MAX_PER_KEY = 512
"""
Connections open at once under one key, in use or idle.

Behind one upstream proxy every plain-http request of the machine has the same
key, long polls included.  curl's multi interface and Go have no limit, browsers
allow 32 per proxy, px 0.13 keeps 256.
"""

MAX_IDLE_PER_KEY = 32
"""Idle connections kept under one key; Squid's own default for servers is 30."""


class Pool:
    """
    Lend connections out and take them back.

    :param clock: For the idle limit.
    :param idle: Seconds for which an unused connection is kept.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        idle: float = 60.0,
        max_per_key: int = MAX_PER_KEY,
        max_idle_per_key: int = MAX_IDLE_PER_KEY,
    ) -> None:
        self._clock = clock
        self._idle_limit = idle
        self._max_per_key = max_per_key
        self._max_idle = max_idle_per_key
        # The newest last: it is the likeliest to be alive, and in a lull the
        # others age out.
        self._idle: dict[Hashable, list[tuple[HTTPConnection, float]]] = {}
        self._open: dict[Hashable, int] = {}
        self._waiters: dict[Hashable, deque[Deferred[None]]] = {}
        # Those under a key, and those whose transport is still closing.
        self._all: set[HTTPConnection] = set()
        self._sweep: IDelayedCall | None = None
        self._closed: Deferred[None] | None = None

    def take(self, key: Hashable) -> HTTPConnection | None:
        """Take the most recently used idle connection, if there is one."""
        idle = self._idle.get(key)
        if not idle:
            return None
        connection, _ = idle.pop()
        if not idle:
            del self._idle[key]
        return connection

    async def lease(
        self,
        key: Hashable,
        connect: Callable[[], Awaitable[HTTPConnection]],
        *,
        fresh: bool = False,
    ) -> HTTPConnection:
        """
        Take an idle connection, or open one.

        It is claimed; once released it comes back by itself, when its response
        has been read and if it may be used again.

        :param connect: Opens a connection; its failure is passed on.
        :param fresh: Do not take an idle one.
        """
        while True:
            connection = None if fresh else self.take(key)
            if connection is not None:
                connection.claimed = True
                return connection
            if self._open.get(key, 0) < self._max_per_key:
                return await self._connect(key, connect)
            if fresh and (stale := self.take(key)) is not None:
                stale.close()
                continue
            await self._turn(key)

    async def _turn(self, key: Hashable) -> None:
        """Wait until a connection under *key* is idle or gone."""
        waiters = self._waiters.setdefault(key, deque())
        turn: Deferred[None] = Deferred()
        waiters.append(turn)
        try:
            await turn
        finally:
            # A waiter that was cancelled is still in the queue.
            if turn in waiters:
                waiters.remove(turn)

    async def _connect(
        self, key: Hashable, connect: Callable[[], Awaitable[HTTPConnection]]
    ) -> HTTPConnection:
        self._open[key] = self._open.get(key, 0) + 1
        try:
            connection = await connect()
        except Exception:
            self._forget(key)
            raise
        connection.key = key
        connection.claimed = True
        if not connection.lost:
            self._all.add(connection)
            connection.on_lost = self._lost
        if connection.state is State.CLOSED:
            self._forget(key)
            return connection
        connection.on_closed = self._gone
        connection.on_idle = self.give_back
        if self._closed is not None:
            connection.abort()
        return connection

    def give_back(self, connection: HTTPConnection) -> None:
        """Take back an idle connection."""
        key = connection.key
        idle = self._idle.setdefault(key, [])
        idle.append((connection, self._clock.seconds()))
        if self._closed is not None or len(idle) > self._max_idle:
            idle[0][0].close()
            return
        if self._sweep is None:
            self._sweep = self._clock.callLater(self._idle_limit, self._expire)
        self._next_waiter(key)

    def _gone(self, connection: HTTPConnection) -> None:
        """Give up the place of a connection that closed, or became a tunnel."""
        key = connection.key
        if connection.state is State.DETACHED:
            self._all.discard(connection)
        idle = self._idle.get(key)
        if idle is not None:
            idle[:] = [entry for entry in idle if entry[0] is not connection]
            if not idle:
                del self._idle[key]
        self._forget(key)

    def _lost(self, connection: HTTPConnection) -> None:
        """Forget a connection whose transport is gone."""
        self._all.discard(connection)
        self._check_closed()

    def _forget(self, key: Hashable) -> None:
        left = self._open[key] - 1
        if left:
            self._open[key] = left
        else:
            del self._open[key]
        self._next_waiter(key)
        self._check_closed()

    def _next_waiter(self, key: Hashable) -> None:
        waiters = self._waiters.get(key)
        if waiters:
            waiters.popleft().callback(None)
        if waiters is not None and not waiters:
            del self._waiters[key]

    def _expire(self) -> None:
        """Close what was idle for too long; look again when the next one is due."""
        self._sweep = None
        due = self._clock.seconds() - self._idle_limit
        oldest: float | None = None
        for idle in list(self._idle.values()):
            for connection, since in list(idle):
                if since <= due:
                    connection.close()
                elif oldest is None or since < oldest:
                    oldest = since
        if oldest is not None and self._sweep is None:
            self._sweep = self._clock.callLater(
                oldest + self._idle_limit - self._clock.seconds(), self._expire
            )

    def close_idle(self, which: Callable[[Hashable], bool] | None = None) -> None:
        """
        Close what is idle now; connections in use stay poolable.

        :param which: Says of a key whether its connections are meant; by default
            all are.
        """
        for key, idle in list(self._idle.items()):
            if which is None or which(key):
                for connection, _ in list(idle):
                    connection.close()

    def close(self) -> Deferred[None]:
        """
        Close what is idle, abort what is in use.

        :returns: Fires when nothing is left, the sockets included.
        """
        if self._closed is None:
            self._closed = Deferred()
            if self._sweep is not None:
                self._sweep.cancel()
                self._sweep = None
            for connection in list(self._all):
                connection.close()
            self._check_closed()
        waiting: Deferred[None] = Deferred()
        self._closed.chainDeferred(waiting)
        return waiting

    def _check_closed(self) -> None:
        if self._closed is None or self._closed.called:
            return
        if not self._open and not self._all:
            self._closed.callback(None)
