"""Tests of the Basic scheme."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from coda_twisted.auth.basic import BasicConversation, State
from coda_twisted.auth.challenge import Challenge
from coda_twisted.auth.layer import Context
from coda_twisted.auth.memory import SpaceMemory
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import AuthRequest, GiveUp, Peer, Proceed, Reply, Role
from coda_twisted.errors import AuthenticationFailed, LocalProtocolError
from coda_twisted.interfaces import IAuthConversation

PROXY = Peer(Role.PROXY, "http", "proxy.example", 3128)
REQUEST = AuthRequest(b"GET", b"http://example.org/", b"/")
CHALLENGE = Challenge("Basic", params={"realm": "WallyWorld"})
UTF8_CHALLENGE = Challenge("Basic", params={"realm": "foo", "charset": "UTF-8"})


def conversation(
    username: str = "Aladdin",
    password: str = "open sesame",
    memory: SpaceMemory | None = None,
) -> BasicConversation:
    context = Context(
        policy=AuthPolicy(),
        memory=memory or SpaceMemory(),
        channel_bindings=None,
        entropy=bytes,
    )
    return BasicConversation(username, password, PROXY, context)


class EncodingTests(SynchronousTestCase):
    def test_rfc_example(self) -> None:
        """RFC 7617 2: Aladdin opens the cave."""
        step = conversation().challenged(CHALLENGE, REQUEST)
        self.assertEqual(step, Reply(b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="))

    def test_rfc_charset_example(self) -> None:
        """RFC 7617 2.1: a pound sign is sent in UTF-8, as it was asked for."""
        step = conversation("test", "123\N{POUND SIGN}").challenged(
            UTF8_CHALLENGE, REQUEST
        )
        self.assertEqual(step, Reply(b"Basic dGVzdDoxMjPCow=="))

    def test_charset_not_asked_for(self) -> None:
        """Without being asked for it, UTF-8 is still the best guess."""
        step = conversation("test", "123\N{POUND SIGN}").challenged(CHALLENGE, REQUEST)
        self.assertEqual(step, Reply(b"Basic dGVzdDoxMjPCow=="))

    def test_normalised(self) -> None:
        """An accent typed apart from its letter is the same letter (RFC 7617 2.1)."""
        # Octets 61 3A C3 A9: "a", colon, e with acute accent in one.
        step = conversation("a", "e\N{COMBINING ACUTE ACCENT}").challenged(
            UTF8_CHALLENGE, REQUEST
        )
        self.assertEqual(step, Reply(b"Basic YTrDqQ=="))

    def test_undecodable(self) -> None:
        """A password that came as octets of no known encoding is sent as it came."""
        password = b"\xff".decode("utf-8", "surrogateescape")
        step = conversation("a", password).challenged(CHALLENGE, REQUEST)
        self.assertEqual(step, Reply(b"Basic YTr/"))  # octets 61 3A FF

    def test_empty_password(self) -> None:
        """A password may be empty, and may hold colons."""
        step = conversation("a", "").challenged(CHALLENGE, REQUEST)
        self.assertEqual(step, Reply(b"Basic YTo="))
        step = conversation("a", ":").challenged(CHALLENGE, REQUEST)
        self.assertEqual(step, Reply(b"Basic YTo6"))

    def test_unsendable(self) -> None:
        """What cannot be said in Basic is refused at once, without telling it."""
        for username, password in (
            ("a:b", "SECRET"),
            ("a\r\nb", "SECRET"),
            ("a\x7f", "SECRET"),
            ("a", "SECRET\n"),
            ("a", "SECRET\ud800"),
            ("a\udd00", "SECRET"),
        ):
            with self.subTest(username=username):
                error = self.assertRaises(
                    AuthenticationFailed, conversation, username, password
                )
                self.assertEqual(error.scheme, "Basic")
                self.assertEqual(error.peer, "proxy http://proxy.example:3128")
                self.assertNotIn("SECRET", repr(error) + str(error))


class ConversationTests(SynchronousTestCase):
    def test_interface(self) -> None:
        """Basic is a conversation like others; it authenticates requests."""
        basic = conversation()
        self.assertTrue(verifyObject(IAuthConversation, basic))
        self.assertEqual(basic.scheme, "Basic")
        self.assertFalse(basic.connection_bound)

    def test_refused(self) -> None:
        """A refused password is not sent again."""
        basic = conversation()
        basic.challenged(CHALLENGE, REQUEST)
        step = basic.challenged(CHALLENGE, REQUEST)
        assert isinstance(step, GiveUp)
        self.assertTrue(step.rejected)
        self.assertEqual(step.scheme, "Basic")
        self.assertEqual(step.realm, "WallyWorld")

    def test_accepted(self) -> None:
        """An accepted password is sent unasked with the next request."""
        memory = SpaceMemory()
        basic = conversation(memory=memory)
        basic.challenged(CHALLENGE, REQUEST)
        self.assertEqual(basic.accepted(None, None), Proceed())
        self.assertEqual(memory.realm, "WallyWorld")

        other = conversation(memory=memory)
        expected = Reply(b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
        self.assertEqual(basic.first(REQUEST), expected)
        self.assertEqual(other.first(REQUEST), expected)
        other.accepted(None, None)
        self.assertEqual(memory.realm, "WallyWorld")

    def test_no_realm(self) -> None:
        """A challenge without a realm is against RFC 7617, and is answered."""
        step = conversation().challenged(Challenge("Basic"), REQUEST)
        self.assertEqual(step, Reply(b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="))

    def test_unasked_refused(self) -> None:
        """A password that was refused when sent unasked is refused."""
        basic = conversation()
        basic.first(REQUEST)
        step = basic.challenged(CHALLENGE, REQUEST)
        assert isinstance(step, GiveUp)
        self.assertTrue(step.rejected)

    def test_repr(self) -> None:
        """The password is in no repr."""
        basic = conversation("a", "SECRET")
        self.assertEqual(
            repr(basic),
            "<BasicConversation with proxy http://proxy.example:3128, IDLE>",
        )
        self.assertNotIn("U0VDUkVU", repr(basic.challenged(CHALLENGE, REQUEST)))


def idle() -> BasicConversation:
    return conversation()


def answered() -> BasicConversation:
    basic = conversation()
    basic.challenged(CHALLENGE, REQUEST)
    return basic


def over() -> BasicConversation:
    basic = answered()
    basic.challenged(CHALLENGE, REQUEST)
    return basic


Input = Callable[[BasicConversation], object]
INPUTS: dict[str, Input] = {
    "first": lambda basic: basic.first(REQUEST),
    "challenged": lambda basic: basic.challenged(CHALLENGE, REQUEST),
    "accepted": lambda basic: basic.accepted(None, b""),
    "lost": lambda basic: basic.lost(),
    "worked": lambda basic: basic.worked(None),
    "failed": lambda basic: basic.failed(ValueError()),
}

# From each state by each input: what comes of it, and the state after it.  What is
# not listed raises LocalProtocolError and changes nothing.
MOVES: dict[tuple[Callable[[], BasicConversation], str], tuple[type, State]] = {
    (idle, "first"): (Reply, State.ANSWERED),
    (idle, "challenged"): (Reply, State.ANSWERED),
    (idle, "accepted"): (Proceed, State.IDLE),
    (idle, "lost"): (type(None), State.IDLE),
    (answered, "first"): (Reply, State.ANSWERED),
    (answered, "challenged"): (GiveUp, State.OVER),
    (answered, "accepted"): (Proceed, State.IDLE),
    (answered, "lost"): (type(None), State.IDLE),
    (over, "lost"): (type(None), State.OVER),
}


class MachineTests(SynchronousTestCase):
    def test_every_state_and_input(self) -> None:
        """Each input is welcome in each state, or refused without consequences."""
        for begin in (idle, answered, over):
            for name, act in INPUTS.items():
                with self.subTest(begin=begin.__name__, input=name):
                    basic = begin()
                    before = basic._state
                    move = MOVES.get((begin, name))
                    if move is None:
                        self.assertRaises(LocalProtocolError, act, basic)
                        self.assertIs(basic._state, before)
                    else:
                        outcome, state = move
                        self.assertIsInstance(act(basic), outcome)
                        self.assertIs(basic._state, state)
