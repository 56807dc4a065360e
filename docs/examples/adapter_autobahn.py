import sys
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import react


class Listener(WebSocketClientProtocol):
    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        print(payload.decode())
        self.sendClose()


async def main(reactor: Any, url: str, endpoint: str) -> None:
    factory = WebSocketClientFactory(url)
    factory.protocol = Listener
    protocol: Any = await clientFromString(reactor, endpoint).connect(factory)
    await protocol.is_closed


react(main, sys.argv[1:])
