"""
Octets from one descriptor to another, past our own memory where the kernel can.

splice(2) moves pages from a socket into a pipe, and from the pipe into the other
socket.  A pipe is lent while octets are in it and at no other time, so what is idle
owns none.  Where there is no splice, or no pipe to be had, and as long as there is
little to move, octets are read and written instead; which of the two it is can change
with every move.
"""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import suppress
from typing import Any

__all__ = ["LARGE", "READ_SIZE", "SMALL", "Flow", "Pipe", "Pipes"]

LARGE = (1 << 20, 32)
"""
Octets in a pipe, and how many such pipes are lent at once.

The size is what Linux lets anybody have (pipe-max-size).  Splicing by 256 KiB costs a
third more, and by 64 KiB as much as reading and writing.
"""

SMALL = (1 << 16, 512)
"""
The same for those whose target is slow, and for when there is no large one left.

What is in pipes is the kernel's memory.  One user's may hold 64 MiB together
(pipe-user-pages-soft), which is what both kinds come to.
"""

PIPES_KEPT = 4
"""Pipes of a kind that are kept for the next who needs one."""

READ_SIZE = 1 << 17
"""
Octets read at once where nothing is spliced.

What a slow target leaves of them is kept, so it cannot be any number.
"""

BULK_FROM = 1 << 16
"""Octets taken at once after which the next are spliced; less is cheaper to copy."""

_SPLICE: Any = getattr(os, "splice", None)  # Linux
_FLAGS = getattr(os, "SPLICE_F_MOVE", 0) | getattr(os, "SPLICE_F_NONBLOCK", 0)

_buffer = memoryview(bytearray(READ_SIZE))
"""For all: what is read is written before anything else is read."""


class Pipe:
    """
    A pipe, whose two ends are ours.

    :param size: Octets that it must hold.
    :raises OSError: None can be made, or none of that size.
    """

    __slots__ = ("reading", "size", "writing")

    def __init__(self, size: int) -> None:
        self.size = size
        self.reading, self.writing = os.pipe()
        try:
            self._grow()
        except OSError:
            self.close()
            raise

    def _grow(self) -> None:
        if sys.platform == "linux":
            # Beyond the user's limit new ones are of two pages, and do not grow.
            if fcntl.fcntl(self.writing, fcntl.F_GETPIPE_SZ) != self.size:
                fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, self.size)

    def close(self) -> None:
        """Close it, with whatever is in it."""
        os.close(self.reading)
        os.close(self.writing)


class _Kind:
    """Pipes of one size."""

    __slots__ = ("_idle", "_left", "size")

    def __init__(self, size: int, lent: int) -> None:
        self.size = size
        self._left = lent
        self._idle: list[Pipe] = []

    def take(self) -> Pipe | None:
        if not self._left:
            return None
        if self._idle:
            pipe = self._idle.pop()
        else:
            try:
                pipe = Pipe(self.size)
            except OSError:  # too many files, or too much memory in pipes
                return None
        self._left -= 1
        return pipe

    def give_back(self, pipe: Pipe, *, empty: bool) -> None:
        self._left += 1
        if empty and len(self._idle) < PIPES_KEPT:
            self._idle.append(pipe)
        else:
            pipe.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


class Pipes:
    """
    The pipes of a process.

    :param large: The size of those that are lent first, and their number.
    :param small: The same for the others.  Of neither there may be 0.
    """

    __slots__ = ("_large", "_small")

    def __init__(
        self, large: tuple[int, int] = LARGE, small: tuple[int, int] = SMALL
    ) -> None:
        self._large = _Kind(*large)
        self._small = _Kind(*small)

    def take(self, *, large: bool) -> Pipe | None:
        """Borrow an empty pipe; ``None`` if there is none, or no splicing."""
        if _SPLICE is None:
            return None
        return (self._large.take() if large else None) or self._small.take()

    def give_back(self, pipe: Pipe, *, empty: bool) -> None:
        """Give one back; what nobody wants any more is thrown away with it."""
        kind = self._large if pipe.size == self._large.size else self._small
        kind.give_back(pipe, empty=empty)

    def close(self) -> None:
        """Close those that are not lent."""
        self._large.close()
        self._small.close()


class Flow:
    """
    One way from a descriptor to another, both of which do not block.

    :meth:`fill` and :meth:`drain` are called one after the other, and :meth:`drain`
    again until all is gone.

    :param source: Where octets come from; it stays its owner's.
    :param target: Where they go; as well.
    :param held: Octets that go first.
    :ivar empty: Whether everything that was taken has been passed on.
    """

    __slots__ = (
        "_bulk",
        "_held",
        "_pending",
        "_pipe",
        "_pipes",
        "_source",
        "_stalls",
        "_target",
        "empty",
    )

    def __init__(
        self, source: int, target: int, pipes: Pipes, held: bytes = b""
    ) -> None:
        self._source = source
        self._target = target
        self._pipes = pipes
        self._pipe: Pipe | None = None
        self._pending = 0  # in the pipe
        self._held: bytes | memoryview = held
        self._bulk = False
        self._stalls = 0  # in a row
        self.empty = not held

    def fill(self, most: int = 1 << 62) -> int:
        """
        Take what is there.

        :param most: Octets, at the most.
        :returns: How many were taken; 0 at the end.
        :raises BlockingIOError: There is nothing now.
        :raises OSError: The source is broken.
        """
        pipe = None
        if self._bulk:
            # Slow targets keep what they have borrowed: not one of the few large ones.
            pipe = self._pipes.take(large=self._stalls < 2)
        if pipe is None:
            taken = os.readv(self._source, [_buffer[: min(most, READ_SIZE)]])
            self._held = _buffer[:taken]
        else:
            taken = 0
            try:
                taken = self._pending = _SPLICE(
                    self._source, pipe.writing, min(most, pipe.size), flags=_FLAGS
                )
            finally:
                if taken:
                    self._pipe = pipe
                else:
                    self._pipes.give_back(pipe, empty=True)
        self.empty = not taken
        self._bulk = taken >= BULK_FROM
        return taken

    def drain(self) -> bool:
        """
        Pass on what was taken, as far as the target takes it.

        :returns: Whether that was all.
        :raises OSError: The target is broken.
        """
        if self._held:
            self._write()
        pipe = self._pipe
        if pipe is not None and not self._held:
            self._splice(pipe)
        self.empty = not (self._held or self._pipe)
        self._stalls = 0 if self.empty else self._stalls + 1
        return self.empty

    def _write(self) -> None:
        held = self._held
        try:
            written = os.write(self._target, held)
        except BlockingIOError:
            written = 0
        self._held = bytes(held[written:])

    def _splice(self, pipe: Pipe) -> None:
        with suppress(BlockingIOError):
            while self._pending:
                self._pending -= _SPLICE(
                    pipe.reading, self._target, self._pending, flags=_FLAGS
                )
            self._pipe = None
            self._pipes.give_back(pipe, empty=True)

    def close(self) -> None:
        """Throw away what was not passed on."""
        self._held = b""
        self._pending = 0
        self.empty = True
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            self._pipes.give_back(pipe, empty=False)
