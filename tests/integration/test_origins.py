"""
Our Agent and treq to websites that verify whom they serve, alone and behind proxies.

Bob is who we are to the site, Alice to the proxy: neither may be taken for the other.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode
from contextlib import AbstractContextManager
from io import BytesIO
from typing import Any, ClassVar

import treq
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import RedirectAgent, readBody
from zope.interface import implementer

from coda_twisted import (
    Agent,
    AuthenticationFailed,
    AuthPolicy,
    CredentialsRejected,
    PasswordCredentials,
    TicketCredentials,
)
from coda_twisted.auth.steps import Peer, Reply, Role
from coda_twisted.client.guard import LogonGuard
from coda_twisted.errors import MutualAuthenticationFailed
from coda_twisted.interfaces import ICredentials, ICredentialSource
from tests.digest import fields_of
from tests.integration import apache, guarded, kerberos, origin, squid, tools
from tests.integration.certificates import server_certificate
from tests.integration.commands import curl
from tests.integration.ntlm_daemon import bindings_hash
from tests.integration.ntlm_helper import NTLMAuthority
from tests.integration.people import ALICE, BOB, REALM, WRONG_PASSWORD, Person
from tests.integration.test_library import MIB, OneWay, trust

# Not the proxies' host, so that a ticket for one is not good for the other.
HOST = "127.0.0.1"


@implementer(ICredentialSource)
class Users:
    """
    Who we are.

    :param borrower: To every proxy.
    :param users: To each origin server, by scheme and port.
    """

    def __init__(
        self, borrower: Any, users: dict[tuple[str, int], ICredentials]
    ) -> None:
        self.borrower = borrower
        self.users = users

    def credentials_for(self, peer: Peer) -> Any:
        if peer.role is Role.PROXY:
            return self.borrower
        return self.users.get((peer.scheme, peer.port)) if peer.host == HOST else None


def known_as(scheme: str, person: Person, password: str | None = None) -> ICredentials:
    """Somebody, by the name under which a scheme knows them."""
    names = {"ntlm": person.down_level, "negotiate": f"{person.name}@{REALM}"}
    return PasswordCredentials(
        names.get(scheme, person.name),
        person.password if password is None else password,
    )


class SiteCase(TestCase):
    """A site that asks who we are, and perhaps a proxy that does."""

    timeout = 60
    scheme: str = "basic"
    area: str = "basic"
    policy: ClassVar[AuthPolicy] = AuthPolicy(allow_basic_over_cleartext=True)

    def setUp(self) -> None:
        self.guard = LogonGuard(reactor)
        self.live_in(kerberos.nowhere())
        self.site = self.make_site()
        self.site.reset()

    def live_in(self, realm: AbstractContextManager[None]) -> None:
        """Let Kerberos find this realm while the test runs."""
        realm.__enter__()
        self.addCleanup(realm.__exit__, None, None, None)

    def make_site(self) -> Any:
        return apache.website()

    def url(self, tls: bool) -> str:
        """Where the site tells what it was sent."""
        make = self.site.tls_url if tls else self.site.url
        url: str = make(f"/{self.area}/echo", HOST)
        return url

    def make_agent(
        self,
        proxy: str | None = None,
        borrower: Any = None,
        user: Any = None,
        policy: AuthPolicy | None = None,
    ) -> Agent:
        """
        Make an agent.

        :param user: Who we are to the site, for now; Bob by default.
        """
        user = user or known_as(self.scheme, BOB)
        self.users = {
            ("http", self.site.port): user,
            ("https", self.site.tls_port): user,
        }
        agent = Agent(
            reactor,
            proxy=proxy,
            credentials=Users(borrower, self.users),
            policy=policy or self.policy,
            tls=trust(),
            guard=self.guard,
        )
        self.addCleanup(agent.client.close)
        return agent

    def taken_for(self, person: Person) -> str:
        """Under which name the site logs somebody."""
        return person.name

    def completed(self) -> int:
        """How many requests the site let through."""
        return sum(visit.status == 200 for visit in self.site.visits())

    async def check(
        self,
        agent: Agent,
        method: str = "GET",
        content: bytes = b"",
        *,
        url: str | None = None,
        tls: bool = False,
        person: Person = BOB,
    ) -> None:
        """Send a request, and see that it arrived whole, and from whom."""
        url = url or self.url(tls)
        if method == "PUT":
            body: Any = OneWay(content)
            response = await agent.request(b"PUT", url.encode(), None, body)
            echo = await readBody(response)
        else:
            data = BytesIO(content) if content else None
            response = await HTTPClient(agent).request(method, url, data=data)
            echo = await treq.content(response)
        self.assertEqual(response.code, 200, echo)
        sha256 = hashlib.sha256(content).hexdigest()
        self.assertEqual(
            apache.Echo.read(echo),
            apache.Echo(method, self.taken_for(person), sha256, ""),
        )


class Matrix:
    """What every scheme must carry, by every way."""

    async def carry(self: Any, auth: str | None, *, tls: bool) -> None:
        """
        Send each kind of request, as the first and as the second of an agent's.

        :param auth: What the proxy asks for; ``None`` for no proxy.
        """
        if "negotiate" in (auth, self.scheme):
            tools.require_modules("gssapi")
            self.live_in(kerberos.realm().inhabited())
        proxy = squid.proxy(auth) if auth else None
        if proxy is not None:
            proxy.reset()
        borrower = known_as(auth, ALICE) if auth not in (None, "none") else None
        content = origin.content(MIB)
        for method, sent in (
            ("GET", b""),
            # Kept for another leg, and more than squid survives in vain.
            ("POST", content[:100_000]),
            ("POST", content),
            ("PUT", content),
        ):
            agent = self.make_agent(proxy and proxy.url, borrower)
            for _ in range(2):
                await self.check(agent, method, sent, tls=tls)
            # Squid logs a tunnel when it has ended.
            await agent.client.close()
        self.assertEqual(self.completed(), 8)
        self.assertEqual(self.site.failed_logons(), 0)
        if proxy is not None:
            self.assertEqual(proxy.failed_logons(), 0)
            connects = [each for each in proxy.requests() if each.method == "CONNECT"]
            self.assertEqual(bool(connects), tls)
            self.assertEqual({each.origin_answer for each in connects} - {""}, set())

    async def test_http(self) -> None:
        """Over http."""
        await self.carry(None, tls=False)

    async def test_https(self) -> None:
        """Over https."""
        await self.carry(None, tls=True)

    async def test_http_through_open_proxy(self) -> None:
        """Over http, through a proxy that asks nothing."""
        await self.carry("none", tls=False)

    async def test_https_through_open_proxy(self) -> None:
        """In a tunnel of a proxy that asks nothing."""
        await self.carry("none", tls=True)

    async def test_http_through_basic_proxy(self) -> None:
        """Over http, through a proxy that wants Basic."""
        await self.carry("basic", tls=False)

    async def test_https_through_basic_proxy(self) -> None:
        """In a tunnel of a proxy that wants Basic."""
        await self.carry("basic", tls=True)

    async def test_http_through_digest_proxy(self) -> None:
        """Over http, through a proxy that wants Digest."""
        await self.carry("digest", tls=False)

    async def test_https_through_digest_proxy(self) -> None:
        """In a tunnel of a proxy that wants Digest."""
        await self.carry("digest", tls=True)

    async def test_http_through_ntlm_proxy(self) -> None:
        """Over http, through a proxy that wants NTLM."""
        await self.carry("ntlm", tls=False)

    async def test_https_through_ntlm_proxy(self) -> None:
        """In a tunnel of a proxy that wants NTLM."""
        await self.carry("ntlm", tls=True)

    async def test_http_through_negotiate_proxy(self) -> None:
        """Over http, through a proxy that wants a ticket."""
        await self.carry("negotiate", tls=False)

    async def test_https_through_negotiate_proxy(self) -> None:
        """In a tunnel of a proxy that wants a ticket."""
        await self.carry("negotiate", tls=True)

    async def test_fifty_at_once(self: Any) -> None:
        """Fifty requests of a new agent are all let in."""
        agent = self.make_agent()
        url = self.url(tls=True).encode()

        async def one() -> str:
            return apache.Echo.read(
                await readBody(await agent.request(b"GET", url))
            ).user

        users = await gatherResults([Deferred.fromCoroutine(one()) for _ in range(50)])
        self.assertEqual(users, [self.taken_for(BOB)] * 50)
        self.assertEqual(self.site.failed_logons(), 0)

    async def test_change_of_user(self: Any) -> None:
        """Nobody is taken for who was there before, on a connection in use either."""
        alice, bob = known_as(self.scheme, ALICE), known_as(self.scheme, BOB)
        for proxy in (None, squid.proxy().url):
            agent = self.make_agent(proxy)
            for user, person in [(bob, BOB), (alice, ALICE)] * 2:
                self.users[("http", self.site.port)] = user
                await self.check(agent, person=person)
        self.assertEqual(self.site.failed_logons(), 0)


class WrongPassword:
    """What costs a failed logon is done once."""

    def failed(self: Any) -> int:
        """The failed logons at whoever judges the password."""
        count: int = self.site.failed_logons()
        return count

    async def burst(self: Any, agent: Agent, *, tls: bool) -> None:
        """Send many requests with a wrong password, and see them all fail."""
        outcomes: Any = await DeferredList(
            [agent.request(b"GET", self.url(tls).encode()) for _ in range(50)],
            consumeErrors=True,
        )
        self.assertEqual({succeeded for succeeded, _ in outcomes}, {False})
        self.assertEqual({each.type for _, each in outcomes}, {CredentialsRejected})
        texts = {str(each.value) for _, each in outcomes}
        self.assertFalse([text for text in texts if WRONG_PASSWORD in text])
        self.assertEqual(self.completed(), 0)
        self.assertEqual(self.failed(), 1)

    async def test_wrong_password(self: Any) -> None:
        """Fifty requests with a wrong password cost one failed logon."""
        user = known_as(self.scheme, BOB, WRONG_PASSWORD)
        await self.burst(self.make_agent(user=user), tls=False)
        # Another client of this process knows it, too.
        await self.burst(self.make_agent(user=user), tls=False)

    async def test_wrong_password_through_proxy(self: Any) -> None:
        """The proxy's password is not to blame for the site's."""
        proxy = squid.proxy("digest")
        proxy.reset()
        user = known_as(self.scheme, BOB, WRONG_PASSWORD)
        agent = self.make_agent(proxy.url, known_as("digest", ALICE), user)
        await self.burst(agent, tls=True)
        self.assertEqual(proxy.failed_logons(), 0)
        # The agent goes on as before where nothing is asked.
        response = await agent.request(b"GET", origin.origin().url().encode())
        self.assertEqual(response.code, 200)
        await readBody(response)


class BasicTests(SiteCase, Matrix, WrongPassword):
    """Basic, judged by mod_auth_basic."""

    async def test_in_clear(self) -> None:
        """Without leave, the password does not cross the network in clear."""
        agent = self.make_agent(policy=AuthPolicy())
        with self.assertRaisesRegex(AuthenticationFailed, "in clear"):
            await agent.request(b"GET", self.url(tls=False).encode())
        await self.check(agent, tls=True)
        users = [visit.user for visit in self.site.visits()]
        self.assertEqual(users, ["-", "-", BOB.name])

    async def test_own_field_wins(self) -> None:
        """A caller's own Authorization is sent, and what follows is the caller's."""
        agent = self.make_agent()
        http = HTTPClient(agent)
        await self.check(agent)
        own = (ALICE.name, ALICE.password)
        response = await http.get(self.url(tls=False), auth=own)
        self.assertEqual(apache.Echo.read(await response.content()).user, ALICE.name)
        self.site.reset()
        own = (ALICE.name, WRONG_PASSWORD)
        response = await http.get(self.url(tls=False), auth=own)
        self.assertEqual(response.code, 401)
        await response.content()
        [visit] = self.site.visits()
        self.assertEqual(b64decode(visit.answer[6:]).decode(), ":".join(own))
        await self.check(agent)


class DigestTests(SiteCase, Matrix, WrongPassword):
    """Digest with MD5, judged by mod_auth_digest."""

    scheme = area = "digest"

    def said(self, name: str) -> list[str]:
        """One parameter of each answer that the site got."""
        return [
            fields_of(Reply(visit.answer.encode()))[name]
            for visit in self.site.visits()
            if visit.answer != "-"
        ]

    def statuses(self) -> list[int]:
        return [visit.status for visit in self.site.visits()]

    async def test_behind_digest_proxy(self) -> None:
        """
        Of two Digests each has the digest-uri that its reader compares.

        coda_network's README lists Digest to a site behind a proxy as what does not
        work there.
        """
        proxy = squid.proxy("digest")
        proxy.reset()
        agent = self.make_agent(proxy.url, known_as("digest", ALICE))
        target = f"/{self.area}/echo?a=1&b=%20,;"
        for tls in (False, True):
            url = self.url(tls) + target.partition("echo")[2]
            await self.check(agent, url=url)
        await agent.client.close()
        self.assertEqual(self.said("uri"), [target, target])
        self.assertEqual(set(self.said("username")), {BOB.name})
        answers = [
            (line.method, fields_of(Reply(line.answer.encode())))
            for line in proxy.requests()
            if line.answer
        ]
        self.assertEqual({said["username"] for _, said in answers}, {ALICE.name})
        self.assertEqual(
            {(method, said["uri"]) for method, said in answers},
            {("GET", target), ("CONNECT", f"{HOST}:{self.site.tls_port}")},
        )

    async def test_counts(self) -> None:
        """One nonce serves all requests, each with the next count."""
        agent = self.make_agent()
        for _ in range(3):
            await self.check(agent)
        self.assertEqual(self.statuses(), [401, 200, 200, 200])
        self.assertEqual(len(set(self.said("nonce"))), 1)
        self.assertEqual(self.said("nc"), ["00000001", "00000002", "00000003"])

    async def test_next_nonce(self) -> None:
        """The nonce that a response offers is used for the next request."""
        self.area = "digest-next"
        agent = self.make_agent()
        for _ in range(3):
            await self.check(agent)
        self.assertEqual(self.statuses(), [401, 200, 200, 200])
        self.assertEqual(len(set(self.said("nonce"))), 3)
        self.assertEqual(self.said("nc"), ["00000001"] * 3)

    async def test_stale_nonce(self) -> None:
        """A nonce that is too old costs a round trip, and no logon."""
        self.area = "digest-stale"
        agent = self.make_agent()
        await self.check(agent)
        await deferLater(reactor, 2.1)
        await self.check(agent, "PUT", origin.content(MIB))
        self.assertEqual(self.statuses(), [401, 200, 401, 200])
        self.assertIn("stale=true", self.site.visits()[2].challenge)
        self.assertEqual(self.site.failed_logons(), 0)

    async def test_site_proves_itself(self) -> None:
        """The response's rspauth is right, by every way."""
        policy = AuthPolicy(mutual="require")
        for proxy in (None, squid.proxy().url):
            for tls in (False, True):
                agent = self.make_agent(proxy, policy=policy)
                for _ in range(2):
                    await self.check(agent, tls=tls)


class NTLMTests(SiteCase, Matrix, WrongPassword):
    """
    NTLM, judged by mod_auth_gssapi and gss-ntlmssp.

    The site offers Negotiate as well, and takes no ticket.
    """

    scheme = area = "ntlm"

    def make_site(self) -> Any:
        tools.require_files(apache.GSSAPI_MODULE, apache.NTLM_MECHANISM)
        return super().make_site()

    def taken_for(self, person: Person) -> str:
        return person.down_level

    async def test_connection_is_the_users(self) -> None:
        """One logon serves a connection, also one that squid keeps for us."""
        for proxy in (None, squid.proxy().url):
            self.site.reset()
            agent = self.make_agent(proxy)
            for _ in range(3):
                await self.check(agent)
            visits = self.site.visits()
            statuses = [visit.status for visit in visits]
            self.assertEqual(statuses, [401, 401, 200, 200, 200])
            self.assertEqual(len({visit.client for visit in visits}), 1)


class NegotiateTests(SiteCase, Matrix, WrongPassword):
    """Kerberos by a password, judged by mod_auth_gssapi."""

    scheme = area = "negotiate"

    def make_site(self) -> Any:
        tools.require_files(apache.GSSAPI_MODULE)
        tools.require_modules("gssapi")
        self.realm = kerberos.realm()
        return super().make_site()

    def setUp(self) -> None:
        super().setUp()
        self.live_in(self.realm.inhabited())
        self.realm.log.reset()

    def taken_for(self, person: Person) -> str:
        return person.principal

    def failed(self) -> int:
        return self.realm.failed_logons()

    async def statuses(self, methods: str, **settings: Any) -> list[int]:
        """Send requests one after another; tell what the site answered."""
        agent = self.make_agent(**settings)
        for method in methods.split():
            content = origin.content(MIB) if method == "PUT" else b""
            await self.check(agent, method, content)
        return [visit.status for visit in self.site.visits()]

    async def test_connection_is_the_users(self) -> None:
        """One ticket serves a connection, where the site keeps it for us."""
        self.assertEqual(await self.statuses("GET GET PUT"), [401, 200, 200, 200])
        self.assertEqual(self.realm.service_tickets(), 1)

    async def test_each_request_wants_a_ticket(self) -> None:
        """Where each request wants a token, the second teaches it to the rest."""
        self.area = "negotiate-per-request"
        for proxy in (None, squid.proxy().url):
            self.site.reset()
            statuses = await self.statuses("GET GET GET PUT GET", proxy=proxy)
            self.assertEqual(statuses, [401, 200, 401, 200, 200, 200, 200])

    async def test_content_that_comes_once(self) -> None:
        """Content waits until it is known whether each request wants a token."""
        self.area = "negotiate-per-request"
        for proxy in (None, squid.proxy().url):
            self.site.reset()
            statuses = await self.statuses("PUT PUT PUT", proxy=proxy)
            self.assertEqual(statuses, [401, 200, 401, 200, 200])

    async def test_ticket_cache(self) -> None:
        """A ticket of the system's cache will do."""
        self.live_in(self.realm.inhabited(self.realm.ticket(BOB)))
        statuses = await self.statuses("GET", user=TicketCredentials())
        self.assertEqual(statuses, [401, 200])

    async def test_site_proves_itself(self) -> None:
        """The site's final token is right, by every way."""
        policy = AuthPolicy(mutual="require")
        for self.area in ("negotiate", "negotiate-per-request"):
            for proxy in (None, squid.proxy().url):
                for tls in (False, True):
                    agent = self.make_agent(proxy, policy=policy)
                    for _ in range(2):
                        await self.check(agent, tls=tls)

    async def test_site_does_not_prove_itself(self) -> None:
        """Squid sends no final token: that will do, unless policy wants one."""
        site = squid.SquidProxy("negotiate", website=origin.origin().port)
        site.start()
        self.addCleanup(site.stop)
        self.site = site
        url = f"http://{HOST}:{site.port}/octets/10".encode()
        response = await self.make_agent().request(b"GET", url)
        self.assertEqual(await readBody(response), origin.content(10))
        agent = self.make_agent(policy=AuthPolicy(mutual="require"))
        with self.assertRaisesRegex(MutualAuthenticationFailed, "sent no token"):
            await agent.request(b"GET", url)

    async def test_impostor(self) -> None:
        """Who lets us in, and could not read our ticket, is found out."""
        self.site = guarded.site()
        url = self.site.url("false-ticket").encode()
        with self.assertRaisesRegex(MutualAuthenticationFailed, "token is wrong"):
            await self.make_agent().request(b"GET", url)
        agent = self.make_agent(policy=AuthPolicy(mutual="off"))
        response = await agent.request(b"GET", url)
        self.assertEqual(response.code, 200)
        await readBody(response)


class GuardedSiteTests(SynchronousTestCase):
    """What our own site does, shown by curl alone."""

    def setUp(self) -> None:
        tools.require("curl")
        self.site = guarded.site()
        self.site.reset()

    def status(self, url: str, scheme: str, password: str = BOB.password) -> int:
        """Ask as Bob."""
        name = BOB.down_level if scheme == "ntlm" else BOB.name
        return curl(url, f"--{scheme}", "--user", f"{name}:{password}").status

    def test_digest(self) -> None:
        """Bob is let in with his password, and with no other."""
        for area in ("md5", "sha-256"):
            url = self.site.url(area)
            self.assertEqual(self.status(url, "digest"), 200)
            self.assertEqual(self.site.requests()[-1].user, BOB.name)
            self.assertEqual(self.site.failed_logons(), 0)
            self.assertEqual(self.status(url, "digest", WRONG_PASSWORD), 401)
            self.assertEqual(self.site.failed_logons(), 1)
            self.site.reset()

    def test_ntlm(self) -> None:
        """So he is by NTLM; and over TLS not at all, for curl binds no logon."""
        self.assertEqual(self.status(self.site.url("ntlm"), "ntlm"), 200)
        wrong = self.status(self.site.url("ntlm"), "ntlm", WRONG_PASSWORD)
        self.assertEqual(wrong, 401)
        self.assertEqual(self.status(self.site.tls_url("ntlm"), "ntlm"), 401)
        results = [logon.result for logon in self.site.logons()]
        self.assertEqual(results, ["accepted", "failed", "unbound"])


class GuardedCase(SiteCase):
    """The site is one of our own that verifies what Apache cannot."""

    def make_site(self) -> Any:
        return guarded.site()

    def url(self, tls: bool) -> str:
        """Where the site tells what it was sent."""
        make = self.site.tls_url if tls else self.site.url
        url: str = make(self.area)
        return url

    def completed(self) -> int:
        """How many requests the site let through."""
        return sum(each.verdict == "accepted" for each in self.site.requests())


class DigestSHA256Tests(GuardedCase, Matrix, WrongPassword):
    """Digest with SHA-256, judged by the formulas of RFC 7616."""

    scheme = "digest"
    area = "sha-256"

    async def test_algorithms(self) -> None:
        """The other algorithms are right too, and no count is used twice."""
        for self.area in ("md5", "sha-512-256", "sha-256-sess"):
            self.site.reset()
            await self.test_fifty_at_once()
            verdicts = {each.verdict for each in self.site.requests()}
            self.assertEqual(verdicts, {"asked", "accepted"})

    async def test_site_does_not_prove_itself(self) -> None:
        """A site that is silent will do, unless policy wants a proof."""
        self.area = "silent"
        await self.check(self.make_agent())
        agent = self.make_agent(policy=AuthPolicy(mutual="require"))
        with self.assertRaisesRegex(MutualAuthenticationFailed, "did not prove"):
            await agent.request(b"GET", self.url(tls=False).encode())

    async def test_impostor(self) -> None:
        """Who lets us in, and does not know the password, is found out."""
        self.area = "impostor"
        with self.assertRaisesRegex(MutualAuthenticationFailed, "wrong proof"):
            await self.make_agent().request(b"GET", self.url(tls=False).encode())
        await self.check(self.make_agent(policy=AuthPolicy(mutual="off")))


class BindingTests(GuardedCase):
    """
    NTLM at those who refuse logons that are not bound to their TLS connection.

    The site and the proxy show certificates of their own.
    """

    scheme = area = "ntlm"

    def taken_for(self, person: Person) -> str:
        return person.down_level

    def bound_proxy(self) -> squid.SquidProxy:
        """A proxy that is as strict."""
        judge = NTLMAuthority(end_point=server_certificate().end_point)
        judge.start()
        self.addCleanup(judge.stop)
        proxy = squid.SquidProxy("ntlm", authority=judge)
        proxy.start()
        self.addCleanup(proxy.stop)
        return proxy

    async def logon(self, agent: Agent, *, tls: bool) -> None:
        """Get something, by a logon bound to the site's certificate if it has one."""
        self.site.reset()
        await self.check(agent, tls=tls)
        [logon] = self.site.logons()
        bound = bindings_hash(self.site.certificate.end_point) if tls else ""
        self.assertEqual(logon.result, "accepted")
        if tls:
            self.assertEqual(logon.bindings, bound)

    async def test_site(self) -> None:
        """A logon is bound to the site's certificate, where there is one."""
        for tls in (False, True):
            await self.logon(self.make_agent(), tls=tls)

    async def test_site_in_tunnel(self) -> None:
        """In a tunnel it is still the site's certificate, not the proxy's."""
        proxy = squid.proxy("basic")
        for url in (proxy.url, proxy.tls_url):
            agent = self.make_agent(url, known_as("basic", ALICE))
            await self.logon(agent, tls=True)

    async def test_site_and_proxy(self) -> None:
        """Of two logons on one way each is bound to its own reader's certificate."""
        proxy = self.bound_proxy()
        agent = self.make_agent(proxy.tls_url, known_as("ntlm", ALICE))
        for tls in (True, False):
            await self.logon(agent, tls=tls)
        logons = proxy.authority.logons()
        self.assertEqual({logon.result for logon in logons}, {"accepted"})
        bound = bindings_hash(server_certificate().end_point)
        self.assertEqual({logon.bindings for logon in logons}, {bound})

    async def test_proxy_in_clear(self) -> None:
        """The strict proxy lets nobody in whose logon is not bound."""
        proxy = self.bound_proxy()
        agent = self.make_agent(proxy.url, known_as("ntlm", ALICE))
        with self.assertRaises(CredentialsRejected):
            await agent.request(b"GET", origin.origin().url().encode())
        [logon] = proxy.authority.logons()
        self.assertEqual(logon.result, "unbound")

    async def test_relayed(self) -> None:
        """What is bound to the certificate of somebody in between is refused."""
        agent = self.make_agent()
        self.users[("https", self.site.relay_port)] = known_as("ntlm", BOB)
        with self.assertRaises(CredentialsRejected):
            await agent.request(b"GET", self.site.relay_url("ntlm").encode())
        [logon] = self.site.logons()
        self.assertEqual(logon.result, "unbound")
        self.assertNotIn(logon.bindings, ("", "00" * 16))


class ScopeTests(SiteCase):
    """What is for one origin reaches no other."""

    def setUp(self) -> None:
        super().setUp()
        tools.require_files(apache.GSSAPI_MODULE, apache.NTLM_MECHANISM)
        self.open = origin.origin()
        self.open.reset()

    def taken_for(self, person: Person) -> str:
        return person.down_level if self.scheme == "ntlm" else person.name

    async def known(self, scheme: str, proxy: str | None = None) -> Agent:
        """Make an agent that knows what the site wants."""
        self.scheme = self.area = scheme
        agent = self.make_agent(proxy)
        for tls in (False, True):
            await self.check(agent, tls=tls)
        return agent

    async def ask_others(self, agent: Agent) -> None:
        """Ask another server on the same host, which asks who it is."""
        for make in (self.open.url, self.open.tls_url):
            url = make("/status/401", HOST).encode()
            response = await agent.request(b"GET", url)
            self.assertEqual(response.code, 401)
            await readBody(response)
        received = self.open.requests()
        self.assertEqual([each.get("Authorization") for each in received], [None] * 2)

    async def test_other_ports(self) -> None:
        """Another port is another origin, for every scheme."""
        for scheme in ("basic", "digest", "ntlm"):
            for proxy in (None, squid.proxy().url):
                self.open.reset()
                await self.ask_others(await self.known(scheme, proxy))

    async def test_connections_through_proxy(self) -> None:
        """A connection that squid keeps for our logon carries no other origin's."""
        proxy = squid.proxy()
        proxy.reset()
        agent = await self.known("ntlm", proxy.url)
        await self.ask_others(agent)
        await self.check(agent)
        clients: dict[bool, set[str]] = {True: set(), False: set()}
        for line in proxy.requests():
            clients[f":{self.site.port}/" in line.target].add(line.client)
        self.assertTrue(all(clients.values()))
        self.assertFalse(clients[True] & clients[False])

    async def test_redirects(self) -> None:
        """A redirect takes nothing along, to another port or down to http."""
        http, https = self.open.port, self.open.tls_port
        ways = ((False, "http", http), (True, "http", http), (False, "https", https))
        for scheme in ("basic", "digest"):
            agent = await self.known(scheme)
            for tls, target, port in ways:
                self.open.reset()
                self.site.reset()
                make = self.site.tls_url if tls else self.site.url
                url = make(f"/{scheme}/to/{target}/{port}/echo", HOST).encode()
                response = await RedirectAgent(agent).request(b"GET", url)
                self.assertEqual(response.code, 200)
                await readBody(response)
                # The site was sent something that could have been taken along.
                self.assertNotEqual(self.site.visits()[-1].answer, "-")
                [received] = self.open.requests()
                self.assertIsNone(received.get("Authorization"))

    async def test_redirect_to_where_we_are_somebody_else(self) -> None:
        """After a redirect we are who we are to the other origin."""
        agent = await self.known("basic")
        other = guarded.site()
        other.reset()
        self.users[("http", other.port)] = known_as("digest", ALICE)
        url = self.site.tls_url(f"/basic/to/http/{other.port}/echo?sha-256", HOST)
        response = await RedirectAgent(agent).request(b"GET", url.encode())
        self.assertEqual(response.code, 200)
        self.assertEqual(apache.Echo.read(await readBody(response)).user, ALICE.name)
        self.assertEqual({each.user for each in other.requests()}, {"", ALICE.name})
