"""Squid's access log, as these tests have it written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["LOG_FORMAT", "LogLine", "read_lines"]

# One JSON object a line.  All values are strings, for squid writes "-" and "000".
LOG_FORMAT = (
    'logformat coda { "time": "%ts.%03tu", "client": "%>a:%>p", "method": "%"rm",'
    ' "target": "%">ru", "status": "%>Hs", "outcome": "%Ss", "user": "%"un",'
    ' "sent": "%<st", "answer": "%"{Proxy-Authorization}>h",'
    ' "challenge": "%"{Proxy-Authenticate}<h", "origin_answer": "%"{Authorization}>h" }'
)


@dataclass(frozen=True)
class LogLine:
    """
    One request, as squid logged it when it had been answered.

    :ivar client: ``address:port`` of the client's end of the connection.
    :ivar target: The URL, or ``host:port`` for CONNECT.
    :ivar status: The status code sent to the client; 0 for none.
    :ivar outcome: Squid's word: ``TCP_MISS``, ``TCP_TUNNEL``, ``TCP_DENIED``...
    :ivar user: Who squid took them for; ``-`` for nobody.
    :ivar sent: Octets sent to the client.
    :ivar answer: The Proxy-Authorization field, or ``""``.
    :ivar stale: Whether squid asked again for a Digest nonce's age alone.
    :ivar origin_answer: The Authorization field, or ``""``.
    """

    time: float
    client: str
    method: str
    target: str
    status: int
    outcome: str
    user: str
    sent: int
    answer: str
    stale: bool
    origin_answer: str

    @property
    def judged_scheme(self) -> str:
        """The auth-scheme that this status judges, in lower case, or ``""``."""
        answer = self.origin_answer if self.status == 401 else self.answer
        return answer.partition(" ")[0].lower()


def read_lines(lines: Iterable[str]) -> list[LogLine]:
    """The requests in lines of squid's access log."""
    return [parsed for line in lines if (parsed := _parse(line)) is not None]


def _parse(line: str) -> LogLine | None:
    values = json.loads(line)
    answers = {
        name: "" if values[name] == "-" else values[name]
        for name in ("answer", "origin_answer")
    }
    # A connection closed before a request, as when we waited for the port.
    if values["method"] == "-" or values["target"].startswith("error:"):
        return None
    return LogLine(
        time=float(values["time"]),
        client=values["client"],
        method=values["method"],
        target=values["target"],
        status=int(values["status"]),
        outcome=values["outcome"],
        user=values["user"],
        sent=int(values["sent"]),
        stale="stale=true" in values["challenge"],
        **answers,
    )
