"""The verifying side of Digest (RFC 7616)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hmac import compare_digest
from unicodedata import normalize

from coda_twisted.testing.digest_fields import (
    HASHES,
    hashed,
    read_credentials,
    response,
)
from coda_twisted.testing.verdicts import (
    Accepted,
    Challenged,
    Received,
    Refused,
    Site,
    Verdict,
    quoted,
)

__all__ = ["Digest", "DigestVerifier"]

_COUNT = re.compile(r"[0-9a-f]{8}")
_NEEDED = ("username", "realm", "nonce", "uri", "response")


@dataclass(frozen=True, slots=True)
class Digest:
    """
    Digest.

    :ivar algorithms: As they are written in the challenges, one for each, in this
        order: ``MD5``, ``SHA-256``, ``SHA-512-256``, each also with ``-sess``.
    :ivar qop: ``auth``, ``auth-int``, both with a comma, or ``""`` for a server that
        knows RFC 2069 alone.
    :ivar userhash: Ask for user names to be hashed.
    :ivar charset: Ask for UTF-8; otherwise names and passwords are taken for Latin-1
        where they have no other character.
    :ivar nonce_uses: How often a nonce is good, before it is stale; 0 for ever.
    :ivar next_nonce: Give a new nonce with each answer.
    :ivar rspauth: Prove to the client that we know the password.
    :ivar stale_to_all: Call an unknown nonce stale without a look at the password, as
        Squid does; Apache and we look first.
    :ivar strict: Refuse what is quoted against the rules.
    :raises ValueError: An algorithm is not known.
    """

    algorithms: Sequence[str] = ("SHA-256", "MD5")
    qop: str = "auth"
    userhash: bool = False
    charset: bool = True
    nonce_uses: int = 0
    next_nonce: bool = False
    rspauth: bool = True
    stale_to_all: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        for algorithm in self.algorithms:
            if algorithm.upper().removesuffix("-SESS") not in HASHES:
                raise ValueError(f"there is no Digest algorithm {algorithm!r}")

    def at(self, site: Site) -> DigestVerifier:
        """Set it up at one server."""
        return DigestVerifier(site, self)


@dataclass(slots=True)
class _Nonce:
    """What became of a nonce: how often it was used, and with which counts."""

    uses: int = 0
    counts: set[str] = field(default_factory=set)


class DigestVerifier:
    """Judges responses; nonces are good on any connection."""

    name = b"Digest"
    user = None

    def __init__(self, site: Site, settings: Digest) -> None:
        self._site = site
        self._settings = settings
        self._opaque = site.entropy(8).hex()
        self._nonces: dict[str, _Nonce] = {}

    # Challenges

    def challenges(self, *, stale: bool = False) -> list[bytes]:
        """Make a challenge for each algorithm, with a new nonce for all."""
        nonce = self._new_nonce()
        return [
            self._challenge(nonce, algorithm, stale)
            for algorithm in self._settings.algorithms
        ]

    def expire(self) -> None:
        """Make every nonce stale."""
        self._nonces.clear()

    def connected(self) -> DigestVerifier:
        """Say that connections make no difference."""
        return self

    def _new_nonce(self) -> str:
        nonce = self._site.entropy(16).hex()
        self._nonces[nonce] = _Nonce()
        return nonce

    def _challenge(self, nonce: str, algorithm: str, stale: bool) -> bytes:
        settings = self._settings
        params = [
            self._site.realm_param(),
            b"nonce=" + quoted(nonce.encode("ascii")),
            b"opaque=" + quoted(self._opaque.encode("ascii")),
            b"algorithm=" + algorithm.encode("ascii"),
        ]
        if settings.qop:
            params.append(b"qop=" + quoted(settings.qop.encode("ascii")))
        if settings.charset:
            params.append(b"charset=UTF-8")
        if settings.userhash:
            params.append(b"userhash=true")
        if stale:
            params.append(b"stale=true")
        return b"Digest " + b", ".join(params)

    # Verdicts

    def verify(self, request: Received, credentials: bytes) -> Verdict:
        """Judge one request."""
        said = read_credentials(credentials, strict=self._settings.strict)
        if said is None:
            return Refused("the credentials are malformed")
        fault = self._fault(said, request)
        if fault is not None:
            return Refused(fault)
        accounts = self._site.accounts
        user = self._user(said)
        fresh = self._fresh(said)

        def proof(password: str) -> bool:
            right = self._response(said, password, request.method, request.content)
            return compare_digest(right.encode(), said["response"].encode("latin-1"))

        if not fresh and (self._settings.stale_to_all or accounts.proves(user, proof)):
            return Challenged("the nonce is stale", tuple(self.challenges(stale=True)))
        if not accounts.judge(user, "Digest", proof):
            return Refused(f"{user!r} was refused")
        nonce = self._nonces[said["nonce"]]
        nonce.uses += 1
        nonce.counts.add(said.get("nc", ""))
        return Accepted(accounts.name(user), self._info(said, user))

    def _fault(self, said: Mapping[str, str], request: Received) -> str | None:
        """Say what is wrong with credentials before any password is looked at."""
        missing = [name for name in _NEEDED if name not in said]
        settings = self._settings
        options = [option.strip() for option in settings.qop.split(",") if option]
        if options:
            missing += [name for name in ("qop", "nc", "cnonce") if name not in said]
        if missing:
            return f"the credentials have no {', '.join(missing)}"
        if said["realm"] != self._site.realm.encode("utf-8").decode("latin-1"):
            return "the realm is not ours"
        if said.get("opaque") != self._opaque:
            return "opaque is not what was sent"
        if said.get("algorithm", "MD5") not in settings.algorithms:
            return "the algorithm is not one of ours"
        if options and said["qop"] not in options:
            return "the quality of protection was not offered"
        if not options and "qop" in said:
            return "there is a quality of protection, and none was offered"
        if options and not _COUNT.fullmatch(said["nc"]):
            return "nc is not eight hexadecimal digits"
        if (said.get("userhash") == "true") != settings.userhash:
            return "the user's name is hashed, or not, against our wish"
        # Apache takes either, and compares; Squid does not look.
        if said["uri"].encode("latin-1") not in (request.target, request.path):
            return "uri is not the request-target"
        return None

    def _user(self, said: Mapping[str, str]) -> str:
        """Find out who it is meant to be."""
        accounts = self._site.accounts
        if not self._settings.userhash:
            return _decode(said["username"].encode("latin-1"))
        realm = self._site.realm.encode("utf-8")
        for name in accounts.names():
            text = self._octets(name) + b":" + realm
            if hashed(said.get("algorithm", "MD5"), text) == said["username"]:
                return name
        return said["username"]

    def _fresh(self, said: Mapping[str, str]) -> bool:
        """Say whether the nonce is ours, and not used up, or used so before."""
        nonce = self._nonces.get(said["nonce"])
        if nonce is None:
            return False
        if 0 < self._settings.nonce_uses <= nonce.uses:
            return False
        return "nc" not in said or said["nc"] not in nonce.counts

    def _response(
        self, said: Mapping[str, str], password: str, method: bytes, content: bytes
    ) -> str:
        username = said["username"].encode("latin-1")
        if self._settings.userhash:
            username = self._octets(self._user(said))
        return response(
            said, username, self._octets(password), method.decode("ascii"), content
        )

    def _octets(self, text: str) -> bytes:
        if not self._settings.charset:
            try:
                return text.encode("latin-1")
            except UnicodeEncodeError:
                pass
        return normalize("NFC", text).encode("utf-8")

    def _info(
        self, said: Mapping[str, str], user: str
    ) -> tuple[tuple[bytes, bytes], ...]:
        """Make what goes with the answer (RFC 7616 3.5)."""
        params: list[bytes] = []
        if self._settings.next_nonce:
            params.append(b"nextnonce=" + quoted(self._new_nonce().encode("ascii")))
        # The answer's content is not known yet, so auth-int gets no proof.
        if self._settings.rspauth and said.get("qop") == "auth":
            proof = self._site.accounts.compute(
                user, lambda password: self._response(said, password, b"", b"")
            )
            params += [
                b"qop=auth",
                b"rspauth=" + quoted((proof or "").encode("ascii")),
                b"cnonce=" + quoted(said["cnonce"].encode("latin-1")),
                b"nc=" + said["nc"].encode("ascii"),
            ]
        if not params:
            return ()
        return ((self._site.role.info_field, b", ".join(params)),)


def _decode(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode("latin-1")
