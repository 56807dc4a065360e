"""OAuth 1.0a credentials, and whoever signs with them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from zope.interface import implementer

from coda_twisted.auth.oauth1 import NONCE_OCTETS, OAuth1Conversation
from coda_twisted.auth.oauth1_signing import (
    Keys,
    Message,
    Placement,
    RSAKey,
    Signed,
    sign,
)
from coda_twisted.auth.steps import Peer, Work
from coda_twisted.client.workers import RunsWork, ThreadWorkers
from coda_twisted.credentials import cannot_speak
from coda_twisted.errors import AuthenticationFailed
from coda_twisted.interfaces import IAuthConversation, ICredentials
from coda_twisted.oauth.fingerprints import fingerprint, short

if TYPE_CHECKING:
    from coda_twisted.auth.layer import Context

__all__ = ["OAuth1Credentials", "Signer"]


@implementer(ICredentials)
class OAuth1Credentials:
    """
    A client, and perhaps a user's token, of OAuth 1.0a.

    For :class:`~coda_twisted.oauth.OAuth1Agent`, which signs unasked, and as the
    answer to an ``OAuth`` challenge wherever credentials are asked for.

    :param client_key: The client's identifier, also known as consumer key.
    :param token: The token's identifier; empty for a client that acts by itself.
    :param method: ``HMAC-SHA1``, ``-SHA256``, ``-SHA512``; ``RSA-SHA1``, ``-SHA256``,
        ``-SHA512``; or ``PLAINTEXT``, which sends the secrets and wants TLS.
    :param rsa_key: The client's private key in PEM, unencrypted, for RSA.
    :param realm: To be sent along; few servers want one.
    :param body_hash: Sign the hash of content other than forms.
    :param allow_cleartext: Let PLAINTEXT be used without TLS.
    :param now: Tells the seconds since the epoch.
    :raises ValueError: The method is unknown, or lacks its key.
    """

    unasked = "oauth"

    def __init__(
        self,
        client_key: str,
        client_secret: str = "",
        token: str = "",
        token_secret: str = "",
        *,
        method: str = "HMAC-SHA1",
        rsa_key: bytes | str | None = None,
        realm: str | None = None,
        body_hash: bool = False,
        allow_cleartext: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.keys = Keys(
            client_key,
            client_secret,
            token,
            token_secret,
            method,
            None if rsa_key is None else RSAKey(rsa_key),
            realm,
            body_hash,
        )
        self.allow_cleartext = allow_cleartext
        self.now = now

    def __repr__(self) -> str:
        return f"OAuth1Credentials({self.identity!r}, method={self.keys.method!r})"

    @property
    def identity(self) -> Hashable:
        """Names the client, and tells its users apart."""
        keys = self.keys
        return f"oauth1:{keys.client_key}" + (keys.token and f" {short(keys.token)}")

    @property
    def fingerprint(self) -> Hashable:
        """Changes whenever a secret does."""
        keys = self.keys
        return fingerprint(keys.client_secret, keys.token, keys.token_secret)

    def with_token(self, token: str, token_secret: str) -> OAuth1Credentials:
        """Make the credentials of the same client with another token."""
        other = copy(self)
        other.keys = replace(self.keys, token=token, token_secret=token_secret)
        return other

    def schemes(self) -> Sequence[str]:
        """Name what can be spoken with signatures."""
        return ("oauth",)

    def conversation(
        self, scheme: str, peer: Peer, context: Context
    ) -> IAuthConversation:
        """Begin to speak *scheme*."""
        if scheme != "oauth":
            raise cannot_speak(scheme, peer)
        return OAuth1Conversation(
            self.keys,
            peer,
            context,
            self.now,
            allow_cleartext=self.allow_cleartext,
        )


class Signer:
    """
    Signs requests, where it takes long in another thread.

    :param workers: Runs signing with RSA; by default threads of the global reactor.
    :param entropy: Makes so many random octets.
    """

    def __init__(
        self,
        credentials: OAuth1Credentials,
        *,
        workers: RunsWork | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.credentials = credentials
        self._workers = workers
        self._entropy = entropy

    async def sign(
        self,
        message: Message,
        placement: Placement = Placement.HEADER,
        *,
        callback: str | None = None,
        verifier: str | None = None,
    ) -> Signed:
        """
        Sign one attempt at a request.

        :raises LocalProtocolError: It cannot be signed.
        :raises AuthenticationFailed: The secrets would be sent in clear.
        """
        credentials = self.credentials
        if (
            credentials.keys.is_secret_sent
            and not credentials.allow_cleartext
            and not message.uri.lower().startswith(b"https://")
        ):
            raise AuthenticationFailed(
                "PLAINTEXT would send the secrets in clear (allow_cleartext)",
                scheme="OAuth",
            )
        make = partial(
            sign,
            credentials.keys,
            message,
            nonce=self._entropy(NONCE_OCTETS).hex(),
            timestamp=int(credentials.now()),
            placement=placement,
            callback=callback,
            verifier=verifier,
        )
        if not credentials.keys.is_slow:
            return make()
        if self._workers is None:
            from twisted.internet import reactor

            self._workers = ThreadWorkers(reactor)
        signed: Signed = await self._workers.run(Work(make, logon=False))
        return signed
