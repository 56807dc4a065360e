"""
What importing the package costs, counted in modules.

Time is different everywhere; what must not be imported is not.  Each import is made in
an interpreter of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

OPTIONAL = {
    "autobahn",
    "gssapi",
    "h11",
    "httptools",
    "keyring",
    "krb5",
    "oauthlib",
    "scrapy",
    "spnego",
    "synapse",
    "treq",
    "trial",
}
"""What only some of it needs, or its tests."""

THE_REST = {
    "coda_twisted.adapters",
    "coda_twisted.commands",
    "coda_twisted.download",
    "coda_twisted.oauth",
    "coda_twisted.testing",
}


def imported(code: str) -> set[str]:
    """Run *code*, and say which modules are there then."""
    printing = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{printing}"],
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        check=True,
    )
    return set(json.loads(done.stdout))


class ImportTests(SynchronousTestCase):
    """Nobody pays for what they do not use."""

    def test_package(self) -> None:
        """The package alone brings nothing but its version."""
        found = imported("import coda_twisted")
        ours = {name for name in found if name.startswith("coda_twisted.")}
        self.assertEqual(ours, {"coda_twisted._version"})
        self.assertFalse({"twisted", "zope.interface", "ssl"} & found)

    def test_library(self) -> None:
        """The library brings neither the service nor what is optional."""
        found = imported(
            "from coda_twisted import Agent, Client, PasswordCredentials, TLSPolicy, "
            "TicketCredentials, TunnelEndpoint, make_client, tunnel"
        )
        self.assertIn("coda_twisted.client.exchange", found)
        self.assertEqual(found & (OPTIONAL | THE_REST), set())
        self.assertNotIn("coda_twisted.service", found)
        self.assertNotIn("twisted.internet.reactor", found)

    def test_options(self) -> None:
        """To read its options, and to say --help, the service needs no engine."""
        found = imported("from coda_twisted.service import Options; str(Options())")
        self.assertEqual(found & (OPTIONAL | THE_REST), set())
        engine = {"coda_twisted.client", "coda_twisted.http1", "OpenSSL"}
        self.assertEqual(found & engine, set())

    def test_service(self) -> None:
        """Nor does a service that is about to begin bring what it may never use."""
        found = imported("import coda_twisted.service.worker")
        self.assertEqual(found & (OPTIONAL | THE_REST), set())

    def test_main_process(self) -> None:
        """A main process that has workers leaves the engine to them."""
        found = imported("import coda_twisted.service.processes")
        self.assertNotIn("coda_twisted.client.exchange", found)
        self.assertNotIn("coda_twisted.service.frontend", found)
