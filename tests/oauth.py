"""An authorization server and an API in memory, played by the test."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from coda_twisted.client.agent import ClientAgent
from coda_twisted.client.exchange import Client
from coda_twisted.oauth import OAuth2Client
from coda_twisted.routing.routes import Direct, StaticRouter
from tests.wire import Peer, Wire

__all__ = ["OAuthCase", "Recorder"]


@implementer(IAgent)
class Recorder:
    """An agent that keeps what it is asked, and never answers by itself."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes, Headers | None, Any]] = []
        self.answers: list[Deferred[IResponse]] = []

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        self.asked.append((method, uri, headers, bodyProducer))
        self.answers.append(Deferred())
        return self.answers[-1]


class OAuthCase(SynchronousTestCase):
    """Our own agent, without a proxy, whose connections end at the test."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wire = Wire()
        self.agent = ClientAgent(
            Client(
                self.clock,
                router=StaticRouter(Direct()),
                endpoint_for=self.wire.endpoint_for,
            )
        )

    def oauth2(self, **settings: Any) -> OAuth2Client:
        """A client of the server at http://as/."""
        known: dict[str, Any] = {
            "token_url": "http://as/token",
            "client_id": "me",
            "allow_cleartext": True,
            "now": self.clock.seconds,
        }
        return OAuth2Client(self.clock, self.agent, **{**known, **settings})

    def to(self, host: str = "as") -> Peer:
        """The latest connection to a host."""
        return [peer for peer in self.wire.peers if peer.host == host][-1].read()

    def asked(self, host: str = "as") -> int:
        """How many requests a host got."""
        return sum(
            len(peer.read().requests) for peer in self.wire.peers if peer.host == host
        )

    def form(self, host: str = "as") -> dict[str, str]:
        """The form in a host's latest request."""
        text = self.to(host).bodies[-1].decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True)
        self.assertEqual(len(dict(pairs)), len(pairs), "something is said twice")
        return dict(pairs)

    def tell(self, status: int = 200, **members: Any) -> None:
        """Let the authorization server answer with JSON."""
        self.to().answer(
            status,
            (b"Content-Type", b"application/json"),
            body=json.dumps(members).encode("ascii"),
        )
