"""
Several sockets that share one port, one for each worker.

With ``SO_REUSEPORT`` Linux spreads connections evenly over the sockets (socket(7)).
A socket that is shared by all instead goes, under light load, nearly always to the
same worker: epoll wakes the one that waits longest, and that is the one that was
quickest to wait again.
"""

from __future__ import annotations

import socket
import sys

__all__ = ["shared_sockets", "shares_ports"]


def shares_ports() -> bool:
    """
    Say whether this system spreads connections over the sockets of one port.

    macOS has the option, and gives all connections to one of the sockets.
    """
    return sys.platform.startswith("linux") and hasattr(socket, "SO_REUSEPORT")


def shared_sockets(
    address: str, port: int, count: int, backlog: int
) -> list[socket.socket]:
    """
    Make sockets that listen on one port.

    The first is bound as if it were alone, and shares only after that: another
    service of the same user is found out, which ``SO_REUSEPORT`` would let in.

    :param port: 0 for any that is free; it is the same for all then.
    :param count: At least 1.
    :raises OSError: The port cannot be had.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            each = socket.socket(family, socket.SOCK_STREAM)
            made.append(each)
            each.setblocking(False)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if len(made) > 1:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.bind((address, port))
            if len(made) == 1:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                port = each.getsockname()[1]
        for each in made:
            each.listen(backlog)
    except OSError:
        for each in made:
            each.close()
        raise
    return made
