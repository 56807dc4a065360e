"""
Credentials that somebody must be asked for: a person, a keyring, a program.

The answer is kept until a peer refuses it.  Who asks while an answer is awaited gets
the same one: fifty requests make one prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.components import proxyForInterface
from zope.interface import implementer

from coda_twisted.auth.steps import GiveUp, Peer, Step
from coda_twisted.errors import CredentialsRejected
from coda_twisted.interfaces import IAuthConversation, ICredentials, ICredentialSource
from coda_twisted.sources.spaces import (
    ANY_PROXY,
    Found,
    Spaces,
    as_credentials,
    as_spaces,
)

__all__ = ["AskedCredentials"]

PAUSE = 10.0
"""Seconds for which an answer that does not help stands."""

MAX_ANSWERS = 1024
"""Peers whose answers are kept."""

Ask = Callable[[Peer], Any]


@dataclass(slots=True)
class _Answer:
    """
    What was answered for one peer.

    :ivar expires: When it is asked for again; ``None`` for never.
    :ivar refused: The fingerprint of what the peer has refused.
    :ivar waiting: Who waits for the answer that is under way.
    """

    expires: float | None
    credentials: ICredentials | None = None
    refused: Hashable = None
    waiting: list[Deferred[ICredentials | None]] = field(default_factory=list)


@implementer(ICredentialSource)
class AskedCredentials:
    """
    Ask for credentials, and keep them until a peer refuses them.

    After a refusal the next request asks again.  An answer that does not help, which
    is none or what was just refused, stands for a few seconds; a person is not asked
    again for each of a page's images.

    What is asked, is asked before the peer has said that it wants credentials: name
    the *spaces* that do.

    :param clock: Reactor or clock.
    :param ask: Called with the peer.  Returns credentials, name and password, or
        ``None``; or a Deferred or a coroutine of one of them.
    :param spaces: For whom the answers are meant; every proxy by default.
    :param pause: For how many seconds an answer stands that does not help.
    """

    def __init__(
        self,
        clock: IReactorTime,
        ask: Ask,
        *,
        spaces: Spaces | Iterable[str] = ANY_PROXY,
        pause: float = PAUSE,
    ) -> None:
        self._clock = clock
        self._ask = ask
        self._spaces = as_spaces(spaces)
        self._pause = pause
        self._answers: dict[Peer, _Answer] = {}

    def __repr__(self) -> str:
        return f"AskedCredentials({self._spaces!r})"

    def credentials_for(self, peer: Peer) -> Found:
        """
        Ask, unless there is an answer.

        Cancelling the Deferred does not take the question back: others may wait for
        the answer, and it is kept.

        :returns: A Deferred where somebody was asked; it fails with what the
            question failed with.
        """
        return self._spaces.give(peer, self._find)

    def _find(self, peer: Peer) -> Found:
        answer = self._answers.get(peer)
        if answer is None:
            answer = self._answers[peer] = _Answer(expires=self._clock.seconds())
            self._forget_one()
        waiting: Deferred[ICredentials | None] = Deferred()
        if answer.waiting:
            answer.waiting.append(waiting)
        elif answer.expires is None or self._clock.seconds() < answer.expires:
            return answer.credentials
        else:
            answer.waiting.append(waiting)
            asked = maybeDeferred(self._ask, peer)
            asked.addCallback(self._keep, answer).addBoth(_tell, answer)
        return waiting

    def _keep(self, found: Any, answer: _Answer) -> ICredentials | None:
        credentials = None if found is None else as_credentials(found)
        helps = credentials is not None and credentials.fingerprint != answer.refused
        answer.expires = None if helps else self._clock.seconds() + self._pause
        answer.credentials = (
            None
            if credentials is None
            else _Watched(credentials, partial(self._refused, answer))
        )
        return answer.credentials

    def _refused(self, answer: _Answer, credentials: ICredentials) -> None:
        """Take note that a peer has refused this answer, if it is the latest."""
        if answer.credentials is credentials:
            answer.refused = credentials.fingerprint
            answer.expires = self._clock.seconds()

    def _forget_one(self) -> None:
        if len(self._answers) > MAX_ANSWERS:
            for peer, answer in self._answers.items():
                if not answer.waiting:
                    del self._answers[peer]
                    return


def _tell(result: Any, answer: _Answer) -> None:
    waiting, answer.waiting = answer.waiting, []
    for each in waiting:
        each.callback(result)  # which a Failure makes an errback


_CredentialsProxy: Any = proxyForInterface(ICredentials)
_ConversationProxy: Any = proxyForInterface(IAuthConversation)


class _Watched(_CredentialsProxy):  # type: ignore[misc]
    """Credentials that tell when a peer refuses them."""

    def __init__(
        self, credentials: ICredentials, refused: Callable[[ICredentials], None]
    ) -> None:
        super().__init__(credentials)
        self._refused = refused

    def __repr__(self) -> str:
        return repr(self.original)

    def conversation(self, scheme: str, peer: Peer, context: Any) -> IAuthConversation:
        conversation = self.original.conversation(scheme, peer, context)
        watched: IAuthConversation = _WatchedConversation(
            conversation, partial(self._refused, self)
        )
        return watched


class _WatchedConversation(_ConversationProxy):  # type: ignore[misc]
    """A conversation of theirs."""

    def __init__(
        self, conversation: IAuthConversation, refused: Callable[[], None]
    ) -> None:
        super().__init__(conversation)
        self._refused = refused

    def __repr__(self) -> str:
        return repr(self.original)

    def challenged(self, challenge: Any, request: Any) -> Step:
        return self._look(self.original.challenged, challenge, request)

    def worked(self, result: Any) -> Step:
        return self._look(self.original.worked, result)

    def failed(self, error: Exception) -> Step:
        return self._look(self.original.failed, error)

    def _look(self, say: Callable[..., Step], *arguments: Any) -> Step:
        try:
            step = say(*arguments)
        except CredentialsRejected:
            self._refused()
            raise
        if isinstance(step, GiveUp) and step.rejected:
            self._refused()
        return step
