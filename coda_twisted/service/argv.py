"""Hide what was given on the command line from ``ps``."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Collection
from urllib.parse import unquote_to_bytes

__all__ = ["wipe"]

_PASSWORD = re.compile(rb"(?:^|[=/])[^/:@=]*:([^/@]*)@")
"""The password of ``[scheme://]user:password@host``, alone or behind an option."""


def wipe(secrets: Collection[str], stat: str = "/proc/self/stat") -> bool:
    """
    Overwrite *secrets* in the arguments that the system shows of this process.

    Arguments are wiped that are a secret, or end in ``=`` and a secret, and the
    passwords of URLs; they keep their length.  On Linux they lie in this process's
    own memory, between two addresses that the kernel tells (proc(5): arg_start,
    arg_end).

    :returns: Whether all were found and wiped; elsewhere than on Linux ``False``.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        with open(stat, "rb") as file:
            # The name in parentheses may hold anything; what follows are numbers,
            # of which arg_start is the 48th of the line.
            numbers = file.read().rpartition(b")")[2].split()
        start, end = int(numbers[45]), int(numbers[46])
    except (OSError, ValueError, IndexError):
        return False
    if not 0 < start < end:
        return False
    wanted = set(map(os.fsencode, secrets))
    found = set()
    place = start
    for argument in ctypes.string_at(start, end - start).split(b"\0"):
        for secret in wanted:
            where = _where(argument, secret)
            if where is not None:
                first, last = where
                ctypes.memset(place + first, ord("x"), last - first)
                found.add(secret)
        place += len(argument) + 1
    return found == wanted


def _where(argument: bytes, secret: bytes) -> tuple[int, int] | None:
    """Find a secret in an argument, percent-encoded in a URL."""
    if argument == secret or argument.endswith(b"=" + secret):
        return len(argument) - len(secret), len(argument)
    in_url = _PASSWORD.search(argument)
    if in_url is not None and unquote_to_bytes(in_url[1]) == secret:
        return in_url.span(1)
    return None
