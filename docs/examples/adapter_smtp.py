import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import react
from twisted.mail.smtp import SMTPSenderFactory

from coda_twisted import tunnel


async def main(reactor: Any, proxy: str, host: str, port: str, *ends: str) -> None:
    sent: Deferred[Any] = Deferred()
    factory = SMTPSenderFactory(ends[0], ends[1], sys.stdin.buffer, sent)
    way = tunnel(reactor, host, int(port), proxy=proxy)
    await wrapClientTLS(optionsForClientTLS(host), way).connect(factory)
    print(await sent)


react(main, sys.argv[1:])
