"""A token that is always good: fetched, refreshed, kept."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from coda_twisted.oauth.client import OAuth2Client
from coda_twisted.oauth.errors import OAuthError
from coda_twisted.oauth.token import Token

__all__ = ["SKEW", "Tokens"]

SKEW = 30.0
"""Seconds before its end at which a token is replaced: clocks and requests differ."""


class Tokens:
    """
    One token and its successors.

    However many ask at once, the server is asked once.  Someone who no longer waits
    does not stop it for the others.

    :param client: Refreshes; ``None`` for a token that lasts.
    :param obtain: Gets a token where there is none to refresh:
        ``client.client_credentials``.
    :param token: The one to begin with: out of a store.
    :param save: Called with each new token before it is used.  If it returns a
        Deferred, that is waited for.
    :param skew: Seconds before its end at which a token is replaced.
    :param now: Tells the seconds since the epoch.
    """

    def __init__(
        self,
        client: OAuth2Client | None = None,
        *,
        obtain: Callable[[], Awaitable[Token]] | None = None,
        token: Token | None = None,
        save: Callable[[Token], Any] | None = None,
        skew: float = SKEW,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._obtain = obtain
        self._token = token
        self._save = save
        self._skew = skew
        self._now = now
        self._waiting: list[Deferred[Token]] = []
        self._asking = False

    def __repr__(self) -> str:
        return f"<Tokens {self._token!r}>"

    @property
    def name(self) -> str:
        """Whose tokens these are, for people."""
        return "token" if self._client is None else self._client.client_id

    @property
    def can_renew(self) -> bool:
        """Whether another token could be had."""
        return self._obtain is not None or self._refreshable is not None

    @property
    def _refreshable(self) -> Token | None:
        token = self._token
        if self._client is None or token is None or token.refresh_token is None:
            return None
        return token

    def get(self) -> Deferred[Token]:
        """
        Get a token that is good for now.

        :returns: Fails with :class:`AuthenticationFailed` where there is none, and
            with what the agent failed with.
        """
        token = self._token
        now = self._now()
        if token is not None and not token.expires_by(now + self._skew):
            return succeed(token)
        if self.can_renew:
            return self._join()
        if token is None:
            return fail(OAuthError("there is no token, and no way to get one"))
        if token.expires_by(now):
            return fail(OAuthError("the token has expired, and cannot be renewed"))
        return succeed(token)

    def renew(self, refused: Token) -> Deferred[Token]:
        """
        Get a token in place of one that a server has refused.

        :param refused: Another token than this may have been fetched meanwhile.
        :returns: As :meth:`get`.
        """
        token = self._token
        if token is not None and token.access_token != refused.access_token:
            return self.get()
        if not self.can_renew:
            return fail(OAuthError("the token was refused, and cannot be renewed"))
        return self._join()

    def _join(self) -> Deferred[Token]:
        """Wait for the answer that is under way, or ask."""
        waiting: Deferred[Token] = Deferred(self._forget)
        self._waiting.append(waiting)
        if not self._asking:
            self._asking = True
            Deferred.fromCoroutine(self._next()).addBoth(self._settle)
        return waiting

    async def _next(self) -> Token:
        token = await self._fetch()
        # Known before it is saved: the former one may be of no use any more.
        self._token = token
        if self._save is not None:
            saved = self._save(token)
            if isinstance(saved, Deferred):
                await saved
        return token

    async def _fetch(self) -> Token:
        token = self._refreshable
        if token is not None and self._client is not None:
            try:
                return await self._client.refresh(token)
            except OAuthError as error:
                if error.error != "invalid_grant":
                    raise
                # It will not be accepted later either.
                self._token = replace(token, refresh_token=None)
                if self._obtain is None:
                    raise
        assert self._obtain is not None
        return await self._obtain()

    def _settle(self, outcome: Token | Failure) -> None:
        self._asking = False
        # Whoever asks from now on, in a callback of these, asks anew.
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if each.called:
                continue
            if isinstance(outcome, Failure):
                each.errback(outcome)
            else:
                each.callback(outcome)

    def _forget(self, waiting: Deferred[Token]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
