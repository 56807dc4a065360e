"""
An authority that really verifies NTLM logons, for squid's NTLM helper.

One daemon of ours holds the accounts and does the cryptography, so that squid's
unprivileged user needs no access to our Python environment: the helper squid
runs is a few lines of bash that carry lines to the daemon and back.
"""

from __future__ import annotations

import functools
import json
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.integration.people import NTLM_DOMAIN, PEOPLE
from tests.integration.servers import (
    GrowingLog,
    ServerProcess,
    free_port,
    python_environment,
    workspace,
)
from tests.integration.tools import require, require_modules

__all__ = ["Logon", "NTLMAuthority", "authority"]

# bash opens /dev/tcp by itself: the helper costs one small process and no file.
BRIDGE = """\
exec 3<>/dev/tcp/127.0.0.1/{port}
printf '%s\\n' {scheme} >&3
while IFS= read -r line; do
    printf '%s\\n' "$line" >&3
    IFS= read -r answer <&3 || exit 1
    printf '%s\\n' "$answer"
done
"""


@dataclass(frozen=True)
class Logon:
    """
    One AUTHENTICATE_MESSAGE that the authority judged.

    :ivar result: ``accepted``; ``failed`` (unknown user, wrong password, broken
        MIC, NTLMv1); ``locked`` (too many bad passwords before this one);
        ``unbound`` (required channel bindings are missing or others).
    :ivar bindings: The MD5 hash of the channel bindings sent, in hex, or ``""``.
    :ivar client: ``address:port`` of the connection to squid.
    """

    result: str
    domain: str
    user: str
    workstation: str
    ntlmv2: bool
    mic: bool
    bindings: str
    client: str


class NTLMAuthority(ServerProcess):
    r"""
    Judges NTLM logons, counts them, and may lock accounts out.

    Knows everybody of :mod:`tests.integration.people` as ``CORP\name`` and by UPN.

    :param lockout: Refuse an account after so many bad passwords in a row, as a
        domain controller does, even when the password is right; 0 for never.
    :param end_point: A certificate's ``tls-server-end-point``: refuse all logons
        that are not bound to it.
    """

    def __init__(self, lockout: int = 0, end_point: bytes | None = None) -> None:
        require("bash")
        require_modules("spnego")
        self.port = free_port()
        self.directory = workspace() / f"ntlm-{self.port}"
        self.directory.mkdir()
        self.directory.chmod(0o711)
        users = self.directory / "users"
        users.write_text(
            "".join(
                f"{NTLM_DOMAIN}:{person.name}:{person.password}\n"
                f":{person.upn}:{person.password}\n"
                for person in PEOPLE
            )
        )
        self._log = GrowingLog(self.directory / "logons.jsonl", delay=0)
        program = Path(__file__).with_name("ntlm_daemon.py")
        command = [
            *(sys.executable, str(program), "--port", str(self.port)),
            *("--users", str(users), "--log", str(self._log.path)),
            *("--lockout", str(lockout)),
        ]
        if end_point is not None:
            command += ["--end-point", end_point.hex()]
        super().__init__("ntlm", command, [self.port], python_environment())

    def helper(self, scheme: str = "ntlm") -> str:
        """The command line of squid's helper; *scheme* ``ntlm`` or ``negotiate``."""
        script = self.directory / f"{scheme}-bridge"
        script.write_text(BRIDGE.format(port=self.port, scheme=scheme))
        script.chmod(0o644)
        [bash] = require("bash")
        return f"{bash} {script}"

    def logons(self, result: str | None = None) -> list[Logon]:
        """The logons since the last reset, all or those with this *result*."""
        logons = [Logon(**json.loads(line)) for line in self._log.lines()]
        return [logon for logon in logons if result in (None, logon.result)]

    def reset(self) -> None:
        """Forget the logons so far, and unlock everybody."""
        self._log.reset()
        with socket.create_connection(("127.0.0.1", self.port), 5) as control:
            control.sendall(b"ntlm\nunlock\n")
            assert control.recv(16) == b"done\n"


@functools.cache
def authority() -> NTLMAuthority:
    """The running authority that all squids share; it locks nobody out."""
    shared = NTLMAuthority()
    shared.start()
    return shared
