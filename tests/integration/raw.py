"""
Sockets for tests that say every octet themselves.

The service is a process of its own, so that a test may play its client and its next
server by turns, and block while it waits: the test decides when each answer comes.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.integration.servers import free_port

__all__ = ["Head", "Listener", "Wire"]

PATIENCE = 10.0
"""Seconds after which a test that waits for octets fails."""


@dataclass(frozen=True)
class Head:
    """A request's or a response's head."""

    line: str
    fields: list[tuple[str, str]]

    def get(self, name: str) -> str | None:
        """All values of a field, joined by commas; ``None`` if it is not there."""
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        return ", ".join(values) if values else None

    @property
    def status(self) -> int:
        """The status code of a response."""
        return int(self.line.split(" ")[1])


class Wire:
    """One connection, and what has come in on it that was not asked for yet."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.socket.settimeout(PATIENCE)
        self._held = b""

    @classmethod
    def to(cls, port: int, host: str = "127.0.0.1", window: int | None = None) -> Wire:
        """
        Connect.

        :param window: Octets that may come before they are read; the system's own
            idea by default.
        """
        connecting = socket.socket(socket.AF_INET)
        connecting.settimeout(PATIENCE)
        if window is not None:
            connecting.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        connecting.connect((host, port))
        return cls(connecting)

    def send(self, data: bytes) -> None:
        """Send all of *data*."""
        self.socket.sendall(data)

    def finish(self) -> None:
        """Send nothing more, but go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close it in good order; a second time does nothing."""
        self.socket.close()

    def reset(self) -> None:
        """Close it with RST."""
        self.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.socket.close()

    def some(self) -> bytes:
        """What has come; empty when the peer has ended."""
        held, self._held = self._held, b""
        return held or self.socket.recv(1 << 16)

    def exactly(self, size: int) -> bytes:
        """*size* octets."""
        while len(self._held) < size:
            self._more()
        data, self._held = self._held[:size], self._held[size:]
        return data

    def until(self, mark: bytes) -> bytes:
        """All up to *mark*, and *mark*."""
        while mark not in self._held:
            self._more()
        data, mark, self._held = self._held.partition(mark)
        return data + mark

    def rest(self) -> bytes:
        """
        All that comes until the peer ends.

        :raises ConnectionResetError: It ended by RST.
        """
        return b"".join(iter(self.some, b""))

    def seconds_to_end(self) -> float:
        """How long it takes until the peer has ended, in whichever way."""
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            self.rest()
        return time.monotonic() - began

    def head(self) -> Head:
        """A head."""
        line, *lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")[:-2]
        pairs = (each.partition(":") for each in lines)
        return Head(line, [(name, value.strip()) for name, _, value in pairs])

    def content(self, head: Head) -> bytes:
        """What follows *head*, taken out of its framing, trailers left unread."""
        if "chunked" in (head.get("Transfer-Encoding") or ""):
            return b"".join(self._chunks())
        length = head.get("Content-Length")
        return self.rest() if length is None else self.exactly(int(length))

    def response(self) -> tuple[Head, bytes]:
        """A final response with its content, to anything but HEAD."""
        head = self.head()
        content = self.content(head)
        if "chunked" in (head.get("Transfer-Encoding") or ""):
            self.until(b"\r\n")
        return head, content

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.until(b"\r\n"), 16):
            yield self.exactly(size)
            self.exactly(2)

    def _more(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise EOFError(f"the peer ended after {self._held[-200:]!r}")
        self._held += data


class Listener:
    """
    A server that does nothing of itself.

    :param window: As of :meth:`Wire.to`.
    """

    def __init__(self, window: int | None = None) -> None:
        self.port = free_port()
        self._socket = socket.socket(socket.AF_INET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if window is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self._socket.bind(("127.0.0.1", self.port))
        self._socket.listen()
        self._socket.settimeout(PATIENCE)

    @property
    def authority(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self.port}"

    def accept(self) -> Wire:
        """Take the next connection."""
        return Wire(self._socket.accept()[0])

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
