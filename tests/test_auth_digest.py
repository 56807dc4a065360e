"""Tests of when Digest answers, with which nonce, and when it gives up."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from coda_twisted.auth.challenge import Challenge
from coda_twisted.auth.digest import MAX_STALE_ROUNDS, DigestConversation, State
from coda_twisted.auth.memory import Quirk, SpaceMemory
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import (
    AuthRequest,
    GiveUp,
    Peer,
    Proceed,
    Reply,
    Role,
    Step,
)
from coda_twisted.errors import LocalProtocolError, MutualAuthenticationFailed
from coda_twisted.interfaces import IAuthConversation
from tests.digest import (
    DIRECT,
    HASHES,
    ORIGIN,
    PLAIN,
    PROXY,
    TUNNEL,
    challenge,
    fields_of,
    proven,
    response,
    talk,
)


class NonceTests(SynchronousTestCase):
    def test_nothing_remembered(self) -> None:
        """The first request ever is sent as it is."""
        self.assertEqual(talk().first(PLAIN), Proceed())

    def test_unasked(self) -> None:
        """With a nonce that was accepted, the next requests need no challenge."""
        digest, memory = proven(PLAIN)
        self.assertEqual(memory.realm, "r")
        sent = [fields_of(each.first(PLAIN)) for each in (digest, talk(memory=memory))]
        self.assertEqual([f["nonce"] for f in sent], ["n1", "n1"])
        self.assertEqual([f["nc"] for f in sent], ["00000002", "00000003"])
        for fields in sent:
            self.assertEqual(
                fields["response"],
                response(fields, b"Mufasa", b"Circle of Life", "GET"),
            )

    def test_count_is_hexadecimal(self) -> None:
        """The count is written in eight hexadecimal digits, which Squid insists on."""
        digest, memory = proven(PLAIN)
        memory.nonce(challenge(), "n1").count = 0xAF
        self.assertEqual(fields_of(digest.first(PLAIN))["nc"], "000000b0")

    def test_not_yet_accepted(self) -> None:
        """A nonce whose answer is not judged yet is not used by others."""
        memory = SpaceMemory()
        talk(memory=memory).challenged(challenge(), PLAIN)
        self.assertEqual(talk(memory=memory).first(PLAIN), Proceed())

    def test_same_nonce_for_many(self) -> None:
        """Connections that are challenged with one nonce count together."""
        memory = SpaceMemory()
        counts = [
            fields_of(talk(memory=memory).challenged(challenge(), PLAIN))["nc"]
            for _ in range(3)
        ]
        self.assertEqual(counts, ["00000001", "00000002", "00000003"])

    def test_fresh_cnonce(self) -> None:
        """Each request has a cnonce of its own."""
        digest, _ = proven(PLAIN)
        cnonces = {fields_of(digest.first(PLAIN))["cnonce"] for _ in range(3)}
        self.assertEqual(len(cnonces), 3)

    def test_session_cnonce(self) -> None:
        """With -sess, a session keeps its first cnonce, on all connections."""
        digest, memory = proven(PLAIN, algorithm="MD5-sess")
        sent = [fields_of(each.first(PLAIN)) for each in (digest, talk(memory=memory))]
        self.assertEqual(sent[0]["cnonce"], sent[1]["cnonce"])
        for fields in sent:
            self.assertEqual(
                fields["response"],
                response(fields, b"Mufasa", b"Circle of Life", "GET"),
            )

    def test_session_without_qop(self) -> None:
        """With -sess the peer needs the cnonce even if it has no qop."""
        asked = challenge(qop=None, algorithm="MD5-sess")
        fields = fields_of(talk().challenged(asked, PLAIN))
        self.assertIn("cnonce", fields)
        self.assertNotIn("nc", fields)
        self.assertEqual(
            fields["response"], response(fields, b"Mufasa", b"Circle of Life", "GET")
        )

    def test_algorithms(self) -> None:
        """Every algorithm is computed right, and echoed in the peer's spelling."""
        for name in HASHES:
            for spelling in (name, name.lower(), f"{name}-sess", f"{name}-SESS"):
                asked = challenge(algorithm=spelling)
                fields = fields_of(talk().challenged(asked, PLAIN))
                self.assertEqual(fields["algorithm"], spelling)
                self.assertEqual(
                    fields["response"],
                    response(fields, b"Mufasa", b"Circle of Life", "GET"),
                )

    def test_nextnonce(self) -> None:
        """The peer may name the nonce for what follows; its count begins anew."""
        digest, memory = proven(PLAIN)
        digest.first(PLAIN)
        digest.accepted(None, b'nextnonce="n2"')  # as Squid sends it
        for each, nc in ((digest, "00000001"), (talk(memory=memory), "00000002")):
            fields = fields_of(each.first(PLAIN))
            self.assertEqual((fields["nonce"], fields["nc"]), ("n2", nc))
            self.assertEqual(
                fields["response"],
                response(fields, b"Mufasa", b"Circle of Life", "GET"),
            )

    def test_nextnonce_is_the_only_one(self) -> None:
        """The nonce before it is not used again, even if the next one is refused."""
        digest, memory = proven(PLAIN)
        digest.first(PLAIN)
        digest.accepted(None, b'nextnonce="n2"')
        digest.first(PLAIN)
        digest.challenged(challenge("n3", stale="true"), PLAIN)
        digest.lost()
        self.assertEqual(talk(memory=memory).first(PLAIN), Proceed())

    def test_empty_nextnonce(self) -> None:
        """An empty nextnonce is none."""
        digest, _ = proven(PLAIN)
        digest.first(PLAIN)
        digest.accepted(None, b'nextnonce=""')
        self.assertEqual(fields_of(digest.first(PLAIN))["nonce"], "n1")

    def test_nextnonce_of_a_session(self) -> None:
        """With -sess, a session goes on with the nonce it began with."""
        digest, _ = proven(PLAIN, algorithm="SHA-256-sess")
        digest.first(PLAIN)
        digest.accepted(None, b'nextnonce="n2"')
        self.assertEqual(fields_of(digest.first(PLAIN))["nonce"], "n1")

    def test_min_digest_of_remembered(self) -> None:
        """What policy excludes is not used unasked either."""
        _, memory = proven(PLAIN)
        digest = talk(memory=memory, policy=AuthPolicy(min_digest="SHA-256"))
        self.assertEqual(digest.first(PLAIN), Proceed())

    def test_domain(self) -> None:
        """A nonce is used unasked where the origin says that it is for."""
        for domain, path, covered in (
            ("/private /also", b"/private/x", True),
            ("/private /also", b"/also", True),
            ("/private /also", b"/", False),
            ("http://www.example/private", b"/private/x", True),
            ("HTTP://WWW.Example:80/private", b"/private/x", True),
            ("http://www.example", b"/x", True),
            ("http://www.example.evil/", b"/x", False),
            ("http://www.example:8080/", b"/x", False),
            ("http://other.example/", b"/x", False),
            ("https://www.example/", b"/x", False),
            ("", b"/x", True),
        ):
            with self.subTest(domain=domain, path=path):
                digest, _ = proven(DIRECT, peer=ORIGIN, domain=domain)
                step = digest.first(AuthRequest(b"GET", path, path))
                self.assertEqual(isinstance(step, Reply), covered)

    def test_domain_elsewhere(self) -> None:
        """Ports and IPv6 addresses in a domain are compared, too."""
        peer = Peer(Role.ORIGIN, "https", "::1", 8443)
        for domain, covered in (
            ("https://[::1]:8443/", True),
            ("https://[::1]/", False),
        ):
            digest, _ = proven(DIRECT, peer=peer, domain=domain)
            self.assertEqual(isinstance(digest.first(DIRECT), Reply), covered)

    def test_domain_of_a_proxy(self) -> None:
        """A proxy's domain means nothing (RFC 7616 3.3)."""
        digest, _ = proven(PLAIN, domain="/private")
        fields_of(digest.first(PLAIN))

    def test_several_spaces(self) -> None:
        """Each part of a site keeps its own nonce."""
        digest, _ = proven(DIRECT, peer=ORIGIN, domain="/a", realm="A")
        elsewhere = AuthRequest(b"GET", b"/b", b"/b")
        self.assertEqual(digest.first(elsewhere), Proceed())
        digest.challenged(challenge("n2", realm="B", domain="/b"), elsewhere)
        digest.accepted(None, None)
        self.assertEqual(fields_of(digest.first(DIRECT))["nonce"], "n1")
        self.assertEqual(fields_of(digest.first(elsewhere))["nonce"], "n2")

    def test_other_realm_unasked(self) -> None:
        """A nonce sent to the wrong part of a site is still good in the right one."""
        digest, memory = proven(DIRECT, peer=ORIGIN, realm="A")
        elsewhere = AuthRequest(b"GET", b"/b", b"/b")
        digest.first(elsewhere)
        fields = fields_of(digest.challenged(challenge("n2", realm="B"), elsewhere))
        self.assertEqual((fields["realm"], fields["nonce"]), ("B", "n2"))
        digest.lost()
        self.assertEqual(fields_of(talk(ORIGIN, memory).first(DIRECT))["nonce"], "n1")


class RejectionTests(SynchronousTestCase):
    """What the next challenge says about the answer before."""

    def rejected(self, step: Step) -> None:
        assert isinstance(step, GiveUp), step
        self.assertTrue(step.rejected)

    def test_wrong_password(self) -> None:
        """A wrong password is sent once."""
        for request in (PLAIN, TUNNEL):
            digest = talk()
            digest.challenged(challenge(), request)
            self.rejected(digest.challenged(challenge("n2"), request))

    def test_not_stale(self) -> None:
        """``stale=false`` is no excuse."""
        digest = talk()
        digest.challenged(challenge(), PLAIN)
        self.rejected(digest.challenged(challenge("n2", stale="false"), PLAIN))

    def test_stale(self) -> None:
        """A stale nonce is replaced by the one that comes with the news."""
        digest, memory = proven(PLAIN)
        digest.first(PLAIN)
        fields = fields_of(digest.challenged(challenge("n2", stale="TRUE"), PLAIN))
        self.assertEqual((fields["nonce"], fields["nc"]), ("n2", "00000001"))
        digest.accepted(None, None)
        self.assertEqual([n.value for n in memory.proven_nonces()], ["n2"])

    def test_stale_then_wrong(self) -> None:
        """
        Squid calls an unknown nonce stale whatever the password; what it says of the
        next one counts.
        """
        digest, memory = proven(PLAIN)
        digest.first(PLAIN)
        digest.challenged(challenge("n2", stale="true"), PLAIN)
        self.rejected(digest.challenged(challenge("n3"), PLAIN))
        self.assertEqual(talk(memory=memory).first(PLAIN), Proceed())

    def test_always_stale(self) -> None:
        """A peer to whom every nonce is stale is not answered for ever."""
        digest = talk()
        digest.challenged(challenge(), PLAIN)
        for number in range(MAX_STALE_ROUNDS):
            asked = challenge(f"s{number}", stale="true")
            fields_of(digest.challenged(asked, PLAIN))
        step = digest.challenged(challenge("n", stale="true"), PLAIN)
        assert isinstance(step, GiveUp)
        self.assertFalse(step.rejected)
        self.assertIn("stale", step.reason)
        self.assertEqual(MAX_STALE_ROUNDS, 3)

    def test_rounds_of_one_request(self) -> None:
        """The rounds are counted for each request by itself."""
        digest = talk()
        for _ in range(2):
            digest.challenged(challenge(), PLAIN)
            for _ in range(MAX_STALE_ROUNDS):
                step = digest.challenged(challenge("s", stale="true"), PLAIN)
                self.assertIsInstance(step, Reply)
            digest.accepted(None, None)

    def test_same_nonce_stale(self) -> None:
        """A peer that names the same nonce again gets the next count."""
        digest, _ = proven(PLAIN)
        digest.first(PLAIN)
        fields = fields_of(digest.challenged(challenge("n1", stale="true"), PLAIN))
        self.assertEqual((fields["nonce"], fields["nc"]), ("n1", "00000003"))

    def test_forgotten_nonce(self) -> None:
        """A nonce that worked before and no longer does is replaced once."""
        digest, _ = proven(TUNNEL)
        digest.first(TUNNEL)
        fields = fields_of(digest.challenged(challenge("n2"), TUNNEL))
        self.assertEqual((fields["nonce"], fields["nc"]), ("n2", "00000001"))
        self.rejected(digest.challenged(challenge("n3"), TUNNEL))

    def test_forgotten_again(self) -> None:
        """That may happen to every request; squid may restart more than once."""
        digest, _ = proven(TUNNEL)
        for number in range(3):
            digest.first(TUNNEL)
            self.assertIsInstance(
                digest.challenged(challenge(f"x{number}"), TUNNEL), Reply
            )
            digest.accepted(None, None)

    def test_refused_meanwhile(self) -> None:
        """Once another connection knows the secret to be wrong, it is not repeated."""
        digest, memory = proven(PLAIN)
        digest.first(PLAIN)
        memory.secret_refused()
        self.rejected(digest.challenged(challenge("n2"), PLAIN))

    def test_refused_for_all(self) -> None:
        """After a refusal, no connection sends anything unasked."""
        digest, memory = proven(PLAIN)
        digest.first(PLAIN)
        digest.challenged(challenge("n2"), PLAIN)
        digest.challenged(challenge("n3"), PLAIN)
        self.assertFalse(memory.proven)
        self.assertEqual(talk(memory=memory).first(PLAIN), Proceed())

    def test_unreadable_verdict(self) -> None:
        """A refusal need not be a complete challenge to be one."""
        digest = talk()
        digest.challenged(challenge(), PLAIN)
        self.rejected(digest.challenged(Challenge("Digest"), PLAIN))

    def test_stale_without_nonce(self) -> None:
        """A peer that calls the nonce stale and has no other breaks the rules."""
        digest = talk()
        digest.challenged(challenge(), PLAIN)
        step = digest.challenged(
            Challenge("Digest", params={"realm": "r", "stale": "true"}), PLAIN
        )
        self.assertEqual(
            step, GiveUp("the Digest challenge has no nonce", False, "Digest", "r")
        )


class ThriftTests(SynchronousTestCase):
    """Failed logons are dear: directories lock accounts after a few."""

    @given(
        known=st.sampled_from([None, PLAIN, TUNNEL]),
        request=st.sampled_from([PLAIN, TUNNEL]),
        stale=st.lists(st.booleans(), min_size=8, max_size=8),
    )
    @settings(max_examples=100, deadline=None)
    def test_logons(
        self, known: AuthRequest | None, request: AuthRequest, stale: list[bool]
    ) -> None:
        """
        A peer that refuses everything has judged one answer when we give up, and two
        if it had accepted the password before.
        """
        digest, _ = proven(known) if known else (talk(), None)
        step = digest.first(request)
        judged = answers = 0
        for number, excuse in enumerate(stale):
            if isinstance(step, Reply):
                answers += 1
                judged += not excuse
            asked = challenge(f"x{number}", stale=str(excuse))
            step = digest.challenged(asked, request)
            if isinstance(step, GiveUp):
                self.assertLessEqual(judged, 2 if known else 1)
                self.assertLessEqual(answers, judged + MAX_STALE_ROUNDS + 1)
                self.assertEqual(step.rejected, not excuse)
                return
        self.fail("it never gives up")


class UriTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """
        A proxy gets path and query as from curl, and host and port for a tunnel; an
        origin server gets path and query, even through a proxy.
        """
        for peer, request, uri in (
            (PROXY, PLAIN, "/a?b=c"),
            (PROXY, TUNNEL, "www.example:443"),
            (ORIGIN, DIRECT, "/a?b=c"),
            (ORIGIN, PLAIN, "/a?b=c"),
        ):
            fields = fields_of(talk(peer).challenged(challenge(), request))
            self.assertEqual(fields["uri"], uri)
            self.assertEqual(
                fields["response"],
                response(fields, b"Mufasa", b"Circle of Life", request.method.decode()),
            )

    def test_absolute_form(self) -> None:
        """A proxy that knows us gets the absolute form when it refuses the path."""
        digest, memory = proven(TUNNEL)
        self.assertEqual(fields_of(digest.first(PLAIN))["uri"], "/a?b=c")
        fields = fields_of(digest.challenged(challenge("n2"), PLAIN))
        self.assertEqual(fields["uri"], "http://www.example/a?b=c")
        self.assertEqual(
            fields["response"], response(fields, b"Mufasa", b"Circle of Life", "GET")
        )
        digest.accepted(None, None)

        self.assertEqual(memory.quirks, {Quirk.ABSOLUTE_FORM_URI})
        for each in (digest, talk(memory=memory)):
            fields = fields_of(each.first(PLAIN))
            self.assertEqual(fields["uri"], "http://www.example/a?b=c")
            self.assertEqual(fields_of(each.first(TUNNEL))["uri"], "www.example:443")

    def test_absolute_form_asked_for(self) -> None:
        """The same, where there was no nonce left to begin with."""
        digest, memory = proven(TUNNEL)
        for nonce in list(memory.proven_nonces()):
            memory.drop(nonce)
        digest.challenged(challenge("n2"), PLAIN)
        fields = fields_of(digest.challenged(challenge("n3"), PLAIN))
        self.assertEqual(fields["uri"], "http://www.example/a?b=c")
        step = digest.challenged(challenge("n4"), PLAIN)
        assert isinstance(step, GiveUp)
        self.assertTrue(step.rejected)

    def test_absolute_form_and_stale(self) -> None:
        """A form once in doubt stays the same while the nonce is renewed."""
        digest, _ = proven(TUNNEL)
        digest.first(PLAIN)
        digest.challenged(challenge("n2"), PLAIN)
        fields = fields_of(digest.challenged(challenge("n3", stale="true"), PLAIN))
        self.assertEqual(fields["uri"], "http://www.example/a?b=c")

    def test_absolute_form_without_outcome(self) -> None:
        """If the connection ends before the verdict, the doubt begins anew."""
        digest, _ = proven(TUNNEL)
        digest.first(PLAIN)
        digest.challenged(challenge("n2"), PLAIN)
        digest.lost()
        fields = fields_of(digest.challenged(challenge("n3"), PLAIN))
        self.assertEqual(fields["uri"], "/a?b=c")

    def test_absolute_form_refused(self) -> None:
        """If that is refused as well, it is the password: two attempts in all."""
        digest, memory = proven(TUNNEL)
        digest.first(PLAIN)
        digest.challenged(challenge("n2"), PLAIN)
        step = digest.challenged(challenge("n3"), PLAIN)
        assert isinstance(step, GiveUp)
        self.assertTrue(step.rejected)
        self.assertEqual(memory.quirks, set())

    def test_settled(self) -> None:
        """Where path and query were accepted before, they are not to blame."""
        digest, memory = proven(PLAIN)
        self.assertEqual(memory.quirks, {Quirk.ORIGIN_FORM_URI})
        digest.first(PLAIN)
        fields = fields_of(digest.challenged(challenge("n2"), PLAIN))
        self.assertEqual(fields["uri"], "/a?b=c")

    def test_origin_server(self) -> None:
        """An origin server's digest-uri is never in doubt."""
        digest, memory = proven(DIRECT, peer=ORIGIN)
        self.assertEqual(memory.quirks, set())
        digest.first(PLAIN)
        fields = fields_of(digest.challenged(challenge("n2"), PLAIN))
        self.assertEqual(fields["uri"], "/a?b=c")


def idle() -> DigestConversation:
    return talk()


def unasked() -> DigestConversation:
    digest, _ = proven(PLAIN)
    digest.first(PLAIN)
    return digest


def answered() -> DigestConversation:
    digest = talk()
    digest.challenged(challenge(), PLAIN)
    return digest


def over() -> DigestConversation:
    digest = answered()
    digest.challenged(challenge("n2"), PLAIN)
    return digest


STATES: dict[Callable[[], DigestConversation], State] = {
    idle: State.IDLE,
    unasked: State.ANSWERED_UNASKED,
    answered: State.ANSWERED,
    over: State.OVER,
}

INPUTS: dict[str, Callable[[DigestConversation], object]] = {
    "first": lambda digest: digest.first(PLAIN),
    "challenged": lambda digest: digest.challenged(challenge("x"), PLAIN),
    "stale": lambda digest: digest.challenged(challenge("x", stale="true"), PLAIN),
    "nonsense": lambda digest: digest.challenged(Challenge("Digest"), PLAIN),
    "accepted": lambda digest: digest.accepted(None, None),
    "disproved": lambda digest: digest.accepted(None, b"rspauth=x"),
    "worked": lambda digest: digest.worked(None),
    "failed": lambda digest: digest.failed(ValueError()),
    "lost": lambda digest: digest.lost(),
}

# From each state by each input: what comes of it, and the state after it.  What is
# not listed is an error and changes nothing.
MOVES: dict[tuple[State, str], tuple[type, State]] = {
    (State.IDLE, "first"): (Proceed, State.IDLE),
    (State.IDLE, "challenged"): (Reply, State.ANSWERED),
    (State.IDLE, "stale"): (Reply, State.ANSWERED),
    (State.IDLE, "nonsense"): (GiveUp, State.OVER),
    (State.IDLE, "accepted"): (Proceed, State.IDLE),
    (State.IDLE, "disproved"): (Proceed, State.IDLE),
    (State.IDLE, "lost"): (type(None), State.IDLE),
    (State.ANSWERED_UNASKED, "first"): (Reply, State.ANSWERED_UNASKED),
    (State.ANSWERED_UNASKED, "challenged"): (Reply, State.ANSWERED),
    (State.ANSWERED_UNASKED, "stale"): (Reply, State.ANSWERED),
    (State.ANSWERED_UNASKED, "nonsense"): (GiveUp, State.OVER),
    (State.ANSWERED_UNASKED, "accepted"): (Proceed, State.IDLE),
    (State.ANSWERED_UNASKED, "lost"): (type(None), State.IDLE),
    (State.ANSWERED, "first"): (Proceed, State.IDLE),
    (State.ANSWERED, "challenged"): (GiveUp, State.OVER),
    (State.ANSWERED, "stale"): (Reply, State.ANSWERED),
    (State.ANSWERED, "nonsense"): (GiveUp, State.OVER),
    (State.ANSWERED, "accepted"): (Proceed, State.IDLE),
    (State.ANSWERED, "lost"): (type(None), State.IDLE),
    (State.OVER, "lost"): (type(None), State.OVER),
}


class MachineTests(SynchronousTestCase):
    def test_interface(self) -> None:
        """Digest is a conversation like others; it authenticates requests."""
        digest = talk()
        self.assertTrue(verifyObject(IAuthConversation, digest))
        self.assertEqual(digest.scheme, "Digest")
        self.assertFalse(digest.connection_bound)

    def test_every_state_and_input(self) -> None:
        """Each input is welcome in each state, or refused without consequences."""
        for begin, state in STATES.items():
            for name, act in INPUTS.items():
                with self.subTest(state=state, input=name):
                    digest = begin()
                    self.assertIs(digest._state, state)
                    before = _observable(digest)
                    move = MOVES.get((state, name))
                    if move is None:
                        self.assertRaises(
                            (LocalProtocolError, MutualAuthenticationFailed),
                            act,
                            digest,
                        )
                        self.assertEqual(_observable(digest), before)
                    else:
                        outcome, following = move
                        self.assertIsInstance(act(digest), outcome)
                        self.assertIs(digest._state, following)


def _observable(digest: DigestConversation) -> Iterable[object]:
    """Everything that a conversation knows, and what it has written down."""
    memory = digest._memory
    return [
        *sorted(digest.__dict__.items()),
        memory.proven,
        memory.realm,
        set(memory.quirks),
        [(n.value, n.count, n.proven) for n in memory._nonces.values()],
    ]
