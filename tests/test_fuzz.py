"""What :mod:`tests.fuzz` does for hours, for a moment: its corpora, and some more."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.front import Play
from tests.fuzz.targets import TARGETS, corpus
from tests.test_http1_oracles import SNIPPETS

LIMIT = 200 * 1024
"""Octets of all corpora."""

EXAMPLES = int(os.environ.get("CODA_FUZZ_EXAMPLES", "60"))
"""Made up by hypothesis for each target."""

PIECES = [
    b"\xff",
    b"\xff\xffo",
    b"\xffc",
    b"\xff.",
    b"\xfft9",
    b"\xffC",
    b"\xffO",
    b"\xffX",
]


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes], snippets: list[bytes]) -> bytes:
    """Take a seed, or the halves of two, and damage it in up to four places."""
    data = draw(st.sampled_from(seeds))
    if draw(st.booleans()):
        other = draw(st.sampled_from(seeds))
        data = data[: draw(st.integers(0, len(data)))] + other[len(other) // 2 :]
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from([0, 0, 1, 2, 5]))
        snippet = draw(st.sampled_from(snippets) | st.binary(max_size=3))
        data = data[:begin] + snippet + data[begin + length :]
    return data


class CorpusTests(SynchronousTestCase):
    """The inputs that are kept."""

    def test_all(self) -> None:
        """Nothing is broken by any."""
        for name, target in TARGETS.items():
            for data in corpus(name):
                target(data)

    def test_size(self) -> None:
        """Together they are small, and each target has some."""
        directory = Path(__file__).parent / "fuzz" / "corpus"
        files = [path for path in directory.rglob("*") if path.is_file()]
        self.assertLess(sum(path.stat().st_size for path in files), LIMIT)
        self.assertEqual({path.parent.name for path in files}, {*TARGETS})

    def test_plays_happen(self) -> None:
        """The inputs of the front end do what their names say: they try something."""
        directory = Path(__file__).parent / "fuzz" / "corpus" / "front"
        for name, statuses in (
            ("two-in-one", [200, 200]),
            ("ntlm", [200]),
            ("upgrade", [101]),
            ("tunnel-refused", [403]),
            ("silence", [504]),
            ("malformed-answer", [502]),
        ):
            play = Play((directory / name).read_bytes())
            play.run()
            [taken] = play.log.taken.values()
            self.assertEqual([each.status for each in taken], statuses, name)


class HypothesisTests(SynchronousTestCase):
    """Inputs that hypothesis makes of those; a test for each target."""


def trying(name: str, target: Callable[[bytes], None]) -> Callable[[Any], None]:
    """Make the test of one target."""
    snippets = SNIPPETS + (PIECES if name == "front" else [])

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(damaged(corpus(name), snippets))
    def test(self: Any, data: bytes) -> None:
        target(data)

    test.__doc__ = f"{name}: nothing is broken."
    return test


for _name, _target in TARGETS.items():
    setattr(HypothesisTests, f"test_{_name}", trying(_name, _target))
