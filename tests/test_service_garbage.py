"""Clients, requests and tunnels leave nothing to the cycle collector."""

from __future__ import annotations

from tests.front import Caller, FrontCase
from tests.test_client_exchange import PROXY
from tests.test_client_garbage import garbage

GET = b"GET http://site/ HTTP/1.1\r\nHost: site\r\n\r\n"
PUT = b"PUT http://site/ HTTP/1.1\r\nHost: site\r\nContent-Length: 3\r\n\r\n"
CONNECT = b"CONNECT site:443 HTTP/1.1\r\nHost: site:443\r\n\r\n"

REFUSED = (
    b"nonsense\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: site\r\n\r\n",
    PUT.replace(b"http:", b"ftp:"),
    PUT.replace(b"\r\n\r\n", b"\r\nVia: 1.1 coda-test\r\n\r\n"),
    CONNECT.replace(b":443", b""),
)
"""What is refused, each for another reason."""


class GarbageTests(FrontCase):
    """What is left when all of it is over."""

    route = PROXY

    def forget(self, caller: Caller) -> None:
        """Close everything, and let the test forget it."""
        caller.finish()
        for peer in self.wire.peers:
            peer.close()
        self.loop.turn()
        self.wire.peers.clear()
        self._events.clear()
        self.assertEqual(self.proxy.connections, set())

    def test_requests(self) -> None:
        """Connections that carried requests."""

        def act() -> None:
            caller = self.caller().send(GET)
            self.reply(200, body=b"hello")
            caller.send(PUT + b"abc")
            self.reply(201)
            caller.send(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(caller.statuses, [200, 201, 200])
            self.forget(caller)

        self.assertEqual(garbage(act, 50), [])

    def test_refused(self) -> None:
        """Requests that were refused by us."""

        def act() -> None:
            for message in REFUSED:
                caller = self.caller().send(message)
                self.assertGreaterEqual(caller.answer.status, 400)
                self.forget(caller)

        self.assertEqual(garbage(act, 50), [])

    def test_gone(self) -> None:
        """
        Clients that went away in the middle of an answer.

        Those that go before it has begun leave a coroutine that failed, and Twisted
        leaves each of those to the collector.
        """

        def act() -> None:
            for message in (GET, PUT):
                caller = self.caller().send(message)
                self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
                self.forget(caller)

        self.assertEqual(garbage(act, 50), [])

    def test_tunnels(self) -> None:
        """Tunnels."""

        def act() -> None:
            caller = self.caller().send(CONNECT)
            self.peer().open_tunnel(b"hello")
            self.loop.turn()
            self.assertEqual(caller.statuses, [200])
            self.forget(caller)

        self.assertEqual(garbage(act, 50), [])
