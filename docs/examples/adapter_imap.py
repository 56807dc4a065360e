import sys
from typing import Any

from twisted.internet.endpoints import connectProtocol
from twisted.internet.task import react
from twisted.mail.imap4 import IMAP4Client

from coda_twisted import tunnel


async def main(reactor: Any, proxy: str, host: str, port: str, *user: str) -> None:
    endpoint = tunnel(reactor, host, int(port), proxy=proxy)
    client: Any = await connectProtocol(endpoint, IMAP4Client())
    await client.login(*(part.encode() for part in user))
    print(await client.status("INBOX", "MESSAGES"))
    await client.logout()


react(main, sys.argv[1:])
