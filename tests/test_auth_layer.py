"""Tests for :mod:`coda_twisted.auth.layer` and :mod:`coda_twisted.auth.offers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from coda_twisted.auth.challenge import Challenge
from coda_twisted.auth.layer import MAX_LEGS, AuthLayer, Context
from coda_twisted.auth.memory import SpaceMemory
from coda_twisted.auth.offers import MAX_REFUSALS
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
from coda_twisted.credentials import PasswordCredentials
from coda_twisted.errors import (
    AuthenticationFailed,
    ChallengeError,
    CredentialsRejected,
    MutualAuthenticationFailed,
)
from coda_twisted.interfaces import IAuthConversation, ICredentials
from tests.acceptor import Fields, NTLMAcceptor, settle

PEER = Peer(Role.PROXY, "http", "proxy.example", 3128)
REQUEST = AuthRequest(b"GET", b"http://www.example/", b"/")
PASSWORD = "correct horse"


def asks(*challenges: bytes) -> Fields:
    """Fields of a 407."""
    return [(b"proxy-authenticate", each) for each in challenges]


@implementer(IAuthConversation)
class Scripted:
    """
    A conversation that says what it was told to say.

    What it was told is a step, or an exception to raise.  For ``bytes`` it replies
    with them, for ``None`` it proceeds.
    """

    def __init__(self, scheme: str, script: list[Any], *, bound: bool) -> None:
        self.scheme = scheme
        self.connection_bound = bound
        self.script = script
        self.heard: list[Any] = []
        self.gone = False

    def _next(self, heard: Any) -> Step:
        assert not self.gone
        self.heard.append(heard)
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        if isinstance(step, bytes):
            return Reply(step)
        return Proceed() if step is None else step

    def first(self, request: AuthRequest) -> Step:
        return self._next("first")

    def challenged(self, challenge: Challenge, request: AuthRequest) -> Step:
        return self._next(challenge)

    def worked(self, result: Any) -> Step:
        return self._next(("worked", result))

    def failed(self, error: Exception) -> Step:
        return self._next(("failed", error))

    def accepted(self, challenge: Challenge | None, info: bytes | None) -> Step:
        return self._next((challenge, info))

    def lost(self) -> None:
        self.gone = True


@implementer(ICredentials)
class Script:
    """
    Credentials whose conversations follow scripts.

    :ivar scripts: For each scheme one script for each conversation.
    """

    identity = "alice"
    fingerprint = 1
    bound = ("ntlm", "negotiate")

    def __init__(self, **scripts: list[Any]) -> None:
        self.scripts = scripts
        self.begun: list[Scripted] = []

    def schemes(self) -> Sequence[str]:
        return tuple(self.scripts)

    def conversation(self, scheme: str, peer: Peer, context: Context) -> Scripted:
        script = self.scripts[scheme].pop(0)
        if isinstance(script, Exception):
            raise script
        conversation = Scripted(
            scheme.title(), list(script), bound=scheme in self.bound
        )
        self.begun.append(conversation)
        return conversation

    @property
    def last(self) -> Scripted:
        return self.begun[-1]


class LayerCase(SynchronousTestCase):
    """A layer with a script."""

    def setUp(self) -> None:
        self.memory = SpaceMemory()

    def layer(
        self, credentials: ICredentials | None = None, **policy: Any
    ) -> AuthLayer:
        context = Context(
            AuthPolicy(**policy), self.memory, None, lambda size: bytes(size)
        )
        return AuthLayer(PEER, credentials, context)

    def scripted(self, **scripts: list[Any]) -> AuthLayer:
        self.script = Script(**scripts)
        return self.layer(self.script)

    def begun(self) -> list[str]:
        return [each.scheme for each in self.script.begun]


PROBE = Reply(b"NTLM 1", send_body=False, bound=True)
LAST = Reply(b"NTLM 3")
WORK = Work(lambda: None)
NO = GiveUp("cannot")
REJECTED = GiveUp("wrong password", rejected=True)


class BeginningTests(LayerCase):
    """What the first request and the first challenge lead to."""

    def test_stranger(self) -> None:
        """Nothing is sent to a peer of which nothing is known."""
        layer = self.scripted(basic=[])
        self.assertFalse(layer.needs_fresh_connection)
        self.assertEqual(layer.start(REQUEST), Proceed())
        self.assertEqual(layer.accepted([]), Proceed())
        self.assertFalse(layer.proven)
        self.assertIn("proxy.example", repr(layer))

    def test_nobody(self) -> None:
        """Without credentials a challenge is the caller's to see."""
        layer = self.layer(None)
        self.memory.scheme = "basic"
        self.assertEqual(layer.start(REQUEST), Proceed())
        self.assertEqual(layer.challenged(asks(b"Basic realm=r"), REQUEST), Proceed())

    def test_no_challenge(self) -> None:
        """A 407 without a challenge is answered with nothing."""
        layer = self.scripted(basic=[])
        fields = [(b"WWW-Authenticate", b"Basic realm=r")]
        self.assertEqual(layer.challenged(fields, REQUEST), Proceed())

    def test_best_first(self) -> None:
        """The best challenge is answered; lines and letter case do not matter."""
        layer = self.scripted(basic=[[b"Basic x"]], ntlm=[[b"NTLM 1"]])
        fields = [
            (b"Proxy-Authenticate", b"Basic realm=r"),
            (b"PROXY-AUTHENTICATE", b"NTLM"),
        ]
        self.assertEqual(layer.challenged(fields, REQUEST), Reply(b"NTLM 1"))
        self.assertEqual(self.script.last.heard, [Challenge("NTLM")])

    def test_remembered(self) -> None:
        """What the peer accepted is said unasked the next time."""
        layer = self.scripted(basic=[[b"Basic x", None], [b"Basic y"]])
        layer.challenged(asks(b"Basic realm=r"), REQUEST)
        self.assertIsNone(self.memory.scheme)
        self.assertEqual(layer.accepted([]), Proceed())
        self.assertTrue(layer.proven)
        self.assertEqual(self.memory.scheme, "basic")
        self.assertIsNone(layer.identity)
        self.assertIn("IDLE", repr(layer))
        self.assertEqual(layer.start(REQUEST), Reply(b"Basic y"))
        self.assertEqual(self.script.last.heard, ["first"])

    def test_remembered_but_not_allowed(self) -> None:
        """What policy or credentials no longer allow is not said unasked."""
        self.memory.scheme = "basic"
        self.assertEqual(self.scripted(ntlm=[]).start(REQUEST), Proceed())
        layer = self.layer(Script(basic=[]), schemes=("ntlm",))
        self.assertEqual(layer.start(REQUEST), Proceed())

    def test_nothing_to_say_unasked(self) -> None:
        """A conversation that needs a challenge first lets the request go."""
        self.memory.scheme = "digest"
        layer = self.scripted(digest=[[None], [b"Digest x"]])
        self.assertEqual(layer.start(REQUEST), Proceed())
        self.assertTrue(self.script.last.gone)
        fields = asks(b'Digest realm="r", nonce="n"')
        self.assertEqual(layer.challenged(fields, REQUEST), Reply(b"Digest x"))

    def test_cannot_be_said_unasked(self) -> None:
        """Without a ticket the request goes bare, and the peer says what else."""
        self.memory.scheme = "negotiate"
        layer = self.scripted(negotiate=[[WORK, NO]], ntlm=[[PROBE]])
        self.assertEqual(layer.start(REQUEST), WORK)
        self.assertEqual(layer.worked(None), Proceed())
        self.assertIsNone(self.memory.scheme)
        self.assertEqual(layer.challenged(asks(b"Negotiate", b"NTLM"), REQUEST), PROBE)
        self.assertFalse(layer.needs_fresh_connection)

    def test_refused_by_the_kdc_unasked(self) -> None:
        """A KDC that refuses the password ends the request before it is sent."""
        self.memory.scheme = "negotiate"
        layer = self.scripted(negotiate=[[WORK, REJECTED]])
        layer.start(REQUEST)
        step = layer.worked(None)
        assert isinstance(step, GiveUp)
        self.assertTrue(step.rejected)
        self.assertEqual(step.scheme, "Negotiate")


class FallThroughTests(LayerCase):
    """Schemes that fail without a verdict on the secret."""

    def test_next_in_rank(self) -> None:
        """However a scheme fails, the next one is begun."""
        for failure in (
            AuthenticationFailed("no"),
            [NO],
            [ChallengeError("malformed")],
            [AuthenticationFailed("no")],
        ):
            layer = self.scripted(negotiate=[failure], basic=[[b"Basic x"]])
            step = layer.challenged(asks(b"Negotiate, Basic realm=r"), REQUEST)
            self.assertEqual(step, Reply(b"Basic x"))
            self.assertFalse(layer.needs_fresh_connection)

    def test_after_work(self) -> None:
        """Also where it turns out in a thread."""
        for report in (
            lambda layer: layer.worked(None),
            lambda layer: layer.failed(ValueError()),
        ):
            layer = self.scripted(negotiate=[[WORK, NO]], basic=[[b"Basic x"]])
            layer.challenged(asks(b"Negotiate, Basic realm=r"), REQUEST)
            self.assertEqual(report(layer), Reply(b"Basic x"))
            self.assertTrue(self.script.begun[0].gone)

    def test_none_left(self) -> None:
        """If none is left, the reason for each is told."""
        layer = self.scripted(negotiate=[[NO]], ntlm=[[GiveUp("broken")]])
        step = layer.challenged(
            asks(b"Frob", b"NTLM", b"Negotiate", b"Frob, Basic realm=r"), REQUEST
        )
        assert isinstance(step, GiveUp)
        self.assertFalse(step.rejected)
        self.assertEqual(
            dict(layer.refusals),
            {
                "Frob": "the credentials cannot speak it",
                "Basic": "the credentials cannot speak it",
                "Negotiate": "cannot",
                "NTLM": "broken",
            },
        )
        for scheme, reason in layer.refusals:
            self.assertIn(f"{scheme}: {reason}", step.reason)
        layer.challenged([], REQUEST)
        self.assertEqual(layer.refusals, ())
        layer.challenged(asks(b"Frob"), REQUEST)
        layer.start(REQUEST)
        self.assertEqual(layer.refusals, ())

    def test_dead(self) -> None:
        """What failed is not begun again, on this connection or the next."""
        layer = self.scripted(negotiate=[[NO]], basic=[[b"B", None], [b"B"], [b"B"]])
        layer.challenged(asks(b"Negotiate, Basic realm=r"), REQUEST)
        layer.accepted([])
        self.memory.scheme = "negotiate"
        self.assertEqual(layer.start(REQUEST), Proceed())
        for each in (layer, layer.successor()):
            step = each.challenged(asks(b"Negotiate, Basic realm=r"), REQUEST)
            self.assertEqual(step, Reply(b"B"))

    def test_one_of_several_digests(self) -> None:
        """Of Digest only the algorithm and the realm that failed are dead."""
        layer = self.scripted(digest=[[NO], [NO], [b"Digest x"]])
        step = layer.challenged(
            asks(
                b'Digest realm="r", nonce="n"',
                b'Digest realm="r", nonce="n", algorithm=SHA-256',
                b'Digest realm="s", nonce="n", algorithm=SHA-256',
            ),
            REQUEST,
        )
        self.assertEqual(step, Reply(b"Digest x"))
        algorithms = [
            each.heard[0].params.get("algorithm") for each in self.script.begun
        ]
        self.assertEqual(algorithms, ["SHA-256", "SHA-256", None])

    def test_digest_that_was_begun_unasked(self) -> None:
        """What is dead is what the peer asked for, not what was remembered."""
        self.memory.scheme = "digest"
        layer = self.scripted(
            digest=[[b"Digest x", ChallengeError("malformed")], [b"Digest y"]]
        )
        layer.start(REQUEST)
        offered = asks(
            b'Digest realm="r", nonce="n", algorithm=SHA-256',
            b'Digest realm="r", nonce="n"',
        )
        self.assertEqual(layer.challenged(offered, REQUEST), Reply(b"Digest y"))
        [challenge] = self.script.last.heard
        self.assertNotIn("algorithm", challenge.params)

    def test_broken_handshake(self) -> None:
        """After a handshake the peer has begun, the next one needs a new connection."""
        layer = self.scripted(ntlm=[[PROBE, NO]], basic=[[b"Basic x"]])
        offered = asks(b"NTLM", b"Basic realm=r")
        self.assertEqual(layer.challenged(offered, REQUEST), PROBE)
        # Squid lists nothing else beside its token: what it listed before counts.
        step = layer.challenged(asks(b"NTLM xxxx"), REQUEST)
        self.assertEqual(step, Reply(b"Basic x"))
        self.assertTrue(layer.needs_fresh_connection)
        layer.moved(b"binding")
        self.assertFalse(layer.needs_fresh_connection)
        self.assertEqual(layer._context.channel_bindings, b"binding")

    def test_one_new_connection_is_enough(self) -> None:
        """What follows on the new connection may stay there."""
        digest = b'Digest realm="r", nonce="n"'
        layer = self.scripted(
            ntlm=[[PROBE, NO]], digest=[[b"Digest x", b"Digest y", NO]], basic=[[b"B"]]
        )
        layer.challenged(asks(b"NTLM", digest, b"Basic realm=r"), REQUEST)
        layer.challenged(asks(b"NTLM xxxx"), REQUEST)
        self.assertTrue(layer.needs_fresh_connection)
        for expected in (b"Digest y", b"B"):
            step = layer.challenged(asks(digest, b"Basic realm=r"), REQUEST)
            self.assertEqual(step, Reply(expected))
            self.assertFalse(layer.needs_fresh_connection)

    def test_next_request(self) -> None:
        """What one request wanted the next one does not."""
        layer = self.scripted(ntlm=[[PROBE, NO]], basic=[[b"Basic x"]])
        layer.challenged(asks(b"NTLM", b"Basic realm=r"), REQUEST)
        layer.challenged(asks(b"NTLM xxxx"), REQUEST)
        layer.start(REQUEST)
        self.assertFalse(layer.needs_fresh_connection)

    def test_broken_in_a_thread(self) -> None:
        """Also where it turns out in a thread."""
        layer = self.scripted(ntlm=[[PROBE, WORK, NO]], negotiate=[[NO], [NO]])
        layer.challenged(asks(b"NTLM, Negotiate"), REQUEST)
        layer.challenged(asks(b"NTLM xxxx"), REQUEST)
        self.assertFalse(layer.needs_fresh_connection)
        self.assertIsInstance(layer.failed(ValueError()), GiveUp)
        layer = self.scripted(ntlm=[[PROBE, WORK, NO]], basic=[[b"Basic x"]])
        layer.challenged(asks(b"NTLM, Basic realm=r"), REQUEST)
        layer.challenged(asks(b"NTLM xxxx"), REQUEST)
        self.assertEqual(layer.failed(ValueError()), Reply(b"Basic x"))
        self.assertTrue(layer.needs_fresh_connection)

    def test_refused_ticket(self) -> None:
        """A refused ticket is followed by the next scheme, on a new connection."""
        ticket = Reply(b"Negotiate x", logon=False)
        layer = self.scripted(negotiate=[[ticket, NO]], ntlm=[[PROBE]])
        offered = asks(b"Negotiate", b"NTLM")
        layer.challenged(offered, REQUEST)
        self.assertEqual(layer.challenged(offered, REQUEST), PROBE)
        self.assertTrue(layer.needs_fresh_connection)

    def test_broken_unasked_handshake(self) -> None:
        """If the peer never listed its schemes there is nothing to fall back on."""
        self.memory.scheme = "ntlm"
        layer = self.scripted(ntlm=[[PROBE, NO]], basic=[])
        layer.start(REQUEST)
        step = layer.challenged(asks(b"NTLM xxxx"), REQUEST)
        self.assertIsInstance(step, GiveUp)
        self.assertEqual(layer.refusals, (("NTLM", "cannot"),))
        self.assertEqual(layer.successor().start(REQUEST), Proceed())

    def test_thousands_of_challenges(self) -> None:
        """A peer that lists thousands is not told a reason for each."""
        count = 3000
        layer = self.scripted(digest=[[NO] for _ in range(count)])
        fields = asks(*(b"Digest realm=%d" % number for number in range(count)))
        self.assertIsInstance(layer.challenged(fields, REQUEST), GiveUp)
        self.assertLessEqual(len(layer.refusals), MAX_REFUSALS)

    def test_legs(self) -> None:
        """A peer that never stops asking is given up."""
        layer = self.scripted(digest=[[b"Digest x"] * 20])
        steps = [
            layer.challenged(asks(b'Digest realm="r", nonce="n"'), REQUEST)
            for _ in range(MAX_LEGS)
        ]
        self.assertEqual(steps[:-1], [Reply(b"Digest x")] * (MAX_LEGS - 1))
        assert isinstance(steps[-1], GiveUp)
        self.assertFalse(steps[-1].rejected)
        self.assertTrue(self.script.last.gone)

    def test_legs_of_each_request(self) -> None:
        """Legs are counted for each request."""
        layer = self.scripted(digest=[[b"Digest x"] * 9] * 2)
        for _ in range(2):
            layer.start(REQUEST)
            for _ in range(MAX_LEGS - 1):
                step = layer.challenged(asks(b'Digest realm="r", nonce="n"'), REQUEST)
                self.assertEqual(step, Reply(b"Digest x"))


class VerdictTests(LayerCase):
    """Secrets that were judged."""

    def rejects(self, step: Step, *begun: str) -> None:
        assert isinstance(step, GiveUp), step
        self.assertTrue(step.rejected)
        self.assertEqual(self.begun(), list(begun))
        self.assertTrue(all(each.gone for each in self.script.begun))
        self.assertIsNone(self.memory.scheme)

    def test_no_second_scheme(self) -> None:
        """A refused password is not tried in another scheme."""
        for verdict in (REJECTED, CredentialsRejected("no", identity="alice")):
            layer = self.scripted(digest=[[b"Digest x", verdict]], basic=[])
            offered = asks(b'Digest realm="r", nonce="n"', b"Basic realm=r")
            layer.challenged(offered, REQUEST)
            step = layer.challenged(offered, REQUEST)
            self.rejects(step, "Digest")
            assert isinstance(step, GiveUp)
            self.assertEqual(step.scheme, "Digest")

    def test_withdrawn_after_the_handshake(self) -> None:
        """A peer that lists only other schemes after it judged has refused."""
        layer = self.scripted(ntlm=[[PROBE, LAST]], basic=[])
        layer.challenged(asks(b"NTLM, Basic realm=r"), REQUEST)
        layer.challenged(asks(b"NTLM xxxx"), REQUEST)
        self.rejects(layer.challenged(asks(b"Basic realm=r"), REQUEST), "Ntlm")

    def test_withdrawn_after_an_unasked_handshake(self) -> None:
        """Also where the handshake was begun unasked."""
        self.memory.scheme = "ntlm"
        layer = self.scripted(ntlm=[[PROBE, LAST]], basic=[])
        layer.start(REQUEST)
        layer.challenged(asks(b"NTLM xxxx"), REQUEST)
        self.rejects(layer.challenged(asks(b"Basic realm=r"), REQUEST), "Ntlm")

    def test_withdrawn_after_an_answer(self) -> None:
        """So has one that lists others after an answer it asked for."""
        layer = self.scripted(digest=[[b"Digest x"]], basic=[])
        layer.challenged(asks(b'Digest realm="r", nonce="n"'), REQUEST)
        self.rejects(layer.challenged(asks(b"Basic realm=r"), REQUEST), "Digest")

    def test_withdrawn_after_a_second_answer(self) -> None:
        """Also where the first one was said unasked."""
        self.memory.scheme = "digest"
        layer = self.scripted(digest=[[b"Digest x", b"Digest y"]], basic=[])
        layer.start(REQUEST)
        layer.challenged(asks(b'Digest realm="r", nonce="n"'), REQUEST)
        self.rejects(layer.challenged(asks(b"Basic realm=r"), REQUEST), "Digest")

    def test_withdrawn_before_any_answer(self) -> None:
        """A peer that wants another scheme than it used to is answered in that."""
        self.memory.scheme = "basic"
        layer = self.scripted(basic=[[b"Basic x"]], ntlm=[[PROBE]])
        self.assertEqual(layer.start(REQUEST), Reply(b"Basic x"))
        self.assertEqual(layer.challenged(asks(b"NTLM"), REQUEST), PROBE)
        self.assertFalse(layer.needs_fresh_connection)
        self.assertTrue(self.script.begun[0].gone)

    def test_withdrawn_in_the_next_request(self) -> None:
        """What was asked for in one request was not asked for in the next."""
        layer = self.scripted(basic=[[b"Basic x", None], [b"Basic y"]], ntlm=[[PROBE]])
        layer.challenged(asks(b"Basic realm=r"), REQUEST)
        layer.accepted([])
        layer.start(REQUEST)
        self.assertEqual(layer.challenged(asks(b"NTLM"), REQUEST), PROBE)

    def test_withdrawn_after_a_request_was_given_up(self) -> None:
        """Nor was what was asked for in a request that nobody waits for."""
        layer = self.scripted(basic=[[b"Basic x"], [b"Basic y"]], ntlm=[[PROBE]])
        layer.challenged(asks(b"Basic realm=r"), REQUEST)
        self.memory.scheme = "basic"
        layer.start(REQUEST)
        self.assertEqual(layer.challenged(asks(b"NTLM"), REQUEST), PROBE)

    def test_withdrawn_in_mid_handshake(self) -> None:
        """So it is if it wants another one in place of a handshake."""
        self.memory.scheme = "ntlm"
        layer = self.scripted(basic=[[b"Basic x"]], ntlm=[[PROBE]])
        layer.start(REQUEST)
        step = layer.challenged(asks(b"Basic realm=r"), REQUEST)
        self.assertEqual(step, Reply(b"Basic x"))
        self.assertTrue(layer.needs_fresh_connection)

    def test_ticket_withdrawn(self) -> None:
        """A peer that refuses a ticket and withdraws Negotiate has judged nothing."""
        ticket = Reply(b"Negotiate x", logon=False)
        layer = self.scripted(negotiate=[[ticket]], ntlm=[[PROBE]])
        layer.challenged(asks(b"Negotiate"), REQUEST)
        self.assertEqual(layer.challenged(asks(b"NTLM"), REQUEST), PROBE)


class ContinuationTests(LayerCase):
    """Which challenge a conversation gets to see."""

    def seen(self, *offered: bytes, **policy: Any) -> Challenge | None:
        """The second challenge of a Digest conversation that began with SHA-256."""
        self.script = Script(digest=[[b"Digest x", b"Digest y"]])
        layer = self.layer(self.script, **policy)
        begin = b'Digest realm="r", nonce="1", algorithm=SHA-256'
        layer.challenged(asks(begin), REQUEST)
        layer.challenged(asks(*offered), REQUEST)
        heard = self.script.last.heard
        return heard[1] if len(heard) > 1 else None

    def test_same(self) -> None:
        """It goes on with what it began, though there be something better."""
        seen = self.seen(
            b'Digest realm="r", nonce="2"',
            b'Digest realm="r", nonce="2", algorithm=sha-256',
            b'Digest realm="r", nonce="2", algorithm=SHA-512-256',
            b"Negotiate",
        )
        assert seen is not None
        self.assertEqual(seen.params["algorithm"], "sha-256")

    def test_best(self) -> None:
        """If that is gone, it goes on with the best of its scheme."""
        seen = self.seen(
            b'Digest realm="r", nonce="2"',
            b'Digest realm="r", nonce="2", algorithm=SHA-512-256',
        )
        assert seen is not None
        self.assertEqual(seen.params["algorithm"], "SHA-512-256")

    def test_acceptable(self) -> None:
        """What policy forbids is not gone on with."""
        seen = self.seen(b'Digest realm="r", nonce="2"', min_digest="SHA-256")
        self.assertIsNone(seen)

    def test_token(self) -> None:
        """A handshake goes on with the token, wherever it stands."""
        layer = self.scripted(ntlm=[[PROBE, LAST]])
        layer.challenged(asks(b"NTLM"), REQUEST)
        layer.challenged(asks(b"NTLM", b"NTLM xxxx"), REQUEST)
        self.assertEqual(self.script.last.heard[1].token68, "xxxx")


class ConnectionTests(LayerCase):
    """Schemes that authenticate the connection."""

    def authenticated(self, *more: list[Any], **scripts: list[Any]) -> AuthLayer:
        layer = self.scripted(ntlm=[[PROBE, LAST, None], *more], **scripts)
        layer.challenged(asks(b"NTLM"), REQUEST)
        layer.challenged(asks(b"NTLM xxxx"), REQUEST)
        layer.accepted([])
        self.assertEqual(layer.identity, "alice")
        return layer

    def test_nothing_more(self) -> None:
        """An authenticated connection needs no credentials."""
        layer = self.authenticated()
        for _ in range(3):
            self.assertEqual(layer.start(REQUEST), Proceed())
            self.assertEqual(layer.accepted([]), Proceed())
            self.assertFalse(layer.proven)

    def test_per_request(self) -> None:
        """A peer that asks again at once wants them with every request."""
        layer = self.authenticated([PROBE, LAST, None], [PROBE])
        layer.start(REQUEST)
        self.assertEqual(layer.challenged(asks(b"NTLM"), REQUEST), PROBE)
        self.assertTrue(self.memory.per_request)
        self.assertIsNone(layer.identity)
        self.assertFalse(layer.needs_fresh_connection)
        layer.challenged(asks(b"NTLM xxxx"), REQUEST)
        layer.accepted([])
        self.assertEqual(layer.start(REQUEST), PROBE)

    def test_expired(self) -> None:
        """One that was content for a while has forgotten us, and that is all."""
        layer = self.authenticated([PROBE, LAST, None])
        layer.start(REQUEST)
        layer.accepted([])
        layer.start(REQUEST)
        self.assertEqual(layer.challenged(asks(b"NTLM"), REQUEST), PROBE)
        self.assertFalse(self.memory.per_request)
        layer.challenged(asks(b"NTLM xxxx"), REQUEST)
        layer.accepted([])
        self.assertEqual(layer.start(REQUEST), Proceed())

    def test_expired_and_per_request(self) -> None:
        """One that has forgotten us may want them each time from then on."""
        layer = self.authenticated([PROBE, LAST, None], [PROBE])
        layer.start(REQUEST)
        layer.accepted([])
        for learnt in (False, True):
            layer.start(REQUEST)
            self.assertEqual(layer.challenged(asks(b"NTLM"), REQUEST), PROBE)
            self.assertEqual(self.memory.per_request, learnt)
            if not learnt:
                layer.challenged(asks(b"NTLM xxxx"), REQUEST)
                layer.accepted([])

    def test_learnt_elsewhere(self) -> None:
        """What one connection learns of the peer holds for the others."""
        layer = self.authenticated([PROBE, LAST])
        self.memory.per_request = True
        self.assertEqual(layer.start(REQUEST), PROBE)
        self.assertEqual(layer.challenged(asks(b"NTLM xxxx"), REQUEST), LAST)

    def test_persistent_auth(self) -> None:
        """A peer may say which it is."""
        for told, per_request in ((b"false", True), (b"TRUE", False), (b"x", True)):
            self.memory.per_request = True
            layer = self.scripted(negotiate=[[b"Negotiate x", None], [b"Negotiate y"]])
            layer.challenged(asks(b"Negotiate"), REQUEST)
            layer.accepted([(b"persistent-auth", told)])
            self.assertEqual(self.memory.per_request, per_request)
            expected = Reply(b"Negotiate y") if per_request else Proceed()
            self.assertEqual(layer.start(REQUEST), expected)

    def test_wants_another_scheme(self) -> None:
        """Another scheme than the one that authenticated it needs a new connection."""
        layer = self.authenticated(basic=[[b"Basic x"]])
        layer.start(REQUEST)
        self.memory.strongest = 0
        self.assertEqual(
            layer.challenged(asks(b"Basic realm=r"), REQUEST), Reply(b"Basic x")
        )
        self.assertTrue(layer.needs_fresh_connection)

    def test_blocked_page(self) -> None:
        """A 407 that asks for nothing leaves the connection authenticated."""
        layer = self.authenticated()
        layer.start(REQUEST)
        self.assertEqual(layer.challenged([], REQUEST), Proceed())
        self.assertEqual(layer.start(REQUEST), Proceed())
        self.assertEqual(layer.identity, "alice")

    def test_blocked_page_in_mid_handshake(self) -> None:
        """In mid-handshake it ends the handshake."""
        layer = self.scripted(ntlm=[[PROBE]])
        layer.challenged(asks(b"NTLM"), REQUEST)
        self.assertEqual(layer.challenged([], REQUEST), Proceed())
        self.assertTrue(self.script.last.gone)

    def test_stops_asking(self) -> None:
        """A peer that is content in mid-handshake has proven and taught nothing."""
        layer = self.scripted(ntlm=[[PROBE], [PROBE]])
        layer.challenged(asks(b"NTLM"), REQUEST)
        self.assertEqual(layer.accepted([]), Proceed())
        self.assertFalse(layer.proven)
        self.assertIsNone(layer.identity)
        self.assertIsNone(self.memory.scheme)
        self.assertTrue(self.script.last.gone)
        self.assertEqual(layer.start(REQUEST), Proceed())
        self.assertEqual(layer.challenged(asks(b"NTLM"), REQUEST), PROBE)

    def test_nothing_proven_by_a_page(self) -> None:
        """A page after a refusal does not prove what was refused."""
        layer = self.scripted(basic=[[b"Basic x", REJECTED]])
        for _ in range(2):
            layer.challenged(asks(b"Basic realm=r"), REQUEST)
        layer.accepted([])
        self.assertFalse(layer.proven)

    def test_lost(self) -> None:
        """A lost connection takes everything with it but what is dead."""
        layer = self.authenticated(basic=[[b"Basic x"]])
        layer.start(REQUEST)
        layer.accepted([])
        layer.lost()
        self.assertIsNone(layer.identity)
        self.memory.scheme, self.memory.strongest = None, 0
        self.assertEqual(layer.start(REQUEST), Proceed())
        layer.challenged(asks(b"Basic realm=r"), REQUEST)
        self.assertFalse(layer.needs_fresh_connection)

    def test_lost_when_it_should_have_moved(self) -> None:
        """What should have travelled on a new connection has nowhere to go."""
        layer = self.authenticated(basic=[[b"Basic x"]])
        self.memory.strongest = 0
        layer.challenged(asks(b"Basic realm=r"), REQUEST)
        layer.lost()
        self.assertFalse(layer.needs_fresh_connection)

    def test_authenticated_again_elsewhere(self) -> None:
        """What the former connection was content with says nothing of the next."""
        for leave in (lambda layer: layer.lost(), lambda layer: layer.moved(None)):
            layer = self.authenticated([PROBE, LAST, None], [PROBE])
            layer.start(REQUEST)
            layer.accepted([])
            leave(layer)
            layer.start(REQUEST)
            layer.challenged(asks(b"NTLM xxxx"), REQUEST)
            layer.accepted([])
            layer.start(REQUEST)
            layer.challenged(asks(b"NTLM"), REQUEST)
            self.assertTrue(self.memory.per_request)
            self.memory.forget()

    def test_moved_before_anything_was_said(self) -> None:
        """What was said on the former connection does not count on the next."""
        layer = self.authenticated([WORK, PROBE, NO], basic=[[b"Basic x"]])
        layer.start(REQUEST)
        self.assertEqual(layer.challenged(asks(b"NTLM, Basic realm=r"), REQUEST), WORK)
        layer.moved(None)
        self.assertIsNone(layer.identity)
        self.assertEqual(layer.worked(None), PROBE)
        layer.moved(None)  # and what is about to be said does
        layer.challenged(asks(b"NTLM xxxx"), REQUEST)
        self.assertTrue(layer.needs_fresh_connection)

    def test_moved_and_nothing_said(self) -> None:
        """On a connection on which nothing was said another scheme may begin."""
        layer = self.authenticated([WORK, NO], basic=[[b"Basic x"]])
        layer.challenged(asks(b"NTLM, Basic realm=r"), REQUEST)
        layer.moved(None)
        self.assertEqual(layer.failed(ValueError()), Reply(b"Basic x"))
        self.assertFalse(layer.needs_fresh_connection)

    def test_moved_while_authenticated(self) -> None:
        """The new connection is not ours yet, and being asked teaches nothing."""
        layer = self.authenticated([PROBE])
        layer.start(REQUEST)
        layer.moved(None)
        self.assertIsNone(layer.identity)
        self.assertEqual(layer.challenged(asks(b"NTLM"), REQUEST), PROBE)
        self.assertFalse(self.memory.per_request)

    def test_request_given_up(self) -> None:
        """A request that nobody waits for leaves no conversation behind."""
        layer = self.scripted(ntlm=[[WORK], [WORK, PROBE]])
        layer.challenged(asks(b"NTLM"), REQUEST)
        self.assertEqual(layer.start(REQUEST), Proceed())
        self.assertTrue(self.script.last.gone)
        self.assertEqual(layer.challenged(asks(b"NTLM"), REQUEST), WORK)
        self.assertEqual(layer.worked(None), PROBE)


class MutualTests(LayerCase):
    """The peer's proof of itself."""

    def accepted(self, *script: Any) -> tuple[AuthLayer, Step]:
        layer = self.scripted(negotiate=[[b"Negotiate x", *script]])
        layer.challenged(asks(b"Negotiate"), REQUEST)
        step = layer.accepted(
            iter(
                [
                    (b"Proxy-Authenticate", b"Negotiate xxxx"),
                    (b"Proxy-Authentication-Info", b"a=1"),
                    (b"proxy-authentication-info", b"b=2"),
                ]
            )
        )
        return layer, step

    def test_what_the_conversation_sees(self) -> None:
        """It gets the final challenge, and the info with its lines joined."""
        self.accepted(None)
        challenge, info = self.script.last.heard[1]
        self.assertEqual(challenge.token68, "xxxx")
        self.assertEqual(info, b"a=1, b=2")

    def test_proof(self) -> None:
        """Nothing is learnt before the proof was checked."""
        layer, step = self.accepted(WORK, WORK, None)
        self.assertEqual(step, WORK)
        self.assertIsNone(self.memory.scheme)
        self.assertEqual(layer.failed(ValueError()), WORK)
        self.assertIsNone(layer.identity)
        self.assertEqual(layer.worked(None), Proceed())
        self.assertEqual((layer.identity, self.memory.scheme), ("alice", "negotiate"))

    def test_no_proof(self) -> None:
        """A peer that does not prove itself is not learnt from."""
        error = MutualAuthenticationFailed("no")
        with self.assertRaises(MutualAuthenticationFailed):
            self.accepted(error)
        self.assertTrue(self.script.last.gone)
        layer, _ = self.accepted(WORK, error)
        with self.assertRaises(MutualAuthenticationFailed):
            layer.failed(ValueError())
        self.assertIsNone(self.memory.scheme)
        self.assertIsNone(layer.identity)

    def test_given_up(self) -> None:
        """Nor is one whose proof could not be checked."""
        for script in ([NO], [WORK, NO]):
            layer, step = self.accepted(*script)
            if step == WORK:
                step = layer.worked(None)
            self.assertEqual(step, NO)
            self.assertIsNone(layer.identity)
            self.assertTrue(self.script.last.gone)


class DowngradeTests(LayerCase):
    """A peer that asks for less than it used to."""

    def test_only_basic_later(self) -> None:
        """The password is not sent in clear to a peer that offered NTLM."""
        layer = self.scripted(ntlm=[[NO]], basic=[])
        layer.challenged(asks(b"NTLM"), REQUEST)
        step = self.layer(self.script).challenged(asks(b"Basic realm=r"), REQUEST)
        assert isinstance(step, GiveUp)
        self.assertIn("stronger", step.reason)
        self.assertFalse(step.rejected)

    def test_in_use(self) -> None:
        """Where Basic is in use it remains so: some of its nodes offer more."""
        layer = self.scripted(negotiate=[[NO]], basic=[[b"Basic x", None], [b"B"]])
        layer.challenged(asks(b"Negotiate", b"Basic realm=r"), REQUEST)
        layer.accepted([])
        layer = self.layer(self.script)
        self.assertEqual(layer.challenged(asks(b"Basic realm=r"), REQUEST), Reply(b"B"))

    def test_what_we_cannot_speak(self) -> None:
        """What we could never speak does not count as stronger."""
        layer = self.scripted(basic=[[b"Basic x"], [b"Basic y"]])
        layer.challenged(asks(b"Negotiate", b"Basic realm=r"), REQUEST)
        layer = self.layer(self.script)
        self.assertEqual(
            layer.challenged(asks(b"Basic realm=r"), REQUEST), Reply(b"Basic y")
        )


class DriverTests(LayerCase):
    """Drivers that lose count."""

    def test_out_of_turn(self) -> None:
        """While work is under way only its outcome may be reported."""
        layer = self.scripted(ntlm=[[WORK, PROBE]])
        layer.challenged(asks(b"NTLM"), REQUEST)
        with self.assertRaises(RuntimeError):
            layer.challenged(asks(b"NTLM"), REQUEST)
        with self.assertRaises(RuntimeError):
            layer.accepted([])
        self.assertEqual(layer.worked(None), PROBE)

    def test_no_work(self) -> None:
        """Without work there is no outcome."""
        layer = self.scripted(ntlm=[[WORK]])
        with self.assertRaises(RuntimeError):
            layer.worked(None)
        layer.challenged(asks(b"NTLM"), REQUEST)
        layer.lost()
        with self.assertRaises(RuntimeError):
            layer.failed(ValueError())


class PassingTests(LayerCase):
    """Whether a request may go by without asking the layer."""

    def test_nothing_known(self) -> None:
        """Where nothing was ever asked for, there is nothing to say."""
        layer = self.layer(PasswordCredentials("alice", PASSWORD))
        self.assertTrue(layer.passes)
        layer.start(REQUEST)
        layer.accepted([])
        self.assertTrue(layer.passes)

    def test_known_scheme(self) -> None:
        """A scheme that is known is spoken at once."""
        layer = self.layer(PasswordCredentials("alice", PASSWORD))
        layer.challenged([(b"Proxy-Authenticate", b'Basic realm="r"')], REQUEST)
        self.assertFalse(layer.passes)  # it is speaking
        layer.accepted([])
        self.assertFalse(layer.passes)  # it speaks for each request


class NTLMDialogueTests(LayerCase):
    """Whole dialogues with an acceptor that verifies."""

    def setUp(self) -> None:
        super().setUp()
        self.acceptor = NTLMAcceptor.made_for(self, f"CORP:alice:{PASSWORD}")
        self.sent: list[Step] = []

    def user(self, password: str = PASSWORD) -> AuthLayer:
        return self.layer(
            PasswordCredentials("CORP\\alice", password), schemes=("ntlm", "basic")
        )

    def request(self, layer: AuthLayer) -> Step:
        """Drive one request as far as it goes."""
        self.sent = []
        step = settle(layer, layer.start(REQUEST))
        while not isinstance(step, GiveUp):
            self.sent.append(step)
            status, fields = self.acceptor.answer(step)
            if status != 407:
                return settle(layer, layer.accepted(fields))
            step = settle(layer, layer.challenged(fields, REQUEST))
        return step

    def bodies(self) -> list[bool]:
        return [not isinstance(each, Reply) or each.send_body for each in self.sent]

    def test_three_legs_then_none(self) -> None:
        """The first request takes three legs, the next ones nothing."""
        layer = self.user()
        self.assertEqual(self.request(layer), Proceed())
        self.assertEqual(self.bodies(), [True, False, True])
        self.assertFalse(layer.passes)  # the proxy may want it for each request
        self.assertEqual(self.request(layer), Proceed())
        self.assertEqual(self.sent, [Proceed()])
        self.assertTrue(layer.passes)
        self.memory.per_request = True
        self.assertFalse(layer.passes)
        self.assertEqual(self.acceptor.principals, ["CORP\\alice"])

    def test_next_connection(self) -> None:
        """The next connection begins with the first message at once."""
        self.request(self.user())
        self.acceptor.connected()
        self.assertEqual(self.request(self.user()), Proceed())
        self.assertEqual(self.bodies(), [False, True])

    def test_wrong_password(self) -> None:
        """A wrong password costs one logon, and no other scheme is tried."""
        self.acceptor.others = [b"Basic realm=r"]
        step = self.request(self.user("wrong-secret"))
        assert isinstance(step, GiveUp)
        self.assertTrue(step.rejected)
        self.assertEqual(len(self.acceptor.logons), 1)
        self.assertEqual(self.bodies(), [True, False, True])
        self.assertNotIn("wrong-secret", repr(step) + repr(self.sent))

    def test_changed_password(self) -> None:
        """So does one that was good when the scheme was learnt."""
        self.request(self.user())
        self.acceptor.connected()
        self.acceptor.logons.clear()
        step = self.request(self.user("old"))
        assert isinstance(step, GiveUp)
        self.assertTrue(step.rejected)
        self.assertEqual(len(self.acceptor.logons), 1)

    def test_per_request(self) -> None:
        """A peer that forgets each logon is authenticated to each time."""
        self.acceptor.per_request = True
        layer = self.user()
        for legs in (3, 3, 2, 2):
            self.assertEqual(self.request(layer), Proceed())
            self.assertEqual(len(self.sent), legs)
        self.assertEqual(self.acceptor.failures, [])

    def test_expired(self) -> None:
        """A connection that the peer has forgotten is authenticated again."""
        layer = self.user()
        self.request(layer)
        self.request(layer)
        self.acceptor.connected()
        self.assertEqual(self.request(layer), Proceed())
        self.assertEqual(len(self.sent), 3)
        self.assertEqual(self.request(layer), Proceed())
        self.assertEqual(self.sent, [Proceed()])
