import json
import sys
import webbrowser
from pathlib import Path
from typing import Any

from treq.client import HTTPClient
from twisted.internet.task import react

from coda_twisted import Agent
from coda_twisted.oauth import OAuth2Agent, OAuth2Client, Token, Tokens


async def main(reactor: Any, server: str, client_id: str, stored: str) -> None:
    agent, file = Agent(reactor), Path(stored)
    token_url = f"{server}/oauth2/token"
    client = OAuth2Client(reactor, agent, token_url=token_url, client_id=client_id)
    tokens = Tokens(
        client,
        obtain=lambda: client.authorize(f"{server}/oauth2/authorize", webbrowser.open),
        token=Token.from_mapping(json.loads(file.read_text()))
        if file.exists()
        else None,
        save=lambda token: file.write_text(json.dumps(token.to_mapping())),
    )
    http = HTTPClient(OAuth2Agent(agent, tokens, origins=server))
    response = await http.get(f"{server}/oauth2/me")
    print(response.code, await response.text())


react(main, sys.argv[1:])
