"""Memory is given back when it is no longer used, not when the collector runs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import readBody

from coda_twisted.client.agent import ClientAgent
from coda_twisted.client.response import Response
from coda_twisted.client.upload import BytesBody
from coda_twisted.credentials import PasswordCredentials
from coda_twisted.routing.routes import Direct
from tests.test_client_exchange import (
    BASIC,
    CHALLENGE,
    NTLM,
    PROXY,
    ExchangeCase,
    ThreeLegCredentials,
)
from tests.test_client_upload import Source
from tests.wire import Peer

REQUESTS = 1000


def garbage(act: Callable[[], None], times: int = REQUESTS) -> list[str]:
    """Name the types of what *act* leaves to the cycle collector."""
    act()  # what is made once and kept, caches and imports, is none
    while gc.collect():
        pass  # what other tests have left, and what that held
    before = gc.get_debug()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(times):
            act()
        gc.collect()
        return sorted({type(each).__qualname__ for each in gc.garbage})
    finally:
        gc.garbage.clear()
        gc.set_debug(before)
        gc.enable()


class GarbageCase(ExchangeCase):
    """A client that sends one request a thousand times."""

    def answered(self, *legs: tuple[int, tuple[bytes, bytes]]) -> None:
        """Send a request, challenge each leg, answer the last."""
        answer = self.send()
        peer = self.peer()
        for status, field in legs:
            peer.answer(status, field)
        peer.answer(200, body=b"hello")
        self.finish(answer)
        self.assertEqual(self.sink.data, b"hello")
        del self.sink
        self.forget(peer)

    def close(self) -> None:
        """Close the client and its connections."""
        closed = self.client.close()
        for peer in self.wire.peers:
            peer.close()
        self.successResultOf(closed)
        self.wire.peers.clear()

    def forget(self, peer: Peer) -> None:
        """Let the wire forget what was asked."""
        peer.requests.clear()
        peer.bodies.clear()

    def send(self) -> Deferred[Response]:
        return self.ask()


class DirectTests(GarbageCase):
    """Without a proxy."""

    route = Direct()

    def test_requests(self) -> None:
        """Plain requests leave nothing."""
        self.assertEqual(garbage(self.answered), [])


class BasicTests(GarbageCase):
    """Through a proxy that wants Basic."""

    route = PROXY
    credentials = PasswordCredentials("alice", "secret")

    def send(self) -> Deferred[Response]:
        return self.ask(b"PUT", BytesBody(b"content"))

    def test_challenged(self) -> None:
        """Requests that are challenged leave nothing."""

        def challenged() -> None:
            self.client = self.make_client()  # one that does not know what to say
            self.answered((407, BASIC))
            self.close()

        self.assertEqual(garbage(challenged), [])


class ThreeLegTests(GarbageCase):
    """Through a proxy that authenticates connections."""

    route = PROXY
    credentials = ThreeLegCredentials()

    def test_handshakes(self) -> None:
        """Connections that are authenticated, used and closed leave nothing."""

        def handshake() -> None:
            self.client = self.make_client()
            self.answered((407, NTLM), (407, CHALLENGE))
            self.answered()
            self.close()

        self.assertEqual(garbage(handshake), [])

    def test_tunnels(self) -> None:
        """Nor do tunnels, after both ends are closed."""
        factory = Factory.forProtocol(Protocol)

        def tunnel() -> None:
            self.client = self.make_client()
            connecting = self.client.endpoint("db", 5432).connect(factory)
            peer = self.peer()
            peer.answer(407, NTLM)
            peer.answer(407, CHALLENGE)
            peer.open_tunnel(b"welcome")
            self.successResultOf(connecting)
            self.close()

        self.assertEqual(garbage(tunnel), [])


class AgentTests(GarbageCase):
    """Through the IAgent face."""

    route = Direct()

    def test_read_body(self) -> None:
        """Requests whose content is read by readBody leave nothing."""
        agent = ClientAgent(self.client)

        def one() -> None:
            answer = agent.request(b"GET", b"http://site/")
            peer = self.peer()
            peer.answer(200, body=b"hello")
            response = self.successResultOf(answer)
            self.assertEqual(self.successResultOf(readBody(response)), b"hello")
            self.forget(peer)

        self.assertEqual(garbage(one), [])


class PendingTests(SynchronousTestCase):
    """Requests that nobody can answer any more."""

    def collect(self, begin: Callable[[ExchangeCase], Any], **attributes: Any) -> None:
        """Begin a request, and let it go with all that it belongs to."""
        case = ExchangeCase()
        case.credentials = ThreeLegCredentials()
        for name, value in attributes.items():
            setattr(case, name, value)
        case.setUp()
        begin(case)
        del case
        ignored: list[Any] = []
        self.patch(sys, "unraisablehook", ignored.append)
        while gc.collect():
            pass  # what is said in dying is collected in the next round
        self.assertEqual((self.flushLoggedErrors(), ignored), ([], []))

    def test_waiting(self) -> None:
        """One that waits for its answer goes without a word."""
        self.collect(lambda case: case.ask())
        self.collect(lambda case: case.ask(), credentials=None)
        self.collect(lambda case: case.ask(b"PUT", Source()))

    def test_connecting(self) -> None:
        """So does one that waits for its connection."""

        def connect(case: ExchangeCase) -> None:
            case.wire.hold = True
            case.ask()

        self.collect(connect)
        self.collect(connect, route=Direct())

    def test_tls(self) -> None:
        """So does one that waits for TLS."""
        self.collect(lambda case: case.ask(scheme="https"), route=Direct())

    def test_draining(self) -> None:
        """So does one that waits for the rest of a challenge."""

        def drain(case: ExchangeCase) -> None:
            case.ask()
            case.peer().send(
                b"HTTP/1.1 407 Any\r\nProxy-Authenticate: NTLM\r\n"
                b"Content-Length: 5\r\n\r\n"
            )

        self.collect(drain)

    def test_working(self) -> None:
        """So do one that waits for a token, and one that waits for that one."""

        def work(case: ExchangeCase) -> None:
            case.workers.held = []
            for _ in range(2):
                case.ask()
                case.peer().answer(407, NTLM)

        self.collect(work)

    def test_verdict(self) -> None:
        """So do one that waits for a verdict, and one that waits for that one."""

        def log_on(case: ExchangeCase) -> None:
            for _ in range(2):
                case.ask()
                case.peer().answer(407, NTLM)
            case.peer(0).answer(407, CHALLENGE)

        self.collect(log_on)

    def test_tunnel(self) -> None:
        """So does a tunnel that is not open yet."""
        self.collect(
            lambda case: case.client.endpoint("db", 1).connect(
                Factory.forProtocol(Protocol)
            )
        )
