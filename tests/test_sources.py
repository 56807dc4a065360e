"""Tests for :mod:`coda_twisted.sources`."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import RedirectAgent
from twisted.web.iweb import IResponse
from zope.interface.verify import verifyObject

from coda_twisted.auth.challenge import Challenge
from coda_twisted.auth.layer import Context
from coda_twisted.auth.memory import SpaceMemory
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import AuthRequest, GiveUp, Peer, Reply, Role
from coda_twisted.client.agent import ClientAgent
from coda_twisted.client.exchange import Client
from coda_twisted.credentials import (
    PasswordCredentials,
    StaticCredentials,
    TicketCredentials,
)
from coda_twisted.errors import AuthenticationFailed, CredentialsRejected
from coda_twisted.interfaces import IAuthConversation, ICredentials, ICredentialSource
from coda_twisted.routing.routes import Direct, HTTPProxy, StaticRouter
from coda_twisted.sources import (
    AskedCredentials,
    CommandCredentials,
    EnvironmentCredentials,
    FileCredentials,
    KeyringCredentials,
    NetrcCredentials,
    PatternCredentials,
    SourceChain,
    Space,
    Spaces,
)
from coda_twisted.sources.asked import MAX_ANSWERS, PAUSE
from coda_twisted.sources.keyring import in_a_thread
from coda_twisted.sources.program import OUTPUT_LIMIT, TIMEOUT
from tests.wire import Peer as WirePeer
from tests.wire import Wire

PROXY = Peer(Role.PROXY, "http", "proxy.example", 3128)
SITE = Peer(Role.ORIGIN, "https", "intranet.example", 443)
SECRET = "correct horse"
BASIC = b'Basic realm="r"'


def site(url: str) -> Peer:
    """The website of a URL that names its port."""
    scheme, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":")
    return Peer(Role.ORIGIN, scheme, host, int(port))


def context() -> Context:
    return Context(AuthPolicy(), SpaceMemory(), None, lambda size: bytes(size))


class SourceCase(SynchronousTestCase):
    """What all sources are asked."""

    alice = PasswordCredentials("alice", SECRET)
    bob = PasswordCredentials("bob", SECRET)

    def who(self, source: Any, peer: Peer = PROXY) -> Any:
        """Name who we are to *peer*; ``None`` for nobody."""
        found = source.credentials_for(peer)
        if isinstance(found, Deferred):
            found = self.successResultOf(found)
        return found and found.identity

    def fails(self, source: Any, peer: Peer = PROXY) -> str:
        """What the source says when it cannot tell."""
        try:
            found = source.credentials_for(peer)
        except AuthenticationFailed as error:
            return self.checked(error)
        failed: Any = self.failureResultOf(found, AuthenticationFailed).value
        return self.checked(failed)

    def checked(self, error: AuthenticationFailed) -> str:
        self.assertNotIn(SECRET, str(error))
        self.assertTrue(error.peer)
        return error.reason

    def mktemp(self) -> str:
        """Name a file that is not there, outside of the checkout."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return os.path.join(directory.name, "file")

    def file(self, text: str, mode: int = 0o600) -> Path:
        path = Path(self.mktemp())
        path.write_text(text)
        path.chmod(mode)
        return path


class SpaceTests(SourceCase):
    """Patterns of protection spaces."""

    def test_exact(self) -> None:
        """Neither another scheme, nor host, nor port, nor role is meant."""
        space = Space.parse("https://Intranet.Example")
        self.assertEqual(space, Space(Role.ORIGIN, "https", "intranet.example", 443))
        self.assertTrue(space.matches(SITE))
        for other in (
            site("http://intranet.example:443"),
            site("http://intranet.example:80"),
            site("https://intranet.example:8443"),
            site("https://www.intranet.example:443"),
            site("https://xintranet.example:443"),
            Peer(Role.PROXY, "https", "intranet.example", 443),
        ):
            self.assertFalse(space.matches(other), other)

    def test_written(self) -> None:
        """What is read is written so that it is read again."""
        for text, written in (
            ("https://a", "origin https://a:443"),
            ("http://a/", "origin http://a:80"),
            ("origin HTTP://a:8080", "origin http://a:8080"),
            ("proxy http://p", "proxy http://p:3128"),
            ("Proxy  https://p", "proxy https://p:443"),
            ("http://[::0:1]", "origin http://[::1]:80"),
            ("https://*.corp.example:8443", "origin https://*.corp.example:8443"),
            ("https://*", "origin https://*:443"),
            ("https://*:8443", "origin https://*:8443"),
            ("proxy *", "proxy *"),
        ):
            space = Space.parse(text)
            self.assertEqual(str(space), written)
            self.assertEqual(Space.parse(written), space)

    def test_below(self) -> None:
        """An asterisk stands for what is below a domain; addresses are not."""
        space = Space.parse("https://*.corp.example:8443")
        for host, expected in (
            ("a.corp.example", True),
            ("a.b.corp.example", True),
            ("corp.example", False),
            ("acorp.example", False),
            ("a.corp.example.evil", False),
        ):
            peer = Peer(Role.ORIGIN, "https", host, 8443)
            self.assertEqual(space.matches(peer), expected, host)
        every = Space.parse("http://*")
        self.assertTrue(every.matches(site("http://::1:80")))
        self.assertFalse(every.matches(site("http://a:8080")))
        self.assertFalse(every.matches(site("https://a:80")))

    def test_nonsense(self) -> None:
        """What is no pattern is refused, without being repeated."""
        for text in (
            "",
            "*",
            "intranet.example",
            "ftp://a",
            "proxy p:3128",
            "https://",
            "https://a/path",
            "https://a:0",
            f"https://alice:{SECRET}@a",
            "https://*.",
            "https://*.10.0.0.1",
            "https://*.*.example",
            "https://a.*.example",
            "https://**",
            "https://bücher.example",
        ):
            with self.assertRaises(ValueError, msg=text) as caught:
                Space.parse(text)
            self.assertNotIn(SECRET, str(caught.exception))


class SpacesTests(SourceCase):
    """For whom a source's secrets are meant."""

    def test_opt_in(self) -> None:
        """A wildcard of websites must be asked for; one of proxies need not be."""
        for pattern in ("https://*", "https://*.corp.example"):
            with self.assertRaisesRegex(ValueError, "wildcards=True"):
                Spaces(pattern)
            Spaces(pattern, wildcards=True)
        self.assertIn(PROXY, Spaces("proxy *"))
        self.assertNotIn(SITE, Spaces("proxy *"))
        self.assertIn("proxy *", repr(Spaces("proxy *")))

    def test_nonsense(self) -> None:
        """None at all, and text where a list is needed, are mistakes."""
        for make in (
            lambda: Spaces(),
            lambda: Spaces("https://a", integrated="corp.example"),
            lambda: Spaces("https://a", integrated=["*."]),
            lambda: EnvironmentCredentials(spaces="https://a"),
        ):
            with self.assertRaises(ValueError):
                make()

    def test_relay(self) -> None:
        """Whom only a wildcard names gets no NTLM and no Negotiate."""
        spaces = Spaces(
            "https://*",
            "https://named.example",
            "proxy *",
            wildcards=True,
            integrated=["*.corp.example"],
        )
        every = ("negotiate", "digest", "ntlm", "basic")
        for peer, schemes in (
            (site("https://evil.example:443"), ("digest", "basic")),
            (site("https://evilcorp.example:443"), ("digest", "basic")),
            (site("https://10.0.0.1:443"), ("digest", "basic")),
            (site("https://a.corp.example:443"), every),
            (site("https://corp.example:443"), every),
            (site("https://named.example:443"), every),
            (PROXY, every),
        ):
            for found in (self.alice, succeed(self.alice)):
                find: Any = {peer: found}.get
                given: Any = spaces.give(peer, find)
                if isinstance(given, Deferred):
                    given = self.successResultOf(given)
                self.assertEqual(given.schemes(), schemes, peer)
                self.assertEqual(given.identity, "alice")

    def test_limited(self) -> None:
        """Limited credentials are the same ones, but for what they may not speak."""
        spaces = Spaces("https://*", wildcards=True)
        given: Any = spaces.give(SITE, lambda _: self.alice)
        verifyObject(ICredentials, given)
        self.assertEqual(given.fingerprint, self.alice.fingerprint)
        self.assertEqual(repr(given), repr(self.alice))
        given.conversation("digest", SITE, context())
        for scheme in ("ntlm", "negotiate"):
            with self.assertRaisesRegex(AuthenticationFailed, "integrated"):
                given.conversation(scheme, SITE, context())

    def test_nothing_left(self) -> None:
        """A ticket, which speaks Negotiate alone, is not for such a website."""
        spaces = Spaces("https://*", wildcards=True)
        self.assertIsNone(spaces.give(SITE, lambda _: TicketCredentials()))
        self.assertIsNone(spaces.give(SITE, lambda _: None))


class PatternTests(SourceCase):
    """Another user for each protection space."""

    def test_most_specific(self) -> None:
        """A host counts before a domain, whatever the order."""
        users: dict[str, Any] = {
            "https://*": ("everybody", SECRET),
            "https://*.example": ("domain", SECRET),
            "https://*.corp.example": ("subdomain", SECRET),
            "https://a.corp.example": self.alice,
            "proxy *": ("borrower", SECRET),
            "proxy http://proxy.example": self.bob,
        }
        for order in (users, dict(reversed(users.items()))):
            source = PatternCredentials(order, wildcards=True)
            verifyObject(ICredentialSource, source)
            for peer, expected in (
                (site("https://a.corp.example:443"), "alice"),
                (site("https://b.corp.example:443"), "subdomain"),
                (SITE, "domain"),
                (site("https://host:443"), "everybody"),
                (site("http://a.corp.example:80"), None),
                (PROXY, "bob"),
                (Peer(Role.PROXY, "http", "other", 8080), "borrower"),
            ):
                self.assertEqual(self.who(source, peer), expected)
        self.assertNotIn(SECRET, repr(source))

    def test_twice(self) -> None:
        """Two spellings of one space are a mistake."""
        with self.assertRaises(ValueError):
            PatternCredentials({"https://a": self.alice, "https://A:443/": self.bob})


class ChainTests(SourceCase):
    """Several sources."""

    def test_order(self) -> None:
        """The first that knows somebody counts."""
        nobody = PatternCredentials({"https://a": self.bob})
        source = SourceChain(nobody, StaticCredentials(self.alice))
        verifyObject(ICredentialSource, source)
        self.assertEqual(self.who(source), "alice")
        self.assertIsNone(self.who(source, SITE))
        self.assertIsNone(self.who(SourceChain()))
        self.assertNotIn(SECRET, repr(source))

    def test_waits(self) -> None:
        """One that must be waited for is, and then the next is asked."""
        clock = Clock()
        answer: Deferred[Any] = Deferred()
        slow = AskedCredentials(clock, lambda _: answer)
        slower = AskedCredentials(clock, lambda _: succeed(("bob", SECRET)))
        source = SourceChain(slow, slower, StaticCredentials(self.alice))
        found: Any = source.credentials_for(PROXY)
        self.assertNoResult(found)
        answer.callback(None)
        self.assertEqual(self.successResultOf(found).identity, "bob")
        found = SourceChain(
            AskedCredentials(clock, lambda _: None), StaticCredentials(self.alice)
        ).credentials_for(PROXY)
        self.assertEqual(self.successResultOf(found).identity, "alice")

    def test_first_of_those_that_wait(self) -> None:
        """Who is found first is not asked about any further."""
        source = SourceChain(
            AskedCredentials(Clock(), lambda _: ("alice", SECRET)),
            AskedCredentials(Clock(), lambda _: self.fail("asked")),
        )
        self.assertEqual(self.who(source), "alice")

    def test_failure(self) -> None:
        """One that fails is not passed over."""
        source = SourceChain(
            FileCredentials("/nonexistent"), StaticCredentials(self.alice)
        )
        self.assertIn("/nonexistent", self.fails(source))


class EnvironmentTests(SourceCase):
    """Variables of the environment."""

    def test_variables(self) -> None:
        """Name, password and domain are read each time, for proxies."""
        environ: dict[str, str] = {}
        source = EnvironmentCredentials(environ=environ)
        verifyObject(ICredentialSource, source)
        self.assertIsNone(self.who(source))
        environ.update(CODA_PROXY_USER="alice", CODA_PROXY_PASSWORD=SECRET)
        found = source.credentials_for(PROXY)
        self.assertEqual(self.who(source), "alice")
        self.assertIs(source.credentials_for(PROXY), found)
        self.assertIsNone(self.who(source, SITE))
        environ["CODA_PROXY_DOMAIN"] = "CORP"
        self.assertEqual(self.who(source), "CORP\\alice")
        environ["CODA_PROXY_USER"] = ""
        self.assertIsNone(self.who(source))
        self.assertNotIn(SECRET, repr(source))

    def test_prefix(self) -> None:
        """A website has variables of its own."""
        source = EnvironmentCredentials(
            "SITE",
            spaces=["https://intranet.example"],
            environ={"SITE_USER": "alice", "SITE_PASSWORD": SECRET},
        )
        self.assertEqual(self.who(source, SITE), "alice")
        self.assertIsNone(self.who(source))

    def test_process(self) -> None:
        """By default they are the process's."""
        self.patch(os, "environ", {"CODA_PROXY_USER": "a", "CODA_PROXY_PASSWORD": "b"})
        self.assertEqual(self.who(EnvironmentCredentials()), "a")

    def test_mistakes(self) -> None:
        """A name without a password, and what is none, are told by variable."""
        for values, expected in (
            ({"CODA_PROXY_USER": "alice"}, "CODA_PROXY_PASSWORD is not"),
            (
                {"CODA_PROXY_USER": "alice", "CODA_PROXY_PASSWORD": SECRET + "\n"},
                "line end",
            ),
        ):
            source = EnvironmentCredentials(environ=values)
            self.assertIn(expected, self.fails(source))
            self.assertIn(expected, self.fails(source))


class FileTests(SourceCase):
    """A password file."""

    def test_password(self) -> None:
        """The first line is the password, whatever its line ends."""
        for text in (SECRET, f"{SECRET}\n", f"{SECRET}\r\nmore\n", f"\ufeff{SECRET}\n"):
            source = FileCredentials(self.file(text), "alice", domain="CORP")
            verifyObject(ICredentialSource, source)
            found: Any = source.credentials_for(PROXY)
            self.assertEqual(found.identity, "CORP\\alice")
            self.assertEqual(found.fingerprint, self.alice.fingerprint)
            self.assertIsNone(self.who(source, SITE))
            self.assertNotIn(SECRET, repr(source))

    def test_name(self) -> None:
        """Without a name, it stands before the first colon."""
        source = FileCredentials(self.file(f"CORP\\alice:{SECRET}:\n"))
        self.assertEqual(self.who(source), "CORP\\alice")

    def test_not_utf8(self) -> None:
        """A password is octets; what is no UTF-8 is sent as it is."""
        path = self.file("")
        path.write_bytes(b"alice:\xe4\n")
        found: Any = FileCredentials(path).credentials_for(PROXY)
        step = found.conversation("basic", PROXY, context()).first(None)
        self.assertEqual(step.value, b"Basic YWxpY2U65A==")

    def test_same_while_unchanged(self) -> None:
        """The file is not read again while it has not changed."""
        path = self.file(f"alice:{SECRET}")
        os.utime(path, (1, 1))
        source = FileCredentials(path)
        found = source.credentials_for(PROXY)
        self.assertIs(source.credentials_for(PROXY), found)
        os.utime(path, (2, 2))
        self.assertIsNot(source.credentials_for(PROXY), found)

    def test_changed_in_place(self) -> None:
        """A change within one tick of the file system's clock is seen."""
        path = self.file("alice:one")
        source = FileCredentials(path)
        before: Any = source.credentials_for(PROXY)
        times = path.stat().st_mtime_ns
        path.write_text("alice:two")
        os.utime(path, ns=(times, times))
        after: Any = source.credentials_for(PROXY)
        self.assertNotEqual(after.fingerprint, before.fingerprint)

    def test_replaced(self) -> None:
        """A file that was moved into its place is seen."""
        path, other = self.file("alice:one"), self.file("bobby:two")
        for each in (path, other):
            os.utime(each, (1, 1))
        source = FileCredentials(path)
        self.assertEqual(self.who(source), "alice")
        other.rename(path)
        self.assertEqual(self.who(source), "bobby")

    def test_mistakes(self) -> None:
        """No file, no password and no name are told apart, and nothing is sent."""
        for text, username, expected in (
            ("", "alice", "no password"),
            ("\n" + SECRET, "alice", "no password"),
            ("", None, "no password"),
            ("alice:", None, "no password"),
            (SECRET, None, "not name:password"),
            (f"a\0:{SECRET}", None, "NUL"),
        ):
            source = FileCredentials(self.file(text), username)
            self.assertIn(expected, self.fails(source))
        self.assertIn("No such file", self.fails(FileCredentials(self.mktemp(), "a")))

    def test_comes_back(self) -> None:
        """After a mistake was mended the file is good."""
        path = self.file("")
        source = FileCredentials(path, "alice")
        self.fails(source)
        path.write_text(SECRET)
        self.assertEqual(self.who(source), "alice")

    def test_permissions(self) -> None:
        """That everybody can read it is logged, once for each change."""
        path = self.file(f"alice:{SECRET}", mode=0o604)
        source = FileCredentials(path)
        with capturedLogs() as events:
            self.who(source)
            self.who(source)
        self.assertEqual(len(events), 1)
        self.assertEqual(events[0]["path"], str(path))
        self.assertNotIn(SECRET, str(events))
        path.chmod(0o640)
        with capturedLogs() as events:
            self.who(source)
        self.assertEqual(events, [])


class NetrcTests(SourceCase):
    """A netrc file."""

    TEXT = f"""\
machine Intranet.Example login alice password "{SECRET}"
machine nothing.example login alice
machine ::1 password token
default login everybody password x
"""

    def test_scope(self) -> None:
        """A machine is an https website at its port, unless more is allowed."""
        path = self.file(self.TEXT)
        plain = site("http://intranet.example:80")
        odd = site("https://intranet.example:8443")
        for source, peers in (
            (NetrcCredentials(path), [SITE]),
            (NetrcCredentials(path, cleartext=True), [SITE, plain]),
            (NetrcCredentials(path, ports=[8443]), [SITE, odd]),
        ):
            verifyObject(ICredentialSource, source)
            known = [each for each in (SITE, plain, odd) if self.who(source, each)]
            self.assertEqual(known, peers)
            self.assertEqual(self.who(source, SITE), "alice")
            self.assertIsNone(
                self.who(source, Peer(Role.PROXY, "https", "intranet.example", 443))
            )
            for host in ("nothing.example", "other.example"):
                self.assertIsNone(self.who(source, site(f"https://{host}:443")))
        self.assertEqual(self.who(source, site("https://::1:443")), "(no name)")

    def test_default(self) -> None:
        """The default entry is for Digest and Basic, if it is wanted at all."""
        source = NetrcCredentials(self.file(self.TEXT), default=True)
        other = site("https://other.example:443")
        found: Any = source.credentials_for(other)
        self.assertEqual(found.identity, "everybody")
        self.assertEqual(found.schemes(), ("digest", "basic"))
        self.assertEqual(self.who(source, SITE), "alice")
        without = NetrcCredentials(self.file("machine a password b"), default=True)
        self.assertIsNone(self.who(without, other))

    def test_changed(self) -> None:
        """A new entry is seen; a file that is not there holds nothing."""
        path = Path(self.mktemp())
        source = NetrcCredentials(path)
        self.assertIsNone(self.who(source, SITE))
        path.write_text(self.TEXT)
        path.chmod(0o600)
        self.assertEqual(self.who(source, SITE), "alice")

    def test_where(self) -> None:
        """It is where NETRC says, or in the home directory."""
        path = self.file(self.TEXT)
        self.patch(os, "environ", {"NETRC": str(path), "HOME": "/home/alice"})
        self.assertEqual(self.who(NetrcCredentials(), SITE), "alice")
        self.patch(os, "environ", {"HOME": "/home/alice"})
        self.assertIn("/home/alice/.netrc", repr(NetrcCredentials()))

    def test_mistakes(self) -> None:
        """A file that cannot be parsed is told by line, and never quoted."""
        path = self.file(f"machine a login b password c\n{SECRET} login x")
        self.assertIn("line 2", self.fails(NetrcCredentials(path), SITE))
        path.write_bytes(b"machine a login b password \xe4")
        reason = self.fails(NetrcCredentials(path), SITE)
        self.assertNotIn("xe4", reason)
        directory = Path(self.mktemp())
        directory.mkdir()
        self.assertIn(str(directory), self.fails(NetrcCredentials(directory), SITE))


class AskedTests(SourceCase):
    """Somebody who is asked."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.answers: list[Any] = []
        self.asked: list[Peer] = []
        self.source: Any = AskedCredentials(self.clock, self.ask)

    def ask(self, peer: Peer) -> Any:
        self.asked.append(peer)
        return self.answers.pop(0)

    def refuse(self, credentials: Any, scheme: str = "basic") -> None:
        """Play a peer that does not accept them."""
        conversation = credentials.conversation(scheme, PROXY, context())
        challenge = Challenge("Basic")
        request = AuthRequest(b"GET", b"/", b"/")
        step = conversation.challenged(challenge, request)
        assert isinstance(step, Reply)
        step = conversation.challenged(challenge, request)
        assert isinstance(step, GiveUp) and step.rejected

    def test_kept(self) -> None:
        """The answer is kept for its peer; nobody is asked for others."""
        self.answers = [("alice", SECRET), self.bob]
        verifyObject(ICredentialSource, self.source)
        self.assertEqual([self.who(self.source) for _ in range(3)], ["alice"] * 3)
        other = Peer(Role.PROXY, "http", "other", 1)
        self.assertEqual(self.who(self.source, other), "bob")
        self.assertIsNone(self.who(self.source, SITE))
        self.assertEqual(self.asked, [PROXY, other])
        self.assertNotIn(SECRET, repr(self.source))

    def test_the_same_credentials(self) -> None:
        """They are the ones that were answered, and tell nothing more."""
        self.answers = [self.alice]
        found: Any = self.successResultOf(self.source.credentials_for(PROXY))
        verifyObject(ICredentials, found)
        self.assertEqual(found.identity, "alice")
        self.assertEqual(found.fingerprint, self.alice.fingerprint)
        self.assertEqual(found.schemes(), self.alice.schemes())
        self.assertEqual(repr(found), repr(self.alice))
        for scheme in found.schemes():
            conversation = found.conversation(scheme, PROXY, context())
            verifyObject(IAuthConversation, conversation)
            self.assertEqual(conversation.scheme.lower(), scheme)
            self.assertNotIn(SECRET, repr(conversation))

    def test_one_question(self) -> None:
        """Who asks meanwhile gets the same answer, also if the first has left."""
        answer: Deferred[Any] = Deferred()
        self.answers = [answer]
        first, second, third = (self.source.credentials_for(PROXY) for _ in range(3))
        first.cancel()
        self.failureResultOf(first)
        answer.callback(("alice", SECRET))
        self.assertEqual(self.successResultOf(second).identity, "alice")
        self.assertIs(self.source.credentials_for(PROXY), self.successResultOf(third))
        self.assertEqual(len(self.asked), 1)

    def test_coroutine(self) -> None:
        """The answer may be a coroutine's."""

        async def ask(peer: Peer) -> tuple[str, str]:
            return "alice", SECRET

        self.assertEqual(self.who(AskedCredentials(self.clock, ask)), "alice")

    def test_failure(self) -> None:
        """Who waits is told; the next one asks anew."""
        self.answers = [fail(AuthenticationFailed("no", peer="p")), ("alice", SECRET)]
        self.assertEqual(self.fails(self.source), "no")
        self.assertEqual(self.who(self.source), "alice")

    def test_refused(self) -> None:
        """After a refusal somebody is asked again, at once."""
        self.answers = [("alice", "wrong"), ("alice", SECRET)]
        self.refuse(self.successResultOf(self.source.credentials_for(PROXY)))
        found = self.successResultOf(self.source.credentials_for(PROXY))
        self.assertEqual(found.fingerprint, self.alice.fingerprint)
        self.assertIs(self.source.credentials_for(PROXY), found)

    def test_refused_late(self) -> None:
        """A refusal of what was replaced meanwhile says nothing of the new."""
        self.answers = [("alice", "wrong"), ("alice", SECRET)]
        wrong = self.successResultOf(self.source.credentials_for(PROXY))
        self.refuse(wrong)
        self.who(self.source)
        self.refuse(wrong)
        self.who(self.source)
        self.assertEqual(len(self.asked), 2)

    def test_the_same_again(self) -> None:
        """The same wrong answer stands for a while, then somebody is asked again."""
        self.answers = [("alice", "wrong"), ("alice", "wrong"), ("alice", SECRET)]
        self.refuse(self.successResultOf(self.source.credentials_for(PROXY)))
        self.who(self.source)
        self.clock.advance(PAUSE - 1)
        self.who(self.source)
        self.assertEqual(len(self.asked), 2)
        self.clock.advance(1)
        self.who(self.source)
        self.who(self.source)
        self.assertEqual(len(self.asked), 3)

    def test_no_answer(self) -> None:
        """None is an answer that stands for a while."""
        self.answers = [None, None]
        for _ in range(3):
            self.assertIsNone(self.who(self.source))
        self.assertEqual(len(self.asked), 1)
        self.clock.advance(PAUSE)
        self.who(self.source)
        self.assertEqual(len(self.asked), 2)

    def test_refused_by_work(self) -> None:
        """A refusal that a KDC tells counts as well, however it is told."""

        class Kerberos:
            def worked(self, result: Any) -> Any:
                return GiveUp("wrong password", rejected=True)

            def failed(self, error: Exception) -> Any:
                raise CredentialsRejected("wrong password", identity="alice")

        class Ticket(PasswordCredentials):
            def conversation(self, *arguments: Any) -> Any:
                return Kerberos()

        self.answers = [Ticket("alice", each) for each in "123"]
        for tell in (
            lambda conversation: conversation.worked(None),
            lambda conversation: conversation.failed(ValueError()),
        ):
            found = self.successResultOf(self.source.credentials_for(PROXY))
            conversation = found.conversation("negotiate", PROXY, context())
            with contextlib.suppress(CredentialsRejected):
                tell(conversation)
        self.who(self.source)
        self.assertEqual(len(self.asked), 3)

    def test_bounded(self) -> None:
        """However many peers there are, so many answers are kept."""
        source = AskedCredentials(
            self.clock,
            lambda peer: Deferred() if peer.port == 1 else ("alice", SECRET),
        )
        for port in range(1, MAX_ANSWERS + 10):
            source.credentials_for(Peer(Role.PROXY, "http", "a", port))
        self.assertEqual(len(source._answers), MAX_ANSWERS)


class Keyring:
    """A keyring in memory."""

    def __init__(self) -> None:
        self.passwords: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.passwords.get((service, username))

    def get_credential(self, service: str, username: str | None) -> Any:
        for (each, name), password in self.passwords.items():
            if each == service:
                return SimpleNamespace(username=name, password=password)
        return None


def at_once(function: Callable[[], Any]) -> Deferred[Any]:
    """Stand in for a thread."""
    try:
        return succeed(function())
    except Exception:
        return fail()


class KeyringTests(SourceCase):
    """The desktop's keyring."""

    def setUp(self) -> None:
        self.keyring = Keyring()
        self.clock = Clock()

    def source(self, username: str | None = None, **settings: Any) -> Any:
        settings = {"backend": self.keyring, "run": at_once, **settings}
        return KeyringCredentials(self.clock, username, **settings)

    def test_by_peer(self) -> None:
        """A secret is stored under the peer's URL, or under a name of its own."""
        self.keyring.passwords["http://proxy.example:3128", "alice"] = SECRET
        self.keyring.passwords["Px", "bob"] = SECRET
        for source, expected in (
            (self.source(), "alice"),
            (self.source("alice"), "alice"),
            (self.source("alice", domain="CORP"), "CORP\\alice"),
            (self.source("carol"), None),
            (self.source(service="Px"), "bob"),
            (self.source(service="None"), None),
        ):
            verifyObject(ICredentialSource, source)
            self.assertEqual(self.who(source), expected)
            self.assertIsNone(self.who(source, SITE))
            self.assertNotIn(SECRET, repr(source))

    def test_broken(self) -> None:
        """What a backend raises is told by its kind."""
        self.patch(self.keyring, "get_credential", lambda *_: 1 / 0)
        self.assertIn("ZeroDivisionError", self.fails(self.source()))

    def test_package(self) -> None:
        """The package is used where it is installed, and asked for where not."""
        self.patch(sys, "modules", {**sys.modules, "keyring": self.keyring})
        self.keyring.passwords["http://proxy.example:3128", "alice"] = SECRET
        self.assertEqual(self.who(self.source(backend=None)), "alice")
        self.patch(sys, "modules", {**sys.modules, "keyring": None})
        with self.assertRaisesRegex(ImportError, r"coda_twisted\[keyring\]"):
            self.source(backend=None)

    def test_thread(self) -> None:
        """What blocks runs in a thread; what comes of it is told by the reactor."""
        calls: Queue[Any] = Queue()

        class Reactor:
            def callFromThread(self, *call: Any) -> None:
                calls.put(call)

        for function in (lambda: "done", lambda: 1 / 0):
            outcome: Any = in_a_thread(Reactor(), function)
            self.assertNoResult(outcome)
            call, *arguments = calls.get(timeout=10)
            call(*arguments)
            if isinstance(outcome.result, Failure):
                self.failureResultOf(outcome, ZeroDivisionError)
            else:
                self.assertEqual(self.successResultOf(outcome), "done")


class Programs(Clock):
    """A reactor whose programs are played by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Any] = []
        self.signals: list[str] = []
        self.gone = False
        self.lost = False

    def spawnProcess(
        self, protocol: Any, executable: str, args: list[str], env: Any
    ) -> None:
        self.executable = executable
        self.args = args
        self.started.append(protocol)
        protocol.makeConnection(self)

    def closeStdin(self) -> None:
        """Nothing is said to it."""

    def signalProcess(self, signal: str) -> None:
        if self.gone:
            raise ProcessExitedAlready
        self.signals.append(signal)

    def loseConnection(self) -> None:
        self.lost = True

    def end(self, output: bytes, reason: Exception | None = None) -> None:
        protocol = self.started[-1]
        protocol.outReceived(output)
        protocol.errReceived(b"noise")
        protocol.processEnded(Failure(reason or ProcessDone(0)))


class CommandTests(SourceCase):
    """A program that prints a password."""

    def setUp(self) -> None:
        self.reactor = Programs()
        self.source: Any = CommandCredentials(
            self.reactor, [sys.executable, SECRET], "al"
        )

    def test_prints(self) -> None:
        """Its first line is the password; it is not run again for the next request."""
        verifyObject(ICredentialSource, self.source)
        found: Any = self.source.credentials_for(PROXY)
        self.assertNoResult(found)
        self.assertEqual(self.reactor.args, [sys.executable, SECRET])
        self.reactor.end(SECRET.encode() + b"\nlogin: somebody\n")
        credentials = self.successResultOf(found)
        self.assertEqual(credentials.identity, "al")
        self.assertEqual(credentials.fingerprint, self.alice.fingerprint)
        self.assertIs(self.source.credentials_for(PROXY), credentials)
        self.assertEqual(len(self.reactor.started), 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertNotIn(SECRET, repr(self.source))
        self.assertIsNone(self.who(self.source, SITE))

    def test_name(self) -> None:
        """Without a name it prints that as well."""
        source = CommandCredentials(self.reactor, [sys.executable], domain="CORP")
        found: Any = source.credentials_for(PROXY)
        self.reactor.end(b"alice:x\n")
        self.assertEqual(self.successResultOf(found).identity, "CORP\\alice")

    def test_fails(self) -> None:
        """How it failed is told, without its arguments and what it printed."""
        for output, reason, expected in (
            (SECRET.encode(), ProcessTerminated(2, None, 512), "exit code 2"),
            (SECRET.encode(), ProcessTerminated(None, 15, 15), "signal 15"),
            (b"", ProcessDone(0), "no password"),
            (SECRET.encode() + b"\0", ProcessDone(0), "NUL"),
        ):
            found: Any = self.source.credentials_for(PROXY)
            self.reactor.end(output, reason)
            error: Any = self.failureResultOf(found, AuthenticationFailed).value
            self.assertIn(expected, self.checked(error))

    def test_too_long(self) -> None:
        """It is killed when it takes too long, or prints too much."""
        found: Any = self.source.credentials_for(PROXY)
        self.reactor.advance(TIMEOUT)
        self.assertEqual(self.reactor.signals, ["KILL"])
        self.reactor.end(b"", ProcessTerminated(None, 9, 9))
        self.assertIn("within 60 s", str(self.failureResultOf(found).value))

        found = self.source.credentials_for(PROXY)
        self.reactor.gone = True
        self.reactor.end(b"x" * (OUTPUT_LIMIT + 1))
        self.assertTrue(self.reactor.lost)
        self.assertIn("too much", str(self.failureResultOf(found).value))

    def test_no_such_program(self) -> None:
        """A program that is not there is told at once; a shell line is refused."""
        source = CommandCredentials(self.reactor, ["/nonexistent/pass", SECRET])
        self.assertIn("the program pass: is not there", self.fails(source))
        commands: list[Any] = ["pass show proxy", []]
        for command in commands:
            with self.assertRaises(ValueError):
                CommandCredentials(self.reactor, command)


class ClientTests(SourceCase):
    """Sources under a client whose proxy judges passwords."""

    def setUp(self) -> None:
        self.clock: Any = Programs()
        self.wire = Wire()

    def agent(self, source: Any, route: Any = None) -> ClientAgent:
        return ClientAgent(
            Client(
                self.clock,
                router=StaticRouter(route or HTTPProxy("http", "proxy.example", 3128)),
                credentials=source,
                endpoint_for=self.wire.endpoint_for,
                policy=AuthPolicy(allow_basic_over_cleartext=True),
            )
        )

    @property
    def peer(self) -> WirePeer:
        return self.wire.peers[-1]

    def sent(self) -> list[bytes]:
        """All proxy credentials that went out, in order."""
        values = [
            request.fields.get(b"Proxy-Authorization")
            for peer in self.wire.peers
            for request in peer.read().requests
        ]
        return [value for value in values if value is not None]

    def judge(self, answer: Deferred[IResponse], password: bytes) -> Any:
        """Be a proxy to which only *password* is right."""
        right = b"Basic " + b64encode(b"alice:" + password)
        for _ in range(4):
            if answer.called:
                break
            if self.peer.request.fields.get(b"Proxy-Authorization") == right:
                self.peer.answer(200)
            else:
                self.peer.answer(407, (b"Proxy-Authenticate", BASIC))
        return answer

    def refused(self, agent: ClientAgent, password: bytes) -> None:
        answer = self.judge(agent.request(b"GET", b"http://site/"), password)
        self.failureResultOf(answer, CredentialsRejected)

    def served(self, agent: ClientAgent, password: bytes) -> None:
        answer = self.judge(agent.request(b"GET", b"http://site/"), password)
        self.assertEqual(self.successResultOf(answer).code, 200)

    def test_file(self) -> None:
        """A password that was changed in its file is used without a restart."""
        path = self.file("alice:old")
        agent = self.agent(FileCredentials(path))
        self.served(agent, b"old")
        self.refused(agent, b"new")
        before = self.sent()
        self.refused(agent, b"new")
        self.assertEqual(self.sent(), before, "a refused secret was sent again")
        path.write_text("alice:new")
        self.served(agent, b"new")
        self.served(agent, b"new")

    def test_file_before_the_rejection(self) -> None:
        """A connection that knows the old password is not asked to prove the new."""
        path = self.file("alice:old")
        agent = self.agent(FileCredentials(path))
        self.served(agent, b"old")
        path.write_text("alice:new")
        self.served(agent, b"new")
        self.assertEqual(len(set(self.sent())), 2)

    def test_environment(self) -> None:
        """So is one of the environment."""
        environ = {"CODA_PROXY_USER": "alice", "CODA_PROXY_PASSWORD": "old"}
        agent = self.agent(EnvironmentCredentials(environ=environ))
        self.refused(agent, b"new")
        environ["CODA_PROXY_PASSWORD"] = "new"
        self.served(agent, b"new")

    def test_prompt(self) -> None:
        """Who has mistyped is asked once more, by the next request."""
        answers = ["tpyo", "right"]
        source = AskedCredentials(self.clock, lambda _: ("alice", answers.pop(0)))
        agent = self.agent(source)
        self.refused(agent, b"right")
        self.served(agent, b"right")
        self.served(agent, b"right")
        self.assertEqual(len(set(self.sent())), 2)

    def test_keyring(self) -> None:
        """A keyring is asked again when its password was refused."""
        keyring = Keyring()
        keyring.passwords["http://proxy.example:3128", "alice"] = "old"
        agent = self.agent(KeyringCredentials(self.clock, backend=keyring, run=at_once))
        self.served(agent, b"old")
        keyring.passwords["http://proxy.example:3128", "alice"] = "new"
        self.served(agent, b"old")
        self.refused(agent, b"new")
        self.served(agent, b"new")

    def test_command(self) -> None:
        """A program that still prints the old password is run again after a while."""
        agent = self.agent(CommandCredentials(self.clock, [sys.executable], "alice"))
        for printed in (b"old", b"old", b"new"):
            answer = agent.request(b"GET", b"http://site/")
            self.clock.end(printed)
            self.judge(answer, b"new")
            if printed == b"new":
                self.assertEqual(self.successResultOf(answer).code, 200)
            else:
                self.failureResultOf(answer, CredentialsRejected)
            self.clock.advance(PAUSE)
        self.assertEqual(len(set(self.sent())), 2)

    def test_broken_source(self) -> None:
        """What a source cannot tell is the request's failure, and nothing is sent."""
        agent = self.agent(FileCredentials("/nonexistent", "alice"))
        answer = agent.request(b"GET", b"http://site/")
        self.failureResultOf(answer, AuthenticationFailed)
        self.assertEqual(self.wire.peers, [])

    def test_redirect(self) -> None:
        """A redirection leads credentials nowhere: not to a host, not to a port."""
        source = PatternCredentials({"http://site": ("alice", SECRET)})
        for location, follows in (
            (b"http://site:8080/", False),
            (b"http://other/", False),
            (b"http://site/else", True),
        ):
            self.wire = Wire()
            agent = RedirectAgent(self.agent(source, Direct()))
            answer = agent.request(b"GET", b"http://site/")
            self.peer.answer(401, (b"WWW-Authenticate", BASIC))
            self.peer.answer(302, (b"Location", location))
            self.assertEqual(b"Authorization" in self.peer.request.fields, follows)
            if not follows:
                self.peer.answer(401, (b"WWW-Authenticate", BASIC))
                self.assertEqual(self.successResultOf(answer).code, 401)
