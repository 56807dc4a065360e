"""Tests for the fake servers' HTTP, from the other end of a connection."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.http1.readers import Data, ResponseReader
from coda_twisted.testing import (
    Answer,
    Digest,
    FakeNetwork,
    FakeOrigin,
    Quirks,
    Received,
    servers,
)
from tests.test_testing_memory import HalfSide
from tests.test_testing_network import Ear, Shout

GOOD = b"Basic " + b64encode(b"me:secret")


class RawCase(SynchronousTestCase):
    """A client that says what it likes."""

    def setUp(self) -> None:
        self.network = FakeNetwork()

    def origin(self, *schemes: Any, handler: Any = None, **settings: Any) -> FakeOrigin:
        settings.setdefault("users", {"me": "secret"})
        handler = handler or (lambda request: (200, [], request.content + b"!"))
        self.where = "site.test", 80
        return self.network.add_origin(
            "http://site.test", handler, *schemes, **settings
        )

    def connect(self) -> Any:
        pending = connectProtocol(self.network.endpoint_for(*self.where), Ear())
        self.network.pump()
        return self.successResultOf(pending)

    def say(self, data: bytes, ear: Any = None) -> Any:
        ear = ear or self.connect()
        ear.heard = b""
        ear.transport.write(data)
        self.network.pump()
        return ear

    def status(self, ear: Any) -> int:
        return int(ear.heard.split(b" ")[1])


class RequestTests(RawCase):
    """Requests of all kinds."""

    def test_keep_alive(self) -> None:
        """A connection is good for many requests, also at once."""
        origin = self.origin()
        ear = self.say(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n" * 3)
        self.assertEqual(ear.heard.count(b"HTTP/1.1 200 OK\r\n"), 3)
        self.say(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n", ear)
        self.assertEqual(origin.statuses(), [200] * 4)
        self.assertEqual(origin.connected, 1)
        self.assertIsNone(ear.lost)

    def test_order(self) -> None:
        """Answers come in the order of the requests."""
        first: Deferred[Answer] = Deferred()

        def handler(request: Received) -> Any:
            return first if request.path == b"/1" else Answer(200, body=b"2")

        self.origin(handler=handler)
        ear = self.say(
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        self.assertEqual(ear.heard, b"")
        first.callback(Answer(200, body=b"1"))
        self.network.pump()
        self.assertEqual(
            [part[-1:] for part in ear.heard.split(b"HTTP/1.1")[1:]], [b"1", b"2"]
        )

    def test_close(self) -> None:
        """Who says close, or speaks HTTP/1.0, is closed upon."""
        self.origin()
        for head in (
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
        ):
            ear = self.say(head)
            self.assertIn(b"Connection: close", ear.heard)
            self.assertIsNotNone(ear.lost)
        ear = self.say(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        self.assertIn(b"Connection: keep-alive", ear.heard)
        self.assertIsNone(ear.lost)

    def test_head(self) -> None:
        """HEAD gets no content, but its length; 204 neither."""
        self.origin(handler=lambda _: (200, [], b"abc"))
        ear = self.say(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertTrue(ear.heard.endswith(b"Content-Length: 3\r\n\r\n"))
        self.origin(handler=lambda _: (204, [], b"abc"))
        ear = self.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(ear.heard, b"HTTP/1.1 204 No Content\r\n\r\n")

    def test_unknown_status(self) -> None:
        """A status that has no name gets none."""
        self.origin(handler=lambda _: (799, [], b""))
        ear = self.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertTrue(ear.heard.startswith(b"HTTP/1.1 799 \r\n"))

    def test_malformed(self) -> None:
        """What is malformed is a 400, or what else fits, and the end."""
        for data, status in (
            (b"GET /\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        ):
            origin = self.origin()
            ear = self.say(data)
            self.assertEqual(self.status(ear), status, data)
            self.assertIsNotNone(ear.lost)
            self.assertEqual(origin.statuses(), [])

    def test_expect(self) -> None:
        """Who asks before sending content is answered before."""
        origin = self.origin("basic")
        head = (
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
            b"Expect: 100-continue\r\n"
        )
        ear = self.say(head + b"\r\n")
        self.assertEqual(self.status(ear), 401)
        self.say(b"ab", ear)
        self.assertEqual(ear.heard, b"")
        self.say(head + b"Authorization: " + GOOD + b"\r\n\r\n", ear)
        self.assertEqual(ear.heard, b"HTTP/1.1 100 Continue\r\n\r\n")
        self.say(b"ab", ear)
        self.assertTrue(ear.heard.endswith(b"ab!"))
        self.assertEqual(origin.statuses(), [401, 200])

    def test_expect_with_auth_int(self) -> None:
        """Credentials that are about the content are judged when that is there."""
        self.origin(Digest(["MD5"], "auth-int"))
        ear = self.say(
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
            b"Expect: 100-continue\r\nAuthorization: Digest qop=auth-int\r\n\r\n"
        )
        self.assertEqual(ear.heard, b"HTTP/1.1 100 Continue\r\n\r\n")
        self.say(b"ab", ear)
        self.assertEqual(self.status(ear), 401)

    def test_gone(self) -> None:
        """A client that goes away is not waited for."""
        cancelled: list[int] = []
        never: Deferred[Answer] = Deferred(lambda _: cancelled.append(1))
        origin = self.origin(handler=lambda _: never)
        ear = self.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        ear.transport.loseConnection()
        self.network.pump()
        self.assertEqual(cancelled, [1])
        self.assertEqual(origin.connections, [])
        self.assertEqual(origin.statuses(), [None])


class QuirkTests(RawCase):
    """What the quirks look like on the wire."""

    def challenged(self, quirks: Quirks, *more: bytes) -> Any:
        self.server = self.origin("basic", quirks=quirks)
        head = b"".join((b"GET / HTTP/1.1\r\nHost: a\r\n", *more))
        return self.say(head + b"\r\n")

    def test_body(self) -> None:
        """So many octets, and why."""
        for chunked in (False, True):
            ear = self.challenged(Quirks(body=1000, chunked=chunked))
            reader = ResponseReader()
            reader.expect(b"GET")
            body = b"".join(
                event.data
                for event in reader.receive(ear.heard)
                if isinstance(event, Data)
            )
            self.assertEqual(len(body), 1000)
            self.assertTrue(body.startswith(b"there are no credentials\n..."))
            self.assertEqual(b"chunked" in ear.heard, chunked)

    def test_closes(self) -> None:
        """The connection is closed after the challenge."""
        ear = self.challenged(Quirks(closes=True))
        self.assertEqual(self.status(ear), 401)
        self.assertIsNotNone(ear.lost)

    def test_reason(self) -> None:
        """The reason phrase is that of challenges alone."""
        ear = self.challenged(Quirks(reason=b"Go away"))
        self.assertTrue(ear.heard.startswith(b"HTTP/1.1 401 Go away\r\n"))

    def test_http10(self) -> None:
        """HTTP/1.0 keeps those who ask for it, by either field."""
        ear = self.challenged(Quirks(http10=True))
        self.assertTrue(ear.heard.startswith(b"HTTP/1.0 401 "))
        self.assertIsNotNone(ear.lost)
        for name in (b"Connection", b"Proxy-Connection"):
            ear = self.challenged(Quirks(http10=True), name + b": Keep-Alive\r\n")
            self.assertIn(b"\r\nConnection: keep-alive\r\n", ear.heard)
            self.assertIsNone(ear.lost)

    def test_slow(self) -> None:
        """Answers take their time, and end with the connection."""
        ear = self.challenged(Quirks(slow=2.0))
        self.network.advance(1.9)
        self.assertEqual(ear.heard, b"")
        self.network.advance(0.1)
        self.assertEqual(self.status(ear), 401)
        ear = self.challenged(Quirks(slow=2.0))
        ear.transport.loseConnection()
        self.network.pump()
        self.assertEqual(self.network.clock.getDelayedCalls(), [])

    def test_drops(self) -> None:
        """The second leg is that with credentials, whenever it comes."""
        request = b"GET / HTTP/1.1\r\nHost: a\r\n"
        good = request + b"Authorization: " + GOOD + b"\r\n\r\n"
        server = self.origin("basic", quirks=Quirks(drops=2, drop_times=2))
        first = self.say(request + b"\r\n")
        self.assertIsNone(first.lost)
        for ear in (self.say(good, first), self.say(good)):
            self.assertEqual(ear.heard, b"")
            self.assertIsNotNone(ear.lost)
        self.assertEqual(self.status(self.say(good)), 200)
        self.assertEqual(server.accounts.logons(), 1)

    def test_early(self) -> None:
        """The challenge is there before the content; then all goes on."""
        self.origin("basic", quirks=Quirks(early=True))
        head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
        ear = self.say(head + b"\r\n")
        self.assertEqual(self.status(ear), 401)
        good = head + b"Authorization: " + GOOD + b"\r\n\r\nabc"
        self.say(b"abc" + good, ear)
        self.assertTrue(ear.heard.endswith(b"\r\n\r\nabc!"))


class ProxyTests(RawCase):
    """A proxy's own part."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.network.add_proxy()
        self.where = "proxy.test", 3128

    def test_origin_form(self) -> None:
        """A proxy is no origin server."""
        ear = self.say(b"GET / HTTP/1.1\r\nHost: proxy.test\r\n\r\n")
        self.assertEqual(self.status(ear), 400)

    def test_head(self) -> None:
        """The length of what HEAD does not get is passed on."""
        self.network.add_origin("http://site.test", lambda _: (200, [], b"abc"))
        ear = self.say(b"HEAD http://site.test/ HTTP/1.1\r\nHost: site.test\r\n\r\n")
        self.assertIn(b"Content-Length: 3\r\n", ear.heard)
        self.assertTrue(ear.heard.endswith(b"\r\n\r\n"))

    def test_content(self) -> None:
        """Content is passed on, also where there is none or it comes in chunks."""
        seen: list[bytes | None] = []

        def handler(request: Received) -> Answer:
            seen.append(request.fields.get(b"Content-Length"))
            return Answer(200, body=request.content)

        self.network.add_origin("http://site.test", handler)
        for framing in (
            b"Content-Length: 3\r\n\r\nabc",
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"Content-Length: 0\r\n\r\n",
        ):
            self.say(b"PUT http://site.test/ HTTP/1.1\r\nHost: site.test\r\n" + framing)
        self.assertEqual(seen, [b"3", b"3", b"0"])

    def test_cut_short(self) -> None:
        """An origin server's answer that is cut short is a 502."""

        class Short(Ear):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
                self.transport.loseConnection()

        self.network.listen("site.test", 80, Factory.forProtocol(Short))
        ear = self.say(b"GET http://site.test/ HTTP/1.1\r\nHost: site.test\r\n\r\n")
        self.assertEqual(self.status(ear), 502)

    def test_early_data(self) -> None:
        """What a client sends right behind CONNECT gets through."""
        self.network.listen("shout.test", 7, Shout())
        ear = self.say(
            b"CONNECT shout.test:7 HTTP/1.1\r\nHost: shout.test:7\r\n\r\nhey"
        )
        self.assertTrue(ear.heard.endswith(b"\r\n\r\nHEY"), ear.heard)
        self.assertNotIn(b"Content-Length", ear.heard)

    def test_half_closed_tunnel(self) -> None:
        """A client may end its half of a tunnel and hear the rest."""

        class Patient(HalfSide):
            def readConnectionLost(self) -> None:
                self.transport.write(b"rest")
                self.transport.loseConnection()

        self.network.listen("site.test", 7, Factory.forProtocol(Patient))
        pending: Deferred[Any] = connectProtocol(
            self.network.endpoint_for(*self.where), HalfSide()
        )
        self.network.pump()
        near = self.successResultOf(pending)
        near.transport.write(b"CONNECT site.test:7 HTTP/1.1\r\nHost: a\r\n\r\n")
        self.network.pump()
        near.transport.loseWriteConnection()
        self.network.pump()
        self.assertEqual(near.heard[1:], ["write", b"rest", "read"])

    def test_memory(self) -> None:
        """A server forgets what is long past."""
        self.patch(servers, "MEMORY", 3)
        for number in range(5):
            self.say(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
        targets = [each.request.target for each in self.proxy.requests]
        self.assertEqual(targets, [b"/2", b"/3", b"/4"])
