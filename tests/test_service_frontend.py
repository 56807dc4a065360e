"""Tests for :mod:`coda_twisted.service.frontend`."""

from __future__ import annotations

import re
import socket
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from zope.interface.verify import verifyObject

from coda_twisted.http1.fields import Fields
from coda_twisted.http1.heads import RequestHead
from coda_twisted.http1.targets import parse_target
from coda_twisted.service.accesslog import AccessLog, Entry, _shown
from coda_twisted.service.content import READ_AHEAD
from coda_twisted.service.frontend import ClientConnection
from coda_twisted.service.limits import Limits
from coda_twisted.service.proxy import Proxy
from tests.front import Caller, FrontCase

KIB = 1024

HEAD_LIMIT = 10.0
KEEP_ALIVE_LIMIT = 60.0
LINGER_LIMIT = 5.0
CONTENT_LIMIT = 300.0
ANSWER_LIMIT = 300.0
"""Seconds, by default."""

GET = b"GET http://site/ HTTP/1.1\r\nHost: site\r\n\r\n"
OPTIONS = b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"
"""What we answer ourselves."""
CHUNKED = (
    b"POST http://site/ HTTP/1.1\r\nHost: site\r\nTransfer-Encoding: chunked\r\n\r\n"
)
"""The head of what comes in chunks."""


def post(length: int, path: bytes = b"/", *lines: bytes) -> bytes:
    """Write the head of a POST."""
    more = b"".join(line + b"\r\n" for line in lines)
    return (
        b"POST http://site%b HTTP/1.1\r\nHost: site\r\nContent-Length: %d\r\n%b\r\n"
        % (path, length, more)
    )


class ServingTests(FrontCase):
    """One request after another."""

    def test_interfaces(self) -> None:
        """A connection is what transports expect of it."""
        connection = ClientConnection(self.proxy)
        verifyObject(IHalfCloseableProtocol, connection)
        verifyObject(IPushProducer, connection)

    def test_one(self) -> None:
        """A request is forwarded and answered, and the connection kept."""
        caller = self.caller().send(GET)
        self.reply(200, body=b"hello")
        self.assertEqual(caller.answer.body, b"hello")
        self.assertIsNone(caller.answer.get(b"Connection"))
        self.assertFalse(caller.closed)

    def test_socket(self) -> None:
        """Small answers are not delayed, and dead clients are found out."""
        caller = self.caller()
        self.assertIn((socket.IPPROTO_TCP, socket.TCP_NODELAY), caller.socket.options)
        self.assertIn((socket.SOL_SOCKET, socket.SO_KEEPALIVE), caller.socket.options)

    def test_next(self) -> None:
        """The next request may come when the one before is answered."""
        caller = self.caller()
        for _ in range(3):
            caller.send(GET)
            self.reply()
        self.assertEqual(caller.statuses, [200, 200, 200])
        self.assertEqual(len(self.wire.peers), 1)

    def test_after_our_own_answer(self) -> None:
        """A request that we answer ourselves does not keep the next from it."""
        caller = self.caller()
        for _ in range(3):
            caller.send(OPTIONS)
        self.assertEqual(caller.statuses, [200, 200, 200])
        self.assertFalse(caller.closed)

    def test_close_wanted(self) -> None:
        """A client that wants the connection closed has it closed."""
        for option in (b"Connection: close", b"Proxy-Connection: close"):
            caller = self.caller()
            caller.send(
                b"GET http://site/ HTTP/1.1\r\nHost: site\r\n%b\r\n\r\n" % option
            )
            self.reply()
            self.assertEqual(caller.answer.get(b"Connection"), b"close")
            self.assertTrue(caller.socket.closed)

    def test_old_client(self) -> None:
        """With a client of HTTP/1.0 no connection is kept (RFC 9112 C.2.2)."""
        caller = self.caller()
        caller.send(
            b"GET http://site/ HTTP/1.0\r\nProxy-Connection: keep-alive\r\n\r\n"
        )
        self.reply(200, body=b"x")
        self.assertEqual(caller.answer.get(b"Connection"), b"close")
        self.assertTrue(caller.socket.closed)

    def test_octet_by_octet(self) -> None:
        """Requests may come in the smallest pieces."""
        caller = self.caller()
        caller.send(b"", b"POST")
        for octet in post(3) + b"abc":
            caller.more(bytes([octet]))
        self.assertEqual(self.peer().bodies, [b"abc"])
        self.reply(201)
        self.assertEqual(caller.statuses, [201])

    def test_log(self) -> None:
        """A request is one line; what is behind a question mark is not shown."""
        self.caller().send(GET.replace(b"site/", b"site/path?secret"))
        self.loop.advance(1.5)
        self.reply(200, body=b"hello")
        self.assertEqual(
            self.lines, ["r1 127.0.0.1:50000 GET http://site/path 200 5 1.500s"]
        )

    def test_log_queries(self) -> None:
        """It is shown to who wants to see it."""
        self.proxy = Proxy(
            self.client, self.loop, self.access, b"coda-test", log_queries=True
        )
        self.caller().send(GET.replace(b"site/", b"site/path?public"))
        self.reply()
        self.assertIn("http://site/path?public 200", self.lines[0])

    def test_quiet(self) -> None:
        """Who wants no access log has none."""
        self.proxy = Proxy(
            self.client, self.loop, self.access, b"coda-test", quiet=True
        )
        self.caller().send(GET)
        self.reply()
        self.caller().send(b"nonsense\r\n\r\n", b"GET")
        self.assertEqual(self.lines, [])

    def test_shown(self) -> None:
        """Targets are logged as they were asked for, if they could be read."""
        for method, target, expected in (
            (b"GET", b"HTTP://Site:80/p?q#", None),
            (b"GET", b"HTTP://Site:80/p?q", "HTTP://Site:80/p"),
            (b"GET", b"/p?q", "/p"),
            (b"OPTIONS", b"*", "*"),
            (b"CONNECT", b"Site:0443", "site:443"),
        ):
            head = RequestHead(method, target, (1, 1), Fields())
            parsed = None if expected is None else parse_target(method, target)
            self.assertEqual(_shown(head, parsed, queries=False), expected or "-")

    def test_cursor(self) -> None:
        """What others write into a note cannot move a terminal's cursor."""
        entry = Entry("r1", "me", "GET", "-", 502, self.loop.seconds())
        AccessLog(self.loop).ended(entry, 0, "a \x9b1m \x1b[b")
        self.assertEqual(self.lines, ["r1 me GET - 502 0 0.000s (a ?1m ?[b)"])

    def test_date(self) -> None:
        """Answers without a Date get one (RFC 9110 6.6.1)."""
        self.loop.advance(784111777)
        caller = self.caller().send(GET)
        self.reply()
        self.assertEqual(caller.answer.get(b"Date"), b"Sun, 06 Nov 1994 08:49:37 GMT")
        self.assertIs(self.proxy.date(), self.proxy.date())


class PipelineTests(FrontCase):
    """Requests that come before the one ahead of them is answered."""

    def test_order(self) -> None:
        """They are carried one by one, and answered in their order."""
        caller = self.caller()
        caller.send(GET + post(3) + b"abc" + GET, b"GET", b"POST", b"GET")
        for number in (1, 2, 3):
            self.assertEqual(len(self.peer().requests), number)
            self.reply(200 + number, body=b"%d" % number)
        self.assertEqual(caller.statuses, [201, 202, 203])
        self.assertEqual([each.body for each in caller.read()], [b"1", b"2", b"3"])
        self.assertEqual(self.peer().bodies, [b"", b"abc", b""])

    def test_no_recursion(self) -> None:
        """Any number of them may be answered at once."""
        caller = self.caller()
        caller.send(OPTIONS * 1500, *[b"OPTIONS"] * 1500)
        self.assertEqual(caller.socket.sent.count(b"HTTP/1.1 200 OK"), 1500)

    def test_our_own_between(self) -> None:
        """Answers of ours keep their place."""
        caller = self.caller()
        caller.send(OPTIONS + GET + OPTIONS, b"OPTIONS", b"GET", b"OPTIONS")
        self.assertEqual(caller.statuses, [200])
        self.reply(404)
        self.assertEqual(caller.statuses, [200, 404, 200])

    def test_bounded(self) -> None:
        """What comes ahead of its turn is held up to a limit, then it must wait."""
        caller = self.caller().send(GET)
        caller.more(post(200 * KIB) + bytes(READ_AHEAD - len(post(200 * KIB))))
        self.assertFalse(caller.paused)
        caller.more(b"x")
        self.assertTrue(caller.paused)
        caller.socket.incoming.append(bytes(200 * KIB - READ_AHEAD))
        caller._methods.append(b"POST")
        self.reply()
        self.assertFalse(caller.paused)

    def test_malformed_behind(self) -> None:
        """A malformed one is answered 400 in its turn, and ends the connection."""
        caller = self.caller()
        caller.send(GET + b"GET  http://evil/ HTTP/1.1\r\n\r\n" + GET, b"GET", b"GET")
        self.reply(200, body=b"fine")
        self.assertEqual(caller.statuses, [200, 400])
        self.assertTrue(caller.closed)
        self.assertEqual(len(self.peer().requests), 1)

    def test_behind_a_close(self) -> None:
        """What comes behind a request that closes the connection is never read."""
        caller = self.caller()
        caller.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + GET)
        self.reply()
        self.assertEqual((caller.statuses, caller.socket.shut), ([200], True))
        self.assertFalse(caller.socket.closed)
        self.assertEqual(len(self.peer().requests), 1)

    def test_part_of_the_next(self) -> None:
        """A next head that has begun to come has its time from its turn on."""
        caller = self.caller().send(GET + GET[:9])
        self.loop.pass_time(HEAD_LIMIT * 3)
        self.reply()
        self.loop.pass_time(HEAD_LIMIT - 1)
        self.assertEqual(caller.statuses, [200])
        caller.send(b"", b"GET")
        self.loop.pass_time(1)
        self.assertEqual(caller.statuses, [200, 408])


class PaceTests(FrontCase):
    """Clients that do not keep up with what they are answered."""

    def test_slow(self) -> None:
        """A slow client slows the server down, and gets all of it."""
        caller = self.caller().send(GET)
        caller.take(0)
        self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(100000))
        self.assertEqual(self.peer().transport.producerState, "paused")
        caller.take(None)
        self.assertEqual(self.peer().transport.producerState, "producing")
        self.say(bytes(200000))
        self.assertEqual(len(caller.socket.sent.partition(b"\r\n\r\n")[2]), 300000)
        caller.send(OPTIONS)
        self.assertTrue(caller.socket.sent.endswith(b"Content-Length: 0\r\n\r\n"))

    def test_full_before_the_answer(self) -> None:
        """An answer to a client that is full already waits from its beginning."""
        caller = self.caller().send(GET)
        caller.take(0)
        for _ in range(2):
            self.say(b"HTTP/1.1 103 Early Hints\r\nA: %b\r\n\r\n" % (b"b" * 10000))
        self.say(b"HTTP/1.1 200 OK\r\n\r\nbegin")
        self.assertEqual(self.peer().transport.producerState, "paused")
        caller.take(None)
        self.assertEqual(self.peer().transport.producerState, "producing")
        self.say(b" end")
        self.peer().close()
        self.loop.turn()
        self.assertEqual(caller.answer.body, b"begin end")

    def test_full_for_a_while(self) -> None:
        """One that has made room before its answer comes is answered as ever."""
        caller = self.caller().send(GET)
        caller.take(0)
        for _ in range(2):
            self.say(b"HTTP/1.1 103 Early Hints\r\nA: %b\r\n\r\n" % (b"b" * 10000))
        caller.take(None)
        self.reply(200, body=b"hello")
        self.assertEqual(len(caller.answer.interim), 2)
        self.assertEqual(caller.statuses, [200])

    def test_refused(self) -> None:
        """A last word may be one too many; it arrives all the same."""
        caller = self.caller().send(OPTIONS)
        size = len(caller.socket.sent)
        caller.take(0)
        few = 64 * KIB // size
        caller.send(OPTIONS * few, *[b"OPTIONS"] * few)
        caller.send(b"nonsense\r\n\r\n")
        self.assertTrue(caller.protocol.full)
        caller.take(None)
        self.assertEqual(caller.statuses[few:], [200, 400])
        self.assertTrue(caller.socket.shut)

    def test_does_not_read(self) -> None:
        """A client that reads no answers is not answered for ever."""
        caller = self.caller()
        caller.take(0)
        caller.send(OPTIONS * 1500, *[b"OPTIONS"] * 1500)
        transport: Any = caller.protocol.transport
        self.assertLess(transport._tempDataLen, 2 * 64 * KIB)
        caller.take(None)
        self.assertEqual(caller.socket.sent.count(b"HTTP/1.1 200 OK"), 1500)

    def test_full_and_done(self) -> None:
        """The next request waits until the answer before it is taken."""
        caller = self.caller().send(GET)
        caller.take(0)
        self.reply(200, body=bytes(100000))
        caller.send(GET)
        self.assertEqual(len(self.peer().requests), 1)
        caller.take(None)
        self.assertEqual(len(self.peer().requests), 2)

    def test_closed_when_taken(self) -> None:
        """A connection that is to close does so once a slow client has all."""
        for answer in (b"Content-Length: 100000\r\n\r\n", b"\r\n"):
            caller = self.caller()
            caller.send(b"GET http://site/ HTTP/1.0\r\n\r\n")
            caller.take(0)
            self.say(b"HTTP/1.1 200 OK\r\n" + answer + bytes(100000))
            self.peer().close()
            self.assertFalse(caller.closed)
            caller.take(None)
            self.assertTrue(caller.socket.closed)
            self.assertFalse(caller.socket.reset)
            self.assertEqual(len(caller.answer.body), 100000)

    def test_cut_short_when_taken(self) -> None:
        """So does one whose answer is cut short."""
        caller = self.caller().send(GET)
        caller.take(0)
        self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(100000))
        self.peer().reset()
        self.loop.turn()
        self.assertFalse(caller.closed)
        caller.take(None)
        self.assertTrue(caller.socket.closed)
        self.assertEqual(caller.statuses, [])

    def test_malformed_when_taken(self) -> None:
        """So does one whose request turns out malformed while it is answered."""
        caller = self.caller().send(CHUNKED)
        caller.take(0)
        self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(100000))
        caller.more(b"nonsense\r\n")
        self.assertTrue(self.peer().transport.aborted)
        caller.take(None)
        self.assertTrue(caller.socket.closed)
        self.assertEqual(caller.statuses, [])

    def test_gone(self) -> None:
        """A slow client that goes away ends the request, and is to blame."""
        caller = self.caller().send(GET)
        caller.take(0)
        self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(100000))
        caller.vanish()
        self.assertTrue(self.peer().transport.aborted)
        self.assertTrue(self.lines[0].endswith("(the client went away)"), self.lines)
        self.assertEqual(self.proxy.connections, set())


class MalformedTests(FrontCase):
    """What is no request."""

    def refused(self, data: bytes, method: bytes = b"GET") -> Any:
        caller = self.caller().send(data, method)
        self.assertTrue(caller.closed)
        answer = caller.answer
        self.assertTrue(answer.complete)
        self.assertEqual(answer.get(b"Connection"), b"close")
        self.assertIsNotNone(answer.get(b"Date"))
        self.assertIn(b"error=http_request_error", answer.get(b"Proxy-Status"))
        return answer

    def test_statuses(self) -> None:
        """Each way to be malformed has its answer, and ends the connection."""
        long = b"GET http://site/%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 20000)
        many = GET[:-2] + b"A: b\r\n" * 101 + b"\r\n"
        for data, status in (
            (b"nonsense\r\n\r\n", 400),
            (b"GET http://site/ HTTP/1.1\r\nHost : x\r\n\r\n", 400),
            (b"GET http://site/ HTTP/1.1\r\nA: b\nHost: x\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
            (b"\r\n" * 9, 400),
            (long, 414),
            (many, 431),
            (GET[:-2] + b"A: " + b"b" * 70000, 431),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ):
            self.assertEqual(self.refused(data).status, status, data[:50])
        self.assertEqual(self.wire.peers, [])

    def test_smuggling(self) -> None:
        """Content whose end two readers could see in two places goes nowhere."""
        head = b"POST http://site/ HTTP/1.1\r\nHost: site\r\n"
        for lines in (
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Content-Length: 5\r\nContent-Length: 6\r\n",
            b"Content-Length: 5, 5\r\n",
            b"Content-Length: +5\r\n",
            b"Transfer-Encoding: chunked, identity\r\n",
            b"Transfer-Encoding: xchunked\r\n",
            b"Transfer-Encoding\r\n : chunked\r\n",
        ):
            answer = self.refused(head + lines + b"\r\n0\r\n\r\n" + GET)
            self.assertEqual(answer.status, 400, lines)
        self.assertEqual(self.wire.peers, [])

    def test_log(self) -> None:
        """It is logged as far as it is known."""
        self.refused(b"nonsense\r\n\r\n")
        self.assertEqual(
            self.lines,
            [
                "r1 127.0.0.1:50000 - - 400 "
                "(the request cannot be understood: the request line is malformed)"
            ],
        )

    def test_content(self) -> None:
        """Content that turns out malformed ends the request, and is answered 400."""
        caller = self.caller().send(CHUNKED + b"3\r\nabc\r\n")
        self.assertEqual(self.peer().bodies, [b"abc"])
        caller.more(b"nonsense\r\n")
        self.assertEqual(caller.statuses, [400])
        self.assertTrue(caller.closed)
        self.assertTrue(self.peer().transport.aborted)
        self.assertEqual(self.peer().complete, 0)
        self.assertEqual(len(self.wire.peers), 1)

    def test_content_while_answered(self) -> None:
        """If the answer has begun it is cut short."""
        caller = self.caller().send(CHUNKED)
        self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        caller.more(b"nonsense\r\n")
        self.assertTrue(caller.socket.closed)
        self.assertEqual((caller.statuses, caller.answer.body), ([], b"half"))
        self.assertTrue(self.peer().transport.aborted)
        self.assertIn("the first line of a chunk is malformed", self.lines[0])


class LimitTests(FrontCase):
    """Clients that say nothing, or not enough."""

    def test_silent(self) -> None:
        """A connection without a request is closed in the end, without a word."""
        caller = self.caller()
        self.loop.pass_time(KEEP_ALIVE_LIMIT - 1)
        self.assertFalse(caller.closed)
        self.loop.pass_time(1)
        self.assertTrue(caller.socket.closed)
        self.assertEqual(caller.socket.sent, b"")

    def test_silent_afterwards(self) -> None:
        """So is one that was used before; the time runs from the last answer."""
        caller = self.caller()
        self.loop.pass_time(50)
        caller.send(GET)
        self.loop.pass_time(50)
        self.reply()
        self.loop.pass_time(KEEP_ALIVE_LIMIT - 1)
        self.assertFalse(caller.closed)
        self.loop.pass_time(1)
        self.assertTrue(caller.socket.closed)
        self.assertEqual(caller.statuses, [200])

    def test_half_a_head(self) -> None:
        """A head that does not come to its end is answered 408."""
        caller = self.caller()
        self.loop.pass_time(KEEP_ALIVE_LIMIT - 1)
        caller.send(GET[:20])
        self.loop.pass_time(HEAD_LIMIT - 1)
        caller.more(GET[20:25])
        self.assertFalse(caller.closed)
        self.loop.pass_time(1)
        self.assertEqual(caller.statuses, [408])
        self.assertTrue(caller.closed)

    def test_empty_line(self) -> None:
        """An empty line is not taken for the beginning of a request."""
        caller = self.caller().send(GET)
        self.reply()
        caller.more(b"\r\n")
        self.loop.pass_time(HEAD_LIMIT)
        self.assertEqual(caller.statuses, [200])
        self.assertTrue(caller.socket.closed)

    def test_request_takes_its_time(self) -> None:
        """No limit of these is for content that comes, if slowly, or for the answer."""
        caller = self.caller().send(post(4) + b"a")
        for each in (b"b", b"c", b"d"):
            self.loop.pass_time(CONTENT_LIMIT - 1)
            caller.more(each)
        self.loop.pass_time(119)  # of the next server's 120
        self.assertFalse(caller.closed)
        self.reply()
        self.assertEqual(caller.statuses, [200])

    def test_content_stalls(self) -> None:
        """Content that does not come is waited for no longer, and that is said."""
        caller = self.caller().send(post(4) + b"a")
        self.loop.pass_time(CONTENT_LIMIT - 1)
        self.assertFalse(caller.closed)
        self.loop.pass_time(1)
        self.assertEqual(caller.statuses, [408])
        self.assertIn(b"--content-timeout", caller.answer.body)
        self.assertEqual(caller.answer.get(b"Connection"), b"close")
        self.assertTrue(self.peer().transport.aborted)
        self.loop.pass_time(LINGER_LIMIT)
        self.assertTrue(caller.socket.closed)

    def test_content_stalls_behind_an_answer(self) -> None:
        """An answer that has begun is cut short."""
        caller = self.caller().send(post(4) + b"a")
        self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        self.loop.pass_time(CONTENT_LIMIT)
        self.assertTrue(caller.closed)
        self.assertEqual((caller.statuses, caller.answer.body), ([], b"half"))

    def test_content_is_not_wanted(self) -> None:
        """A client that was told to wait is not blamed for it."""
        caller = self.caller().send(post(1000000))
        transport: Any = self.peer().transport
        transport.producer.pauseProducing()
        self.assertTrue(caller.paused)
        self.loop.pass_time(CONTENT_LIMIT - 1)
        transport.producer.resumeProducing()
        self.loop.pass_time(CONTENT_LIMIT - 1)
        self.assertFalse(caller.closed)
        self.loop.pass_time(1)
        self.assertEqual(caller.statuses, [408])

    def test_long_poll(self) -> None:
        """Nobody is blamed for an answer that takes its time."""
        caller = self.caller().send(post(1) + b"a")
        self.say(b"HTTP/1.1 200 OK\r\n\r\nbegin")
        self.loop.pass_time(100 * CONTENT_LIMIT)
        self.assertFalse(caller.closed)
        self.peer().close()
        self.loop.turn()
        self.assertEqual(caller.statuses, [200])

    def test_answer_is_not_read(self) -> None:
        """A client that does not read what it is answered is dropped."""
        caller = self.caller().send(GET)
        caller.take(0)
        self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(99999))
        self.loop.pass_time(ANSWER_LIMIT - 1)
        self.assertFalse(caller.socket.closed)
        self.loop.pass_time(1)
        self.assertTrue(caller.socket.reset)
        self.assertTrue(self.peer().transport.aborted)
        self.assertIn("the client does not read its answer", self.lines[-1])
        self.assertEqual(self.loop.getDelayedCalls(), [])

    def test_answer_is_read_slowly(self) -> None:
        """As long as it reads something, it is not."""
        caller = self.caller().send(GET)
        caller.take(0)
        self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 199998\r\n\r\n" + bytes(99999))
        self.loop.pass_time(ANSWER_LIMIT - 1)
        caller.take(None)
        caller.take(0)
        self.say(bytes(99999))
        self.loop.pass_time(ANSWER_LIMIT - 1)
        caller.take(None)
        self.assertEqual(caller.statuses, [200])

    def test_end_of_an_answer_is_not_read(self) -> None:
        """Nor is a small answer kept for ever."""
        caller = self.caller().send(
            b"GET http://site/ HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n"
        )
        caller.take(0)
        self.reply(body=bytes(5000))
        self.loop.pass_time(ANSWER_LIMIT - 1)
        self.assertFalse(caller.socket.closed)
        self.loop.pass_time(1)
        self.assertTrue(caller.socket.reset)


class OwnLimitTests(FrontCase):
    """Limits of somebody's choice."""

    limits = Limits(head=None, content=None, answer=None, keep_alive=None)

    def test_none(self) -> None:
        """Without limits nothing is ever too long."""
        silent = self.caller()
        begun = self.caller().send(GET[:20])
        stalled = self.caller().send(post(4) + b"a")
        deaf = self.caller().send(GET)
        deaf.take(0)
        self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(99999))
        self.loop.pass_time(1e6)
        for caller in (silent, begun, stalled, deaf):
            self.assertFalse(caller.closed)


class LingerTests(FrontCase):
    """Clients that are answered before they have sent everything."""

    def early(self) -> Caller:
        caller = self.caller().send(post(1000000) + b"begin")
        self.reply(413, body=b"too much")
        self.assertEqual(caller.answer.get(b"Connection"), b"close")
        self.assertTrue(caller.socket.shut)
        self.assertFalse(caller.socket.closed)
        return caller

    def test_read_away(self) -> None:
        """What they send is read away, so that they can read the answer."""
        caller = self.early()
        for _ in range(5):
            caller.more(bytes(100000))
            self.assertFalse(caller.paused)
        self.assertEqual(caller.statuses, [413])
        caller.finish()
        self.assertTrue(caller.socket.closed)
        self.assertFalse(caller.socket.reset)

    def test_limit(self) -> None:
        """Not for ever."""
        caller = self.early()
        self.loop.pass_time(LINGER_LIMIT - 1)
        caller.more(b"more")
        self.assertFalse(caller.socket.closed)
        self.loop.pass_time(1)
        self.assertTrue(caller.socket.closed)

    def test_slow_reader(self) -> None:
        """The time does not run before the answer is out."""
        caller = self.caller().send(post(1000000) + b"begin")
        caller.take(0)
        self.reply(413, body=bytes(50000))
        self.loop.pass_time(10 * LINGER_LIMIT)
        self.assertFalse(caller.socket.closed)
        caller.take(None)
        self.assertEqual(len(caller.answer.body), 50000)
        self.loop.pass_time(LINGER_LIMIT)
        self.assertTrue(caller.socket.closed)

    def test_takes_nothing(self) -> None:
        """A client that never takes its answer is not waited for, nor told more."""
        for message in (
            b"\x16\x03",
            GET.replace(b"Host", b"Connection: close\r\nHost"),
        ):
            caller = self.caller()
            caller.take(0)
            caller.send(message, b"GET")
            if self.wire.peers:
                self.reply(200, body=bytes(1000))
            self.loop.pass_time(ANSWER_LIMIT - 1)
            self.assertFalse(caller.socket.closed)
            self.loop.pass_time(1)
            self.assertTrue(caller.socket.closed)
            self.assertEqual(self.proxy.connections, set())
        self.assertEqual(len(self.lines), 2)

    def test_was_paused(self) -> None:
        """A client that had to wait with its content may go on sending it."""
        self.wire.hold = True
        caller = self.caller().send(post(1000000) + bytes(READ_AHEAD))
        self.assertTrue(caller.paused)
        self.loop.pass_time(20)
        self.assertEqual(caller.statuses, [504])
        self.assertFalse(caller.paused)

    def test_gone(self) -> None:
        """A client may go away in the middle of it."""
        caller = self.early()
        caller.vanish()
        self.assertEqual(self.proxy.connections, set())
        self.assertEqual(len(self.lines), 1)


class EndTests(FrontCase):
    """Clients that go away, and the end of the service."""

    def gone(self, caller: Caller) -> None:
        self.assertTrue(caller.socket.closed)
        self.assertEqual(self.proxy.connections, set())
        self.assertTrue(self.lines[0].endswith("(the client went away)"), self.lines)
        self.assertEqual(len(self.lines), 1)

    def test_idle(self) -> None:
        """An idle client that ends is ended with."""
        for caller in (self.caller(), self.caller().send(OPTIONS)):
            caller.finish()
            self.assertTrue(caller.socket.closed)
            self.assertFalse(caller.socket.reset)
        caller = self.caller()
        caller.vanish()
        self.assertEqual(self.proxy.connections, set())
        self.assertEqual(self.loop.getDelayedCalls(), [])

    def test_while_connecting(self) -> None:
        """A client that goes away stops the connecting for it."""
        for go in (Caller.finish, Caller.vanish):
            self.wire.hold = True
            caller = self.caller().send(GET)
            go(caller)
            self.gone(caller)
            self._events.clear()
        self.assertEqual(self.wire.cancelled, 2)

    def test_while_waiting(self) -> None:
        """A client that goes away ends the upstream request."""
        for go in (Caller.finish, Caller.vanish):
            caller = self.caller().send(GET)
            go(caller)
            self.assertTrue(self.peer().transport.aborted)
            self.gone(caller)
            self.assertEqual(caller.socket.sent, b"")
            self._events.clear()

    def test_while_answered(self) -> None:
        """So does one that has part of the answer."""
        for go in (Caller.finish, Caller.vanish):
            caller = self.caller().send(GET)
            self.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
            go(caller)
            self.assertTrue(self.peer().transport.aborted)
            self.gone(caller)
            self.assertEqual(caller.statuses, [])
            self._events.clear()

    def test_while_answered_without_length(self) -> None:
        """Who tells the end of an answer by that of the connection sees it reset."""
        caller = self.caller().send(b"GET http://site/ HTTP/1.0\r\n\r\n")
        self.say(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        caller.finish()
        self.assertTrue(caller.socket.reset)
        self.gone(caller)

    def test_while_sending(self) -> None:
        """A request that is cut short is cut short for the next server too."""
        for lines in (b"Content-Length: 9", b"Transfer-Encoding: chunked"):
            for go in (Caller.finish, Caller.vanish):
                caller = self.caller().send(
                    b"PUT http://site/ HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n3\r\nabc\r\n"
                    % lines
                )
                go(caller)
                self.assertTrue(self.peer().transport.aborted)
                self.assertEqual(self.peer().complete, 0)
                self.gone(caller)
                self.assertEqual(caller.socket.sent, b"")
                self._events.clear()
        self.assertEqual(len(self.wire.peers), 4)

    def test_while_pipelining(self) -> None:
        """What it had asked for besides is forgotten with it."""
        caller = self.caller().send(GET + GET, b"GET", b"GET")
        caller.finish()
        self.assertTrue(self.peer().transport.aborted)
        self.assertEqual(len(self.peer().requests), 1)
        self.gone(caller)

    def test_no_half_request(self) -> None:
        """A client that ends in the middle of a head is no request at all."""
        caller = self.caller().send(GET[:10])
        caller.finish()
        self.assertTrue(caller.socket.closed)
        self.assertEqual(self.lines, [])

    def test_stop(self) -> None:
        """Stopping ends every connection, and what is under way for it."""
        idle, busy = self.caller(), self.caller().send(GET)
        stopped = self.proxy.stop()
        self.assertNoResult(stopped)
        self.loop.turn()
        self.successResultOf(stopped)
        self.assertTrue(idle.socket.reset and busy.socket.reset)
        self.assertTrue(self.peer().transport.aborted)
        self.assertEqual(self.loop.getDelayedCalls(), [])

    def test_stop_without_clients(self) -> None:
        """Without connections there is nothing to wait for."""
        self.successResultOf(self.proxy.stop())


CONTENT = st.one_of(
    st.none(),
    st.tuples(st.just("length"), st.binary(max_size=300)),
    st.tuples(st.just("chunks"), st.binary(max_size=300)),
)
REQUEST = st.one_of(
    st.just((b"OPTIONS", b"*", None)),  # answered by us
    st.tuples(
        st.sampled_from([b"GET", b"POST", b"DELETE"]),
        st.sampled_from([b"/", b"/p?q=%20", b"/" + b"long" * 300]),
        CONTENT,
    ),
)
SEGMENT = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            GET,
            GET[:20],
            OPTIONS,
            post(5),
            CHUNKED,
            b"CONNECT site:443 HTTP/1.1\r\nHost: site\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            b"\r\n",
            b" HTTP/1.1\r\n",
        ]
    ),
)


def write(method: bytes, path: bytes, content: Any) -> bytes:
    """Write a request."""
    if path == b"*":
        return OPTIONS
    head = b"%b http://site%b HTTP/1.1\r\nHost: site\r\n" % (method, path)
    if content is None:
        return head + b"\r\n"
    framing, data = content
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(data), data)
    chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"


class AnythingTests(FrontCase):
    """What holds for every stream, however it is cut into segments."""

    @settings(max_examples=100, deadline=None)
    @given(requests=st.lists(REQUEST, min_size=1, max_size=5), data=st.data())
    def test_pipeline(self, requests: list[Any], data: st.DataObject) -> None:
        """The server sees exactly what was asked, the client its answers in order."""
        self.start()
        stream = b"".join(write(*request) for request in requests)
        cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
        caller = self.caller()
        caller.send(b"", *[method for method, _, _ in requests])
        forwarded = [request for request in requests if request[1] != b"*"]
        answers = 0
        for start, end in pairwise([0, *sorted(cuts), len(stream)]):
            caller.more(stream[start:end])
            if data.draw(st.booleans()):
                answers += self.answer_if_asked(answers)
        while answers < len(forwarded):
            answers += self.answer_if_asked(answers) or self.fail(
                "a request is missing"
            )
        seen = []
        if forwarded:
            [peer] = self.wire.peers
            heads = [(head.method, head.target) for head in peer.read().requests]
            seen = list(zip(heads, peer.bodies, strict=True))
        self.assertEqual(
            seen,
            [
                ((method, path), content[1] if content else b"")
                for method, path, content in forwarded
            ],
        )
        numbers = iter(range(answers))
        self.assertEqual(
            [(each.complete, each.body) for each in caller.read()],
            [
                (True, b"" if path == b"*" else b"%d" % next(numbers))
                for _, path, _ in requests
            ],
        )
        self.assertFalse(caller.closed)

    def answer_if_asked(self, answers: int) -> int:
        """Answer a request that is complete, with a number; say how many that was."""
        if not self.wire.peers or self.peer().complete == answers:
            return 0
        self.reply(200, body=b"%d" % answers)
        return 1

    @settings(max_examples=100, deadline=None)
    @given(segments=st.lists(SEGMENT, max_size=8))
    def test_anything(self, segments: list[bytes]) -> None:
        """Whatever comes, it is answered, or the connection closed, in the end."""
        self.start()
        caller = self.caller()
        for segment in segments:
            caller.more(segment)
        for _ in segments:  # each may be a request, and none is answered
            for peer in self.wire.peers:
                if not peer.dropped:
                    peer.reset()
            self.loop.turn()
        self.loop.pass_time(KEEP_ALIVE_LIMIT)
        self.loop.pass_time(LINGER_LIMIT)
        for status in re.findall(rb"HTTP/1\.1 ([0-9].*)\r\n", caller.socket.sent):
            if status not in (b"200 OK", b"200 Connection established"):
                self.assertIn(status[:1], (b"4", b"5"))
        self.assertTrue(caller.socket.closed)
        self.assertEqual(self.proxy.connections, set())
        self.assertEqual(self.flushLoggedErrors(), [])
