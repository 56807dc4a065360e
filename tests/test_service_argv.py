"""Tests for :mod:`coda_twisted.service.argv`."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.service.argv import wipe


class WipeTests(SynchronousTestCase):
    """What is wiped from the arguments, here from memory that stands in for them."""

    def setUp(self) -> None:
        if not sys.platform.startswith("linux"):
            self.skipTest("only Linux shows where the arguments are")
        self.stat = Path(self.mktemp())

    def wiped(self, arguments: bytes, *secrets: str) -> tuple[bool, bytes]:
        """Wipe *secrets* from *arguments*; say what was said, and what is left."""
        memory = ctypes.create_string_buffer(arguments, len(arguments))
        start = ctypes.addressof(memory)
        self.tell(start, start + len(arguments))
        return wipe(secrets, str(self.stat)), memory.raw

    def tell(self, start: int, end: int) -> None:
        """Write the numbers as the kernel does (proc(5))."""
        numbers = [b"0"] * 45 + [b"%d" % start, b"%d" % end, b"0"]
        self.stat.write_bytes(b"1 (a ) (b) " + b" ".join(numbers) + b"\n")

    def test_secrets(self) -> None:
        """A secret that is an argument, or the end of one, is wiped."""
        self.assertEqual(
            self.wiped(
                b"twistd\0--password=sesame\0--password\0sesame\0--user=me\0",
                "sesame",
            ),
            (True, b"twistd\0--password=xxxxxx\0--password\0xxxxxx\0--user=me\0"),
        )

    def test_nothing_else(self) -> None:
        """What only looks like it stays, and is not taken for it."""
        for arguments in (
            b"a\0--password=sesameX\0",
            b"a\0--password=Xsesame\0",
            b"a\0sesamesesame\0",
            b"a\0--proxy=http://me:open@sesame\0",
        ):
            self.assertEqual(self.wiped(arguments, "sesame"), (False, arguments))

    def test_url(self) -> None:
        """A URL's password is wiped, with a scheme or without, encoded or not."""
        for before, after in (
            (b"--proxy=http://me:se%40ame@proxy:1\0", b"http://me:xxxxxxxx@proxy:1\0"),
            (b"--proxy\0me:se%40ame@proxy\0", b"--proxy\0me:xxxxxxxx@proxy\0"),
        ):
            told, left = self.wiped(b"a\0" + before, "se@ame")
            self.assertTrue(told)
            self.assertTrue(left.endswith(after), left)

    def test_several(self) -> None:
        """All must be found."""
        arguments = b"a\0--b=one\0two\0"
        self.assertEqual(
            self.wiped(arguments, "one", "two"), (True, b"a\0--b=xxx\0xxx\0")
        )
        self.assertEqual(
            self.wiped(arguments, "one", "three"), (False, b"a\0--b=xxx\0two\0")
        )

    def test_any_octets(self) -> None:
        """A password may hold what the locale's encoding does not know."""
        secret = os.fsdecode(b"p\xe4ss\xc3\xa4")
        self.assertEqual(
            self.wiped(b"a\0--b=p\xe4ss\xc3\xa4\0", secret), (True, b"a\0--b=xxxxxx\0")
        )

    def test_unknown(self) -> None:
        """Where the kernel does not tell the place, nothing is touched."""
        for start, end in ((0, 0), (100, 100), (100, 50)):
            self.tell(start, end)
            self.assertFalse(wipe(["sesame"], str(self.stat)))
        for content in (b"", b"1 (a) 0 0", b"1 (a) " + b"x " * 50):
            self.stat.write_bytes(content)
            self.assertFalse(wipe(["sesame"], str(self.stat)))
        self.assertFalse(wipe(["sesame"], str(self.stat) + ".missing"))

    def test_real(self) -> None:
        """In this process's own arguments no such secret is found."""
        self.assertFalse(wipe(["a secret that nobody was told"]))

    def test_elsewhere(self) -> None:
        """On other systems nothing is wiped, and nothing else is said."""
        self.patch(sys, "platform", "darwin")
        self.assertFalse(wipe(["sesame"]))
