"""Several sources, one after the other."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import implementer

from coda_twisted.auth.steps import Peer
from coda_twisted.interfaces import ICredentials, ICredentialSource
from coda_twisted.sources.spaces import Found

__all__ = ["SourceChain"]


@implementer(ICredentialSource)
class SourceChain:
    """
    The first of several sources that has something to say to a peer.

    One that fails is not passed over: whoever comes after it would be somebody
    else than was meant.
    """

    def __init__(self, *sources: ICredentialSource) -> None:
        self._sources = sources

    def __repr__(self) -> str:
        return f"SourceChain({', '.join(map(repr, self._sources))})"

    def credentials_for(self, peer: Peer) -> Found:
        """Ask one source after the other; wait only where one has to."""
        for index, source in enumerate(self._sources):
            found: Found = source.credentials_for(peer)
            if isinstance(found, Deferred):
                rest = SourceChain(*self._sources[index + 1 :])
                return Deferred.fromCoroutine(_first(found, rest, peer))
            if found is not None:
                return found
        return None


async def _first(
    asked: Deferred[ICredentials | None], rest: SourceChain, peer: Peer
) -> ICredentials | None:
    answer = await asked
    if answer is not None:
        return answer
    found = rest.credentials_for(peer)
    return await found if isinstance(found, Deferred) else found
