"""
Command lines whose mistakes are told without their values.

A mistyped option may have a password behind it, and what a program says ends up in
logs.  ``argparse`` lets options stand behind the URL, as people type them; Twisted's
``usage`` does not.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

__all__ = ["Field", "Parser", "field", "seconds", "size"]

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

# RFC 9110 5.1 and 5.5: a token, a colon, and no control character.
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x1f\x7f]*)")


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that abbreviates nothing and quotes nothing."""

    def __init__(self, **settings: object) -> None:
        super().__init__(allow_abbrev=False, **settings)  # type: ignore[arg-type]

    def parse_strictly(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse *argv*, or exit with 2."""
        arguments, rest = self.parse_known_args(argv)
        if rest:
            names = [each.partition("=")[0] for each in rest if each.startswith("-")]
            self.error(
                f"unknown: {', '.join(names)}" if names else "too many arguments"
            )
        return arguments

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit."""
        super().error(message.partition(" ignored explicit argument")[0])


def size(text: str) -> int:
    """Read a number of octets: ``700M``."""
    match = re.fullmatch(r"([0-9]{1,15})([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError("a size is a number, or one like 700M")
    return int(match[1]) * _UNITS[match[2].upper()]


def seconds(text: str) -> float:
    """Read a time."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError("a time is a number of seconds")
    return found


class Field(NamedTuple):
    """
    A field of the request.

    :ivar argument: How it was typed.
    """

    name: str
    value: str
    argument: str


def field(text: str) -> Field:
    """Read ``Name: value``."""
    match = _FIELD.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError("a field is written 'Name: value'")
    return Field(match[1], match[2].rstrip(), text)
