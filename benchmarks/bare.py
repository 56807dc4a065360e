"""
A relay that knows next to no HTTP: what Twisted's sockets cost by themselves.

The first line of a connection says where it leads; from there on octets are passed on
as they come.  Nobody should use it: it keeps a connection to one server for all that a
client asks for, and believes whatever it is told.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import (
    ClientFactory,
    Factory,
    Protocol,
    connectionDone,
)
from twisted.python.failure import Failure

_LINE = re.compile(rb"(CONNECT )?(?:[A-Z]+ http://)?([0-9.]+):([0-9]+)")
_OPEN = b"HTTP/1.1 200 OK\r\n\r\n"


class Far(Protocol):
    """The server's end."""

    def __init__(self, near: Near) -> None:
        self.near = near

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        self.near.joined(self)

    def dataReceived(self, data: bytes) -> None:
        self.near.transport.write(data)  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        transport: Any = self.near.transport
        transport.unregisterProducer()
        transport.loseConnection()


class Near(Protocol):
    """The client's end."""

    far: Far | None = None
    head = b""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        if self.far is not None:
            self.far.transport.write(data)  # type: ignore[union-attr]
            return
        self.head = data
        match = _LINE.match(data)
        assert match is not None
        loop: Any = reactor
        factory = ClientFactory()
        factory.noisy = False
        factory.buildProtocol = lambda addr: Far(self)  # type: ignore[method-assign]
        loop.connectTCP(match[2].decode("ascii"), int(match[3]), factory)

    def joined(self, far: Far) -> None:
        self.far = far
        near_transport: Any = self.transport
        far_transport: Any = far.transport
        near_transport.registerProducer(far_transport, True)
        far_transport.registerProducer(near_transport, True)
        if self.head.startswith(b"CONNECT "):
            near_transport.write(_OPEN)
        else:
            far_transport.write(self.head)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.far is not None:
            transport: Any = self.far.transport
            transport.unregisterProducer()
            transport.loseConnection()


def main() -> None:
    """Serve until killed."""
    loop: Any = reactor
    factory = Factory.forProtocol(Near)
    factory.noisy = False
    loop.listenTCP(int(sys.argv[1]), factory, 1024, "127.0.0.1")
    loop.run()


if __name__ == "__main__":
    main()
