"""The IAgent face: an ``Agent`` that authenticates to the proxies on its way."""

from __future__ import annotations

from typing import Any, NoReturn

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IProtocol, IPushProducer, IStreamClientEndpoint
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    UNKNOWN_LENGTH,
    IAgent,
    IAgentEndpointFactory,
    IBodyProducer,
    IClientRequest,
    IPolicyForHTTPS,
    IResponse,
)
from zope.interface import implementer

from coda_twisted.client.exchange import Client
from coda_twisted.client.request import Request
from coda_twisted.client.response import Response
from coda_twisted.client.tls import TLSPolicy
from coda_twisted.errors import ConnectionEnded, LocalProtocolError
from coda_twisted.http1.bodies import Framing
from coda_twisted.http1.fields import (
    HOP_BY_HOP,
    Fields,
    check_field,
    without_hop_by_hop,
)
from coda_twisted.http1.targets import Form, parse_target

__all__ = ["ClientAgent", "TunnelEndpointFactory"]

_FRAMING = (b"content-length", b"transfer-encoding", b"expect")
"""Fields of a request that say what the body producer says better."""

_NOT_SHOWN = HOP_BY_HOP | {b"content-length"}


@implementer(IAgent)
class ClientAgent:
    """
    Issue requests through a :class:`~coda_twisted.client.exchange.Client`.

    Works wherever ``twisted.web.client.Agent`` does: under treq, ``readBody``,
    ``RedirectAgent``, ``CookieAgent``, ``ContentDecoderAgent``.

    :ivar client: What carries the requests; its owner closes it.
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        Issue a request (IAgent).

        *headers* is neither kept nor changed.  Its hop-by-hop fields and framing
        are replaced by ours.

        :returns: Fires with an ``IResponse`` when its head is here.  Beside what
            :meth:`Client.request` fails with, fails with
            ``ResponseNeverReceived`` when the connection ended before, and
            :class:`~coda_twisted.errors.LocalProtocolError` when the request
            cannot be sent.
        """
        try:
            request = _request(method, uri, headers, bodyProducer)
        except Exception:
            return fail()
        asked = _Asked(method, uri, headers)

        def answered(response: Response) -> IResponse:
            return _AgentResponse(response, asked)

        return self.client.request(request).addCallbacks(answered, _explain)


def _explain(reason: Failure) -> NoReturn:
    """Say in Twisted's words that no answer came."""
    error = reason.value
    if isinstance(error, ConnectionEnded):
        raise ResponseNeverReceived([reason]) from error
    reason.raiseException()


def _request(
    method: bytes,
    uri: bytes,
    headers: Headers | None,
    body: IBodyProducer | None,
) -> Request:
    """Check what a caller wants to send, so that nothing else is sent."""
    if not isinstance(method, bytes) or not isinstance(uri, bytes):
        raise TypeError("method and uri are bytes")
    target = parse_target(b"GET", uri.partition(b"#")[0])
    if target.form is not Form.ABSOLUTE or target.scheme not in (b"http", b"https"):
        raise LocalProtocolError("the URI must begin with http:// or https://")
    check_field(method, b"")
    lines = Fields()
    if headers is not None:
        for name, values in headers.getAllRawHeaders():
            for value in values:
                check_field(name, value)
                if name.lower() not in _FRAMING:
                    lines.add(name, value)
    close = b"close" in lines.tokens(b"Connection")
    assert target.port is not None
    return Request(
        method=method,
        scheme=target.scheme.decode("ascii"),
        host=target.host,
        port=target.port,
        path=target.path,
        fields=without_hop_by_hop(lines),
        body=body,
        close=close,
    )


@implementer(IClientRequest)
class _Asked:
    """What was asked, as responses refer to it."""

    __slots__ = ("_headers", "absoluteURI", "method")

    def __init__(self, method: bytes, uri: bytes, headers: Headers | None) -> None:
        self.method = method
        self.absoluteURI = uri
        self._headers = headers

    @property
    def headers(self) -> Headers:
        return Headers() if self._headers is None else self._headers.copy()


@implementer(IResponse)
class _AgentResponse:
    """One response as Twisted's callers know it."""

    def __init__(self, response: Response, request: _Asked) -> None:
        head = response.head
        self._response = response
        self.version = (b"HTTP", *head.version)
        self.code = head.status
        self.phrase = head.reason
        self.request = request
        self.previousResponse: IResponse | None = None
        self.length: Any = _length(response, request.method)
        self._headers: Headers | None = None

    @property
    def headers(self) -> Headers:
        """End-to-end fields (IResponse); made when first asked for."""
        headers = self._headers
        if headers is None:
            headers = self._headers = Headers()
            # As Twisted's: decoders would leave a false length behind.
            head_only = self.request.method == b"HEAD"
            for name, value in without_hop_by_hop(
                self._response.head.fields, HOP_BY_HOP if head_only else _NOT_SHOWN
            ):
                headers.addRawHeader(name, value)
        return headers

    @headers.setter
    def headers(self, headers: Headers) -> None:
        self._headers = headers

    def setPreviousResponse(self, response: IResponse) -> None:
        """Remember which response led to this request (IResponse)."""
        self.previousResponse = response

    def deliverBody(self, protocol: IProtocol) -> None:
        """Let the content flow to *protocol* (IResponse)."""
        sink = _ProtocolSink(protocol, self._response.framing)
        # IResponse promises an IPushProducer where IProtocol wants an ITransport.
        transport = _BodyTransport(self._response)
        protocol.makeConnection(transport)  # type: ignore[arg-type]
        self._response.deliver(sink)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.code}>"


def _length(response: Response, method: bytes) -> Any:
    if method == b"HEAD" or response.framing is Framing.NONE:
        return 0
    if response.framing is Framing.LENGTH:
        return int(response.head.fields.get(b"Content-Length", b"0") or b"0")
    return UNKNOWN_LENGTH


class _ProtocolSink:
    """Give a body to a protocol, with the reasons Twisted's readers know."""

    __slots__ = ("_framing", "_protocol")

    def __init__(self, protocol: IProtocol, framing: Framing) -> None:
        self._protocol = protocol
        self._framing = framing

    def received(self, data: bytes) -> None:
        self._protocol.dataReceived(data)

    def finished(self, trailers: Fields) -> None:
        # Nothing but the close says that such a body is whole.
        unsure = self._framing is Framing.UNTIL_CLOSE
        reason = (
            PotentialDataLoss()
            if unsure
            else ResponseDone("Response body fully received")
        )
        self._protocol.connectionLost(Failure(reason))

    def failed(self, reason: Failure) -> None:
        self._protocol.connectionLost(Failure(ResponseFailed([reason])))


@implementer(IPushProducer)
class _BodyTransport:
    """What a body's protocol may do to its source."""

    __slots__ = ("_response",)

    disconnecting = False

    def __init__(self, response: Response) -> None:
        self._response = response

    def pauseProducing(self) -> None:
        self._response.pauseProducing()

    def resumeProducing(self) -> None:
        self._response.resumeProducing()

    def stopProducing(self) -> None:
        self._response.abort()

    def loseConnection(self) -> None:
        self._response.abort()

    def abortConnection(self) -> None:
        self._response.abort()


@implementer(IAgentEndpointFactory)
class TunnelEndpointFactory:
    """
    Give Twisted's own ``Agent`` authenticated tunnels.

    ``Agent.usingEndpointFactory(reactor, TunnelEndpointFactory(client))`` reaches
    every URI, http ones too, through a tunnel of its own connections.

    :param client: Decides the route and authenticates.
    :param tls: Verifies origin servers.
    """

    def __init__(self, client: Client, tls: IPolicyForHTTPS | None = None) -> None:
        self._client = client
        self._tls = tls or TLSPolicy()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Make the endpoint for one URI (IAgentEndpointFactory)."""
        host = uri.host.decode("ascii")
        endpoint: Any = self._client.endpoint(host, uri.port)
        if uri.scheme == b"https":
            creator = self._tls.creatorForNetloc(uri.host, uri.port)
            endpoint = wrapClientTLS(creator, endpoint)
        return endpoint  # type: ignore[no-any-return]
