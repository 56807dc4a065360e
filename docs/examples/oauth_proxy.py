import os
import sys
from typing import Any

from treq.client import HTTPClient
from twisted.internet.task import react

from coda_twisted import Agent
from coda_twisted.oauth import OAuth2Client, Tokens, TokenSource


async def main(reactor: Any, proxy: str, token_url: str, name: str, url: str) -> None:
    direct = Agent(reactor, proxy=None)  # the token is got without the proxy
    secret = os.environ["CLIENT_SECRET"]
    client = OAuth2Client(
        reactor, direct, token_url=token_url, client_id=name, client_secret=secret
    )
    tokens = Tokens(client, obtain=client.client_credentials)
    agent = Agent(reactor, proxy=proxy, credentials=TokenSource(reactor, tokens))
    response = await HTTPClient(agent).get(url)
    print(response.code, await response.text())


react(main, sys.argv[1:])
