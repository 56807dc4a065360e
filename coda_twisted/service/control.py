"""
What the service's main process and its workers tell each other.

A worker is given its settings first, as one block with its length before it.  After
that both sides send lines of JSON, each an object whose ``say`` says what it is:

from the worker
    ``ready``, it accepts; ``leave``, it was asked to end and wants a successor;
    ``log``, lines for the log; ``ask``, ``accepted``, ``dropped`` and ``refused``,
    of a logon (:mod:`coda_twisted.service.guarding`);
to the worker
    ``drain``, end in good order; ``go`` and ``no``, answers to ``ask``; ``barred``,
    a secret was refused elsewhere.

Settings are pickled: they go from a parent to its own child.  What comes back is
JSON, so that a worker can make its parent believe nothing but what is listed here.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from typing import Any

__all__ = [
    "ORDERS",
    "REPORTS",
    "SOCKET",
    "Lines",
    "Message",
    "pack",
    "read_settings",
    "write",
]

Message = dict[str, Any]

ORDERS = 0
"""A worker's descriptor from which it reads its settings and orders."""

SOCKET = 3
"""A worker's descriptor of its listening socket."""

REPORTS = 4
"""A worker's descriptor on which it tells its main process what there is to tell."""

_LENGTH = struct.Struct(">I")


def pack(settings: Message) -> bytes:
    """Write a worker's settings."""
    block = pickle.dumps(settings)
    return _LENGTH.pack(len(block)) + block


def read_settings(descriptor: int) -> Message:
    """
    Read a worker's settings, and not an octet more; blocks.

    :raises EOFError: The parent is gone.
    """
    [length] = _LENGTH.unpack(_exactly(descriptor, _LENGTH.size))
    settings: Message = pickle.loads(_exactly(descriptor, length))  # noqa: S301
    return settings


def _exactly(descriptor: int, size: int) -> bytes:
    read = b""
    while len(read) < size:
        piece = os.read(descriptor, size - len(read))
        if not piece:
            raise EOFError("the main process is gone")
        read += piece
    return read


def write(message: Message) -> bytes:
    """Write a message."""
    return json.dumps(message).encode("ascii") + b"\n"


class Lines:
    """
    Cut a stream into lines.

    :param received: Called with each line, without its end.
    """

    def __init__(self, received: Callable[[bytes], None]) -> None:
        self._received = received
        self._begun = b""

    def feed(self, data: bytes) -> None:
        """Take what came."""
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            self._received(line)
