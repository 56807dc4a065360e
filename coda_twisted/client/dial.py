"""
Connect to an address, with nothing in between.

``TCP4ClientEndpoint`` has a connector, a factory, a protocol around the protocol, two
timers and eight more system calls for what is one ``connect``: half of what a tunnel
costs.  What is connected is Twisted's own transport.
"""

from __future__ import annotations

import socket
from errno import EAGAIN, EINPROGRESS
from os import strerror
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    getConnectError,
)
from twisted.internet.error import (
    TimeoutError as TCPTimeoutError,
)
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReadWriteDescriptor,
    IStreamClientEndpoint,
)
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["AddressEndpoint", "Dialled", "can_dial"]

# A socket that does not block from the beginning, where there are such.
_KIND = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)


def can_dial(reactor: Any, host: str) -> bool:
    """Say whether :class:`AddressEndpoint` is for this reactor and this host."""
    return isinstance(reactor, PosixReactorBase) and (
        isIPAddress(host) or (isIPv6Address(host) and "%" not in host)
    )


class Dialled(Connection):
    """
    The transport of a connection that was made here.

    :param skt: Is connected, and does not block; the transport closes it.
    """

    def __init__(self, skt: socket.socket, protocol: IProtocol, reactor: Any) -> None:
        super().__init__(skt, protocol, reactor)
        self.logstr = f"{type(protocol).__name__},client"
        self.connected = 1
        self.startReading()

    def getHost(self) -> IPv4Address | IPv6Address:
        """Tell our end (ITransport)."""
        return _address(self.socket, self.socket.getsockname())

    def getPeer(self) -> IPv4Address | IPv6Address:
        """Tell the other end (ITransport)."""
        return _address(self.socket, self.socket.getpeername())


@implementer(IStreamClientEndpoint)
class AddressEndpoint:
    """
    A TCP port at an address.

    :param reactor: Watches descriptors, as all of Twisted's do but Windows' IOCP.
    :param host: Its IPv4 or IPv6 address.
    :param timeout: In seconds.
    """

    def __init__(self, reactor: Any, host: str, port: int, timeout: float) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect what the factory builds.

        :returns: Fails as Twisted's own endpoints do: with a ``ConnectError`` of
            the kind that fits, ``TimeoutError`` among them.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            skt = socket.socket(family, _KIND)
        except OSError as error:  # no descriptor is left, for one
            return fail(ConnectBindError(error.errno, strerror(error.errno or 0)))
        if _KIND == socket.SOCK_STREAM:
            skt.setblocking(False)
        attempt = _Attempt(self._reactor, skt, protocolFactory)
        code = skt.connect_ex((self._host, self._port))
        if code in (EINPROGRESS, EAGAIN):
            attempt.wait(self._timeout)
        else:
            attempt.settle(code)
        return attempt.outcome


@implementer(IReadWriteDescriptor)
class _Attempt:
    """
    A socket on its way to be connected.

    :ivar outcome: Fires with the protocol; cancelling it closes the socket.
    """

    __slots__ = ("_factory", "_reactor", "_socket", "_timer", "outcome")

    def __init__(
        self, reactor: Any, skt: socket.socket, factory: IProtocolFactory
    ) -> None:
        self.outcome: Deferred[IProtocol] = Deferred(self._cancelled)
        self._reactor = reactor
        self._socket: socket.socket | None = skt
        self._factory = factory
        self._timer: IDelayedCall | None = None

    def wait(self, seconds: float) -> None:
        self._reactor.addWriter(self)
        self._timer = self._reactor.callLater(seconds, self._expired)

    def settle(self, code: int) -> None:
        """Take note of how it ended: an ``errno``, or 0."""
        skt = self._release()
        if skt is None:
            return
        if code:
            skt.close()
            self.outcome.errback(Failure(getConnectError((code, strerror(code)))))
            return
        try:
            protocol = self._factory.buildProtocol(_address(skt, skt.getpeername()))
        except Exception:
            skt.close()
            self.outcome.errback()
            return
        if protocol is None:
            skt.close()
            self.outcome.errback(
                Failure(ConnectError(string="the factory built no protocol"))
            )
            return
        protocol.makeConnection(Dialled(skt, protocol, self._reactor))
        self.outcome.callback(protocol)

    def _release(self) -> socket.socket | None:
        """Give the socket up, and what watches it."""
        skt = self._socket
        if skt is None:
            return None
        timer, self._timer = self._timer, None
        if timer is not None:
            self._reactor.removeWriter(self)
            if timer.active():
                timer.cancel()
        self._socket = None
        return skt

    def _expired(self) -> None:
        self._close(TCPTimeoutError())

    def _cancelled(self, _: Deferred[IProtocol]) -> None:
        # Whoever cancels hears of it from the Deferred.
        skt = self._release()
        if skt is not None:
            skt.close()

    def _close(self, error: Exception) -> None:
        skt = self._release()
        if skt is not None:
            skt.close()
            self.outcome.errback(Failure(error))

    # What the reactor calls

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return "connecting"

    def doRead(self) -> None:
        """Is not called: nothing is read before the connection is made."""

    def doWrite(self) -> None:
        assert self._socket is not None
        self.settle(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def connectionLost(self, reason: Failure) -> None:
        """The reactor saw an error, and no more than that; or it stops."""
        if self._socket is not None:
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self.settle(code)
            else:
                self._close(ConnectError(string=reason.getErrorMessage()))


def _address(skt: socket.socket, name: Any) -> IPv4Address | IPv6Address:
    if skt.family == socket.AF_INET6:
        return IPv6Address("TCP", *name)
    return IPv4Address("TCP", *name)
