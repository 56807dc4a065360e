"""The verifying side of OAuth 1.0 (RFC 5849 3.2), with oauthlib's arithmetic."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha1
from hmac import compare_digest
from typing import Any

from oauthlib.common import Request
from oauthlib.oauth1.rfc5849 import signature

from coda_twisted.testing.verdicts import Accepted, Received, Refused, Site, Verdict

__all__ = ["OAuth1"]

_FORM = b"application/x-www-form-urlencoded"
_NEEDED = ("consumer_key", "signature", "signature_method", "timestamp", "nonce")
_UNIQUE = ("consumer_key", "token", "timestamp", "nonce")
_DIGITS = re.compile(r"[0-9]{1,15}")

_HMAC: dict[str, Any] = {
    "HMAC-SHA1": signature.verify_hmac_sha1,
    "HMAC-SHA256": signature.verify_hmac_sha256,
    "HMAC-SHA512": signature.verify_hmac_sha512,
    "PLAINTEXT": signature.verify_plaintext,
}
_RSA: dict[str, Any] = {
    "RSA-SHA1": signature.verify_rsa_sha1,
    "RSA-SHA256": signature.verify_rsa_sha256,
    "RSA-SHA512": signature.verify_rsa_sha512,
}


@dataclass(frozen=True, slots=True)
class OAuth1:
    """
    Signed requests, with the parameters in the Authorization field.

    :ivar clients: From consumer keys to their secrets, or, for RSA, public keys in
        PEM.
    :ivar tokens: From tokens to their secrets and their users.  A request without a
        token is from its consumer.
    :ivar methods: The signature methods that are taken.
    :ivar skew: By how many seconds a timestamp may differ from the server's clock;
        ``None`` for any number, for a :class:`~twisted.internet.task.Clock` does not
        tell the time of day.
    """

    clients: Mapping[str, str] = field(repr=False)
    tokens: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    methods: tuple[str, ...] = (*_HMAC, *_RSA)
    skew: float | None = None

    def at(self, site: Site) -> OAuth1Verifier:
        """Set it up at one server."""
        return OAuth1Verifier(site, self)


class OAuth1Verifier:
    """Checks signatures; every request has to bring one of its own."""

    name = b"OAuth"
    user = None

    def __init__(self, site: Site, settings: OAuth1) -> None:
        self._site = site
        self._settings = settings
        self._seen: set[tuple[str, ...]] = set()

    def challenges(self) -> list[bytes]:
        """Make the challenge (RFC 5849 3.5.1)."""
        return [b"OAuth " + self._site.realm_param()]

    def connected(self) -> OAuth1Verifier:
        """Say that connections make no difference."""
        return self

    def verify(self, request: Received, credentials: bytes) -> Verdict:
        """Judge one request."""
        header = {"Authorization": "OAuth " + credentials.decode("latin-1")}
        try:
            protocol = _collect(headers=header)
            params = protocol + self._signed_besides(request)
        except ValueError:
            return Refused("the credentials, or what is signed with them, is malformed")
        said = {name.removeprefix("oauth_"): value for name, value in protocol}
        fault = self._fault(said, request)
        if fault is not None:
            return Refused(fault)
        user = self._user(said)
        if user is None or not self._verifies(request, said, params):
            self._site.accounts.unknown(said["consumer_key"], "OAuth")
            return Refused("the signature, or one of the keys, is wrong")
        use = tuple(said.get(name, "") for name in _UNIQUE)
        if use in self._seen:
            return Refused("the nonce was used before")
        self._seen.add(use)
        if not self._site.accounts.vouched(user, "OAuth"):
            return Refused(f"{user!r} was refused")
        return Accepted(user)

    def _signed_besides(self, request: Received) -> list[tuple[str, str]]:
        """Collect the parameters of query and form (RFC 5849 3.4.1.3.1)."""
        form = ""
        kind = request.fields.get(b"Content-Type", b"") or b""
        if kind.partition(b";")[0].strip().lower() == _FORM:
            form = request.content.decode("ascii")
        query = request.url.partition(b"?")[2].decode("ascii")
        return _collect(uri_query=query, body=form)

    def _fault(self, said: Mapping[str, str], request: Received) -> str | None:
        """Say what is wrong before any key is looked at."""
        missing = [name for name in _NEEDED if not said.get(name)]
        if missing:
            return f"the credentials have no {', '.join(missing)}"
        if said.get("version", "1.0") != "1.0":
            return "the version is not 1.0"
        if said["signature_method"] not in self._settings.methods:
            return "the signature method is not taken here"
        if not _DIGITS.fullmatch(said["timestamp"]):
            return "the timestamp is no number"
        skew = self._settings.skew
        late = abs(int(said["timestamp"]) - self._site.seconds())
        if skew is not None and late > skew:
            return "the timestamp is not of now"
        if "body_hash" in said:
            right = b64encode(sha1(request.content, usedforsecurity=False).digest())
            if not compare_digest(right, said["body_hash"].encode("utf-8")):
                return "the content is not what was hashed"
        return None

    def _user(self, said: Mapping[str, str]) -> str | None:
        if "token" not in said:
            return said["consumer_key"]
        known = self._settings.tokens.get(said["token"])
        return None if known is None else known[1]

    def _verifies(
        self,
        request: Received,
        said: Mapping[str, str],
        params: list[tuple[str, str]],
    ) -> bool:
        """Compute the signature anew (RFC 5849 3.4)."""
        key = self._settings.clients.get(said["consumer_key"])
        if key is None:
            return False
        signed = Request(request.url.decode("ascii"), request.method.decode("ascii"))
        signed.params = [pair for pair in params if pair[0] != "oauth_signature"]
        signed.signature = said["signature"]
        method = said["signature_method"]
        if method in _RSA:
            try:
                return bool(_RSA[method](signed, key))
            except (TypeError, ValueError):  # the signature, or our key, is none
                return False
        secret, _ = self._settings.tokens.get(said.get("token", ""), ("", ""))
        return bool(_HMAC[method](signed, key, secret))


def _collect(**sources: Any) -> list[tuple[str, str]]:
    return list(signature.collect_parameters(**sources, exclude_oauth_signature=False))
