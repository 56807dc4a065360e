"""When a transport's socket can be used past the transport, and from when on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPullProducer, IReactorFDSet
from twisted.internet.tcp import Connection
from zope.interface import implementer

from coda_twisted.client.sockets import socket_of

__all__ = ["Flushed", "are_raw", "is_raw"]


def is_raw(transport: Any) -> bool:
    """Say whether what a transport is written is what its socket is: no TLS."""
    return (
        isinstance(transport, Connection)
        and not transport.TLS
        and socket_of(transport) is not None
    )


def are_raw(reactor: Any, *transports: Any) -> bool:
    """Say whether these are sockets which this reactor can watch for us."""
    return IReactorFDSet.providedBy(reactor) and all(map(is_raw, transports))


@implementer(IPullProducer)
class Flushed:
    """
    Call once the kernel has all that was written to a transport.

    The transport must have no producer; it has none when it is called.  Unregistering
    this one is how to call it off.

    :param transport: A raw one, as :func:`is_raw` has it.
    :param failing: Called instead if the transport fails, while its socket is open.
    """

    __slots__ = ("_call", "_failing", "_transport")

    def __init__(
        self,
        transport: Any,
        call: Callable[[], None],
        failing: Callable[[], None] | None = None,
    ) -> None:
        self._transport = transport
        self._failing = failing
        self._call: Callable[[], None] | None = None
        # That asks at once, whatever is buffered; the next time nothing is.
        transport.registerProducer(self, False)
        self._call = call
        transport.startWriting()

    def resumeProducing(self) -> None:
        """Take note that nothing is buffered."""
        call, self._call = self._call, None
        self._failing = None
        if call is not None:
            self._transport.unregisterProducer()
            call()

    def stopProducing(self) -> None:
        """Take note that the connection is gone: the protocol is told, too."""
        self._call = None
        failing, self._failing = self._failing, None
        if failing is not None:
            failing()
