"""Which challenges may be answered, and in which order."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coda_twisted.auth.steps import Peer, Role

if TYPE_CHECKING:
    from coda_twisted.auth.challenge import Challenge

__all__ = ["AuthPolicy", "rank", "strength"]

_DIGESTS = {"MD5": 2, "SHA-256": 4, "SHA-512-256": 5}

_STRENGTHS = {"basic": 0, "ntlm": 3, "negotiate": 6}
"""
NTLMv2 stands above Digest with MD5 and below Digest with SHA-256.

It proves the password by HMAC-MD5 over fresh challenges of both sides, and may be
bound to the TLS connection; what it keeps at the server is worth a password.
"""

_OTHER = 1
"""Schemes of a user's own credentials: above Basic, which anybody can ask for."""


@dataclass(frozen=True, slots=True)
class AuthPolicy:
    """
    What is acceptable; the same for every peer of a client.

    :ivar schemes: The auth-schemes that may be spoken, in lower case.  Their order
        means nothing: see :func:`rank`.
    :ivar allow_basic_over_cleartext: Whether Basic may be spoken without TLS.
        ``None`` allows it to proxies, most of which are reached no other way, and
        not to origin servers.
    :ivar allow_ntlm_in_negotiate: Whether NTLM may be spoken under the name of
        Negotiate where there is no Kerberos.
    :ivar allow_downgrade: Whether Basic may be spoken to a peer that once offered
        something stronger that we can speak.
    :ivar min_digest: The weakest acceptable algorithm of Digest: ``MD5``,
        ``SHA-256`` or ``SHA-512-256``.
    :ivar max_auth_int: Octets of content that Digest may hash before they are sent,
        where a peer offers ``qop=auth-int`` only.
    :ivar tunnel_cleartext: Whether a tunnel may be asked for to an http origin that
        authenticates connections, where the proxy does not keep connections apart.
    :ivar mutual: Whether a peer that we authenticate to by Negotiate or Digest must
        prove itself in turn: ``verify`` what it sends, ``require`` it, or ``off``.
    """

    schemes: tuple[str, ...] = (
        "negotiate",
        "digest",
        "ntlm",
        "basic",
        "bearer",
        "oauth",
    )
    allow_basic_over_cleartext: bool | None = None
    allow_ntlm_in_negotiate: bool = False
    allow_downgrade: bool = False
    min_digest: str = "MD5"
    max_auth_int: int = 1024 * 1024
    tunnel_cleartext: bool = True
    mutual: str = "verify"

    def __post_init__(self) -> None:
        """Refuse what would otherwise go unnoticed until a logon fails."""
        if isinstance(self.schemes, str) or any(
            not scheme or scheme != scheme.lower() for scheme in self.schemes
        ):
            raise ValueError("schemes: a tuple of names in lower case is needed")
        if self.min_digest not in _DIGESTS:
            raise ValueError(f"min_digest: one of {', '.join(_DIGESTS)} is needed")
        if self.mutual not in ("verify", "require", "off"):
            raise ValueError("mutual: one of verify, require, off is needed")

    def basic_allowed(self, peer: Peer) -> bool:
        """Say whether *peer* may see a password."""
        if peer.scheme == "https":
            return True
        if self.allow_basic_over_cleartext is None:
            return peer.role is Role.PROXY
        return self.allow_basic_over_cleartext


def strength(challenge: Challenge) -> int | None:
    """
    Say how strong what a challenge asks for is.

    Strongest first: Negotiate, Digest with SHA-512-256, Digest with SHA-256, NTLM,
    Digest with MD5, other schemes, Basic.

    :returns: More is stronger; ``None`` for a Digest algorithm that nobody here
        knows.
    """
    if challenge.key == "digest":
        algorithm = challenge.params.get("algorithm", "MD5").upper()
        return _DIGESTS.get(algorithm.removesuffix("-SESS"))
    return _STRENGTHS.get(challenge.key, _OTHER)


def rank(
    challenges: Iterable[Challenge],
    peer: Peer,
    policy: AuthPolicy,
    speakable: Collection[str],
    strongest: int = 0,
) -> tuple[list[Challenge], list[tuple[str, str]]]:
    """
    Put the challenges that may be answered in order, and say what is wrong with
    the others.

    :param speakable: The schemes for which there are credentials, in lower case.
    :param strongest: The greatest :func:`strength` that the peer is remembered to
        have offered.
    :returns: Challenges, the strongest first and otherwise in the peer's order;
        and scheme and reason for each refused one.
    """
    usable: list[tuple[int, Challenge]] = []
    refusals: list[tuple[str, str]] = []
    for challenge in challenges:
        how_strong = strength(challenge)
        reason = _objection(challenge, how_strong, peer, policy, speakable)
        if reason is None:
            assert how_strong is not None
            usable.append((how_strong, challenge))
        else:
            refusals.append((challenge.scheme, reason))
    best = max((how_strong for how_strong, _ in usable), default=0)
    if best == _STRENGTHS["basic"] < strongest and not policy.allow_downgrade:
        refusals.extend((challenge.scheme, _DOWNGRADE) for _, challenge in usable)
        return [], refusals
    # What had to be guessed at comes last among equals.
    usable.sort(key=lambda each: (-each[0], each[1].malformed))
    return [challenge for _, challenge in usable], refusals


_DOWNGRADE = (
    "the peer used to offer something stronger; the password is not sent in clear "
    "(policy: allow_downgrade)"
)


def _objection(
    challenge: Challenge,
    how_strong: int | None,
    peer: Peer,
    policy: AuthPolicy,
    speakable: Collection[str],
) -> str | None:
    key = challenge.key
    if key not in speakable:
        return "the credentials cannot speak it"
    if key not in policy.schemes:
        return "not allowed by policy"
    if how_strong is None:
        return "its algorithm is not known here"
    if key == "digest" and how_strong < _DIGESTS[policy.min_digest]:
        return f"its algorithm is weaker than {policy.min_digest} (policy: min_digest)"
    if key == "basic" and not policy.basic_allowed(peer):
        return (
            "the password would cross the network in clear "
            "(policy: allow_basic_over_cleartext)"
        )
    return None
