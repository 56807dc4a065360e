"""
Our Agent and treq through real proxies that verify whom they serve.

Each scheme meets the same requests; what reached the origin, and what the proxy
judged, is read from their own logs.
"""

from __future__ import annotations

import hashlib
import warnings
from contextlib import AbstractContextManager
from io import BytesIO
from typing import Any, ClassVar

import treq
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent as TwistedAgent
from twisted.web.client import FileBodyProducer, HTTPConnectionPool, readBody
from twisted.web.iweb import UNKNOWN_LENGTH

from coda_twisted import (
    Agent,
    AuthPolicy,
    Client,
    CredentialsRejected,
    PasswordCredentials,
    TicketCredentials,
    TLSPolicy,
    TunnelEndpointFactory,
    TunnelRefused,
)
from coda_twisted.client.configure import make_client
from coda_twisted.client.guard import LogonGuard
from coda_twisted.client.upload import BytesBody
from tests.integration import apache, kerberos, origin, squid
from tests.integration.certificates import authority
from tests.integration.people import ALICE, BOB, REALM, WRONG_PASSWORD

MIB = 1024 * 1024


def trust() -> TLSPolicy:
    """Trust the tests' authority alone."""
    certificate = Certificate.loadPEM(authority().ca.read_bytes())
    return TLSPolicy(trustRootFromCertificates([certificate]))


class Stream(BytesBody):
    """Content of a length that is not told beforehand."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.length: Any = UNKNOWN_LENGTH


class OneWay:
    """Content that comes once, of unknown length, in pieces."""

    def __init__(self, content: bytes) -> None:
        self._producer = FileBodyProducer(BytesIO(content))
        self.length = UNKNOWN_LENGTH

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)


class ProxyCase(TestCase):
    """One kind of proxy, an origin, and an agent between them."""

    timeout = 60
    scheme: ClassVar[str] = "none"
    tls_to_proxy = False

    def setUp(self) -> None:
        self.proxy = squid.proxy(self.scheme)
        self.proxy.reset()
        self.origin = origin.origin()
        self.origin.reset()
        self.guard = LogonGuard(reactor)
        self.agent = self.make_agent()
        self.http = HTTPClient(self.agent)

    def live_in(self, realm: AbstractContextManager[None]) -> None:
        """Let Kerberos find this realm while the test runs."""
        realm.__enter__()
        self.addCleanup(realm.__exit__, None, None, None)

    def credentials(self, person: Any = ALICE, password: str | None = None) -> Any:
        """Who we are to the proxy."""
        return PasswordCredentials(
            person.name, person.password if password is None else password
        )

    def make_client(self, credentials: Any = None, **settings: Any) -> Client:
        tls = trust()
        client = make_client(
            reactor,
            proxy=self.proxy.tls_url if self.tls_to_proxy else self.proxy.url,
            credentials=credentials or self.credentials(),
            tls=tls,
            guard=self.guard,
            **settings,
        )
        self.addCleanup(client.close)
        return client

    def make_agent(self, credentials: Any = None, **settings: Any) -> Any:
        agent = Agent.__new__(Agent)
        agent.client = self.make_client(credentials, **settings)
        return agent

    async def get(self, url: str, **more: Any) -> bytes:
        response = await self.http.get(url, **more)
        self.assertEqual(response.code, 200)
        content: bytes = await response.content()
        return content


class Matrix:
    """What every scheme must carry."""

    async def test_get(self: Any) -> None:
        """GET brings the content, and the origin saw one request."""
        self.assertEqual(
            await self.get(self.origin.url("/octets/1000")), origin.content(1000)
        )
        [received] = self.origin.requests()
        self.assertEqual((received.method, received.complete), ("GET", True))
        self.assertIsNone(received.get("Proxy-Authorization"))
        self.assertEqual(self.proxy.failed_logons(), 0)

    async def test_head(self: Any) -> None:
        """HEAD brings fields and no content."""
        response = await self.http.head(self.origin.url("/octets/1000"))
        self.assertEqual((response.code, await response.content()), (200, b""))
        self.assertEqual(response.headers.getRawHeaders("content-length"), ["1000"])

    async def test_post(self: Any) -> None:
        """POST of a MiB arrives once, whole, as the first request too."""
        content = origin.content(MIB)
        response = await self.http.post(self.origin.url("/echo"), data=content)
        self.assertEqual(response.code, 200)
        await response.content()
        complete = [each for each in self.origin.requests() if each.complete]
        self.assertEqual(
            [(each.method, each.length, each.sha256) for each in complete],
            [("POST", MIB, hashlib.sha256(content).hexdigest())],
        )
        self.assertEqual(self.proxy.failed_logons(), 0)

    async def test_chunked_put(self: Any) -> None:
        """PUT of content that comes once and tells no length arrives whole."""
        content = origin.content(MIB)
        for _ in range(2):
            self.origin.reset()
            response = await self.agent.request(
                b"PUT", self.origin.url("/echo").encode(), None, OneWay(content)
            )
            self.assertEqual(response.code, 200)
            await readBody(response)
            complete = [each for each in self.origin.requests() if each.complete]
            self.assertEqual(
                [(each.method, each.chunked, each.sha256) for each in complete],
                [("PUT", True, hashlib.sha256(content).hexdigest())],
            )

    async def test_download(self: Any) -> None:
        """Sixty-four MiB arrive unharmed."""
        website = apache.website()
        response = await self.http.get(website.url("/64m.bin"), unbuffered=True)
        digest = hashlib.sha256()
        await treq.collect(response, digest.update)
        self.assertEqual(digest.hexdigest(), website.sha256_of("64m.bin"))

    async def test_https(self: Any) -> None:
        """A URI with https goes through CONNECT, verified, on reused connections."""
        for _ in range(2):
            self.assertEqual(
                await self.get(self.origin.tls_url("/octets/1000")),
                origin.content(1000),
            )
        received = self.origin.requests()
        self.assertEqual([each.tls for each in received], ["TLSv1.3", "TLSv1.3"])
        self.assertEqual(len({each.connection for each in received}), 1)
        # Squid logs a tunnel when it has ended.
        await self.agent.client.close()
        statuses: list[int] = []
        while 200 not in statuses:
            await deferLater(reactor, 0.05)
            statuses = [
                each.status
                for each in self.proxy.requests()
                if each.method == "CONNECT" and each.status != 407
            ]
        self.assertEqual(statuses, [200])

    async def test_https_post(self: Any) -> None:
        """POST of a MiB inside a tunnel arrives once."""
        content = origin.content(MIB)
        response = await self.http.post(self.origin.tls_url("/echo"), data=content)
        await response.content()
        [received] = self.origin.requests()
        self.assertEqual(received.sha256, hashlib.sha256(content).hexdigest())

    async def test_raw(self: Any) -> None:
        """A protocol that speaks second gets what its server says first."""
        endpoint = self.agent.client.endpoint("localhost", self.origin.raw_port)
        greeting = Greeting()
        await connectProtocol(endpoint, greeting)
        await greeting.first
        assert greeting.transport is not None
        greeting.transport.loseConnection()
        await greeting.lost

    async def test_restart(self: Any) -> None:
        """A proxy that restarts between two requests is met again."""
        await self.get(self.origin.url("/octets/10"))
        self.proxy.restart(kill=True)
        self.assertEqual(
            await self.get(self.origin.url("/octets/10")), origin.content(10)
        )
        self.assertEqual(self.proxy.failed_logons(), 0)

    async def test_stock_agent(self: Any) -> None:
        """Twisted's own Agent gets https through our endpoints."""
        pool = HTTPConnectionPool(reactor)
        self.addCleanup(pool.closeCachedConnections)
        agent = TwistedAgent.usingEndpointFactory(
            reactor, TunnelEndpointFactory(self.make_client(), trust()), pool
        )
        for _ in range(2):
            response = await agent.request(
                b"GET", self.origin.tls_url("/octets/10").encode()
            )
            with warnings.catch_warnings():
                # Its own transport cannot abort (twisted#8929).
                warnings.simplefilter("ignore", DeprecationWarning)
                reading = readBody(response)
            self.assertEqual(await reading, origin.content(10))
        self.assertEqual(len({each.connection for each in self.origin.requests()}), 1)


class Greeting(Protocol):
    """Waits for the first octets."""

    def __init__(self) -> None:
        self.first: Deferred[bytes] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        if not self.first.called:
            self.first.callback(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class WrongPassword:
    """What every scheme that knows passwords must refuse, once."""

    burst = 200

    async def test_burst(self: Any) -> None:
        """Two hundred requests with a wrong password cost one failed logon."""
        self.agent = self.make_agent(self.credentials(password=WRONG_PASSWORD))
        url = self.origin.url("/octets/10").encode()
        outcomes = await DeferredList(
            [self.agent.request(b"GET", url) for _ in range(self.burst)],
            consumeErrors=True,
        )
        self.assertEqual({succeeded for succeeded, _ in outcomes}, {False})
        self.assertEqual({each.type for _, each in outcomes}, {CredentialsRejected})
        self.assertEqual(self.failed(), 1)
        self.assertEqual(self.origin.requests(), [])
        texts = {str(each.value) for _, each in outcomes}
        self.assertFalse([text for text in texts if WRONG_PASSWORD in text])

    async def test_connect(self: Any) -> None:
        """A tunnel is refused for the same reason, with the same thrift."""
        self.agent = self.make_agent(self.credentials(password=WRONG_PASSWORD))
        for _ in range(3):
            with self.assertRaises(CredentialsRejected):
                await self.agent.request(
                    b"GET", self.origin.tls_url("/octets/10").encode()
                )
        self.assertEqual(self.failed(), 1)

    async def test_right_password_after_a_wrong_one(self: Any) -> None:
        """A new password is used at once, whatever became of the old one."""
        self.agent = self.make_agent(self.credentials(password=WRONG_PASSWORD))
        with self.assertRaises(CredentialsRejected):
            await self.agent.request(b"GET", self.origin.url("/octets/10").encode())
        self.agent = self.make_agent()
        self.http = HTTPClient(self.agent)
        await self.get(self.origin.url("/octets/10"))
        self.assertEqual(self.failed(), 1)

    def failed(self: Any) -> int:
        """The failed logons at whoever judges the password."""
        count: int = self.proxy.failed_logons()
        return count


class Crowd:
    """Many at once."""

    async def test_two_hundred_at_once(self: Any) -> None:
        """Two hundred requests at once are all answered, by one user's logons."""
        url = self.origin.url("/octets/1000").encode()

        async def one() -> bytes:
            response = await self.agent.request(b"GET", url)
            content: bytes = await readBody(response)
            return content

        contents = await gatherResults(
            [Deferred.fromCoroutine(one()) for _ in range(200)]
        )
        self.assertEqual(set(contents), {origin.content(1000)})
        self.assertEqual(len(contents), 200)
        self.assertEqual(self.proxy.failed_logons(), 0)


class TwoUsers:
    """Connections that are a user's are no other's."""

    async def test_two_users(self: Any) -> None:
        """Two users' requests interleave on one proxy, and never on one connection."""
        people = {"alice": ALICE, "bob": BOB}
        agents = {
            name: self.make_agent(self.credentials(person))
            for name, person in people.items()
        }

        async def one(name: str) -> None:
            response = await agents[name].request(
                b"GET", self.origin.url(f"/octets/{len(name)}").encode()
            )
            await readBody(response)

        for _ in range(5):
            await gatherResults(
                [
                    Deferred.fromCoroutine(one(name))
                    for name in ("alice", "bob", "alice", "bob")
                ]
            )
        users = self.proxy.users_by_connection()
        self.assertTrue(users)
        for seen in users.values():
            self.assertEqual(len(seen), 1, users)
        names = {name for seen in users.values() for name in seen}
        self.assertEqual(len(names), 2, users)


class OpenProxyTests(ProxyCase, Matrix, Crowd):
    """A proxy that asks for nothing."""


class BasicTests(ProxyCase, Matrix, Crowd, TwoUsers, WrongPassword):
    """Basic, judged by basic_ncsa_auth."""

    scheme = "basic"


class DigestTests(ProxyCase, Matrix, Crowd, TwoUsers, WrongPassword):
    """Digest, judged by digest_file_auth."""

    scheme = "digest"


class NTLMTests(ProxyCase, Matrix, TwoUsers, WrongPassword):
    """NTLM, judged by an acceptor that verifies NTLMv2 and counts logons."""

    scheme = "ntlm"

    def credentials(self, person: Any = ALICE, password: str | None = None) -> Any:
        return PasswordCredentials(
            person.down_level, person.password if password is None else password
        )

    async def test_strength(self) -> None:
        """What is sent is NTLMv2 with a MIC."""
        await self.get(self.origin.url("/octets/1"))
        [logon] = self.proxy.authority.logons()
        self.assertEqual(
            (logon.result, logon.domain, logon.user), ("accepted", "CORP", "alice")
        )
        self.assertTrue(logon.ntlmv2)
        self.assertTrue(logon.mic)

    async def test_upn(self) -> None:
        """A user principal name logs on as well."""
        self.agent = self.make_agent(PasswordCredentials(ALICE.upn, ALICE.password))
        self.http = HTTPClient(self.agent)
        await self.get(self.origin.url("/octets/1"))
        self.assertEqual(self.proxy.failed_logons(), 0)


class CrowdedNTLMTests(ProxyCase, Crowd, WrongPassword):
    """NTLM with as many helpers as a busy site has."""

    def setUp(self) -> None:
        self.own = squid.SquidProxy("ntlm", helpers=40)
        self.own.start()
        self.addCleanup(self.own.stop)
        super().setUp()
        self.proxy = self.own
        self.proxy.reset()
        self.agent = self.make_agent()

    credentials = NTLMTests.credentials


class NegotiateTests(ProxyCase, Matrix, Crowd):
    """Kerberos by a ticket of the system's cache, judged by negotiate_kerberos_auth."""

    scheme = "negotiate"

    def setUp(self) -> None:
        self.realm = kerberos.realm()
        self.live_in(self.realm.inhabited(self.realm.ticket(ALICE)))
        super().setUp()

    def credentials(self, person: Any = ALICE, password: str | None = None) -> Any:
        return TicketCredentials()


class NegotiatePasswordTests(ProxyCase, WrongPassword, TwoUsers):
    """Kerberos by a password; it is the KDC that judges it."""

    scheme = "negotiate"

    def setUp(self) -> None:
        self.realm = kerberos.realm()
        self.live_in(self.realm.inhabited())
        super().setUp()
        self.realm.log.reset()

    def credentials(self, person: Any = ALICE, password: str | None = None) -> Any:
        return PasswordCredentials(
            f"{person.name}@{REALM}",
            person.password if password is None else password,
        )

    def failed(self) -> int:
        return self.realm.failed_logons()

    async def test_get(self) -> None:
        """A password gets its ticket, and the ticket gets the content."""
        self.assertEqual(
            await self.get(self.origin.url("/octets/10")), origin.content(10)
        )
        self.assertEqual(self.failed(), 0)


class MultiTests(ProxyCase, Matrix, WrongPassword):
    """A proxy that offers every scheme at once, to one who has no realm."""

    scheme = "multi"
    spoken = "ntlm"

    def setUp(self) -> None:
        self.live_in(kerberos.nowhere())
        super().setUp()

    credentials = NTLMTests.credentials

    def schemes(self) -> set[str]:
        """The schemes of all answers that the proxy got."""
        answers = [each.answer for each in self.proxy.requests() if each.answer]
        return {answer.partition(" ")[0].lower() for answer in answers}

    async def test_strongest(self) -> None:
        """The strongest scheme that can be spoken is spoken, and no other."""
        await self.get(self.origin.url("/octets/10"))
        self.assertEqual(self.schemes(), {self.spoken})
        self.assertEqual(self.proxy.failed_logons(), 0)

    async def test_policy(self) -> None:
        """Policy chooses among what is on offer."""
        for scheme in ("basic", "digest", "ntlm"):
            name = ALICE.down_level if scheme == "ntlm" else ALICE.name
            self.proxy.reset()
            self.agent = self.make_agent(
                PasswordCredentials(name, ALICE.password),
                policy=AuthPolicy(schemes=(scheme,)),
            )
            self.http = HTTPClient(self.agent)
            await self.get(self.origin.url("/octets/10"))
            self.assertEqual(self.schemes(), {scheme})


class MultiKerberosTests(MultiTests):
    """The same in a realm: the password gets a ticket."""

    spoken = "negotiate"

    def setUp(self) -> None:
        super().setUp()
        self.live_in(kerberos.realm().inhabited())


class TLSProxyTests(ProxyCase, Matrix, WrongPassword):
    """A proxy reached over TLS; https to origins is TLS inside TLS."""

    scheme = "basic"
    tls_to_proxy = True


class RefusalTests(ProxyCase):
    """CONNECT that a proxy does not grant."""

    async def test_refused(self) -> None:
        """The refusal carries status and page."""
        proxy = squid.SquidProxy("none", settings=["http_access deny CONNECT"])
        proxy.start()
        self.addCleanup(proxy.stop)
        self.proxy = proxy
        agent = self.make_agent()
        with self.assertRaises(TunnelRefused) as raised:
            await agent.request(b"GET", self.origin.tls_url("/octets/1").encode())
        self.assertEqual(raised.exception.status, 403)
        self.assertIn(b"html", raised.exception.body.lower())
