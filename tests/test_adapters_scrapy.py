"""Scrapy's download handler, without a network."""

from __future__ import annotations

import base64
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived

from coda_twisted.adapters.proxies import read_proxy
from coda_twisted.auth.steps import Peer, Role
from coda_twisted.credentials import (
    CredentialChain,
    PasswordCredentials,
    TicketCredentials,
)
from coda_twisted.errors import (
    ChallengeError,
    CredentialsRejected,
    PhaseTimeout,
    ProxyUnreachable,
    TunnelRefused,
)

try:
    import scrapy
except ImportError:
    SKIP = "not installed: scrapy"
else:
    SKIP = ""
    from scrapy import exceptions
    from scrapy.core.downloader.handlers.http11 import TunnelError
    from scrapy.settings import Settings

    from coda_twisted.adapters import scrapy as adapter


class Crawler:
    """As much of a crawler as the handler looks at."""

    spider = None

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(settings)


def basic(name: str, password: str, encoding: str = "latin-1") -> bytes:
    """What ``HttpProxyMiddleware`` writes."""
    return b"Basic " + base64.b64encode(f"{name}:{password}".encode(encoding))


class HandlerCase(SynchronousTestCase):
    """A handler that opens nothing."""

    if SKIP:
        skip = SKIP

    def handler(self, **settings: Any) -> Any:
        return adapter.CodaDownloadHandler.from_crawler(Crawler(**settings))

    def way(
        self, proxy: Any = "", field: bytes | None = None, **settings: Any
    ) -> tuple[str, Any]:
        """The proxy of a request, and who we are to it."""
        request = scrapy.Request("http://example.com/")
        if proxy != "":
            request.meta["proxy"] = proxy
        if field is not None:
            request.headers["Proxy-Authorization"] = field
        way = self.handler(**settings)._way(request)
        return str(way.proxy), way.user


class WayTests(HandlerCase):
    """Where a request goes, and as whom."""

    def test_direct(self) -> None:
        """Without a proxy, by setting or by request."""
        self.assertEqual(self.way(), ("None", None))
        self.assertEqual(self.way(None), ("None", None))
        self.assertEqual(self.way(None, CODA_PROXY="http://a.example"), ("None", None))

    def test_named(self) -> None:
        """``meta["proxy"]``, with Scrapy's default ports."""
        self.assertEqual(self.way("http://a.example")[0], "http://a.example:80")
        self.assertEqual(self.way("https://a.example")[0], "https://a.example:443")
        self.assertEqual(self.way("a.example:3128")[0], "http://a.example:3128")

    def test_field(self) -> None:
        """The middleware's field becomes credentials again, of any password."""
        for name, password in (("me", "s:e:c"), ("CORP\\me", ""), ("dø", "pås")):
            _, user = self.way("http://a.example", basic(name, password))
            expected = PasswordCredentials(name, password)
            self.assertEqual(user.identity, expected.identity)
            self.assertEqual(user.fingerprint, expected.fingerprint)
        _, user = self.way(
            "http://a.example",
            basic("me", "пароль", "utf-8"),
            HTTPPROXY_AUTH_ENCODING="utf-8",
        )
        self.assertEqual(
            user.fingerprint, PasswordCredentials("me", "пароль").fingerprint
        )

    def test_other_fields(self) -> None:
        """Other schemes are refused, not lost; what is malformed is not shown."""
        with self.assertRaises(exceptions.NotSupported):
            self.way("http://a.example", b"Bearer hidden")
        for field in (b"Basic !hidden", b"Basic aGlkZGVu", b"Basic"):
            with self.assertRaises(ValueError) as raised:
                self.way("http://a.example", field, HTTPPROXY_AUTH_ENCODING="ascii")
            self.assertNotIn("hidden", str(raised.exception))
            self.assertIsNone(raised.exception.__cause__)

    def test_url(self) -> None:
        """Without the middleware a user is read from the URL itself."""
        _, user = self.way("http://me:secret@a.example")
        self.assertEqual(user.identity, "me")

    def test_default(self) -> None:
        """``CODA_PROXY`` and its user; a user of their own wins over the URL's."""
        settings: dict[str, Any] = {"CODA_PROXY": "http://url:x@a.example:3128"}
        proxy, user = self.way(**settings)
        self.assertEqual((proxy, user.identity), ("http://a.example:3128", "url"))
        settings.update(CODA_PROXY_USER="me", CODA_PROXY_PASSWORD="secret")
        proxy, user = self.way(**settings)
        self.assertEqual(user.identity, "me")
        # Nobody else sees them; and somebody else's name wins.
        self.assertEqual(self.way("http://b.example:3128", **settings)[1], None)
        self.assertEqual(self.way("https://a.example:3128", **settings)[1], None)
        self.assertEqual(self.way("http://a.example:1", **settings)[1], None)
        _, user = self.way("http://A.example:3128", **settings)
        self.assertEqual(user.identity, "me")
        _, user = self.way("http://a.example:3128", basic("you", "x"), **settings)
        self.assertEqual(user.identity, "you")

    def test_ticket(self) -> None:
        """A ticket, alone or with a password for what it cannot speak."""
        settings: dict[str, Any] = {
            "CODA_PROXY": "http://a.example",
            "CODA_PROXY_TICKET": True,
        }
        self.assertIsInstance(self.way(**settings)[1], TicketCredentials)
        settings.update(CODA_PROXY_USER="me", CODA_PROXY_PASSWORD="secret")
        self.assertIsInstance(self.way(**settings)[1], CredentialChain)

    def test_keys(self) -> None:
        """Ways differ by proxy, by person and by password."""
        way = adapter._Way
        (a, _), (b, _) = (
            read_proxy(url, adapter._PORTS)
            for url in ("http://a.example", "http://b.example")
        )
        people = [PasswordCredentials(*pair) for pair in ("ax", "ay", "bx")]
        keys = {way(proxy, user).key for proxy in (a, b, None) for user in people}
        self.assertEqual(len(keys), 9)
        self.assertEqual(
            way(a, people[0]).key, way(a, PasswordCredentials("a", "x")).key
        )


class SettingsTests(HandlerCase):
    """Settings that cannot be meant."""

    def test_refused(self) -> None:
        """They are refused when the crawler starts."""
        for settings in (
            {"CODA_PROXY_USER": "me"},
            {"CODA_PROXY_TICKET": True},
            {"CODA_PROXY": "socks5://a.example"},
            {"CODA_SITES": {"intranet.example": ("me", "secret")}},
            {"CODA_SITES": {"https://intranet.example/path": ("me", "secret")}},
            {"CODA_SITES": {"https://intranet.example": "secret"}},
            {"CODA_SCHEMES": ["NTLM"]},
        ):
            with self.assertRaises(ValueError) as raised:
                self.handler(**settings)
            self.assertNotIn("secret", str(raised.exception))

    def test_without_reactor(self) -> None:
        """Scrapy without Twisted's reactor cannot use it."""
        with self.assertRaises(exceptions.NotConfigured):
            self.handler(TWISTED_REACTOR_ENABLED=False)

    def test_sites(self) -> None:
        """A site is known by host and port, and is never a proxy."""
        handler = self.handler(
            CODA_SITES={
                "https://intranet.example": ("me", "secret"),
                "http://Wiki.example:8080/": "ticket",
            }
        )
        source = adapter._ProxyAndSites(None, handler._sites)
        for role, host, port, kind in (
            (Role.ORIGIN, "intranet.example", 443, PasswordCredentials),
            (Role.ORIGIN, "wiki.example", 8080, TicketCredentials),
            (Role.ORIGIN, "intranet.example", 80, type(None)),
            (Role.ORIGIN, "other.example", 443, type(None)),
            (Role.PROXY, "intranet.example", 443, type(None)),
        ):
            found = source.credentials_for(Peer(role, "https", host, port))
            self.assertIs(type(found), kind, (role, host, port))


class ClientsTests(HandlerCase):
    """One client for each way."""

    def borrow(self, handler: Any, *ways: tuple[str, str]) -> list[Any]:
        found = []
        for host, name in ways:
            proxy, user = read_proxy(f"http://{name}:x@{host}", adapter._PORTS)
            found.append(handler._borrow(adapter._Way(proxy, user)))
        return found

    def test_shared(self) -> None:
        """The same way has the same client; another person has another."""
        a, b, c, d = self.borrow(
            self.handler(),
            *(("a.example", "me"), ("a.example", "me")),
            *(("a.example", "you"), ("b.example", "me")),
        )
        self.assertIs(a, b)
        self.assertEqual(len({id(each) for each in (a, c, d)}), 3)
        self.assertEqual((a.users, c.users), (2, 1))

    def test_limit(self) -> None:
        """The longest unused client is closed; none that is in use."""
        handler = self.handler()
        handler.max_clients = 2
        closed = []
        for name in "abc":
            [one] = self.borrow(handler, ("a.example", name))
            one.agent.client.close = lambda name=name: closed.append(name)
        self.assertEqual((closed, len(handler._clients)), ([], 3))
        for each in handler._clients.values():
            each.users = 0
        self.borrow(handler, ("a.example", "a"))
        self.assertEqual(closed, ["b"])
        self.borrow(handler, ("a.example", "d"))
        self.assertEqual(closed, ["b", "c"])

    def test_threads_are_shared(self) -> None:
        """A client that goes does not end the threads of the others."""
        handler = self.handler()
        a, b = self.borrow(handler, ("a.example", "a"), ("a.example", "b"))
        self.assertIs(a.agent.client._workers, b.agent.client._workers)
        self.assertIsNone(a.agent.client._workers.stop())


class FailureTests(HandlerCase):
    """Our failures in Scrapy's words."""

    def said(self, error: BaseException) -> BaseException:
        with self.assertRaises(Exception) as raised, adapter._in_scrapys_words("u", 5):
            raise error
        return raised.exception

    def test_translated(self) -> None:
        """Scrapy's retries and errbacks know them, and they keep the cause."""
        lost = ResponseNeverReceived([Failure(ConnectError())])
        for error, kind in (
            (PhaseTimeout("connect", 5), exceptions.DownloadTimeoutError),
            (TunnelRefused(403, "No"), TunnelError),
            (DNSLookupError(), exceptions.CannotResolveHostError),
            (ConnectionRefusedError(), exceptions.DownloadConnectionRefusedError),
            (ConnectError(), exceptions.DownloadFailedError),
            (CancelledError(), exceptions.DownloadCancelledError),
            (lost, exceptions.DownloadFailedError),
            (ChallengeError("odd"), exceptions.DownloadFailedError),
        ):
            said = self.said(error)
            self.assertIs(type(said), kind)
            self.assertIs(said.__cause__, error)

    def test_proxy(self) -> None:
        """A proxy that cannot be reached fails as a site would, and is named."""
        for cause, kind in (
            (DNSLookupError(), exceptions.CannotResolveHostError),
            (ConnectionRefusedError(), exceptions.DownloadConnectionRefusedError),
            (ConnectError(), exceptions.DownloadFailedError),
        ):
            error = ProxyUnreachable("http://a.example:80", "reasons")
            error.__cause__ = cause
            said = self.said(error)
            self.assertIs(type(said), kind)
            self.assertIn("http://a.example:80", str(said))

    def test_left_alone(self) -> None:
        """A rejected password is ours: Scrapy must not try it again."""
        error = CredentialsRejected("no", identity="me")
        self.assertIs(self.said(error), error)
        retried = Settings().getlist("RETRY_EXCEPTIONS")
        kinds = tuple(scrapy.utils.misc.load_object(each) for each in retried)
        self.assertNotIsInstance(error, kinds)
