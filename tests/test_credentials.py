"""Tests for :mod:`coda_twisted.credentials`."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from coda_twisted.auth.challenge import Challenge
from coda_twisted.auth.layer import Context
from coda_twisted.auth.memory import SpaceMemory
from coda_twisted.auth.negotiate import KerberosConversation, NegotiateConversation
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import AuthRequest, Peer, Reply, Role
from coda_twisted.credentials import (
    CredentialChain,
    MappedCredentials,
    NoCredentials,
    PasswordCredentials,
    StaticCredentials,
    TicketCredentials,
    split_username,
    tickets_for,
)
from coda_twisted.errors import AuthenticationFailed
from coda_twisted.interfaces import IAuthConversation, ICredentials, ICredentialSource

PEER = Peer(Role.PROXY, "http", "proxy.example", 3128)
ORIGIN = Peer(Role.ORIGIN, "http", "proxy.example", 3128)
REQUEST = AuthRequest(b"GET", b"http://www.example/", b"/")
SECRET = "correct horse"


def context(**settings: Any) -> Context:
    return Context(
        AuthPolicy(**settings), SpaceMemory(), None, lambda size: bytes(size)
    )


class PasswordTests(SynchronousTestCase):
    """A name and a password."""

    def test_interfaces(self) -> None:
        """It speaks four schemes, each with a conversation of its own."""
        credentials = PasswordCredentials("alice", SECRET)
        verifyObject(ICredentials, credentials)
        self.assertEqual(
            credentials.schemes(), ("negotiate", "digest", "ntlm", "basic")
        )
        for scheme in credentials.schemes():
            conversation = credentials.conversation(scheme, PEER, context())
            verifyObject(IAuthConversation, conversation)
            self.assertEqual(conversation.scheme.lower(), scheme)
            self.assertIsNot(
                conversation, credentials.conversation(scheme, PEER, context())
            )

    def test_other_schemes(self) -> None:
        """A scheme that takes no password cannot be spoken."""
        with self.assertRaises(AuthenticationFailed):
            PasswordCredentials("alice", SECRET).conversation("bearer", PEER, context())

    def test_identity(self) -> None:
        """The identity names user and domain, whichever way they were given."""
        for given_as, identity in (
            (PasswordCredentials("alice", SECRET), "alice"),
            (PasswordCredentials("CORP\\alice", SECRET), "CORP\\alice"),
            (PasswordCredentials("alice", SECRET, domain="CORP"), "CORP\\alice"),
            (PasswordCredentials("B\\alice", SECRET, domain="CORP"), "B\\alice"),
            (
                PasswordCredentials("alice@b.example", SECRET, domain="C"),
                "alice@b.example",
            ),
        ):
            self.assertEqual(given_as.identity, identity)
            self.assertIn(repr(identity), repr(given_as))

    def test_fingerprint(self) -> None:
        """The fingerprint changes with the secret, and is not the secret's hash."""
        one = PasswordCredentials("alice", SECRET)
        same = PasswordCredentials("alice", SECRET)
        other = PasswordCredentials("alice", SECRET + "!")
        self.assertEqual(one.fingerprint, same.fingerprint)
        self.assertNotEqual(one.fingerprint, other.fingerprint)

    @given(st.text(min_size=4), st.text(min_size=4))
    def test_secret_is_not_shown(self, name: str, password: str) -> None:
        """Neither the credentials nor what is made of them show the password."""
        secret = "<" + password + ">"
        try:
            credentials = PasswordCredentials(name, secret)
        except ValueError as error:
            self.assertNotIn(secret, str(error))
            return
        source = StaticCredentials(CredentialChain(credentials))
        shown = [repr(credentials), repr(source), str(credentials.fingerprint)]
        for scheme in credentials.schemes():
            try:
                conversation = credentials.conversation(scheme, PEER, context())
            except AuthenticationFailed as error:
                shown.append(str(error))
            else:
                shown.append(repr(conversation))
        for each in shown:
            self.assertNotIn(secret, each)

    def test_slips(self) -> None:
        """What cannot have been meant is refused, without repeating it."""
        for name, password, domain in (
            ("alice\n", SECRET, ""),
            ("alice", SECRET + "\r\n", ""),
            ("alice", SECRET + "\0", ""),
            ("alice", SECRET, "CORP\n"),
            ("CORP\\", SECRET, ""),
            ("@corp.example", SECRET, ""),
            ("", SECRET, "CORP"),
        ):
            with self.assertRaises(ValueError) as caught:
                PasswordCredentials(name, password, domain=domain)
            self.assertNotIn(SECRET, str(caught.exception))

    def test_token_without_a_name(self) -> None:
        """A password without a name is for Basic alone."""
        credentials = PasswordCredentials("", "token")
        self.assertEqual(credentials.schemes(), ("basic",))
        self.assertTrue(credentials.identity)
        conversation = credentials.conversation("basic", PEER, context())
        step = conversation.challenged(Challenge("Basic"), REQUEST)
        assert isinstance(step, Reply)
        self.assertEqual(step.value, b"Basic OnRva2Vu")  # base64 of ":token"
        with self.assertRaises(AuthenticationFailed):
            credentials.conversation("ntlm", PEER, context())

    def test_name_as_it_is(self) -> None:
        """Basic sends the name as it was given, the domain apart not at all."""
        for credentials, value in (
            # base64 of "CORP\alice:x" and "alice:x"
            (PasswordCredentials("CORP\\alice", "x"), b"Basic Q09SUFxhbGljZTp4"),
            (PasswordCredentials("alice", "x", domain="CORP"), b"Basic YWxpY2U6eA=="),
        ):
            conversation = credentials.conversation("basic", PEER, context())
            step = conversation.challenged(Challenge("Basic"), REQUEST)
            assert isinstance(step, Reply)
            self.assertEqual(step.value, value)

    def test_ntlm_in_negotiate(self) -> None:
        """NTLM is spoken as Negotiate only where policy allows it."""
        credentials = PasswordCredentials("alice", SECRET)
        for allowed, kind in (
            (False, KerberosConversation),
            (True, NegotiateConversation),
        ):
            conversation = credentials.conversation(
                "negotiate", PEER, context(allow_ntlm_in_negotiate=allowed)
            )
            self.assertIs(type(conversation), kind)

    def test_empty_password(self) -> None:
        """Kerberos knows no empty passwords."""
        credentials = PasswordCredentials("alice", "")
        with self.assertRaises(AuthenticationFailed):
            credentials.conversation("negotiate", PEER, context())


class NameTests(SynchronousTestCase):
    """Names, their domains, and what Kerberos calls them."""

    def test_split(self) -> None:
        """A domain stands before a backslash or behind the last at-sign."""
        for name, expected in (
            ("alice", ("", "alice")),
            ("CORP\\alice", ("CORP", "alice")),
            ("CORP\\al@ice", ("CORP", "al@ice")),
            ("alice@corp.example", ("corp.example", "alice")),
            ("al@ice@corp.example", ("corp.example", "al@ice")),
        ):
            self.assertEqual(split_username(name), expected)

    def test_principals(self) -> None:
        """Realms are in upper case; what is no realm is left to the machine."""
        for name, domain, principal, certain in (
            ("alice", "", "alice", False),
            ("CORP\\alice", "", "alice", False),
            ("alice", "CORP", "alice", False),
            ("alice", "corp.example", "alice@CORP.EXAMPLE", False),
            ("corp.example\\alice", "", "alice@CORP.EXAMPLE", False),
            ("alice@corp.example", "OTHER", "alice@CORP.EXAMPLE", False),
            ("alice@CORP.EXAMPLE", "", "alice@CORP.EXAMPLE", True),
            ("alice@ATHENA", "", "alice@ATHENA", True),
            ("alice@Corp.Example", "", "alice@Corp.Example", True),
            ("alice/admin@R", "", "alice/admin@R", True),
            ("al@ice@R", "", "al\\@ice@R", True),
            ("CORP\\a\\b", "", "a\\\\b", False),
        ):
            tickets = tickets_for(name, domain, SECRET)
            self.assertEqual(tickets.principal, principal)
            self.assertEqual(tickets.certain, certain, name)


class TicketTests(SynchronousTestCase):
    """A ticket of the system's cache."""

    def test_interfaces(self) -> None:
        """It speaks Negotiate."""
        credentials = TicketCredentials()
        verifyObject(ICredentials, credentials)
        self.assertEqual(credentials.schemes(), ("negotiate",))
        conversation = credentials.conversation("negotiate", PEER, context())
        verifyObject(IAuthConversation, conversation)
        with self.assertRaises(AuthenticationFailed):
            credentials.conversation("basic", PEER, context())

    def test_identity(self) -> None:
        """Its identity names the principal, if one is wanted."""
        self.assertEqual(TicketCredentials().identity, "ticket:default")
        chosen = TicketCredentials("alice@EXAMPLE")
        self.assertEqual(chosen.identity, "ticket:alice@EXAMPLE")
        self.assertIn("alice@EXAMPLE", repr(chosen))


class ChainTests(SynchronousTestCase):
    """Several credentials of one person."""

    def setUp(self) -> None:
        self.ticket = TicketCredentials()
        self.password = PasswordCredentials("alice", SECRET)
        self.chain = CredentialChain(self.ticket, self.password)

    def test_interfaces(self) -> None:
        """It speaks whatever one of them speaks."""
        verifyObject(ICredentials, self.chain)
        self.assertEqual(self.chain.schemes(), ("negotiate", "digest", "ntlm", "basic"))
        with self.assertRaises(AuthenticationFailed):
            self.chain.conversation("bearer", PEER, context())
        with self.assertRaises(ValueError):
            CredentialChain()

    def test_first_that_can(self) -> None:
        """Negotiate goes by ticket, the rest by password."""
        asked: list[str] = []

        class Spy(PasswordCredentials):
            def conversation(self, scheme: str, *more: Any) -> Any:
                asked.append(scheme)
                return super().conversation(scheme, *more)

        chain = CredentialChain(self.ticket, Spy("alice", SECRET))
        for scheme in chain.schemes():
            conversation = chain.conversation(scheme, PEER, context())
            self.assertEqual(conversation.scheme.lower(), scheme)
        self.assertEqual(asked, ["digest", "ntlm", "basic"])

    def test_identity(self) -> None:
        """It is both of them, and changes when one changes."""
        self.assertEqual(self.chain.identity, "ticket:default + alice")
        other = CredentialChain(self.ticket, PasswordCredentials("alice", "other"))
        self.assertEqual(other.identity, self.chain.identity)
        self.assertNotEqual(other.fingerprint, self.chain.fingerprint)


class SourceTests(SynchronousTestCase):
    """Where credentials come from."""

    alice = PasswordCredentials("alice", SECRET)

    def test_none(self) -> None:
        """By default we are nobody."""
        source = NoCredentials()
        verifyObject(ICredentialSource, source)
        self.assertIsNone(source.credentials_for(PEER))

    def test_static(self) -> None:
        """One user to all proxies, and to no website."""
        source = StaticCredentials(self.alice)
        verifyObject(ICredentialSource, source)
        self.assertIs(source.credentials_for(PEER), self.alice)
        self.assertIsNone(source.credentials_for(ORIGIN))

    def test_static_for_some(self) -> None:
        """One user to the hosts and roles that were named."""
        source = StaticCredentials(
            self.alice, hosts=["Proxy.Example"], roles=[Role.ORIGIN]
        )
        self.assertIsNone(source.credentials_for(PEER))
        self.assertIs(source.credentials_for(ORIGIN), self.alice)
        other = Peer(Role.ORIGIN, "http", "other.example", 80)
        self.assertIsNone(source.credentials_for(other))

    def test_mapped(self) -> None:
        """Another user to each proxy."""
        source = MappedCredentials({("proxy.example", 3128): self.alice})
        verifyObject(ICredentialSource, source)
        self.assertIs(source.credentials_for(PEER), self.alice)
        self.assertIsNone(source.credentials_for(ORIGIN))
        other = Peer(Role.PROXY, "http", "proxy.example", 8080)
        self.assertIsNone(source.credentials_for(other))
        self.assertNotIn(SECRET, repr(source))
