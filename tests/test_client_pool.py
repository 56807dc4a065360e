"""Tests for :mod:`coda_twisted.client.pool`."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.client.connection import FAREWELL, HTTPConnection, State
from coda_twisted.client.pool import Pool
from coda_twisted.client.timeouts import Timeouts
from tests.wire import Peer


class PoolTests(SynchronousTestCase):
    """Connections are lent, come back, and end."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.pool = Pool(self.clock, idle=60, max_per_key=2, max_idle_per_key=2)
        self.peers: list[Peer] = []

    async def connect(self) -> HTTPConnection:
        connection = HTTPConnection(self.clock, Timeouts())
        peer = Peer("h", 80)
        peer.transport.protocol = connection
        connection.makeConnection(peer.transport)
        self.peers.append(peer)
        return connection

    def lease(self, key: str = "k", *, fresh: bool = False) -> Deferred[HTTPConnection]:
        return Deferred.fromCoroutine(self.pool.lease(key, self.connect, fresh=fresh))

    def leased(self, key: str = "k", *, fresh: bool = False) -> HTTPConnection:
        return self.successResultOf(self.lease(key, fresh=fresh))

    def test_latest_first(self) -> None:
        """The connection used last is used next."""
        first, second = self.leased(), self.leased()
        first.release()
        second.release()
        self.assertIs(self.leased(), second)
        self.assertIs(self.leased(), first)

    def test_keys_do_not_mix(self) -> None:
        """A connection is never found under another key."""
        alice = self.leased("alice")
        alice.release()
        self.assertIsNot(self.leased("bob"), alice)
        self.assertIs(self.leased("alice"), alice)

    def test_retire(self) -> None:
        """A pool that retires lets everything end, and aborts nothing."""
        idle, used, wanted = self.leased("a"), self.leased(), self.leased()
        idle.release()
        turn = self.lease()
        retired = self.pool.retire()
        self.assertIs(idle.state, State.CLOSED)
        self.assertIs(used.state, State.IDLE)
        wanted.release()
        self.assertIs(self.successResultOf(turn), wanted)
        for connection in (wanted, used):
            self.assertNoResult(retired)
            connection.release()
            self.assertIs(connection.state, State.CLOSED)
        self.clock.advance(FAREWELL)
        self.successResultOf(retired)
        self.successResultOf(self.pool.close())

    def test_fresh(self) -> None:
        """Whoever asks for a fresh connection gets one."""
        first = self.leased()
        first.release()
        self.assertIsNot(self.leased(fresh=True), first)

    def test_fresh_at_the_limit(self) -> None:
        """At the limit a fresh connection takes the place of an idle one."""
        first = self.leased()
        self.leased()
        first.release()
        third = self.leased(fresh=True)
        self.assertIsNot(third, first)
        self.assertEqual(first.state, State.CLOSED)

    def test_limit_queues_in_order(self) -> None:
        """Beyond the limit requests wait their turn."""
        first, second = self.leased(), self.leased()
        third, fourth = self.lease(), self.lease()
        self.assertNoResult(third)
        second.release()
        self.assertIs(self.successResultOf(third), second)
        self.assertNoResult(fourth)
        first.close()
        self.successResultOf(fourth)
        self.assertEqual(len(self.peers), 3)

    def test_cancelled_waiter(self) -> None:
        """A waiter that gave up takes nobody's turn."""
        first = self.leased()
        self.leased()
        gone, stays = self.lease(), self.lease()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        first.release()
        self.assertIs(self.successResultOf(stays), first)

    def test_failed_connect_frees_its_place(self) -> None:
        """A connection that could not be opened does not count."""

        async def refused() -> HTTPConnection:
            raise ConnectionRefusedError

        for _ in range(5):
            failing = Deferred.fromCoroutine(self.pool.lease("k", refused))
            self.failureResultOf(failing, ConnectionRefusedError)
        self.leased()
        self.leased()

    def test_closed_by_the_peer(self) -> None:
        """An idle connection that the peer closes is not lent again."""
        self.leased().release()
        self.peers[0].close()
        self.leased()
        self.assertEqual(len(self.peers), 2)

    def test_idle_limit(self) -> None:
        """Idle connections are closed after their time, by one timer for all."""
        first, second = self.leased("a"), self.leased("b")
        first.release()
        self.clock.advance(30)
        second.release()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(30)
        self.assertEqual(first.state, State.CLOSED)
        self.assertEqual(second.state, State.IDLE)
        self.clock.advance(30)
        self.assertEqual(second.state, State.CLOSED)
        for peer in self.peers:
            peer.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_many_idle(self) -> None:
        """More idle connections than are kept cost the oldest."""
        pool = self.pool = Pool(self.clock, max_per_key=9, max_idle_per_key=2)
        leases = [self.leased() for _ in range(3)]
        for each in leases:
            each.release()
        self.assertEqual(
            [each.state for each in leases], [State.CLOSED, State.IDLE, State.IDLE]
        )
        pool.close_idle()
        self.assertEqual({each.state for each in leases}, {State.CLOSED})
        closed = pool.close()
        self.clock.advance(FAREWELL)
        self.successResultOf(closed)

    def test_close(self) -> None:
        """Closing the pool ends what is idle and what is in use, sockets included."""
        self.leased("a").release()
        used = self.leased("b")
        closed = self.pool.close()
        self.assertEqual(used.state, State.CLOSED)
        for peer in self.peers:
            self.assertNoResult(closed)
            peer.close()
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(self.pool.close())

    def test_close_waits_for_no_tunnel(self) -> None:
        """A connection that was detached is its new owner's to close."""
        connection = self.leased()
        connection.detach(Protocol())
        self.successResultOf(self.pool.close())
        self.assertFalse(self.peers[0].dropped)
        self.peers[0].close()

    def test_opened_after_close(self) -> None:
        """A connection that comes up after the end is dropped."""
        opening: Deferred[None] = Deferred()

        async def slowly() -> HTTPConnection:
            await opening
            return await self.connect()

        lease = Deferred.fromCoroutine(self.pool.lease("k", slowly))
        closed = self.pool.close()
        self.assertNoResult(closed)
        opening.callback(None)
        self.assertEqual(self.successResultOf(lease).state, State.CLOSED)
        self.successResultOf(closed)

    def test_lost_while_opening(self) -> None:
        """A connection that ends as it opens does not hold a place."""

        async def stillborn() -> HTTPConnection:
            connection = await self.connect()
            self.peers[-1].reset()
            return connection

        for _ in range(5):
            lease = Deferred.fromCoroutine(self.pool.lease("k", stillborn))
            self.assertEqual(self.successResultOf(lease).state, State.CLOSED)
        self.leased()

    def test_closed_while_opening(self) -> None:
        """One that is told to end as it opens holds no place, but its socket does."""

        async def moribund() -> HTTPConnection:
            connection = await self.connect()
            connection.close()
            return connection

        for _ in range(3):
            lease = Deferred.fromCoroutine(self.pool.lease("k", moribund))
            self.assertEqual(self.successResultOf(lease).state, State.CLOSED)
        closed = self.pool.close()
        for peer in self.peers:
            self.assertNoResult(closed)
            peer.close()
        self.successResultOf(closed)
