"""Tests for :mod:`coda_twisted.service.server`."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from zope.interface.verify import verifyObject

from coda_twisted.service import Options, lifecycle, makeService
from coda_twisted.service.lifecycle import BACKLOG, make_service
from coda_twisted.service.server import ProxyService
from tests.front import Caller, LoggedCase, Loop
from tests.test_client_exchange import BASIC
from tests.wire import Peer

GET = b"GET http://site/ HTTP/1.1\r\nHost: site\r\n\r\n"
CONNECT = b"CONNECT site:443 HTTP/1.1\r\nHost: site:443\r\n\r\n"
PROXY = "--proxy=http://above:3128"
ME = ("--user=me", "--password=sesame")
DIGEST = (b"Proxy-Authenticate", b'Digest realm="corp", nonce="n", qop="auth"')


class Port:
    """A port that is closed when the test says so."""

    def __init__(self) -> None:
        self.closed: Deferred[None] = Deferred()

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 54321)

    def stopListening(self) -> Deferred[None]:
        return self.closed


class ServerCase(LoggedCase):
    """A service as it is made from a command line, in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.loop = Loop()

    def make(self, *arguments: str) -> ProxyService:
        options = Options()
        options.parseOptions(list(arguments))
        service = make_service(options, self.loop)
        assert isinstance(service, ProxyService)
        return service


class ListenTests(ServerCase):
    """The port."""

    def listen_failing(self, error: OSError) -> None:
        def listen(port: int, factory: Any, **options: Any) -> Any:
            raise CannotListenError(options["interface"], port, error)

        self.patch(self.loop, "listenTCP", listen)

    def test_interface(self) -> None:
        """It is a service, of the reactor that is there by default."""
        service = makeService(Options())
        verifyObject(IService, service)
        self.assertIsInstance(service, ProxyService)

    def test_twistd(self) -> None:
        """The port is bound before privileges are dropped, and once."""
        service = self.make()
        self.assertEqual(self.loop.tcpServers, [])
        service.privilegedStartService()
        [(port, _, backlog, interface)] = self.loop.tcpServers
        self.assertEqual((port, backlog, interface), (8088, BACKLOG, "127.0.0.1"))
        service.startService()
        self.assertEqual(len(self.loop.tcpServers), 1)
        self.assertTrue(service.running)

    def test_twist(self) -> None:
        """Who knows no such moment binds it at the start."""
        self.make("--port=0", "--listen-address=::1").startService()
        [(port, _, _, interface)] = self.loop.tcpServers
        self.assertEqual((port, interface), (0, "::1"))

    def test_told(self) -> None:
        """What is served is told, with the port that it came to be."""
        for arguments, expected in (
            ([], "coda-proxy serves http://127.0.0.1:54321, upstream: direct"),
            (
                [PROXY],
                "coda-proxy serves http://127.0.0.1:54321, upstream: http://above:3128",
            ),
        ):
            self.patch(self.loop, "listenTCP", lambda *_, **__: Port())
            self.make(*arguments).startService()
            self.assertEqual(self.lines[-1], expected)

    def test_told_of_ipv6(self) -> None:
        """Addresses of IPv6 stand in brackets."""
        self.make("--listen-address=::1").startService()
        self.assertIn("serves http://[::1]:8088,", self.lines[0])

    def test_taken(self) -> None:
        """A port that cannot be bound ends the program, which says why."""
        self.listen_failing(OSError(98, "Address already in use"))
        with self.assertRaises(SystemExit) as caught:
            self.make("--listen-address=::1").startService()
        self.assertEqual(
            str(caught.exception),
            "coda-proxy cannot listen on http://[::1]:8088: Address already in use. "
            "Is it running already? Choose another port by --port.",
        )

    def test_loop(self) -> None:
        """The service does not ask itself, wherever it came to listen."""
        service = self.make()
        service.startService()
        caller = Caller(self.loop, service._proxy)
        caller.send(GET.replace(b"//site", b"//127.0.0.1:8088"))
        self.assertEqual(caller.statuses, [508])

    def test_exposed(self) -> None:
        """A password on the command line is warned of, and not shown."""
        self.make(PROXY, *ME).startService()
        self.assertIn("every user of this machine can see it", self.lines[-1])
        self.assertNotIn("sesame", "".join(self.lines))

    def test_wiped(self) -> None:
        """If it could be wiped that is told."""
        wiped: list[set[str]] = []

        def wipe(secrets: set[str]) -> bool:
            wiped.append(secrets)
            return True

        self.patch(lifecycle, "wipe", wipe)
        self.make(PROXY, *ME).startService()
        self.assertEqual(wiped, [{"sesame"}])
        self.assertIn("it was wiped", self.lines[-1])


class StopTests(ServerCase):
    """The end."""

    def test_not_started(self) -> None:
        """What was never started is stopped at once."""
        self.successResultOf(self.make().stopService())

    def test_all(self) -> None:
        """The port, the clients' connections and ours are closed, and waited for."""
        port = Port()
        self.patch(self.loop, "listenTCP", lambda *_, **__: port)
        service = self.make("--drain-timeout=10")
        service.startService()
        caller = Caller(self.loop, service._proxy).send(GET)
        stopped = service.stopService()
        self.assertFalse(service.running)
        self.assertIn("has 10 s to end", self.lines[-1])
        port.closed.callback(None)
        self.loop.pass_time(9)
        self.assertFalse(caller.socket.closed)
        self.assertNoResult(stopped)
        self.loop.pass_time(2)
        self.assertTrue(caller.socket.reset)
        self.assertIn("1 connections are cut", self.lines)
        self.successResultOf(stopped)
        self.assertEqual(self.loop.getDelayedCalls(), [])

    def test_second_signal(self) -> None:
        """Who asks twice does not wait."""
        service = self.make()
        service.startService()
        caller = Caller(self.loop, service._proxy).send(GET)
        stopped = service.stopService()
        service.cut()
        self.loop.turn()
        self.assertTrue(caller.socket.reset)
        self.successResultOf(stopped)

    def test_memory_port(self) -> None:
        """A port may be closed without delay."""
        service = self.make()
        service.startService()
        self.successResultOf(service.stopService())


class ReloadTests(ServerCase):
    """Files are read again, in the one process that there is."""

    def test_password(self) -> None:
        """What is asked from now on has the new password; what was asked goes on."""
        file = Path(self.mktemp())
        file.write_bytes(b"old\n")
        arguments = ("--user=me", f"--password-file={file}", "--proxy-type=basic")
        service = self.make(PROXY, *arguments)
        service.startService()
        before = service._proxy.client
        file.write_bytes(b"new\n")
        service.reload()
        self.assertIsNot(service._proxy.client, before)
        source: Any = service._proxy.client._credentials
        self.assertEqual(source._credentials._password, "new")
        self.assertIn("read again", self.lines[-1])
        self.successResultOf(service.stopService())

    def test_under_way(self) -> None:
        """A request that is under way is answered; its client is closed with ours."""
        service = self.make()
        service.startService()
        Caller(self.loop, service._proxy).send(GET)
        service.reload()
        self.assertEqual(len(service._retired), 1)
        stopped = service.stopService()
        service.cut()
        self.loop.turn()
        self.successResultOf(stopped)
        self.assertEqual(service._retired, set())

    def test_gone(self) -> None:
        """A file that is not there any more changes nothing, and that is told."""
        file = Path(self.mktemp())
        file.write_bytes(b"old\n")
        service = self.make(PROXY, "--user=me", f"--password-file={file}")
        before = service._proxy.client
        file.unlink()
        service.reload()
        self.assertIs(service._proxy.client, before)
        self.assertIn("nothing was reloaded", self.lines[-1])
        self.assertIn("No such file", self.lines[-1])


class WayTests(ServerCase):
    """Where requests go, and who we are there."""

    def ask(self, *arguments: str, message: bytes = GET) -> Peer:
        """Ask a service of its own, and say what it connected to."""
        self.loop = Loop()
        self.service = self.make(*arguments)
        self.caller = Caller(self.loop, self.service._proxy).send(message)
        host, port, factory, timeout, _ = self.loop.tcpClients[-1]
        self.assertEqual(timeout, 20)
        peer = Peer(host, port)
        protocol: Any = factory.buildProtocol(IPv4Address("TCP", host, port))
        peer.transport.protocol = protocol
        protocol.makeConnection(peer.transport)
        self.loop.turn()
        return peer

    def challenge(self, peer: Peer, *fields: tuple[bytes, bytes]) -> bytes:
        """Challenge a request; say which credentials came."""
        peer.answer(407, *fields)
        self.loop.turn()
        credentials = peer.request.fields.get(b"Proxy-Authorization")
        return b"" if credentials is None else credentials

    def test_direct(self) -> None:
        """Without an upstream proxy servers are asked themselves."""
        peer = self.ask()
        self.assertEqual((peer.host, peer.port), ("192.0.2.1", 80))
        self.assertEqual(peer.request.target, b"/")

    def test_names_of_containers(self) -> None:
        """Names that only containers have are resolved by the system."""
        peer = self.ask(message=GET.replace(b"//site", b"//my_app:8000"))
        self.assertEqual((peer.host, peer.port), ("my_app", 8000))
        self.assertEqual(peer.request.fields.get(b"Host"), b"my_app:8000")

    def test_upstream(self) -> None:
        """With one it is asked, but for the exceptions."""
        for arguments, port in (([PROXY], 3128), ([PROXY, "--no-proxy=site"], 80)):
            self.assertEqual(self.ask(*arguments).port, port)

    def test_schemes(self) -> None:
        """The scheme that was asked for is spoken, and no other."""
        basic = b"Basic " + b64encode(b"me:sesame")
        for kind, expected in (
            ("auto", b"Digest"),
            ("digest", b"Digest"),
            ("basic", basic),
        ):
            peer = self.ask(PROXY, f"--proxy-type={kind}", *ME)
            self.assertTrue(self.challenge(peer, BASIC, DIGEST).startswith(expected))
        policy = self.make(PROXY, "--proxy-type=ntlm", *ME)._proxy.client._policy
        self.assertEqual(policy.schemes, ("ntlm",))

    def test_noauth(self) -> None:
        """With noauth nobody is named, whoever is known."""
        peer = self.ask(PROXY, "--proxy-type=noauth", *ME)
        self.assertEqual(self.challenge(peer, BASIC), b"")
        self.assertEqual(self.caller.statuses, [502])

    def test_digest(self) -> None:
        """With digest the realm is the one that is answered."""
        for realm, expected in (("corp", b"Digest"), ("other", b"")):
            peer = self.ask(PROXY, "--proxy-type=digest", f"--realm={realm}", *ME)
            self.assertEqual(self.challenge(peer, DIGEST)[:6], expected)

    def test_domain(self) -> None:
        """With ntlm it is the user's domain."""
        service = self.make(PROXY, "--proxy-type=ntlm", "--realm=CORP", *ME)
        source: Any = service._proxy.client._credentials
        self.assertEqual(repr(source._credentials), r"PasswordCredentials('CORP\\me')")

    def test_ticket(self) -> None:
        """Without a password there may be a ticket."""
        for arguments in ([], ["--proxy-type=negotiate", "--user=me@EXAMPLE"]):
            service = self.make(PROXY, *arguments)
            source: Any = service._proxy.client._credentials
            self.assertIn("TicketCredentials", repr(source))

    def test_policy(self) -> None:
        """NTLM hides in Negotiate only if that was asked for."""
        for arguments in ([], ["--proxy-type=negotiate"]):
            for flag in ([], ["--ntlm-in-negotiate"]):
                policy = self.make(PROXY, *arguments, *flag)._proxy.client._policy
                self.assertEqual(policy.allow_ntlm_in_negotiate, bool(flag))

    def test_guarded(self) -> None:
        """Others than this machine do not reach link-local addresses."""
        host = b"169.254.169.254"
        message = GET.replace(b"//site", b"//" + host)
        service = self.make("--listen-address=10.0.0.1", "--allow=10.0.0.0/8")
        caller = Caller(self.loop, service._proxy, "10.0.0.2").send(message)
        self.assertEqual(caller.statuses, [403])
        self.assertEqual(self.loop.tcpClients, [])

    def test_name(self) -> None:
        """Each service has a name of its own, so that one can stand behind another."""
        names = {self.make()._proxy.name for _ in range(10)}
        self.assertEqual(len(names), 10)
        for name in names:
            self.assertRegex(name, rb"^coda-[0-9a-f]{8}$")
