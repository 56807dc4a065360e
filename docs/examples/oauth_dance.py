import os
import sys
from typing import Any

from twisted.internet.task import react

from coda_twisted import Agent
from coda_twisted.oauth import OAuth1Credentials, OAuth1Dance


async def main(reactor: Any, server: str, client_key: str) -> None:
    dance = OAuth1Dance(
        reactor,
        Agent(reactor),
        OAuth1Credentials(client_key, os.environ["CLIENT_SECRET"]),
        request_url=f"{server}/oauth1/initiate",
        authorize_url=f"{server}/oauth1/authorize",
        access_url=f"{server}/oauth1/token",
    )
    print("Go to", await dance.begin(), flush=True)
    credentials = await dance.finish(input("What were you told? "))
    print(credentials)


react(main, sys.argv[1:])
