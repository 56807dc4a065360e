"""Twisted's own proxy, as its documentation shows it: a program of its own."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor
from twisted.web import http, proxy


def main() -> None:
    """Serve until killed."""
    factory: Any = http.HTTPFactory()
    factory.protocol = proxy.Proxy
    factory.log = lambda request: None
    loop: Any = reactor
    loop.listenTCP(int(sys.argv[1]), factory, 1024, "127.0.0.1")
    loop.run()


if __name__ == "__main__":
    main()
