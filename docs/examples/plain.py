import sys
from typing import Any

import treq
from treq.client import HTTPClient
from twisted.internet.task import react

from coda_twisted import Agent


async def main(reactor: Any, proxy: str, url: str) -> None:
    client = HTTPClient(Agent(reactor, proxy=proxy))
    response = await client.get(url)
    print(response.code, await treq.text_content(response))


react(main, sys.argv[1:])
