"""What the end of a connection means for those who wait for something of it."""

from __future__ import annotations

from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure

from coda_twisted.errors import CodaError, ConnectionEnded

__all__ = ["lost_handshake", "lost_request"]


def lost_request(reason: Failure | None, *, answered: bool) -> Failure:
    """Turn a transport's words into what it means for the request."""
    if reason is not None and reason.check(CodaError):
        return reason
    error = ConnectionEnded(
        "the connection ended in the middle of the answer"
        if answered
        else "the connection ended before any answer came",
        answered=answered,
    )
    if reason is not None:
        error.__cause__ = reason.value
    return Failure(error)


def lost_handshake(reason: Failure | None) -> Failure:
    """
    Say why there is no TLS; a certificate that did not verify is told as it is.

    Twisted has one ConnectionLost for all connections.  If that were raised, it would
    keep every traceback, and so every connection, for ever.
    """
    if reason is not None and not reason.check(ConnectionClosed):
        return reason
    error = ConnectionEnded(
        "the connection ended before TLS was set up", answered=False
    )
    if reason is not None:
        error.__cause__ = reason.value
    return Failure(error)
