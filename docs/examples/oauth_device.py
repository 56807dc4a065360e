import sys
from typing import Any

from twisted.internet.task import react

from coda_twisted import Agent
from coda_twisted.oauth import OAuth2Client


async def main(reactor: Any, server: str, client_id: str) -> None:
    agent, token_url = Agent(reactor), f"{server}/oauth2/token"
    client = OAuth2Client(reactor, agent, token_url=token_url, client_id=client_id)
    device = await client.device(f"{server}/oauth2/device")
    print(f"Go to {device.verification_uri} and type {device.user_code}", flush=True)
    token = await device.token()
    print(token)


react(main, sys.argv[1:])
