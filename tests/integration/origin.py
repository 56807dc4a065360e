"""An origin server that does what the path asks, and remembers every request."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.integration.certificates import authority, server_certificate
from tests.integration.origin_server import BANNER, octets
from tests.integration.servers import (
    GrowingLog,
    ServerProcess,
    clean_environment,
    free_port,
    has_ipv6,
    workspace,
)

__all__ = [
    "BANNER",
    "Origin",
    "Received",
    "content",
    "origin",
    "read_received",
    "sha256_of",
]


@dataclass(frozen=True)
class Received:
    """
    One request as it came in.

    :ivar target: The request-target, verbatim.
    :ivar fields: Name and value of each field line, in order, as written.
    :ivar connection: Which connection of the server's it came on, and as which
        request on it: *number* begins at 1.
    :ivar tls: The version of TLS, or ``None``.
    :ivar certificate: The common name on the client's certificate, or ``None``.
    :ivar length: Octets of content, without framing.
    :ivar complete: Whether all of the content came.
    """

    method: str
    target: str
    version: str
    fields: list[tuple[str, str]]
    connection: int
    number: int
    client: str
    tls: str | None
    certificate: str | None
    chunked: bool
    length: int
    sha256: str
    trailers: list[tuple[str, str]]
    complete: bool

    def get(self, name: str) -> str | None:
        """All values of a field, joined by commas; ``None`` if it is not there."""
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        return ", ".join(values) if values else None


class Origin(ServerProcess):
    """
    The origin server, on an http, an https and a raw port of both loopbacks.

    What each path does is told in :mod:`tests.integration.origin_server`.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.tls_port = free_port()
        self.raw_port = free_port()
        self.log = GrowingLog(workspace() / f"origin-{self.port}.jsonl", delay=0)
        certificate = server_certificate()
        command = [
            *(sys.executable, str(Path(__file__).with_name("origin_server.py"))),
            *("--host", "127.0.0.1"),
            *(("--host", "::1") if has_ipv6() else ()),
            *("--port", str(self.port), "--tls-port", str(self.tls_port)),
            *("--raw-port", str(self.raw_port), "--log", str(self.log.path)),
            *("--chain", str(certificate.chain), "--key", str(certificate.key)),
            *("--ca", str(authority().ca)),
        ]
        ports = [self.port, self.tls_port, self.raw_port]
        super().__init__("origin", command, ports, clean_environment())

    def url(self, path: str = "/echo", host: str = "localhost") -> str:
        """An http URL here."""
        return f"http://{host}:{self.port}{path}"

    def tls_url(self, path: str = "/echo", host: str = "localhost") -> str:
        """An https URL here."""
        return f"https://{host}:{self.tls_port}{path}"

    def reset(self) -> None:
        """Forget the requests so far."""
        self.log.reset()

    def requests(self) -> list[Received]:
        """
        The requests since the last reset.

        Each is written when its content has come, or has been cut short, and
        before it is answered.
        """
        return [read_received(json.loads(line)) for line in self.log.lines()]


def read_received(facts: dict[str, object]) -> Received:
    """Read what the program wrote of one request; *facts* is used up."""
    for name in ("fields", "trailers"):
        facts[name] = [tuple(pair) for pair in facts[name]]  # type: ignore[attr-defined]
    return Received(**facts)  # type: ignore[arg-type]


def content(size: int) -> bytes:
    """What ``/octets/size`` and its like send; good to be sent, too."""
    return b"".join(octets(size))


@functools.cache
def sha256_of(size: int) -> str:
    """The hash of :func:`content`."""
    digest = hashlib.sha256()
    for piece in octets(size):
        digest.update(piece)
    return digest.hexdigest()


@functools.cache
def origin() -> Origin:
    """The running origin server that all tests share."""
    shared = Origin()
    shared.start()
    return shared
