"""Tests of OAuth 2's token requests: grants, answers, errors."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.errors import (
    ConnectionEnded,
    CredentialsRejected,
    PhaseTimeout,
    RemoteProtocolError,
)
from coda_twisted.oauth import OAuth2Client, OAuthError, Token
from coda_twisted.oauth.answers import LIMIT, TIMEOUT
from coda_twisted.oauth.endpoint import read_token
from coda_twisted.oauth.errors import without_secrets
from coda_twisted.oauth.origins import Origins, check_endpoint, origin_of, shown
from tests.oauth import OAuthCase, Recorder

BASIC = b"Basic " + b64encode(b"me:secret")
GRANT = {"grant_type": "client_credentials"}


class ClientAuthTests(OAuthCase):
    """
    How a client says who it is (RFC 6749 2.3.1).

    oauthlib's client credentials grant says neither identifier nor secret, and its
    refresh says no identifier: traps of wire-facts 3.7.
    """

    def authorization(self) -> bytes | None:
        return self.to().request.fields.get(b"Authorization")

    def test_basic(self) -> None:
        """By default the secret is in the field, and in no form."""
        self.oauth2(client_secret="secret").client_credentials()
        self.assertEqual(self.authorization(), BASIC)
        self.assertEqual(self.form(), GRANT)
        sent = self.to().request
        self.assertEqual((sent.method, sent.target), (b"POST", b"/token"))
        self.assertEqual(
            sent.fields.get(b"Content-Type"), b"application/x-www-form-urlencoded"
        )
        self.assertEqual(sent.fields.get(b"Accept"), b"application/json")

    def test_body(self) -> None:
        """On request both are in the form, and in no field."""
        oauth2 = self.oauth2(client_secret="secret", client_auth="body")
        oauth2.client_credentials()
        self.assertIsNone(self.authorization())
        self.assertEqual(
            self.form(), {**GRANT, "client_id": "me", "client_secret": "secret"}
        )

    def test_public(self) -> None:
        """RFC 6749 3.2.1: without a secret the identifier is in every form."""
        oauth2 = self.oauth2()
        oauth2.client_credentials()
        self.assertEqual(self.form(), {**GRANT, "client_id": "me"})
        oauth2.refresh(Token("a", "r"))
        self.assertEqual(
            self.form(),
            {"grant_type": "refresh_token", "refresh_token": "r", "client_id": "me"},
        )
        self.assertIsNone(self.authorization())

    def test_refresh(self) -> None:
        """A client with a secret says it in one place, when it refreshes too."""
        form = {"grant_type": "refresh_token", "refresh_token": "r"}
        self.oauth2(client_secret="secret").refresh(Token("a", "r"))
        self.assertEqual((self.authorization(), self.form()), (BASIC, form))
        oauth2 = self.oauth2(client_secret="secret", client_auth="body")
        oauth2.refresh(Token("a", "r"))
        self.assertIsNone(self.authorization())
        self.assertEqual(
            self.form(), {**form, "client_id": "me", "client_secret": "secret"}
        )
        self.assertRaises(ValueError, oauth2.refresh, Token("a"))

    def test_encoded(self) -> None:
        """What could not stand in Basic is form-encoded before."""
        oauth2 = self.oauth2(client_id="a:b", client_secret="c d\N{POUND SIGN}")
        oauth2.client_credentials()
        expected = b"Basic " + b64encode(b"a%3Ab:c%20d%C2%A3")
        self.assertEqual(self.authorization(), expected)

    def test_extra(self) -> None:
        """Scope and whatever a server wants besides go with every grant."""
        oauth2 = self.oauth2(scope=["a", "b"], extra={"audience": "https://api/"})
        more = {"client_id": "me", "audience": "https://api/"}
        oauth2.client_credentials()
        self.assertEqual(self.form(), {**GRANT, **more, "scope": "a b"})
        oauth2.refresh(Token("a", "r"))
        self.assertEqual(self.form()["audience"], "https://api/")
        self.oauth2(scope="one").client_credentials()
        self.assertEqual(self.form()["scope"], "one")

    def test_password(self) -> None:
        """RFC 6749 4.3.2."""
        self.oauth2(client_secret="secret").password("alice", "pw & more")
        self.assertEqual(
            self.form(),
            {"grant_type": "password", "username": "alice", "password": "pw & more"},
        )
        self.assertEqual(self.authorization(), BASIC)

    def test_settings(self) -> None:
        """What cannot work, or would send secrets in clear, is refused at once."""
        for settings in (
            {"allow_cleartext": False},
            {"token_url": "as/token"},
            {"token_url": "https://as/token#x"},
            {"client_auth": "digest"},
        ):
            self.assertRaises(ValueError, self.oauth2, **settings)

    def test_repr(self) -> None:
        """Nothing shows a secret."""
        oauth2 = self.oauth2(client_secret="SECRET", token_url="http://as/t?k=SECRET")
        self.assertEqual(repr(oauth2), "OAuth2Client('me' of http://as)")
        self.assertNotIn("SECRET", repr(oauth2._endpoint))


class AnswerTests(OAuthCase):
    """What a server may answer."""

    def ask(self, **settings: Any) -> Deferred[Token]:
        self.answer = self.oauth2(**settings).client_credentials()
        return self.answer

    def refusal(self) -> OAuthError:
        error = self.failureResultOf(self.answer).value
        assert isinstance(error, OAuthError), error
        return error

    def test_rfc_example(self) -> None:
        """RFC 6749 5.1."""
        self.clock.advance(1000)
        answer = self.ask()
        self.clock.advance(5)
        self.tell(
            access_token="2YotnFZFEjr1zCsicMWpAA",
            token_type="bearer",
            expires_in=3600,
            refresh_token="tGzv3JOkF0XG5Qx2TlKWIA",
            example_parameter="example_value",
        )
        self.assertEqual(
            self.successResultOf(answer),
            Token("2YotnFZFEjr1zCsicMWpAA", "tGzv3JOkF0XG5Qx2TlKWIA", 4600.0),
        )

    def test_extra(self) -> None:
        """Whatever else the server says is kept."""
        answer = self.ask()
        self.tell(access_token="t", id_token="x")
        self.assertEqual(self.successResultOf(answer).extra, {"id_token": "x"})

    def test_scope(self) -> None:
        """
        A scope other than the one asked for is what was granted.

        Trap: oauthlib raises a Warning, with the token in it.
        """
        answer = self.ask(scope=("a", "b"))
        self.tell(access_token="t", scope="a")
        self.assertEqual(self.successResultOf(answer).scope, ("a",))
        answer = self.ask(scope=("a", "b"))
        self.tell(access_token="t")
        self.assertEqual(self.successResultOf(answer).scope, ("a", "b"))

    def test_refresh_token_stays(self) -> None:
        """RFC 6749 6: where none is given the old one stays, and the scope."""
        old = Token("old", "r", 0.0, ("a",))
        answer = self.oauth2().refresh(old)
        self.tell(access_token="new")
        self.assertEqual(self.successResultOf(answer), Token("new", "r", None, ("a",)))
        answer = self.oauth2().refresh(old)
        self.tell(access_token="new", refresh_token="s")
        self.assertEqual(self.successResultOf(answer).refresh_token, "s")

    def test_lifetimes(self) -> None:
        """A lifetime may be written in several ways; one that is none is unknown."""
        for written, expected in (
            (60, 160.0),
            ("60", 160.0),
            (60.5, 160.5),
            (None, None),
            ("soon", None),
            (float("inf"), None),
            ([1], None),
        ):
            token = read_token({"access_token": "t", "expires_in": written}, 100.0)
            self.assertEqual(token.expires_at, expected, repr(written))

    def test_odd_members(self) -> None:
        """Scopes in a list are read; empty and senseless members are not there."""
        token = read_token(
            {"access_token": "t", "scope": ["a", "b"], "refresh_token": ""}, 0.0
        )
        self.assertEqual((token.scope, token.refresh_token), (("a", "b"), None))
        token = read_token(
            {"access_token": "t", "scope": "", "refresh_token": 1}, 0.0, ("a",), "r"
        )
        self.assertEqual((token.scope, token.refresh_token), (("a",), "r"))

    def test_form(self) -> None:
        """Some old servers answer with a form."""
        answer = self.ask()
        self.to().answer(200, body=b"access_token=t&scope=a&token_type=bearer")
        self.assertEqual(self.successResultOf(answer), Token("t", scope=("a",)))

    def test_unusable(self) -> None:
        """What is no bearer token that can be sent is none, and is not shown."""
        for members in (
            {},
            {"access_token": ""},
            {"access_token": 7},
            {"access_token": "SECRET", "token_type": "mac"},
            {"access_token": "SECRET", "token_type": None},
            {"access_token": "SECRET\r\nX: y"},
        ):
            self.ask()
            self.tell(**members)
            error = self.refusal()
            self.assertEqual(error.peer, "authorization server http://as")
            self.assertIsNone(error.__cause__)
            self.assertNotIn("SECRET", str(error) + repr(error))

    def test_nonsense(self) -> None:
        """Answers that are nothing at all; a broken JSON's text is not kept."""
        for body in (b"[]", b"7", b"", b'{"access_token": "SECRET', b"<html>"):
            self.ask()
            self.to().answer(200, body=body)
            error = self.refusal()
            self.assertIn("no", str(error))
            self.assertNotIn("SECRET", repr(vars(error)))
            self.assertIsNone(error.__cause__)

    def test_error(self) -> None:
        """RFC 6749 5.2: the code is an attribute, the description is shown."""
        self.ask()
        self.tell(400, error="invalid_scope", error_description="no such scope")
        error = self.refusal()
        self.assertEqual((error.error, error.status), ("invalid_scope", 400))
        self.assertEqual(
            str(error),
            "authorization server http://as: it answered 400: no such scope",
        )

    def test_error_with_200(self) -> None:
        """Some servers report errors with a status of success."""
        self.ask()
        self.tell(200, error="bad_verification_code")
        self.assertEqual(self.refusal().error, "bad_verification_code")

    def test_other_status(self) -> None:
        """A status without an error is one; redirections are not followed."""
        for status in (302, 404, 503):
            self.ask()
            self.to().answer(status, (b"Location", b"http://evil/"))
            self.assertEqual(self.refusal().status, status)
        self.assertEqual({peer.host for peer in self.wire.peers}, {"as"})

    def test_secrets_repeated(self) -> None:
        """A server that repeats what it was sent does not make us show it."""
        answer = self.oauth2(client_secret="CSECRET").refresh(Token("a", "RSECRET"))
        self.tell(
            400,
            error="x_RSECRET",
            error_description="RSECRET of CSECRET\x1b[31m\nunknown " + "x" * 999,
        )
        error = self.failureResultOf(answer, OAuthError).value
        self.assertNotIn("SECRET", str(error) + repr(error) + str(error.error))
        self.assertNotIn("\x1b", str(error))
        self.assertLess(len(str(error)), 300)

    def test_too_long(self) -> None:
        """An answer without end is cut off."""
        self.ask()
        self.to().answer(200, body=b"x" * (LIMIT + 1))
        self.failureResultOf(self.answer, RemoteProtocolError)

    def test_cut_off(self) -> None:
        """An answer that is cut off is none."""
        self.ask()
        self.to().send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
        self.to().reset()
        self.failureResultOf(self.answer)

    def test_no_connection(self) -> None:
        """What the agent fails with is passed on."""
        self.wire.refusals["as"] = ConnectionEnded("no", answered=False)
        self.failureResultOf(self.ask())

    def test_time_limit(self) -> None:
        """A server that says nothing does not hold up for ever who waits."""
        self.ask()
        self.clock.advance(TIMEOUT - 1)
        self.assertNoResult(self.answer)
        self.clock.advance(1)
        self.failureResultOf(self.answer, PhaseTimeout)
        self.assertTrue(self.to().dropped)

    def test_time_limit_for_content(self) -> None:
        """Nor does one that never finishes."""
        self.ask()
        self.to().send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
        self.clock.advance(TIMEOUT)
        self.failureResultOf(self.answer, PhaseTimeout)
        self.assertTrue(self.to().dropped)

    def test_cancelled(self) -> None:
        """Whoever no longer wants a token drops the request."""
        self.ask().cancel()
        self.failureResultOf(self.answer, CancelledError)
        self.assertTrue(self.to().dropped)


class GuardTests(OAuthCase):
    """A refused secret is not sent again."""

    def test_password(self) -> None:
        """One wrong password costs one failed logon, however often it is asked for."""
        oauth2 = self.oauth2()
        first = oauth2.password("alice", "WRONG")
        second = oauth2.password("alice", "WRONG")
        self.tell(400, error="invalid_grant", error_description="WRONG password")
        for answer in (first, second, oauth2.password("alice", "WRONG")):
            error = self.failureResultOf(answer, CredentialsRejected).value
            self.assertEqual(error.identity, "alice")
            self.assertNotIn("WRONG", str(error) + repr(error))
        self.assertEqual(self.asked(), 1)

        answer = oauth2.password("alice", "right")
        self.tell(access_token="t")
        self.assertEqual(self.successResultOf(answer), Token("t"))

    def test_password_like_a_code(self) -> None:
        """What a known code is does not depend on the password."""
        answer = self.oauth2().password("alice", "grant")
        self.tell(400, error="invalid_grant")
        self.failureResultOf(answer, CredentialsRejected)

    def test_authlib(self) -> None:
        """Authlib calls a wrong password an invalid request; it is guarded, too."""
        answer = self.oauth2().password("alice", "WRONG")
        self.tell(400, error="invalid_request", error_description="Invalid password")
        self.failureResultOf(answer, CredentialsRejected)

    def test_client_secret(self) -> None:
        """The client's secret is guarded likewise."""
        oauth2 = self.oauth2(client_secret="WRONG")
        answer = oauth2.client_credentials()
        self.tell(401, error="invalid_client")
        error = self.failureResultOf(answer, CredentialsRejected).value
        self.assertEqual(error.identity, "me")
        self.assertIsInstance(error.__cause__, OAuthError)
        self.failureResultOf(oauth2.client_credentials(), CredentialsRejected)
        self.assertEqual(self.asked(), 1)

    def test_others_errors(self) -> None:
        """What says nothing of the secret lets it be tried again."""
        oauth2 = self.oauth2(client_secret="secret")
        for reply in (
            lambda: self.tell(400, error="invalid_scope"),
            lambda: self.to().answer(503),
            lambda: self.to().reset(),
        ):
            answer = oauth2.client_credentials()
            reply()
            error = self.failureResultOf(answer).value
            self.assertNotIsInstance(error, CredentialsRejected)
        self.assertEqual(self.asked(), 3)

    def test_refresh_is_not_guarded(self) -> None:
        """A refresh token that has had its day is no wrong password."""
        oauth2 = self.oauth2()
        answer = oauth2.refresh(Token("a", "r"))
        self.tell(400, error="invalid_grant")
        error = self.failureResultOf(answer, OAuthError).value
        self.assertEqual(error.error, "invalid_grant")


class TokenTests(SynchronousTestCase):
    """A token and its store."""

    def test_repr(self) -> None:
        """Nothing shows it."""
        token = Token("SECRET", "SECRET", 1.0, ("a",), {"id_token": "SECRET"})
        self.assertEqual(
            repr(token), "Token(expires_at=1.0, scope=('a',), refreshable=True)"
        )
        self.assertNotIn("SECRET", f"{token} {[token]}")

    def test_stored(self) -> None:
        """It goes to JSON and back."""
        for token in (
            Token("t", "r", 7.5, ("a", "b"), {"id_token": "i"}),
            Token("t"),
        ):
            text = json.dumps(token.to_mapping())
            back = Token.from_mapping(json.loads(text))
            self.assertEqual(back, token)
            self.assertEqual(back.extra, token.extra)

    def test_of_oauthlib(self) -> None:
        """What oauthlib's users have stored can be read."""
        stored = {
            "access_token": "t",
            "token_type": "Bearer",
            "expires_in": 60,
            "expires_at": 99,
            "scope": ["a", "b"],
        }
        self.assertEqual(Token.from_mapping(stored), Token("t", None, 99, ("a", "b")))
        self.assertRaises(KeyError, Token.from_mapping, {})

    def test_expiry(self) -> None:
        """A token without a known end does not end."""
        self.assertTrue(Token("t", expires_at=5.0).expires_by(5.0))
        self.assertFalse(Token("t", expires_at=5.0).expires_by(4.9))
        self.assertFalse(Token("t").expires_by(1e12))


class OriginTests(SynchronousTestCase):
    """Who may see what is ours."""

    def test_origins(self) -> None:
        """Scheme, host and port must be the ones that were named."""
        origins = Origins(["https://API.example", "https://other.example:8443/"])
        for uri, ours in (
            (b"https://api.example/path?q#f", True),
            (b"HTTPS://api.EXAMPLE:443", True),
            (b"https://other.example:8443/x", True),
            (b"https://other.example/x", False),
            (b"http://api.example/", False),
            (b"http://api.example:443/", False),
            (b"https://api.example.evil/", False),
            (b"https://api.example@evil/", False),
            (b"https://evil/?https://api.example/", False),
            (b"wss://api.example/", False),
            (b"/path", False),
            (b"nonsense", False),
        ):
            self.assertEqual(uri in origins, ours, uri)
        self.assertIn(b"https://one/", Origins("https://one"))

    def test_bad_origins(self) -> None:
        """What names no origin, or one without TLS, is refused."""
        for url in (
            "api.example",
            "https://api.example/v1",
            "https://me:pw@api.example",
            "wss://api.example",
            "http://api.example",
            "",
        ):
            self.assertRaises(ValueError, Origins, url)
        self.assertIn(b"http://a/", Origins("http://a", allow_cleartext=True))

    def test_endpoints(self) -> None:
        """An endpoint may have a path and a query, and must have TLS."""
        url = "https://as/token?tenant=1"
        self.assertEqual(check_endpoint(url, allow_cleartext=False), url)
        self.assertEqual(
            check_endpoint("http://as/", allow_cleartext=True), "http://as/"
        )
        self.assertEqual(shown(url), "https://as")
        self.assertEqual(shown("https://as?x=1"), "https://as")
        self.assertIsNone(origin_of("https://\N{POUND SIGN}/".encode()))

    def test_shown_text(self) -> None:
        """The longer of two secrets is hidden first."""
        self.assertEqual(without_secrets("ab abc", ["ab", "abc", ""]), "... ...")


class AnyAgentTests(SynchronousTestCase):
    """Token requests go through whatever agent is given."""

    def test_agent(self) -> None:
        """An agent sees one POST, to the token endpoint."""
        agent = Recorder()
        oauth2 = OAuth2Client(
            Clock(), agent, token_url="https://as/token", client_id="me"
        )
        answer = oauth2.client_credentials()
        [(method, uri, headers, body)] = agent.asked
        self.assertEqual((method, uri), (b"POST", b"https://as/token"))
        self.assertIsNotNone(headers)
        self.assertEqual(body.content, b"grant_type=client_credentials&client_id=me")
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
