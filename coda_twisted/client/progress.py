"""Whether a peer takes what is written to it."""

from __future__ import annotations

import struct
import sys
from typing import Any

from coda_twisted.client.sockets import lowest, socket_of

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import TIOCOUTQ

__all__ = ["Progress"]


class Progress:
    """
    See whether a peer has taken anything, where the transport's buffer tells nothing.

    What a transport still holds shrinks only when the kernel has much room again,
    which with a slow reader may take many minutes.  Linux tells what the peer has
    not acknowledged (SIOCOUTQ of tcp(7)); elsewhere a full buffer is all one knows.
    """

    __slots__ = ("_queued", "_transport")

    def __init__(self, transport: Any) -> None:
        self._transport = lowest(transport)
        self._queued: int | None = 0

    def made(self) -> bool:
        """
        Say whether there was any since the last time.

        The first time there was if the kernel holds anything: it may have held more.
        """
        before, self._queued = self._queued, _unacknowledged(self._transport)
        return self._queued is not None and self._queued != before


def _unacknowledged(transport: Any) -> int | None:
    """Count the octets that the kernel holds for the peer, if it says so."""
    handle = socket_of(transport)
    if sys.platform != "linux" or handle is None:
        return None
    try:
        [queued] = struct.unpack("i", ioctl(handle.fileno(), TIOCOUTQ, b"\0\0\0\0"))
    except OSError:
        return None
    return int(queued)
