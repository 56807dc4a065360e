"""What is done to the socket beneath a transport, where there is one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from twisted.internet.interfaces import ISystemHandle, ITCPTransport
from twisted.protocols.policies import ProtocolWrapper

from coda_twisted.client.timeouts import KeepAlive

__all__ = ["lowest", "set_options", "socket_of", "waiting_in"]


def lowest(transport: Any) -> Any:
    """Find the transport that has the socket, below TLS."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def socket_of(transport: Any) -> socket.socket | None:
    """Find a transport's own socket; ``None`` in memory, and for what wraps another."""
    handle = transport.getHandle() if ISystemHandle.providedBy(transport) else None
    return handle if isinstance(handle, socket.socket) else None


def waiting_in(transport: Any) -> Iterator[bytes]:
    """
    Take what has come to a socket and was not read.

    It ends when there is nothing more, which says nothing about the peer: after a
    failed write Linux pretends its end, too.
    """
    handle = socket_of(transport)
    while handle is not None:
        try:
            data = handle.recv(1 << 16)
        except OSError:
            return
        if not data:
            return
        yield data


def set_options(transport: Any, keep_alive: KeepAlive | None) -> None:
    """Set TCP_NODELAY and keep-alive where the lowest transport is TCP."""
    transport = lowest(transport)
    if not ITCPTransport.providedBy(transport):
        return
    transport.setTcpNoDelay(True)
    if keep_alive is None or not keep_alive.enabled:
        return
    transport.setTcpKeepAlive(True)
    handle = socket_of(transport)
    if handle is None:
        return
    for name, value in (
        ("TCP_KEEPIDLE", keep_alive.idle),
        ("TCP_KEEPINTVL", keep_alive.interval),
        ("TCP_KEEPCNT", keep_alive.count),
    ):
        option = getattr(socket, name, None)  # macOS and Windows lack some
        if option is not None:
            handle.setsockopt(socket.IPPROTO_TCP, option, value)
