"""Large content through the service, between sockets that are really TCP's."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import threading
import time
from pathlib import Path

from tests.integration.raw import Head, Wire
from tests.integration.test_service_behaviour import (
    MIB,
    PROMPTLY,
    BehaviourCase,
    _until_steady,
)

SIZE = 8 * MIB
"""More than the kernel keeps for two connections that are not read."""


def octets(size: int = SIZE) -> bytes:
    """Content no part of which looks like another."""
    return b"".join(
        hashlib.sha256(b"%d" % n).digest() for n in range((size + 31) // 32)
    )[:size]


CONTENT = octets()


class LargeCase(BehaviourCase):
    """A service of one test's own, whose descriptors are counted."""

    def setUp(self) -> None:
        super().setUp()
        self.own_service()

    @property
    def files(self) -> int:
        """How many descriptors the service has."""
        return len(os.listdir(f"/proc/{self.service.pid}/fd"))

    @property
    def sockets(self) -> int:
        """How many of them are sockets."""
        found = 0
        for each in Path(f"/proc/{self.service.pid}/fd").iterdir():
            try:
                found += os.readlink(each).startswith("socket:")
            except FileNotFoundError:
                continue
        return found

    def send(self, wire: Wire, data: bytes) -> threading.Thread:
        """Send from another thread, as long as the peer takes it."""

        def run() -> None:
            with contextlib.suppress(OSError):  # it may well be cut off
                wire.send(data)

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join, 15)
        return thread

    def head_of(self, size: int = SIZE, *fields: str) -> bytes:
        """Write a response's head."""
        lines = ["HTTP/1.1 200 OK", f"Content-Length: {size}", *fields]
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def downloading(self, window: int | None = None) -> tuple[Wire, Wire, Head]:
        """Have a large response begin: the client, the server, and the head."""
        client = self.client(window)
        client.send(self.request())
        server = self.accept()
        server.head()
        server.send(self.head_of())
        return client, server, client.head()

    def uploading(self, size: int = SIZE) -> tuple[Wire, Wire]:
        """Have a large request begin: the client and the server."""
        client = self.client()
        client.send(self.request("PUT", "/", f"Content-Length: {size}"))
        server = self.accept()
        server.head()
        return client, server

    def last_access(self) -> tuple[str, int, str | None]:
        """Status, octets and note of the latest line in the access log."""
        line = _until_steady(self.service.requests)[-1]
        return line.status, int(line.octets), line.note

    def assert_next_works(self, client: Wire, server: Wire | None) -> None:
        """Another request works on the same connection, and the same to the server."""
        client.send(self.request())
        server = server or self.accept()
        server.head()
        server.send(self.head_of(2) + b"ok")
        self.assertEqual(client.response()[1], b"ok")


class FewDescriptorsTests(LargeCase):
    """A service that may open nothing more."""

    def exhaust(self) -> None:
        """Let it open no descriptor beyond those that it has."""
        most = max(map(int, os.listdir(f"/proc/{self.service.pid}/fd"))) + 1
        pid = self.service.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, hard))
        # What is free below is taken by connections that say nothing.
        while len(os.listdir(f"/proc/{pid}/fd")) < most:
            before = self.files
            self.client()
            _until_steady(lambda: self.files)
            self.assertGreater(self.files, before)

    def test_tunnel(self) -> None:
        """A tunnel gets no pipe, and goes on all the same."""
        client, server = self.tunnel()
        self.exhaust()
        for source, sink in ((client, server), (server, client)):
            self.send(source, CONTENT)
            self.assertEqual(sink.exactly(SIZE), CONTENT)

    def test_download(self) -> None:
        """A response comes in the ordinary way, and so does the next."""
        client, server, _ = self.exchange(self.request())
        self.exhaust()
        server.send(self.head_of())
        self.send(server, CONTENT)
        self.assertEqual(client.content(client.head()), CONTENT)
        self.assert_next_works(client, server)

    def test_upload(self) -> None:
        """A request as well."""
        client = self.client()
        client.send(self.request())
        server = self.accept()
        server.head()
        server.send(self.head_of(2) + b"ok")
        client.response()
        self.exhaust()
        client.send(self.request("PUT", "/", f"Content-Length: {SIZE}"))
        server.head()
        self.send(client, CONTENT)
        self.assertEqual(server.exactly(SIZE), CONTENT)
        server.send(self.head_of(2) + b"ok")
        self.assertEqual(client.response()[1], b"ok")
        self.assert_next_works(client, server)


class DownloadTests(LargeCase):
    """Large responses."""

    def test_whole(self) -> None:
        """It is what was sent, and both connections can be used again."""
        for _ in range(3):
            client, server, head = self.downloading()
            self.send(server, CONTENT)
            self.assertEqual(client.content(head), CONTENT)
            self.assertEqual(self.last_access(), ("200", SIZE, None))
            self.assert_next_works(client, server)
            client.close()
            server.close()

    def test_nothing_is_left(self) -> None:
        """Neither sockets nor pipes accumulate."""
        counts = []
        for _ in range(4):
            client, server, head = self.downloading()
            self.send(server, CONTENT)
            client.content(head)
            client.close()
            server.close()
            counts.append(_until_steady(lambda: self.files))
        self.assertEqual(counts[1:], counts[1:2] * 3)

    def test_pipelined(self) -> None:
        """The next request may come while the content is on its way."""
        client, server, head = self.downloading()
        client.send(self.request("GET", "/next"))
        self.send(server, CONTENT)
        self.assertEqual(client.content(head), CONTENT)
        self.assertIn("/next", server.head().line)
        server.send(self.head_of(2) + b"ok")
        self.assertEqual(client.response()[1], b"ok")

    def test_ends_early(self) -> None:
        """A server that ends too early has the client's connection end, too."""
        for ends in (Wire.finish, Wire.reset):
            with self.subTest(ends=ends):
                client, server, _ = self.downloading()
                server.send(CONTENT[:MIB])
                self.assertEqual(client.exactly(MIB), CONTENT[:MIB])
                ends(server)
                self.assertEqual(client.rest(), b"")
                status, size, note = self.last_access()
                self.assertEqual((status, size), ("200", MIB))
                self.assertIn("cut short", note or "")
                self.assertEqual(_until_steady(lambda: self.sockets), 1)

    def test_surplus(self) -> None:
        """What follows the content is none of it, and ends the server's connection."""
        client, server, head = self.downloading()
        self.send(server, CONTENT + b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertEqual(client.content(head), CONTENT)
        self.assertLess(server.seconds_to_end(), PROMPTLY)
        self.assert_next_works(client, None)

    def test_last_of_a_connection(self) -> None:
        """A server that closes behind the content has sent all of it."""
        client = self.client()
        client.send(self.request())
        server = self.accept()
        server.head()
        server.send(self.head_of(SIZE, "Connection: close"))
        head = client.head()
        self.send(server, CONTENT).join(0.2)
        self.assertEqual(client.content(head), CONTENT)
        self.assertLess(server.seconds_to_end(), PROMPTLY)
        self.assert_next_works(client, None)

    def test_client_goes_away(self) -> None:
        """The server's connection does not outlive the client's."""
        for leaves in (Wire.close, Wire.reset, Wire.finish):
            for stalled in (False, True):
                with self.subTest(leaves=leaves, stalled=stalled):
                    client, server, _ = self.downloading()
                    if stalled:
                        self.send(server, CONTENT)
                        time.sleep(0.2)
                    else:
                        server.send(CONTENT[:MIB])
                        client.exactly(MIB)
                    leaves(client)
                    self.assertLess(server.seconds_to_end(), PROMPTLY)
                    client.close()
                    server.close()
                    self.assertEqual(_until_steady(lambda: self.sockets), 1)
                    self.assertEqual(self.last_access()[2], "the client went away")

    def test_slow(self) -> None:
        """The server sends no more than buffers hold, and all of it arrives."""
        client, server, head = self.downloading(window=16384)
        sending = self.send(server, CONTENT * 4)
        sending.join(0.5)
        self.assertTrue(sending.is_alive())
        self.assertEqual(client.content(head), CONTENT)

    def test_service_ends(self) -> None:
        """A service that is stopped ends it."""
        client, server, _ = self.downloading()
        server.send(CONTENT[:MIB])
        client.exactly(MIB)
        self.service.stop()
        for wire in (client, server):
            self.assertLess(wire.seconds_to_end(), PROMPTLY)
        self.assertNotIn("Traceback", self.service.log())

    def test_old_client(self) -> None:
        """A client of HTTP/1.0 gets the same."""
        client = self.client()
        client.send(self.request(version="1.0"))
        server = self.accept()
        server.head()
        server.send(self.head_of())
        self.send(server, CONTENT)
        client.head()
        self.assertEqual(client.rest(), CONTENT)


class UploadTests(LargeCase):
    """Large requests."""

    def test_whole(self) -> None:
        """It is what was sent, and both connections can be used again."""
        for _ in range(3):
            client, server = self.uploading()
            self.send(client, CONTENT)
            self.assertEqual(server.exactly(SIZE), CONTENT)
            server.send(self.head_of(2) + b"ok")
            self.assertEqual(client.response()[1], b"ok")
            self.assert_next_works(client, server)
            client.close()
            server.close()
        self.assertEqual(_until_steady(lambda: self.sockets), 1)

    def test_expected(self) -> None:
        """Content that waits for a 100 passes as well."""
        client = self.client()
        fields = f"Content-Length: {SIZE}", "Expect: 100-continue"
        client.send(self.request("PUT", "/", *fields))
        server = self.accept()
        server.head()
        server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(client.head().status, 100)
        self.send(client, CONTENT)
        self.assertEqual(server.exactly(SIZE), CONTENT)
        server.send(self.head_of(2) + b"ok")
        self.assertEqual(client.response()[1], b"ok")

    def test_early_answer(self) -> None:
        """An answer that comes first is passed on, whatever becomes of the rest."""
        for closes in (False, True):
            with self.subTest(closes=closes):
                client, server = self.uploading()
                client.send(CONTENT[:MIB])
                server.exactly(MIB)
                server.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
                if closes:
                    # Ours may have been the first to close.
                    with contextlib.suppress(OSError):
                        server.finish()
                head, content = client.response()
                self.assertEqual((head.status, content), (413, b"no"))
                self.assertEqual(head.get("Connection"), "close")
                client.close()
                self.assertLess(server.seconds_to_end(), PROMPTLY)
                self.assertEqual(_until_steady(lambda: self.sockets), 1)

    def test_early_answer_to_a_full_one(self) -> None:
        """The same when the server has long stopped reading."""
        client, server = self.uploading()
        self.send(client, CONTENT)
        time.sleep(0.3)
        server.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        head, content = client.response()
        self.assertEqual((head.status, content), (413, b"no"))
        self.assertLess(server.seconds_to_end(), PROMPTLY)

    def test_both_ways(self) -> None:
        """A server may answer at length while it is being asked."""
        client, server = self.uploading()
        server.send(self.head_of())
        head = client.head()
        self.send(client, CONTENT)
        sending = self.send(server, CONTENT[:0:-1])
        got: list[bytes] = []
        reading = threading.Thread(target=lambda: got.append(client.content(head)))
        reading.start()
        self.assertEqual(server.exactly(SIZE), CONTENT)
        sending.join(15)
        server.send(CONTENT[:1])  # an answer that is complete first would end it
        reading.join(15)
        self.assertEqual(got, [CONTENT[::-1]])

    def test_client_goes_away(self) -> None:
        """The server gets no request that looks whole."""
        for leaves in (Wire.close, Wire.reset, Wire.finish):
            for stalled in (False, True):
                with self.subTest(leaves=leaves, stalled=stalled):
                    client, server = self.uploading()
                    if stalled:
                        self.send(client, CONTENT[: 6 * MIB])
                        time.sleep(0.2)
                    else:
                        client.send(CONTENT[:MIB])
                        server.exactly(MIB)
                    leaves(client)
                    with contextlib.suppress(ConnectionResetError):
                        self.assertLess(len(server.rest()), SIZE)
                    client.close()
                    server.close()
                    self.assertEqual(_until_steady(lambda: self.sockets), 1)
                    self.assertEqual(self.last_access()[2], "the client went away")

    def test_server_goes_away(self) -> None:
        """The client is told."""
        for leaves in (Wire.close, Wire.reset):
            with self.subTest(leaves=leaves):
                client, server = self.uploading()
                client.send(CONTENT[:MIB])
                server.exactly(MIB)
                leaves(server)
                self.send(client, CONTENT[MIB:])
                self.assertEqual(client.response()[0].status, 502)
                client.close()
                self.assertEqual(_until_steady(lambda: self.sockets), 1)

    def test_slow(self) -> None:
        """The client sends no more than buffers hold, and all of it arrives."""
        client, server = self.uploading(4 * SIZE)
        sending = self.send(client, CONTENT * 4)
        sending.join(0.5)
        self.assertTrue(sending.is_alive())
        for _ in range(4):
            self.assertEqual(server.exactly(SIZE), CONTENT)


class TunnelTests(LargeCase):
    """Tunnels."""

    def test_both_ways_at_once(self) -> None:
        """Each side sends as much as it likes."""
        client, server = self.tunnel()
        self.send(client, CONTENT)
        self.send(server, CONTENT[::-1])
        got: list[bytes] = []
        reading = threading.Thread(target=lambda: got.append(client.exactly(SIZE)))
        reading.start()
        self.assertEqual(server.exactly(SIZE), CONTENT)
        reading.join(15)
        self.assertEqual(got, [CONTENT[::-1]])
        client.finish()
        self.assertEqual(server.rest(), b"")
        server.send(b"still here")
        server.finish()
        self.assertEqual(client.rest(), b"still here")
        status, size, _ = self.last_access()
        self.assertEqual((status, size), ("200", 2 * SIZE + 10))
        self.assertEqual(_until_steady(lambda: self.sockets), 1)

    def test_reset(self) -> None:
        """A reset in the middle is one for the other side."""
        for full in (False, True):
            for one, other in ((0, 1), (1, 0)):
                with self.subTest(full=full, one=one):
                    ends = self.tunnel()
                    ends[one].send(CONTENT[:MIB])
                    ends[other].exactly(MIB)
                    if full:
                        self.send(ends[other], CONTENT)
                        time.sleep(0.2)
                    ends[one].reset()
                    self.assertRaises(ConnectionResetError, self.find_out, ends[other])
                    self.assertEqual(_until_steady(lambda: self.sockets), 1)

    def find_out(self, wire: Wire) -> None:
        wire.rest()
        self.fail("that was an end in good order")

    def test_nothing_is_left(self) -> None:
        """Neither sockets nor pipes accumulate."""
        counts = []
        for _ in range(4):
            client, server = self.tunnel()
            self.send(server, CONTENT)
            client.exactly(SIZE)
            client.close()
            server.close()
            counts.append(_until_steady(lambda: self.files))
        self.assertEqual(counts[1:], counts[1:2] * 3)
