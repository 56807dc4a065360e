"""Keep what came in pieces, without a price for each that is far above its size."""

from __future__ import annotations

__all__ = ["keep"]

TOGETHER = 1024
"""Octets up to which a piece is put together with what follows."""


def keep(pieces: list[bytes], data: bytes) -> None:
    """
    Add a piece to those that are kept.

    A peer decides how large pieces are, and to keep a single octet takes 50: whoever
    limits the octets that are kept has to put small pieces together.
    """
    if pieces and len(pieces[-1]) < TOGETHER:
        pieces[-1] += data
    else:
        pieces.append(data)
