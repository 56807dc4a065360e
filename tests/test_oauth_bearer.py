"""Tests of :mod:`coda_twisted.oauth.bearer`: tokens as credentials."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IResponse
from zope.interface.verify import verifyObject

from coda_twisted.auth.bearer import BearerConversation
from coda_twisted.auth.layer import Context
from coda_twisted.auth.memory import SpaceMemory
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import Peer, Role, Work
from coda_twisted.client.agent import ClientAgent
from coda_twisted.client.exchange import Client
from coda_twisted.errors import AuthenticationFailed, CredentialsRejected
from coda_twisted.interfaces import ICredentials, ICredentialSource
from coda_twisted.oauth import BearerCredentials, Token, Tokens, TokenSource
from coda_twisted.oauth import bearer as bearer_module
from coda_twisted.routing.routes import Direct, HTTPProxy, StaticRouter
from tests.oauth import OAuthCase
from tests.wire import Wire

PROXY = Peer(Role.PROXY, "http", "proxy", 3128)
SITE = Peer(Role.ORIGIN, "https", "api", 443)
CHALLENGE = (b"Proxy-Authenticate", b'Bearer realm="proxy"')
INVALID = (b"Proxy-Authenticate", b'Bearer realm="proxy", error="invalid_token"')


class CredentialsTests(SynchronousTestCase):
    """A token as credentials."""

    def test_interface(self) -> None:
        """They are credentials like others."""
        bearer = BearerCredentials("SECRET")
        verifyObject(ICredentials, bearer)
        self.assertEqual(bearer.schemes(), ("bearer",))
        context = Context(AuthPolicy(), SpaceMemory(), None, bytes)
        self.assertIsInstance(
            bearer.conversation("bearer", PROXY, context), BearerConversation
        )
        error = self.assertRaises(
            AuthenticationFailed, bearer.conversation, "basic", PROXY, context
        )
        self.assertEqual(error.scheme, "basic")
        clear = Peer(Role.ORIGIN, "http", "api", 80)
        self.assertRaises(
            AuthenticationFailed, bearer.conversation, "bearer", clear, context
        )
        told = BearerCredentials("SECRET", allow_cleartext=True)
        told.conversation("bearer", clear, context)

    def test_identity(self) -> None:
        """A named token has the same identity as the one before; no secret shows."""
        first, second = (BearerCredentials(t, name="me") for t in ("SECRET", "other"))
        self.assertEqual(first.identity, second.identity)
        self.assertNotEqual(first.fingerprint, second.fingerprint)
        nameless = BearerCredentials("SECRET")
        self.assertNotEqual(nameless.identity, BearerCredentials("other").identity)
        for each in (first, nameless):
            shown = f"{each} {each!r} {each.identity} {each.fingerprint!r}"
            self.assertNotIn("SECRET", shown)

    def test_unsendable(self) -> None:
        """What cannot stand in a field is refused at once, and not shown."""
        error = self.assertRaises(ValueError, BearerCredentials, "SECRET\r\n")
        self.assertNotIn("SECRET", str(error))


class Inline:
    """Does work at once, in this thread."""

    def run(self, work: Work) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        try:
            done.callback(work.run())
        except Exception:
            done.errback()
        return done

    def stop(self) -> None:
        """There are no threads."""


class SourceCase(OAuthCase):
    """
    A proxy that wants a token of http://as/.

    The authorization server is reached without it.
    """

    def setUp(self) -> None:
        super().setUp()
        self.tokens = Tokens(
            self.oauth2(), token=Token("old", "r", 100.0), now=self.clock.seconds
        )
        self.lan = Wire()
        self.source = TokenSource(self.clock, self.tokens)
        self.through = ClientAgent(
            Client(
                self.clock,
                router=StaticRouter(HTTPProxy("http", "proxy", 3128)),
                credentials=self.source,
                workers=Inline(),
                endpoint_for=self.lan.endpoint_for,
            )
        )

    def ask(self) -> Deferred[IResponse]:
        return self.through.request(b"GET", b"http://site/")

    def sent(self) -> list[bytes | None]:
        return [
            head.fields.get(b"Proxy-Authorization")
            for peer in self.lan.peers
            for head in peer.read().requests
        ]

    def challenge(self) -> None:
        """Ask for a token, unless it came unasked."""
        if self.sent() == [None]:
            self.answer(407, CHALLENGE)

    def answer(self, status: int, *fields: tuple[bytes, bytes]) -> None:
        self.lan.peers[-1].answer(status, *fields)


class SourceTests(SourceCase):
    """A token that is fetched or refreshed first."""

    def test_interface(self) -> None:
        """It is a source like others, and shows nothing."""
        verifyObject(ICredentialSource, self.source)
        self.assertNotIn("old", repr(self.source))

    def test_for_whom(self) -> None:
        """Proxies get it, or the hosts that were named; websites only so."""
        named = TokenSource(self.clock, self.tokens, hosts=["API"], roles=[Role.ORIGIN])
        for source, peer, found in (
            (self.source, PROXY, True),
            (self.source, SITE, False),
            (named, SITE, True),
            (named, PROXY, False),
            (named, Peer(Role.ORIGIN, "https", "evil", 443), False),
        ):
            self.assertEqual(source.credentials_for(peer) is not None, found)
        self.assertRaises(
            ValueError, TokenSource, self.clock, self.tokens, roles=[Role.ORIGIN]
        )

    def test_sent(self) -> None:
        """A proxy that asks gets it, and from then on unasked."""
        answer = self.ask()
        self.challenge()
        self.answer(200)
        self.assertEqual(self.successResultOf(answer).code, 200)
        self.ask()
        self.assertEqual(self.sent()[-2:], [b"Bearer old", b"Bearer old"])

    def test_refreshed_first(self) -> None:
        """A token that is about to end is refreshed before the proxy is reached."""
        self.clock.advance(80)
        self.ask()
        self.assertEqual(self.lan.peers, [])
        self.tell(access_token="new", expires_in=60)
        self.challenge()
        self.assertEqual(self.sent()[-1], b"Bearer new")

    def test_renewed(self) -> None:
        """A token that the proxy calls invalid is replaced, once."""
        asked: list[tuple[Any, Token]] = []

        def call(reactor: Any, renew: Any, refused: Token) -> Token:
            # In a thread this waits for the reactor.
            asked.append((reactor, refused))
            answer = renew(refused)
            self.tell(access_token="new", refresh_token="s")
            return self.successResultOf(answer)  # type: ignore[no-any-return]

        self.patch(bearer_module, "blockingCallFromThread", call)
        answer = self.ask()
        self.challenge()
        self.answer(407, INVALID)
        self.assertEqual(asked, [(self.clock, Token("old", "r", 100.0))])
        self.answer(200)
        self.assertEqual(self.successResultOf(answer).code, 200)
        self.assertEqual(self.sent()[-2:], [b"Bearer old", b"Bearer new"])

    def test_static(self) -> None:
        """A token that cannot be renewed is refused for good."""
        source = TokenSource(Clock(), Tokens(token=Token("only")))
        client = Client(
            self.clock,
            router=StaticRouter(HTTPProxy("http", "proxy", 3128)),
            credentials=source,
            endpoint_for=self.lan.endpoint_for,
        )
        answer = ClientAgent(client).request(b"GET", b"http://site/")
        self.challenge()
        self.answer(407, INVALID)
        error = self.failureResultOf(answer, CredentialsRejected).value
        self.assertEqual((error.scheme, error.identity), ("Bearer", "bearer:token"))

    def test_no_token(self) -> None:
        """Without a token the request fails before the proxy is reached."""
        self.clock.advance(100)
        answer = self.ask()
        self.to().answer(503)
        self.failureResultOf(answer, AuthenticationFailed)
        self.assertEqual(self.lan.peers, [])

    def test_origin(self) -> None:
        """Named origin servers are answered as proxies are."""
        source = TokenSource(
            self.clock,
            self.tokens,
            hosts=["api"],
            roles=[Role.ORIGIN],
            allow_cleartext=True,
        )
        client = Client(
            self.clock,
            router=StaticRouter(Direct()),
            credentials=source,
            endpoint_for=self.lan.endpoint_for,
        )
        answer = ClientAgent(client).request(b"GET", b"http://api/")
        [peer] = self.lan.peers
        if b"Authorization" not in peer.request.fields:
            peer.answer(401, (b"WWW-Authenticate", b"Bearer"))
        self.assertEqual(peer.request.fields.get(b"Authorization"), b"Bearer old")
        peer.answer(200)
        self.assertEqual(self.successResultOf(answer).code, 200)
