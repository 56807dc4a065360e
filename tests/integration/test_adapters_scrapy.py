"""
Scrapy's own engine and middlewares, with our download handler, through real proxies.

The crawls run in the tests' reactor; the programs of the documentation, in
:mod:`tests.integration.test_adapters_examples`, run in Scrapy's own.
"""

from __future__ import annotations

import hashlib
import logging
import os
from base64 import b64encode
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, ClassVar
from unittest import SkipTest
from unittest.mock import patch
from urllib.parse import quote

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.tcp import Client as TCPClient
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from coda_twisted.client.guard import LogonGuard
from coda_twisted.errors import CredentialsRejected
from tests.integration import apache, kerberos, origin, squid, tools
from tests.integration.certificates import authority
from tests.integration.people import ALICE, BOB, WRONG_PASSWORD, Person

try:
    from scrapy import Request, Spider, signals
    from scrapy.core.downloader.handlers.http11 import TunnelError
    from scrapy.crawler import CrawlerRunner
    from scrapy.exceptions import (
        CannotResolveHostError,
        DownloadCancelledError,
        DownloadConnectionRefusedError,
        DownloadTimeoutError,
        NotSupported,
        ResponseDataLossError,
        StopDownload,
    )
    from scrapy.http import HtmlResponse, TextResponse
except ImportError:
    Spider = object

HANDLER = "coda_twisted.adapters.scrapy.CodaDownloadHandler"
STOCK = "scrapy.core.downloader.handlers.http11.HTTP11DownloadHandler"


@dataclass
class Outcome:
    """What became of one request: one of the two."""

    response: Any = None
    failure: Failure | None = None

    @property
    def error(self) -> Any:
        assert self.failure is not None, f"it did not fail: {self.response}"
        return self.failure.value

    @property
    def status(self) -> int:
        assert self.failure is None, f"it failed: {self.failure!r}"
        return int(self.response.status)


@dataclass
class Crawl:
    """What a crawl brought, in the order of the requests, and what Scrapy counted."""

    outcomes: list[Outcome] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)

    @property
    def statuses(self) -> list[int]:
        return [each.status for each in self.outcomes]


class CollectingSpider(Spider):
    """Asks for what it is given, and keeps what comes."""

    name = "collecting"

    def __init__(self, wanted: Sequence[Any], crawl: Crawl) -> None:
        super().__init__()
        self.wanted = wanted
        self.crawl = crawl
        self.crawl.outcomes = [Outcome() for _ in wanted]

    async def start(self) -> Any:
        for number, request in enumerate(self.wanted):
            yield request.replace(
                callback=self.came,
                errback=self.failed,
                dont_filter=True,
                cb_kwargs={"number": number},
            )

    def came(self, response: Any, number: int) -> None:
        self.crawl.outcomes[number].response = response

    def failed(self, failure: Any) -> None:
        number = failure.request.cb_kwargs["number"]
        self.crawl.outcomes[number].failure = failure


def listening_spider(signal: object, listener: Any) -> type:
    """A spider that also calls *listener* for every *signal*."""

    class ListeningSpider(CollectingSpider):
        @classmethod
        def from_crawler(cls, crawler: Any, *args: Any, **kwargs: Any) -> Any:
            spider = super().from_crawler(crawler, *args, **kwargs)
            spider.listener = listener
            crawler.signals.connect(listener, signal=signal)
            return spider

    return ListeningSpider


def named(url: str, person: Person | None = None, **but: str) -> str:
    """A proxy's URL with somebody's name and password in it."""
    if person is None:
        return url
    name = but.get("name", person.name)
    password = but.get("password", person.password)
    user = f"{quote(name, safe='')}:{quote(password, safe='')}"
    return url.replace("://", f"://{user}@")


class CrawlCase(TestCase):
    """A proxy, an origin, and crawls."""

    timeout = 60
    scheme: ClassVar[str] = "basic"

    def setUp(self) -> None:
        tools.require_modules("scrapy")
        self.proxy = squid.proxy(self.scheme)
        self.proxy.reset()
        self.origin = origin.origin()
        self.origin.reset()
        self.live_in(patch.dict(os.environ, {"SSL_CERT_FILE": str(authority().ca)}))
        logging.getLogger("scrapy").setLevel(logging.CRITICAL)
        self.addCleanup(logging.getLogger("scrapy").setLevel, logging.NOTSET)
        # Tests must not remember each other's refused passwords.
        guard = LogonGuard.of(reactor)
        self.addCleanup(guard._accounts.clear)

    def live_in(self, world: AbstractContextManager[Any]) -> None:
        """Change the environment while the test runs."""
        world.__enter__()
        self.addCleanup(world.__exit__, None, None, None)

    async def crawl(
        self,
        *wanted: Any,
        handler: str = HANDLER,
        spider: type = CollectingSpider,
        **settings: Any,
    ) -> Crawl:
        """Crawl, and wait for the end."""
        runner = CrawlerRunner(
            {
                "DOWNLOAD_HANDLERS": {"http": handler, "https": handler},
                "DOWNLOAD_VERIFY_CERTIFICATES": True,
                "TWISTED_REACTOR": None,
                "TELNETCONSOLE_ENABLED": False,
                "REMOTE_CONTROL_ENABLED": False,
                "LOG_ENABLED": False,
                "HTTPERROR_ALLOW_ALL": True,
                "RETRY_ENABLED": False,
                **settings,
            }
        )
        crawl = Crawl()
        crawler = runner.create_crawler(spider)
        await runner.crawl(crawler, wanted, crawl)
        crawl.stats = crawler.stats.get_stats()
        return crawl

    def ask(self, path: str, proxy: str | None = "", **more: Any) -> Any:
        """A request for something of the origin's, by default through Alice's proxy."""
        tls = more.pop("tls", False)
        url = (self.origin.tls_url if tls else self.origin.url)(path)
        meta = dict(more.pop("meta", {}))
        if proxy == "":
            proxy = self.alice()
        meta["proxy"] = proxy
        return Request(url, meta=meta, **more)

    def alice(self) -> str:
        """The proxy's URL, with Alice in it."""
        return named(self.proxy.url, ALICE)

    async def served(self, method: str) -> list[str]:
        """Whom the proxy served with *method*; tunnels are logged when they end."""
        users: list[str] = []
        for _ in range(40):
            users = [
                each.user
                for each in self.proxy.requests()
                if each.method == method and each.status != 407
            ]
            if users:
                break
            await deferLater(reactor, 0.05)
        return users


class Schemes:
    """What every scheme must carry, by the user in ``meta["proxy"]``."""

    async def test_http(self: Any) -> None:
        """Plain http: one origin request each, nothing of the proxy's leaks."""
        crawl = await self.crawl(*(self.ask("/octets/1000") for _ in range(5)))
        self.assertEqual(crawl.statuses, [200] * 5)
        for each in crawl.outcomes:
            self.assertEqual(each.response.body, origin.content(1000))
        received = self.origin.requests()
        self.assertEqual(len(received), 5)
        self.assertEqual({each.get("Proxy-Authorization") for each in received}, {None})
        self.assertEqual(set(await self.served("GET")), {self.user})
        self.assertEqual(self.proxy.failed_logons(), 0)

    async def test_https(self: Any) -> None:
        """Through a tunnel, verified, and the tunnel is used again."""
        crawl = await self.crawl(
            *(self.ask("/octets/1000", tls=True) for _ in range(5)),
            CONCURRENT_REQUESTS=1,
        )
        self.assertEqual(crawl.statuses, [200] * 5)
        self.assertEqual(len({each.connection for each in self.origin.requests()}), 1)
        self.assertEqual(set(await self.served("CONNECT")), {self.user})
        self.assertEqual(self.proxy.failed_logons(), 0)

    async def test_post(self: Any) -> None:
        """A form arrives once, whole, as the first request too."""
        body = origin.content(200_000)
        crawl = await self.crawl(self.ask("/echo", method="POST", body=body))
        self.assertEqual(crawl.statuses, [200])
        complete = [each for each in self.origin.requests() if each.complete]
        self.assertEqual(
            [(each.method, each.sha256) for each in complete],
            [("POST", hashlib.sha256(body).hexdigest())],
        )


class BasicTests(CrawlCase, Schemes):
    user = ALICE.name


class DigestTests(CrawlCase, Schemes):
    scheme = "digest"
    user = ALICE.name


class NTLMTests(CrawlCase, Schemes):
    scheme = "ntlm"
    user = ALICE.down_level

    def alice(self) -> str:
        return named(self.proxy.url, ALICE, name=ALICE.down_level)

    async def test_stock_handler(self) -> None:
        """Scrapy's own handler cannot: that is what this is for."""
        crawl = await self.crawl(self.ask("/octets/1", tls=True), handler=STOCK)
        self.assertIsInstance(crawl.outcomes[0].error, TunnelError)
        # It leaves the connection to the proxy open.
        for left in reactor.getReaders():
            if isinstance(left, TCPClient):
                left.abortConnection()

    async def test_two_people(self) -> None:
        """Each is served on connections of their own, and nobody is not served."""
        bob = named(self.proxy.url, BOB, name=BOB.down_level)
        ways = [self.alice(), bob, self.proxy.url] * 4
        crawl = await self.crawl(*(self.ask("/octets/10", way) for way in ways))
        self.assertEqual(crawl.statuses, [200, 200, 407] * 4)
        users = self.proxy.users_by_connection()
        self.assertEqual({len(names) for names in users.values()}, {1})
        self.assertEqual(
            set().union(*users.values()), {ALICE.down_level, BOB.down_level}
        )

    async def test_two_people_in_tunnels(self) -> None:
        """The same inside tunnels, to one and the same website."""
        bob = named(self.proxy.url, BOB, name=BOB.down_level)
        ways = [self.alice(), bob, self.proxy.url] * 2
        crawl = await self.crawl(
            *(self.ask("/octets/10", way, tls=True) for way in ways)
        )
        for alices, bobs, nobodys in zip(*[iter(crawl.outcomes)] * 3, strict=True):
            self.assertEqual(alices.response.status, 200)
            self.assertEqual(bobs.response.status, 200)
            self.assertIsInstance(nobodys.error, TunnelError)
            self.assertEqual(nobodys.error.__cause__.status, 407)
        await self.served("CONNECT")
        users = self.proxy.users_by_connection()
        self.assertEqual({len(names) for names in users.values()}, {1})


class NegotiateTests(CrawlCase, Schemes):
    """A ticket, or a password that gets one."""

    scheme = "negotiate"
    user = ALICE.principal

    def setUp(self) -> None:
        tools.require("krb5kdc", "kinit")
        self.live_in(kerberos.realm().inhabited(kerberos.realm().ticket(ALICE)))
        super().setUp()

    def alice(self) -> str:
        return named(self.proxy.url, ALICE, name=ALICE.principal)

    async def test_ticket(self) -> None:
        """``CODA_PROXY_TICKET`` needs no password at all."""
        wanted = [
            Request(self.origin.url("/octets/10")),
            Request(self.origin.tls_url("/octets/10")),
        ]
        crawl = await self.crawl(
            *wanted, CODA_PROXY=self.proxy.url, CODA_PROXY_TICKET=True
        )
        self.assertEqual(crawl.statuses, [200, 200])
        self.assertEqual(set(await self.served("GET")), {ALICE.principal})


class TLSProxyTests(CrawlCase):
    """A proxy reached over TLS, which Scrapy's handler cannot use for https."""

    async def test_https(self) -> None:
        """TLS to the site inside TLS to the proxy."""
        proxy = named(self.proxy.tls_url, ALICE)
        crawl = await self.crawl(
            self.ask("/octets/10", proxy, tls=True), self.ask("/octets/10", proxy)
        )
        self.assertEqual(crawl.statuses, [200, 200])
        self.assertEqual([each.tls for each in self.origin.requests()].count(None), 1)

    async def test_unverified_proxy(self) -> None:
        """The proxy gets the password: it is verified, whatever the setting says."""
        self.live_in(patch.dict(os.environ, {"SSL_CERT_FILE": "/dev/null"}))
        proxy = named(self.proxy.tls_url, ALICE)
        crawl = await self.crawl(
            self.ask("/octets/10", proxy), DOWNLOAD_VERIFY_CERTIFICATES=False
        )
        self.assertIn("TLS", str(crawl.outcomes[0].error))
        self.assertEqual(self.proxy.requests(), [])

    async def test_unverified_site(self) -> None:
        """A website is verified as the setting says, and not by default."""
        self.live_in(patch.dict(os.environ, {"SSL_CERT_FILE": "/dev/null"}))
        for verify in (False, True):
            crawl = await self.crawl(
                self.ask("/octets/10", tls=True), DOWNLOAD_VERIFY_CERTIFICATES=verify
            )
            self.assertEqual(crawl.outcomes[0].failure is not None, verify)


class SettingsTests(CrawlCase):
    """Our settings."""

    scheme = "digest"

    async def test_default_proxy(self) -> None:
        """``CODA_PROXY`` takes what has no proxy of its own; ``None`` goes directly."""
        crawl = await self.crawl(
            Request(self.origin.url("/octets/10")),
            self.ask("/octets/10", None),
            CODA_PROXY=self.proxy.url,
            CODA_PROXY_USER=ALICE.name,
            CODA_PROXY_PASSWORD=ALICE.password,
        )
        self.assertEqual(crawl.statuses, [200, 200])
        self.assertEqual(await self.served("GET"), [ALICE.name])
        self.assertEqual(len(self.origin.requests()), 2)

    async def test_named_default_proxy(self) -> None:
        """The same proxy named in a request, without a user, is the same proxy."""
        crawl = await self.crawl(
            self.ask("/octets/10", self.proxy.url),
            CODA_PROXY=named(self.proxy.url, ALICE),
        )
        self.assertEqual(crawl.statuses, [200])

    async def test_no_other_proxy_sees_the_user(self) -> None:
        """Another proxy asks in vain, for tunnels too."""
        other = squid.proxy("basic")
        other.reset()
        crawl = await self.crawl(
            self.ask("/octets/10", other.url),
            self.ask("/octets/10", other.url, tls=True),
            CODA_PROXY=self.proxy.url,
            CODA_PROXY_USER=ALICE.name,
            CODA_PROXY_PASSWORD=ALICE.password,
        )
        self.assertEqual(crawl.outcomes[0].response.status, 407)
        self.assertIsInstance(crawl.outcomes[1].error, TunnelError)
        self.assertEqual({each.answer for each in other.requests()}, {""})
        self.assertEqual(self.proxy.requests(), [])

    async def test_schemes(self) -> None:
        """``CODA_SCHEMES`` says what may be spoken."""
        crawl = await self.crawl(self.ask("/octets/10"), CODA_SCHEMES=["ntlm"])
        self.assertIn("not allowed by policy", str(crawl.outcomes[0].error))

    async def test_user_without_proxy(self) -> None:
        """A user for no proxy in particular is refused, with the reason."""
        crawl = await self.crawl(self.ask("/octets/1"), CODA_PROXY_USER="alice")
        self.assertIn("need CODA_PROXY", str(crawl.outcomes[0].error))

    async def test_bind_address(self) -> None:
        """``DOWNLOAD_BIND_ADDRESS`` is kept."""
        crawl = await self.crawl(
            self.ask("/octets/10", None), DOWNLOAD_BIND_ADDRESS="127.0.0.7"
        )
        self.assertEqual(crawl.statuses, [200])
        [received] = self.origin.requests()
        self.assertEqual(received.client.rpartition(":")[0], "127.0.0.7")

    async def test_bind_address_of_one_request(self) -> None:
        """``meta["bindaddress"]`` is refused, not ignored."""
        crawl = await self.crawl(
            self.ask("/octets/10", meta={"bindaddress": "127.0.0.1"})
        )
        self.assertIsInstance(crawl.outcomes[0].error, NotSupported)
        self.assertIn("DOWNLOAD_BIND_ADDRESS", str(crawl.outcomes[0].error))

    async def test_environment(self) -> None:
        """``HttpProxyMiddleware`` reads the environment as ever."""
        proxy = named(self.proxy.url, ALICE)
        self.live_in(
            patch.dict(
                os.environ, {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": ""}
            )
        )
        crawl = await self.crawl(
            Request(self.origin.url("/octets/10")),
            Request(self.origin.tls_url("/octets/10")),
        )
        self.assertEqual(crawl.statuses, [200, 200])
        self.assertEqual(await self.served("GET"), [ALICE.name])


class SiteTests(CrawlCase):
    """Websites that ask who we are."""

    scheme = "ntlm"

    def alice(self) -> str:
        return named(self.proxy.url, ALICE, name=ALICE.down_level)

    def site(self, auth: str) -> squid.SquidProxy:
        """A website in front of the origin that asks with 401."""
        site = squid.SquidProxy(auth, website=self.origin.port)
        site.start()
        self.addCleanup(site.stop)
        return site

    async def test_digest(self) -> None:
        """``CODA_SITES`` answers Digest, also behind an NTLM proxy."""
        site = apache.website()
        site.reset()
        crawl = await self.crawl(
            *(
                Request(site.url("/digest/1k.bin", "127.0.0.1"), meta={"proxy": proxy})
                for proxy in (None, self.alice())
            ),
            CODA_SITES={site.url("", "127.0.0.1"): (BOB.name, BOB.password)},
        )
        self.assertEqual(crawl.statuses, [200, 200])
        users = [each.user for each in site.visits() if each.status == 200]
        self.assertEqual(users, [BOB.name, BOB.name])
        self.assertEqual(site.failed_logons(), 0)

    async def test_ntlm(self) -> None:
        """The same with NTLM, directly and inside an NTLM proxy's tunnel."""
        site = self.site("ntlm")
        crawl = await self.crawl(
            Request(f"{site.url}/octets/10"),
            Request(f"{site.tls_url}/octets/10", meta={"proxy": self.alice()}),
            CODA_SITES=dict.fromkeys(
                (site.url, site.tls_url), (BOB.down_level, BOB.password)
            ),
        )
        self.assertEqual(crawl.statuses, [200, 200])
        users = {each.user for each in site.requests() if each.status == 200}
        self.assertEqual(users, {BOB.down_level})
        self.assertEqual(site.failed_logons(), 0)

    async def test_other_sites(self) -> None:
        """A site that was not named gets no answer."""
        site = self.site("digest")
        crawl = await self.crawl(
            Request(f"{site.url}/octets/10"),
            CODA_SITES={"https://localhost": (BOB.name, BOB.password)},
        )
        self.assertEqual(crawl.statuses, [401])
        self.assertEqual({each.origin_answer for each in site.requests()}, {""})

    async def test_own_field(self) -> None:
        """A request's own field, as ``HttpAuthMiddleware`` sets it, goes out as is."""
        site = self.site("basic")
        pair = f"{ALICE.name}:{ALICE.password}".encode()
        crawl = await self.crawl(
            Request(
                f"{site.url}/octets/10",
                headers={"Authorization": b"Basic " + b64encode(pair)},
            ),
            CODA_SITES={site.url: (BOB.name, BOB.password)},
        )
        self.assertEqual(crawl.statuses, [200])
        self.assertEqual([each.user for each in site.requests()], [ALICE.name])


class ResponseTests(CrawlCase):
    """Responses are as Scrapy's own handler makes them."""

    async def test_same_as_scrapys(self) -> None:
        """Status, fields, body, flags, class and protocol, for many kinds."""
        for path in (
            "/octets/10",
            "/chunked/100000",
            "/until-close/1000",
            "/fields",
            "/status/404",
            "/status/204",
            "/status/503",
            "/hints",
            "/echo#fragment",
        ):
            for method in ("GET", "HEAD"):
                seen = []
                for handler in (STOCK, HANDLER):
                    crawl = await self.crawl(
                        self.ask(path, method=method), handler=handler
                    )
                    response = crawl.outcomes[0].response
                    fields = response.headers.to_unicode_dict()
                    body = response.body
                    if "json" in fields.get("Content-Type", ""):
                        # It says which connection it came on.
                        body = b""
                        fields.pop("Content-Length")
                    fields.pop("Date", None)
                    self.assertIn("download_latency", response.meta)
                    seen.append(
                        (
                            type(response),
                            response.url,
                            response.status,
                            dict(fields),
                            body,
                            response.flags,
                            response.protocol,
                        )
                    )
                self.assertEqual(seen[0], seen[1], (method, path))

    async def test_class(self) -> None:
        """The class fits the content."""
        crawl = await self.crawl(self.ask("/octets/10"))
        response = crawl.outcomes[0].response
        self.assertIsInstance(response, TextResponse)
        self.assertNotIsInstance(response, HtmlResponse)

    async def test_maxsize(self) -> None:
        """What is too large is dropped, whether it says its size or not."""
        for path in ("/octets/5000", "/chunked/5000000"):
            crawl = await self.crawl(self.ask(path), DOWNLOAD_MAXSIZE=4000)
            self.assertIsInstance(crawl.outcomes[0].error, DownloadCancelledError)
        crawl = await self.crawl(
            self.ask("/octets/5000", meta={"download_maxsize": 6000}),
            DOWNLOAD_MAXSIZE=4000,
        )
        self.assertEqual(crawl.statuses, [200])

    async def test_warnsize(self) -> None:
        """What is large is told of once."""
        for path in ("/octets/500000", "/chunked/500000"):
            with self.assertLogs("coda_twisted.adapters.scrapy", "WARNING") as logged:
                crawl = await self.crawl(self.ask(path), DOWNLOAD_WARNSIZE=4000)
            self.assertEqual(crawl.statuses, [200])
            self.assertEqual(len(logged.output), 1)
            self.assertIn("warn size (4000)", logged.output[0])

    async def test_timeout(self) -> None:
        """``DOWNLOAD_TIMEOUT`` is for the head and the content together."""
        crawl = await self.crawl(
            self.ask("/silence/5"),
            self.ask("/trickle/200", tls=True),
            DOWNLOAD_TIMEOUT=0.7,
        )
        for each in crawl.outcomes:
            self.assertIsInstance(each.error, DownloadTimeoutError)
            self.assertIn("longer than 0.7 seconds", str(each.error))

    async def test_dataloss(self) -> None:
        """Content that was cut short fails, or is flagged."""
        for path in ("/cut/1000", "/cut-chunked/1000"):
            crawl = await self.crawl(
                self.ask(path, tls=True),
                self.ask(path, tls=True, meta={"download_fail_on_dataloss": False}),
            )
            failed, flagged = crawl.outcomes
            self.assertIsInstance(failed.error, ResponseDataLossError)
            self.assertEqual(flagged.response.flags, ["dataloss"])
            self.assertEqual(flagged.response.body, origin.content(500))

    async def test_stop_download(self) -> None:
        """``StopDownload`` ends a download, at its head or in its content."""
        for signal in (signals.headers_received, signals.bytes_received):
            for fail in (False, True):

                def stop(fail: bool = fail, **facts: Any) -> None:
                    raise StopDownload(fail=fail)

                crawl = await self.crawl(
                    self.ask("/octets/5000000"), spider=listening_spider(signal, stop)
                )
                outcome = crawl.outcomes[0]
                response = outcome.error.response if fail else outcome.response
                self.assertEqual(response.flags, ["download_stopped"])
                self.assertLess(len(response.body), 5_000_000)
                self.assertEqual(
                    len(response.body) > 0, signal is signals.bytes_received
                )

    async def test_cookies_and_compression(self) -> None:
        """The middlewares above work as ever."""
        crawl = await self.crawl(
            self.ask("/fields", cookies={"c": "3"}), self.ask("/echo")
        )
        self.assertEqual(crawl.statuses, [200, 200])
        cookies = crawl.outcomes[0].response.headers.getlist("Set-Cookie")
        self.assertEqual(cookies, [b"a=1", b"b=2, c"])
        received = {each.target: each for each in self.origin.requests()}
        self.assertEqual(received["/fields"].get("Cookie"), "c=3")
        self.assertIn("gzip", received["/echo"].get("Accept-Encoding") or "")


class FailureTests(CrawlCase):
    """Failures in the words that Scrapy's retries and errbacks know."""

    async def test_wrong_password(self) -> None:
        """Fifty requests with a wrong password cost one failed logon, and no retry."""
        proxy = named(self.proxy.url, ALICE, password=WRONG_PASSWORD)
        crawl = await self.crawl(
            *(self.ask("/octets/10", proxy, tls=n % 2 == 0) for n in range(50)),
            RETRY_ENABLED=True,
        )
        for each in crawl.outcomes:
            self.assertIsInstance(each.error, CredentialsRejected)
            self.assertNotIn(WRONG_PASSWORD, str(each.error))
        self.assertEqual(self.proxy.failed_logons(), 1)
        self.assertNotIn("retry/count", crawl.stats)

    async def test_refused_tunnel(self) -> None:
        """A tunnel that the proxy does not grant is a ``TunnelError``."""
        proxy = squid.SquidProxy("none", settings=["http_access deny CONNECT"])
        proxy.start()
        self.addCleanup(proxy.stop)
        crawl = await self.crawl(self.ask("/octets/1", proxy.url, tls=True))
        self.assertIsInstance(crawl.outcomes[0].error, TunnelError)
        self.assertIn("403", str(crawl.outcomes[0].error))

    async def test_nobody_there(self) -> None:
        """A proxy or a site that does not listen is retried as one."""
        nowhere = "http://127.0.0.1:9"
        crawl = await self.crawl(
            self.ask("/octets/1", nowhere),
            self.ask("/octets/1", nowhere, tls=True),
            Request("http://127.0.0.1:9/"),
            RETRY_ENABLED=True,
            RETRY_TIMES=1,
            RETRY_PRIORITY_ADJUST=0,
        )
        for each in crawl.outcomes:
            self.assertIsInstance(each.error, DownloadConnectionRefusedError)
        self.assertEqual(crawl.stats["retry/count"], 3)

    async def test_no_such_name(self) -> None:
        """Names that do not exist."""
        crawl = await self.crawl(
            Request("http://nowhere.invalid/"),
            self.ask("/octets/1", "http://nowhere.invalid:3128"),
        )
        for each in crawl.outcomes:
            self.assertIsInstance(each.error, CannotResolveHostError)

    async def test_underscore(self) -> None:
        """A name with an underscore is looked up, where Scrapy's own handler does."""
        if find_spec("scrapy.core.downloader._idna_patch") is None:
            raise SkipTest("this version of Scrapy does not")
        crawl = await self.crawl(Request("http://no_where.invalid/"))
        self.assertIsInstance(crawl.outcomes[0].error, CannotResolveHostError)

    async def test_bad_proxy(self) -> None:
        """A proxy that cannot be read, without a word of it."""
        crawl = await self.crawl(
            self.ask("/octets/1", "socks5://me:hidden@proxy.example:1080")
        )
        self.assertIn("SOCKS", str(crawl.outcomes[0].error))
        self.assertNotIn("hidden", str(crawl.outcomes[0].error))
