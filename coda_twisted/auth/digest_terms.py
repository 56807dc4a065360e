"""What a Digest challenge asks for, and what is answered (RFC 7616 3.3 and 3.4)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from unicodedata import normalize
from urllib.parse import quote_from_bytes

from coda_twisted.auth.basic import encode_text
from coda_twisted.auth.challenge import Challenge
from coda_twisted.auth.steps import Peer
from coda_twisted.errors import ChallengeError

__all__ = [
    "Algorithm",
    "Answer",
    "Terms",
    "available",
    "covers",
    "is_stale",
    "read_terms",
]

_ATTR_CHAR = "!#$&+-.^_`|~"
"""RFC 8187 3.2.1: what needs no percent-encoding, besides letters and digits."""

_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SEPARATORS = re.compile(r"[ \t,]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def available(hashes: Mapping[str, str]) -> dict[str, str]:
    """Keep those that this Python has: OpenSSL in FIPS mode, for one, has no MD5."""
    kept = {}
    for name, python_name in hashes.items():
        try:
            hashlib.new(python_name)
        except ValueError:
            continue
        kept[name] = python_name
    return kept


_REGISTERED = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}
"""RFC 7616 6.1's names and hashlib's, the weakest first."""

_HASHES = available(_REGISTERED)
_STRENGTHS = {name: rank for rank, name in enumerate(_REGISTERED)}


@dataclass(frozen=True, slots=True)
class Algorithm:
    """
    One of the registered algorithms (RFC 7616 6.1).

    :ivar name: The hash function's name: ``SHA-256``.
    :ivar session: Whether it is the variant with ``-sess``.
    """

    name: str
    session: bool = False

    def is_at_least(self, name: str) -> bool:
        """Say whether the hash function is no weaker than the one called *name*."""
        return _STRENGTHS[self.name] >= _STRENGTHS[name]

    def sum(self, *parts: bytes) -> bytes:
        """
        Hash *parts* with colons between them: H and KD of RFC 7616 3.3.

        :returns: Lower-case hexadecimal digits.
        """
        # The protocol names the function; policy says which ones are acceptable.
        hashed = hashlib.new(_HASHES[self.name], b":".join(parts))
        return hashed.hexdigest().encode("ascii")


@dataclass(frozen=True, slots=True)
class Terms:
    """
    What a Digest challenge asks for (RFC 7616 3.3).

    :ivar realm: The realm's octets, as received.
    :ivar nonce: The nonce.
    :ivar algorithm: What to compute with.
    :ivar spelling: The algorithm as the peer writes it, ``None`` when it names
        none: Squid compares case-sensitively.
    :ivar qops: The known ones among the qop options; empty for a peer that follows
        RFC 2069 and has none.
    :ivar opaque: To be sent back.
    :ivar userhash: Whether the user's name is to be hashed.
    :ivar utf8: Whether name and password are to be encoded as UTF-8.
    """

    realm: bytes
    nonce: str
    algorithm: Algorithm
    spelling: bytes | None
    qops: frozenset[bytes]
    opaque: bytes | None
    userhash: bool
    utf8: bool

    def __repr__(self) -> str:
        """Tell what is asked for, without nonces."""
        return f"<Terms: {self.algorithm} for {self.realm!r}>"

    def is_for(self, realm: str) -> bool:
        """Say whether this realm is the one written *realm*, in UTF-8 or Latin-1."""
        readings = (self.realm.decode("utf-8", "replace"), self.realm.decode("latin-1"))
        return normalize("NFC", realm) in [normalize("NFC", each) for each in readings]

    def octets(self, text: str) -> bytes:
        """Encode name or password: without ``charset=UTF-8`` in Latin-1, if it fits."""
        if not self.utf8:
            try:
                return text.encode("latin-1")
            except UnicodeEncodeError:
                pass
        return encode_text(text)


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What is said for one request, but for name and password (RFC 7616 3.4).

    :ivar nonce: The nonce answered, which may be a later one than the challenge's.
    :ivar count: How often it was used: *nc*, eight hexadecimal digits.
    :ivar qop: Empty for a peer that knows none.
    """

    terms: Terms
    nonce: bytes
    uri: bytes
    count: bytes
    cnonce: bytes
    qop: bytes

    def __repr__(self) -> str:
        """Tell what it is for, without nonces."""
        return f"<Answer for {self.uri!r} to {self.terms}>"

    def proof(self, username: str, password: str, *a2: bytes) -> bytes:
        """
        Compute *response*, or the peer's *rspauth* (RFC 7616 3.4.1 and 3.5).

        :param a2: The parts of A2: of the request method, digest-uri and, for
            auth-int, the content's hash; of the response the same without method.
        """
        sums, terms = self.terms.algorithm, self.terms
        key = sums.sum(terms.octets(username), terms.realm, terms.octets(password))
        if sums.session:
            key = sums.sum(key, self.nonce, self.cnonce)
        middle = [self.count, self.cnonce, self.qop] if self.qop else []
        return sums.sum(key, self.nonce, *middle, sums.sum(*a2))

    def credentials(self, username: str, response: bytes) -> bytes:
        """Write the (Proxy-)Authorization field's value."""
        return b"Digest " + b", ".join(
            name + b"=" + value for name, value in self._params(username, response)
        )

    def _params(self, username: str, response: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Give the parameters, quoted or not as RFC 7616 3.4 says and Squid insists."""
        terms = self.terms
        yield self._user(username)
        yield b"realm", _quoted(terms.realm)
        yield b"uri", _quoted(self.uri)
        if terms.spelling is not None:
            yield b"algorithm", terms.spelling
        yield b"nonce", _quoted(self.nonce)
        if self.qop:
            yield b"nc", self.count
        if self.qop or terms.algorithm.session:
            yield b"cnonce", _quoted(self.cnonce)
        if self.qop:
            yield b"qop", self.qop
        yield b"response", _quoted(response)
        if terms.opaque is not None:
            yield b"opaque", _quoted(terms.opaque)
        if terms.userhash:
            yield b"userhash", b"true"

    def _user(self, username: str) -> tuple[bytes, bytes]:
        terms, octets = self.terms, self.terms.octets(username)
        if terms.userhash:  # RFC 7616 3.4.4
            return b"username", _quoted(terms.algorithm.sum(octets, terms.realm))
        if terms.utf8 and not octets.isascii():
            encoded = quote_from_bytes(octets, safe=_ATTR_CHAR)
            return b"username*", b"UTF-8''" + encoded.encode("ascii")
        return b"username", _quoted(octets)


def is_stale(challenge: Challenge) -> bool:
    """Say whether the peer found fault with the nonce alone (RFC 7616 3.3)."""
    return challenge.params.get("stale", "").lower() == "true"


def read_terms(challenge: Challenge) -> Terms:
    """
    Read a Digest challenge.

    :raises ChallengeError: It cannot be answered; the reason is for people.
    """
    params = challenge.params
    for name in ("realm", "nonce"):
        if name not in params:
            raise ChallengeError(f"the Digest challenge has no {name}")
        if name in challenge.guessed:
            # A guess may cost a failed logon, and then looks like a wrong password.
            raise ChallengeError(f"the Digest challenge's {name} is badly quoted")
    for name in ("realm", "nonce", "opaque"):
        if _CONTROLS.search(params.get(name, "")):
            raise ChallengeError(f"the Digest challenge's {name} is unreadable")
    opaque = params.get("opaque")
    spelling = params.get("algorithm")
    return Terms(
        realm=params["realm"].encode("latin-1"),
        nonce=params["nonce"],
        # RFC 7616 3.3: "If this is not present, it is assumed to be "MD5"."
        algorithm=_read_algorithm("MD5" if spelling is None else spelling),
        spelling=None if spelling is None else spelling.encode("latin-1"),
        qops=_read_qops(params.get("qop", "")),
        opaque=None if opaque is None else opaque.encode("latin-1"),
        userhash=params.get("userhash", "").lower() == "true",
        utf8=params.get("charset", "").lower() == "utf-8",
    )


def _read_algorithm(spelling: str) -> Algorithm:
    name = spelling.upper()
    algorithm = Algorithm(name.removesuffix("-SESS"), name.endswith("-SESS"))
    if algorithm.name not in _HASHES:
        raise ChallengeError(f"the Digest algorithm {spelling!r} is not known here")
    return algorithm


def _read_qops(options: str) -> frozenset[bytes]:
    offered = {option for option in _SEPARATORS.split(options.lower()) if option}
    known = offered & {"auth", "auth-int"}
    if offered and not known:
        raise ChallengeError(
            f"none of the Digest qop options {options!r} is known here"
        )
    # RFC 7616 3.3: "Unrecognized options MUST be ignored."
    return frozenset(option.encode("ascii") for option in known)


def covers(challenge: Challenge, peer: Peer, path: bytes) -> bool:
    """
    Say whether an origin server's challenge is for this path as well.

    RFC 7616 3.3: *domain* lists URIs, and all that begin like one of them are in the
    protection space; without a list it is the whole server.
    """
    domain = challenge.params.get("domain", "").split()
    paths = [_own_path(uri.encode("latin-1"), peer) for uri in domain]
    return not paths or any(
        each is not None and path.startswith(each) for each in paths
    )


def _own_path(uri: bytes, peer: Peer) -> bytes | None:
    """Get the path of a URI of the domain, if it is one of this server's."""
    if uri.startswith(b"/"):
        return uri
    host = f"[{peer.host}]" if ":" in peer.host else peer.host
    origin = f"{peer.scheme}://{host}"
    roots = [f"{origin}:{peer.port}"]
    if peer.port == _DEFAULT_PORTS.get(peer.scheme):
        roots.append(origin)
    for root in roots:
        if uri.lower().startswith(root.encode("latin-1", "replace")):
            # A longer host or port is no path, and begins no path either.
            return uri[len(root) :] or b"/"
    return None


def _quoted(octets: bytes) -> bytes:
    """Make a quoted-string (RFC 9110 5.6.4)."""
    return b'"' + octets.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
