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

MAX_IDLE_PER_KEY = 128
"""
Idle connections kept under one key.

Answers come in bursts: with fewer than there are requests at once, connections are
closed and opened all the time, which doubled the cost of 64 at once.
"""


class _Shelf:
    """
    The connections under one key.

    :ivar idle: Those that wait, and since when; the newest last: it is the likeliest
        to be alive, and in a lull the others age out.
    :ivar open: How many there are, in use or idle.
    :ivar waiters: Who waits for one.
    """

    __slots__ = ("idle", "key", "open", "waiters")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.idle: list[tuple[HTTPConnection, float]] = []
        self.open = 0
        self.waiters: deque[Deferred[None]] = deque()


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
        self._shelves: dict[Hashable, _Shelf] = {}
        # Those on a shelf, and those whose transport is still closing.
        self._all: set[HTTPConnection] = set()
        self._sweep: IDelayedCall | None = None
        self._closed: Deferred[None] | None = None
        self._retired: Deferred[None] | None = None

    def take(self, key: Hashable) -> HTTPConnection | None:
        """
        Take the most recently used idle connection, if there is one.

        It is claimed; once released it comes back by itself, when its response has
        been read and if it may be used again.
        """
        shelf = self._shelves.get(key)
        if shelf is None or not shelf.idle:
            return None
        connection = shelf.idle.pop()[0]
        connection.claimed = True
        return connection

    async def lease(
        self,
        key: Hashable,
        connect: Callable[[], Awaitable[HTTPConnection]],
        *,
        fresh: bool = False,
    ) -> HTTPConnection:
        """
        Take an idle connection, or open one; either is claimed as by :meth:`take`.

        :param connect: Opens a connection; its failure is passed on.
        :param fresh: Do not take an idle one.
        """
        while True:
            connection = None if fresh else self.take(key)
            if connection is not None:
                return connection
            shelf = self._shelves.get(key)
            if shelf is None:
                shelf = self._shelves[key] = _Shelf(key)
            if shelf.open < self._max_per_key:
                return await self._connect(shelf, connect)
            if fresh and (stale := self.take(key)) is not None:
                stale.close()
                continue
            await self._turn(shelf)

    async def _turn(self, shelf: _Shelf) -> None:
        """Wait until a connection is idle or gone."""
        turn: Deferred[None] = Deferred()
        shelf.waiters.append(turn)
        try:
            await turn
        finally:
            # A waiter that was cancelled is still in the queue.
            if turn in shelf.waiters:
                shelf.waiters.remove(turn)

    async def _connect(
        self, shelf: _Shelf, connect: Callable[[], Awaitable[HTTPConnection]]
    ) -> HTTPConnection:
        shelf.open += 1
        try:
            connection = await connect()
        except Exception:
            self._forget(shelf)
            raise
        connection.shelf = shelf
        connection.claimed = True
        if not connection.lost:
            self._all.add(connection)
            connection.on_lost = self._lost
        if connection.state is State.CLOSED:
            self._forget(shelf)
            return connection
        connection.on_closed = self._gone
        connection.on_idle = self.give_back
        if self._closed is not None:
            connection.abort()
        return connection

    def give_back(self, connection: HTTPConnection) -> None:
        """Take back an idle connection."""
        shelf: _Shelf = connection.shelf
        idle = shelf.idle
        idle.append((connection, self._clock.seconds()))
        if self._closed is not None or len(idle) > self._max_idle:
            idle[0][0].close()
            return
        if self._retired is not None and not shelf.waiters:
            connection.close()
            return
        if self._sweep is None:
            self._sweep = self._clock.callLater(self._idle_limit, self._expire)
        if shelf.waiters:
            shelf.waiters.popleft().callback(None)

    def _gone(self, connection: HTTPConnection) -> None:
        """Give up the place of a connection that closed, or became a tunnel."""
        shelf: _Shelf = connection.shelf
        if connection.state is State.DETACHED:
            self._all.discard(connection)
        if shelf.idle:
            shelf.idle = [entry for entry in shelf.idle if entry[0] is not connection]
        self._forget(shelf)

    def _lost(self, connection: HTTPConnection) -> None:
        """Forget a connection whose transport is gone."""
        self._all.discard(connection)
        self._check_closed()

    def _forget(self, shelf: _Shelf) -> None:
        """Give up one place, and the shelf with the last."""
        shelf.open -= 1
        if shelf.waiters:
            shelf.waiters.popleft().callback(None)
        if not (shelf.open or shelf.waiters):
            del self._shelves[shelf.key]
        self._check_closed()

    def _expire(self) -> None:
        """Close what was idle for too long; look again when the next one is due."""
        self._sweep = None
        due = self._clock.seconds() - self._idle_limit
        oldest: float | None = None
        for shelf in list(self._shelves.values()):
            for connection, since in list(shelf.idle):
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
        for shelf in list(self._shelves.values()):
            if which is None or which(shelf.key):
                for connection, _ in list(shelf.idle):
                    connection.close()

    def retire(self) -> Deferred[None]:
        """
        Close what is idle, and from now on whatever comes back and nobody waits for.

        :returns: Fires when nothing is left.
        """
        self._retired = Deferred()
        self.close_idle()
        self._check_closed()
        return self._retired

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
        if self._shelves or self._all:
            return
        for left in (self._retired, self._closed):
            if left is not None and not left.called:
                left.callback(None)
