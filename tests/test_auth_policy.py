"""Tests for :mod:`coda_twisted.auth.policy`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.auth.challenge import Challenge, parse_challenges
from coda_twisted.auth.policy import AuthPolicy, rank, strength
from coda_twisted.auth.steps import Peer, Role

PROXY = Peer(Role.PROXY, "http", "proxy.example", 3128)
TLS_PROXY = Peer(Role.PROXY, "https", "proxy.example", 443)
ORIGIN = Peer(Role.ORIGIN, "http", "www.example", 80)
TLS_ORIGIN = Peer(Role.ORIGIN, "https", "www.example", 443)
ALL = ("negotiate", "digest", "ntlm", "basic")


def ranked(
    value: bytes,
    peer: Peer = PROXY,
    policy: AuthPolicy | None = None,
    speakable: tuple[str, ...] = ALL,
    strongest: int = 0,
) -> tuple[list[str], dict[str, str]]:
    """Rank a field's challenges; name schemes and algorithms, and the refusals."""
    usable, refusals = rank(
        parse_challenges([value]), peer, policy or AuthPolicy(), speakable, strongest
    )
    names = [
        " ".join(filter(None, (each.scheme, each.params.get("algorithm"))))
        for each in usable
    ]
    return names, dict(refusals)


class RankTests(SynchronousTestCase):
    """The order of what may be answered."""

    def test_all(self) -> None:
        """The strongest comes first, however the peer lists them."""
        names, refusals = ranked(
            b'Basic realm="r", Digest realm="r", nonce="n", algorithm=MD5, NTLM, '
            b'Digest realm="r", nonce="n", algorithm=SHA-256, Negotiate, '
            b'Digest realm="r", nonce="n", algorithm=SHA-512-256'
        )
        self.assertEqual(
            names,
            [
                "Negotiate",
                "Digest SHA-512-256",
                "Digest SHA-256",
                "NTLM",
                "Digest MD5",
                "Basic",
            ],
        )
        self.assertEqual(refusals, {})

    def test_algorithm_names(self) -> None:
        """Algorithms are read in any case; -sess is as strong; none is MD5."""
        for algorithm, twin in (
            ("sha-256", "SHA-256"),
            ("SHA-512-256-sess", "SHA-512-256"),
            ("md5-SESS", "MD5"),
        ):
            self.assertEqual(
                strength(Challenge("Digest", params={"algorithm": algorithm})),
                strength(Challenge("Digest", params={"algorithm": twin})),
            )
        self.assertEqual(
            strength(Challenge("Digest")),
            strength(Challenge("Digest", params={"algorithm": "MD5"})),
        )

    def test_peers_order_among_equals(self) -> None:
        """Among equals the peer's order holds, but for what is malformed."""
        usable, _ = rank(
            [
                Challenge("Digest", params={"realm": "a"}, malformed=True),
                Challenge("Digest", params={"realm": "b"}),
                Challenge("Digest", params={"realm": "c"}),
            ],
            PROXY,
            AuthPolicy(),
            ALL,
        )
        self.assertEqual([each.realm for each in usable], ["b", "c", "a"])

    def test_schemes_of_users(self) -> None:
        """A scheme that only a user's own credentials speak comes before Basic."""
        policy = AuthPolicy(schemes=("basic", "scram-sha-256", "ntlm"))
        names, _ = ranked(
            b"Basic realm=r, SCRAM-SHA-256, NTLM",
            policy=policy,
            speakable=("basic", "scram-sha-256", "ntlm"),
        )
        self.assertEqual(names, ["NTLM", "SCRAM-SHA-256", "Basic"])

    @given(st.lists(st.sampled_from(["Basic", "NTLM", "Negotiate", "Digest", "X"])))
    def test_nothing_is_lost(self, schemes: list[str]) -> None:
        """Every challenge is either ranked or refused with a reason."""
        challenges = [Challenge(scheme) for scheme in schemes]
        usable, refusals = rank(challenges, PROXY, AuthPolicy(), ("ntlm", "digest"))
        self.assertEqual(
            sorted(schemes),
            sorted(
                [each.scheme for each in usable] + [scheme for scheme, _ in refusals]
            ),
        )
        self.assertLessEqual({each.key for each in usable}, {"ntlm", "digest"})


class RefusalTests(SynchronousTestCase):
    """What is left out, and what is said about it."""

    def test_policy(self) -> None:
        """A scheme that policy does not name is not spoken."""
        names, refusals = ranked(
            b"NTLM, Negotiate", policy=AuthPolicy(schemes=("negotiate",))
        )
        self.assertEqual(names, ["Negotiate"])
        self.assertEqual(refusals, {"NTLM": "not allowed by policy"})

    def test_credentials(self) -> None:
        """A scheme that the credentials cannot speak is left out."""
        names, refusals = ranked(b"NTLM, Negotiate", speakable=("negotiate",))
        self.assertEqual(names, ["Negotiate"])
        self.assertIn("cannot speak", refusals["NTLM"])

    def test_unknown_scheme(self) -> None:
        """Schemes nobody here knows are named as the peer wrote them."""
        names, refusals = ranked(b"Frob a=1")
        self.assertEqual((names, list(refusals)), ([], ["Frob"]))

    def test_unknown_algorithm(self) -> None:
        """A Digest algorithm that nobody here knows cannot be answered."""
        names, refusals = ranked(b'Digest realm="r", nonce="n", algorithm=SHA3-256')
        self.assertEqual(names, [])
        self.assertIn("not known", refusals["Digest"])

    def test_weak_digest(self) -> None:
        """Algorithms weaker than the policy's least are not used."""
        value = (
            b'Digest realm="r", nonce="n", Digest realm="r", nonce="n", '
            b'algorithm=SHA-256, Digest realm="r", nonce="n", algorithm=SHA-512-256'
        )
        for least, expected in (
            ("MD5", ["Digest SHA-512-256", "Digest SHA-256", "Digest"]),
            ("SHA-256", ["Digest SHA-512-256", "Digest SHA-256"]),
            ("SHA-512-256", ["Digest SHA-512-256"]),
        ):
            names, refusals = ranked(value, policy=AuthPolicy(min_digest=least))
            self.assertEqual(names, expected)
            if len(expected) < 3:
                self.assertIn("min_digest", refusals["Digest"])

    def test_basic_in_clear(self) -> None:
        """Basic without TLS goes to proxies only, unless policy says otherwise."""
        for setting, expected in (
            (None, {PROXY, TLS_PROXY, TLS_ORIGIN}),
            (True, {PROXY, TLS_PROXY, TLS_ORIGIN, ORIGIN}),
            (False, {TLS_PROXY, TLS_ORIGIN}),
        ):
            policy = AuthPolicy(allow_basic_over_cleartext=setting)
            for peer in (PROXY, TLS_PROXY, ORIGIN, TLS_ORIGIN):
                names, refusals = ranked(b"Basic realm=r", peer, policy)
                self.assertEqual(bool(names), peer in expected, (setting, peer))
                if not names:
                    self.assertIn("allow_basic_over_cleartext", refusals["Basic"])


class DowngradeTests(SynchronousTestCase):
    """A peer that asks for less than it used to."""

    strong = strength(Challenge("NTLM")) or 0

    def test_only_basic(self) -> None:
        """Basic alone is refused where there was something stronger."""
        names, refusals = ranked(b"Basic realm=r", strongest=self.strong)
        self.assertEqual(names, [])
        self.assertIn("used to offer something stronger", refusals["Basic"])

    def test_basic_and_what_cannot_be_spoken(self) -> None:
        """What cannot be spoken does not make Basic acceptable."""
        names, refusals = ranked(
            b"Frob, Basic realm=r, Basic realm=s", strongest=self.strong
        )
        self.assertEqual(names, [])
        self.assertEqual(set(refusals), {"Frob", "Basic"})

    def test_allowed(self) -> None:
        """Policy may allow it."""
        policy = AuthPolicy(allow_downgrade=True)
        names, _ = ranked(b"Basic realm=r", policy=policy, strongest=self.strong)
        self.assertEqual(names, ["Basic"])

    def test_basic_beside_something_stronger(self) -> None:
        """Basic may follow where the peer still offers something stronger."""
        names, _ = ranked(b"Basic realm=r, NTLM", strongest=self.strong)
        self.assertEqual(names, ["NTLM", "Basic"])

    def test_never_stronger(self) -> None:
        """A peer that never offered more may be answered with Basic."""
        names, _ = ranked(b"Basic realm=r")
        self.assertEqual(names, ["Basic"])

    def test_weaker_but_no_password(self) -> None:
        """A weaker scheme that does not show the password is no downgrade."""
        names, _ = ranked(b"NTLM", strongest=strength(Challenge("Negotiate")) or 0)
        self.assertEqual(names, ["NTLM"])


class SettingsTests(SynchronousTestCase):
    """Policies that cannot have been meant."""

    def test_refused(self) -> None:
        """A policy with a slip of the pen is refused when it is made."""
        for settings in (
            {"schemes": "ntlm"},
            {"schemes": ("NTLM",)},
            {"schemes": ("",)},
            {"min_digest": "sha256"},
            {"mutual": "yes"},
        ):
            with self.assertRaises(ValueError) as caught:
                AuthPolicy(**settings)
            self.assertIn(next(iter(settings)), str(caught.exception))
