"""What a fake server answers, and what it remembers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred

from coda_twisted.testing.verdicts import Received

__all__ = ["Answer", "Exchange", "Handler", "answer_of", "hello"]


@dataclass(frozen=True, slots=True)
class Answer:
    """
    A whole answer.

    :ivar fields: Framing fields are added.
    :ivar reason: The reason phrase; one that fits by default.
    """

    status: int = 200
    fields: Iterable[tuple[bytes, bytes]] = ()
    body: bytes = b""
    reason: bytes | None = None


PlainAnswer = Answer | tuple[int, Iterable[tuple[bytes, bytes]], bytes]
Handler = Callable[[Received], PlainAnswer | Deferred[Any] | Awaitable[Any]]
"""
Answers requests, with an :class:`Answer` or with status, fields and body, now or
later.
"""


@dataclass(slots=True)
class Exchange:
    """
    One request, and what became of it.

    :ivar scheme: The auth-scheme of its credentials; ``""`` where it has none.
    :ivar user: Whom it was found to be from; ``None`` for a request that was
        challenged.
    :ivar why: What was found wrong with it, in words; ``""`` for nothing.
    :ivar status: Of the answer; ``None`` before, and where there was none.
    """

    request: Received
    scheme: str = ""
    user: str | None = None
    why: str = ""
    status: int | None = field(default=None)


def hello(request: Received) -> Answer:
    """Answer as an origin server does that has nothing to say."""
    text = f"hello {request.user}\n".encode()
    return Answer(200, [(b"Content-Type", b"text/plain; charset=utf-8")], text)


async def answer_of(handler: Handler, request: Received) -> Answer:
    """Ask a handler."""
    given: Any = handler(request)
    if isinstance(given, Deferred) or hasattr(given, "__await__"):
        given = await given
    return given if isinstance(given, Answer) else Answer(*given)
