import sys
from typing import Any

from twisted.internet.task import react
from twisted.web.client import Agent, readBody

from coda_twisted import TunnelEndpointFactory, make_client


async def main(reactor: Any, proxy: str, url: str) -> None:
    factory = TunnelEndpointFactory(make_client(reactor, proxy=proxy))
    agent = Agent.usingEndpointFactory(reactor, factory)
    response = await agent.request(b"GET", url.encode())
    print(response.code, (await readBody(response)).decode())


react(main, sys.argv[1:])
