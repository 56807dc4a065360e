"""
Real descriptors under a reactor that moves when the test says so.

They are pairs of local sockets: no network, but a kernel with its own mind of buffers,
ends and resets.  Peers are played by the test.
"""

from __future__ import annotations

import os
import select
import socket
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.tcp import Connection

from coda_twisted.service.pipes import LARGE, SMALL, Pipes
from tests.front import Loop

__all__ = ["NO_PIPES", "Descriptors", "FicklePipes", "RawPeer", "open_files", "raw"]

NO_PIPES = ((LARGE[0], 0), (SMALL[0], 0))


def open_files() -> int:
    """Count this process's descriptors."""
    return len(os.listdir("/proc/self/fd"))


class FicklePipes(Pipes):
    """Pipes that are to be had now and then."""

    __slots__ = ("_turn", "_turns")

    def __init__(self, turns: list[bool]) -> None:
        super().__init__()
        self._turns = turns
        self._turn = 0

    def take(self, *, large: bool) -> Any:
        self._turn += 1
        if self._turns and not self._turns[self._turn % len(self._turns)]:
            return None
        return super().take(large=large)


class Descriptors(Loop):
    """
    A reactor that watches descriptors, as Twisted's for epoll does.

    It knows one object for each: to give it another is an error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peers: list[RawPeer] = []
        self._watched: dict[int, Any] = {}

    def _add(self, selectable: Any) -> None:
        fd = selectable.fileno()
        assert fd >= 0
        known = self._watched.setdefault(fd, selectable)
        assert known is selectable, "two objects for one descriptor"

    def _remove(self, selectable: Any) -> None:
        if selectable not in self.readers and selectable not in self.writers:
            for fd, each in list(self._watched.items()):
                if each is selectable:
                    del self._watched[fd]

    def addReader(self, reader: Any) -> None:
        self._add(reader)
        super().addReader(reader)

    def addWriter(self, writer: Any) -> None:
        self._add(writer)
        super().addWriter(writer)

    def removeReader(self, reader: Any) -> None:
        super().removeReader(reader)
        self._remove(reader)

    def removeWriter(self, writer: Any) -> None:
        super().removeWriter(writer)
        self._remove(writer)

    def turn(self) -> None:
        """Let everything happen that needs no time."""
        moved = True
        while moved:
            moved = any(call.getTime() <= self.seconds() for call in self.calls)
            self.advance(0)
            for peer in self.peers:
                moved = peer.move() or moved
            poll = select.poll()
            for fd, each in self._watched.items():
                poll.register(
                    fd,
                    (each in self.readers and select.POLLIN)
                    | (each in self.writers and select.POLLOUT),
                )
            for fd, event in poll.poll(0):
                each = self._watched.get(fd)
                if each is not None:
                    moved = True
                    self._happen(each, event)

    def _happen(self, each: Any, event: int) -> None:
        why: Any = None
        reading = False
        if event & (select.POLLHUP | select.POLLERR) and not event & select.POLLIN:
            reading = each in self.readers
            why = CONNECTION_DONE if reading else CONNECTION_LOST
        else:
            if event & select.POLLIN:
                reading = True
                why = each.doRead()
            if why is None and event & select.POLLOUT and each.fileno() >= 0:
                reading = False
                why = each.doWrite()
        if why is not None:
            self._disconnectSelectable(each, why, reading)


class _Transport(Connection):
    """A transport over one of a pair."""

    def __init__(self, near: socket.socket, protocol: Any, loop: Descriptors) -> None:
        super().__init__(near, protocol, loop)
        self.connected = 1

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 8088)

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 50000)

    def setTcpNoDelay(self, enabled: object) -> None:
        """Do nothing: local sockets know no such thing."""

    def setTcpKeepAlive(self, enabled: object) -> None:
        """Do nothing, as well."""


class RawPeer:
    """
    The other of the pair.

    :ivar got: What it has read.
    :ivar reads: Whether it reads what comes.
    :ivar ended: Whether the end has come.
    :ivar broken: Whether the connection broke.
    """

    def __init__(self, far: socket.socket) -> None:
        self.socket = far
        self.socket.setblocking(False)
        self.got = bytearray()
        self.reads = True
        self.ended = self.broken = False
        self._out = b""
        self._finish = False

    def send(self, data: bytes) -> None:
        """Send octets, as soon as they are taken."""
        self._out += data

    def finish(self) -> None:
        """End the half, behind everything that was sent."""
        self._finish = True

    def reset(self) -> None:
        """
        Break the connection.

        A local socket that is closed unread is, for the other, a reset one.
        """
        self.broken = True
        self.socket.close()

    @property
    def unsent(self) -> int:
        """Octets that are not taken yet."""
        return len(self._out)

    def move(self) -> bool:
        """Do what can be done now; whether anything was."""
        if self.broken:
            return False
        try:
            return self._write() | self._read()
        except OSError:
            self.broken = True
            return True

    def _write(self) -> bool:
        moved = False
        try:
            if self._out:
                self._out = self._out[self.socket.send(self._out) :]
                moved = True
            if self._finish and not self._out:
                self._finish = False
                self.socket.shutdown(socket.SHUT_WR)
                moved = True
        except BlockingIOError:
            pass
        return moved

    def _read(self) -> bool:
        if not self.reads or self.ended:
            return False
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return False
        self.got += data
        self.ended = not data
        return True


def raw(loop: Descriptors, protocol: Any) -> RawPeer:
    """Connect *protocol* to a peer that the test plays."""
    near, far = socket.socketpair()
    transport = _Transport(near, protocol, loop)
    transport.startReading()
    peer = RawPeer(far)
    loop.peers.append(peer)
    protocol.makeConnection(transport)
    return peer
