"""The programs of the documentation, run as they stand through a real proxy."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from urllib.parse import quote

from twisted.trial.unittest import SynchronousTestCase

from tests.integration import origin, squid, tools
from tests.integration.certificates import authority
from tests.integration.commands import Completed, run
from tests.integration.people import ALICE
from tests.integration.servers import CHECKOUT, python_environment

EXAMPLES = CHECKOUT / "docs" / "examples"


class Memcached(StreamRequestHandler):
    """As much of memcached as tells its version."""

    def handle(self) -> None:
        assert self.rfile.readline() == b"version\r\n"
        self.wfile.write(b"VERSION 1.6.18\r\n")


class ExampleTests(SynchronousTestCase):
    """Whoever copies an example gets through."""

    def setUp(self) -> None:
        tools.require("squid")
        self.proxy = squid.proxy("digest")
        self.proxy.reset()
        self.origin = origin.origin()
        self.origin.reset()

    def proxy_url(self) -> str:
        """The proxy's URL, with Alice's name and password in it."""
        user = f"{quote(ALICE.name)}:{quote(ALICE.password, safe='')}"
        return self.proxy.url.replace("://", f"://{user}@")

    def python(self, *arguments: str) -> Completed:
        """Run a program that trusts our authority."""
        environment = python_environment(SSL_CERT_FILE=str(authority().ca))
        done = run([sys.executable, *arguments], environment)
        self.assertEqual(done.exit_code, 0, done.errors)
        return done

    def example(self, name: str, *arguments: str) -> bytes:
        """Run one of the examples through the proxy; what it prints."""
        return self.python(str(EXAMPLES / name), self.proxy_url(), *arguments).output

    def assert_served(self, method: str, targets: list[str]) -> None:
        """The proxy let Alice in, for these and no other."""
        served = [(line.method, line.user) for line in self.proxy.requests()]
        self.assertEqual(served[-1], (method, ALICE.name))
        self.assertEqual([one.target for one in self.origin.requests()], targets)

    def test_none_is_forgotten(self) -> None:
        """Each example is run by a test; those of OAuth and of testing elsewhere."""
        tests = "".join(
            path.read_text("utf-8") for path in (CHECKOUT / "tests").rglob("test_*.py")
        )
        names = [
            path.stem
            for path in sorted(EXAMPLES.glob("*.py"))
            if not path.stem.startswith(("oauth_", "testing_"))
        ]
        self.assertEqual([name for name in names if f'"{name}' not in tests], [])

    def test_plain(self) -> None:
        """Treq over our agent, for http and for https."""
        for url, method in (
            (self.origin.url("/octets/7"), "GET"),
            (self.origin.tls_url("/octets/7"), "CONNECT"),
        ):
            self.origin.reset()
            self.assertEqual(self.example("plain.py", url)[:4], b"200 ")
            self.assert_served(method, ["/octets/7"])

    def test_tunnelled(self) -> None:
        """Twisted's agent over our tunnels."""
        printed = self.example("tunnelled.py", self.origin.tls_url("/echo"))
        self.assertEqual(printed[:4], b"200 ")
        self.assert_served("CONNECT", ["/echo"])

    def test_raw(self) -> None:
        """A protocol of Twisted's, to a server that is not one of the web."""
        server = ThreadingTCPServer(("127.0.0.1", 0), Memcached)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        Thread(target=server.serve_forever, daemon=True).start()
        printed = self.example("raw.py", "localhost", str(server.server_address[1]))
        self.assertEqual(printed, b"1.6.18\n")
        self.assert_served("CONNECT", [])

    def test_readme(self) -> None:
        """The README's program, with its names replaced by ours."""
        readme = (CHECKOUT / "README.rst").read_text("utf-8")
        _, _, rest = readme.partition(".. code-block:: python\n\n")
        lines = []
        for line in rest.splitlines():
            if line and not line.startswith("    "):
                break
            lines.append(line)
        program = textwrap.dedent("\n".join(lines))
        for theirs, ours in (
            ('"http://proxy.example:3128"', repr(self.proxy.url)),
            (r'("CORP\\alice", "secret")', repr((ALICE.name, ALICE.password))),
            ('"https://www.example.com/"', repr(self.origin.tls_url("/echo"))),
        ):
            self.assertIn(theirs, program)
            program = program.replace(theirs, ours)
        file = Path(self.mktemp())
        file.write_text(program)
        self.python(str(file.absolute()))
        self.assert_served("CONNECT", ["/echo"])
