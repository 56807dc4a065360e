import sys
from typing import Any

from treq.client import HTTPClient
from twisted.internet.task import react

from coda_twisted.adapters.sygnal import ProxyAgent


async def main(reactor: Any, proxy: str, url: str) -> None:
    agent = ProxyAgent(reactor=reactor, proxy_url_str=proxy)
    response = await HTTPClient(agent).get(url)
    print(response.code, await response.text())


react(main, sys.argv[1:])
