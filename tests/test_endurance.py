"""Tests for what the measurements of endurance conclude from their figures."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.harness import Bound, octets, table
from benchmarks.soak import content, flatness, growing_types

TIMES = [float(second) for second in range(0, 600, 5)]


class FlatnessTests(SynchronousTestCase):
    """What counts for growth."""

    def setUp(self) -> None:
        chance = random.Random(4)
        self.noise = [chance.gauss(0, 20) for _ in TIMES]

    def test_noise(self) -> None:
        """What goes up and down is flat."""
        values = [1000 + each for each in self.noise]
        self.assertTrue(flatness(TIMES, values, 10).flat)

    def test_leak(self) -> None:
        """A slow leak is found under noise as high as itself."""
        values = [1000 + 0.15 * t + n for t, n in zip(TIMES, self.noise, strict=True)]
        found = flatness(TIMES, values, 10)
        self.assertFalse(found.flat)
        self.assertApproximates(found.drift, 90, 20)

    def test_step(self) -> None:
        """What has grown once in the middle, and stayed, is found as well."""
        values = [1000 + 200 * (t > 300) + 0.01 * t for t in TIMES]
        self.assertFalse(flatness(TIMES, values, 10).flat)

    def test_spike(self) -> None:
        """A moment's load is no growth."""
        values = [1000.0 + 5000 * (t == 595) for t in TIMES]
        self.assertTrue(flatness(TIMES, values, 10).flat)

    def test_shrinks(self) -> None:
        """What becomes less does no harm."""
        self.assertTrue(flatness(TIMES, [1000 - t for t in TIMES], 10).flat)

    def test_few_samples(self) -> None:
        """One sample shows nothing."""
        self.assertTrue(flatness([5.0], [1000.0], 10).flat)

    def test_types(self) -> None:
        """The types that grow are named, the most grown first."""
        samples = [
            {"types": {"a": 100 + n, "b": 50, "c": 10 + 3 * n}} for n in range(60)
        ]
        self.assertEqual(growing_types(samples), ["c +120", "a +40"])


class SayingTests(SynchronousTestCase):
    """How it is said."""

    def test_bound(self) -> None:
        """A bound is kept up to itself."""
        self.assertTrue(Bound("a", 8.0, 8.0).kept)
        self.assertFalse(Bound("a", 8.01, 8.0).kept)

    def test_table(self) -> None:
        """Columns are as wide as what is in them."""
        self.assertEqual(
            table(["", "b"], [("long", 1), ("a", 22)]),
            "       b\n----  --\nlong   1\na     22",
        )

    def test_octets(self) -> None:
        """Octets are written in the unit that fits."""
        shown = [octets(number) for number in (5, 2048, -3 << 20, 1 << 30)]
        self.assertEqual(shown, ["5 B", "2.00 KiB", "-3.00 MiB", "1.00 GiB"])

    def test_content(self) -> None:
        """Content tells where it was taken from."""
        whole = content(0, 200_000)
        self.assertEqual(content(70_000, 100), whole[70_000:70_100])
        self.assertNotEqual(content(0, 65536), content(65536, 65536))
