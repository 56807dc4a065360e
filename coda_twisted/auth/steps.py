"""
The words in which a conversation and whoever drives it speak.

A driver owns the connection.  It asks a layer what to do, does it, and reports
what came of it; neither conversation nor layer touches a socket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

__all__ = [
    "AuthRequest",
    "GiveUp",
    "Peer",
    "Proceed",
    "Reply",
    "Role",
    "Step",
    "Work",
]


class Role(Enum):
    """Who challenges us: the status code and the field names follow from it."""

    ORIGIN = (401, b"WWW-Authenticate", b"Authorization", b"Authentication-Info")
    PROXY = (
        407,
        b"Proxy-Authenticate",
        b"Proxy-Authorization",
        b"Proxy-Authentication-Info",
    )

    def __init__(
        self, status: int, challenge: bytes, credentials: bytes, info: bytes
    ) -> None:
        self.status = status
        self.challenge_field = challenge
        self.credentials_field = credentials
        self.info_field = info

    # A role is part of keys that are looked up for every request; Enum's own way,
    # to hash its name, is ten times as slow.
    __hash__ = object.__hash__


class Peer(NamedTuple):
    """
    One proxy or origin server: what credentials are chosen and remembered for.

    :ivar role: What it is to us.
    :ivar scheme: ``http`` or ``https``: whether the way to it is protected.
    :ivar host: Its name or address, lower case, IPv6 without brackets.
    :ivar port: Its TCP port.
    """

    role: Role
    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """Name it for people, as errors and logs do."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.role.name.lower()} {self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """
    What a conversation may need to know of the request it speaks for.

    :ivar method: The method, as sent.
    :ivar target: The request-target exactly as on the request line.
    :ivar path: Its origin-form; the same as *target* for authority-form.
    :ivar content: The whole content where it is at hand, ``b""`` where there is
        none, ``None`` where it is streamed (Digest's auth-int needs it).
    :ivar content_type: The Content-Type field (OAuth 1.0a signs forms).
    :ivar host: The Host field (OAuth 1.0a signs it).
    """

    method: bytes
    target: bytes
    path: bytes
    content: bytes | None = b""
    content_type: bytes = b""
    host: bytes = b""


@dataclass(frozen=True, slots=True)
class Proceed:
    """Send the request without credentials of this layer."""


@dataclass(frozen=True, slots=True, repr=False)
class Reply:
    """
    Send the request with this value in the role's credentials field.

    :ivar value: The field's value: scheme and token or parameters.
    :ivar send_body: Whether this may be the last leg; ``False`` for a leg that
        is bound to be challenged, which carries no content.
    :ivar logon: Whether the peer will judge our secret in the course of this
        conversation, so that a refusal costs a failed logon.
    :ivar bound: Whether the conversation goes on: the next leg must travel on
        this very connection.
    """

    value: bytes
    send_body: bool = True
    logon: bool = True
    bound: bool = False

    def __repr__(self) -> str:
        """Tell the scheme and the length, never the token."""
        scheme, _, token = self.value.partition(b" ")
        return (
            f"Reply({scheme.decode('latin-1')} [{len(token)} octets], "
            f"send_body={self.send_body})"
        )


@dataclass(frozen=True, slots=True)
class Work:
    """
    Run this outside the reactor thread, then report what came of it.

    :ivar run: Takes nothing; its result goes to ``worked``, its exception to
        ``failed``.
    :ivar logon: As in :class:`Reply`: the work itself may cost a logon (a
        ticket asked of a KDC with a password).
    :ivar timeout: Seconds after which to give up waiting.
    :ivar blocks: ``False`` where it waits for nothing and takes less time than a
        thread takes to be woken: it may be run where it stands.
    """

    run: Callable[[], Any]
    logon: bool = True
    timeout: float = 30.0
    blocks: bool = True


@dataclass(frozen=True, slots=True)
class GiveUp:
    """
    There is nothing (more) to say to this peer.

    :ivar reason: Why, in words that say what to do.
    :ivar rejected: Whether the peer judged our secret and refused it: then it
        must not be sent again.  ``False`` for policy, missing parts and peers
        that break the rules.
    :ivar scheme: The auth-scheme concerned, where there is one.
    :ivar realm: The realm concerned, where there is one.
    """

    reason: str
    rejected: bool = False
    scheme: str | None = None
    realm: str | None = None


Step = Proceed | Reply | Work | GiveUp
