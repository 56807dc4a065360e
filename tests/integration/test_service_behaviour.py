"""
What the service does with requests, tunnels and its own process, octet by octet.

The service connects directly.  A test plays its client, and where need be the next
server too, so that it decides what comes when.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.integration import origin, squid
from tests.integration.coda import CodaProxy
from tests.integration.commands import Completed, curl, run
from tests.integration.people import ALICE, NTLM_DOMAIN
from tests.integration.raw import Head, Listener, Wire
from tests.integration.servers import free_port, workspace

T = TypeVar("T")

MIB = 1024 * 1024
LARGE = 256 * MIB
SMALL_GROWTH = 16 * MIB
PROMPTLY = 1.0


@functools.cache
def direct() -> CodaProxy:
    """The running service that these tests share; it has no upstream proxy."""
    service = CodaProxy()
    service.start()
    return service


class BehaviourCase(SynchronousTestCase):
    """A service, a client of it, and a server that does what the test says."""

    def setUp(self) -> None:
        self.service = direct()
        self.service.reset()
        self.origin = origin.origin()
        self.origin.reset()
        self.server = Listener()
        self.addCleanup(self.server.close)

    def tearDown(self) -> None:
        """Whatever was done to the service, nothing happened that nobody foresaw."""
        for service in {self.service, direct()}:
            self.assertNotIn("Traceback", service.log())
            self.assertNotIn("Unhandled", service.log())
        self.assertTrue(direct().running)

    def own_service(self, *options: str, port: int | None = None) -> CodaProxy:
        """Let this test have a service of its own."""
        self.service = CodaProxy(*options, port=port)
        self.service.start()
        self.addCleanup(self.service.stop)
        return self.service

    def client(self, window: int | None = None) -> Wire:
        """Connect to the service."""
        wire = Wire.to(self.service.port, window=window)
        self.addCleanup(wire.close)
        return wire

    def accept(self) -> Wire:
        """Take the service's connection to the server."""
        wire = self.server.accept()
        self.addCleanup(wire.close)
        return wire

    def request(
        self,
        method: str = "GET",
        path: str = "/",
        *fields: str,
        authority: str | None = None,
        version: str = "1.1",
    ) -> bytes:
        """Write a request's head; to the server, unless *authority* says where to."""
        host = authority or self.server.authority
        target = host if method == "CONNECT" else f"http://{host}{path}"
        lines = [f"{method} {target} HTTP/{version}", f"Host: {host}", *fields]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def ask(self, *arguments: str, **where: str) -> tuple[Head, bytes]:
        """Send one request on a connection of its own, and read the response."""
        with contextlib.closing(self.client()) as client:
            client.send(self.request(*arguments, **where))
            if arguments[:1] == ("HEAD",):
                return client.head(), b""
            return client.response()

    def exchange(self, request: bytes) -> tuple[Wire, Wire, Head]:
        """Send a request; the client's and the server's wire, and what came there."""
        client = self.client()
        client.send(request)
        server = self.accept()
        return client, server, server.head()

    def tunnel(self) -> tuple[Wire, Wire]:
        """Open a tunnel to the server; both ends of it."""
        client = self.client()
        client.send(self.request("CONNECT"))
        server = self.accept()
        self.assertEqual(client.head().status, 200)
        return client, server

    def at_origin(self, port: int | None = None) -> str:
        """The origin server's authority."""
        return f"localhost:{port or self.origin.port}"


class RequestTests(BehaviourCase):
    """Requests arrive as they were meant, and are answered in order."""

    def test_methods(self) -> None:
        """Any method is carried, known or not."""
        methods = "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE PROPFIND M-SEARCH x!~"
        for method in methods.split():
            head, _ = self.ask(method, "/echo", authority=self.at_origin())
            self.assertEqual(head.status, 200)
        seen = [each.method for each in self.origin.requests()]
        self.assertEqual(seen, methods.split())

    def test_options_of_the_proxy(self) -> None:
        """OPTIONS * asks about the service itself."""
        with contextlib.closing(self.client()) as client:
            client.send(b"OPTIONS * HTTP/1.1\r\nHost: proxy\r\n\r\n")
            head, content = client.response()
        self.assertEqual((head.status, content), (200, b""))

    def test_max_forwards(self) -> None:
        """OPTIONS and TRACE go as far as Max-Forwards says; secrets come not back."""
        secrets = ("Cookie: a=hush", "Authorization: Basic aHVzaA==")
        here = "Max-Forwards: 0"
        head, content = self.ask("TRACE", "/echo?a=b", here, *secrets, "X-Seen: 1")
        self.assertEqual((head.status, head.get("Content-Type")), (200, "message/http"))
        self.assertTrue(content.startswith(b"TRACE http://"), content)
        self.assertIn(b"X-Seen: 1", content)
        self.assertNotIn(b"hush", content)
        self.assertNotIn(b"aHVzaA", content)
        self.assertEqual(self.ask("OPTIONS", "/echo", here)[0].status, 200)
        self.ask("TRACE", "/echo", "Max-Forwards: 3", authority=self.at_origin())
        [received] = self.origin.requests()
        self.assertEqual(received.get("Max-Forwards"), "2")

    def test_pipelined(self) -> None:
        """Pipelined requests go one after the other, and so come the answers."""
        client = self.client()
        post = self.request("POST", "/b", "Content-Length: 4")
        client.send(
            self.request("GET", "/a") + post + b"bbbb" + self.request("GET", "/c")
        )
        server = self.accept()
        for path, content in (("/a", b""), ("/b", b"bbbb"), ("/c", b"")):
            head = server.head()
            self.assertEqual(head.line.split(" ")[1], path)
            self.assertEqual(server.exactly(len(content)), content)
            self.assertFalse(_readable(server), "the next one did not wait")
            server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
            server.send(path.encode())
        answers = [client.response()[1] for _ in range(3)]
        self.assertEqual(answers, [b"/a", b"/b", b"/c"])

    def test_pipelined_behind_a_slow_reader(self) -> None:
        """
        A client that asks for much and reads late gets all of it.

        The pause it forces on an answer must end with that answer, or the next
        request on the server's connection is never answered.
        """
        number, size = 300, 30_000
        client = self.client(window=4096)
        one = self.request("GET", f"/octets/{size}", authority=self.at_origin())
        client.send(one * number)
        _until_steady(lambda: len(self.origin.requests()))
        self.assertLess(len(self.origin.requests()), number)
        for _ in range(number):
            self.assertEqual(client.response()[1], origin.content(size))

    def test_old_client(self) -> None:
        """A client of HTTP/1.0 gets what it can understand."""
        for path, framing in (("/octets/9", "9"), ("/chunked/9", None)):
            with contextlib.closing(self.client()) as client:
                request = self.request(
                    "GET", path, authority=self.at_origin(), version="1.0"
                )
                client.send(request)
                head = client.head()
                self.assertEqual(head.get("Content-Length"), framing)
                self.assertIsNone(head.get("Transfer-Encoding"))
                self.assertEqual(client.rest(), origin.content(9))

    def test_trailers(self) -> None:
        """Trailers pass both ways; down, to a client that wants them."""
        client = self.client()
        where = {"authority": self.at_origin()}
        client.send(
            self.request("POST", "/echo", "Transfer-Encoding: chunked", **where)
            + b"3\r\nabc\r\n0\r\nX-Sum: 42\r\n\r\n"
        )
        client.response()
        [received] = self.origin.requests()
        self.assertIn(["X-Sum", "42"], [list(pair) for pair in received.trailers])
        for wanted in (("TE: trailers", "Connection: TE"), ()):
            client.send(self.request("GET", "/chunked/9", *wanted, **where))
            client.content(client.head())
            end = client.until(b"\r\n")
            if wanted:
                end += client.until(b"\r\n")
                self.assertIn(origin.sha256_of(9).encode(), end)
            else:
                self.assertEqual(end, b"\r\n")

    def test_early_answer(self) -> None:
        """An answer that comes before the content is passed on, and ends the upload."""
        client, server, _ = self.exchange(
            self.request("POST", "/", f"Content-Length: {8 * MIB}") + bytes(100_000)
        )
        server.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge")
        head, content = client.response()
        self.assertEqual((head.status, content), (413, b"large"))
        self.assertEqual(head.get("Connection"), "close")
        self.assertLess(server.seconds_to_end(), PROMPTLY)

    def test_early_answer_and_reset(self) -> None:
        """
        The answer of a server that does not linger is passed on all the same.

        Its closing resets the connection, and now and then that is noticed by writing,
        before the answer is read (RFC 9112 9.6).
        """
        file = workspace() / "early-upload"
        file.write_bytes(bytes(8 * MIB))
        for _ in range(5):
            answer = curl(
                self.origin.url("/early/413"),
                *("--proxy", self.service.url, "-T", str(file), "-H", "Expect:"),
            )
            self.assertEqual(answer.status, 413, answer.errors)


class InterimTests(BehaviourCase):
    """What is said before the final answer."""

    def test_continue(self) -> None:
        """The expectation goes up, the 100 comes down, and only then the content."""
        fields = ("Content-Length: 3", "Expect: 100-continue")
        client, server, head = self.exchange(self.request("POST", "/", *fields))
        self.assertEqual(head.get("Expect"), "100-continue")
        self.assertFalse(_readable(client))
        server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(client.head().status, 100)
        client.send(b"abc")
        self.assertEqual(server.exactly(3), b"abc")
        server.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.assertEqual(client.head().status, 204)

    def test_server_that_never_says_continue(self) -> None:
        """An origin that waits for the content in silence gets it."""
        client = self.client()
        fields = ("Content-Length: 3", "Expect: 100-continue")
        client.send(
            self.request("POST", "/final-only", *fields, authority=self.at_origin())
        )
        self.assertEqual(client.head().status, 100)
        client.send(b"abc")
        self.assertEqual(client.head().status, 200)
        [received] = self.origin.requests()
        self.assertEqual((received.length, received.complete), (3, True))

    def test_expectation_refused(self) -> None:
        """A final answer instead of a 100 is passed on, and no 100 is made up."""
        fields = ("Content-Length: 3", "Expect: 100-continue")
        client, server, _ = self.exchange(self.request("POST", "/", *fields))
        server.send(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
        head = client.head()
        self.assertEqual((head.status, head.get("Connection")), (403, "close"))

    def test_early_hints(self) -> None:
        """103 is passed on when it comes."""
        client, server, _ = self.exchange(self.request())
        server.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
        head = client.head()
        self.assertEqual((head.status, head.get("Link")), (103, "</a.css>"))
        self.assertFalse(_readable(client))
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(client.head().status, 200)

    def test_old_client(self) -> None:
        """A client of HTTP/1.0 hears only the final answer."""
        client, server, _ = self.exchange(self.request(version="1.0"))
        server.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(client.head().status, 200)


class UpgradeTests(BehaviourCase):
    """A change of protocols, as WebSocket's over plain http."""

    fields = (
        *("Connection: Upgrade", "Upgrade: websocket"),
        *("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"),
    )
    switch = (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"\r\n"
    )

    def test_upgrade(self) -> None:
        """After 101 every octet passes both ways, the very first ones too."""
        client, server, head = self.exchange(self.request("GET", "/", *self.fields))
        self.assertEqual(head.get("Upgrade"), "websocket")
        self.assertIn("upgrade", (head.get("Connection") or "").lower())
        self.assertEqual(head.get("Sec-WebSocket-Version"), "13")
        server.send(self.switch + b"\x81\x02hi")
        head = client.head()
        self.assertEqual((head.status, head.get("Upgrade")), (101, "websocket"))
        self.assertEqual(
            head.get("Sec-WebSocket-Accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        )
        self.assertEqual(client.exactly(4), b"\x81\x02hi")
        client.send(b"\x81\x80\0\0\0\0")
        self.assertEqual(server.exactly(6), b"\x81\x80\0\0\0\0")
        server.close()
        self.assertEqual(client.rest(), b"")

    def test_declined(self) -> None:
        """A server that goes on in HTTP is heard, and the connection lives on."""
        client, server, _ = self.exchange(self.request("GET", "/", *self.fields))
        for _ in range(2):
            server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
            self.assertEqual(client.response()[1], b"no")
            client.send(self.request())
            server.head()

    def test_unasked(self) -> None:
        """A 101 that nobody asked for is not believed."""
        client, server, _ = self.exchange(self.request())
        server.send(self.switch)
        head, _ = client.response()
        self.assertEqual(head.status, 502)


class TunnelTests(BehaviourCase):
    """CONNECT: two streams, each with its own end."""

    def test_half_closed_by_client(self) -> None:
        """A client that has said all still gets the answer."""
        client = self.client()
        raw = self.at_origin(self.origin.raw_port)
        client.send(self.request("CONNECT", authority=raw))
        self.assertEqual(client.head().status, 200)
        client.send(b"x" * 100_000)
        client.finish()
        expected = origin.BANNER + b"x" * 100_000 + b"100000 octets\r\n"
        self.assertEqual(client.rest(), expected)

    def test_half_closed_by_server(self) -> None:
        """A server that has said all still hears the client."""
        client, server = self.tunnel()
        server.send(b"bye")
        server.finish()
        self.assertEqual(client.rest(), b"bye")
        for _ in range(3):
            client.send(b"more")
            self.assertEqual(server.exactly(4), b"more")
        client.close()
        self.assertEqual(server.rest(), b"")

    def test_server_speaks_first(self) -> None:
        """A greeting comes before the client has said anything."""
        client = self.client()
        raw = self.at_origin(self.origin.raw_port)
        client.send(self.request("CONNECT", authority=raw))
        self.assertEqual(client.head().status, 200)
        self.assertEqual(client.exactly(len(origin.BANNER)), origin.BANNER)

    def test_early_data(self) -> None:
        """What a client sends behind CONNECT, without waiting, is not lost."""
        client = self.client()
        client.send(self.request("CONNECT") + b"early")
        server = self.accept()
        self.assertEqual(server.exactly(5), b"early")
        self.assertEqual(client.head().status, 200)
        client.send(b"late")
        self.assertEqual(server.exactly(4), b"late")

    def test_early_data_and_end(self) -> None:
        """Nor if it says nothing more."""
        client = self.client()
        raw = self.at_origin(self.origin.raw_port)
        client.send(self.request("CONNECT", authority=raw))
        client.head()
        client.send(b"early")
        client.finish()
        self.assertEqual(client.rest(), origin.BANNER + b"early5 octets\r\n")

    def test_reset(self) -> None:
        """An end that was not in good order is no end in good order."""
        client, server = self.tunnel()
        server.reset()
        with self.assertRaises(ConnectionResetError):
            client.rest()
        client, server = self.tunnel()
        client.reset()
        with self.assertRaises(ConnectionResetError):
            server.rest()

    def test_refused(self) -> None:
        """A tunnel to a port where nobody listens is refused with 502."""
        port = free_port()
        head, content = self.ask("CONNECT", "", authority=f"127.0.0.1:{port}")
        self.assertEqual(head.status, 502)
        self.assertIn("error=connection_refused", head.get("Proxy-Status") or "")
        self.assertIn(b"refused", content)


class GoneTests(BehaviourCase):
    """Whatever was under way for a client that goes away ends at once."""

    def leave(self, client: Wire, server: Wire) -> None:
        """Have the client go; the server notices promptly."""
        client.close()
        self.assertLess(server.seconds_to_end(), PROMPTLY)

    def test_waiting(self) -> None:
        """A request that waits for its answer is dropped, however the client goes."""
        for name in ("close", "reset", "finish"):
            client, server, _ = self.exchange(self.request())
            getattr(client, name)()
            self.assertLess(server.seconds_to_end(), PROMPTLY)
        notes = [(each.status, each.note) for each in self.service.requests()]
        self.assertEqual(notes, [("-", "the client went away")] * 3)

    def test_download(self) -> None:
        """An answer under way is not read to its end, be the client slow or not."""
        for pieces in (1, 64):
            client, server, _ = self.exchange(self.request())
            server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            with contextlib.suppress(socket.timeout):
                server.socket.settimeout(0.3)
                for _ in range(pieces):
                    server.send(bytes(MIB))
            server.socket.settimeout(10)
            client.head()
            self.leave(client, server)

    def test_upload(self) -> None:
        """An upload that breaks off cannot be taken for a complete one."""
        for framing, begun in (
            ("Content-Length: 10", b"01234"),
            ("Transfer-Encoding: chunked", b"5\r\n01234\r\n"),
        ):
            client, server, _ = self.exchange(self.request("POST", "/", framing))
            client.send(begun)
            self.assertTrue(server.until(b"01234"))
            client.close()
            with contextlib.suppress(ConnectionResetError):
                self.assertNotIn(b"0\r\n\r\n", server.rest())

    def test_tunnel(self) -> None:
        """A tunnel ends."""
        client, server = self.tunnel()
        self.leave(client, server)
        client, server = self.tunnel()
        client.send(b"x")
        server.send(b"unread")
        time.sleep(0.1)
        self.leave(client, server)

    def test_malformed(self) -> None:
        """So it does for one whose upload stops making sense."""
        fields = ("Transfer-Encoding: chunked",)
        client, server, _ = self.exchange(self.request("POST", "/", *fields))
        client.send(b"5\r\nabcde\r\nnot a size\r\n")
        self.assertEqual(client.head().status, 400)
        self.assertLess(server.seconds_to_end(), PROMPTLY)


class CutShortTests(BehaviourCase):
    """A client can tell half an answer from a whole one."""

    def test_length(self) -> None:
        """Fewer octets than were announced."""
        for path in ("/cut/1000", "/cut-chunked/1000"):
            answer = curl(self.origin.url(path), "--proxy", self.service.url)
            self.assertEqual(answer.exit_code, 18, answer.errors)
            self.assertEqual(answer.content, origin.content(500))

    def test_no_last_chunk(self) -> None:
        """Chunks without the last one."""
        with contextlib.closing(self.client()) as client:
            client.send(
                self.request("GET", "/cut-chunked/1000", authority=self.at_origin())
            )
            head = client.head()
            self.assertEqual(head.get("Transfer-Encoding"), "chunked")
            self.assertFalse(client.rest().endswith(b"0\r\n\r\n"))

    def test_old_client(self) -> None:
        """A client of HTTP/1.0 can tell by nothing but the end: it is a reset."""
        with contextlib.closing(self.client()) as client:
            path = "/cut-chunked/1000"
            client.send(
                self.request("GET", path, authority=self.at_origin(), version="1.0")
            )
            with self.assertRaises(ConnectionResetError):
                client.rest()

    def test_reset(self) -> None:
        """An answer that ends with the connection, when that is reset."""
        for version in ("1.1", "1.0"):
            client, server, _ = self.exchange(self.request(version=version))
            server.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf")
            client.until(b"half")
            server.reset()
            with contextlib.suppress(ConnectionResetError):
                rest = client.rest()
                self.assertEqual(version, "1.1", "a complete answer")
                self.assertNotIn(b"0\r\n\r\n", rest)

    def test_whole(self) -> None:
        """The same answer, when it is complete."""
        for version, expected in (("1.1", b"0\r\n\r\n"), ("1.0", b"")):
            client, server, _ = self.exchange(self.request(version=version))
            server.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall")
            server.close()
            client.until(b"all")
            if version == "1.1":
                client.exactly(2)
                self.assertEqual(client.exactly(5), expected)
            else:
                self.assertEqual(client.rest(), expected)

    def test_nothing(self) -> None:
        """A server that closes, resets or talks nonsense instead is to blame."""
        for action in ("close", "reset", "nonsense"):
            client, server, _ = self.exchange(self.request("POST", "/"))
            if action == "nonsense":
                server.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            else:
                getattr(server, action)()
            head, content = client.response()
            self.assertEqual(head.status, 502, action)
            self.assertIn(b"next server", content)


class BackPressureTests(BehaviourCase):
    """A slow receiver slows the sender down, and costs no memory."""

    def setUp(self) -> None:
        super().setUp()
        self.own_service()
        warm = curl(self.origin.url("/octets/8000000"), "--proxy", self.service.url)
        self.assertEqual(warm.status, 200)
        self.before = self.service.memory

    def assert_small(self) -> None:
        """The service never held much more than before."""
        self.assertLess(self.service.memory - self.before, SMALL_GROWTH)

    def test_slow_client(self) -> None:
        """Download: the client reads a little now and then, at last the rest."""
        client = self.client(window=65536)
        client.send(self.request("GET", f"/octets/{LARGE}", authority=self.at_origin()))
        client.head()
        digest, size = hashlib.sha256(), 0
        deadline = time.monotonic() + 1
        while size < LARGE:
            data = client.some()
            digest.update(data)
            size += len(data)
            if time.monotonic() < deadline:
                time.sleep(0.02)
        self.assertEqual(digest.hexdigest(), origin.sha256_of(LARGE))
        self.assert_small()

    def test_slow_server(self) -> None:
        """Upload: the server reads nothing at first."""
        self.server.close()
        self.server = Listener(window=65536)
        self.addCleanup(self.server.close)
        client, server, _ = self.exchange(
            self.request("POST", "/", f"Content-Length: {LARGE}")
        )
        self.assertEqual(_pump(client, server, LARGE), LARGE)
        self.assert_small()

    def test_tunnel(self) -> None:
        """Both ways of a tunnel."""
        client, server = self.tunnel()
        for source, sink in ((server, client), (client, server)):
            self.assertEqual(_pump(source, sink, LARGE // 2), LARGE // 2)
            self.assert_small()


class LoopTests(BehaviourCase):
    """A request that comes back is answered with 508, once."""

    def test_own_address(self) -> None:
        """The service's address, by number and by name, is no destination."""
        port = self.service.port
        for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
            for method in ("GET", "CONNECT"):
                head, content = self.ask(method, "/", authority=host)
                self.assertEqual(head.status, 508, (method, host))
                self.assertIn(b"proxy itself", content)

    def test_own_upstream(self) -> None:
        """A service that is its own upstream proxy says so."""
        port = free_port()
        self.own_service("--proxy", f"http://localhost:{port}", port=port)
        head, content = self.ask("GET", "/")
        self.assertEqual(head.status, 508)
        self.assertIn(b"come by here", content)
        self.assertEqual(len(self.service.requests()), 2)

    def test_two_services(self) -> None:
        """So do two that are each other's; tunnels too."""
        ports = free_port(), free_port()
        for own, other in (ports, ports[::-1]):
            self.own_service("--proxy", f"http://localhost:{other}", port=own)
        for method in ("GET", "CONNECT"):
            head, _ = self.ask(method, "/")
            self.assertEqual(head.status, 508, method)

    def test_one_behind_the_other(self) -> None:
        """Two in a row are no loop."""
        self.own_service("--proxy", self.service.url)
        head, _ = self.ask("GET", "/octets/9", authority=self.at_origin())
        self.assertEqual(head.status, 200)
        [received] = self.origin.requests()
        self.assertEqual((received.get("Via") or "").count("coda-"), 2)


class RefusalTests(BehaviourCase):
    """Answers of the service's own say what is wrong."""

    def test_unknown_name(self) -> None:
        """A name that does not exist."""
        for method in ("GET", "CONNECT"):
            head, content = self.ask(method, "/", authority="unknown.invalid:80")
            self.assertEqual(head.status, 502)
            self.assertIn("error=dns_error", head.get("Proxy-Status") or "")
            self.assertIn(b"name of the host is not known", content)

    def test_refused(self) -> None:
        """A port where nobody listens."""
        head, content = self.ask("GET", "/", authority=f"127.0.0.1:{free_port()}")
        self.assertEqual(head.status, 502)
        self.assertIn("error=connection_refused", head.get("Proxy-Status") or "")
        self.assertIn(b"Nothing listens", content)

    def test_certificate(self) -> None:
        """An https URI, which the service itself asks for, and whom it trusts."""
        url = self.origin.tls_url("/octets/9")
        request = f"GET {url} HTTP/1.1\r\nHost: {self.origin.tls_port}\r\n\r\n"
        request = request.replace("Host: ", "Host: localhost:")
        for trust, status in ((True, 200), (False, 502)):
            self.service = CodaProxy(trust=trust)
            self.service.start()
            self.addCleanup(self.service.stop)
            with contextlib.closing(self.client()) as client:
                client.send(request.encode())
                head, _ = client.response()
            self.assertEqual(head.status, status)
        self.assertIn("error=tls_certificate_error", head.get("Proxy-Status") or "")

    def test_website(self) -> None:
        """A request as if to a website."""
        answer = curl(f"{self.service.url}/")
        self.assertEqual(answer.status, 400)
        self.assertIn(b"this is a proxy", answer.content.lower())

    def test_malformed(self) -> None:
        """Each kind of request that cannot be served has its status."""
        target = f"http://{self.server.authority}/"
        host = f"Host: {self.server.authority}\r\n"
        many = "X: a\r\n" * 101
        for status, request in (
            (400, f"GET {target} HTTP/1.1\r\n\r\n"),
            (400, f"GET {target} HTTP/1.1\r\n{host}Content-Length: x\r\n\r\n"),
            (400, f"GET {target} HTTP/1.1\r\n{host}bad field: x\r\n\r\n"),
            (414, f"GET {target}{'a' * 20_000} HTTP/1.1\r\n{host}\r\n"),
            (417, f"POST {target} HTTP/1.1\r\n{host}Expect: money\r\n\r\n"),
            (431, f"GET {target} HTTP/1.1\r\n{host}X: {'a' * 70_000}\r\n\r\n"),
            (431, f"GET {target} HTTP/1.1\r\n{host}{many}\r\n"),
            (501, f"GET ftp://127.0.0.1/ HTTP/1.1\r\n{host}\r\n"),
            (505, f"GET {target} HTTP/2.0\r\n{host}\r\n"),
        ):
            with contextlib.closing(self.client()) as client:
                client.send(request.encode())
                head, content = client.response()
            self.assertEqual(head.status, status, (request[:60], content))
            self.assertIsNotNone(head.get("Proxy-Status"))


class AccessTests(BehaviourCase):
    """Whom the service serves beyond loopback, and where to."""

    allowed = (
        *("--listen-address", "0.0.0.0", "--allow", "10.99.0.0/16"),
        "--allow-loopback",  # where the origin is
    )

    def test_connect_ports(self) -> None:
        """CONNECT goes to https's port, unless --connect-ports says otherwise."""
        tls = self.at_origin(self.origin.tls_port)
        self.own_service(*self.allowed)
        head, content = self.ask("CONNECT", authority=tls)
        self.assertEqual(head.status, 403)
        self.assertIn(b"--connect-ports", content)
        get, _ = self.ask("GET", "/octets/9", authority=self.at_origin())
        self.assertEqual(get.status, 200)
        self.own_service(*self.allowed, "--connect-ports", str(self.origin.tls_port))
        answer = curl(self.origin.tls_url("/octets/9"), "--proxy", self.service.url)
        self.assertEqual(answer.content, origin.content(9))

    def test_connect_ports_on_loopback(self) -> None:
        """There any port is allowed, unless the option is given."""
        self.own_service("--connect-ports", "443")
        tls = self.at_origin(self.origin.tls_port)
        self.assertEqual(self.ask("CONNECT", authority=tls)[0].status, 403)

    def test_destinations(self) -> None:
        """Machines' secrets are out of reach, and so is the service."""
        self.own_service(*self.allowed)
        for host, status in (
            ("169.254.169.254:443", 403),
            ("[fe80::1]:443", 403),
            (f"127.0.0.1:{self.service.port}", 508),
            (f"localhost:{self.service.port}", 508),
        ):
            head, _ = self.ask("GET", "/", authority=host)
            self.assertEqual(head.status, status, host)
        head, _ = self.ask("CONNECT", authority="169.254.169.254:443")
        self.assertEqual(head.status, 403)

    def test_own_loopback(self) -> None:
        """So are this machine's own services, by whatever name."""
        self.own_service(*self.allowed[:-1])
        for host in ("127.0.0.1", "localhost"):
            authority = f"{host}:{self.origin.port}"
            head, content = self.ask("GET", "/octets/9", authority=authority)
            self.assertEqual(head.status, 403, host)
            self.assertIn(b"--allow-loopback", content)

    def test_stranger(self) -> None:
        """A client that is in none of the networks is refused, and told why."""
        address = _own_address()
        self.own_service(*self.allowed)
        for method in ("GET", "CONNECT"):
            with contextlib.closing(Wire.to(self.service.port, address)) as client:
                client.send(self.request(method))
                head, content = client.response()
            self.assertEqual(head.status, 403)
            self.assertIn(b"--allow", content)
        self.own_service(
            *("--listen-address=0.0.0.0", f"--allow={address}", "--allow-loopback")
        )
        with contextlib.closing(Wire.to(self.service.port, address)) as client:
            client.send(self.request("GET", "/echo", authority=self.at_origin()))
            self.assertEqual(client.head().status, 200)

    def test_open_by_accident(self) -> None:
        """Without --allow it does not start."""
        done = run(
            CodaProxy("--listen-address", "0.0.0.0").command,
            direct().environment,
        )
        self.assertNotEqual(done.exit_code, 0)
        self.assertIn("--allow", done.output.decode() + done.errors)


class LogTests(BehaviourCase):
    """The log says what happened, and no secret."""

    def test_line_per_request(self) -> None:
        """Each request has its line: who, what, how it ended, how much, how long."""
        answered = f"http://{self.at_origin()}/octets/9"
        self.ask("GET", "/octets/9", authority=self.at_origin())
        self.ask("GET", "/nothing", authority="unknown.invalid")
        self.ask("OPTIONS", "/", "Max-Forwards: 0")
        client, server = self.tunnel()
        client.send(b"12345")
        server.send(server.exactly(5))
        client.exactly(5)
        client.close()
        server.close()
        lines = _until_steady(self.service.requests)
        self.assertEqual(
            [(each.method, each.status, each.octets) for each in lines],
            [
                ("GET", "200", "9"),
                ("GET", "502", lines[1].octets),
                ("OPTIONS", "200", "0"),
                ("CONNECT", "200", "10"),
            ],
        )
        self.assertEqual(
            [each.target for each in lines[::3]], [answered, self.server.authority]
        )
        self.assertEqual(len({each.id for each in lines}), 4)
        self.assertIn("name of the host is not known", lines[1].note or "")

    def test_secrets(self) -> None:
        """Neither queries nor credentials are in it, whatever becomes of a request."""
        fields = [
            *("Authorization: Basic hush1", "Proxy-Authorization: Basic hush2"),
            *("Cookie: hush3", "X-Api-Key: hush4"),
        ]
        for host in (self.at_origin(), "unknown.invalid", "u:hush5@127.0.0.1"):
            self.ask("GET", "/echo?hush6#", *fields, authority=host)
            self.ask("GET", "/echo?hush6", *fields, authority=host)
        with contextlib.closing(self.client()) as client:
            client.send(b"GET hush7 HTTP/1.1\r\nhush8: \r\nbad field: hush9\r\n\r\n")
            client.response()
        self.ask("TRACE", "/?hush6", "Max-Forwards: 0", *fields)
        time.sleep(0.1)
        self.assertNotIn("hush", self.service.log())
        self.assertGreaterEqual(len(self.service.requests()), 4)

    def test_options(self) -> None:
        """--log-queries shows queries, --quiet shows nothing."""
        for option, shown in (("--log-queries", True), ("--quiet", False)):
            self.own_service(option)
            self.ask("GET", "/echo?find-me", authority=self.at_origin())
            time.sleep(0.1)
            self.assertEqual("find-me" in self.service.log(), shown)
            self.assertEqual(bool(self.service.requests()), shown)


class ProcessTests(BehaviourCase):
    """Starting it and ending it."""

    def test_password_on_the_command_line(self) -> None:
        """It works, is warned of, and does not stay where others see it."""
        proxy = squid.proxy("ntlm")
        proxy.reset()
        command = Path("/proc/self/cmdline")
        if not command.exists():
            raise SkipTest("no /proc here")
        for options in (
            ("--password", ALICE.password),
            (f"--password={ALICE.password}",),
        ):
            # As mini_proxy.py was started.
            self.own_service(
                *("--listen-address", "127.0.0.1", "--proxy", proxy.url),
                *("--proxy-type", "ntlm", "--realm", NTLM_DOMAIN),
                *("--user", ALICE.name, *options),
            )
            shown = Path(f"/proc/{self.service.pid}/cmdline").read_bytes()
            self.assertNotIn(ALICE.password.encode(), shown)
            self.assertIn(b"--user\0alice\0--password", shown)
            head, _ = self.ask("GET", "/echo", authority=self.at_origin())
            self.assertEqual(head.status, 200)
            log = self.service.log()
            self.assertIn("a password was given on the command line", log)
            self.assertIn("--password-file", log)
            self.assertNotIn(ALICE.password, log)
        self.assertEqual(proxy.failed_logons(), 0)

    def test_password_in_the_environment(self) -> None:
        """CODA_PROXY_PASSWORD is the password, and nothing is to be warned of."""
        proxy = squid.proxy("basic")
        proxy.reset()
        self.service = CodaProxy(
            *("--proxy", proxy.url, "--user", ALICE.name),
            environment={"CODA_PROXY_PASSWORD": ALICE.password},
        )
        self.service.start()
        self.addCleanup(self.service.stop)
        head, _ = self.ask("GET", "/echo", authority=self.at_origin())
        self.assertEqual(head.status, 200)
        self.assertNotIn("command line", self.service.log())

    def test_password_in_the_url(self) -> None:
        """A password in the proxy's URL works, is warned of, and is in no log."""
        proxy = squid.proxy("basic")
        proxy.reset()
        url = proxy.url.replace("://", "://alice:wrong-but-secret@")
        self.own_service("--proxy", url)
        head, content = self.ask("GET", "/echo", authority=self.at_origin())
        self.assertEqual(head.status, 502)
        log = self.service.log()
        self.assertIn("a password was given on the command line", log)
        self.assertNotIn("wrong-but-secret", log)
        self.assertNotIn(b"wrong-but-secret", content)
        shown = Path(f"/proc/{self.service.pid}/cmdline").read_bytes()
        if b"wrong-but-secret" in shown:
            self.assertIn("every user of this machine can see it", log)

    def attempt(self, program: str, *options: str) -> Completed:
        """Try to start a service on the port of the one that runs."""
        attempt = CodaProxy(*options, program=program, port=self.service.port)
        return run(attempt.command, attempt.environment)

    def test_port_in_use(self) -> None:
        """One line says that the port is taken, and which."""
        for program in ("twistd", "twist"):
            done = self.attempt(program)
            self.assertNotEqual(done.exit_code, 0, program)
            text = f"{done.output.decode()}\n{done.errors}"
            lines = [each for each in text.splitlines() if "cannot listen" in each]
            self.assertEqual(len(lines), 1, (program, done.exit_code, text))
            [line] = lines
            self.assertIn(self.service.url, line)
            self.assertIn("Address already in use", line)
            self.assertNotIn("Traceback", text)

    def daemon(self, *options: str, port: int) -> tuple[Completed, Path]:
        """Start a service in the background; what that said, and its pid file."""
        service = CodaProxy(*options, port=port)
        directory = workspace() / f"coda-{port}"
        pid_file = directory / "pid"
        command = [each for each in service.command if each != "--nodaemon"]
        command[command.index("--pidfile=")] = f"--pidfile={pid_file}"
        command[3:3] = ["--logfile", str(directory / "log")]
        done = run(command, service.environment, timeout=20)
        if pid_file.exists():
            self.addCleanup(_end, int(pid_file.read_text()))
        return done, pid_file

    def test_background(self) -> None:
        """Without -n it goes on in the background; a password stays hidden there."""
        port, proxy = free_port(), squid.proxy("basic")
        done, pid_file = self.daemon(
            *("--proxy", proxy.url, "--user", ALICE.name, "--password", ALICE.password),
            port=port,
        )
        self.assertEqual((done.exit_code, done.errors), (0, ""))
        answer = curl(
            self.origin.url("/octets/9"), "--proxy", f"http://127.0.0.1:{port}"
        )
        self.assertEqual(answer.content, origin.content(9))
        process = Path(f"/proc/{pid_file.read_text()}")
        if process.exists():
            shown = (process / "cmdline").read_bytes()
            self.assertNotIn(ALICE.password.encode(), shown)
        log = (pid_file.parent / "log").read_text()
        self.assertIn("GET http://localhost", log)
        self.assertNotIn(ALICE.password, log)

    def test_port_in_use_in_the_background(self) -> None:
        """Whoever starts one there hears of it too, and nothing is left behind."""
        done, pid_file = self.daemon(port=self.service.port)
        self.assertEqual(done.exit_code, 1)
        self.assertIn(f"cannot listen on {self.service.url}", done.errors)
        self.assertFalse(pid_file.exists())

    def test_usage(self) -> None:
        """What makes no sense is told in words, before anything listens."""
        for options, words in (
            (("--proxy-type=ntlm",), "needs --proxy"),
            (("--proxy=http://p:1", "--proxy-type=ntlm"), "needs --user"),
            (("--port=http",), "a port is a number"),
        ):
            done = self.attempt("twistd", *options)
            self.assertNotEqual(done.exit_code, 0)
            self.assertIn(words, done.errors + done.output.decode())
            self.assertNotIn("Traceback", done.errors)

    def test_twist(self) -> None:
        """``twist coda-proxy`` serves as well, and ends when it is told to."""
        self.service = CodaProxy(program="twist")
        self.service.start()
        self.addCleanup(self.service.stop)
        head, _ = self.ask("GET", "/octets/9", authority=self.at_origin())
        self.assertEqual(head.status, 200)
        self.assertIn(f"serves {self.service.url}", self.service.log())
        [line] = self.service.requests()
        self.assertEqual((line.method, line.status), ("GET", "200"))

    def test_end(self) -> None:
        """Without time to drain it ends at once, whatever is under way."""
        self.own_service("--drain-timeout=0")
        tunnel = self.tunnel()
        waiting = self.exchange(self.request())
        began = time.monotonic()
        self.service.stop()
        self.assertLess(time.monotonic() - began, 2)
        for wire in (*tunnel, *waiting[:2]):
            self.assertLess(wire.seconds_to_end(), PROMPTLY)
        self.assertIn("Server Shut Down", self.service.log())
        self.assertNotIn("Traceback", self.service.log())


def _readable(wire: Wire) -> bool:
    """Whether anything comes within a moment; its absence can be shown no better."""
    return bool(select.select([wire.socket], [], [], 0.1)[0])


def _until_steady(measure: Callable[[], T]) -> T:
    """What *measure* returns, once that has not changed for a while."""
    value, since = measure(), time.monotonic()
    while time.monotonic() - since < 0.3:
        time.sleep(0.02)
        if (now := measure()) != value:
            value, since = now, time.monotonic()
    return value


def _pump(source: Wire, sink: Wire, size: int) -> int:
    """
    Send *size* octets, and read them only when no more can be sent.

    :returns: How many came.
    """
    piece = memoryview(bytes(MIB))
    sent = got = 0
    for wire in (source, sink):
        wire.socket.setblocking(False)
    stuck = False
    try:
        while got < size:
            _, writable, _ = select.select([], [source.socket], [], 0 if stuck else 0.3)
            if writable and sent < size:
                sent += source.socket.send(piece[: size - sent])
                continue
            stuck = True
            if not select.select([sink.socket], [], [], 10)[0]:
                break
            with contextlib.suppress(BlockingIOError):
                got += len(sink.some())
    finally:
        for wire in (source, sink):
            wire.socket.settimeout(10)
    return got


def _end(pid: int) -> None:
    """End a process of ours that nobody else would end, and wait until it has."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        for _ in range(200):
            time.sleep(0.02)
            os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)


def _own_address() -> str:
    """An address of this machine that is not loopback; nothing is sent to find it."""
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
    ):
        probe.connect(("192.0.2.1", 9))
        address: str = probe.getsockname()[0]
        if not address.startswith("127."):
            return address
    raise SkipTest("this machine has no address but loopback")
