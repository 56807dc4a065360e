"""
How much the service asks of the kernel.

System calls are counted, not time, so that the figures are the same on every
machine.  The limits stand a little above what was counted when they were written;
whoever makes it cheaper lowers them.
"""

from __future__ import annotations

from collections import Counter
from threading import Thread

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.raw import Listener, Wire
from tests.integration.strace import TracedProxy

ROUNDS = 50

MARKS = [b"warm", b"warm", b"first", *[b"more"] * (ROUNDS - 1), b"last"]
"""What each request is marked by; between the first and the last it is counted."""

REQUEST = {"recvfrom": 2.1, "sendto": 2.1, "epoll_wait": 2.1, "epoll_ctl": 0.1}
REQUEST_TOTAL = 6.3

MIB = 1 << 20
BULK = 64
BULK_TOTAL = 24.0
"""For each MiB through a tunnel, or of large content."""

TUNNEL_TOTAL = 48.0
"""Without those by which threads wait for each other, whose number is by chance."""


class SystemCallTests(SynchronousTestCase):
    """What one request, and one tunnel, may cost."""

    def setUp(self) -> None:
        self.service = TracedProxy("-q")
        self.service.start()
        self.addCleanup(self.service.stop)
        self.server = Listener()
        self.addCleanup(self.server.close)
        self.authority = self.server.authority.encode("ascii")

    def counted(self) -> Counter[str]:
        """Stop the service, and tell the calls between the marks."""
        self.service.stop()
        calls = self.service.calls_between("X: first", "X: last")
        del calls["futex"]
        return calls

    def open_tunnel(self, mark: bytes) -> tuple[Wire, Wire]:
        """Have both ends of a tunnel."""
        client = Wire.to(self.service.port)
        self.addCleanup(client.close)
        client.send(
            b"CONNECT %b HTTP/1.1\r\nX: %b\r\nHost: %b\r\n\r\n"
            % (self.authority, mark, self.authority)
        )
        server = self.server.accept()
        self.addCleanup(server.close)
        self.assertEqual(client.head().status, 200)
        return client, server

    def test_request(self) -> None:
        """A GET on kept connections reads, writes and waits twice."""
        client = Wire.to(self.service.port)
        self.addCleanup(client.close)
        server: Wire | None = None
        for mark in MARKS:
            client.send(
                b"GET http://%b/ HTTP/1.1\r\nX: %b\r\nHost: %b\r\n\r\n"
                % (self.authority, mark, self.authority)
            )
            if server is None:
                server = self.server.accept()
                self.addCleanup(server.close)
            self.assertEqual(server.head().line, "GET / HTTP/1.1")
            server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            head, content = client.response()
            self.assertEqual((head.status, content), (200, b"hello"))

        calls = self.counted()

        for name, limit in REQUEST.items():
            self.assertLessEqual(calls[name] / ROUNDS, limit, f"{name} in {calls}")
        self.assertLessEqual(calls.total() / ROUNDS, REQUEST_TOTAL, f"{calls}")

    def test_tunnel(self) -> None:
        """From its CONNECT to the end of both connections, four octets each way."""
        for mark in MARKS:
            client, server = self.open_tunnel(mark)
            client.send(b"ping")
            self.assertEqual(server.exactly(4), b"ping")
            server.send(b"pong")
            self.assertEqual(client.exactly(4), b"pong")
            client.close()
            self.assertEqual(server.rest(), b"")
            server.close()

        calls = self.counted()

        self.assertLessEqual(calls.total() / ROUNDS, TUNNEL_TOTAL, f"{calls}")

    def test_bulk(self) -> None:
        """A MiB through a tunnel is moved in large pieces."""
        self.open_tunnel(b"warm")
        client, server = self.open_tunnel(b"first")
        sender = Thread(target=server.send, args=(bytes(BULK * MIB),))
        sender.start()
        left = BULK * MIB
        while left:
            left -= len(client.some())
        sender.join()
        client.close()
        self.assertEqual(server.rest(), b"")
        self.open_tunnel(b"last")

        self.assert_moved_in_large_pieces()

    def test_large_content(self) -> None:
        """So is a MiB of a response, and one of a request."""
        head = b"Content-Length: %d\r\n\r\n" % (BULK // 2 * MIB)
        content = bytes(BULK // 2 * MIB)
        self.open_tunnel(b"first")
        client = Wire.to(self.service.port)
        self.addCleanup(client.close)
        client.send(
            b"PUT http://%b/ HTTP/1.1\r\nHost: %b\r\n%b"
            % (self.authority, self.authority, head)
        )
        server = self.server.accept()
        self.addCleanup(server.close)
        server.head()
        for source, sink in ((client, server), (server, client)):
            sender = Thread(target=source.send, args=(content,))
            sender.start()
            left = len(content)
            while left:
                left -= len(sink.some())
            sender.join()
            if source is client:
                server.send(b"HTTP/1.1 200 OK\r\n" + head)
                client.head()
        self.open_tunnel(b"last")
        self.assert_moved_in_large_pieces()

    def assert_moved_in_large_pieces(self) -> None:
        calls = self.counted()
        self.assertLessEqual(calls.total() / BULK, BULK_TOTAL, f"{calls}")
