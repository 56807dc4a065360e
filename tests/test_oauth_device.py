"""Tests of OAuth 2's device authorization grant (RFC 8628)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from coda_twisted.oauth import DeviceAuthorization, OAuthError, Token
from coda_twisted.oauth.answers import TIMEOUT
from tests.oauth import OAuthCase

# RFC 8628 3.2
ANSWER: dict[str, Any] = {
    "device_code": "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS",
    "user_code": "WDJB-MJHT",
    "verification_uri": "https://example.com/device",
    "verification_uri_complete": "https://example.com/device?user_code=WDJB-MJHT",
    "expires_in": 1800,
    "interval": 5,
}
GRANT = "urn:ietf:params:oauth:grant-type:device_code"


class DeviceCase(OAuthCase):
    """A server at http://as/, and a user who takes their time."""

    def begun(self, answer: dict[str, Any] = ANSWER, **settings: Any) -> Any:
        begun = self.oauth2(**settings).device("http://as/device_authorization")
        self.tell(**answer)
        return self.successResultOf(begun)


class BeginTests(DeviceCase):
    """The first step (3.1, 3.2)."""

    def test_request(self) -> None:
        """Trap: oauthlib has it in a URI, with the secret; it belongs into a form."""
        self.begun(scope=("a", "b"))
        sent = self.to().request
        self.assertEqual(
            (sent.method, sent.target), (b"POST", b"/device_authorization")
        )
        self.assertEqual(self.form(), {"client_id": "me", "scope": "a b"})

    def test_confidential(self) -> None:
        """A client with a secret says it as at the token endpoint."""
        self.begun(client_secret="secret")
        self.assertIn(b"Authorization", self.to().request.fields)
        self.assertEqual(self.form(), {"client_id": "me"})
        self.begun(client_secret="secret", client_auth="body")
        self.assertEqual(self.form(), {"client_id": "me", "client_secret": "secret"})

    def test_answer(self) -> None:
        """What the user is to do."""
        self.clock.advance(10)
        device = self.begun()
        self.assertEqual(device.user_code, "WDJB-MJHT")
        self.assertEqual(device.verification_uri, "https://example.com/device")
        self.assertEqual(
            device.verification_uri_complete,
            "https://example.com/device?user_code=WDJB-MJHT",
        )
        self.assertEqual(device.expires_at, 1810.0)
        self.assertEqual(repr(device), "<DeviceAuthorization at https://example.com>")

    def test_less(self) -> None:
        """What is optional may be left out; Google names the URI otherwise."""
        answer = {
            "device_code": "d",
            "user_code": "u",
            "verification_url": "https://g/device",
            "expires_in": "60",
        }
        device = self.begun(answer)
        self.assertEqual(device.verification_uri, "https://g/device")
        self.assertIsNone(device.verification_uri_complete)

    def test_refused(self) -> None:
        """A server may say no."""
        begun = self.oauth2().device("http://as/device_authorization")
        self.tell(400, error="unauthorized_client")
        error = self.failureResultOf(begun, OAuthError).value
        self.assertEqual(error.error, "unauthorized_client")

    def test_nonsense(self) -> None:
        """An answer that lacks something, or that could deceive who reads it."""
        for change in (
            {"device_code": None},
            {"user_code": "a\r\nb"},
            {"verification_uri": "\x1b[31m"},
            {"expires_in": "soon"},
            {"interval": "often"},
        ):
            begun = self.oauth2().device("http://as/device_authorization")
            self.tell(**{**ANSWER, **change})
            self.failureResultOf(begun, OAuthError)

    def test_cleartext(self) -> None:
        """A server without TLS must be asked for."""
        oauth2 = self.oauth2(token_url="https://as/token", allow_cleartext=False)
        self.failureResultOf(oauth2.device("http://as/device"), ValueError)


class PollTests(DeviceCase):
    """The second step (3.4, 3.5)."""

    def setUp(self) -> None:
        super().setUp()
        self.device: DeviceAuthorization = self.begun(scope=("a",))
        self.answer: Deferred[Token] = self.device.token()

    def refuse(self, error: str) -> None:
        self.tell(400, error=error)

    def assert_asks_after(self, seconds: float) -> None:
        """The next question comes then, and not before."""
        before = self.asked()
        self.clock.advance(seconds - 0.1)
        self.assertEqual(self.asked(), before, "too early")
        self.clock.advance(0.1)
        self.assertEqual(self.asked(), before + 1, "too late")

    def test_form(self) -> None:
        """3.4: with the identifier, because there is no secret."""
        self.assert_asks_after(5)
        self.assertEqual(
            self.form(),
            {
                "grant_type": GRANT,
                "client_id": "me",
                "device_code": "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS",
            },
        )

    def test_granted(self) -> None:
        """It is asked until the user has agreed."""
        for _ in range(3):
            self.assert_asks_after(5)
            self.refuse("authorization_pending")
        self.assert_asks_after(5)
        self.tell(access_token="t")
        self.assertEqual(self.successResultOf(self.answer), Token("t", scope=("a",)))

    def test_slow_down(self) -> None:
        """Trap: the interval grows by 5 s, for all questions that follow."""
        self.assert_asks_after(5)
        self.refuse("slow_down")
        self.assert_asks_after(10)
        self.refuse("slow_down")
        self.assert_asks_after(15)
        self.refuse("authorization_pending")
        self.assert_asks_after(15)

    def test_verdicts(self) -> None:
        """Other errors are the end; trap: they are of several classes in oauthlib."""
        for error in ("access_denied", "expired_token", "invalid_grant"):
            answer = self.begun().token()
            self.clock.advance(5)
            self.refuse(error)
            failure = self.failureResultOf(answer, OAuthError)
            self.assertEqual(failure.value.error, error)
            self.answer.cancel()
            self.answer.addErrback(lambda _: None)

    def test_server_trouble(self) -> None:
        """A server that is out of order is asked less often."""
        self.assert_asks_after(5)
        self.to().answer(503)
        self.assert_asks_after(10)
        self.refuse("authorization_pending")
        self.assert_asks_after(10)

    def test_no_answer(self) -> None:
        """3.5: so is one that does not answer."""
        self.assert_asks_after(5)
        self.clock.advance(TIMEOUT)
        self.assert_asks_after(10)
        self.to().reset()
        self.assert_asks_after(20)

    def test_too_late(self) -> None:
        """When the code has expired no more is asked."""
        while not self.answer.called:
            self.clock.advance(5)
            if not self.answer.called:
                self.refuse("authorization_pending")
        error = self.failureResultOf(self.answer, OAuthError).value
        self.assertEqual(error.error, "expired_token")
        self.assertLessEqual(self.clock.seconds(), 1805)

    def test_cancelled(self) -> None:
        """Who no longer waits asks no more."""
        self.answer.cancel()
        self.failureResultOf(self.answer, CancelledError)
        before = self.asked()
        self.clock.advance(30)
        self.assertEqual(self.asked(), before)
        answer = self.device.token()
        self.clock.advance(5)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)

    def test_secret(self) -> None:
        """A client with a secret in the form says it here, too."""
        device = self.begun(client_secret="secret", client_auth="body")
        device.token()
        self.answer.cancel()
        self.failureResultOf(self.answer, CancelledError)
        self.clock.advance(5)
        self.assertEqual(self.form()["client_secret"], "secret")
