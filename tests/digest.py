"""What tests of the Digest scheme share: requests, and a peer's arithmetic."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count

from coda_twisted.auth.challenge import Challenge
from coda_twisted.auth.digest import DigestConversation
from coda_twisted.auth.layer import Context
from coda_twisted.auth.memory import SpaceMemory
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import AuthRequest, Peer, Proceed, Reply, Role, Step
from coda_twisted.testing.digest_fields import HASHES, hashed, response

__all__ = [
    "DIRECT",
    "HASHES",
    "ORIGIN",
    "PLAIN",
    "PROXY",
    "TUNNEL",
    "challenge",
    "counting",
    "fields_of",
    "hashed",
    "proven",
    "response",
    "talk",
]

PROXY = Peer(Role.PROXY, "http", "proxy.example", 3128)
ORIGIN = Peer(Role.ORIGIN, "http", "www.example", 80)

PLAIN = AuthRequest(b"GET", b"http://www.example/a?b=c", b"/a?b=c")
TUNNEL = AuthRequest(b"CONNECT", b"www.example:443", b"www.example:443")
DIRECT = AuthRequest(b"GET", b"/a?b=c", b"/a?b=c")

PARAMETER = re.compile(rb'([a-z]+\*?)=(?:"((?:[^"\\]|\\.)*)"|([^",]*))(?:, |$)')


def fields_of(step: Step) -> dict[str, str]:
    """Read credentials as a server does; quoted or not as RFC 7616 3.4 says."""
    assert isinstance(step, Reply), step
    scheme, _, rest = step.value.partition(b" ")
    assert scheme == b"Digest"
    fields = {}
    end = 0
    for match in PARAMETER.finditer(rest):
        assert match.start() == end, rest
        end = match.end()
        name, quoted, bare = match.groups()
        is_bare = name in (b"algorithm", b"nc", b"qop", b"userhash", b"username*")
        assert is_bare == (quoted is None), name
        value = bare if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted)
        fields[name.decode()] = value.decode("latin-1")
    assert end == len(rest), rest
    return fields


def challenge(
    nonce: str = "n1",
    *,
    realm: str = "r",
    qop: str | None = "auth",
    **more: str,
) -> Challenge:
    params = {"realm": realm, "nonce": nonce, **more}
    if qop is not None:
        params["qop"] = qop
    return Challenge("Digest", params=params)


def counting() -> Callable[[int], bytes]:
    """Make random octets that are none, and differ each time."""
    numbers = count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def talk(
    peer: Peer = PROXY,
    memory: SpaceMemory | None = None,
    *,
    username: str = "Mufasa",
    password: str = "Circle of Life",
    realm: str | None = None,
    policy: AuthPolicy | None = None,
    entropy: Callable[[int], bytes] | None = None,
) -> DigestConversation:
    context = Context(
        policy=policy or AuthPolicy(),
        memory=memory or SpaceMemory(),
        channel_bindings=None,
        entropy=entropy or counting(),
    )
    return DigestConversation(username, password, realm, peer, context)


def proven(
    *requests: AuthRequest, peer: Peer = PROXY, **more: str
) -> tuple[DigestConversation, SpaceMemory]:
    """Begin where the peer has accepted *requests*, with the nonce ``n1``."""
    memory = SpaceMemory()
    digest = talk(peer, memory)
    for request in requests:
        if isinstance(digest.first(request), Proceed):
            digest.challenged(challenge(**more), request)
        digest.accepted(None, None)
    return digest, memory
