"""
How little a transport may hold for a peer that does not keep up.

A transport of Twisted's asks for more as soon as its buffer is empty, whether or not
the kernel has room.  So what was read last always waits in the process, 64 KiB of it,
for each transfer that stalls.  Here the next piece is not read before there is room
for it, and what stalls waits in the kernel's buffers.

That can be had of Twisted's sockets only; with other transports, TLS among them,
everything goes on as without.
"""

from __future__ import annotations

import select
import socket
from typing import Any

from twisted.internet.abstract import FileDescriptor

from coda_twisted.client.sending import send_now
from coda_twisted.client.sockets import socket_of

__all__ = ["LARGE", "SMALL", "buffer", "has_room", "write"]

SMALL = 16 * 1024
"""
Octets to be buffered for a slow peer, or read before anybody wants them.

Most answers fit, and cost no pause.
"""

LARGE = FileDescriptor.bufferSize
"""Octets to be read at once by whoever passes them on; Twisted's own figure."""

UNSENT = 8 * LARGE
"""
Octets that may wait unsent in the kernel for one peer.

Linux lets megabytes wait, for each, and when they are too many in all it takes less
than it has said.  A quarter of this cost a third of the throughput.
"""


def buffer(transport: Any, size: int) -> None:
    """
    Choose how much is read at once, and how much may be written before its producer
    is paused: Twisted has one figure for both.
    """
    if _is_plain(transport):
        transport.bufferSize = size


def write(transport: Any, data: bytes) -> None:
    """
    Write as :func:`send_now` does; after what is large, pause the producer if the
    kernel takes no more.

    That it is sent at once matters for memory, too: by itself Twisted reads from all
    who have sent something before it writes to anybody, and a burst of a hundred large
    pieces would be in the process together.
    """
    send_now(transport, data)
    if len(data) <= SMALL or not _is_plain(transport):
        return
    _limit_unsent(transport)
    producer: Any = transport.producer
    if producer is None or transport.producerPaused or not transport.streamingProducer:
        return
    if not has_room(transport):
        producer.pauseProducing()


def has_room(transport: Any) -> bool:
    """
    Say whether the kernel takes more, to a producer that was told to go on.

    :returns: If not, the producer will be told again once it does.
    """
    if not _is_plain(transport):
        return True
    handle = socket_of(transport)
    if handle is None or _is_writable(handle):
        return True
    # As if the producer had been paused by what was written, and that were not quite
    # gone: these two are all that the transport looks at when it is.
    transport.producerPaused = True
    transport.startWriting()
    return False


def _is_plain(transport: Any) -> bool:
    """Say whether what is written to it is what the socket gets."""
    return (
        isinstance(transport, FileDescriptor)
        and bool(transport.connected)
        and not getattr(transport, "TLS", False)  # as startTLS and connectSSL leave it
    )


def _limit_unsent(transport: Any) -> None:
    """
    Let the kernel hold UNSENT at most; set anew with each piece, which is cheaper than
    to know whether it is set.
    """
    handle = socket_of(transport)
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # Linux's, and no other's
    if option is not None and handle is not None:
        handle.setsockopt(socket.IPPROTO_TCP, option, UNSENT)


def _is_writable(sock: socket.socket) -> bool:
    """
    Ask whether the kernel would say so to the reactor.

    Linux says so of TCP while a third of the buffer is free, and half of UNSENT: more
    than LARGE, mostly.
    """
    if not hasattr(select, "poll"):  # on Windows
        return True
    asked = select.poll()
    asked.register(sock, select.POLLOUT)
    return bool(asked.poll(0))
