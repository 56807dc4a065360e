"""Tests for :mod:`coda_twisted.service.forward`."""

from __future__ import annotations

from base64 import b64encode
from ipaddress import ip_address, ip_network
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError, DNSLookupError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from coda_twisted.client.connection import HTTPConnection
from coda_twisted.client.response import Response
from coda_twisted.client.timeouts import Timeouts
from coda_twisted.errors import ConnectionEnded
from coda_twisted.http1.bodies import Framing
from coda_twisted.http1.fields import Fields
from coda_twisted.http1.heads import ResponseHead
from coda_twisted.service.access import Access
from coda_twisted.service.content import READ_AHEAD
from coda_twisted.service.limits import HALF_CLOSED_LIMIT
from tests.front import Answer, Caller, FrontCase
from tests.test_client_exchange import (
    CHALLENGE,
    NTLM,
    PROXY,
    ThreeLegCredentials,
)
from tests.wire import Peer, PeerTransport

CONNECT = b"CONNECT site:443 HTTP/1.1\r\nHost: site:443\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"


def request(
    method: bytes = b"GET",
    target: bytes = b"http://site/",
    *lines: bytes,
    version: bytes = b"1.1",
    body: bytes = b"",
) -> bytes:
    """Write a request."""
    more = b"".join(line + b"\r\n" for line in lines)
    return b"%b %b HTTP/%b\r\nHost: site\r\n%b\r\n%b" % (
        method,
        target,
        version,
        more,
        body,
    )


class RequestTests(FrontCase):
    """What the next server is asked."""

    def asked(self, *lines: bytes, **more: Any) -> Any:
        """Send a request, and show its head as it arrived."""
        method = more.pop("method", b"GET")
        target = more.pop("target", b"http://site/")
        self.caller().send(request(method, target, *lines, **more))
        return self.peer().request

    def test_head(self) -> None:
        """It is asked what we were asked, in its own form."""
        head = self.asked(b"Accept: a", b"X: 1", b"x: 2", target=b"http://Site:81/p?q")
        self.assertEqual((self.peer().host, self.peer().port), ("site", 81))
        self.assertEqual((head.method, head.target), (b"GET", b"/p?q"))
        self.assertEqual(
            list(head.fields),
            [
                (b"Host", b"site:81"),
                (b"Accept", b"a"),
                (b"X", b"1"),
                (b"x", b"2"),
                (b"Via", b"1.1 coda-test"),
            ],
        )

    def test_hop_by_hop(self) -> None:
        """What is for us alone goes no further (RFC 9110 7.6.1)."""
        head = self.asked(
            b"Connection: keep-alive, X-Mine",
            b"X-Mine: 1",
            b"Keep-Alive: timeout=5",
            b"Proxy-Connection: keep-alive",
            b"Proxy-Authorization: Basic eDp5",
            b"Trailer: A",
            b"TE: deflate",
            b"Upgrade: websocket",
        )
        self.assertEqual([name for name, _ in head.fields], [b"Host", b"Via"])

    def test_te(self) -> None:
        """That trailers are welcome is passed on."""
        head = self.asked(b"TE: trailers, deflate", b"Connection: TE")
        self.assertEqual(head.fields.get(b"TE"), b"trailers")
        self.assertEqual(head.fields.tokens(b"Connection"), [b"te"])

    def test_impossible_name(self) -> None:
        """A name that no host can have, and TLS no certificate for, is the client's."""

        class Policy:
            # As ours does, where nobody has patched Twisted: Scrapy does.
            def creatorForNetloc(self, hostname: bytes, port: int) -> None:
                raise ValueError("invalid hostname: of no use")

        self.patch(self.client, "_tls", Policy())
        for name in (b".a", b"a..b", b"xn--a"):
            caller = self.caller().send(request(b"GET", b"https://%b/" % name))
            self.assertEqual(caller.statuses, [502])
            self.assertIn(b"dns_error", caller.answer.get(b"Proxy-Status"))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_via(self) -> None:
        """We add ourselves to those it came by."""
        head = self.asked(b"Via: 1.0 other", version=b"1.0")
        self.assertEqual(head.fields.get_all(b"Via"), [b"1.0 other", b"1.0 coda-test"])

    def test_loop(self) -> None:
        """What has come by here before goes no further."""
        for message in (
            request(b"GET", b"http://site/", b"Via: 1.1 a, 1.1 coda-test, 1.1 b"),
            request(b"CONNECT", b"site:443", b"Via: 1.1 coda-test"),
        ):
            caller = self.caller().send(message)
            self.assertEqual(caller.statuses, [508])
            self.assertIn(b"proxy_loop_detected", caller.answer.get(b"Proxy-Status"))
        self.assertEqual(self.wire.peers, [])

    def test_max_forwards(self) -> None:
        """OPTIONS and TRACE count where they pass, and stop (RFC 9110 7.6.2)."""
        for method in (b"OPTIONS", b"TRACE"):
            head = self.asked(b"Max-Forwards: 3", method=method)
            self.assertEqual(head.fields.get(b"Max-Forwards"), b"2")
        self.assertEqual(
            self.asked(b"Max-Forwards: 3").fields.get(b"Max-Forwards"), b"3"
        )

    def test_options_for_us(self) -> None:
        """OPTIONS that goes no further is answered by us."""
        for message in (
            request(b"OPTIONS", b"*"),
            request(b"OPTIONS", b"http://site/", b"Max-Forwards: 0"),
        ):
            caller = self.caller().send(message)
            self.assertEqual((caller.statuses, caller.answer.body), ([200], b""))
            self.assertIsNotNone(caller.answer.get(b"Date"))
        self.assertEqual(self.wire.peers, [])

    def test_trace_for_us(self) -> None:
        """TRACE shows what came, without secrets (RFC 9110 9.3.8)."""
        caller = self.caller().send(
            request(
                b"TRACE",
                b"http://site/p",
                b"Max-Forwards: 0",
                b"Cookie: a",
                b"Authorization: b",
                b"Proxy-Authorization: c",
            )
        )
        self.assertEqual(caller.answer.get(b"Content-Type"), b"message/http")
        self.assertEqual(
            caller.answer.body,
            b"TRACE http://site/p HTTP/1.1\r\nHost: site\r\nMax-Forwards: 0\r\n\r\n",
        )

    def test_https(self) -> None:
        """Https URIs are asked for by TLS, so nothing is said in clear."""
        self.caller().send(request(target=b"https://site/"))
        self.assertEqual(self.wire.peers[0].port, 443)
        self.assertNotIn(b"GET", self.wire.peers[0].transport.value())

    def test_other_schemes(self) -> None:
        """Other URIs are not for us."""
        for target in (b"ftp://site/", b"ws://site/"):
            caller = self.caller().send(request(target=target))
            self.assertEqual(caller.statuses, [501])

    def test_malformed(self) -> None:
        """Targets and Hosts that mean nothing are answered 400."""
        for message in (
            request(target=b"http://user@site/"),
            request(target=b"site/"),
            request(target=b"http://site/", version=b"1.1").replace(
                b"Host: site", b"A: b"
            ),
            request(b"GET", b"http://site/", b"Host: other"),
            request(b"CONNECT", b"site"),
            request(b"CONNECT", b"site:0"),
            request(b"GET", b"*"),
        ):
            caller = self.caller().send(message)
            self.assertEqual(caller.statuses, [400], message)
        self.assertEqual(self.wire.peers, [])

    def test_website(self) -> None:
        """Who takes us for a website is told what we are."""
        caller = self.caller().send(request(target=b"/favicon.ico"))
        self.assertEqual(caller.statuses, [400])
        self.assertIn(b"this is a proxy", caller.answer.body.lower())
        self.assertFalse(caller.closed)

    def test_empty_content(self) -> None:
        """A request with a length of 0 has no content."""
        head = self.asked(b"Content-Length: 0", method=b"POST")
        self.assertEqual(head.fields.get_all(b"Content-Length"), [b"0"])


class ContentTests(FrontCase):
    """Content on its way to the next server."""

    def test_length(self) -> None:
        """Content of known length is sent with it, as it comes."""
        caller = self.caller().send(
            request(b"PUT", b"http://site/", b"Content-Length: 6", body=b"abc")
        )
        peer = self.peer()
        self.assertEqual(peer.request.fields.get_all(b"Content-Length"), [b"6"])
        self.assertEqual((peer.bodies, peer.complete), ([b"abc"], 0))
        caller.more(b"def")
        self.assertEqual((self.peer().bodies, peer.complete), ([b"abcdef"], 1))
        self.reply(201)
        self.assertEqual(caller.statuses, [201])
        self.assertFalse(caller.closed)

    def test_chunks(self) -> None:
        """Content in chunks is sent in chunks, with its trailers."""
        caller = self.caller().send(
            request(b"PUT", b"http://site/", CHUNKED, body=b"3\r\nabc\r\n")
        )
        self.assertEqual(self.peer().bodies, [b"abc"])
        caller.more(b"0\r\nA: b\r\n\r\n")
        self.assertEqual(self.peer().complete, 1)
        self.assertEqual(
            self.peer().request.fields.get(b"Transfer-Encoding"), b"chunked"
        )
        self.reply(201)
        self.assertFalse(caller.closed)

    def test_trailers(self) -> None:
        """Trailers go on, but for those that would change the message."""
        self.caller().send(
            request(
                b"PUT",
                b"http://site/",
                CHUNKED,
                body=b"0\r\nA: b\r\nContent-Length: 7\r\n\r\n",
            )
        )
        sent = self.wire.peers[0].transport.value()
        self.assertTrue(sent.endswith(b"\r\n\r\n0\r\nA: b\r\n\r\n"), sent)

    def test_read_ahead(self) -> None:
        """While nobody wants it, it is held up to a limit; all of it arrives."""
        self.wire.hold = True
        size = 2 * READ_AHEAD
        caller = self.caller().send(
            request(b"PUT", b"http://site/", b"Content-Length: %d" % size)
        )
        caller.more(bytes(READ_AHEAD - 1))
        self.assertFalse(caller.paused)
        caller.more(b"x")
        self.assertTrue(caller.paused)
        caller.more(bytes(READ_AHEAD))
        self.assertEqual(len(caller.socket.incoming), 1)
        self.open()
        self.assertFalse(caller.paused)
        self.assertEqual(len(self.peer().bodies[0]), size)
        self.assertEqual(self.peer().complete, 1)

    def open(self) -> None:
        """Let what is connecting be connected."""
        held, self.wire.held = self.wire.held, []
        for _, open_it in held:
            open_it()
        self.loop.turn()

    def test_complete_while_paused(self) -> None:
        """A client that had to wait with its end is heard again afterwards."""
        self.wire.hold = True
        size = READ_AHEAD + 100
        caller = self.caller().send(
            request(b"PUT", b"http://site/", b"Content-Length: %d" % size)
        )
        caller.more(bytes(READ_AHEAD - 1))
        caller.more(bytes(101))
        self.open()
        self.assertEqual(self.peer().complete, 1)
        self.reply()
        self.assertFalse(caller.paused)
        caller.send(request())
        self.assertEqual(len(self.peer().requests), 2)

    def test_slow_server(self) -> None:
        """A slow server slows the client down."""
        caller = self.caller().send(request(b"PUT", b"http://site/", CHUNKED))
        producer: Any = self.peer().transport.producer
        producer.pauseProducing()
        self.assertTrue(caller.paused)
        producer.resumeProducing()
        self.assertFalse(caller.paused)
        caller.more(b"3\r\nabc\r\n0\r\n\r\n")
        self.assertEqual((self.peer().bodies, self.peer().complete), ([b"abc"], 1))

    def test_early_answer(self) -> None:
        """An answer may come before all content; what is left goes nowhere."""
        caller = self.caller().send(
            request(b"PUT", b"http://site/", b"Content-Length: 9", body=b"abc")
        )
        self.reply(413, body=b"no")
        self.assertEqual(caller.statuses, [413])
        self.assertEqual(caller.answer.get(b"Connection"), b"close")
        caller.more(b"defghi" + request())
        self.assertEqual(caller.statuses, [413])
        self.assertEqual(len(self.wire.peers), 1)
        self.assertTrue(self.peer().dropped)

    def test_both_ways(self) -> None:
        """Content and answer may flow at once."""
        caller = self.caller().send(request(b"PUT", b"http://site/", CHUNKED))
        self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        caller.more(b"3\r\nabc\r\n")
        self.assertEqual((caller.answer.body, self.peer().bodies), (b"ab", [b"abc"]))
        caller.more(b"0\r\n\r\n")
        self.assertEqual(self.peer().complete, 1)
        self.say(b"cd")
        self.assertEqual(caller.statuses, [200])
        self.assertTrue(caller.socket.closed)

    def test_server_gone(self) -> None:
        """A server that goes away in the middle of content is answered for."""
        caller = self.caller().send(
            request(b"PUT", b"http://site/", b"Content-Length: 9", body=b"abc")
        )
        self.peer().reset()
        self.loop.turn()
        self.assertEqual(caller.statuses, [502])
        self.assertIn(b"connection_terminated", caller.answer.get(b"Proxy-Status"))
        self.assertTrue(caller.closed)


class ExpectTests(FrontCase):
    """Clients that hold their content back (RFC 9110 10.1.1)."""

    LINES = (b"Content-Length: 3", b"Expect: 100-continue")

    def asking(self) -> Caller:
        caller = self.caller().send(request(b"PUT", b"http://site/", *self.LINES))
        self.assertEqual(self.peer().request.fields.get(b"Expect"), b"100-continue")
        self.assertEqual(caller.read(), [])
        return caller

    def test_wanted(self) -> None:
        """A server that wants the content gets it."""
        caller = self.asking()
        self.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual([each.status for each in caller.answer.interim], [100])
        caller.more(b"abc")
        self.assertEqual(self.peer().bodies, [b"abc"])
        self.reply(201)
        self.assertEqual(caller.statuses, [201])
        self.assertEqual(len(caller.answer.interim), 1)
        self.assertFalse(caller.closed)

    def test_silent(self) -> None:
        """A server that says nothing is not waited for."""
        caller = self.asking()
        self.loop.pass_time(1)
        self.assertEqual([each.status for each in caller.answer.interim], [100])
        caller.more(b"abc")
        self.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.reply(201)
        self.assertEqual(len(caller.answer.interim), 1)

    def test_refused(self) -> None:
        """A server that does not want it keeps the client from sending it."""
        caller = self.asking()
        self.reply(403, body=b"no")
        self.assertEqual((caller.statuses, caller.answer.interim), ([403], []))
        self.assertTrue(caller.socket.shut)
        self.assertEqual(self.peer().bodies, [b""])

    def test_not_held_back(self) -> None:
        """A client that does not wait needs no 100."""
        caller = self.caller().send(
            request(b"PUT", b"http://site/", *self.LINES, body=b"abc")
        )
        self.loop.pass_time(1)
        self.assertEqual(self.peer().bodies, [b"abc"])
        self.assertEqual(caller.socket.sent, b"")

    def test_without_content(self) -> None:
        """Without content there is nothing to expect."""
        self.caller().send(request(b"PUT", b"http://site/", self.LINES[1]))
        self.assertNotIn(b"Expect", self.peer().request.fields)

    def test_old_client(self) -> None:
        """Clients of HTTP/1.0 cannot mean it."""
        caller = self.caller().send(
            request(b"PUT", b"http://site/", *self.LINES, version=b"1.0", body=b"abc")
        )
        self.assertNotIn(b"Expect", self.peer().request.fields)
        self.say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n")
        self.assertEqual(caller.socket.sent, b"")

    def test_unknown(self) -> None:
        """Other expectations cannot be met."""
        caller = self.caller().send(request(b"GET", b"http://site/", b"Expect: fun"))
        self.assertEqual(caller.statuses, [417])


class AnswerTests(FrontCase):
    """What the client is answered."""

    def answered(
        self,
        data: bytes,
        *lines: bytes,
        method: bytes = b"GET",
        version: bytes = b"1.1",
    ) -> Answer:
        """Ask, have the server answer *data*, and read that."""
        self.connected = self.caller().send(
            request(method, b"http://site/", *lines, version=version)
        )
        self.say(data)
        return self.connected.answer

    def test_head(self) -> None:
        """The head is passed on, but for what was meant for us."""
        answer = self.answered(
            b"HTTP/1.0 299 So So\r\nA: 1\r\na: 2\r\nVia: 1.0 other\r\nDate: then\r\n"
            b"Connection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 1\r\n"
            b"Proxy-Authentication-Info: secret\r\nContent-Length: 0\r\n\r\n"
        )
        self.assertEqual((answer.status, answer.head.reason), (299, b"So So"))
        self.assertEqual(
            list(answer.head.fields),
            [
                (b"A", b"1"),
                (b"a", b"2"),
                (b"Via", b"1.0 other"),
                (b"Date", b"then"),
                (b"Content-Length", b"0"),
                (b"Via", b"1.0 coda-test"),
            ],
        )
        self.assertFalse(self.connected.closed)

    def test_chunks(self) -> None:
        """Content in chunks stays in chunks, with trailers for who wants them."""
        data = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n"
            b"\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nA: b\r\n\r\n"
        )
        answer = self.answered(data)
        self.assertEqual((answer.body, list(answer.trailers)), (b"abcde", []))
        self.assertNotIn(b"Content-Length", answer.head.fields)
        answer = self.answered(data, b"TE: trailers")
        self.assertEqual(
            (answer.body, list(answer.trailers)), (b"abcde", [(b"A", b"b")])
        )
        self.assertFalse(self.connected.closed)

    def test_chunks_for_an_old_client(self) -> None:
        """A client of HTTP/1.0 knows no chunks: the connection's end is the end."""
        answer = self.answered(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n0\r\n\r\n",
            version=b"1.0",
        )
        self.assertNotIn(b"Transfer-Encoding", answer.head.fields)
        self.assertEqual((answer.complete, answer.body), (True, b"abc"))

    def test_chunks_cut_short_for_an_old_client(self) -> None:
        """If they are cut short the connection is reset: it can tell."""
        self.answered(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            version=b"1.0",
        )
        self.peer().close()
        self.loop.turn()
        self.assertTrue(self.connected.socket.reset)

    def test_until_close(self) -> None:
        """Content that the connection ends is sent on in chunks."""
        answer = self.answered(b"HTTP/1.1 200 OK\r\n\r\nabc")
        self.assertFalse(answer.complete)
        self.peer().close()
        self.loop.turn()
        self.assertEqual(self.connected.answer.body, b"abc")
        self.assertEqual(self.connected.statuses, [200])
        self.assertFalse(self.connected.closed)

    def test_cut_short(self) -> None:
        """Content that is cut short is cut short for the client."""
        for framing in (b"Content-Length: 9", b"Transfer-Encoding: chunked"):
            self.answered(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n3\r\nabc" % framing)
            self.peer().close()
            self.loop.turn()
            self.assertEqual(self.connected.statuses, [])
            self.assertTrue(self.connected.socket.closed)
            self.assertIn("(cut short: the connection ended", self.lines[-1])

    def test_malformed_content(self) -> None:
        """So is content that turns out malformed."""
        self.answered(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        self.say(b"nonsense\r\n")
        self.assertEqual(self.connected.statuses, [])
        self.assertTrue(self.connected.socket.closed)

    def test_length_is_ours(self) -> None:
        """A server cannot take the length from the head by naming it."""
        answer = self.answered(
            b"HTTP/1.1 200 OK\r\nConnection: Content-Length\r\nContent-Length: 3\r\n"
            b"\r\nabc"
        )
        self.assertEqual(answer.get(b"Content-Length"), b"3")
        self.assertTrue(answer.complete)
        self.assertFalse(self.connected.closed)

    def test_no_content(self) -> None:
        """HEAD, 204 and 304 have no content, whatever they say of it."""
        for method, head in (
            (b"HEAD", b"200 OK\r\nContent-Length: 5"),
            (b"HEAD", b"200 OK\r\nTransfer-Encoding: chunked"),
            (b"HEAD", b"200 OK"),
            (b"GET", b"204 No"),
            (b"GET", b"304 Same\r\nContent-Length: 5"),
        ):
            answer = self.answered(b"HTTP/1.1 %b\r\n\r\n" % head, method=method)
            self.assertTrue(answer.complete)
            self.assertFalse(self.connected.closed)
            self.connected.send(request())
            self.reply(200, body=b"next")
            self.assertEqual(self.connected.answer.body, b"next")
        self.assertEqual(len(self.wire.peers), 1)

    def test_length_of_nothing(self) -> None:
        """What can have no content has no length (RFC 9110 8.6): it would mislead."""
        answer = self.answered(b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n")
        self.assertIsNone(answer.get(b"Content-Length"))
        answer = self.answered(b"HTTP/1.1 103 E\r\nContent-Length: 5\r\n\r\n")
        self.assertEqual(list(answer.interim[0].fields), [])
        caller = self.caller().send(
            request(b"GET", b"http://site/", b"Connection: upgrade", b"Upgrade: x")
        )
        self.say(b"HTTP/1.1 101 S\r\nUpgrade: x\r\nContent-Length: 5\r\n\r\n")
        self.assertIsNone(caller.answer.get(b"Content-Length"))

    def test_interim(self) -> None:
        """1xx are passed on as they come, but for a 100 nobody asked for."""
        answer = self.answered(
            b"HTTP/1.1 100 Continue\r\n\r\n"
            b"HTTP/1.1 103 Early Hints\r\nLink: a\r\nConnection: b\r\nb: c\r\n\r\n"
        )
        [early] = answer.interim
        self.assertEqual((early.status, list(early.fields)), (103, [(b"Link", b"a")]))
        self.reply(200)
        self.assertEqual(self.connected.statuses, [200])

    def test_407(self) -> None:
        """A server's 407 is none of the client's business."""
        answer = self.answered(
            b'HTTP/1.1 407 Auth\r\nProxy-Authenticate: NTLM, Basic realm="a"\r\n'
            b"Content-Length: 1000\r\n\r\npart"
        )
        self.assertEqual(answer.status, 502)
        self.assertNotIn(b"Proxy-Authenticate", answer.head.fields)
        self.assertIn(b"(NTLM, Basic)", answer.body)
        self.assertIn(b"received-status=407", answer.get(b"Proxy-Status"))
        self.assertTrue(self.peer().dropped)

    def test_nonsense(self) -> None:
        """An answer that is no HTTP is answered 502."""
        answer = self.answered(b"SSH-2.0-OpenSSH\r\n")
        self.assertEqual(answer.status, 502)
        self.assertIn(b"http_protocol_error", answer.get(b"Proxy-Status"))
        self.assertFalse(self.connected.closed)

    def test_silence(self) -> None:
        """A server that says nothing is given up: 504."""
        caller = self.caller().send(request())
        self.loop.pass_time(120)
        self.assertEqual(caller.statuses, [504])
        self.assertIn(b"http_response_timeout", caller.answer.get(b"Proxy-Status"))

    def test_unreachable(self) -> None:
        """Servers that cannot be reached are told apart."""
        for error, kind in (
            (ConnectionRefusedError(), b"connection_refused"),
            (DNSLookupError(), b"dns_error"),
        ):
            self.wire.refusals = {"site": error}
            for message in (request(), CONNECT):
                caller = self.caller().send(message)
                self.assertEqual(caller.statuses, [502])
                self.assertIn(kind, caller.answer.get(b"Proxy-Status"))

    def test_head_refused(self) -> None:
        """A page of ours that answers HEAD has a length and no content."""
        self.wire.refusals = {"site": ConnectionRefusedError()}
        caller = self.caller().send(request(b"HEAD"))
        self.assertEqual(caller.statuses, [502])
        self.assertGreater(int(caller.answer.get(b"Content-Length") or 0), 50)
        caller.send(request(b"OPTIONS", b"*"))
        self.assertEqual(caller.statuses, [502, 200])

    def test_page(self) -> None:
        """A page of ours names the request, as the log does."""
        self.wire.refusals = {"site": ConnectionRefusedError()}
        caller = self.caller().send(
            request(b"GET", b"http://site/", b"Accept: text/html")
        )
        self.assertIn(b"<small>coda-proxy, r1</small>", caller.answer.body)
        self.assertIsNotNone(caller.answer.get(b"Date"))
        self.assertTrue(self.lines[0].startswith("r1 "), self.lines)
        self.assertIn("502", self.lines[0])

    def test_unforeseen(self) -> None:
        """A mistake of ours is answered 500, and logged in full."""
        self.wire.refusals = {"site": ZeroDivisionError("a mistake")}
        caller = self.caller().send(request())
        self.assertEqual(caller.statuses, [500])
        self.assertNotIn(b"mistake", caller.answer.body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_unforeseen_in_the_answer(self) -> None:
        """Even where the answer has come already; nobody waits for ever."""
        caller = self.caller().send(request())
        dates: list[bytes] = []

        def date() -> bytes:
            dates.append(b"now")
            return dates[1]  # fails the first time

        self.patch(self.proxy, "date", date)
        self.reply(200)
        self.assertEqual(caller.statuses, [500])
        self.assertEqual(len(self.flushLoggedErrors(IndexError)), 1)


class Engine:
    """Answers when the test says so, and in ways that a wire cannot."""

    def __init__(self) -> None:
        self.asking: Deferred[Response] = Deferred()

    def request(self, _: Any) -> Deferred[Response]:
        return self.asking

    def answer(self, fields: Fields, *, status: int = 200) -> Response:
        """Make a response whose connection is the test's business."""
        return Response(
            ResponseHead(status, b"", (1, 1), fields),
            Framing.LENGTH if status == 200 else Framing.NONE,
            HTTPConnection(Clock(), Timeouts()),
            takes_over=status == 101,
        )


class LateTests(FrontCase):
    """Answers that were checked for so long that their connection is done."""

    def ask(self, *lines: bytes) -> Caller:
        """Ask the engine that the test plays."""
        self.engine = Engine()
        self.patch(self.proxy, "client", self.engine)
        return self.caller().send(request(b"GET", b"http://site/", *lines))

    def complete(self) -> Response:
        response = self.engine.answer(Fields([(b"Content-Length", b"3")]))
        response.receive(b"abc")
        response.finish(Fields())
        return response

    def test_complete(self) -> None:
        """An answer that is complete is delivered as it is."""
        caller = self.ask()
        self.engine.asking.callback(self.complete())
        self.loop.turn()
        self.assertEqual((caller.statuses, caller.answer.body), ([200], b"abc"))

    def test_failed(self) -> None:
        """One that is cut short is cut short."""
        caller = self.ask()
        response = self.engine.answer(Fields([(b"Content-Length", b"3")]))
        response.receive(b"a")
        response.fail(Failure(ConnectionEnded("gone", answered=True)))
        self.engine.asking.callback(response)
        self.loop.turn()
        self.assertEqual((caller.statuses, caller.closed), ([], True))

    def test_failed_before_content(self) -> None:
        """As long as nothing of it has gone out we can say what happened."""
        caller = self.ask()
        response = self.engine.answer(Fields([(b"Content-Length", b"3")]))
        response.fail(Failure(ConnectionEnded("gone", answered=True)))
        self.engine.asking.callback(response)
        self.loop.turn()
        self.assertEqual((caller.statuses, caller.closed), ([502], False))

    def test_no_stream(self) -> None:
        """A stream that is gone before it changes hands is answered for."""
        caller = self.ask(*UpgradeTests.LINES)
        response = self.engine.answer(Fields(), status=101)
        response.fail(Failure(ConnectionEnded("gone", answered=True)))
        self.engine.asking.callback(response)
        self.loop.turn()
        self.assertEqual(caller.statuses, [502])

    def test_unforeseen_afterwards(self) -> None:
        """A mistake of ours behind a complete answer is logged, and no more."""
        caller = self.ask()
        self.patch(caller.protocol, "answered", lambda keep: [][0])
        self.engine.asking.callback(self.complete())
        self.loop.turn()
        self.assertEqual((caller.statuses, caller.closed), ([200], False))
        self.assertEqual(len(self.flushLoggedErrors(IndexError)), 1)


class TunnelTests(FrontCase):
    """CONNECT."""

    def peer(self, number: int = -1) -> Peer:
        """A server at the end of a tunnel."""
        peer = self.wire.peers[number]
        if peer.tunnel is None:
            peer.tunnel = b""
        return peer.read()

    def test_direct(self) -> None:
        """Without an upstream proxy the server itself is connected to."""
        caller = self.caller().send(CONNECT)
        self.assertEqual((self.peer().host, self.peer().port), ("site", 443))
        self.assertEqual(caller.statuses, [200])
        self.assertEqual(caller.answer.head.reason, b"Connection established")
        self.assertEqual(list(caller.answer.head.fields), [])
        caller.more(b"\x16\x03\x01")
        self.assertEqual(self.peer().tunnel, b"\x16\x03\x01")
        self.say(b"GET / HTTP/1.1\r\n\r\n")
        caller.read()
        self.assertEqual(caller.tunnel, b"GET / HTTP/1.1\r\n\r\n")
        caller.vanish()
        self.assertTrue(self.wire.peers[0].transport.aborted)
        self.assertEqual(
            self.lines, ["r1 127.0.0.1:50000 CONNECT site:443 200 21 0.000s"]
        )
        self.assertEqual(self.loop.getDelayedCalls(), [])

    def test_no_limits(self) -> None:
        """A tunnel may be silent for as long as it likes."""
        caller = self.caller().send(CONNECT)
        self.loop.pass_time(10000)
        self.assertFalse(caller.closed)
        self.assertEqual(self.loop.getDelayedCalls(), [])

    def test_old_client(self) -> None:
        """Clients of HTTP/1.0 may have tunnels too."""
        caller = self.caller().send(b"CONNECT site:443 HTTP/1.0\r\n\r\n")
        self.assertEqual(caller.statuses, [200])

    def test_early(self) -> None:
        """What comes behind a CONNECT is for the tunnel, and none of it is lost."""
        caller = self.caller().send(CONNECT + request(), b"CONNECT")
        self.assertEqual(self.peer().tunnel, request())
        self.assertEqual(caller.statuses, [200])
        self.assertEqual(len(self.wire.peers), 1)

    def test_early_while_connecting(self) -> None:
        """However long that takes, and up to a limit."""
        self.wire.hold = True
        caller = self.caller().send(CONNECT + b"1", b"CONNECT")
        caller.more(b"2" * READ_AHEAD)
        self.assertFalse(caller.paused)
        caller.more(b"3")
        self.assertTrue(caller.paused)
        self.wire.held[0][1]()
        self.loop.turn()
        self.assertFalse(caller.paused)
        caller.more(b"4")
        self.assertEqual(self.peer().tunnel, b"1" + b"2" * READ_AHEAD + b"34")

    def test_refused(self) -> None:
        """What comes behind a CONNECT that is refused is never taken for requests."""
        for early in (b"", request()):
            self.wire.refusals = {"site": ConnectionRefusedError()}
            caller = self.caller().send(CONNECT + early, b"CONNECT")
            self.assertEqual(caller.statuses, [502])
            self.assertEqual(caller.answer.get(b"Connection"), b"close")
            self.assertTrue(caller.closed)
        caller.more(request())  # reads it away
        self.assertEqual(caller.statuses, [502])
        self.assertEqual(self.wire.peers, [])

    def test_content(self) -> None:
        """CONNECT has no content: what looks like it would be tunnelled."""
        caller = self.caller().send(
            CONNECT[:-2] + b"Content-Length: 3\r\n\r\nabc", b"CONNECT"
        )
        self.assertEqual(caller.statuses, [400])
        self.assertEqual(self.wire.peers, [])

    def test_server_first(self) -> None:
        """The server may be the first to speak, and the first to end."""
        caller = self.caller().send(CONNECT)
        self.say(b"220 ready")
        self.peer().close()
        self.loop.turn()
        caller.read()
        self.assertEqual(caller.tunnel, b"220 ready")
        self.assertTrue(caller.socket.closed)
        self.assertFalse(caller.socket.reset)

    def test_server_resets(self) -> None:
        """An abrupt end is one for the client too."""
        caller = self.caller().send(CONNECT)
        self.peer().reset()
        self.loop.turn()
        self.assertTrue(caller.socket.reset)

    def test_client_ends_half(self) -> None:
        """A client may end its half, and hear the rest."""
        caller = self.caller().send(CONNECT).more(b"question")
        caller.finish()
        self.assertTrue(self.peer().transport.disconnecting)
        self.say(b"answer")
        caller.read()
        self.assertEqual(caller.tunnel, b"answer")
        self.assertFalse(caller.closed)

    def test_server_ends_half(self) -> None:
        """So may a server, for a while."""
        caller = self.caller().send(CONNECT)
        self.peer().transport.protocol.readConnectionLost()
        self.loop.turn()
        self.assertTrue(caller.socket.shut)
        self.loop.pass_time(HALF_CLOSED_LIMIT - 1)
        caller.more(b"rest")
        self.assertEqual(self.peer().tunnel, b"rest")
        self.loop.pass_time(HALF_CLOSED_LIMIT - 1)
        self.assertFalse(caller.socket.closed)
        self.loop.pass_time(1)
        self.assertTrue(caller.socket.closed)
        self.assertTrue(self.peer().dropped)

    def test_pace(self) -> None:
        """Each side slows the other down."""
        caller = self.caller().send(CONNECT)
        caller.take(0)
        self.say(bytes(100000))
        self.assertEqual(self.wire.peers[0].transport.producerState, "paused")
        caller.take(None)
        self.assertEqual(self.wire.peers[0].transport.producerState, "producing")
        producer: Any = self.wire.peers[0].transport.producer
        producer.pauseProducing()
        self.assertTrue(caller.paused)

    def test_full_client(self) -> None:
        """A client that is full when its tunnel opens gets all of it."""
        caller = self.caller()
        caller.send(request(b"OPTIONS", b"*") * 400 + CONNECT, *[b"OPTIONS"] * 400)
        caller._methods.append(b"CONNECT")
        self.say(bytes(100000))
        caller.take(0)
        self.say(bytes(100000))
        caller.take(None)
        self.assertTrue(caller.socket.sent.endswith(bytes(200000)))

    def test_stop(self) -> None:
        """Stopping ends tunnels."""
        self.caller().send(CONNECT)
        stopped = self.proxy.stop()
        self.loop.turn()
        self.successResultOf(stopped)
        self.assertTrue(self.wire.peers[0].transport.aborted)


class UpgradeTests(FrontCase):
    """Upgrade to another protocol (RFC 9110 7.8)."""

    LINES = (b"Connection: Upgrade", b"Upgrade: WebSocket", b"Sec-WebSocket-Key: x")
    SWITCHED = (
        b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: y\r\n\r\n"
    )

    def test_switched(self) -> None:
        """The stream is the other protocol's once the server agrees."""
        caller = self.caller().send(request(b"GET", b"http://site/", *self.LINES))
        fields = self.peer().request.fields
        self.assertEqual(fields.get_all(b"Upgrade"), [b"websocket"])
        self.assertEqual(fields.tokens(b"Connection"), [b"upgrade"])
        self.peer().tunnel = b""
        self.say(self.SWITCHED + b"first")
        answer = caller.answer
        self.assertEqual((answer.status, caller.tunnel), (101, b"first"))
        self.assertEqual(
            list(answer.head.fields),
            [
                (b"Sec-WebSocket-Accept", b"y"),
                (b"Connection", b"Upgrade"),
                (b"Upgrade", b"websocket"),
            ],
        )
        caller.more(b"frame")
        self.assertEqual(self.peer().tunnel, b"frame")
        caller.vanish()
        self.assertTrue(self.peer().transport.aborted)
        self.assertIn(" 101 10 ", self.lines[0])

    def test_refused(self) -> None:
        """A server that does not agree answers as ever."""
        caller = self.caller().send(request(b"GET", b"http://site/", *self.LINES))
        self.reply(200, body=b"page")
        self.assertEqual((caller.statuses, caller.answer.body), ([200], b"page"))
        caller.send(request())
        self.assertEqual(len(self.peer().requests), 2)

    def test_unasked(self) -> None:
        """A server that changes protocols unasked is not obeyed."""
        for message in (
            request(),
            request(b"GET", b"http://site/", *self.LINES, version=b"1.0"),
            request(b"GET", b"http://site/", b"Connection: Upgrade", b"Upgrade: h2c"),
            request(b"PUT", b"http://site/", *self.LINES, b"Content-Length: 3"),
        ):
            caller = self.caller().send(message)
            self.assertNotIn(b"Upgrade", self.peer().request.fields)
            self.say(self.SWITCHED)
            self.assertEqual(caller.statuses, [502])
            self.assertIn(b"http_protocol_error", caller.answer.get(b"Proxy-Status"))
            self.assertTrue(self.peer().transport.aborted)

    def test_early(self) -> None:
        """What comes before the server has agreed is for the other protocol."""
        caller = self.caller().send(
            request(b"GET", b"http://site/", *self.LINES) + b"early"
        )
        self.peer().tunnel = b""
        self.say(self.SWITCHED)
        self.assertEqual(caller.statuses, [101])
        self.assertEqual(self.peer().tunnel, b"early")


class UpstreamTests(FrontCase):
    """In front of a proxy that demands NTLM."""

    route = PROXY
    credentials = ThreeLegCredentials()

    def log_on(self) -> None:
        """Have the proxy challenge as NTLM does, and be satisfied."""
        for field in (NTLM, CHALLENGE):
            self.reply(407, field, body=b"challenged")

    def test_request(self) -> None:
        """A request is authenticated, and the client sees nothing of it."""
        caller = self.caller().send(request(target=b"http://site:80/p"))
        self.assertEqual(self.peer().request.target, b"http://site/p")
        self.log_on()
        self.assertEqual(caller.socket.sent, b"")
        self.reply(200, body=b"fine")
        self.assertEqual((caller.statuses, caller.answer.body), ([200], b"fine"))
        self.assertEqual(len(self.wire.peers), 1)

    def test_gone_while_refused(self) -> None:
        """Nothing is left of a tunnel that is being refused when its client goes."""
        caller = self.caller().send(CONNECT)
        self.say(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nbeca")
        caller.vanish()
        self.assertTrue(self.peer().transport.aborted)
        self.assertEqual(self.loop.getDelayedCalls(), [])

    def test_content(self) -> None:
        """Content is sent once the proxy has stopped asking."""
        caller = self.caller().send(
            request(b"PUT", b"http://site/", b"Content-Length: 3", body=b"abc")
        )
        self.log_on()
        self.assertEqual(self.peer().bodies[-1], b"abc")
        self.reply(201)
        self.assertEqual(caller.statuses, [201])
        self.assertFalse(caller.closed)

    def test_content_that_comes_late(self) -> None:
        """It may come at any time of that."""
        size = 3 * READ_AHEAD
        caller = self.caller().send(
            request(b"PUT", b"http://site/", b"Content-Length: %d" % size)
        )
        caller.more(bytes(READ_AHEAD))
        self.reply(407, NTLM)
        caller.more(bytes(READ_AHEAD))
        self.reply(407, CHALLENGE)
        caller.more(bytes(READ_AHEAD))
        self.assertEqual(len(self.peer().bodies[-1]), size)
        self.reply(201)
        self.assertEqual(caller.statuses, [201])
        caller.send(request())
        self.assertEqual(self.peer().requests[-1].method, b"GET")

    def test_malformed_content(self) -> None:
        """Content that turns out malformed is not sent on another connection."""
        self.caller().send(request())
        self.log_on()
        self.reply(200)
        caller = self.caller().send(
            request(b"PUT", b"http://site/", CHUNKED, body=b"3\r\nabc\r\n")
        )
        caller.more(b"nonsense\r\n")
        self.assertEqual(caller.statuses, [400])
        self.assertEqual(len(self.wire.peers), 1)
        self.assertTrue(self.peer().transport.aborted)

    def test_tunnel(self) -> None:
        """So is a tunnel, which is asked for by what we are."""
        caller = self.caller().send(
            request(
                b"CONNECT",
                b"site:443",
                b"User-Agent: curl",
                b"Via: 1.1 a",
                b"Cookie: c",
                b"Proxy-Authorization: d",
            )
        )
        head = self.peer().request
        self.assertEqual((head.method, head.target), (b"CONNECT", b"site:443"))
        self.assertEqual(
            list(head.fields),
            [
                (b"Host", b"site:443"),
                (b"User-Agent", b"curl"),
                (b"Via", b"1.1 a"),
                (b"Via", b"1.1 coda-test"),
            ],
        )
        self.log_on()
        self.peer().open_tunnel(b"hello")
        self.loop.turn()
        self.assertEqual(caller.statuses, [200])
        self.assertEqual(caller.tunnel, b"hello")
        caller.more(b"x")
        self.assertEqual(self.peer().tunnel, b"x")

    def test_tunnel_refused(self) -> None:
        """A proxy that refuses a tunnel is quoted."""
        for status, expected in ((403, 403), (503, 503), (302, 502)):
            caller = self.caller().send(CONNECT)
            if status == 403:
                self.log_on()
            self.reply(status, body=b"because")
            self.assertEqual(caller.statuses, [expected])
            self.assertIn(b"%d" % status, caller.answer.body)
            self.assertIn(
                b"received-status=%d" % status, caller.answer.get(b"Proxy-Status")
            )
            self.assertTrue(caller.socket.closed)

    def test_rejected(self) -> None:
        """A proxy that rejects the password is answered for: 502, and why."""
        caller = self.caller().send(request())
        self.log_on()
        self.reply(407, NTLM)
        self.assertEqual(caller.statuses, [502])
        self.assertIn(b"wrong password", caller.answer.body)
        caller.send(request())
        self.reply(407, NTLM)
        self.assertEqual(caller.statuses, [502, 502])
        self.assertNotIn(b"Proxy-Authorization", self.peer().request.fields)

    def test_gone_between_the_legs(self) -> None:
        """A client that goes away in the middle of it leaves nothing behind."""
        caller = self.caller().send(
            request(b"PUT", b"http://site/", b"Content-Length: 9", body=b"abc")
        )
        self.reply(407, NTLM)
        caller.vanish()
        self.assertTrue(self.peer().transport.aborted)
        self.assertEqual(self.client._pool._shelves, {})


class PinTests(FrontCase):
    """Websites that authenticate connections, by NTLM or Negotiate."""

    def ask(self, caller: Caller, *lines: bytes) -> int:
        """Ask the website, and say on which of its connections that was."""
        caller.send(request(b"GET", b"http://site/", *lines))
        [number] = [
            number
            for number, peer in enumerate(self.wire.peers)
            if peer.read().complete > self.answered.get(number, 0)
        ]
        self.answered[number] = self.answered.get(number, 0) + 1
        return number

    def setUp(self) -> None:
        super().setUp()
        self.answered: dict[int, int] = {}

    def log_on(self, caller: Caller, scheme: bytes = b"NTLM") -> int:
        """Authenticate one client; say on which connection."""
        line = b"Authorization: %b %b"
        numbers = set()
        for token in (b"one", b"three"):
            number = self.ask(caller, line % (scheme, b64encode(token)))
            self.wire.peers[number].answer(
                401 if token == b"one" else 200,
                (b"WWW-Authenticate", scheme + b" dHdv"),
            )
            self.loop.turn()
            numbers.add(number)
        [number] = numbers
        return number

    def test_kept_apart(self) -> None:
        """An authenticated connection serves the client that authenticated it alone."""
        for scheme in (b"NTLM", b"Negotiate", b"nTLM"):
            alice, bob = self.caller(), self.caller()
            number = self.ask(alice)
            self.wire.peers[number].answer(401, (b"WWW-Authenticate", scheme))
            self.loop.turn()
            hers = self.log_on(alice, scheme)
            self.assertNotEqual(hers, number)
            his = self.ask(bob)
            self.assertNotEqual(his, hers)
            self.wire.peers[his].answer(200)
            self.assertEqual(self.ask(alice), hers)
            self.wire.peers[hers].answer(200)
            self.loop.turn()
            alice.finish()
            self.assertTrue(self.wire.peers[hers].dropped)
            self.assertFalse(self.wire.peers[his].dropped)
            self.assertNotEqual(self.ask(bob), hers)
            self.wire.peers[his].answer(200)
            bob.finish()

    def test_gone_while_asking(self) -> None:
        """Her connection does not outlive her, even if it is in use when she goes."""
        alice = self.caller()
        hers = self.log_on(alice)
        self.ask(alice)
        alice.vanish()
        self.assertTrue(self.wire.peers[hers].transport.aborted)

    def test_other_schemes(self) -> None:
        """Schemes that authenticate requests share connections."""
        alice, bob = self.caller(), self.caller()
        hers = self.ask(alice, b"Authorization: Basic TlRMTTo=")
        self.wire.peers[hers].answer(200)
        self.loop.turn()
        self.assertEqual(self.ask(bob), hers)

    def test_support(self) -> None:
        """A client is told that it may (RFC 4559 6)."""
        caller = self.caller().send(request())
        self.reply(401, (b"WWW-Authenticate", b'Basic realm="a", NTLM'))
        answer = caller.answer
        self.assertEqual(answer.get(b"Proxy-Support"), b"Session-Based-Authentication")
        self.assertEqual(answer.get(b"Connection"), b"Proxy-Support")
        caller.send(request())
        self.reply(401, (b"WWW-Authenticate", b'Basic realm="ntlm"'))
        self.assertNotIn(b"Proxy-Support", caller.answer.head.fields)

    def test_support_and_close(self) -> None:
        """Even by an answer that closes the connection."""
        caller = self.caller().send(request(version=b"1.0"))
        self.reply(401, (b"WWW-Authenticate", b"Negotiate"))
        self.assertEqual(caller.answer.get(b"Connection"), b"Proxy-Support, close")


class RulesTests(FrontCase):
    """Where others than loopback are served."""

    def make_access(self) -> Access:
        access = Access([ip_network("10.0.0.0/8")])
        access.listening = [(ip_address("10.0.0.1"), 8088)]
        return access

    def refused(self, message: bytes, host: str = "10.1.2.3") -> Answer:
        caller = self.caller(host).send(message)
        [answer] = caller.read()
        self.assertTrue(answer.complete)
        return answer

    def test_served(self) -> None:
        """Clients of the networks are served, and this machine."""
        for host in ("10.1.2.3", "127.0.0.1", "::1", "::ffff:10.1.2.3"):
            caller = self.caller(host).send(request())
            self.reply(200)
            self.assertEqual(caller.statuses, [200])

    def test_strangers(self) -> None:
        """Others are not."""
        for host in ("192.168.1.1", "::ffff:192.168.1.1", "fe80::1"):
            for message in (request(), CONNECT, request(target=b"/")):
                answer = self.refused(message, host)
                self.assertEqual(answer.status, 403)
                self.assertIn(b"--allow", answer.body)
                self.assertIn(b"http_request_denied", answer.get(b"Proxy-Status"))
        self.assertEqual(self.wire.peers, [])

    def test_ports(self) -> None:
        """CONNECT may go to few ports."""
        answer = self.refused(b"CONNECT site:25 HTTP/1.1\r\nHost: site\r\n\r\n")
        self.assertEqual(answer.status, 403)
        self.assertIn(b"--connect-ports", answer.body)

    def test_destinations(self) -> None:
        """Nothing goes to where clouds keep their credentials."""
        for host in (
            b"169.254.169.254",
            b"[::ffff:a9fe:a9fe]",
            b"[fe80::1]",
            b"0.0.0.0",
        ):
            for message in (
                request(target=b"http://%b/" % host),
                b"CONNECT %b:443 HTTP/1.1\r\nHost: x\r\n\r\n" % host,
            ):
                answer = self.refused(message)
                self.assertEqual(answer.status, 403)
                self.assertIn(b"destination_ip_prohibited", answer.get(b"Proxy-Status"))
        self.assertEqual(self.wire.peers, [])

    def test_resolved(self) -> None:
        """Not even by a name; nothing is sent there."""
        for message in (request(), CONNECT):
            self.wire.hold = True
            caller = self.caller("10.1.2.3").send(message)
            self.patch_peer("169.254.169.254", 80)
            [(_, open_it)] = self.wire.held
            self.wire.held.clear()
            open_it()
            self.loop.turn()
            self.assertEqual(caller.statuses, [403])
            self.assertEqual(self.wire.peers[-1].transport.value(), b"")
            self.assertTrue(self.wire.peers[-1].transport.aborted)

    def patch_peer(self, host: str, port: int) -> None:
        """Have the next connections end at an address."""
        self.patch(PeerTransport, "peerAddr", IPv4Address("TCP", host, port))

    def test_itself(self) -> None:
        """The service does not ask itself."""
        for target in (b"http://10.0.0.1:8088/", b"http://[::ffff:a00:1]:8088/"):
            self.assertEqual(self.refused(request(target=target)).status, 508)
        self.patch_peer("10.0.0.1", 8088)
        self.assertEqual(self.refused(request()).status, 508)
