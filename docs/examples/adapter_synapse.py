import sys
from typing import Any

from synapse.config.server import parse_proxy_config
from treq.client import HTTPClient
from twisted.internet.task import react

from coda_twisted.adapters.synapse import ProxyAgent


async def main(reactor: Any, proxy: str, url: str) -> None:
    config = parse_proxy_config({"http_proxy": proxy, "https_proxy": proxy})
    agent = ProxyAgent(reactor=reactor, proxy_config=config)
    response = await HTTPClient(agent).get(url)
    print(response.code, await response.text())


react(main, sys.argv[1:])
