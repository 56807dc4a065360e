"""Tests for ``twistd coda-fake-proxy``: its options, and what is made of them."""

from __future__ import annotations

import dataclasses
from typing import Any

from twisted.application.service import IServiceMaker
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.testing import FakeOrigin, FakeProxy, Quirks
from coda_twisted.testing.accounts import Logon, Outcome
from coda_twisted.testing.service import FakeService, Options, makeService


def parsed(*arguments: str) -> Options:
    """Read a command line."""
    options = Options()
    options.parseOptions(list(arguments))
    return options


class OptionTests(SynchronousTestCase):
    """What can be said on the command line."""

    def offered(self, *arguments: str) -> list[str]:
        service = makeService(parsed(*arguments))
        return [each.name.decode() for each in service.server.checkpoint.schemes]

    def test_defaults(self) -> None:
        """NTLM, on loopback, at Squid's port."""
        options = parsed("--user", "u:p")
        self.assertEqual(options["listen"], "tcp:3128:interface=127.0.0.1")
        self.assertEqual(self.offered("--user", "u:p"), ["NTLM"])

    def test_schemes(self) -> None:
        """Several, in their order, in either case."""
        names = "Negotiate, digest-md5,bearer,basic"
        self.assertEqual(
            self.offered("-a", names, "-u", "u:p", "--token", "u:t"),
            ["Negotiate", "Digest", "Bearer", "Basic"],
        )

    def test_users(self) -> None:
        """Passwords may hold colons, names may have a domain."""
        options = parsed("-u", "CORP\\alice:a:b", "--user", "bob:", "--token", "u:t:t")
        self.assertEqual(options.users, {"CORP\\alice": "a:b", "bob": ""})
        self.assertEqual(options.tokens, {"t:t": "u"})

    def test_server(self) -> None:
        """Accounts, realm and quirks arrive."""
        service = makeService(
            parsed("-u", "u:p", "--lockout", "2", "-q", "closes,body=9", "-r", "R")
        )
        server = service.server
        self.assertIsInstance(server, FakeProxy)
        self.assertEqual(server.quirks, Quirks(closes=True, body=9))
        self.assertEqual(server.checkpoint.site.realm, "R")
        for _ in range(2):
            server.accounts.judge("u", "Basic", lambda _: False)
        self.assertTrue(server.accounts.locked("u"))

    def test_origin(self) -> None:
        """It may be an origin server."""
        service = makeService(parsed("--origin", "-u", "u:p"))
        self.assertIsInstance(service.server, FakeOrigin)

    def test_wrong(self) -> None:
        """What cannot be is said."""
        for arguments, why in (
            ([], "nobody can log on: add --user"),
            (["-a", "bearer"], "nobody can log on: add --token"),
            (["-a", "bearer,basic", "--token", "u:t"], "add --user"),
            (["-a", "kerberos", "-u", "u:p"], "'kerberos' is none of"),
            (["-u", "u"], "NAME:PASSWORD"),
            (["-u", ":p"], "NAME:PASSWORD"),
            (["--token", "t"], "NAME:TOKEN"),
            (["-u", "u:p", "-q", "moody"], "'moody' is none of"),
            (["-u", "u:p", "-b", "always"], "'always' is none of off, check, require"),
            (["-u", "u:p", "--lockout", "-1"], "number of logons"),
            (["-u", "u:p", "-k", "file"], "--keytab is for --auth negotiate"),
        ):
            with self.assertRaisesRegex(UsageError, why):
                parsed(*arguments)

    def test_keytab(self) -> None:
        """With a keytab nobody needs a password."""
        options = parsed("-a", "negotiate", "-k", "/etc/krb5.keytab")
        self.assertEqual(options["keytab"], "/etc/krb5.keytab")
        with self.assertRaisesRegex(UsageError, "add --user"):
            parsed("-a", "negotiate,ntlm", "-k", "/etc/krb5.keytab")

    def test_help(self) -> None:
        """Every quirk is told of."""
        usage = str(Options()).replace("\n", "")
        for each in dataclasses.fields(Quirks):
            self.assertIn(each.name.replace("_", "-"), usage)


class ServiceTests(SynchronousTestCase):
    """It listens while it runs."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.server = FakeProxy(self.reactor, "basic", users={"u": "secret"})
        self.service = FakeService(
            self.reactor, self.server, "tcp:3128:interface=127.0.0.1"
        )

    def test_runs(self) -> None:
        """The port is bound at the start, and free at the end."""
        with capturedLogs() as events:
            self.service.startService()
        [(port, factory, _, interface)] = self.reactor.tcpServers
        self.assertEqual((port, interface), (3128, "127.0.0.1"))
        self.assertIs(factory, self.server)
        self.successResultOf(self.service.stopService())
        self.assertNotIn("secret", repr(events))

    def test_cannot_listen(self) -> None:
        """A port that is taken ends the program, with a word why."""

        def taken(*_: Any, **__: Any) -> None:
            raise CannotListenError("127.0.0.1", 3128, OSError(98, "in use"))

        self.reactor.listenTCP = taken  # type: ignore[method-assign]
        with self.assertRaisesRegex(SystemExit, "cannot listen.*in use"):
            self.service.startService()
        self.successResultOf(self.service.stopService())

    def test_plugin(self) -> None:
        """``twistd`` finds it."""
        modules = [
            maker.module  # type: ignore[attr-defined]
            for maker in getPlugins(IServiceMaker)
            if maker.tapname == "coda-fake-proxy"
        ]
        self.assertEqual(modules, ["coda_twisted.testing.service"])

    def test_tells(self) -> None:
        """Logons are told of as they happen."""
        service = makeService(parsed("-u", "alice:secret"))
        with capturedLogs() as events:
            service.server.accounts.judge("alice", "NTLM", lambda _: False)
        [event] = [each for each in events if each.get("outcome")]
        self.assertEqual(
            (event["outcome"], event["user"], event["scheme"]),
            ("failed", "alice", "NTLM"),
        )
        self.assertEqual(
            service.server.accounts.log, [Logon("alice", "NTLM", Outcome.FAILED)]
        )
