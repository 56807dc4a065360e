"""How long the service waits for its clients, and for what goes through its tunnels."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HALF_CLOSED_LIMIT", "Limits"]

HALF_CLOSED_LIMIT = 60.0
"""Seconds of silence after which a half-closed tunnel is dropped; Squid's is 0."""


@dataclass(frozen=True, slots=True)
class Limits:
    """
    Limits in seconds; ``None`` waits for ever.

    What the next server may take is in :class:`coda_twisted.client.timeouts.Timeouts`.

    :ivar head: For a request's head, from its first octet; Squid allows 30,
        HAProxy's guides 10.
    :ivar content: Without an octet of a request's content while we want it; Squid's
        read_timeout is 15 minutes, nginx's client_body_timeout 60 s.
    :ivar answer: Without an octet of an answer taken while some of it waits to be
        written; nginx's send_timeout is 60 s.  Where the kernel tells what it still
        holds, a client is looked at once in this time, and is dropped when it has
        taken nothing since the look before.
    :ivar keep_alive: For which a connection without a request is kept.
    :ivar linger: For which we read away what a client sends after we have said no to
        it.  Closing at once would have TCP reset the connection, and the client might
        never see the answer (RFC 9112 9.6).  nginx's lingering_timeout is the same.
    :ivar tunnel: Without an octet in either direction of a tunnel.  Not by default:
        many are silent for hours, and keep-alive finds dead peers.
    :ivar half_closed: The same, in a tunnel of which one half has ended.
    """

    head: float | None = 10.0
    content: float | None = 300.0
    answer: float | None = 300.0
    keep_alive: float | None = 60.0
    linger: float = 5.0
    tunnel: float | None = None
    half_closed: float | None = HALF_CLOSED_LIMIT
