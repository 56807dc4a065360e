"""Tests for :mod:`coda_twisted.http1.pieces`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.http1.pieces import TOGETHER, keep


class KeepTests(SynchronousTestCase):
    """Pieces, kept."""

    def test_small(self) -> None:
        """Single octets are put together."""
        pieces: list[bytes] = []
        for _ in range(10 * TOGETHER):
            keep(pieces, b"a")
        self.assertEqual(pieces, [b"a" * TOGETHER] * 10)

    def test_large(self) -> None:
        """Large pieces are kept as they are."""
        large = [bytes(TOGETHER), bytes(3 * TOGETHER)]
        pieces: list[bytes] = []
        for each in large:
            keep(pieces, each)
        self.assertIs(pieces[0], large[0])
        self.assertIs(pieces[1], large[1])

    @given(st.lists(st.binary(min_size=1, max_size=2 * TOGETHER)))
    def test_any(self, given_pieces: list[bytes]) -> None:
        """All octets are there in their order, in pieces few of which are small."""
        pieces: list[bytes] = []
        for each in given_pieces:
            keep(pieces, each)
        self.assertEqual(b"".join(pieces), b"".join(given_pieces))
        self.assertTrue(all(len(each) >= TOGETHER for each in pieces[:-1]))
