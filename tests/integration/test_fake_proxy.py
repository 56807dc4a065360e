"""The fake proxy on TCP, with curl and our own agent for its clients."""

from __future__ import annotations

import re
import socket
import sys
from base64 import b64encode
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import readBody

from coda_twisted import Agent, TicketCredentials, TLSPolicy
from coda_twisted.errors import CredentialsRejected
from coda_twisted.http1.fields import Fields
from coda_twisted.testing import (
    NTLM,
    FakeNetwork,
    FakeProxy,
    Negotiate,
    Outcome,
    Received,
)
from coda_twisted.testing.certificates import Authority
from tests.integration import kerberos, origin, tools
from tests.integration.certificates import server_certificate
from tests.integration.coda import TWISTD
from tests.integration.commands import curl, proxy_options, run
from tests.integration.people import ALICE, WRONG_PASSWORD
from tests.integration.servers import (
    CHECKOUT,
    GrowingLog,
    ServerProcess,
    free_port,
    python_environment,
    workspace,
)
from tests.test_testing_ntlm import invented

LOGON = re.compile(r"(accepted|failed|unknown|locked|unbound): '(.*)' by (\w+)")


class FakeProcess(ServerProcess):
    """
    ``twistd -n coda-fake-proxy`` on a free port of 127.0.0.1.

    :param options: Its own, beside where to listen.
    :param tls: Listen with TLS.
    """

    def __init__(self, *options: str, tls: bool = False) -> None:
        self.port = free_port()
        self.scheme = "https" if tls else "http"
        listen = f"tcp:{self.port}:interface=127.0.0.1"
        if tls:
            certificate = server_certificate()
            listen = (
                f"ssl:{self.port}:interface=127.0.0.1:"
                f"privateKey={certificate.key}:certKey={certificate.chain}"
            )
        rundir = workspace() / f"fake-{self.port}"
        rundir.mkdir()
        command = [
            *(sys.executable, "-c", TWISTD, "--nodaemon", "--pidfile="),
            *("--rundir", str(rundir), "coda-fake-proxy", "--listen", listen),
            *options,
        ]
        super().__init__("fake", command, [self.port], python_environment())
        self._growing = GrowingLog(self.output)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def logons(self) -> list[tuple[str, str, str]]:
        """Outcome, user and scheme of all logons, in order."""
        found = map(LOGON.search, self._growing.lines())
        return [match.groups() for match in found if match]  # type: ignore[misc]


class CurlCase(SynchronousTestCase):
    """curl, which has NTLM and Digest of its own, and Kerberos of MIT's."""

    def setUp(self) -> None:
        tools.require("curl")
        self.origin = origin.origin()

    def start(self, *options: str, tls: bool = False) -> FakeProcess:
        if "--user" not in options:
            options += ("--user", f"{ALICE.name}:{ALICE.password}")
        fake = FakeProcess(*options, tls=tls)
        fake.start()
        self.addCleanup(fake.stop)
        return fake

    def status(
        self,
        fake: FakeProcess,
        scheme: str,
        url: str = "",
        password: str = ALICE.password,
        *options: str,
    ) -> int:
        """Fetch something through it; the proxy's status, or the origin's."""
        done = curl(
            url or self.origin.url("/octets/7"),
            *proxy_options(fake.url, scheme, ALICE.name, password),
            *options,
        )
        return done.connect_status if url.startswith("https") else done.status


class CurlTests(CurlCase):
    """curl gets through with the right password, and not with another."""

    def assert_verifies(self, fake: FakeProcess, scheme: str, name: str) -> None:
        for url in (self.origin.url("/octets/7"), self.origin.tls_url("/octets/7")):
            self.assertEqual(self.status(fake, scheme, url), 200, (scheme, url))
            self.assertEqual(
                self.status(fake, scheme, url, WRONG_PASSWORD), 407, (scheme, url)
            )
        logons = fake.logons()
        self.assertEqual({each[1:] for each in logons}, {(ALICE.name, name)})
        outcomes = [outcome for outcome, _, _ in logons]
        self.assertEqual(outcomes.count("accepted"), 2, outcomes)
        self.assertEqual(outcomes.count("failed"), 2, outcomes)

    def test_schemes(self) -> None:
        """Every scheme that curl 7.88 speaks: SHA-512-256 is not among them."""
        for auth, scheme, name in (
            ("basic", "basic", "Basic"),
            ("digest-md5", "digest", "Digest"),
            ("digest-sha-256", "digest", "Digest"),
            ("ntlm", "ntlm", "NTLM"),
            ("negotiate,ntlm,digest,basic", "ntlm", "NTLM"),
        ):
            self.assert_verifies(self.start("--auth", auth), scheme, name)

    def test_tls(self) -> None:
        """A proxy that is reached by TLS; curl's NTLM is bound to nothing."""
        self.assert_verifies(self.start("--auth", "ntlm", tls=True), "ntlm", "NTLM")
        fake = self.start("--auth", "ntlm", "--bindings", "require", tls=True)
        self.assertEqual(self.status(fake, "ntlm"), 407)
        self.assertEqual(fake.logons(), [("unbound", ALICE.name, "NTLM")])

    def test_quirks(self) -> None:
        """Curl copes with all that can be coped with."""
        for quirks in (
            "closes",
            "body=100000",
            "body=3000,chunked",
            "reason=No_way",
            "http10",
            "slow=0.05",
            "early",
        ):
            fake = self.start("--auth", "ntlm,digest", "--quirks", quirks)
            for scheme in ("ntlm", "digest"):
                self.assertEqual(self.status(fake, scheme), 200, (quirks, scheme))
        fake = self.start("--auth", "ntlm", "--quirks", "closes-midway")
        self.assertEqual(self.status(fake, "ntlm"), 407)
        self.assertEqual(fake.logons(), [])

    def test_upload(self) -> None:
        """Content arrives behind a handshake, whole."""
        fake = self.start("--auth", "ntlm,digest")
        for scheme in ("ntlm", "digest"):
            file = workspace() / "upload"
            file.write_bytes(origin.content(300_000))
            done = curl(
                self.origin.url("/echo"),
                *proxy_options(fake.url, scheme, ALICE.name, ALICE.password),
                *("-T", str(file)),
            )
            self.assertEqual(done.status, 200)
            self.assertEqual(self.origin.requests()[-1].length, 300_000)
            self.assertEqual(
                self.origin.requests()[-1].sha256, origin.sha256_of(300_000)
            )

    def test_lockout(self) -> None:
        """Three wrong passwords, and the right one is of no use."""
        fake = self.start("--auth", "ntlm", "--lockout", "3")
        for _ in range(3):
            self.assertEqual(self.status(fake, "ntlm", "", WRONG_PASSWORD), 407)
        self.assertEqual(self.status(fake, "ntlm"), 407)
        self.assertEqual(
            [each[0] for each in fake.logons()], ["failed"] * 3 + ["locked"]
        )

    def test_origin(self) -> None:
        """As an origin server it answers those who log on."""
        fake = self.start("--origin", "--auth", "ntlm,digest,basic")
        user = f"{ALICE.name}:{ALICE.password}"
        for scheme in ("ntlm", "digest", "basic"):
            done = curl(fake.url, f"--{scheme}", "--user", user)
            self.assertEqual(done.content, f"hello {ALICE.name}\n".encode(), scheme)
            wrong = f"{ALICE.name}:{WRONG_PASSWORD}"
            done = curl(fake.url, f"--{scheme}", "--user", wrong)
            self.assertEqual(done.status, 401, scheme)

    def test_bearer(self) -> None:
        """Tokens, on the command line of both."""
        fake = self.start("--origin", "--auth", "bearer", "--token", "alice:t0ken")
        for token, status in (("t0ken", 200), ("other", 401)):
            done = curl(fake.url, "--oauth2-bearer", token)
            self.assertEqual(done.status, status)

    def test_forged(self) -> None:
        """A token that claims to be alice's is refused; so is a password for one."""
        fake = self.start("--auth", "ntlm,basic")
        negotiate = b"NTLMSSP\0\1\0\0\0\7\x82\x08\xa2" + bytes(24)
        request = (
            b"GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"
            b"Proxy-Authorization: NTLM %s\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", fake.port), 5) as connection:
            connection.sendall(request % b64encode(negotiate))
            self.assertIn(b"Proxy-Authenticate: NTLM TlRM", connection.recv(65536))
            message = invented("", ALICE.name, bytes(100))
            connection.sendall(request % b64encode(message))
            self.assertTrue(connection.recv(65536).startswith(b"HTTP/1.1 407 "))
        self.assertEqual(fake.logons(), [("failed", ALICE.name, "NTLM")])

    def test_port_taken(self) -> None:
        """A second one at the same port says why it ends."""
        fake = self.start("--auth", "basic")
        listen = f"tcp:{fake.port}:interface=127.0.0.1"
        done = run(
            [
                *(sys.executable, "-c", TWISTD, "--nodaemon", "--pidfile="),
                *("coda-fake-proxy", "--user", "a:b", "--listen", listen),
            ],
            python_environment(),
        )
        self.assertEqual(done.exit_code, 1)
        self.assertIn("cannot listen", done.output.decode() + done.errors)


class KerberosTests(CurlCase):
    """Kerberos, with a keytab of a real KDC's."""

    def setUp(self) -> None:
        super().setUp()
        tools.require_modules("gssapi")
        self.realm = kerberos.realm()

    def test_curl(self) -> None:
        """Curl with a ticket gets in by SPNEGO, and without one it does not."""
        fake = self.start("--auth", "negotiate", "--keytab", str(self.realm.keytab))
        cache = self.realm.ticket(ALICE)
        for environment, status in (
            (self.realm.client_environment(cache), 200),
            (self.realm.client_environment(), 407),
        ):
            done = curl(
                self.origin.url("/octets/7"),
                *proxy_options(fake.url, "negotiate"),
                environment=environment,
            )
            self.assertEqual(done.status, status)
        self.assertEqual(fake.logons(), [("accepted", ALICE.name, "Negotiate")])

    def test_in_memory(self) -> None:
        """Our agent with a ticket, in memory; the proxy proves itself, or cannot."""
        inhabited = self.realm.inhabited(self.realm.ticket(ALICE))
        inhabited.__enter__()
        self.addCleanup(inhabited.__exit__, None, None, None)
        keytab = str(self.realm.keytab)
        for url in ("http://proxy.test:3128", "https://proxy.test:3129"):
            for scheme in (
                Negotiate(keytab),
                Negotiate(keytab, per_request=True, final_token=False),
            ):
                network = FakeNetwork()
                network.add_origin("http://site.test")
                proxy = network.add_proxy(scheme, url=url)
                agent = network.agent(proxy=url, credentials=TicketCredentials())
                for _ in range(2):
                    pending = agent.request(b"GET", b"http://site.test/")
                    self.assertEqual(self.successResultOf(pending).code, 200)
                self.assertEqual(
                    proxy.accounts.logons(ALICE.principal),
                    2 if scheme.per_request else 1,
                )
                proxy.accounts.lock(ALICE.principal)
                self.failureResultOf(
                    network.agent(proxy=url, credentials=TicketCredentials()).request(
                        b"GET", b"http://site.test/"
                    )
                )

    def test_forged(self) -> None:
        """Octets that are no ticket are refused."""
        network = FakeNetwork()
        proxy = network.add_proxy(Negotiate(str(self.realm.keytab)))
        guard = proxy.checkpoint.connected()
        for token in (b"x", bytes.fromhex("6005060360000f"), bytes(2000)):
            judged = guard.judge(
                Received(
                    b"GET",
                    b"http://site.test/",
                    b"http://site.test/",
                    b"/",
                    Fields(
                        [(b"Proxy-Authorization", b"Negotiate " + b64encode(token))]
                    ),
                )
            )
            self.assertEqual(judged.challenges, (b"Negotiate",))
        self.assertEqual(proxy.accounts.logons(), 0)
        self.assertEqual(proxy.accounts.failed_logons(), 3)


class ExampleTests(SynchronousTestCase):
    """The documentation's test on TCP."""

    def test_passes(self) -> None:
        """It runs, and passes, under trial."""
        example = CHECKOUT / "docs" / "examples" / "testing_tcp.py"
        done = run(
            [sys.executable, "-m", "twisted.trial", str(example)], python_environment()
        )
        self.assertEqual(done.exit_code, 0, done.output.decode() + done.errors)
        self.assertIn(b"successes=1", done.output)


class AgentTests(TestCase):
    """Our agent, with its threads and a real reactor, in the same process."""

    def setUp(self) -> None:
        self.authority = Authority()

    async def listen(self, proxy: FakeProxy, *, tls: bool = False) -> str:
        """Let a proxy listen; its URL."""
        factory: Any = proxy
        if tls:
            server = self.authority.server("127.0.0.1")
            factory = TLSMemoryBIOFactory(server, False, proxy)
        endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
        port = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        self.addCleanup(proxy.close)
        scheme = "https" if tls else "http"
        return f"{scheme}://127.0.0.1:{port.getHost().port}"

    async def fetch(self, agent: Agent, url: bytes) -> bytes:
        response = await agent.request(b"GET", url)
        self.assertEqual(response.code, 200)
        body: bytes = await readBody(response)
        return body

    def agent(self, url: str, password: str = "secret") -> Agent:
        agent = Agent(
            reactor,
            proxy=url,
            credentials=("CORP\\alice", password),
            proxy_tls=TLSPolicy(self.authority.trust_root()),
        )
        self.addCleanup(agent.client.close)
        return agent

    def test_sites_in_memory(self) -> Deferred[Any]:
        """A proxy on TCP may have sites in memory behind it."""
        return Deferred.fromCoroutine(self._sites_in_memory())

    async def _sites_in_memory(self) -> None:
        network = FakeNetwork(reactor)
        network.add_origin("http://site.test", lambda request: (200, [], b"hello"))
        for scheme in ("ntlm", "digest", "basic"):
            proxy = FakeProxy(
                reactor,
                scheme,
                users={"CORP\\alice": "secret"},
                endpoint_for=network.endpoint_for,
            )
            agent = self.agent(await self.listen(proxy))
            for _ in range(3):
                self.assertEqual(
                    await self.fetch(agent, b"http://site.test/"), b"hello"
                )
            self.assertGreater(proxy.accounts.logons("CORP\\alice"), 0)
            self.assertEqual(proxy.accounts.failed_logons(), 0)

    def test_bound(self) -> Deferred[Any]:
        """Over real TLS our logon is bound to the proxy's certificate."""
        return Deferred.fromCoroutine(self._bound())

    async def _bound(self) -> None:
        network = FakeNetwork(reactor)
        network.add_origin("http://site.test", lambda request: (200, [], b"hello"))
        proxy = FakeProxy(
            reactor,
            NTLM("require"),
            users={"CORP\\alice": "secret"},
            endpoint_for=network.endpoint_for,
        )
        url = await self.listen(proxy, tls=True)
        self.assertEqual(
            await self.fetch(self.agent(url), b"http://site.test/"), b"hello"
        )
        with self.assertRaises(CredentialsRejected):
            await self.agent(url, "wrong").request(b"GET", b"http://site.test/")
        self.assertEqual(
            [each.outcome for each in proxy.accounts.log],
            [Outcome.ACCEPTED, Outcome.FAILED],
        )
