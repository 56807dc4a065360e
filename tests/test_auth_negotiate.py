"""Tests for :mod:`coda_twisted.auth.negotiate`."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from coda_twisted.auth import negotiate
from coda_twisted.auth.challenge import Challenge
from coda_twisted.auth.layer import Context
from coda_twisted.auth.memory import SpaceMemory
from coda_twisted.auth.negotiate import (
    KerberosConversation,
    NegotiateConversation,
    NTLMAccount,
    NTLMConversation,
    challenge_message,
    is_ntlmv2,
)
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import (
    AuthRequest,
    GiveUp,
    Peer,
    Proceed,
    Reply,
    Role,
    Step,
    Work,
)
from coda_twisted.auth.tickets import Tickets
from coda_twisted.errors import ChallengeError, MutualAuthenticationFailed, PhaseTimeout
from coda_twisted.interfaces import IAuthConversation
from tests.acceptor import NTLMAcceptor, part
from tests.test_auth_tickets import FakeContext, Refusal

PEER = Peer(Role.PROXY, "http", "proxy.example", 3128)
REQUEST = AuthRequest(b"GET", b"http://www.example/", b"/")
PASSWORD = "correct horse"

BARE = Challenge("NTLM")

# MS-NLMP 4.2.4.3: the CHALLENGE_MESSAGE of the NTLMv2 example.
MS_CHALLENGE = bytes.fromhex(
    "4e544c4d53535000020000000c000c003800000033828ae20123456789abcdef"
    "00000000000000002400240044000000060070170000000f5300650072007600"
    "6500720002000c0044006f006d00610069006e0001000c005300650072007600"
    "6500720000000000"
)


def context(
    bindings: bytes | None = None, memory: SpaceMemory | None = None, **settings: Any
) -> Context:
    return Context(
        AuthPolicy(**settings), memory or SpaceMemory(), bindings, os.urandom
    )


def carry_out(conversation: Any, step: Step) -> Step:
    """Do the work that a step asks for, and those after it."""
    while isinstance(step, Work):
        try:
            result = step.run()
        except Exception as error:
            step = conversation.failed(error)
        else:
            step = conversation.worked(result)
    return step


class NTLMCase(SynchronousTestCase):
    """An acceptor that knows alice, in a domain, without one, and by UPN."""

    def setUp(self) -> None:
        self.acceptor = NTLMAcceptor.made_for(
            self,
            f"CORP:alice:{PASSWORD}",
            f":alice:{PASSWORD}",
            f":alice@corp.example:{PASSWORD}",
        )

    def conversation(
        self,
        username: str = "CORP\\alice",
        password: str = PASSWORD,
        bindings: bytes | None = None,
        **more: Any,
    ) -> NTLMConversation:
        return NTLMConversation(
            NTLMAccount(username, password), PEER, context(bindings), **more
        )

    def next(self, conversation: Any, step: Step) -> Step:
        """Let the acceptor answer, and the conversation answer that."""
        status, fields = self.acceptor.answer(step)
        self.assertEqual(status, 407)
        scheme, _, token68 = fields[0][1].decode().partition(" ")
        challenge = Challenge(scheme, token68 or None)
        return carry_out(conversation, conversation.challenged(challenge, REQUEST))

    def authenticate(self, conversation: NTLMConversation) -> Step:
        """Go as far as the AUTHENTICATE_MESSAGE."""
        step = carry_out(conversation, conversation.challenged(BARE, REQUEST))
        return self.next(conversation, step)


class AccountTests(SynchronousTestCase):
    """Keys are derived once for each peer."""

    def test_contexts(self) -> None:
        """Each connection has a context of its own; the account is asked once."""
        account = NTLMAccount("CORP\\alice", PASSWORD)
        self.assertFalse(account.is_ready("proxy"))
        first, second = account.context("proxy"), account.context("proxy")
        self.assertIsNot(first, second)
        self.assertTrue(account.is_ready("proxy"))
        self.assertFalse(account.is_ready("other"))
        self.assertEqual((first.step() or b"")[:8], b"NTLMSSP\0")

    def test_bounded(self) -> None:
        """Not every peer that was ever met is remembered."""
        self.patch(negotiate, "MAX_TEMPLATES", 2)
        account = NTLMAccount("alice", PASSWORD)
        for host in ("a", "b", "c"):
            account.context(host)
        ready = [host for host in ("a", "b", "c") if account.is_ready(host)]
        self.assertEqual(ready, ["c"])

    def test_repr(self) -> None:
        """The password is not shown."""
        self.assertNotIn(PASSWORD, repr(NTLMAccount("alice", PASSWORD)))


class NTLMTests(NTLMCase):
    """NTLM against an acceptor that verifies."""

    def test_three_messages(self) -> None:
        """NEGOTIATE carries no content, AUTHENTICATE carries it, and is believed."""
        conversation = self.conversation()
        verifyObject(IAuthConversation, conversation)
        step = carry_out(conversation, conversation.challenged(BARE, REQUEST))
        assert isinstance(step, Reply)
        self.assertEqual((step.send_body, step.bound, step.logon), (False, True, True))
        step = self.next(conversation, step)
        assert isinstance(step, Reply)
        self.assertEqual((step.send_body, step.bound, step.logon), (True, False, True))
        self.assertEqual(self.acceptor.answer(step), (200, []))
        self.assertEqual(conversation.accepted(None, None), Proceed())
        self.assertEqual(self.acceptor.principals, ["CORP\\alice"])

    def test_unasked(self) -> None:
        """Where NTLM is known the first request may carry the first message."""
        conversation = self.conversation()
        step = self.next(
            conversation, carry_out(conversation, conversation.first(REQUEST))
        )
        self.assertEqual(self.acceptor.answer(step), (200, []))

    def test_names(self) -> None:
        """A user may be named with a domain, without one, or as user@domain."""
        for name in ("CORP\\alice", "alice", "alice@corp.example"):
            step = self.authenticate(self.conversation(name))
            self.assertEqual(self.acceptor.answer(step), (200, []), name)
        self.assertEqual(
            self.acceptor.principals, ["CORP\\alice", "alice", "alice@corp.example"]
        )

    def test_ntlmv2_with_mic(self) -> None:
        """The response is NTLMv2's, and a MIC covers the messages."""
        step = self.authenticate(self.conversation())
        self.assertEqual(self.acceptor.answer(step), (200, []))
        [message] = self.acceptor.logons
        response = part(message, 20)
        self.assertGreater(len(response), 24)  # MS-NLMP 2.2.2.6: 24 is NTLMv1's
        # MS-NLMP 2.2.2.1: MsvAvFlags (6) of four octets, with 2 for a MIC.
        self.assertIn(b"\x06\x00\x04\x00\x02\x00\x00\x00", response)
        # Its place in the message (2.2.1.3), behind the version.
        self.assertNotEqual(message[72:88], bytes(16))

    def test_mic_is_verified(self) -> None:
        """The acceptor of these tests refuses a message whose MIC is wrong."""
        step = self.authenticate(self.conversation())
        assert isinstance(step, Reply)
        message = bytearray(b64decode(step.value[5:]))
        message[72] ^= 1
        forged = Reply(b"NTLM " + b64encode(message))
        self.assertEqual(self.acceptor.answer(forged)[0], 407)
        self.assertIn("MIC", self.acceptor.failures[0])

    def test_channel_bindings(self) -> None:
        """A logon is bound to the TLS connection it travels on (RFC 5929)."""
        for ours, status in ((b"x:1", 200), (b"x:2", 407), (None, 407)):
            self.acceptor.bindings = b"x:1"
            step = self.authenticate(self.conversation(bindings=ours))
            self.assertEqual(self.acceptor.answer(step)[0], status, ours)
        self.assertEqual(len(self.acceptor.failures), 2)
        for failure in self.acceptor.failures:
            self.assertIn("bindings", failure)

    def test_wrong_password(self) -> None:
        """A wrong password costs one logon, and ends in a rejection."""
        conversation = self.conversation(password="wrong-secret")
        step = self.next(conversation, self.authenticate(conversation))
        assert isinstance(step, GiveUp)
        self.assertTrue(step.rejected)
        self.assertEqual(step.scheme, "NTLM")
        self.assertNotIn("wrong-secret", repr(step))
        self.assertEqual(len(self.acceptor.logons), 1)

    def test_missing_domain(self) -> None:
        """Who is refused without a domain is told that one may be missing."""
        for name, told in (("alice", True), ("CORP\\alice", False), ("a@b", False)):
            conversation = self.conversation(name, "wrong")
            step = self.authenticate(conversation)
            step = conversation.challenged(BARE, REQUEST)
            assert isinstance(step, GiveUp)
            self.assertEqual("domain" in step.reason, told, name)

    def test_challenged_once_more(self) -> None:
        """A new CHALLENGE_MESSAGE after AUTHENTICATE is a refusal as well."""
        conversation = self.conversation()
        self.authenticate(conversation)
        challenge = Challenge("NTLM", b64encode(MS_CHALLENGE).decode())
        step = conversation.challenged(challenge, REQUEST)
        assert isinstance(step, GiveUp)
        self.assertTrue(step.rejected)

    def test_name_of_the_scheme(self) -> None:
        """The answer names the scheme as the challenge does."""
        self.acceptor.scheme = b"Negotiate"
        conversation = self.conversation(scheme="Negotiate")
        step = carry_out(conversation, conversation.first(REQUEST))
        step = self.next(conversation, step)
        self.assertEqual(self.acceptor.answer(step), (200, []))

    def test_unanswered(self) -> None:
        """A peer that ignores the first message is given up, the secret unspent."""
        conversation = self.conversation()
        carry_out(conversation, conversation.challenged(BARE, REQUEST))
        step = conversation.challenged(BARE, REQUEST)
        assert isinstance(step, GiveUp)
        self.assertFalse(step.rejected)

    def test_without_a_time_stamp(self) -> None:
        """A peer that sends no time stamp gets NTLMv2, too, without a MIC."""
        conversation = self.conversation()
        carry_out(conversation, conversation.first(REQUEST))
        challenge = Challenge("NTLM", b64encode(MS_CHALLENGE).decode())
        step = carry_out(conversation, conversation.challenged(challenge, REQUEST))
        assert isinstance(step, Reply)
        response = part(b64decode(step.value[5:]), 20)
        self.assertGreater(len(response), 24)
        # MS-NLMP 2.2.2.7: the target's information is sent back in the response.
        self.assertIn("Server".encode("utf-16-le"), response)
        self.assertNotIn(b"\x06\x00\x04\x00\x02\x00\x00\x00", response)

    def test_out_of_turn(self) -> None:
        """A CHALLENGE_MESSAGE that was not asked for is not answered."""
        challenge = Challenge("NTLM", b64encode(MS_CHALLENGE).decode())
        conversation = self.conversation()
        with self.assertRaises(ChallengeError):
            conversation.challenged(challenge, REQUEST)
        step = carry_out(conversation, conversation.challenged(BARE, REQUEST))
        self.assertIsInstance(step, Reply)

    def test_no_challenge_message(self) -> None:
        """What is no CHALLENGE_MESSAGE is refused before any work."""
        negotiate = b"NTLMSSP\0\x01\0\0\0" + bytes(28)
        for token in (b"", b"x", negotiate, MS_CHALLENGE[:31]):
            conversation = self.conversation()
            carry_out(conversation, conversation.challenged(BARE, REQUEST))
            challenge = Challenge("NTLM", b64encode(token).decode())
            with self.assertRaises(ChallengeError):
                conversation.challenged(challenge, REQUEST)
        with self.assertRaises(ChallengeError):
            challenge_message("a=b")

    def test_malformed_challenge_message(self) -> None:
        """One that cannot be read after all is given up, the secret unspent."""
        conversation = self.conversation()
        carry_out(conversation, conversation.challenged(BARE, REQUEST))
        broken = MS_CHALLENGE[:12] + b"\xff" * 8 + MS_CHALLENGE[20:]
        challenge = Challenge("NTLM", b64encode(broken[:40]).decode())
        step = carry_out(conversation, conversation.challenged(challenge, REQUEST))
        assert isinstance(step, GiveUp)
        self.assertFalse(step.rejected)
        self.assertIn("CHALLENGE_MESSAGE", step.reason)

    @given(st.binary(max_size=64))
    def test_hostile_challenge_message(self, payload: bytes) -> None:
        """Whatever follows the signature, an answer is NTLMv2 or there is none."""
        conversation = self.conversation()
        carry_out(conversation, conversation.first(REQUEST))
        token = b"NTLMSSP\0\x02\0\0\0" + payload
        challenge = Challenge("NTLM", b64encode(token).decode())
        try:
            step = conversation.challenged(challenge, REQUEST)
        except ChallengeError:
            return
        step = carry_out(conversation, step)
        if isinstance(step, Reply):
            self.assertTrue(is_ntlmv2(b64decode(step.value[5:])))
        else:
            assert isinstance(step, GiveUp)
            self.assertFalse(step.rejected)

    def test_never_ntlmv1(self) -> None:
        """NTLMv1 is not sent, though the environment ask for it."""
        self.addCleanup(os.environ.pop, "LM_COMPAT_LEVEL", None)
        os.environ["LM_COMPAT_LEVEL"] = "1"
        step = self.authenticate(self.conversation())
        assert isinstance(step, GiveUp)
        self.assertIn("LM_COMPAT_LEVEL", step.reason)
        self.assertEqual(self.acceptor.logons, [])

    def test_cannot_begin(self) -> None:
        """What keeps pyspnego from beginning is told by its kind alone."""
        self.addCleanup(os.environ.pop, "LM_COMPAT_LEVEL", None)
        os.environ["LM_COMPAT_LEVEL"] = "9"
        conversation = self.conversation()
        step = carry_out(conversation, conversation.first(REQUEST))
        assert isinstance(step, GiveUp)
        self.assertIn("SpnegoError", step.reason)

    def test_lengths_of_responses(self) -> None:
        """An NTLMv1 response is known by its length (MS-NLMP 2.2.2.6, 2.2.2.8)."""
        head = b"NTLMSSP\0\x03\0\0\0" + bytes(8)
        self.assertFalse(is_ntlmv2(head + b"\x18\0\x18\0"))
        self.assertTrue(is_ntlmv2(head + b"\x54\0\x54\0"))
        self.assertFalse(is_ntlmv2(b""))

    def test_no_user(self) -> None:
        """Without a name pyspnego would take somebody from a file: refused."""
        with self.assertRaises(ValueError):
            self.conversation("")

    def test_lost(self) -> None:
        """A conversation that lost its connection begins from the start."""
        conversation = self.conversation()
        carry_out(conversation, conversation.challenged(BARE, REQUEST))
        conversation.lost()
        step = self.authenticate(conversation)
        self.assertEqual(self.acceptor.answer(step), (200, []))

    def test_two_at_once(self) -> None:
        """Conversations of one user do not disturb each other."""
        first, second = self.conversation(), self.conversation()
        begun = carry_out(first, first.first(REQUEST))
        answer = self.next(first, begun)
        other = NTLMAcceptor()
        carry_out(second, second.first(REQUEST))
        _, fields = other.answer(begun)
        token68 = fields[0][1][5:].decode()
        carry_out(second, second.challenged(Challenge("NTLM", token68), REQUEST))
        self.assertEqual(self.acceptor.answer(answer), (200, []))


class KerberosCase(SynchronousTestCase):
    """Kerberos with contexts that do what the test says."""

    bare = Challenge("Negotiate")

    def conversation(
        self,
        *contexts: FakeContext | Exception,
        password: str | None = None,
        bindings: bytes | None = None,
        **settings: Any,
    ) -> KerberosConversation:
        left = list(contexts)

        def make(principal: str | None, password: str | None, host: str) -> Any:
            self.assertEqual(host, "proxy.example")
            made = left.pop(0)
            if isinstance(made, Exception):
                raise made
            return made

        self.tickets = Tickets("alice@EXAMPLE", password, make)
        return KerberosConversation(self.tickets, PEER, context(bindings, **settings))

    def say(self, conversation: Any) -> Step:
        """Answer the bare challenge."""
        return carry_out(conversation, conversation.challenged(self.bare, REQUEST))

    def with_token(self, token: bytes) -> Challenge:
        return Challenge("Negotiate", b64encode(token).decode())


class KerberosTests(KerberosCase):
    """One token from us, and perhaps one from the peer."""

    def test_token(self) -> None:
        """A bare challenge is answered with a ticket, and content may follow."""
        conversation = self.conversation(FakeContext(b"ticket"))
        verifyObject(IAuthConversation, conversation)
        step = self.say(conversation)
        assert isinstance(step, Reply)
        self.assertEqual(step.value, b"Negotiate " + b64encode(b"ticket"))
        self.assertEqual((step.send_body, step.bound, step.logon), (True, False, False))

    def test_unasked(self) -> None:
        """Where Negotiate is known the first request carries a ticket."""
        conversation = self.conversation(FakeContext(b"ticket"))
        step = carry_out(conversation, conversation.first(REQUEST))
        self.assertIsInstance(step, Reply)

    def test_what_may_cost_a_logon(self) -> None:
        """Asking a KDC with a password may cost a logon, a ticket does not."""
        for password, expected in (("pw", True), (None, False)):
            conversation = self.conversation(FakeContext(), password=password)
            step = conversation.first(REQUEST)
            assert isinstance(step, Work)
            self.assertEqual(step.logon, expected)

    def test_channel_bindings(self) -> None:
        """The ticket is bound to the TLS connection (RFC 5929)."""
        fake = FakeContext()
        self.say(self.conversation(fake, bindings=b"tls-server-end-point:x"))
        self.assertEqual(
            fake.bindings.application_data,  # type: ignore[attr-defined]
            b"tls-server-end-point:x",
        )

    def test_refused(self) -> None:
        """A refused ticket is no verdict on a password; others are got next time."""
        conversation = self.conversation(FakeContext(), FakeContext(b"new"))
        self.say(conversation)
        step = conversation.challenged(self.bare, REQUEST)
        assert isinstance(step, GiveUp)
        self.assertFalse(step.rejected)
        self.assertIn("HTTP/proxy.example", step.reason)
        following = KerberosConversation(self.tickets, PEER, context())
        reply = carry_out(following, following.first(REQUEST))
        assert isinstance(reply, Reply)
        self.assertEqual(reply.value, b"Negotiate " + b64encode(b"new"))

    def test_more_tokens(self) -> None:
        """A token of the peer's is answered if there is something to answer."""
        fake = FakeContext(b"one", b"two")
        conversation = self.conversation(fake)
        self.say(conversation)
        step = carry_out(
            conversation, conversation.challenged(self.with_token(b"t"), REQUEST)
        )
        assert isinstance(step, Reply)
        self.assertEqual(step.value, b"Negotiate " + b64encode(b"two"))
        self.assertEqual(fake.taken, [None, b"t"])

    def test_refused_with_a_token(self) -> None:
        """A challenge with a token that asks for nothing is a refusal."""
        conversation = self.conversation(FakeContext(b"one", None))
        self.say(conversation)
        step = carry_out(
            conversation, conversation.challenged(self.with_token(b"t"), REQUEST)
        )
        assert isinstance(step, GiveUp)
        self.assertFalse(step.rejected)

    def test_refused_with_an_error(self) -> None:
        """A Kerberos error message of the peer's is told."""
        skew = Refusal(37, "Clock skew too great")
        conversation = self.conversation(FakeContext(b"one", skew))
        self.say(conversation)
        step = carry_out(
            conversation, conversation.challenged(self.with_token(b"e"), REQUEST)
        )
        assert isinstance(step, GiveUp)
        self.assertFalse(step.rejected)
        self.assertIn("clock", step.reason)

    def test_out_of_turn(self) -> None:
        """A token that was not asked for, or is none, is not answered."""
        conversation = self.conversation(FakeContext())
        with self.assertRaises(ChallengeError):
            conversation.challenged(self.with_token(b"t"), REQUEST)
        self.say(conversation)
        with self.assertRaises(ChallengeError):
            conversation.challenged(Challenge("Negotiate", "a=b"), REQUEST)

    def test_no_answer(self) -> None:
        """A KDC that does not answer in time is told of."""
        conversation = self.conversation()
        conversation.first(REQUEST)
        step = conversation.failed(PhaseTimeout("authentication", 30))
        assert isinstance(step, GiveUp)
        self.assertFalse(step.rejected)
        self.assertIn("KDC", step.reason)

    def test_unexpected(self) -> None:
        """Of an unexpected exception no more than the kind is told."""
        conversation = self.conversation()
        conversation.first(REQUEST)
        step = conversation.failed(ValueError("secret"))
        assert isinstance(step, GiveUp)
        self.assertIn("ValueError", step.reason)
        self.assertNotIn("secret", step.reason)

    def test_lost(self) -> None:
        """A conversation that lost its connection begins from the start."""
        conversation = self.conversation(FakeContext(), FakeContext(b"new"))
        self.say(conversation)
        conversation.lost()
        self.assertIsInstance(self.say(conversation), Reply)


class MutualTests(KerberosCase):
    """The peer's proof of itself."""

    def accept(
        self, final: Any, challenge: Challenge | None, **settings: Any
    ) -> tuple[Step, FakeContext]:
        fake = FakeContext(b"ticket", final)
        conversation = self.conversation(fake, **settings)
        self.say(conversation)
        step = conversation.accepted(challenge, None)
        return carry_out(conversation, step), fake

    def test_proof(self) -> None:
        """The token on the final answer is checked."""
        step, fake = self.accept(None, self.with_token(b"proof"))
        self.assertEqual(step, Proceed())
        self.assertEqual(fake.taken, [None, b"proof"])

    def test_wrong_proof(self) -> None:
        """A wrong one fails the request."""
        for final in (Refusal(31, "bad"), b"not complete"):
            with self.assertRaises(MutualAuthenticationFailed) as caught:
                self.accept(final, self.with_token(b"proof"))
            self.assertEqual(caught.exception.peer, str(PEER))
            self.assertEqual(caught.exception.scheme, "Negotiate")

    def test_malformed_proof(self) -> None:
        """So does one that is none."""
        with self.assertRaises(MutualAuthenticationFailed):
            self.accept(None, Challenge("Negotiate", "a=b"))

    def test_no_proof(self) -> None:
        """Squid sends none; unless policy requires it, that will do."""
        for challenge in (None, self.bare):
            step, _ = self.accept(None, challenge)
            self.assertEqual(step, Proceed())
            with self.assertRaises(MutualAuthenticationFailed):
                self.accept(None, challenge, mutual="require")

    def test_switched_off(self) -> None:
        """Policy may switch the check off."""
        step, fake = self.accept(None, self.with_token(b"wrong"), mutual="off")
        self.assertEqual(step, Proceed())
        self.assertEqual(fake.taken, [None])

    def test_proven_already(self) -> None:
        """A context that is complete needs no more tokens."""
        fake = FakeContext(b"one", None)
        conversation = self.conversation(fake, mutual="require")
        self.say(conversation)
        fake.step(b"proof")
        step = conversation.accepted(self.with_token(b"again"), None)
        self.assertEqual(step, Proceed())


class NegotiateTests(NTLMCase):
    """NTLM under the name of Negotiate, where policy allows it."""

    def setUp(self) -> None:
        super().setUp()
        self.acceptor.scheme = b"Negotiate"

    def negotiate(
        self, make: Callable[..., Any], tickets: Tickets | None = None
    ) -> NegotiateConversation:
        self.tickets = tickets or Tickets("alice", PASSWORD, make)
        return NegotiateConversation(
            self.tickets, NTLMAccount("CORP\\alice", PASSWORD), PEER, context()
        )

    def say(self, conversation: NegotiateConversation) -> Step:
        challenge = Challenge("Negotiate")
        return carry_out(conversation, conversation.challenged(challenge, REQUEST))

    @staticmethod
    def no_kdc(*_: Any) -> Any:
        raise Refusal(156, "Cannot contact any KDC")

    def test_kerberos(self) -> None:
        """Kerberos is spoken where there is Kerberos, and ends as it ends."""
        conversation = self.negotiate(lambda *_: FakeContext(b"ticket", None))
        verifyObject(IAuthConversation, conversation)
        step = self.say(conversation)
        assert isinstance(step, Reply)
        self.assertEqual(step.value, b"Negotiate " + b64encode(b"ticket"))
        self.assertEqual(conversation.accepted(None, None), Proceed())
        refused = conversation.challenged(Challenge("Negotiate"), REQUEST)
        self.assertIsInstance(refused, GiveUp)

    def test_ntlm(self) -> None:
        """Without a KDC it is NTLM, and the acceptor believes it."""
        conversation = self.negotiate(self.no_kdc)
        step = self.next(conversation, self.say(conversation))
        self.assertEqual(self.acceptor.answer(step), (200, []))
        self.assertEqual(conversation.accepted(None, None), Proceed())
        self.assertEqual(conversation.scheme, "Negotiate")

    def test_slow_kdc(self) -> None:
        """So it is where the KDC does not answer."""
        conversation = self.negotiate(self.no_kdc)
        conversation.first(REQUEST)
        step = conversation.failed(PhaseTimeout("authentication", 30))
        step = self.next(conversation, carry_out(conversation, step))
        self.assertEqual(self.acceptor.answer(step), (200, []))

    def test_remembered(self) -> None:
        """Where Kerberos failed and NTLM worked, the next one begins with NTLM."""
        asked: list[Any] = []

        def make(*arguments: Any) -> Any:
            asked.append(arguments)
            self.no_kdc()

        self.say(self.negotiate(make))
        following = self.negotiate(make, self.tickets)
        step = self.next(following, carry_out(following, following.first(REQUEST)))
        self.assertEqual(self.acceptor.answer(step), (200, []))
        self.assertEqual(len(asked), 1)

    def test_rejected(self) -> None:
        """A password that the KDC has refused is not sent by NTLM."""

        def refuse(*_: Any) -> Any:
            raise Refusal(24, "Preauthentication failed")

        step = self.say(self.negotiate(refuse))
        assert isinstance(step, GiveUp)
        self.assertTrue(step.rejected)
        self.assertEqual(self.acceptor.negotiates, 0)

    def test_lost(self) -> None:
        """After a lost connection it begins with Kerberos again."""
        conversation = self.negotiate(self.no_kdc)
        self.say(conversation)
        conversation.lost()
        self.assertIs(conversation.scheme, "Negotiate")
        step = self.next(conversation, self.say(conversation))
        self.assertEqual(self.acceptor.answer(step), (200, []))
