"""Send what can be sent at once, without asking the reactor first."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["has_nothing_to_write", "send_now"]


def has_nothing_to_write(transport: Any) -> bool:
    """Say whether the kernel is sure to have all that was written to a TCP socket."""
    return (
        type(transport) in _SOCKETS
        # Its two buffers, and whether TLS was started on it.
        and not transport._tempDataBuffer  # noqa: SLF001
        and not transport.dataBuffer
        and not transport.TLS
    )


def send_now(transport: Any, data: bytes) -> None:
    """
    Write to a transport; if it is a TCP socket, hand it to the kernel at once.

    Twisted's sockets keep what is written until the reactor has found that they may
    be written to: two calls of ``epoll_ctl`` and one of ``epoll_wait`` for what the
    kernel would have taken straight away, a quarter of what a small request costs.
    What does not fit is left to the transport, and so is everything for other kinds
    of transport and for one that has something to write already.
    """
    if (
        has_nothing_to_write(transport)
        and transport.connected
        and not transport.disconnecting
    ):
        sent = transport.writeSomeData(data)
        if sent == len(data):
            return
        if isinstance(sent, Exception):
            # The kernel tells of a reset once.  Who read next would be told of an
            # end in good order, and take what it cut short for complete.
            transport.abortConnection()
            return
        data = data[sent:]
    transport.write(data)


def _sockets() -> frozenset[type]:
    """Name the transports of which we know how they buffer."""
    if sys.platform == "win32":
        return frozenset()  # of IOCP they buffer otherwise
    from twisted.internet.tcp import Client, Server

    from coda_twisted.client.dial import Dialled

    return frozenset((Client, Server, Dialled))


_SOCKETS = _sockets()
