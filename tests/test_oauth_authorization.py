"""Tests of OAuth 2's authorization code grant, and of the receiver on loopback."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python import log
from twisted.web.http_headers import Headers

from coda_twisted.client.agent import ClientAgent
from coda_twisted.client.exchange import Client
from coda_twisted.errors import PhaseTimeout
from coda_twisted.oauth import (
    Authorization,
    LoopbackReceiver,
    OAuth2Client,
    OAuthError,
    Token,
)
from coda_twisted.routing.routes import Direct, StaticRouter
from tests.oauth import OAuthCase

BACK = "http://127.0.0.1:8000/back"
AUTHORIZE = "http://as/authorize?tenant=1"


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, strict_parsing=True))


class AuthorizationTests(OAuthCase):
    """One user's way to the server and back (RFC 6749 4.1)."""

    def begin(self, **settings: Any) -> Authorization:
        self.authorization = self.oauth2(**settings).authorization(AUTHORIZE, BACK)
        return self.authorization

    def come_back(self, **params: str) -> Deferred[Token]:
        state = query_of(self.authorization.url)["state"]
        query = urlencode({"state": state, **params})
        return self.authorization.finish(f"{BACK}?{query}")

    def test_url(self) -> None:
        """RFC 6749 4.1.1 and RFC 7636 4.3: what the user's browser is to ask for."""
        url = self.begin(scope=("a", "b")).url
        self.assertTrue(url.startswith("http://as/authorize?tenant=1&"), url)
        params = query_of(url)
        self.assertGreater(len(params.pop("state")), 20)
        self.assertEqual(len(params.pop("code_challenge")), 43)
        self.assertEqual(
            params,
            {
                "tenant": "1",
                "response_type": "code",
                "client_id": "me",
                "redirect_uri": BACK,
                "scope": "a b",
                "code_challenge_method": "S256",
            },
        )

    def test_https(self) -> None:
        """Where the server has TLS the URL says so."""
        url = self.oauth2().authorization("https://as/a", BACK).url
        self.assertTrue(url.startswith("https://as/a?"))

    def test_cleartext(self) -> None:
        """A server without TLS must be asked for."""
        oauth2 = self.oauth2(token_url="https://as/token", allow_cleartext=False)
        self.assertRaises(ValueError, oauth2.authorization, AUTHORIZE, BACK)

    def test_code(self) -> None:
        """RFC 6749 4.1.3 and RFC 7636 4.5: the code, and the proof that we began."""
        self.begin(scope=("a",), client_secret="secret", extra={"x": "y"})
        challenge = query_of(self.authorization.url)["code_challenge"]
        answer = self.come_back(code="SplxlOBeZQQYbYS6WxSbIA")
        form = self.form()
        verifier = form.pop("code_verifier")
        self.assertEqual(
            form,
            {
                "grant_type": "authorization_code",
                "code": "SplxlOBeZQQYbYS6WxSbIA",
                "redirect_uri": BACK,
                "x": "y",
            },
        )
        digest = sha256(verifier.encode("ascii")).digest()
        self.assertEqual(
            urlsafe_b64encode(digest).rstrip(b"=").decode("ascii"), challenge
        )
        self.assertTrue(43 <= len(verifier) <= 128)
        self.tell(access_token="t", refresh_token="r")
        self.assertEqual(self.successResultOf(answer), Token("t", "r", None, ("a",)))

    def test_public(self) -> None:
        """RFC 6749 4.1.3: a client without a secret says who it is."""
        self.begin()
        self.come_back(code="c")
        self.assertEqual(self.form()["client_id"], "me")
        self.assertNotIn("client_secret", self.form())

    def test_in_body(self) -> None:
        """A secret may travel in the form."""
        self.begin(client_secret="secret", client_auth="body")
        self.come_back(code="c")
        self.assertEqual(self.form()["client_secret"], "secret")

    def test_loopback_is_http(self) -> None:
        """
        Trap: oauthlib refuses an http redirection, which RFC 8252 7.3 wants.

        Its switch for that is the whole process's, and stays off.
        """
        self.begin()
        self.come_back(code="c")
        self.assertEqual(self.form()["redirect_uri"], BACK)
        self.assertNotIn("OAUTHLIB_INSECURE_TRANSPORT", os.environ)

    def test_other_state(self) -> None:
        """Trap: the state is checked; an answer that is not ours changes nothing."""
        self.begin()
        for params in ({"state": "other"}, {"state": ""}, {"state": "\xe9"}):
            error = self.failureResultOf(
                self.come_back(code="SECRET", **params), OAuthError
            ).value
            self.assertEqual(error.error, "mismatching_state")
            self.assertNotIn("SECRET", str(error) + repr(error))
            self.assertFalse(self.authorization.concerns(params))
        self.assertFalse(self.authorization.concerns({}))
        self.failureResultOf(
            self.authorization.finish(f"{BACK}?code=SECRET"), OAuthError
        )
        self.assertEqual(self.wire.peers, [])
        self.come_back(code="c")
        self.assertEqual(self.asked(), 1)

    def test_denied(self) -> None:
        """RFC 6749 4.1.2.1: the user has said no."""
        self.begin()
        answer = self.come_back(error="access_denied", error_description="not today")
        error = self.failureResultOf(answer, OAuthError).value
        self.assertEqual(error.error, "access_denied")
        self.assertIn("not today", str(error))

    def test_nothing(self) -> None:
        """An answer without a code is none."""
        self.begin()
        self.failureResultOf(self.come_back(), OAuthError)
        self.failureResultOf(self.come_back(error="new_error"), OAuthError)

    def test_once(self) -> None:
        """A code is sent once (RFC 6749 4.1.2)."""
        self.begin()
        self.come_back(code="c")
        self.failureResultOf(self.come_back(code="c"), OAuthError)
        self.assertEqual(self.asked(), 1)

    def test_repeated_by_the_server(self) -> None:
        """A server that repeats the code does not make us show it."""
        self.begin()
        answer = self.come_back(code="SECRET")
        self.tell(400, error="invalid_grant", error_description="no SECRET")
        error = self.failureResultOf(answer, OAuthError).value
        self.assertNotIn("SECRET", str(error))

    def test_repr(self) -> None:
        """Nothing shows state or verifier."""
        self.assertEqual(repr(self.begin()), "<Authorization at http://as>")


class LoopbackCase(OAuthCase):
    """A reactor that listens in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor = MemoryReactorClock()

    def browse(
        self, target: str, method: str = "GET", number: int = -1
    ) -> tuple[int, Headers, str]:
        """Ask what listens; its answer."""
        [port, factory, _, interface] = self.reactor.tcpServers[number]
        self.assertEqual((port, interface), (0, "127.0.0.1"))
        channel: Any = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 9))
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(
            f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        )
        self.assertTrue(transport.disconnecting, "nothing is left open")
        head, _, body = transport.value().decode("ascii").partition("\r\n\r\n")
        status, *lines = head.split("\r\n")
        headers = Headers()
        for line in lines:
            name, _, value = line.partition(": ")
            headers.addRawHeader(name, value)
        return int(status.split(" ")[1]), headers, body


class ReceiverTests(LoopbackCase):
    """A web server for one answer."""

    def setUp(self) -> None:
        super().setUp()
        self.receiver = LoopbackReceiver(self.reactor)
        self.answer = self.receiver.wait(lambda params: params.get("state") == "s")

    def test_answer(self) -> None:
        """The answer is taken, and the user told what to do."""
        status, headers, body = self.browse("/?code=c&state=s")
        self.assertEqual(status, 200)
        self.assertIn("close this window", body)
        self.assertEqual(headers.getRawHeaders("Cache-Control"), ["no-store"])
        self.assertEqual(headers.getRawHeaders("Referrer-Policy"), ["no-referrer"])
        self.assertEqual(
            self.successResultOf(self.answer),
            f"{self.receiver.redirect_uri}?code=c&state=s",
        )
        self.assertTrue(self.receiver.redirect_uri.startswith("http://127.0.0.1:"))

    def test_one_answer(self) -> None:
        """A second one is none."""
        self.browse("/?code=c&state=s")
        self.assertEqual(self.browse("/?code=d&state=s")[0], 400)

    def test_others(self) -> None:
        """Whatever else asks is told nothing, and changes nothing."""
        for target, method, expected in (
            ("/favicon.ico", "GET", 404),
            ("/x?code=c&state=s", "GET", 404),
            ("/?code=c&state=s", "HEAD", 405),
            ("/?code=c&state=s", "POST", 405),
            ("/?code=c&state=<script>", "GET", 400),
            ("/?code=c", "GET", 400),
            ("/", "GET", 400),
        ):
            status, _, body = self.browse(target, method)
            self.assertEqual(status, expected, target)
            self.assertNotIn("script", body)
        self.assertNoResult(self.answer)
        self.assertEqual(self.browse("/?code=c&state=s")[0], 200)

    def test_time_limit(self) -> None:
        """Patience has an end."""
        self.reactor.advance(300)
        self.failureResultOf(self.answer, PhaseTimeout)
        self.assertEqual(self.browse("/?code=c&state=s")[0], 400)

    def test_before(self) -> None:
        """Nothing is taken before anything is waited for."""
        LoopbackReceiver(self.reactor)
        self.assertEqual(self.browse("/?code=c&state=s")[0], 400)

    def test_nothing_is_logged(self) -> None:
        """There is a code in what is asked; no log gets to see it."""
        seen: list[str] = []
        log.addObserver(lambda event: seen.append(repr(event)))
        observer = log.theLogPublisher.observers[-1]
        self.addCleanup(log.removeObserver, observer)
        self.browse("/?code=SECRET&state=s")
        self.browse("/?code=SECRET&state=x")
        self.assertNotIn("SECRET", "".join(seen))


class AuthorizeTests(LoopbackCase):
    """All of it, for the user in front of the machine (RFC 8252)."""

    def setUp(self) -> None:
        super().setUp()
        agent = ClientAgent(
            Client(
                self.reactor,
                router=StaticRouter(Direct()),
                endpoint_for=self.wire.endpoint_for,
            )
        )
        self.client = OAuth2Client(
            self.reactor,
            agent,
            token_url="http://as/token",
            client_id="me",
            allow_cleartext=True,
            now=self.reactor.seconds,
        )
        self.shown: list[str] = []

    def test_authorize(self) -> None:
        """The user is shown a URL, comes back, and there is a token."""
        answer = self.client.authorize("http://as/authorize", self.shown.append)
        [url] = self.shown
        params = query_of(url)
        self.assertNoResult(answer)
        self.browse("/?" + urlencode({"code": "c", "state": params["state"]}))
        self.assertEqual(self.form()["redirect_uri"], params["redirect_uri"])
        self.tell(access_token="t")
        self.assertEqual(self.successResultOf(answer), Token("t"))

    def test_at_once(self) -> None:
        """A browser that is back before it is shown to have gone is heard."""
        answer = self.client.authorize(
            "http://as/authorize",
            lambda url: self.browse(
                "/?" + urlencode({"code": "c", "state": query_of(url)["state"]})
            ),
        )
        self.tell(access_token="t")
        self.successResultOf(answer)

    def test_denied(self) -> None:
        """The user says no: the browser is told the same, the caller why."""
        answer = self.client.authorize("http://as/authorize", self.shown.append)
        state = query_of(self.shown[0])["state"]
        self.browse("/?" + urlencode({"error": "access_denied", "state": state}))
        error = self.failureResultOf(answer, OAuthError).value
        self.assertEqual(error.error, "access_denied")

    def test_time_limit(self) -> None:
        """A user who never comes back."""
        answer = self.client.authorize(
            "http://as/authorize", self.shown.append, timeout=10
        )
        self.reactor.advance(10)
        self.failureResultOf(answer, PhaseTimeout)

    def test_cancelled(self) -> None:
        """A caller who no longer waits."""
        answer = self.client.authorize("http://as/authorize", self.shown.append)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_not_shown(self) -> None:
        """If the URL cannot be shown nobody waits for an answer."""
        answer = self.client.authorize(
            "http://as/authorize", lambda url: fail(OSError("no display"))
        )
        self.failureResultOf(answer, OSError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_bad_url(self) -> None:
        """A URL that cannot be read is refused, and nothing goes on listening."""
        stopped: list[Any] = []

        def stop(receiver: LoopbackReceiver) -> Deferred[None]:
            stopped.append(receiver)
            return succeed(None)

        self.patch(LoopbackReceiver, "stop", stop)
        answer = self.client.authorize("nonsense", self.shown.append)
        self.failureResultOf(answer, ValueError)
        self.assertEqual((self.shown, len(stopped)), ([], 1))
