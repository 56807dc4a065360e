import sys
from typing import Any

import wormhole
from twisted.internet.task import react

from coda_twisted import make_client
from coda_twisted.adapters.wormhole import ThroughProxy


async def main(reactor: Any, proxy: str, relay: str, code: str, text: str) -> None:
    way = ThroughProxy(make_client(reactor, proxy=proxy))
    chat = wormhole.create("example.com/chat", relay, reactor, tor=way)
    chat.set_code(code)
    chat.send_message(text.encode())
    print((await chat.get_message()).decode())
    await chat.close()


react(main, sys.argv[1:])
