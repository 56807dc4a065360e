"""
What the servers of these tests do, shown by curl alone.

Nothing of the package under test takes part: what these tests prove of squid,
Kerberos, Apache and our own authorities, the others rely on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from http.client import HTTPConnection
from pathlib import Path
from unittest import SkipTest

import spnego
from spnego.channel_bindings import GssChannelBindings
from twisted.trial.unittest import SynchronousTestCase

from tests.integration import apache, kerberos, origin, packages, squid, tools
from tests.integration.certificates import Authority, authority, server_certificate
from tests.integration.commands import Answer, curl, proxy_options, run
from tests.integration.ntlm_helper import NTLMAuthority
from tests.integration.people import ALICE, BOB, NTLM_DOMAIN, WRONG_PASSWORD, Person
from tests.integration.servers import (
    CHECKOUT,
    ServerError,
    ServerProcess,
    free_port,
    workspace,
)


class ToolTests(SynchronousTestCase):
    """What becomes of a test whose server is not installed."""

    def test_missing_tool_skips(self) -> None:
        """Where a program is not installed, the test that needs it is skipped."""
        self.patch(os, "environ", {})
        with self.assertRaisesRegex(SkipTest, "not installed: no-such-program"):
            tools.require("sh", "no-such-program")

    def test_missing_tool_fails_where_required(self) -> None:
        """With CODA_REQUIRE_TOOLS=1 a missing program cannot go unnoticed."""
        self.patch(os, "environ", {"CODA_REQUIRE_TOOLS": "1"})
        with self.assertRaisesRegex(tools.MissingToolError, "no_such_module"):
            tools.require_modules("sys", "no_such_module")


class ServerProcessTests(SynchronousTestCase):
    """Servers start, and they end."""

    def test_failure_to_start_tells_why(self) -> None:
        """A server that cannot start is reported with its last words."""
        server = ServerProcess(
            "false", ["sh", "-c", "echo alas; exit 3"], [free_port()]
        )
        with self.assertRaisesRegex(ServerError, "alas"):
            server.start()
        self.assertFalse(server.running)

    def test_no_listener(self) -> None:
        """A server that never listens is ended, and reported."""
        server = ServerProcess("idle", ["sleep", "60"], [free_port()], patience=0.2)
        with self.assertRaisesRegex(ServerError, "does not listen"):
            server.start()
        self.assertFalse(server.running)

    def test_killed_tests_leave_nothing(self) -> None:
        """Even if the tests are killed, their servers end and their files go."""
        tools.require("squid")
        program = (
            "import os, signal\n"
            "from tests.integration import servers, squid\n"
            "proxy = squid.proxy('basic')\n"
            "print(proxy.port, servers.workspace(), servers.squid_name(proxy.port))\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        ended = subprocess.run(
            [sys.executable, "-uc", program],
            cwd=CHECKOUT,
            env={**os.environ, "CODA_KEEP_LOGS": ""},
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(ended.returncode, -signal.SIGKILL, ended.stderr)
        port, directory, name = ended.stdout.split()

        def remains() -> list[object]:
            shared_memory = list(Path("/dev/shm").glob(f"{name}-*"))
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", int(port))).close()
                return ["a listener"]
            return [*shared_memory, *Path(directory).parent.glob(Path(directory).name)]

        deadline = time.monotonic() + 10
        while remains() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(remains(), [])


class OriginTests(SynchronousTestCase):
    """The origin server does what the path says, and remembers it."""

    def setUp(self) -> None:
        tools.require("curl")
        self.origin = origin.origin()
        self.origin.reset()

    def received(self) -> origin.Received:
        """The only request there was."""
        [request] = self.origin.requests()
        return request

    def test_records_verbatim(self) -> None:
        """Target and fields are kept as they were written."""
        curl(self.origin.url("/echo/%41?b=%20c"), "-H", "X-OdD: 1", "-H", "x-odd: 2")
        request = self.received()
        self.assertEqual(request.method, "GET")
        self.assertEqual(request.target, "/echo/%41?b=%20c")
        self.assertIn(("X-OdD", "1"), request.fields)
        self.assertIn(("x-odd", "2"), request.fields)
        self.assertEqual(request.get("X-Odd"), "1, 2")
        self.assertIsNone(request.tls)

    def test_content(self) -> None:
        """Content is counted and hashed, whichever way it is framed."""
        for framing in ((), ("-H", "Transfer-Encoding: chunked")):
            self.origin.reset()
            answer = self.upload("/echo", *framing)
            request = self.received()
            self.assertEqual(request.length, 100_000)
            self.assertEqual(request.sha256, origin.sha256_of(100_000))
            self.assertEqual(request.chunked, bool(framing))
            self.assertTrue(request.complete)
            self.assertEqual(answer.json()["sha256"], request.sha256)

    def upload(self, path: str, *options: str) -> Answer:
        """Send 100,000 octets."""
        file = workspace() / "upload"
        file.write_bytes(origin.content(100_000))
        return curl(self.origin.url(path), "-T", str(file), *options)

    def test_https(self) -> None:
        """Over https it shows a certificate of our authority, and sees client's."""
        certificate = authority().issue("alice", (), client=True)
        answer = curl(self.origin.tls_url())
        self.assertEqual(answer.status, 200, answer.errors)
        shown = ("--cert", str(certificate.chain), "--key", str(certificate.key))
        curl(self.origin.tls_url(), *shown)
        without, with_certificate = self.origin.requests()
        self.assertEqual(without.tls, "TLSv1.3")
        self.assertIsNone(without.certificate)
        self.assertEqual(with_certificate.certificate, "alice")

    def test_unknown_authority(self) -> None:
        """A certificate of another authority is not taken for ours."""
        rogue = Authority("rogue-ca")
        answer = curl(self.origin.tls_url(), "--cacert", str(rogue.ca))
        self.assertEqual(answer.exit_code, 60)

    def test_framings(self) -> None:
        """The same octets come in each framing."""
        for action in ("octets", "chunked", "until-close"):
            answer = curl(self.origin.url(f"/{action}/200000"))
            self.assertEqual(answer.exit_code, 0, answer.errors)
            self.assertEqual(answer.sha256, origin.sha256_of(200_000))
            heads = answer.head.lower()
            self.assertEqual("transfer-encoding" in heads, action == "chunked")
            self.assertEqual("content-length" in heads, action == "octets")

    def test_head(self) -> None:
        """HEAD is answered without content."""
        answer = curl(self.origin.url("/octets/5"), "--head")
        self.assertEqual(answer.exit_code, 0, answer.errors)
        self.assertIn("Content-Length: 5", answer.head)

    def test_trailer(self) -> None:
        """After chunks comes a trailer with their hash."""
        answer = curl(self.origin.url("/chunked/10"), "--raw")
        end = f"0\r\nX-Sha256: {origin.sha256_of(10)}\r\n\r\n".encode()
        self.assertTrue(answer.content.endswith(end), answer.content)

    def test_cut_short(self) -> None:
        """A response cut short is seen as such."""
        for action in ("cut", "cut-chunked"):
            answer = curl(self.origin.url(f"/{action}/1000"))
            self.assertEqual(answer.exit_code, 18, answer.errors)
            self.assertEqual(answer.content, origin.content(500))

    def test_reset(self) -> None:
        """A reset is not an end."""
        answer = curl(self.origin.url("/reset"))
        self.assertEqual(answer.exit_code, 56, answer.errors)
        self.assertIn("reset", answer.errors)

    def test_mirror(self) -> None:
        """Content is sent back as it was."""
        answer = self.upload("/mirror", "-H", "Transfer-Encoding: chunked")
        self.assertEqual(answer.sha256, origin.sha256_of(100_000))
        self.assertTrue(self.received().complete)

    def test_interim(self) -> None:
        """There are 103 (Early Hints) and 100 (Continue), where they are due."""
        self.assertIn("HTTP/1.1 103", curl(self.origin.url("/hints")).head)
        expecting = ("-H", "Expect: 100-continue", "--expect100-timeout", "0.2")
        self.assertIn("HTTP/1.1 100", self.upload("/echo", *expecting).head)
        final_only = self.upload("/final-only", *expecting)
        self.assertNotIn("HTTP/1.1 100", final_only.head)
        self.assertEqual(final_only.status, 200)

    def test_early(self) -> None:
        """An early answer does not wait for the content."""
        expecting = ("-H", "Expect: 100-continue", "--expect100-timeout", "10")
        self.assertEqual(self.upload("/early/413", *expecting).status, 413)
        self.assertFalse(self.received().complete)

    def test_statuses(self) -> None:
        """Any status can be had; 204 and 304 without content."""
        for status in (204, 304, 401, 407, 503):
            answer = curl(self.origin.url(f"/status/{status}"))
            self.assertEqual(answer.status, status)
            self.assertEqual(bool(answer.content), status not in (204, 304))

    def test_odd_fields(self) -> None:
        """Fields come twice, or large."""
        self.assertIn("set-cookie: b=2, c\r\n", curl(self.origin.url("/fields")).head)
        answer = curl(self.origin.url("/field/30000"))
        self.assertIn(f"X-Large: {'f' * 30000}\r\n", answer.head)

    def test_pauses(self) -> None:
        """It can be slow, and silent."""
        began = time.monotonic()
        self.assertEqual(curl(self.origin.url("/trickle/5")).content, b".....")
        curl(self.origin.url("/silence/0.25"))
        self.assertGreater(time.monotonic() - began, 0.5)

    def test_keeps_connections(self) -> None:
        """Several requests go over one connection, and are numbered on it."""
        url = self.origin.url()
        answer = curl(url, url, "-o", "/dev/null")
        self.assertEqual(answer.exit_code, 0, answer.errors)
        first, second = self.origin.requests()
        self.assertEqual(first.connection, second.connection)
        self.assertEqual((first.number, second.number), (1, 2))

    def converse(self, port: int, said: bytes) -> bytes:
        """Say something, end half the connection, and hear all there is."""
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65536), b""))

    def test_upgrade(self) -> None:
        """After 101 every octet comes back."""
        request = (
            b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n"
            b"Upgrade: echo\r\n\r\nand more"
        )
        heard = self.converse(self.origin.port, request)
        head, _, rest = heard.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 101 "), head)
        self.assertEqual(rest, b"and more")

    def test_raw_port(self) -> None:
        """The raw port speaks first, and last after half a connection has ended."""
        heard = self.converse(self.origin.raw_port, b"hello\n")
        self.assertEqual(heard, origin.BANNER + b"hello\n6 octets\r\n")

    def test_trailers_received(self) -> None:
        """Trailers of a request are kept apart from its fields."""
        request = (
            b"PUT /mirror HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
            b"\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
        )
        heard = self.converse(self.origin.port, request)
        self.assertTrue(heard.endswith(b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"), heard)
        self.assertEqual(self.received().trailers, [("X-Sum", "1")])
        self.assertIsNone(self.received().get("X-Sum"))


class ApacheTests(SynchronousTestCase):
    """Apache serves files, and asks who wants them."""

    def setUp(self) -> None:
        tools.require("curl")
        self.website = apache.website()
        self.website.reset()

    def test_files(self) -> None:
        """The files come whole, over http and https."""
        for name, size in apache.FILES.items():
            url = self.website.tls_url if size < 1 << 21 else self.website.url
            answer = curl(url(f"/{name}"))
            self.assertEqual(len(answer.content), size)
            self.assertEqual(answer.sha256, self.website.sha256_of(name))

    def ask(self, area: str, password: str) -> Answer:
        """Ask for a file, as Alice."""
        url = self.website.url(f"/{area}/1k.bin")
        return curl(url, f"--{area}", "--user", f"{ALICE.name}:{password}")

    def test_passwords(self) -> None:
        """Basic and Digest let Alice in with her password, and with no other."""
        for area in ("basic", "digest"):
            answer = self.ask(area, ALICE.password)
            self.assertEqual(answer.sha256, self.website.sha256_of("1k.bin"))
            self.assertEqual(self.website.visits()[-1].user, "alice")
            self.website.reset()
            self.assertEqual(self.ask(area, WRONG_PASSWORD).status, 401)
            answered = [v for v in self.website.visits() if v.scheme.lower() == area]
            self.assertEqual([visit.status for visit in answered], [401])

    def test_tickets(self) -> None:
        """Negotiate lets in who has a ticket, by curl, and nobody else."""
        tools.require_files(apache.MODULES / "mod_auth_gssapi.so")
        realm = kerberos.realm()
        cache = realm.ticket(ALICE)
        for area in ("negotiate", "negotiate-per-request"):
            url = self.website.url(f"/{area}/1k.bin")
            options = ("--negotiate", "--user", ":")
            environment = realm.client_environment(cache)
            answer = curl(url, *options, environment=environment)
            self.assertEqual(answer.status, 200, answer.errors)
            self.assertEqual(self.website.visits()[-1].user, ALICE.principal)
            answer = curl(url, *options, environment=realm.client_environment())
            self.assertEqual(answer.status, 401)

    def test_bound_to_connection(self) -> None:
        """A ticket is good for the connection in one area, for a request in another."""
        tools.require_modules("gssapi")
        realm = kerberos.realm()
        for area, after in (("negotiate", 200), ("negotiate-per-request", 401)):
            with realm.inhabited(realm.ticket(ALICE)):
                client = spnego.client(
                    hostname="localhost", service="HTTP", protocol="kerberos"
                )
                token = client.step()
            assert token is not None
            connection = HTTPConnection("localhost", self.website.port, timeout=5)
            self.addCleanup(connection.close)
            statuses = []
            for fields in (
                {"Authorization": f"Negotiate {b64encode(token).decode()}"},
                {},
            ):
                connection.request("GET", f"/{area}/1k.bin", headers=fields)
                with connection.getresponse() as response:
                    statuses.append(response.status)
                    response.read()
            self.assertEqual(statuses, [200, after])


class KerberosTests(SynchronousTestCase):
    """The realm knows its people, and counts wrong passwords."""

    def setUp(self) -> None:
        self.realm = kerberos.realm()
        self.realm.log.reset()

    def test_right_password(self) -> None:
        """The right password gets a ticket."""
        cache = self.realm.ticket(ALICE)
        self.assertTrue(cache.exists())
        self.assertEqual(self.realm.tickets_granted(), 1)
        self.assertEqual(self.realm.failed_logons(), 0)

    def test_wrong_password(self) -> None:
        """A wrong password is one failed logon."""
        with self.assertRaises(subprocess.CalledProcessError):
            self.realm.ticket(ALICE, WRONG_PASSWORD)
        self.assertEqual(self.realm.tickets_granted(), 0)
        self.assertEqual(self.realm.failed_logons(), 1)

    def test_inhabited(self) -> None:
        """The realm's variables are ours for a while only."""
        before = dict(os.environ)
        with self.realm.inhabited():
            configuration = os.environ["KRB5_CONFIG"]
        self.assertEqual(configuration, str(self.realm.configuration))
        self.assertEqual(dict(os.environ), before)


class NTLMAuthorityTests(SynchronousTestCase):
    """The NTLM authority judges as a domain controller does."""

    def setUp(self) -> None:
        tools.require("bash")

    def authority(
        self, lockout: int = 0, end_point: bytes | None = None
    ) -> NTLMAuthority:
        """A new authority, for this test alone."""
        started = NTLMAuthority(lockout, end_point)
        self.addCleanup(started.stop)
        started.start()
        return started

    def logon(
        self,
        judge: NTLMAuthority,
        user: str,
        password: str,
        end_point: bytes | None = None,
    ) -> str:
        """Log on as squid's helper would for a client that uses pyspnego."""
        bindings = end_point and GssChannelBindings(application_data=end_point)
        client = spnego.client(
            user, password, protocol="ntlm", channel_bindings=bindings or None
        )
        helper = subprocess.Popen(
            judge.helper().split(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        with helper:
            assert helper.stdin is not None
            assert helper.stdout is not None
            token = None
            for verb in ("YR", "KK"):
                token = client.step(token)
                assert token is not None
                helper.stdin.write(f"{verb} {b64encode(token).decode()} client:1\n")
                answer = helper.stdout.readline()
                if verb == "YR":
                    self.assertEqual(answer[:3], "TT ")
                    token = b64decode(answer[3:])
            helper.stdin.close()
        return answer.strip()

    def test_right_password(self) -> None:
        """Alice may log on by both of her names, and with a MIC that is verified."""
        judge = self.authority()
        answer = self.logon(judge, ALICE.down_level, ALICE.password)
        self.assertEqual(answer, f"AF {ALICE.down_level}")
        self.logon(judge, ALICE.upn, ALICE.password)
        down_level, upn = judge.logons("accepted")
        self.assertEqual((down_level.domain, down_level.user), (NTLM_DOMAIN, "alice"))
        self.assertEqual((upn.domain, upn.user), ("", "alice@corp.test"))
        self.assertTrue(down_level.ntlmv2)
        self.assertTrue(down_level.mic)
        self.assertEqual(down_level.client, "client:1")

    def test_refusals(self) -> None:
        """A wrong password, an unknown user and another domain are failed logons."""
        judge = self.authority()
        for user, password in (
            (ALICE.down_level, WRONG_PASSWORD),
            (ALICE.down_level, BOB.password),
            (f"{NTLM_DOMAIN}\\mallory", ALICE.password),
            (f"OTHER\\{ALICE.name}", ALICE.password),
        ):
            self.assertEqual(self.logon(judge, user, password)[:3], "NA ")
        self.assertEqual(len(judge.logons("failed")), 4)
        self.assertEqual(len(judge.logons()), 4)

    def test_lockout(self) -> None:
        """Too many bad passwords lock one account out, until it is unlocked."""
        judge = self.authority(lockout=2)
        for _ in range(2):
            self.logon(judge, ALICE.down_level, WRONG_PASSWORD)
        self.logon(judge, ALICE.down_level, ALICE.password)
        self.logon(judge, BOB.down_level, BOB.password)
        results = [logon.result for logon in judge.logons()]
        self.assertEqual(results, ["failed", "failed", "locked", "accepted"])
        judge.reset()
        self.logon(judge, ALICE.down_level, ALICE.password)
        self.assertEqual([logon.result for logon in judge.logons()], ["accepted"])

    def test_channel_bindings(self) -> None:
        """Where they are required, only a logon bound to our certificate counts."""
        end_point = server_certificate().end_point
        judge = self.authority(end_point=end_point)
        other = authority().issue("other").end_point
        for bindings in (None, other, end_point):
            self.logon(judge, ALICE.down_level, ALICE.password, bindings)
        unbound, misbound, bound = judge.logons()
        self.assertEqual(unbound.result, "unbound")
        self.assertEqual(misbound.result, "unbound")
        self.assertEqual(bound.result, "accepted")
        packed = struct.pack("<16xI", len(end_point)) + end_point
        self.assertEqual(bound.bindings, hashlib.md5(packed).hexdigest())

    def test_out_of_turn(self) -> None:
        """Nonsense is refused, and is no logon."""
        judge = self.authority()
        spoken = subprocess.run(
            judge.helper().split(),
            input=b"KK AAAA\nYR !!\nYR TlRM\n",
            capture_output=True,
            check=True,
        )
        verdicts = [line[:2] for line in spoken.stdout.splitlines()]
        self.assertEqual(verdicts, [b"BH", b"NA", b"NA"])
        self.assertEqual(judge.logons(), [])


class SquidTests(SynchronousTestCase):
    """Squid lets through whom it should, and counts whom it should not."""

    def setUp(self) -> None:
        tools.require("curl")
        self.origin = origin.origin()
        self.origin.reset()

    def proxy(self, auth: str) -> squid.SquidProxy:
        """The shared proxy, with nothing on its account."""
        shared = squid.proxy(auth)
        shared.reset()
        return shared

    def ways(self, proxy: squid.SquidProxy) -> list[tuple[str, str]]:
        """Each way to the origin: the proxy's URL, and the origin's."""
        return [
            (proxy.url, self.origin.url()),
            (proxy.tls_url, self.origin.url()),
            (proxy.url, self.origin.tls_url()),
            (proxy.tls_url, self.origin.tls_url()),
        ]

    def fetch(
        self, way: tuple[str, str], scheme: str, person: Person, password: str
    ) -> Answer:
        """Fetch through the proxy with *password*."""
        proxy, url = way
        environment = {}
        name = person.name
        if scheme == "ntlm":
            name = person.down_level
        if scheme == "negotiate":
            realm = kerberos.realm()
            cache = None
            with contextlib.suppress(subprocess.CalledProcessError):
                cache = realm.ticket(person, password)
            environment = realm.client_environment(cache)
            name = password = ""
        options = proxy_options(proxy, scheme, name, password)
        return curl(url, *options, environment=environment)

    def verify(self, auth: str, scheme: str) -> None:
        """A right password passes; a wrong one is refused and counted once."""
        proxy = self.proxy(auth)
        for way in self.ways(proxy):
            answer = self.fetch(way, scheme, ALICE, ALICE.password)
            self.assertEqual(answer.status, 200, answer.errors)
            self.assertIsNone(self.origin.requests()[-1].get("Proxy-Authorization"))
        self.assertEqual(proxy.failed_logons(), 0)
        names = {
            name for users in proxy.users_by_connection().values() for name in users
        }
        expected = {"ntlm": ALICE.down_level, "negotiate": ALICE.principal}
        self.assertEqual(names, {expected.get(scheme, ALICE.name)})
        self.origin.reset()
        for way in self.ways(proxy):
            proxy.reset()
            answer = self.fetch(way, scheme, ALICE, WRONG_PASSWORD)
            self.assertIn(407, (answer.status, answer.connect_status), answer.errors)
            self.assertEqual(proxy.failed_logons(), 1, proxy.requests())
        self.assertEqual(self.origin.requests(), [])

    def test_none(self) -> None:
        """Without authentication everything passes, and only the name is resolved."""
        proxy = self.proxy("none")
        for url in (
            self.origin.url("/octets/100000", "origin.test"),
            self.origin.tls_url("/octets/100000", "origin.test"),
        ):
            for address in (proxy.url, proxy.tls_url):
                answer = curl(url, *proxy_options(address))
                self.assertEqual(answer.sha256, origin.sha256_of(100_000))
        first = proxy.requests()[0]
        self.assertEqual((first.method, first.user, first.status), ("GET", "-", 200))

    def test_basic(self) -> None:
        """Basic is verified."""
        self.verify("basic", "basic")

    def test_digest(self) -> None:
        """Digest is verified."""
        self.verify("digest", "digest")

    def test_ntlm(self) -> None:
        """NTLM is verified."""
        self.verify("ntlm", "ntlm")

    def test_negotiate(self) -> None:
        """Kerberos is verified."""
        self.verify("negotiate", "negotiate")

    def test_multi(self) -> None:
        """Each scheme is verified where all are offered, the strongest first."""
        proxy = self.proxy("multi")
        answer = curl(self.origin.url(), *proxy_options(proxy.url))
        self.assertEqual(answer.status, 407)
        offered = [
            line.split(" ")[1].strip()
            for line in answer.head.splitlines()
            if line.startswith("Proxy-Authenticate")
        ]
        self.assertEqual(offered, ["Negotiate", "NTLM", "Digest", "Basic"])
        for scheme in squid.SCHEMES:
            self.verify("multi", scheme)

    def test_stale_nonce(self) -> None:
        """An answer to an unknown Digest nonce is not judged, so no failed logon."""
        proxy = self.proxy("digest")
        answer = (
            f'Proxy-Authorization: Digest username="alice", realm="coda digest", '
            f'nonce="{"0" * 32}", uri="/echo", nc=00000001, cnonce="a", qop=auth, '
            f'response="{"0" * 32}"'
        )
        curl(self.origin.url(), *proxy_options(proxy.url), "--proxy-header", answer)
        [request] = proxy.requests()
        self.assertEqual(request.status, 407)
        self.assertTrue(request.stale)
        self.assertEqual(proxy.failed_logons(), 0)

    def test_connection_is_the_user(self) -> None:
        """The log tells whom a connection served, without a field being sent."""
        proxy = self.proxy("ntlm")
        url = self.origin.url()
        options = proxy_options(proxy.url, "ntlm", BOB.down_level, BOB.password)
        curl(url, url, "-o", "/dev/null", *options)
        first, accepted, after = proxy.requests()
        self.assertEqual(proxy.users_by_connection(), {first.client: {BOB.down_level}})
        self.assertEqual(first.status, 407)
        self.assertEqual(accepted.judged_scheme, "ntlm")
        self.assertEqual((after.status, after.answer), (200, ""))
        [logon] = proxy.authority.logons()
        self.assertEqual(logon.client, first.client)

    def test_spnego(self) -> None:
        """NTLM inside Negotiate is judged by the NTLM authority."""
        proxy = squid.SquidProxy("spnego", helpers=1)
        self.addCleanup(proxy.stop, kill=True)
        proxy.start()
        for password, outcome in ((ALICE.password, "accepted"), ("bad", "failed")):
            proxy.reset()
            statuses = _spnego_statuses(proxy.port, ALICE.down_level, password)
            self.assertEqual(statuses[0], 407)
            self.assertEqual(statuses[-1], 204 if outcome == "accepted" else 407)
            [logon] = proxy.authority.logons()
            self.assertEqual(logon.result, outcome)
            self.assertEqual(proxy.failed_logons(), int(outcome == "failed"))

    def test_restart(self) -> None:
        """A proxy restarted, or killed and started, serves on the same port."""
        proxy = squid.SquidProxy("basic", helpers=1)
        self.addCleanup(proxy.stop, kill=True)
        options = proxy_options(proxy.url, "basic", ALICE.name, ALICE.password)
        proxy.start()
        for kill in (False, True):
            proxy.restart(kill)
            self.assertEqual(curl(self.origin.url(), *options).status, 200)
        proxy.stop()
        self.assertEqual(curl(self.origin.url(), *options).exit_code, 7)

    def test_website(self) -> None:
        """As a reverse proxy it asks with 401, and counts as well."""
        website = squid.SquidProxy("ntlm", helpers=1, website=self.origin.port)
        self.addCleanup(website.stop, kill=True)
        website.start()
        website.reset()
        for password, status in ((ALICE.password, 200), (WRONG_PASSWORD, 401)):
            user = f"{ALICE.down_level}:{password}"
            answer = curl(f"{website.tls_url}/echo", "--ntlm", "--user", user)
            self.assertEqual(answer.status, status, answer.errors)
        self.assertEqual(website.failed_logons(), 1)

    def test_client_certificate(self) -> None:
        """Asked to, it wants a certificate of the client's."""
        proxy = squid.SquidProxy(client_ca=authority().ca)
        self.addCleanup(proxy.stop, kill=True)
        proxy.start()
        mine = authority().issue("bob", (), client=True)
        options = proxy_options(proxy.tls_url)
        shown = ["--proxy-cert", str(mine.chain), "--proxy-key", str(mine.key)]
        self.assertEqual(curl(self.origin.url(), *options, *shown).status, 200)
        self.assertEqual(curl(self.origin.url(), *options).status, 0)


def _spnego_statuses(port: int, user: str, password: str) -> list[int]:
    """Log on by NTLM in SPNEGO, on one connection; each leg's status."""
    client = spnego.client(user, password, protocol="negotiate")
    statuses: list[int] = []
    token: bytes | None = None
    with (
        socket.create_connection(("127.0.0.1", port), 5) as connection,
        connection.makefile("rb") as stream,
    ):
        target = origin.origin().url("/status/204").encode()
        while 204 not in statuses:
            step = client.step(token) if not client.complete else None
            if step is None:
                break
            connection.sendall(
                b"GET %b HTTP/1.1\r\nHost: localhost\r\n"
                b"Proxy-Authorization: Negotiate %b\r\n\r\n" % (target, b64encode(step))
            )
            statuses.append(int(stream.readline().split()[1]))
            fields = dict(
                line.rstrip().split(b": ", 1) for line in iter(stream.readline, b"\r\n")
            )
            stream.read(int(fields.get(b"Content-Length", 0)))
            challenge = fields.get(b"Proxy-Authenticate", b"").split(b" ")
            if len(challenge) < 2:
                break
            token = b64decode(challenge[1])
    return statuses


class PackageTests(SynchronousTestCase):
    """pip and git get what there is, directly and through squid."""

    def setUp(self) -> None:
        self.proxies = ["", squid.proxy("none").url]

    def test_pip(self) -> None:
        """The wheel is found in the index and is installable."""
        package = packages.package()
        for number, proxy in enumerate(self.proxies):
            for tls in (False, True):
                target = workspace() / f"pip-{number}-{tls}"
                through = ["--proxy", proxy] if proxy else []
                done = run(package.pip("download", target, *through, tls=tls))
                self.assertEqual(done.exit_code, 0, done.errors)
                fetched = target / package.wheel.name
                self.assertEqual(fetched.read_bytes(), package.wheel.read_bytes())
        target = workspace() / "installed"
        done = run(package.pip("install", target))
        self.assertEqual(done.exit_code, 0, done.errors)
        imported = run(
            [sys.executable, "-c", "import coda_sample as m; print(m.answer())"],
            {"PYTHONPATH": str(target)},
        )
        self.assertEqual(imported.output, b"42\n")

    def test_git(self) -> None:
        """The repository can be cloned, and pushed to."""
        repository = packages.repository()
        for number, proxy in enumerate(self.proxies):
            for tls in (False, True):
                work = workspace() / f"clone-{number}-{tls}"
                url = repository.url(tls)
                clone = repository.command(proxy, "clone", "-q", url, str(work))
                done = run(clone, repository.environment)
                self.assertEqual(done.exit_code, 0, done.errors)
                head = run(["git", "-C", str(work), "rev-parse", "HEAD"])
                self.assertEqual(head.output.decode().strip(), repository.head)
                branch = f"HEAD:refs/heads/{work.name}"
                push = repository.command(
                    proxy, "-C", str(work), "push", "-q", url, branch
                )
                done = run(push, repository.environment)
                self.assertEqual(done.exit_code, 0, done.errors)
