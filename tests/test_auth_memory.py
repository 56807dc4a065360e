"""Tests of what is remembered of peers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.auth.challenge import Challenge
from coda_twisted.auth.memory import MAX_NONCES, Memories, Nonce, Quirk, SpaceMemory
from coda_twisted.auth.steps import Peer, Role

PROXY = Peer(Role.PROXY, "http", "proxy.example", 3128)
OTHER_PROXY = Peer(Role.PROXY, "http", "proxy.example", 8080)


def challenge(realm: str = "r") -> Challenge:
    return Challenge("Digest", params={"realm": realm})


class NonceTests(SynchronousTestCase):
    def test_counts_together(self) -> None:
        """
        Connections that use the same nonce count their requests together
        (RFC 7616 3.4, nc).
        """
        memory = SpaceMemory()
        one = memory.nonce(challenge(), "n")
        other = memory.nonce(challenge(), "n")
        self.assertEqual([one.use(), other.use(), one.use()], [1, 2, 3])

    def test_realms_apart(self) -> None:
        """The same nonce in another realm is another nonce."""
        memory = SpaceMemory()
        memory.nonce(challenge("a"), "n").use()
        self.assertEqual(memory.nonce(challenge("b"), "n").use(), 1)

    def test_latest_challenge(self) -> None:
        """A nonce is remembered with the challenge in which it came last."""
        memory = SpaceMemory()
        memory.nonce(challenge(), "n")
        again = challenge()
        self.assertIs(memory.nonce(again, "n").challenge, again)

    def test_proven(self) -> None:
        """Only nonces that the peer has accepted are used unasked, the latest first."""
        memory = SpaceMemory()
        nonces = [memory.nonce(challenge(), value) for value in "abcd"]
        for nonce in (nonces[0], nonces[1], nonces[3]):
            nonce.proven = True
        memory.nonce(challenge(), "b")
        self.assertEqual([n.value for n in memory.proven_nonces()], ["b", "d", "a"])

    def test_exhausted(self) -> None:
        """A nonce whose count would not fit into eight digits is not used again."""
        memory = SpaceMemory()
        nonce = memory.nonce(challenge(), "n")
        nonce.proven = True
        nonce.count = 0xFFFFFFFE
        self.assertEqual(list(memory.proven_nonces()), [nonce])
        nonce.use()
        self.assertEqual(list(memory.proven_nonces()), [])

    def test_dropped(self) -> None:
        """A dropped nonce is not used again, and may be dropped twice."""
        memory = SpaceMemory()
        nonce = memory.nonce(challenge(), "n")
        nonce.proven = True
        memory.drop(nonce)
        memory.drop(nonce)
        self.assertEqual(list(memory.proven_nonces()), [])

    def test_bounded(self) -> None:
        """A peer that invents nonces does not fill the memory; the oldest go first."""
        memory = SpaceMemory()
        for number in range(MAX_NONCES + 1):
            memory.nonce(challenge(), str(number)).proven = True
        kept = [nonce.value for nonce in memory.proven_nonces()]
        self.assertEqual(len(kept), MAX_NONCES)
        self.assertNotIn("0", kept)

    def test_session(self) -> None:
        """The first cnonce of a session stays (RFC 7616 3.4.2)."""
        nonce = Nonce(challenge(), "n")
        self.assertEqual(nonce.session_cnonce(b"first"), b"first")
        self.assertEqual(nonce.session_cnonce(b"second"), b"first")

    def test_repr(self) -> None:
        """A nonce is not shown."""
        nonce = Nonce(challenge(), "SECRET")
        nonce.use()
        self.assertEqual(repr(nonce), "<Nonce used 1 times, proven=False>")


def experienced() -> SpaceMemory:
    memory = SpaceMemory()
    memory.scheme = "digest"
    memory.realm = "r"
    memory.per_request = True
    memory.strongest = 5
    memory.proven = True
    memory.quirks.add(Quirk.ABSOLUTE_FORM_URI)
    memory.nonce(challenge(), "n").proven = True
    return memory


class SpaceTests(SynchronousTestCase):
    def test_stranger(self) -> None:
        """Nothing is known of a stranger."""
        memory = SpaceMemory()
        self.assertIsNone(memory.scheme)
        self.assertIsNone(memory.realm)
        self.assertFalse(memory.per_request)
        self.assertFalse(memory.proven)
        self.assertEqual(memory.strongest, 0)
        self.assertEqual(memory.quirks, set())
        self.assertEqual(list(memory.proven_nonces()), [])

    def test_secret_refused(self) -> None:
        """A refused secret leaves what does not depend on it."""
        memory = experienced()
        memory.secret_refused()
        self.assertFalse(memory.proven)
        self.assertEqual(list(memory.proven_nonces()), [])
        self.assertEqual(memory.scheme, "digest")
        self.assertEqual(memory.quirks, {Quirk.ABSOLUTE_FORM_URI})
        self.assertTrue(memory.per_request)

    def test_forget(self) -> None:
        """All is forgotten, but not what the peer could do: that would let it ask
        for the password in clear after refusing something better.
        """
        memory = experienced()
        memory.forget()
        self.assertIsNone(memory.scheme)
        self.assertIsNone(memory.realm)
        self.assertFalse(memory.per_request)
        self.assertFalse(memory.proven)
        self.assertEqual(memory.quirks, set())
        self.assertEqual(list(memory.proven_nonces()), [])
        self.assertEqual(memory.strongest, 5)

    def test_repr(self) -> None:
        """A log shows what is known, but no nonce."""
        self.assertEqual(
            repr(experienced()),
            "<SpaceMemory scheme='digest' realm='r' per_request=True nonces=1>",
        )


class MemoriesTests(SynchronousTestCase):
    def test_same(self) -> None:
        """All connections to a peer as one identity share what was learnt."""
        memories = Memories()
        self.assertIs(memories.of(PROXY, "alice"), memories.of(PROXY, "alice"))
        self.assertEqual(len(memories), 1)

    def test_apart(self) -> None:
        """What one identity learnt of one peer is not another's, nor of another."""
        memories = Memories()
        spaces = {
            id(memories.of(peer, identity))
            for peer in (PROXY, OTHER_PROXY)
            for identity in ("alice", "bob", None)
        }
        self.assertEqual(len(spaces), 6)

    def test_bounded(self) -> None:
        """The peer that was not met for longest is forgotten for a new one."""
        memories = Memories(limit=2)
        alice = memories.of(PROXY, "alice")
        bob = memories.of(PROXY, "bob")
        self.assertIs(memories.of(PROXY, "alice"), alice)
        memories.of(PROXY, "carol")
        self.assertEqual(len(memories), 2)
        self.assertIs(memories.of(PROXY, "alice"), alice)
        self.assertIsNot(memories.of(PROXY, "bob"), bob)

    def test_changed_secret(self) -> None:
        """What the old password proved says nothing of the new one."""
        memories = Memories()
        memory = memories.of(PROXY, "alice", "old")
        memory.scheme = "digest"
        memory.proven = True
        memory.nonce(challenge(), "n").proven = True

        self.assertTrue(memories.of(PROXY, "alice", "old").proven)
        self.assertIs(memories.of(PROXY, "alice", "new"), memory)

        self.assertFalse(memory.proven)
        self.assertEqual(list(memory.proven_nonces()), [])
        self.assertEqual(memory.scheme, "digest")
