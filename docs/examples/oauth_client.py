import os
import sys
from typing import Any

from treq.client import HTTPClient
from twisted.internet.task import react

from coda_twisted import Agent
from coda_twisted.oauth import OAuth2Agent, OAuth2Client, Tokens


async def main(reactor: Any, token_url: str, client_id: str, api: str) -> None:
    agent = Agent(reactor)  # token requests go through the proxy, too
    secret = os.environ["CLIENT_SECRET"]
    client = OAuth2Client(
        reactor, agent, token_url=token_url, client_id=client_id, client_secret=secret
    )
    tokens = Tokens(client, obtain=client.client_credentials)
    http = HTTPClient(OAuth2Agent(agent, tokens, origins=api))
    response = await http.get(f"{api}/oauth2/me")
    print(response.code, await response.text())


react(main, sys.argv[1:])
