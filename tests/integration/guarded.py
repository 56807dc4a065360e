"""An origin server that verifies what Apache cannot, and remembers every request."""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.integration.certificates import authority
from tests.integration.ntlm_helper import Logon
from tests.integration.origin import Received, read_received
from tests.integration.passwords import write_ntlm
from tests.integration.servers import (
    GrowingLog,
    ServerProcess,
    free_port,
    python_environment,
    workspace,
)
from tests.integration.tools import require_modules

__all__ = ["GuardedSite", "Judged", "site"]


@dataclass(frozen=True)
class Judged:
    """
    One request, and what became of it.

    :ivar verdict: ``asked`` who it is, in the middle of a handshake too;
        ``refused``; ``stale`` for a nonce's age alone; ``accepted``.
    :ivar user: Who it was said to be, or ``""``.
    """

    received: Received
    verdict: str
    user: str


class GuardedSite(ServerProcess):
    """
    The site, over http and https, and as one that somebody in between relays.

    What each query asks for is told in :mod:`tests.integration.guarded_server`.

    :ivar certificate: What it shows on ``tls_port``.
    :ivar relay_port: Shows another certificate, which is trusted as well; logons
        must be bound to that of ``tls_port`` all the same.
    """

    def __init__(self) -> None:
        require_modules("spnego")
        self.port = free_port()
        self.tls_port = free_port()
        self.relay_port = free_port()
        directory = workspace() / f"guarded-{self.port}"
        directory.mkdir()
        self.log = GrowingLog(directory / "requests.jsonl", delay=0)
        self._logons = GrowingLog(directory / "logons.jsonl", delay=0)
        write_ntlm(directory / "users")
        certificate = authority().issue(f"guarded-{self.port}")
        self.certificate = certificate
        relay = authority().issue(f"relay-{self.port}")
        command = [
            *(sys.executable, str(Path(__file__).with_name("guarded_server.py"))),
            *("--port", str(self.port), "--tls-port", str(self.tls_port)),
            *("--relay-port", str(self.relay_port)),
            *("--chain", str(certificate.chain), "--key", str(certificate.key)),
            *("--relay-chain", str(relay.chain), "--relay-key", str(relay.key)),
            *("--users", str(directory / "users")),
            *("--log", str(self.log.path), "--logons", str(self._logons.path)),
            *("--end-point", certificate.end_point.hex()),
        ]
        ports = [self.port, self.tls_port, self.relay_port]
        super().__init__("guarded", command, ports, python_environment())

    def url(self, query: str, path: str = "/echo") -> str:
        """An http URL here."""
        return f"http://127.0.0.1:{self.port}{path}?{query}"

    def tls_url(self, query: str, path: str = "/echo") -> str:
        """An https URL here."""
        return f"https://127.0.0.1:{self.tls_port}{path}?{query}"

    def relay_url(self, query: str, path: str = "/echo") -> str:
        """An https URL at whoever relays to us."""
        return f"https://127.0.0.1:{self.relay_port}{path}?{query}"

    def reset(self) -> None:
        """Forget the requests and the logons so far."""
        self.log.reset()
        self._logons.reset()

    def requests(self) -> list[Judged]:
        """The requests since the last reset; each is written before it is answered."""
        judged = []
        for line in self.log.lines():
            facts = json.loads(line)
            received = read_received(facts.pop("received"))
            judged.append(Judged(received, **facts))
        return judged

    def logons(self) -> list[Logon]:
        """The logons by NTLM since the last reset."""
        return [Logon(**json.loads(line)) for line in self._logons.lines()]

    def failed_logons(self) -> int:
        """How many secrets were refused since the last reset."""
        return sum(each.verdict == "refused" for each in self.requests())


@functools.cache
def site() -> GuardedSite:
    """The running site that all tests share."""
    shared = GuardedSite()
    shared.start()
    return shared
