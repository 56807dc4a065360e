"""What Digest credentials say, and what they should (RFC 7616 3.4)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

__all__ = ["HASHES", "hashed", "read_credentials", "response"]

HASHES = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}
"""RFC 7616 6.1's names and hashlib's."""

_PARAMETER = re.compile(
    rb"[ \t]*([A-Za-z0-9*-]+)[ \t]*=[ \t]*"
    rb'(?:"((?:[^"\\]|\\.)*)"|([^",\s]*))[ \t]*(?:,|$)'
)
_PAIR = re.compile(rb"\\(.)")
_BARE = frozenset(("algorithm", "nc", "qop", "userhash", "username*"))


def read_credentials(value: bytes, *, strict: bool = False) -> dict[str, str] | None:
    """
    Read the parameters of credentials.

    :param value: What follows the auth-scheme.
    :param strict: Insist on each parameter's own notation: RFC 7616 3.4 says which
        are quoted and which are not, Squid looks, and not every client does it right.
    :returns: Names in lower case and values as ISO 8859-1; ``None`` where it is
        malformed, or names a parameter twice.
    """
    parameters: dict[str, str] = {}
    position = 0
    while position < len(value):
        match = _PARAMETER.match(value, position)
        if match is None:
            return None
        name = match[1].decode("ascii").lower()
        if name in parameters or (strict and (match[2] is None) != (name in _BARE)):
            return None
        octets = match[3] if match[2] is None else _PAIR.sub(rb"\1", match[2])
        parameters[name] = octets.decode("latin-1")
        position = match.end()
    return _with_user(parameters)


def _with_user(parameters: dict[str, str]) -> dict[str, str] | None:
    """Turn ``username*`` (RFC 8187) into the name that it encodes."""
    extended = parameters.pop("username*", None)
    if extended is None:
        return parameters
    charset, _, encoded = extended.rpartition("'")
    if "username" in parameters or charset.lower() != "utf-8'":
        return None
    parameters["username"] = unquote_to_bytes(encoded).decode("latin-1")
    return parameters


def hashed(algorithm: str, text: bytes) -> str:
    """Compute H(data) (RFC 7616 3.3)."""
    name = HASHES[algorithm.upper().removesuffix("-SESS")]
    return hashlib.new(name, text).hexdigest()


def response(
    fields: Mapping[str, str],
    username: bytes,
    password: bytes,
    method: str,
    body: bytes = b"",
) -> str:
    """
    Compute what *response* has to be (RFC 7616 3.4.1).

    :param fields: The parameters of the credentials.
    :param method: Empty to compute *rspauth* (RFC 7616 3.5).
    :param body: The request's content, or the response's for *rspauth*.
    """
    algorithm = fields.get("algorithm", "MD5")
    realm = fields["realm"].encode("latin-1")
    a1 = username + b":" + realm + b":" + password
    if algorithm.lower().endswith("-sess"):
        session = f"{hashed(algorithm, a1)}:{fields['nonce']}:{fields['cnonce']}"
        a1 = session.encode("latin-1")
    a2 = f"{method}:{fields['uri']}"
    if fields.get("qop") == "auth-int":
        a2 += ":" + hashed(algorithm, body)
    secret = hashed(algorithm, a1)
    if "qop" in fields:
        data = ":".join(fields[name] for name in ("nonce", "nc", "cnonce", "qop"))
    else:
        data = fields["nonce"]
    a2 = hashed(algorithm, a2.encode("latin-1"))
    return hashed(algorithm, f"{secret}:{data}:{a2}".encode("latin-1"))
