"""
What was learnt of a peer, for all the connections to it.

None of it is needed to authenticate: it saves round trips, and it notices when a
peer asks for less than it used to.  There is no clock in it, and no secret.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coda_twisted.auth.challenge import Challenge
    from coda_twisted.auth.steps import Peer

__all__ = ["Memories", "Nonce", "Quirk", "SpaceMemory"]

MAX_NONCES = 32
"""
Digest nonces remembered for one peer.

One for each realm is of use; the rest are those of answers that are under way, as
many as a browser opens connections to one proxy.
"""

MAX_SPACES = 1024
"""Peers and identities remembered; a page of news names a hundred hosts."""

LAST_COUNT = 0xFFFFFFFF
"""The nonce count has eight hexadecimal digits (RFC 7616 3.4)."""


class Quirk(Enum):
    """
    What a peer was found to accept.

    Either of these, once known, settles which digest-uri a proxy wants for a
    request in absolute-form.
    """

    ORIGIN_FORM_URI = auto()
    ABSOLUTE_FORM_URI = auto()


class Nonce:
    """
    One of a Digest peer's nonces, and how often it was used (RFC 7616 3.4).

    :ivar challenge: The challenge it came with, or, for a nextnonce, the one that
        began the session.
    :ivar value: The nonce.
    :ivar count: How many requests were sent with it, on all connections.
    :ivar cnonce: The client's nonce for the whole session, where the algorithm is
        one of those with ``-sess``.
    :ivar proven: Whether the peer has accepted an answer made with it, or given it
        to us when it accepted one.
    """

    __slots__ = ("challenge", "cnonce", "count", "proven", "value")

    def __init__(self, challenge: Challenge, value: str) -> None:
        self.challenge = challenge
        self.value = value
        self.count = 0
        self.cnonce: bytes | None = None
        self.proven = False

    def __repr__(self) -> str:
        return f"<Nonce used {self.count} times, proven={self.proven}>"

    @property
    def exhausted(self) -> bool:
        """Whether no further request may use it."""
        return self.count >= LAST_COUNT

    def use(self) -> int:
        """Count one more request that is about to be sent."""
        self.count += 1
        return self.count

    def session_cnonce(self, cnonce: bytes) -> bytes:
        """
        Get the client's nonce of the session, which is *cnonce* if none was set.

        RFC 7616 3.4.2: with -sess, A1 holds the first one that was sent, and is what
        the server keeps.
        """
        if self.cnonce is None:
            self.cnonce = cnonce
        return self.cnonce


class SpaceMemory:
    """
    What one peer is to one identity (RFC 9110 11.5: a protection space).

    A plain object, shared by all connections to the peer that authenticate as this
    identity; whoever learns something writes it down.

    :ivar scheme: The auth-scheme that worked last, in lower case.
    :ivar realm: The realm it worked in.
    :ivar per_request: Whether the peer wants connection-bound schemes to
        authenticate every request.
    :ivar strongest: The rank of the best challenge ever seen; 0 before any.
    :ivar proven: Whether Digest has worked here with the secret in use.
    :ivar quirks: What the peer was found to accept.
    :ivar keepers: The proxies that keep a connection to this peer for one client, so
        that it may be authenticated through them.
    :ivar needs_tunnel: Whether the peer authenticates connections and was reached
        through a proxy that does not.
    :ivar fingerprint: Whose secret that was, as credentials tell it.
    """

    __slots__ = (
        "_nonces",
        "fingerprint",
        "keepers",
        "needs_tunnel",
        "per_request",
        "proven",
        "quirks",
        "realm",
        "scheme",
        "strongest",
    )

    def __init__(self) -> None:
        self.scheme: str | None = None
        self.realm: str | None = None
        self.per_request = False
        self.strongest = 0
        self.proven = False
        self.quirks: set[Quirk] = set()
        self.keepers: set[Hashable] = set()
        self.needs_tunnel = False
        self.fingerprint: Hashable = None
        self._nonces: OrderedDict[tuple[str | None, str], Nonce] = OrderedDict()

    def __repr__(self) -> str:
        return (
            f"<SpaceMemory scheme={self.scheme!r} realm={self.realm!r} "
            f"per_request={self.per_request} nonces={len(self._nonces)}>"
        )

    def nonce(self, challenge: Challenge, value: str) -> Nonce:
        """
        Get what is known of a Digest nonce; the same object for the same nonce.

        So requests on several connections count up together: nc is "the hexadecimal
        count of the number of requests (including the current request) that the
        client has sent with the nonce value in this request" (RFC 7616 3.4).

        :param challenge: The challenge it belongs to.
        """
        key = (challenge.realm, value)
        known = self._nonces.get(key)
        if known is None:
            known = self._nonces[key] = Nonce(challenge, value)
            if len(self._nonces) > MAX_NONCES:
                self._nonces.popitem(last=False)
        else:
            known.challenge = challenge
            self._nonces.move_to_end(key)
        return known

    def proven_nonces(self) -> Iterator[Nonce]:
        """Name the nonces that can be used unasked, the latest first."""
        return (
            nonce
            for nonce in reversed(self._nonces.values())
            if nonce.proven and not nonce.exhausted
        )

    def drop(self, nonce: Nonce) -> None:
        """Forget a nonce that the peer no longer takes."""
        self._nonces.pop((nonce.challenge.realm, nonce.value), None)

    def secret_refused(self) -> None:
        """Forget all that says the secret is good."""
        self.proven = False
        self._nonces.clear()

    def forget(self) -> None:
        """
        Forget how to authenticate here, and begin as with a stranger.

        :attr:`strongest` stays, or a peer could have the downgrade check forgotten
        by refusing once.
        """
        self.secret_refused()
        self.scheme = None
        self.realm = None
        self.per_request = False
        self.quirks.clear()


class Memories:
    """
    The memories of all peers and identities.

    :param limit: How many to keep; those not asked for longest are forgotten.
    """

    def __init__(self, limit: int = MAX_SPACES) -> None:
        self._limit = limit
        self._spaces: OrderedDict[tuple[Peer, Hashable], SpaceMemory] = OrderedDict()

    def __len__(self) -> int:
        return len(self._spaces)

    def of(
        self, peer: Peer, identity: Hashable, fingerprint: Hashable = None
    ) -> SpaceMemory:
        """
        Get the memory of *peer* for *identity*; a new one if there is none.

        :param fingerprint: That of the identity's secret: when it has changed,
            what the former secret proved is forgotten.
        """
        key = (peer, identity)
        memory = self._spaces.get(key)
        if memory is None:
            memory = self._spaces[key] = SpaceMemory()
            if len(self._spaces) > self._limit:
                self._spaces.popitem(last=False)
        else:
            self._spaces.move_to_end(key)
        if memory.fingerprint != fingerprint:
            memory.secret_refused()
            memory.fingerprint = fingerprint
        return memory
