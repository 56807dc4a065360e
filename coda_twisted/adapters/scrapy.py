r"""
Scrapy: a download handler that authenticates to proxies and to sites.

::

    DOWNLOAD_HANDLERS = {
        "http": "coda_twisted.adapters.scrapy.CodaDownloadHandler",
        "https": "coda_twisted.adapters.scrapy.CodaDownloadHandler",
    }

Everything above it stays as it is: ``meta["proxy"]``, the middlewares for proxies,
cookies, redirects and compression.  ``HttpProxyMiddleware`` turns the user of a
proxy's URL into a ``Proxy-Authorization`` field; here it becomes credentials again,
for that proxy alone, and answers whatever the proxy asks for.

Settings of our own:

``CODA_PROXY``
    The proxy of every request without ``meta["proxy"]``; ``meta["proxy"] = None``
    goes directly.  ``HttpProxyMiddleware`` sets ``meta["proxy"]`` where the
    environment names a proxy.
``CODA_PROXY_USER``, ``CODA_PROXY_PASSWORD``
    Who we are to ``CODA_PROXY``, and to no other proxy.
``CODA_PROXY_TICKET``
    Be the owner of the system's Kerberos ticket to it; with a user and password as
    well, those speak what a ticket cannot.
``CODA_SITES``
    Who we are to websites: ``{"https://intranet.example": ("CORP\\me", "secret")}``,
    or ``"ticket"``.  A request's own ``Authorization`` field wins.
``CODA_SCHEMES``
    The auth-schemes that may be spoken, as a list.
"""

from __future__ import annotations

import base64
import logging
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urldefrag, urlsplit

from OpenSSL import SSL
from scrapy import signals
from scrapy.core.downloader.contextfactory import _load_context_factory_from_settings
from scrapy.core.downloader.handlers.http11 import TunnelError
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    NotConfigured,
    NotSupported,
    ResponseDataLossError,
    StopDownload,
)
from scrapy.http import Headers
from scrapy.responsetypes import responsetypes
from scrapy.utils.defer import maybe_deferred_to_future
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers as TwistedHeaders
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse
from zope.interface import implementer

from coda_twisted.adapters.proxies import as_credentials, bound_endpoints, read_proxy
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import Peer, Role, Work
from coda_twisted.client.agent import ClientAgent
from coda_twisted.client.configure import make_client
from coda_twisted.client.timeouts import Timeouts
from coda_twisted.client.tls import TLSPolicy
from coda_twisted.client.upload import BytesBody
from coda_twisted.client.workers import ThreadWorkers
from coda_twisted.credentials import (
    CredentialChain,
    MappedCredentials,
    PasswordCredentials,
    TicketCredentials,
)
from coda_twisted.errors import (
    PhaseTimeout,
    ProxyUnreachable,
    RemoteProtocolError,
    TunnelRefused,
)
from coda_twisted.interfaces import ICredentials, ICredentialSource
from coda_twisted.routing.routes import HTTPProxy

try:
    from scrapy.core.downloader import _idna_patch
except ImportError:  # not in all versions
    _idna_patch = None

__all__ = ["CodaDownloadHandler"]

logger = logging.getLogger(__name__)

_PORTS = {"http": 80, "https": 443}
"""Of proxies and of sites, as Scrapy has them."""

_NO_PROXY = object()


class _Way(NamedTuple):
    """A proxy, or none, and who we are to it."""

    proxy: HTTPProxy | None
    user: ICredentials | None

    @property
    def key(self) -> Hashable:
        """Tell ways apart: by proxy, by person, and by password."""
        if self.user is None:
            return self.proxy
        return self.proxy, self.user.identity, self.user.fingerprint


class CodaDownloadHandler:
    """
    Download http and https by :class:`~coda_twisted.client.exchange.Client`.

    There is one client for each proxy and user.  Certificates of websites are
    verified if ``DOWNLOAD_VERIFY_CERTIFICATES`` says so, those of proxies always.

    What Scrapy retries and what it does not is decided by the exception: a rejected
    password is one of ours, which is not retried; all others are Scrapy's own.
    """

    lazy = False

    max_clients = 256
    """
    Proxies and users whose connections are kept.

    Lists of rotating proxies have thousands of entries, and some proxies take a
    session for a user name.
    """

    def __init__(self, crawler: Any) -> None:
        settings = crawler.settings
        if not settings.getbool("TWISTED_REACTOR_ENABLED", True):
            raise NotConfigured(f"{type(self).__name__} requires a Twisted reactor.")
        from twisted.internet import reactor

        if _idna_patch is not None:
            # Lets Twisted look up names with an underscore, as Scrapy's own handler.
            _idna_patch._install_twisted_idna_fallbacks()  # noqa: SLF001
        self._crawler = crawler
        self._reactor: Any = reactor
        self._maxsize = settings.getint("DOWNLOAD_MAXSIZE")
        self._warnsize = settings.getint("DOWNLOAD_WARNSIZE")
        self._fail_on_dataloss = settings.getbool("DOWNLOAD_FAIL_ON_DATALOSS")
        self._dataloss_told = False
        self._timeout = settings.getfloat("DOWNLOAD_TIMEOUT")
        self._encoding = settings.get("HTTPPROXY_AUTH_ENCODING") or "latin-1"
        self._default = _default_way(settings)
        self._sites = _sites(settings.getdict("CODA_SITES"))
        schemes = settings.getlist("CODA_SCHEMES")
        self._policy = AuthPolicy(schemes=tuple(schemes)) if schemes else AuthPolicy()
        self._tls = _load_context_factory_from_settings(crawler)
        self._proxy_tls = TLSPolicy()
        # Scrapy limits the whole download instead.
        self._timeouts = Timeouts(head=None)
        self._endpoint_for = bound_endpoints(
            reactor, self._timeouts, settings.get("DOWNLOAD_BIND_ADDRESS")
        )
        self._workers = _SharedWorkers(reactor)
        self._clients: OrderedDict[Hashable, _Borrowed] = OrderedDict()

    @classmethod
    def from_crawler(cls, crawler: Any) -> CodaDownloadHandler:
        """Make it for a crawler."""
        return cls(crawler)

    async def download_request(self, request: Any) -> Any:
        """
        Download what *request* asks for.

        :returns: Scrapy's response, of the class that fits its content.
        :raises AuthenticationFailed: A proxy or a site was not satisfied.
        :raises TunnelError: A proxy refused a tunnel for another reason.
        """
        if request.meta.get("bindaddress"):
            raise NotSupported(
                f"{type(self).__name__} takes no meta['bindaddress']; "
                "the setting DOWNLOAD_BIND_ADDRESS is for all requests"
            )
        way = self._way(request)
        url = urldefrag(request.url)[0]
        limit = request.meta.get("download_timeout") or self._timeout or None
        with _in_scrapys_words(url, limit):
            download = Deferred.fromCoroutine(self._download(way, request, url))
            if limit is not None:
                download.addTimeout(limit, self._reactor, _expire)
            return await maybe_deferred_to_future(download)

    async def close(self) -> None:
        """Close all connections."""
        held, self._clients = self._clients, OrderedDict()
        closing = gatherResults([each.agent.client.close() for each in held.values()])
        await maybe_deferred_to_future(closing)
        self._workers.end()

    # The way

    def _way(self, request: Any) -> _Way:
        """Find out where a request goes, and as whom."""
        named = request.meta.get("proxy", _NO_PROXY)
        if named is _NO_PROXY:
            return self._default
        if not named:
            return _Way(None, None)
        proxy, user = read_proxy(named, _PORTS)
        value = request.headers.get(b"Proxy-Authorization")
        if value is not None:
            user = self._user(value)
        elif user is None and proxy == self._default.proxy:
            user = self._default.user
        return _Way(proxy, user)

    def _user(self, value: bytes) -> ICredentials:
        """Read the credentials that ``HttpProxyMiddleware`` wrote."""
        scheme, _, token = value.partition(b" ")
        if scheme.lower() != b"basic":
            raise NotSupported(
                "Proxy-Authorization is answered here: give the user and password in "
                "meta['proxy'] or CODA_PROXY_USER; only Basic is read from the field"
            )
        try:
            pair = base64.b64decode(token, validate=True).decode(self._encoding)
        except ValueError:
            # The cause carries the password.
            raise ValueError("Proxy-Authorization is malformed") from None
        name, colon, password = pair.partition(":")
        if not colon:
            raise ValueError("Proxy-Authorization is malformed")
        return PasswordCredentials(name, password)

    def _borrow(self, way: _Way) -> _Borrowed:
        """Take the client for a way; close one that was not used for long."""
        borrowed = self._clients.get(way.key)
        if borrowed is None:
            borrowed = self._clients[way.key] = _Borrowed(self._agent(way))
        self._clients.move_to_end(way.key)
        borrowed.users += 1
        while len(self._clients) > self.max_clients:
            key, oldest = next(iter(self._clients.items()))
            if oldest.users:
                break
            del self._clients[key]
            oldest.agent.client.close()
        return borrowed

    def _agent(self, way: _Way) -> ClientAgent:
        return ClientAgent(
            make_client(
                self._reactor,
                proxy=None if way.proxy is None else str(way.proxy),
                credentials=_ProxyAndSites(way.user, self._sites),
                policy=self._policy,
                timeouts=self._timeouts,
                tls=self._tls,
                proxy_tls=self._proxy_tls,
                workers=self._workers,
                endpoint_for=self._endpoint_for,
            )
        )

    # The download

    async def _download(self, way: _Way, request: Any, url: str) -> Any:
        borrowed = self._borrow(way)
        try:
            return await self._fetch(borrowed.agent, request, url)
        finally:
            borrowed.users -= 1

    async def _fetch(self, agent: ClientAgent, request: Any, url: str) -> Any:
        headers = TwistedHeaders(request.headers)
        headers.removeHeader(b"Proxy-Authorization")
        began = monotonic()
        response = await agent.request(
            request.method.encode("ascii"),
            url.encode("ascii"),
            headers,
            BytesBody(request.body) if request.body else None,
        )
        request.meta["download_latency"] = monotonic() - began
        content = _Content(self._crawler, request, response, self._limits(request))
        flags = await content.read()
        if flags == ["dataloss"] and request.meta.get(
            "download_fail_on_dataloss", self._fail_on_dataloss
        ):
            self._tell_of_dataloss(url)
            raise ResponseDataLossError from content.loss
        return _scrapy_response(url, response, content, flags)

    def _limits(self, request: Any) -> tuple[int, int]:
        return (
            request.meta.get("download_maxsize", self._maxsize),
            request.meta.get("download_warnsize", self._warnsize),
        )

    def _tell_of_dataloss(self, url: str) -> None:
        if not self._dataloss_told:
            self._dataloss_told = True
            logger.warning(
                "Got data loss in %s; DOWNLOAD_FAIL_ON_DATALOSS = False lets such "
                "responses pass.  This is said once.",
                url,
            )


class _Borrowed:
    """A client, and how many requests have it."""

    __slots__ = ("agent", "users")

    def __init__(self, agent: ClientAgent) -> None:
        self.agent = agent
        self.users = 0


class _SharedWorkers:
    """One pool of threads for clients that come and go."""

    def __init__(self, reactor: Any) -> None:
        self._workers = ThreadWorkers(reactor)

    def run(self, work: Work) -> Deferred[Any]:
        """Run it in a thread."""
        return self._workers.run(work)

    def stop(self) -> None:
        """Go on: one client of several has gone."""

    def end(self) -> None:
        """Let the threads end."""
        self._workers.stop()


@implementer(ICredentialSource)
class _ProxyAndSites:
    """One person to the client's proxy, others to websites."""

    def __init__(self, user: ICredentials | None, sites: ICredentialSource) -> None:
        self._user = user
        self._sites = sites

    def credentials_for(self, peer: Peer) -> Any:
        """Find who we are."""
        if peer.role is Role.PROXY:
            return self._user
        return self._sites.credentials_for(peer)


# Settings


def _default_way(settings: Any) -> _Way:
    url = settings.get("CODA_PROXY")
    name = settings.get("CODA_PROXY_USER")
    members: list[ICredentials] = []
    if settings.getbool("CODA_PROXY_TICKET"):
        members.append(TicketCredentials())
    if name:
        members.append(
            PasswordCredentials(name, settings.get("CODA_PROXY_PASSWORD") or "")
        )
    if not url:
        if members:
            raise ValueError(
                "CODA_PROXY_USER and CODA_PROXY_TICKET need CODA_PROXY, "
                "for no other proxy is to see them"
            )
        return _Way(None, None)
    proxy, user = read_proxy(url, _PORTS)
    if len(members) > 1:
        user = CredentialChain(*members)
    elif members:
        user = members[0]
    return _Way(proxy, user)


def _sites(given: Mapping[str, Any]) -> MappedCredentials:
    users = {}
    for url, who in given.items():
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname or parts.path not in "/":
            raise ValueError(
                "CODA_SITES: a site is written https://intranet.example, "
                "with a port if it has one of its own"
            )
        user = as_credentials(who)
        if user is not None:
            users[parts.hostname, parts.port or _PORTS[parts.scheme]] = user
    return MappedCredentials(users, roles=[Role.ORIGIN])


# Responses


class _Content(Protocol):
    """
    Reads a response's content, within Scrapy's limits, for as long as it is wanted.

    :ivar data: What has come.
    :ivar stop: The ``StopDownload`` by which somebody ended it.
    :ivar loss: Why the rest did not come.
    """

    def __init__(
        self, crawler: Any, request: Any, response: IResponse, limits: tuple[int, int]
    ) -> None:
        self.data = bytearray()
        self.stop: StopDownload | None = None
        self.loss: BaseException | None = None
        self._crawler = crawler
        self._request = request
        self._response = response
        self._maxsize, self._warnsize = limits
        self._flags: Deferred[list[str]] = Deferred(self._cancelled)

    def read(self) -> Deferred[list[str]]:
        """
        Read it.

        :returns: Fires with Scrapy's flags.
        """
        length = self._response.length
        expected = None if length is UNKNOWN_LENGTH else int(length)
        self._look(
            signals.headers_received,
            headers=_headers(self._response),
            body_length=length,
        )
        if self.stop is None and expected is not None:
            self._check(expected, "Expected to receive")
        self._response.deliverBody(self)
        return self._flags

    def connectionMade(self) -> None:
        """Drop the connection where nothing of it is wanted."""
        if self._flags.called:
            self._abort()

    def dataReceived(self, data: bytes) -> None:
        """Take a piece, unless enough has come."""
        if self._flags.called:
            return
        self.data += data
        self._look(signals.bytes_received, data=data)
        if not self._flags.called:
            self._check(len(self.data), "Received")
        if self._flags.called:
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Take note of the end, and whether it is that of the content."""
        if self._flags.called:
            return
        if reason.check(ResponseDone):
            self._flags.callback([])
        elif reason.check(PotentialDataLoss):
            self._flags.callback(["partial"])
        else:
            self.loss = reason.value
            self._flags.callback(["dataloss"])

    def _cancelled(self, flags: Deferred[list[str]]) -> None:
        # Before the connection's end can pass for the content's.
        flags.errback(CancelledError())
        self._abort()

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def _look(self, signal: object, **facts: Any) -> None:
        """Let those who listen to *signal* end it."""
        results = self._crawler.signals.send_catch_log(
            signal=signal, request=self._request, spider=self._crawler.spider, **facts
        )
        for _, result in results:
            if isinstance(result, Failure) and isinstance(result.value, StopDownload):
                self.stop = result.value
                self._flags.callback(["download_stopped"])
                return

    def _check(self, size: int, verb: str) -> None:
        if self._maxsize and size > self._maxsize:
            text = (
                f"{verb} {size} bytes which is larger than download max size "
                f"({self._maxsize}) in request {self._request}."
            )
            logger.warning(text)
            self.data.clear()
            self._flags.errback(DownloadCancelledError(text))
        elif self._warnsize and size > self._warnsize:
            logger.warning(
                "%s %d bytes which is larger than download warn size (%d) "
                "in request %s.",
                verb,
                size,
                self._warnsize,
                self._request,
            )
            self._warnsize = 0


def _headers(response: IResponse) -> Any:
    headers = Headers()
    if response.length is not UNKNOWN_LENGTH:
        headers[b"Content-Length"] = b"%d" % response.length
    headers.update(response.headers.getAllRawHeaders())
    return headers


def _scrapy_response(
    url: str, response: IResponse, content: _Content, flags: list[str]
) -> Any:
    headers, body = _headers(response), bytes(content.data)
    name, major, minor = response.version
    kind = responsetypes.from_args(headers=headers, url=url, body=body)
    made = kind(
        url=url,
        status=response.code,
        headers=headers,
        body=body,
        flags=flags,
        protocol=f"{name.decode('ascii')}/{major}.{minor}",
    )
    if content.stop is not None and content.stop.fail:
        content.stop.response = made
        raise content.stop
    return made


# Failures


class _ExpiredError(Exception):
    """The whole download took too long."""


def _expire(result: Any, limit: float) -> NoReturn:
    raise _ExpiredError


@contextmanager
def _in_scrapys_words(url: str, limit: float | None) -> Iterator[None]:
    """Say failures as Scrapy's retries and errbacks know them; keep the cause."""
    try:
        yield
    except _ExpiredError:
        raise DownloadTimeoutError(
            f"Getting {url} took longer than {limit:g} seconds."
        ) from None
    except PhaseTimeout as error:
        raise DownloadTimeoutError(f"Getting {url}: {error}") from error
    except TunnelRefused as error:
        raise TunnelError(str(error)) from error
    except ProxyUnreachable as error:
        raise _no_connection(error.__cause__)(str(error)) from error
    except (ConnectError, DNSLookupError) as error:
        raise _no_connection(error)(str(error)) from error
    except CancelledError as error:
        raise DownloadCancelledError(str(error)) from error
    except (ResponseFailed, RemoteProtocolError, SSL.Error, VerificationError) as error:
        raise DownloadFailedError(str(error) or type(error).__name__) from error


def _no_connection(error: BaseException | None) -> type[Exception]:
    if isinstance(error, DNSLookupError):
        return CannotResolveHostError  # type: ignore[no-any-return]
    if isinstance(error, Refused):
        return DownloadConnectionRefusedError  # type: ignore[no-any-return]
    return DownloadFailedError  # type: ignore[no-any-return]
