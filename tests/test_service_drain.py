"""How the service's connections end when it stops: :meth:`Proxy.drain`."""

from __future__ import annotations

from tests.front import FrontCase

GET = b"GET http://site/ HTTP/1.1\r\nHost: site\r\n\r\n"
CONNECT = b"CONNECT site:443 HTTP/1.1\r\nHost: site:443\r\n\r\n"


class DrainTests(FrontCase):
    """What is under way ends in good order, and is the last on its connection."""

    def test_nothing(self) -> None:
        """Without connections there is nothing to wait for."""
        self.successResultOf(self.proxy.drain(30, 1))
        self.assertEqual(self.loop.getDelayedCalls(), [])

    def test_in_flight(self) -> None:
        """The answer under way says that it is the last; then the connection ends."""
        caller = self.caller().send(GET)
        drained = self.proxy.drain(30, 1)
        self.assertNoResult(drained)
        self.reply(200, body=b"hello")
        self.assertEqual(caller.answer.body, b"hello")
        self.assertEqual(caller.answer.get(b"Connection"), b"close")
        self.assertTrue(caller.socket.closed)
        self.assertFalse(caller.socket.reset)
        self.successResultOf(drained)

    def test_begun(self) -> None:
        """One whose head is out already is completed; the connection waits a little."""
        caller = self.caller().send(GET)
        self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        drained = self.proxy.drain(30, 1)
        self.say(b"hello")
        self.assertEqual(caller.answer.body, b"hello")
        self.assertFalse(caller.closed)
        self.loop.pass_time(1)
        self.assertTrue(caller.socket.closed)
        self.successResultOf(drained)

    def test_idle(self) -> None:
        """Connections without a request are kept for a moment, new ones too."""
        used, fresh = self.caller().send(GET), self.caller()
        self.reply()
        self.loop.pass_time(30)
        drained = self.proxy.drain(30, 1)
        self.loop.pass_time(0.5)
        late = self.caller()
        self.assertFalse(used.closed or fresh.closed)
        self.loop.pass_time(0.5)
        self.assertTrue(used.closed and fresh.closed)
        self.assertFalse(late.closed)
        self.loop.pass_time(0.5)
        self.successResultOf(drained)

    def test_race(self) -> None:
        """A request that was on its way is answered, as the last."""
        caller = self.caller().send(GET)
        self.reply()
        self.proxy.drain(30, 1)
        caller.send(GET)
        self.reply(204)
        self.assertEqual(caller.statuses, [200, 204])
        self.assertEqual(caller.answer.get(b"Connection"), b"close")
        self.assertTrue(caller.socket.closed)

    def test_pipelined(self) -> None:
        """The answer under way is the last, whatever is queued behind its request."""
        caller = self.caller()
        caller.send(GET * 2, b"GET", b"GET")
        self.proxy.drain(30, 1)
        self.reply()
        self.assertEqual(caller.statuses, [200])
        self.assertTrue(caller.closed)

    def test_tunnel(self) -> None:
        """A tunnel goes on until the time is over, and is cut then."""
        caller = self.caller().send(CONNECT)
        drained = self.proxy.drain(30, 1)
        caller.more(b"ping")
        self.loop.pass_time(29)
        self.assertFalse(caller.closed)
        self.assertNoResult(drained)
        self.loop.pass_time(1)
        self.assertTrue(caller.socket.reset)
        self.successResultOf(drained)
        self.assertIn("1 connections are cut", self.lines)

    def test_for_ever(self) -> None:
        """Without a limit it goes on as long as it likes."""
        caller = self.caller().send(CONNECT)
        drained = self.proxy.drain(None, 1)
        self.loop.pass_time(24 * 3600)
        self.assertFalse(caller.closed)
        caller.vanish()
        self.successResultOf(drained)

    def test_twice(self) -> None:
        """Who drains already can be told to be quicker, or to stop at once."""
        caller = self.caller().send(CONNECT)
        slow, quick = self.proxy.drain(None, 15), self.proxy.drain(10, 1)
        self.loop.pass_time(10)
        self.assertTrue(caller.socket.reset)
        self.successResultOf(slow)
        self.successResultOf(quick)
        self.caller().send(CONNECT)
        drained, stopped = self.proxy.drain(10, 1), self.proxy.stop()
        self.loop.turn()
        self.successResultOf(drained)
        self.successResultOf(stopped)
        self.assertEqual(self.loop.getDelayedCalls(), [])
