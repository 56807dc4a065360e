"""The access log: a line for each request, without queries, userinfo or fields."""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from coda_twisted.http1.targets import Form

if TYPE_CHECKING:
    from coda_twisted.http1.heads import RequestHead
    from coda_twisted.http1.targets import Target
    from coda_twisted.service.pages import Problem

__all__ = ["AccessLog", "Entry"]


class Entry(NamedTuple):
    """
    What is known of a request before it has ended; all that a tunnel keeps of its own.

    :ivar client: Its address and port.
    :ivar target: As it is shown.
    :ivar status: 0 if there was no answer.
    :ivar began: By the clock.
    """

    request_id: str
    client: str
    method: str
    target: str
    status: int
    began: float


class AccessLog:
    """
    Write it.

    :param queries: Whether to show what is behind a ``?``.
    """

    log = Logger()

    def __init__(self, clock: IReactorTime, *, queries: bool = False) -> None:
        self._clock = clock
        self._queries = queries

    def entry(
        self,
        request_id: str,
        client: str,
        head: RequestHead,
        target: Target | None,
        status: int,
        began: float,
    ) -> Entry:
        """Take down what will be written once the request has ended."""
        # Interned, for there may be ten thousand tunnels that wait for their end.
        method = intern(head.method.decode("ascii"))
        shown = _shown(head, target, queries=self._queries)
        return Entry(request_id, client, method, shown, status, began)

    def ended(self, entry: Entry, octets: int, note: str = "") -> None:
        """
        Write a request's line.

        :param octets: Of content, or through the tunnel both ways.
        :param note: What was out of the ordinary.
        """
        request_id, client, method, target, status, began = entry
        seconds = self._clock.seconds() - began
        line = (
            f"{request_id} {client} {method} {target} {status or '-'} {octets} "
            f"{seconds:.3f}s{f' ({_printable(note)})' if note else ''}"
        )
        # Formatted here, for twisted.logger takes twice as long to fit in each field.
        # The fields are there for observers that want them.
        self.log.info(
            "{line}",
            line=line,
            id=request_id,
            client=client,
            method=method,
            target=target,
            status=status,
            octets=octets,
            seconds=seconds,
            note=note,
        )

    def refused(self, request_id: str, client: str, problem: Problem) -> None:
        """Write a line for what never became a request."""
        self.log.info(
            "{id} {client} - - {status} ({note})",
            id=request_id,
            client=client,
            status=problem.status,
            note=problem.what,
        )


def _shown(head: RequestHead, target: Target | None, *, queries: bool) -> str:
    """Write a request-target for people; one that could not be read is not shown."""
    if target is None:
        return "-"
    if target.form is Form.ABSOLUTE:
        text = head.target.decode("ascii")
    else:
        text = target.path.decode("ascii")
    return text if queries else text.partition("?")[0]


def _printable(text: str) -> str:
    """Take out what others have put in to move a terminal's cursor."""
    return "".join(char if char.isprintable() else "?" for char in text)
