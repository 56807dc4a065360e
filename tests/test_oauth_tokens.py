"""Tests of :mod:`coda_twisted.oauth.tokens`: one token and its successors."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed

from coda_twisted.errors import AuthenticationFailed
from coda_twisted.oauth import OAuthError, Token, Tokens
from tests.oauth import OAuthCase

OLD = Token("old", "r", 100.0, ("a",))


class TokensCase(OAuthCase):
    """Tokens of a server at http://as/."""

    def setUp(self) -> None:
        super().setUp()
        self.saved: list[Token] = []
        self.client = self.oauth2(client_secret="secret")

    def tokens(self, token: Token | None = OLD, **settings: Any) -> Tokens:
        known: dict[str, Any] = {
            "client": self.client,
            "token": token,
            "save": self.saved.append,
            "now": self.clock.seconds,
        }
        return Tokens(**{**known, **settings})


class GetTests(TokensCase):
    """A token that is good for now."""

    def test_good(self) -> None:
        """A token is used until 30 s before its end."""
        tokens = self.tokens()
        self.clock.advance(69.9)
        self.assertEqual(self.successResultOf(tokens.get()), OLD)
        self.assertEqual(self.wire.peers, [])

    def test_skew(self) -> None:
        """
        Then it is refreshed before the request.

        Trap: oauthlib raises TokenExpiredError when it is used, too late for that.
        """
        tokens = self.tokens()
        self.clock.advance(70)
        answer = tokens.get()
        self.assertEqual(self.form()["refresh_token"], "r")
        self.assertNoResult(answer)
        self.tell(access_token="new", expires_in=60, refresh_token="s")
        new = Token("new", "s", 130.0, ("a",))
        self.assertEqual(self.successResultOf(answer), new)
        self.assertEqual(self.successResultOf(tokens.get()), new)
        self.assertEqual((self.asked(), self.saved), (1, [new]))

    def test_single_flight(self) -> None:
        """However many need it, the server is asked once."""
        tokens = self.tokens()
        self.clock.advance(100)
        answers = [tokens.get() for _ in range(5)] + [tokens.renew(OLD)]
        self.assertEqual(self.asked(), 1)
        self.tell(access_token="new")
        for answer in answers:
            self.assertEqual(self.successResultOf(answer).access_token, "new")
        self.assertEqual(self.asked(), 1)

    def test_cancelled(self) -> None:
        """One who no longer waits does not stop it for the others."""
        tokens = self.tokens()
        self.clock.advance(100)
        first, second, third = tokens.get(), tokens.get(), tokens.get()
        second.addCallback(lambda _: third.cancel())
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.tell(access_token="new")
        self.successResultOf(second)
        self.failureResultOf(third, CancelledError)
        self.assertEqual(self.successResultOf(tokens.get()).access_token, "new")

    def test_failure(self) -> None:
        """All who wait fail alike; who asks then asks anew."""
        tokens = self.tokens()
        self.clock.advance(100)
        again: list[Deferred[Token]] = []
        first, second = tokens.get(), tokens.get()
        first.addErrback(lambda _: again.append(tokens.get()))
        self.to().answer(503)
        self.successResultOf(first)
        self.failureResultOf(second, OAuthError)
        self.assertNoResult(again[0])
        self.tell(access_token="new")
        self.assertEqual(self.successResultOf(again[0]).access_token, "new")

    def test_failure_that_nobody_awaits(self) -> None:
        """It is not reported to nobody."""
        tokens = self.tokens()
        self.clock.advance(100)
        answer = tokens.get()
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.to().answer(503)

    def test_obtained(self) -> None:
        """Where there is no token one is got."""
        tokens = self.tokens(None, obtain=self.client.client_credentials)
        answer = tokens.get()
        self.assertEqual(self.form(), {"grant_type": "client_credentials"})
        self.tell(access_token="t", expires_in=10)
        self.assertEqual(self.successResultOf(answer).access_token, "t")

    def test_short_lives(self) -> None:
        """A token that lives shorter than the skew serves those who waited."""
        tokens = self.tokens(None, obtain=self.client.client_credentials)
        for _ in range(2):
            answer = tokens.get()
            self.tell(access_token="t", expires_in=10)
            self.successResultOf(answer)
        self.assertEqual(self.asked(), 2)

    def test_refresh_token_refused(self) -> None:
        """When the refresh token has had its day, a token is got as at first."""
        tokens = self.tokens(obtain=self.client.client_credentials)
        self.clock.advance(100)
        answer = tokens.get()
        self.tell(400, error="invalid_grant")
        self.assertEqual(self.form(), {"grant_type": "client_credentials"})
        self.tell(access_token="new")
        self.assertEqual(self.successResultOf(answer).access_token, "new")

    def test_refresh_token_refused_for_good(self) -> None:
        """If none can be got so, the error says so, and it is not sent again."""
        tokens = self.tokens()
        self.clock.advance(80)
        answer = tokens.get()
        self.tell(400, error="invalid_grant")
        error = self.failureResultOf(answer, OAuthError).value
        self.assertEqual(error.error, "invalid_grant")
        # It is good for another 20 s.
        self.assertEqual(self.successResultOf(tokens.get()).access_token, "old")
        self.clock.advance(20)
        self.failureResultOf(tokens.get(), AuthenticationFailed)
        self.assertEqual(self.asked(), 1)

    def test_server_down(self) -> None:
        """A refresh token that was not judged is kept."""
        tokens = self.tokens(obtain=lambda: self.fail("not this"))
        self.clock.advance(100)
        answer = tokens.get()
        self.to().answer(503)
        self.failureResultOf(answer, OAuthError)
        tokens.get()
        self.assertEqual(self.form()["refresh_token"], "r")

    def test_static(self) -> None:
        """A token alone is used as long as it is good."""
        tokens = Tokens(token=Token("t"))
        self.assertEqual(self.successResultOf(tokens.get()), Token("t"))
        self.assertFalse(tokens.can_renew)
        self.assertEqual(tokens.name, "token")
        self.failureResultOf(tokens.renew(Token("t")), OAuthError)
        self.assertEqual(self.tokens().name, "me")

    def test_nothing(self) -> None:
        """Without a token or a way to get one there is none."""
        self.failureResultOf(Tokens().get(), AuthenticationFailed)
        self.failureResultOf(self.tokens(None).get(), AuthenticationFailed)
        self.failureResultOf(
            self.tokens(Token("t")).renew(Token("t")), AuthenticationFailed
        )

    def test_repr(self) -> None:
        """Nothing shows a token."""
        self.assertNotIn("old", repr(self.tokens()))


class RenewTests(TokensCase):
    """A token in place of one that was refused."""

    def test_forced(self) -> None:
        """It is refreshed although it seems good."""
        tokens = self.tokens()
        answer = tokens.renew(OLD)
        self.tell(access_token="new")
        self.assertEqual(self.successResultOf(answer).access_token, "new")

    def test_done_already(self) -> None:
        """If others have replaced it meanwhile, their token will do."""
        tokens = self.tokens()
        answer = tokens.renew(Token("older"))
        self.assertEqual(self.successResultOf(answer), OLD)
        self.assertEqual(self.wire.peers, [])


class SaveTests(TokensCase):
    """The store."""

    def test_awaited(self) -> None:
        """A token is used when it is safe."""
        saving: Deferred[None] = Deferred()
        tokens = self.tokens(save=lambda token: saving)
        answer = tokens.renew(OLD)
        self.tell(access_token="new")
        self.assertNoResult(answer)
        saving.callback(None)
        self.assertEqual(self.successResultOf(answer).access_token, "new")

    def test_fails(self) -> None:
        """A store that fails is reported, and the new token is not lost."""
        tokens = self.tokens(save=lambda token: fail(OSError("disk full")))
        answer = tokens.renew(OLD)
        self.tell(access_token="new")
        self.failureResultOf(answer, OSError)
        self.assertEqual(self.successResultOf(tokens.get()).access_token, "new")

    def test_none(self) -> None:
        """There need not be one."""
        tokens = self.tokens(save=None)
        answer = tokens.renew(OLD)
        self.tell(access_token="new")
        self.successResultOf(answer)

    def test_obtained_by_other_means(self) -> None:
        """A token may come from anywhere."""
        tokens = self.tokens(None, obtain=lambda: succeed(Token("t")))
        self.assertEqual(self.successResultOf(tokens.get()), Token("t"))
        self.assertEqual(self.saved, [Token("t")])
