"""Our own agent against the fake servers: every scheme, with every quirk."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import readBody
from twisted.web.iweb import IResponse

from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import Role
from coda_twisted.client.agent import ClientAgent
from coda_twisted.client.guard import LogonGuard
from coda_twisted.client.upload import BytesBody
from coda_twisted.credentials import PasswordCredentials, StaticCredentials
from coda_twisted.errors import (
    AuthenticationFailed,
    CredentialsRejected,
)
from coda_twisted.testing import (
    NTLM,
    Accounts,
    Answer,
    Bearer,
    Digest,
    FakeNetwork,
    FakeProxy,
    Negotiate,
    Outcome,
    Quirks,
    Received,
)
from coda_twisted.testing.verdicts import Scheme
from tests.integration.kerberos import nowhere

USER = "CORP\\alice"
PASSWORD = "secret"

POLICY = AuthPolicy(
    allow_ntlm_in_negotiate=True, allow_basic_over_cleartext=True, min_digest="MD5"
)

SCHEMES: dict[str, str | Scheme] = {
    "basic": "basic",
    "digest": "digest",
    "digest-md5": "digest-md5",
    "digest-sha-256": "digest-sha-256",
    "digest-sha-512-256": "digest-sha-512-256",
    "digest-auth-int": Digest(["SHA-256"], "auth-int", strict=True),
    "digest-sess": Digest(["MD5-sess"], userhash=True, next_nonce=True, strict=True),
    "digest-rfc2069": Digest(["MD5"], "", charset=False),
    "digest-nonce-once": Digest(["MD5"], nonce_uses=1),
    "ntlm": "ntlm",
    "ntlm-per-request": NTLM(per_request=True),
    "negotiate": "negotiate",
    "negotiate-per-request": Negotiate(per_request=True),
}

QUIRKS = {
    "none": Quirks(),
    "closes": Quirks(closes=True),
    "closes, in HTTP/1.0": Quirks(closes=True, http10=True),
    "body": Quirks(body=60_000),
    "chunked body": Quirks(body=60_000, chunked=True),
    "reason": Quirks(reason=b"Acc\xe8s refus\xe9 (407)"),
    "no reason": Quirks(reason=b""),
    "HTTP/1.0": Quirks(http10=True),
    "slow": Quirks(slow=3.0),
    "early": Quirks(early=True),
    "drops once": Quirks(drops=3, drop_times=1),
    "quoted realm": Quirks(quoted_realm=True),
}


def echo(request: Received) -> Answer:
    """Answer with what was sent."""
    return Answer(200, [(b"X-Method", request.method)], request.content + b"!")


class AgentCase(SynchronousTestCase):
    """A network with a proxy and two sites behind it."""

    def setUp(self) -> None:
        # No ticket, and no KDC that would be asked for one.
        lost = nowhere()
        lost.__enter__()
        self.addCleanup(lost.__exit__, None, None, None)
        self.renew()

    def renew(self) -> None:
        """Begin anew, with nothing but the sites."""
        self.network = FakeNetwork()
        self.plain = self.network.add_origin("http://site.test", echo)
        self.secure = self.network.add_origin("https://site.test", echo)

    def proxy(self, *schemes: str | Scheme, **settings: Any) -> FakeProxy:
        settings.setdefault("users", {USER: PASSWORD})
        self.proxy_url = settings.setdefault("url", "http://proxy.test:3128")
        return self.network.add_proxy(*schemes, **settings)

    def agent(
        self, user: str = USER, password: str = PASSWORD, **settings: Any
    ) -> ClientAgent:
        settings.setdefault("credentials", (user, password))
        settings.setdefault("policy", POLICY)
        return self.network.agent(proxy=self.proxy_url, **settings)

    def settled(self, pending: Deferred[Any]) -> Any:
        """Let time pass until there is a result."""
        for _ in range(20):
            if pending.called:
                break
            self.network.advance(1)
        return self.successResultOf(pending)

    def fetch(
        self, agent: ClientAgent, method: bytes, url: bytes, content: bytes | None
    ) -> tuple[IResponse, bytes]:
        body = None if content is None else BytesBody(content)
        response = self.settled(agent.request(method, url, None, body))
        return response, self.settled(readBody(response))


class MatrixTests(AgentCase):
    """Whatever they ask for, and however they misbehave: we get through."""

    def assert_through(self, proxy: FakeProxy, what: str) -> None:
        agent = self.agent()
        for url in (b"http://site.test/p?q=1", b"https://site.test/p?q=1") * 2:
            for method, content in ((b"GET", None), (b"PUT", b"content" * 100)):
                response, body = self.fetch(agent, method, url, content)
                self.assertEqual(response.code, 200, what)
                self.assertEqual(body, (content or b"") + b"!", what)
        self.assertGreater(proxy.accounts.logons(USER), 0, what)
        self.assertEqual(proxy.accounts.failed_logons(), 0, what)
        self.assertIn(Role.PROXY.status, proxy.statuses(), what)

    def all_with(self, quirk: str) -> None:
        for name, scheme in SCHEMES.items():
            self.renew()
            proxy = self.proxy(scheme, quirks=QUIRKS[quirk])
            self.assert_through(proxy, f"{name}, {quirk}")

    def test_none(self) -> None:
        """Every scheme, of a server that behaves."""
        self.all_with("none")

    def test_closes(self) -> None:
        """A server that closes after its challenge."""
        self.all_with("closes")

    def test_closes_http10(self) -> None:
        """The same, as proxies of HTTP/1.0 do."""
        self.all_with("closes, in HTTP/1.0")

    def test_body(self) -> None:
        """A long page with each challenge."""
        self.all_with("body")

    def test_chunked_body(self) -> None:
        """The same in chunks."""
        self.all_with("chunked body")

    def test_reason(self) -> None:
        """A reason phrase that is not of ASCII, or none."""
        self.all_with("reason")
        self.all_with("no reason")

    def test_http10(self) -> None:
        """Answers of HTTP/1.0."""
        self.all_with("HTTP/1.0")

    def test_slow(self) -> None:
        """A server that takes its time."""
        self.all_with("slow")

    def test_early(self) -> None:
        """Challenges that come before the request is complete."""
        self.all_with("early")

    def test_drops(self) -> None:
        """A connection that is lost once on the last leg."""
        self.all_with("drops once")

    def test_quoted_realm(self) -> None:
        """Squid's realm between quotes."""
        self.all_with("quoted realm")

    def test_tls(self) -> None:
        """A proxy that is reached by TLS; a logon that must be bound to it."""
        for name, scheme in {**SCHEMES, "bound": NTLM("require")}.items():
            self.renew()
            proxy = self.proxy(scheme, url="https://proxy.test:3129")
            self.assert_through(proxy, name)

    def test_origins(self) -> None:
        """The same schemes of an origin server, with a proxy on the way or not."""
        for name, scheme in SCHEMES.items():
            for proxied in (False, True):
                for url in ("http://own.test", "https://own.test"):
                    self.assert_origin(name, scheme, url, proxied)

    def assert_origin(
        self, name: str, scheme: str | Scheme, url: str, proxied: bool
    ) -> None:
        self.renew()
        what = f"{name} at {url}, {proxied=}"
        if proxied:
            self.proxy("ntlm")
        origin = self.network.add_origin(url, echo, scheme, users={USER: PASSWORD})
        agent = self.network.agent(
            proxy=self.proxy_url if proxied else None,
            policy=POLICY,
            credentials=StaticCredentials(
                PasswordCredentials(USER, PASSWORD), roles=list(Role)
            ),
        )
        for method, content in ((b"GET", None), (b"PUT", b"content")) * 2:
            response, body = self.fetch(agent, method, url.encode() + b"/p", content)
            self.assertEqual(response.code, 200, what)
            self.assertEqual(body, (content or b"") + b"!", what)
        self.assertGreater(origin.accounts.logons(USER), 0, what)
        self.assertEqual(origin.accounts.failed_logons(), 0, what)


class HopelessTests(AgentCase):
    """Some servers cannot be satisfied."""

    def failure(self, agent: ClientAgent, kind: type[Exception]) -> Any:
        pending = agent.request(b"GET", b"http://site.test/")
        return self.failureResultOf(pending, kind).value

    def test_closes_midway(self) -> None:
        """NTLM needs one connection for all its messages; others do not."""
        proxy = self.proxy("ntlm", quirks=Quirks(closes_midway=True))
        self.failure(self.agent(), AuthenticationFailed)
        self.assertEqual(proxy.accounts.log, [])
        self.renew()
        self.proxy("digest", quirks=Quirks(closes_midway=True))
        self.fetch(self.agent(), b"GET", b"http://site.test/", None)

    def test_drops(self) -> None:
        """A proxy that always drops the last message is given up."""
        proxy = self.proxy("ntlm", quirks=Quirks(drops=3))
        self.failure(self.agent(), AuthenticationFailed)
        self.assertEqual(proxy.accounts.log, [])
        self.assertIn("dropped on leg 3", [each.why for each in proxy.requests])

    def test_nothing_in_common(self) -> None:
        """What we cannot speak is not answered."""
        proxy = self.proxy(Bearer({"t": "alice"}))
        self.failure(self.agent(), AuthenticationFailed)
        self.assertEqual(proxy.statuses(), [407])

    def test_relayed(self) -> None:
        """A man in the middle cannot pass a bound logon on."""
        proxy = self.proxy(NTLM("check"), url="https://real.test:3129")
        self.network.listen("fake.test", 3129, _Middle.of(self.network), tls=True)
        self.proxy_url = "https://fake.test:3129"
        self.failure(self.agent(), CredentialsRejected)
        self.assertEqual(
            [each.outcome for each in proxy.accounts.log], [Outcome.UNBOUND]
        )
        self.renew()
        proxy = self.proxy(NTLM("off"), url="https://real.test:3129")
        self.network.listen("fake.test", 3129, _Middle.of(self.network), tls=True)
        self.proxy_url = "https://fake.test:3129"
        self.fetch(self.agent(), b"GET", b"http://site.test/", None)


class LogonTests(AgentCase):
    """Logons are counted, and cost what they cost in life."""

    def many(self, agent: ClientAgent, count: int = 50) -> list[Deferred[IResponse]]:
        """Ask for many things at once, before anything travels."""
        quiet = ClientAgent(agent.client)
        urls = (b"http://site.test/%d", b"https://site.test/%d")
        answers: list[Deferred[IResponse]] = [
            quiet.request(b"GET", urls[number % 2] % number) for number in range(count)
        ]
        for each in answers:
            self.assertNoResult(each)
        self.network.pump()
        return answers

    def test_wrong_password(self) -> None:
        """A wrong password is one failed logon, however many requests wait."""
        for scheme in SCHEMES.values():
            self.renew()
            proxy = self.proxy(scheme)
            for pending in self.many(self.agent(password="wrong")):
                self.failureResultOf(pending, CredentialsRejected)
            self.assertEqual(proxy.accounts.failed_logons(USER), 1, scheme)
            self.assertEqual(proxy.accounts.logons(), 0)
            self.assertNotIn(200, proxy.statuses())

    def test_right_password(self) -> None:
        """The right one lets all of them in."""
        for scheme in SCHEMES.values():
            self.renew()
            proxy = self.proxy(scheme)
            for pending in self.many(self.agent()):
                self.assertEqual(self.successResultOf(pending).code, 200)
            self.assertEqual(proxy.accounts.failed_logons(), 0)

    def test_lockout(self) -> None:
        """Three clients with wrong passwords lock the account for the fourth."""
        for scheme in ("basic", "digest", "ntlm", "negotiate"):
            self.renew()
            accounts = Accounts({USER: PASSWORD}, lockout=3)
            self.proxy(scheme, accounts=accounts)

            def status(password: str) -> int | None:
                guard = LogonGuard(self.network.clock)
                agent = self.agent(password=password, guard=guard)
                pending = agent.request(b"GET", b"http://site.test/")
                answers: list[Any] = []
                pending.addBoth(answers.append)
                return getattr(answers[0], "code", None)

            self.assertEqual(status(PASSWORD), 200)
            self.assertEqual([status(wrong) for wrong in "123"], [None] * 3)
            self.assertTrue(accounts.locked(USER))
            self.assertIsNone(status(PASSWORD))
            self.assertEqual(accounts.log[-1].outcome, Outcome.LOCKED)
            accounts.unlock(USER)
            self.assertEqual(status(PASSWORD), 200)

    def test_new_password(self) -> None:
        """A password that changes at the server is refused from then on."""
        proxy = self.proxy("basic")
        agent = self.agent()
        self.fetch(agent, b"GET", b"http://site.test/", None)
        proxy.accounts.set_password(USER, "new")
        pending = agent.request(b"GET", b"http://site.test/")
        self.failureResultOf(pending, CredentialsRejected)
        self.assertEqual(proxy.accounts.failed_logons(USER), 1)

    def test_counts(self) -> None:
        """NTLM counts handshakes, the others requests."""
        for scheme, logons in (("ntlm", 1), ("digest", 3), ("basic", 3)):
            self.renew()
            proxy = self.proxy(scheme)
            agent = self.agent()
            for _ in range(3):
                self.fetch(agent, b"GET", b"http://site.test/", None)
            self.assertEqual(proxy.accounts.logons(USER), logons, scheme)

    def test_strongest(self) -> None:
        """Of several schemes our client takes the strongest, and tries no other."""
        proxy = self.proxy("basic", "digest-md5", "ntlm")
        pending = self.agent(password="x").request(b"GET", b"http://site.test/")
        self.failureResultOf(pending, CredentialsRejected)
        self.assertEqual([each.scheme for each in proxy.accounts.log], ["NTLM"])


class _Middle(Protocol):
    """Speaks TLS to both sides, and passes on what it hears."""

    def __init__(self, network: FakeNetwork) -> None:
        self._network = network
        self._far: Any = None
        self._held: list[bytes] = []

    @classmethod
    def of(cls, network: FakeNetwork) -> Any:
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda addr: cls(network)  # type: ignore[method-assign]
        return factory

    def connectionMade(self) -> None:
        endpoint = self._network.endpoint_for("real.test", 3129, tls=True)
        endpoint.connect(_Far.to(self)).addCallback(self._connected)

    def _connected(self, far: Any) -> None:
        self._far = far
        for data in self._held:
            far.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        if self._far is None:
            self._held.append(data)
        else:
            self._far.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._far is not None:
            self._far.transport.abortConnection()


class _Far(Protocol):
    def __init__(self, near: _Middle) -> None:
        self._near = near

    @classmethod
    def to(cls, near: _Middle) -> Any:
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda addr: cls(near)  # type: ignore[method-assign]
        return factory

    def dataReceived(self, data: bytes) -> None:
        self._near.transport.write(data)  # type: ignore[union-attr]
