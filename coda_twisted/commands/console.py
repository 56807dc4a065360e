"""Where a command reads and writes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from getpass import getpass
from typing import BinaryIO, TextIO

__all__ = ["Console", "UsageMistake"]


class UsageMistake(Exception):
    """The command line cannot be meant; the text repeats no value of it."""


@dataclass(frozen=True)
class Console:
    """
    A terminal, or what stands in for one.

    :ivar out: For content alone.
    :ivar err: For all that is said to people.
    :ivar ask: Asks for a password, without showing it; ``None`` where nobody is there.
    :ivar live: Whether *err* shows what is written over.
    """

    out: BinaryIO
    err: TextIO
    ask: Callable[[str], str] | None
    live: bool

    @classmethod
    def of_process(cls) -> Console:
        """Use the standard streams."""
        return cls(
            out=sys.stdout.buffer,
            err=sys.stderr,
            ask=getpass if sys.stdin is not None and sys.stdin.isatty() else None,
            live=sys.stderr.isatty(),
        )

    def say(self, text: str) -> None:
        """Tell people something."""
        print(text, file=self.err, flush=True)
