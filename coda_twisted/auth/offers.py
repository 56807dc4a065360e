"""What a peer offers, put in order, without what has failed already."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

from coda_twisted.auth.challenge import Challenge
from coda_twisted.auth.memory import SpaceMemory
from coda_twisted.auth.policy import AuthPolicy, rank, strength
from coda_twisted.auth.steps import Peer

__all__ = ["CONNECTION_BOUND", "NOT_KEPT", "Offer", "Offers", "offer_of"]

MAX_REFUSALS = 16
"""Reasons that are told; a head of 64 KiB holds thousands of challenges."""

CONNECTION_BOUND = frozenset(("ntlm", "negotiate"))
"""Schemes that may authenticate a connection, and not a request."""

NOT_KEPT = (
    "the proxy does not say that it keeps connections apart (Proxy-Support), and "
    "others could use the authenticated one"
)

Offer = tuple[str, str, str | None]
"""What can fail by itself: the scheme; of Digest also the algorithm and the realm."""


def offer_of(challenge: Challenge) -> Offer:
    """Name what a challenge offers."""
    if challenge.key != "digest":
        return (challenge.key, "", None)
    algorithm = challenge.params.get("algorithm", "").upper()
    return (challenge.key, algorithm, challenge.realm)


class Offers:
    """
    One peer's offers to one connection.

    :param speakable: Names the schemes for which there are credentials.
    :param via: The proxy that forwards what is said to the peer, if one does.
    :ivar listed: The challenges of the last answer that named all of them.
    :ivar refusals: Scheme and reason for each challenge that :meth:`candidates`
        has passed over.
    """

    def __init__(
        self,
        peer: Peer,
        policy: AuthPolicy,
        memory: SpaceMemory,
        speakable: Callable[[], Sequence[str]],
        via: Hashable = None,
    ) -> None:
        self.listed: list[Challenge] = []
        self.refusals: list[tuple[str, str]] = []
        self._peer = peer
        self._policy = policy
        self._memory = memory
        self._speakable = speakable
        self._via = via
        self._dead: dict[Offer, str] = {}

    def bury(self, offer: Offer, reason: str) -> None:
        """Offer this no more."""
        self._dead[offer] = reason

    def inherit(self, former: Offers) -> None:
        """Bury what another connection to the peer has buried."""
        self._dead.update(former._dead)

    def may_begin_with(self, scheme: str) -> bool:
        """Say whether a scheme may be spoken unasked."""
        return (
            scheme in self._policy.schemes
            and scheme in self._speakable()
            and not self._is_unkept(scheme)
            and not any(scheme == offer[0] for offer in self._dead)
        )

    def candidates(self) -> Iterator[tuple[Offer, Challenge]]:
        """
        Name what may be answered, the best first.

        Whoever asks for the next one has buried the one before.
        """
        memory = self._memory
        # Where Basic is in use, refusing it would keep the password from nobody.
        strongest = 0 if memory.scheme == "basic" else memory.strongest
        usable, self.refusals = self._rank(self.listed, strongest)
        if usable:
            memory.strongest = max(memory.strongest, strength(usable[0]) or 0)
        for challenge in usable:
            offer = offer_of(challenge)
            if self._is_unkept(challenge.key):
                self.refusals.append((challenge.scheme, NOT_KEPT))
                continue
            if offer not in self._dead:
                yield offer, challenge
            self.refusals.append((challenge.scheme, self._dead[offer]))

    def _is_unkept(self, scheme: str) -> bool:
        """Say whether the proxy in between might share what *scheme* authenticates."""
        return (
            scheme in CONNECTION_BOUND
            and self._via is not None
            and self._via not in self._memory.keepers
        )

    def told_refusals(self) -> tuple[tuple[str, str], ...]:
        """List :attr:`refusals` for people: each once, and not too many."""
        return tuple(dict.fromkeys(self.refusals))[:MAX_REFUSALS]

    def following(
        self, offer: Offer, challenges: Iterable[Challenge]
    ) -> Challenge | None:
        """Choose the challenge that goes on with what is being spoken."""
        ours = [each for each in challenges if each.key == offer[0]]
        with_token = [each for each in ours if each.token68 is not None]
        ranked, _ = self._rank(with_token or ours, 0)
        same = [each for each in ranked if offer_of(each) == offer]
        return next(iter(same or ranked), None)

    def _rank(
        self, challenges: list[Challenge], strongest: int
    ) -> tuple[list[Challenge], list[tuple[str, str]]]:
        return rank(challenges, self._peer, self._policy, self._speakable(), strongest)
