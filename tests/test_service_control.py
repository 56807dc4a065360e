"""Tests for :mod:`coda_twisted.service.control`."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.service.control import Lines, pack, read_settings, write


class SettingsTests(SynchronousTestCase):
    """What a worker is told first."""

    def pipe(self, data: bytes) -> int:
        """A descriptor from which *data* can be read, and then the end."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        os.write(writing, data)
        os.close(writing)
        return reading

    def test_read(self) -> None:
        """They come back as they were, and what follows is left."""
        settings = {"password": "\udcff", "number": 7, "ports": frozenset([1])}
        pipe = self.pipe(pack(settings) + b"rest")
        self.assertEqual(read_settings(pipe), settings)
        self.assertEqual(os.read(pipe, 10), b"rest")

    def test_cut(self) -> None:
        """A main process that dies at once is noticed."""
        for size in (0, 3, 10):
            self.assertRaises(
                EOFError, read_settings, self.pipe(pack({"a": "b"})[:size])
            )


class LinesTests(SynchronousTestCase):
    """Messages, one in a line."""

    def test_pieces(self) -> None:
        """Lines are the same however they come."""
        for size in (1, 3, 100):
            got: list[bytes] = []
            lines = Lines(got.append)
            data = write({"say": "a\nb"}) + write({"say": "c"}) + b"half"
            for start in range(0, len(data), size):
                lines.feed(data[start : start + size])
            self.assertEqual(got, [b'{"say": "a\\nb"}', b'{"say": "c"}'])
