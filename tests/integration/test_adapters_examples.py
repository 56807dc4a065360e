"""The adapters' programs of the documentation, run as they stand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration import adapters_servers, origin, squid, tools
from tests.integration.certificates import authority
from tests.integration.commands import Completed, run
from tests.integration.people import ALICE
from tests.integration.servers import CHECKOUT, python_environment, workspace

EXAMPLES = CHECKOUT / "docs" / "examples"


class ExampleCase(TestCase):
    """A proxy that asks for NTLM, and an origin behind it."""

    timeout = 60
    scheme: ClassVar[str] = "ntlm"

    def setUp(self) -> None:
        tools.require("squid")
        self.proxy = squid.proxy(self.scheme)
        self.proxy.reset()
        self.origin = origin.origin()
        self.origin.reset()

    def proxy_url(self) -> str:
        """The proxy's URL, with Alice's name and password in it."""
        user = f"{quote(ALICE.down_level)}:{quote(ALICE.password, safe='')}"
        return self.proxy.url.replace("://", f"://{user}@")

    def endpoint(self, port: int, *, tls: bool = False) -> str:
        """A ``coda:`` description of a port behind the proxy."""
        password = workspace() / "alice's-password"
        password.write_text(ALICE.password)
        parts = {
            "host": "localhost",
            "port": str(port),
            "proxy": self.proxy.url,
            "user": ALICE.down_level,
            "password-file": str(password),
        }
        if tls:
            parts["tls"] = "yes"
        escaped = {
            key: value.replace("\\", "\\\\").replace(":", "\\:")
            for key, value in parts.items()
        }
        return ":".join(["coda", *(f"{key}={value}" for key, value in escaped.items())])

    def python(self, *arguments: str) -> Deferred[Completed]:
        """Run a program that trusts our authority, while the reactor serves it."""
        environment = python_environment(SSL_CERT_FILE=str(authority().ca))
        return deferToThread(run, [sys.executable, *arguments], environment)

    async def example(self, name: str, *arguments: str) -> str:
        """Run one of the examples; what it prints."""
        done = await self.python(str(EXAMPLES / name), *arguments)
        self.assertEqual(done.exit_code, 0, done.errors)
        return done.output.decode()

    async def start(self, server: Any) -> Any:
        """Start a server of the tests'."""
        await server.start()
        self.addCleanup(server.stop)
        return server

    def assert_tunnels(self, number: int = 1) -> None:
        """Alice, and nobody else, had so many tunnels."""
        served = [line.user for line in self.proxy.requests() if line.status == 200]
        self.assertEqual(served, [ALICE.down_level] * number)
        self.assertEqual(self.proxy.failed_logons(), 0)


class ExampleTests(ExampleCase):
    """Whoever copies an example gets through."""

    def test_short(self) -> None:
        """No example has more than fifteen lines, and each has its test here."""
        found = sorted(EXAMPLES.glob("adapter_*.py"))
        for path in found:
            lines = [line for line in path.read_text("utf-8").splitlines() if line]
            self.assertLessEqual(len(lines), 15, path.name)
        names = {path.stem.partition("_")[2] for path in found}
        tests = {name.removeprefix("test_") for name in dir(self)}
        self.assertEqual(names - tests, set())

    async def test_treq(self) -> None:
        """An upload of a file."""
        path = Path(self.mktemp())
        path.write_bytes(origin.content(1_000_000))
        for url in (self.origin.url("/echo"), self.origin.tls_url("/echo")):
            self.origin.reset()
            printed = await self.example(
                "adapter_treq.py", self.proxy_url(), url, str(path.absolute())
            )
            self.assertEqual(printed[:4], "200 ")
            [received] = [one for one in self.origin.requests() if one.complete]
            self.assertEqual(received.sha256, origin.sha256_of(1_000_000))

    async def test_scrapy(self) -> None:
        """A spider, on Scrapy's own asyncio reactor."""
        tools.require_modules("scrapy")
        urls = [self.origin.url("/octets/10"), self.origin.tls_url("/octets/10")]
        printed = await self.example("adapter_scrapy.py", self.proxy_url(), *urls)
        self.assertEqual(set(printed.splitlines()[-2:]), {f"200 {url}" for url in urls})
        self.assert_tunnels(2)

    async def test_synapse(self) -> None:
        """Synapse's agent, with ours in its place."""
        tools.require_modules("synapse")
        for url in (self.origin.url("/octets/7"), self.origin.tls_url("/octets/7")):
            printed = await self.example("adapter_synapse.py", self.proxy_url(), url)
            self.assertEqual(printed[:4], "200 ")

    async def test_sygnal(self) -> None:
        """Sygnal's agent, with ours in its place."""
        for url in (self.origin.url("/octets/7"), self.origin.tls_url("/octets/7")):
            printed = await self.example("adapter_sygnal.py", self.proxy_url(), url)
            self.assertEqual(printed[:4], "200 ")

    async def test_autobahn(self) -> None:
        """A WebSocket, in clear and over TLS."""
        tools.require_modules("autobahn")
        for tls in (False, True):
            server = await self.start(adapters_servers.websocket_server(tls=tls))
            url = f"{'wss' if tls else 'ws'}://localhost:{server.port}/"
            printed = await self.example(
                "adapter_autobahn.py", url, self.endpoint(server.port, tls=tls)
            )
            self.assertEqual(printed, "hello\n")
        self.assert_tunnels(2)

    async def test_wormhole(self) -> None:
        """Two people talk through a mailbox behind the proxy."""
        tools.require_modules("wormhole", "wormhole_mailbox_server")
        server = await self.start(adapters_servers.mailbox_server())
        relay = f"ws://localhost:{server.port}/v1"
        said = await gatherResults(
            Deferred.fromCoroutine(
                self.example(
                    *("adapter_wormhole.py", self.proxy_url(), relay),
                    *("4-purple-sausages", text),
                )
            )
            for text in ("hello", "goodbye")
        )
        self.assertEqual(said, ["goodbye\n", "hello\n"])
        self.assert_tunnels(2)

    async def test_imap(self) -> None:
        """A user looks into a mailbox."""
        server = await self.start(adapters_servers.IMAPServer("bob", "secret"))
        printed = await self.example(
            *("adapter_imap.py", self.proxy_url(), "localhost", str(server.port)),
            *("bob", "secret"),
        )
        self.assertEqual(printed, "{'MESSAGES': 3}\n")
        self.assert_tunnels()

    async def test_smtp(self) -> None:
        """A message is sent, over TLS inside the tunnel."""
        server = await self.start(adapters_servers.SMTPServer(tls=True))
        shell = '"$0" "$@" <<END\nSubject: hello\n\nThrough a proxy.\nEND'
        done = await deferToThread(
            run,
            [
                *("/bin/sh", "-c", shell, sys.executable),
                *(str(EXAMPLES / "adapter_smtp.py"), self.proxy_url()),
                *("localhost", str(server.port), "alice@corp.test", "bob@corp.test"),
            ],
            python_environment(SSL_CERT_FILE=str(authority().ca)),
        )
        self.assertEqual(done.exit_code, 0, done.errors)
        [message] = server.delivered
        self.assertIn(b"Subject: hello\n\nThrough a proxy.", message)
        self.assert_tunnels()
