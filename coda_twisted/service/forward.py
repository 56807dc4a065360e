"""
One request on its way to the next server, and the answer on its way back.

Whatever happens, the client gets one of three: the next server's answer, an answer of
ours that says what went wrong, or, once an answer has begun, an end that cannot be
taken for a complete one.
"""

from __future__ import annotations

import re
from dataclasses import replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from coda_twisted.client.request import Request
from coda_twisted.client.response import Response
from coda_twisted.errors import CodaError, RemoteProtocolError
from coda_twisted.http1.bodies import (
    Framing,
    encode_chunk,
    last_chunk,
)
from coda_twisted.http1.fields import (
    HOP_BY_HOP,
    Fields,
    add_via,
    max_forwards,
    via_pseudonyms,
    without_hop_by_hop,
)
from coda_twisted.http1.heads import RequestHead, ResponseHead
from coda_twisted.http1.persistence import request_persists
from coda_twisted.http1.targets import (
    Form,
    Target,
    check_host,
    parse_target,
)
from coda_twisted.service.access import LoopDetected
from coda_twisted.service.content import RequestContent
from coda_twisted.service.large import Download, Sending
from coda_twisted.service.pages import (
    Problem,
    malformed,
    page,
    problem_of,
    unanswered_407,
)
from coda_twisted.service.relay import End, Ends

if TYPE_CHECKING:
    from coda_twisted.client.upload import Upload
    from coda_twisted.service.accesslog import Entry
    from coda_twisted.service.frontend import ClientConnection
    from coda_twisted.service.proxy import Proxy

__all__ = ["Forwarding"]

_TUNNEL_OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"

_BOUND_SCHEME = re.compile(
    rb"(?:^|,)[ \t]*(?:ntlm|negotiate)(?![^ \t,])", re.IGNORECASE
)
"""What authenticates a connection, not a request."""

_UNCOMMON = frozenset((b"authorization", b"expect", b"te", b"upgrade", b"via"))
"""Fields that ask for something special; most requests have none of them."""

_NOT_FORWARDED = HOP_BY_HOP | {b"host", b"expect", b"content-length"}
"""What stays behind of a request's fields, beside what ``Connection`` names."""

_SCHEMES = {b"http": "http", b"https": "https"}


class _Body(Enum):
    """How the end of an answer's content is told to the client."""

    NONE = auto()
    AS_LONG_AS_SAID = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()


class Forwarding:
    """
    Carry one request, as a client's connection sends it.

    :ivar content: The request's content, for the connection to feed.
    """

    __slots__ = (
        "_asking",
        "_began",
        "_body",
        "_client",
        "_download",
        "_dropped",
        "_head",
        "_is_plain",
        "_keeps",
        "_note",
        "_number",
        "_octets",
        "_over",
        "_proxy",
        "_responding",
        "_response",
        "_status",
        "_target",
        "_unsent",
        "_wants_continue",
        "content",
    )

    def __init__(
        self,
        client: ClientConnection,
        proxy: Proxy,
        head: RequestHead,
        number: int,
    ) -> None:
        self.content: RequestContent | None = None
        self._client = client
        self._proxy = proxy
        self._head = head
        self._number = number
        self._began = proxy.clock.seconds()
        self._target: Target | None = None
        self._asking: Deferred[Any] | None = None
        self._response: Response | None = None
        self._download: Download | None = None
        self._wants_continue = False
        self._responding = False
        self._keeps = False
        self._body = _Body.NONE
        # Whether the next server's part in this is over, and whether all is.
        self._dropped = False
        self._over = False
        self._is_plain = False
        self._status = 0
        self._octets = 0
        self._note = ""
        self._unsent = b""

    @property
    def _id(self) -> str:
        return self._proxy.id_of(self._number)

    # The request

    def begin(self, framing: Framing, length: int) -> None:
        """
        Find out what is asked, and ask it of whoever can answer.

        :param framing: Of the content.
        :param length: Of the content, in octets, where that is what frames it.
        """
        head = self._head
        try:
            if length or framing is Framing.CHUNKED:
                self.content = RequestContent(
                    length if framing is Framing.LENGTH else None,
                    self._client.flow,
                    self._content_asked_for,
                    self._bypass,
                )
            target = self._target = parse_target(head.method, head.target)
            check_host(head, target)
            self._proxy.access.check_client(self._client.host)
            self._is_plain = head.fields.lack(_UNCOMMON)
            if not self._is_plain:
                self._read_expectation()
                if self._proxy.name in via_pseudonyms(head.fields):
                    raise LoopDetected("the request has come by here before")
            self._dispatch(target)
        except RemoteProtocolError as error:
            self.answer(malformed(error))
        except CodaError:
            self._fail(Failure())

    def _read_expectation(self) -> None:
        """Read ``Expect`` (RFC 9110 10.1.1); clients of HTTP/1.0 cannot mean it."""
        expected = self._head.fields.tokens(b"Expect")
        if not expected or self._head.version < (1, 1):
            return
        if expected != [b"100-continue"]:
            raise RemoteProtocolError("an expectation that is not known here", 417)
        self._wants_continue = self.content is not None

    def _dispatch(self, target: Target) -> None:
        match target.form:
            case Form.AUTHORITY:
                self._connect(target)
            case Form.ABSOLUTE:
                hops = None
                if self._head.method in (b"OPTIONS", b"TRACE"):
                    hops = max_forwards(self._head.fields)
                if hops == 0:
                    self._answer_ourselves()
                else:
                    self._forward(target, hops)
            case Form.ASTERISK:
                self._answer_ourselves()
            case _:  # the origin-form
                self.answer(_NOT_A_WEBSITE)

    def _forward(self, target: Target, hops: int | None) -> None:
        scheme = _SCHEMES.get(target.scheme)
        if scheme is None:
            raise RemoteProtocolError("only http and https URIs are forwarded", 501)
        head, proxy, client = self._head, self._proxy, self._client
        assert target.port is not None
        proxy.access.check_destination(target.host, target.port)
        # Host is written anew from the target (RFC 9112 3.2.2), as is the framing.
        fields = without_hop_by_hop(head.fields, _NOT_FORWARDED)
        origin = (target.host, target.port)
        upgrade = None
        if not self._is_plain:
            if b"trailers" in head.fields.tokens(b"TE"):
                fields.add(b"TE", b"trailers")
            if _is_bound(fields.get_all(b"Authorization")):
                client.pins.add(origin)
            upgrade = self._upgrade()
        if hops is not None:
            fields.set(b"Max-Forwards", b"%d" % (hops - 1))
        add_via(fields, head.version, proxy.name)
        request = Request(
            method=head.method,
            scheme=scheme,
            host=target.host,
            port=target.port,
            path=target.path,
            fields=fields,
            body=self.content,
            on_interim=self._interim if head.version >= (1, 1) else None,
            upgrade=upgrade,
            expect_continue=self._wants_continue,
            pin=client.pin if origin in client.pins else None,
        )
        asking = self._asking = proxy.client.request(request)
        asking.addCallback(self._answered).addErrback(self._failed)

    def _upgrade(self) -> bytes | None:
        """
        Name the protocols to which the client offers to change (RFC 9110 7.8).

        With content there are none: the next server might change before all of it
        is there, and what follows would be taken for the other protocol.
        """
        fields = self._head.fields
        if (
            self._head.version < (1, 1)
            or self.content is not None
            or b"upgrade" not in fields.tokens(b"Connection")
        ):
            return None
        # h2c needs a field that ends here, and whose frames we could not read.
        wanted = [name for name in fields.tokens(b"Upgrade") if name != b"h2c"]
        return b", ".join(wanted) or None

    def _content_asked_for(self) -> None:
        """
        Have the client send what it holds back.

        The next server has said so, or says nothing and is not waited for any more.
        """
        if self._wants_continue:
            self._wants_continue = False
            self._client.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _bypass(self, content: RequestContent, upload: Upload) -> Sending | None:
        """Have the rest of large content pass us by, where that is possible."""
        if not Sending.suits(self._proxy, self._client, upload):
            return None
        return Sending(self._proxy, self._client, content, upload)

    def _interim(self, head: ResponseHead) -> None:
        """Pass a 1xx on, but for a 100 that this client did not ask for."""
        if head.status == 100:
            self._content_asked_for()
            return
        fields = without_hop_by_hop(head.fields)
        fields.remove(b"Content-Length")  # RFC 9110 8.6: not in 1xx and 204
        self._client.write(
            ResponseHead(head.status, head.reason, (1, 1), fields).serialise()
        )

    # Tunnels

    def _connect(self, target: Target) -> None:
        assert target.port is not None
        proxy = self._proxy
        proxy.access.check_connect(target.host, target.port)
        fields = Fields()
        agent = self._head.fields.get(b"User-Agent")
        if agent is not None:
            fields.add(b"User-Agent", agent)
        for value in self._head.fields.get_all(b"Via"):
            fields.add(b"Via", value)
        add_via(fields, self._head.version, proxy.name)
        endpoint = proxy.client.endpoint(target.host, target.port, fields=fields)
        asking: Deferred[Any] = endpoint.connect(Ends())
        self._asking = asking
        asking.addCallback(self._tunnelled).addErrback(self._failed)

    def _tunnelled(self, end: End) -> None:
        self._asking = None
        self._responding = True
        self._status = 200
        self._client.write(_TUNNEL_OPEN)
        self._client.become_tunnel(end)

    def _switch(self, response: Response) -> None:
        """Change protocols as the next server agreed to (RFC 9110 15.2.2)."""
        head = response.head
        fields = without_hop_by_hop(head.fields)
        fields.remove(b"Content-Length")
        fields.add(b"Connection", b"Upgrade")
        for value in head.fields.get_all(b"Upgrade"):
            fields.add(b"Upgrade", value)
        end = End()
        response.detach(end)
        self._responding = True
        self._status = head.status
        self._client.write(ResponseHead(101, head.reason, (1, 1), fields).serialise())
        self._client.become_tunnel(end)

    # The answer

    def _answered(self, response: Response) -> None:
        self._asking = None
        head = response.head
        if head.status == 407:
            problem = unanswered_407(head.fields)
            response.abort()
            self.answer(problem)
            return
        if response.takes_over:
            if self._upgrade() is None:
                response.abort()
                self.answer(_UNASKED_101)
            else:
                self._switch(response)
            return
        self._response = response
        fields = without_hop_by_hop(head.fields)
        if head.status == 401:
            self._note_bound_challenge(head.fields, fields)
        add_via(fields, head.version, self._proxy.name)
        if b"Date" not in fields:
            # RFC 9110 6.6.1: a recipient with a clock "MUST ... append" it.
            fields.add(b"Date", self._proxy.date())
        self._choose_body(response, fields)
        self._unsent = self._head_of_answer(head.status, head.reason, fields)
        response.deliver(self)
        if self._unsent:  # no content came with the head
            self._send(b"")
        if self._client.full:
            self.pauseProducing()
        if (
            self._response is not None  # it is not complete yet
            and self._body is _Body.AS_LONG_AS_SAID
            and Download.suits(self._proxy, self._client, response)
        ):
            self._download = Download(self._proxy, self._client, response, self)

    def _send(self, data: bytes) -> None:
        """Send to the client, with what was kept back to go out in one piece."""
        if self._unsent:
            data = self._unsent + data
            self._unsent = b""
        self._client.write(data)

    def _choose_body(self, response: Response, fields: Fields) -> None:
        """Decide how to frame the content for this client."""
        if response.framing is Framing.NONE:
            self._body = _Body.NONE
            if response.head.status == 204:
                fields.remove(b"Content-Length")
        elif response.framing is Framing.LENGTH:
            self._body = _Body.AS_LONG_AS_SAID
        elif self._head.version >= (1, 1):
            self._body = _Body.CHUNKED
            fields.add(b"Transfer-Encoding", b"chunked")
        else:
            self._body = _Body.UNTIL_CLOSE

    def _note_bound_challenge(self, challenged: Fields, fields: Fields) -> None:
        """
        Let the client authenticate through us by NTLM or Negotiate.

        RFC 4559 6 has a proxy say that it keeps the connection for this client
        alone; that it does so is seen to when the client answers.
        """
        if _is_bound(challenged.get_all(b"WWW-Authenticate")):
            fields.add(b"Proxy-Support", b"Session-Based-Authentication")

    def _head_of_answer(self, status: int, reason: bytes, fields: Fields) -> bytes:
        content = self.content
        self._responding = True
        self._status = status
        self._keeps = (
            (content is None or content.complete)
            and self._body is not _Body.UNTIL_CLOSE
            and request_persists(self._head)
            and self._head.method != b"CONNECT"
            and not self._proxy.draining
        )
        options = []
        if b"Proxy-Support" in fields:
            options.append(b"Proxy-Support")
        if not self._keeps:
            options.append(b"close")
        if options:
            fields.add(b"Connection", b", ".join(options))
        return ResponseHead(status, reason, (1, 1), fields).serialise()

    def received(self, data: bytes) -> None:
        """Pass a piece of the answer's content on (BodySink)."""
        self._octets += len(data)
        if self._body is _Body.CHUNKED:
            data = encode_chunk(data)
        self._send(data)

    def count(self, octets: int) -> None:
        """Take note of content that passes us by."""
        self._octets += octets

    def passed(self) -> None:
        """Take note that no more content passes us by."""
        self._download = None

    def finished(self, trailers: Fields) -> None:
        """Take note that the answer is complete (BodySink)."""
        self._response = None
        if self._body is _Body.CHUNKED:
            wanted = b"trailers" in self._head.fields.tokens(b"TE")
            self._send(last_chunk(trailers if wanted else None))
        elif self._unsent:
            self._send(b"")
        self._end()

    def failed(self, reason: Failure) -> None:
        """Take note that the rest of the answer will not come (BodySink)."""
        if self._dropped:
            return
        if self._unsent:  # nothing has gone out, so we can still say what happened
            self._unsent = b""
            self._responding = False
            self._fail(reason)
        else:
            self.abort(f"cut short: {reason.getErrorMessage()}")

    def pauseProducing(self) -> None:
        """Let no more of the answer come for now: the client does not keep up."""
        if self._response is not None and self._download is None:
            self._response.pauseProducing()

    def resumeProducing(self) -> None:
        """Let the answer come."""
        if self._response is not None and self._download is None:
            self._response.resumeProducing()

    def _end(self) -> None:
        self._finish_log()
        if self.content is not None and not self.content.complete:
            self.content.stopProducing()
        self._client.answered(keep=self._keeps)

    # Answers of ours

    def _failed(self, reason: Failure) -> None:
        self._asking = None
        if not self._dropped:
            self._fail(reason)

    def _fail(self, reason: Failure) -> None:
        problem = problem_of(reason.value)
        if problem is None:
            self._proxy.log.failure("{id} failed", reason, id=self._id)
            problem = Problem(
                500,
                "proxy_internal_error",
                "something went wrong in coda-proxy that nobody has foreseen",
                "Its log says more.",
            )
        self.answer(problem)

    def answer(self, problem: Problem) -> None:
        """Answer with a page of ours, or end what cannot be answered any more."""
        if self._responding:
            self.abort(problem.what)
            return
        self._note = problem.what
        self._drop()
        head, content = page(
            problem, self._head, self._proxy.name.decode("ascii"), self._id
        )
        head.fields.add(b"Date", self._proxy.date())
        self._write_own(head, content)

    def _write_own(self, head: ResponseHead, content: bytes) -> None:
        written = self._head_of_answer(head.status, head.reason, head.fields)
        if self._head.method != b"HEAD":
            self._octets += len(content)
            written += content
        self._client.write(written)
        self._end()

    def _answer_ourselves(self) -> None:
        """Answer OPTIONS and TRACE that are meant for us (RFC 9110 9.3.7, 9.3.8)."""
        fields = Fields([(b"Date", self._proxy.date())])
        content = b""
        if self._head.method == b"TRACE":
            # "excluding any fields that might contain sensitive data"
            shown = Fields(
                item
                for item in self._head.fields
                if item[0].lower()
                not in (b"authorization", b"proxy-authorization", b"cookie")
            )
            content = replace(self._head, fields=shown).serialise()
            fields.add(b"Content-Type", b"message/http")
        fields.add(b"Content-Length", b"%d" % len(content))
        self._write_own(ResponseHead(200, b"OK", (1, 1), fields), content)

    # The end

    def note(self, what: str) -> None:
        """Say in the log how this ends, unless that is known already."""
        self._note = self._note or what

    def abort(self, note: str) -> None:
        """Drop everything, so that the client does not take what it has for all."""
        if self._over:
            return
        self.note(note)
        self._drop()
        self._finish_log()
        self._client.cut_short(unframed=self._body is _Body.UNTIL_CLOSE)

    def _drop(self) -> None:
        """Let go of the next server."""
        content, response, asking = self.content, self._response, self._asking
        download, self._download = self._download, None
        self._response = self._asking = None
        self._dropped = True
        if download is not None:
            download.stop()
        if response is not None:
            response.abort()
        if asking is not None:
            asking.cancel()
        if content is not None:
            content.stopProducing()

    def become_tunnel(self) -> Entry | None:
        """Leave what is to be logged of the tunnel that this request has opened."""
        self._over = True
        return self._entry()

    def _finish_log(self) -> None:
        self._over = True
        log, entry = self._proxy.access_log, self._entry()
        if log is not None and entry is not None:
            log.ended(entry, self._octets, self._note)

    def _entry(self) -> Entry | None:
        log = self._proxy.access_log
        if log is None:
            return None
        return log.entry(
            self._id,
            self._client.name,
            self._head,
            self._target,
            self._status,
            self._began,
        )


_UNASKED_101 = Problem(
    502,
    "http_protocol_error",
    "the next server changed to another protocol, which nobody had asked of it",
)

_NOT_A_WEBSITE = Problem(
    400,
    "http_request_error",
    "this is a proxy, and was asked as if it were a website",
    "Name it as the proxy of your program: curl -x http://127.0.0.1:8088 "
    "https://www.example.com/",
)


def _is_bound(values: list[bytes]) -> bool:
    return any(map(_BOUND_SCHEME.search, values))
