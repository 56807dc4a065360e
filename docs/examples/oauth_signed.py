import os
import sys
from typing import Any

from treq.client import HTTPClient
from twisted.internet.task import react

from coda_twisted import Agent
from coda_twisted.oauth import OAuth1Agent, OAuth1Credentials


async def main(reactor: Any, client_key: str, token: str, api: str) -> None:
    credentials = OAuth1Credentials(
        client_key, os.environ["CLIENT_SECRET"], token, os.environ["TOKEN_SECRET"]
    )
    http = HTTPClient(OAuth1Agent(Agent(reactor), credentials, origins=api))
    response = await http.post(f"{api}/oauth1/me", data={"status": "a form is signed"})
    print(response.code, await response.text())


react(main, sys.argv[1:])
