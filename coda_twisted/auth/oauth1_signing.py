"""
OAuth 1.0a: what is signed, and how (RFC 5849 3).

What is signed is always the origin server's URI, whatever the request-target on
the wire: behind a proxy that is in absolute-form.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import SplitResult, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from oauthlib import oauth1
from oauthlib.oauth1.rfc5849 import signature

from coda_twisted.errors import LocalProtocolError

__all__ = [
    "FORM",
    "METHODS",
    "Keys",
    "Message",
    "Placement",
    "RSAKey",
    "Signed",
    "Signer",
    "is_form",
    "sign",
]

FORM = b"application/x-www-form-urlencoded"

_RSA: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "RSA-SHA1": hashes.SHA1,
    "RSA-SHA256": hashes.SHA256,
    "RSA-SHA512": hashes.SHA512,
}
METHODS = ("HMAC-SHA1", "HMAC-SHA256", "HMAC-SHA512", *_RSA, "PLAINTEXT")
"""Signature methods (RFC 5849 3.4); those with SHA-2 are in use without an RFC."""

# What oauthlib takes for part of a form; it refuses a URI with anything else.
_STRAY = re.compile(rb"[^A-Za-z0-9_.\-=&;:%+~,*@!()/?'$]|%(?![0-9A-Fa-f]{2})")


class Placement(Enum):
    """Where the protocol parameters travel (RFC 5849 3.5)."""

    HEADER = oauth1.SIGNATURE_TYPE_AUTH_HEADER
    BODY = oauth1.SIGNATURE_TYPE_BODY
    QUERY = oauth1.SIGNATURE_TYPE_QUERY


class RSAKey:
    """
    A private key that is parsed once, when it is first used.

    Parsing and checking one takes tens of milliseconds, signing one or two: both
    are work for another thread.

    :param pem: The key, unencrypted.
    """

    def __init__(self, pem: bytes | str) -> None:
        self._pem = pem.encode("ascii") if isinstance(pem, str) else pem
        self._key: rsa.RSAPrivateKey | None = None

    def __repr__(self) -> str:
        return "<RSAKey>"

    def sign(self, text: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
        """
        Make an RSASSA-PKCS1-v1_5 signature (RFC 5849 3.4.3).

        :raises LocalProtocolError: The PEM holds no RSA key.
        """
        if self._key is None:
            try:
                key = serialization.load_pem_private_key(self._pem, None)
            except (TypeError, ValueError):
                key = None
            if not isinstance(key, rsa.RSAPrivateKey):
                raise LocalProtocolError("the PEM holds no unencrypted RSA key")
            self._key = key
        return self._key.sign(text, padding.PKCS1v15(), algorithm)


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """
    What requests are signed with.

    :ivar client_key: The client's identifier, ``oauth_consumer_key``.
    :ivar token: The token's identifier; empty where there is no user.
    :ivar method: One of :data:`METHODS`.
    :ivar rsa_key: For the methods with RSA; the secrets are not used then.
    :ivar realm: To be sent with the parameters; none by default.
    :ivar body_hash: Sign the hash of content other than forms
        (draft-eaton-oauth-bodyhash).
    """

    client_key: str
    client_secret: str = ""
    token: str = ""
    token_secret: str = ""
    method: str = "HMAC-SHA1"
    rsa_key: RSAKey | None = None
    realm: str | None = None
    body_hash: bool = False

    def __post_init__(self) -> None:
        """Refuse what would otherwise be noticed when a request fails."""
        if self.method not in METHODS:
            raise ValueError(f"method: one of {', '.join(METHODS)} is needed")
        if self.is_slow and self.rsa_key is None:
            raise ValueError(f"rsa_key: {self.method} needs a private key")
        if self.realm is not None and not re.fullmatch(r"[ -~]*", self.realm):
            raise ValueError("realm: visible ASCII is needed")

    def __repr__(self) -> str:
        return f"Keys({self.client_key!r}, method={self.method!r})"

    @property
    def is_slow(self) -> bool:
        """Whether signing costs milliseconds."""
        return self.method in _RSA

    @property
    def is_secret_sent(self) -> bool:
        """Whether the secrets themselves travel (RFC 5849 3.4.4)."""
        return self.method == "PLAINTEXT"


@dataclass(frozen=True, slots=True)
class Message:
    """
    What of a request is signed.

    :ivar uri: The absolute URI of the resource.
    :ivar host: The Host field, where it is not the URI's authority.
    :ivar content_type: The Content-Type field; empty where there is none.
    :ivar content: The content; ``None`` where it is not at hand.
    """

    method: bytes
    uri: bytes
    host: bytes = b""
    content_type: bytes = b""
    content: bytes | None = b""


@dataclass(frozen=True, slots=True, repr=False)
class Signed:
    """
    What a signed request consists of.

    :ivar uri: The URI; another than before where the parameters are in its query.
    :ivar authorization: The Authorization field, where the parameters are in it.
    :ivar content: The form, where the parameters are in it, else ``None``.
    """

    uri: bytes
    authorization: bytes | None = None
    content: bytes | None = None


def is_form(content_type: bytes) -> bool:
    """Tell a form by its media type, whatever its parameters and case."""
    return content_type.partition(b";")[0].strip().lower() == FORM


def sign(
    keys: Keys,
    message: Message,
    *,
    nonce: str,
    timestamp: int,
    placement: Placement = Placement.HEADER,
    callback: str | None = None,
    verifier: str | None = None,
) -> Signed:
    """
    Sign one attempt at a request.

    :param nonce: A fresh one, for a repetition as well (RFC 5849 3.3).
    :param timestamp: Seconds since the epoch.
    :param callback: Where the server shall send the user (RFC 5849 2.1).
    :param verifier: What the user came back with (RFC 5849 2.3).
    :raises LocalProtocolError: The request cannot be signed: a form that is not at
        hand, or with a method that has no content; parameters that are to be in
        content that is no form.
    """
    client = Signer(
        keys.client_key,
        client_secret=keys.client_secret,
        resource_owner_key=keys.token,
        resource_owner_secret=keys.token_secret,
        callback_uri=callback,
        verifier=verifier,
        signature_method=keys.method,
        signature_type=placement.value,
        nonce=nonce,
        timestamp=str(timestamp),
    )
    client.rsa_key = keys.rsa_key
    form = _form(message, placement)
    if keys.body_hash and form is None and message.content is not None:
        client.body_hash = _body_hash(keys.method, message.content)
    # oauthlib refuses a content type that is not spelt exactly so, a form's content
    # under another, and what is no text: it gets to see forms only.
    fields = {} if form is None else {"Content-Type": FORM.decode("ascii")}
    if message.host:
        fields["Host"] = message.host.decode("ascii")
    place, question, query = message.uri.partition(b"#")[0].partition(b"?")
    uri, fields, body = client.sign(
        (place + question).decode("ascii") + _escaped(query),
        message.method.decode("ascii"),
        form,
        fields,
        _quotable(keys.realm),
    )
    if placement is Placement.HEADER:
        return Signed(message.uri, fields["Authorization"].encode("ascii"))
    if placement is Placement.QUERY:
        return Signed(uri.encode("ascii"))
    return Signed(message.uri, content=body.encode("ascii"))


class Signer(oauth1.Client):  # type: ignore[misc]
    """
    oauthlib's client without its debug log, which would hold what forms hold.

    RSA is done here because oauthlib needs PyJWT for it, and parses the key anew
    for every signature.

    :ivar body_hash: To be sent and signed as ``oauth_body_hash``.
    """

    body_hash: str | None = None

    def get_oauth_params(self, request: Any) -> list[tuple[str, str]]:
        """List the protocol parameters but the signature (RFC 5849 3.1)."""
        params: list[tuple[str, str]] = super().get_oauth_params(request)
        if self.body_hash is not None:
            params.append(("oauth_body_hash", self.body_hash))
        return params

    def get_oauth_signature(self, request: Any) -> str:
        """Make the signature (RFC 5849 3.4)."""
        text = self.base_string(request)
        algorithm = _RSA.get(self.signature_method)
        if algorithm is None:
            make = self.SIGNATURE_METHODS[self.signature_method]
            return str(make(text, self))
        octets = self.rsa_key.sign(text.encode("ascii"), algorithm())
        return b64encode(octets).decode("ascii")

    @staticmethod
    def base_string(request: Any) -> str:
        """Write down what is signed (RFC 5849 3.4.1)."""
        uri = urlsplit(request.uri)
        params = signature.collect_parameters(uri_query=uri.query, body=request.body)
        return str(
            signature.signature_base_string(
                request.http_method,
                _base_uri(uri, request.headers.get("Host")),
                signature.normalize_parameters(params + request.oauth_params),
            )
        )


def _base_uri(uri: SplitResult, host: str | None) -> str:
    """
    Write down the URI that is signed (RFC 5849 3.4.1.2).

    oauthlib 3.2 knows no IPv6 addresses here.
    """
    default = {"http": ":80", "https": ":443"}.get(uri.scheme, "")
    authority = (host or uri.netloc).lower().removesuffix(default)
    return f"{uri.scheme}://{authority}{uri.path or '/'}"


def _form(message: Message, placement: Placement) -> str | None:
    """Get the form in a request; ``None`` where its content is not one."""
    content = message.content
    if is_form(message.content_type):
        if content is None:
            raise LocalProtocolError("a form must be at hand as a whole to be signed")
        if content == b"" and placement is not Placement.BODY:
            return None
    elif placement is Placement.BODY and not message.content_type and content == b"":
        content = b""  # a form of our parameters alone
    elif placement is Placement.BODY:
        raise LocalProtocolError("OAuth parameters can only be put into a form")
    else:
        return None
    if message.method.upper() in (b"GET", b"HEAD"):
        # Whether a server takes such content for parameters nobody knows.
        raise LocalProtocolError("a form with GET or HEAD cannot be signed")
    return _escaped(content)


def _escaped(text: bytes) -> str:
    """Percent-encode what should have been; it means the same to who decodes it."""
    return _STRAY.sub(lambda match: b"%%%02X" % match[0][0], text).decode("ascii")


def _quotable(realm: str | None) -> str | None:
    """Make a realm what may stand between quotes; oauthlib puts it there as it is."""
    return realm and re.sub(r'([\\"])', r"\\\1", realm)


def _body_hash(method: str, content: bytes) -> str:
    """
    Hash content that is no form.

    draft-eaton-oauth-bodyhash 3.2: by SHA-1 where the signature method is one with
    SHA-1 or PLAINTEXT, and by the method's own hash otherwise.
    """
    name = method.rpartition("-")[2].lower()
    make = getattr(hashlib, name, hashlib.sha1)
    return b64encode(make(content).digest()).decode("ascii")
