import sys
from typing import Any

from twisted.internet.endpoints import connectProtocol
from twisted.internet.task import react
from twisted.protocols.memcache import MemCacheProtocol

from coda_twisted import tunnel


async def main(reactor: Any, proxy: str, host: str, port: str) -> None:
    endpoint = tunnel(reactor, host, int(port), proxy=proxy)
    server = await connectProtocol(endpoint, MemCacheProtocol())
    print((await server.version()).decode())


react(main, sys.argv[1:])
