import sys
from typing import Any

from treq.client import HTTPClient
from twisted.internet.task import react

from coda_twisted import Agent


async def main(reactor: Any, proxy: str, url: str, path: str) -> None:
    client = HTTPClient(Agent(reactor, proxy=proxy))
    with open(path, "rb") as file:
        response = await client.put(url, data=file, timeout=30)
    print(response.code, await response.json())


react(main, sys.argv[1:])
