"""The service under test, started as a user starts it."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.integration import kerberos, squid
from tests.integration.certificates import authority
from tests.integration.people import ALICE, REALM, Person
from tests.integration.servers import (
    GrowingLog,
    ServerProcess,
    free_port,
    python_environment,
    workspace,
)

__all__ = ["Access", "CodaProxy", "authenticating", "in_front_of", "login"]

TWISTD = "import sys; from twisted.scripts.twistd import run; sys.exit(run())"
TWIST = "from twisted.application.twist._twist import Twist; Twist.main()"

# As ProxyService's documentation has it; a '-' stands for what is not known.
ACCESS = re.compile(
    r"(?P<id>r[\d-]+) (?P<client>\S+:\d+) (?P<method>\S+) (?P<target>\S+)"
    r" (?P<status>\d+|-) (?P<octets>\d+) (?P<seconds>[\d.]+)s(?: \((?P<note>.*)\))?$"
)

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Access:
    """
    One line of the access log.

    :ivar status: ``-`` for a request that was not answered.
    :ivar note: Why it was not answered by the next server, or ``None``.
    """

    id: str
    client: str
    method: str
    target: str
    status: str
    octets: str
    seconds: str
    note: str | None


class CodaProxy(ServerProcess):
    """
    ``twistd -n coda-proxy`` on a free port of 127.0.0.1.

    :param options: Of coda-proxy, without its own port.
    :param environment: Variables to add to a clean environment.
    :param trust: Make it trust our certificate authority.
    :param program: ``twistd``, or ``twist``.
    :param port: Instead of a free one.
    """

    def __init__(
        self,
        *options: str,
        environment: Mapping[str, str] | None = None,
        trust: bool = True,
        program: str = "twistd",
        port: int | None = None,
    ) -> None:
        self.port = port or free_port()
        variables = dict(environment or {})
        if trust:
            # OpenSSL's own variable for its default trust roots.
            variables.setdefault("SSL_CERT_FILE", str(authority().ca))
        command = [sys.executable, "-c", TWIST, "--log-format=text", "coda-proxy"]
        if program == "twistd":
            rundir = workspace() / f"coda-{self.port}"
            rundir.mkdir(exist_ok=True)
            command = [
                *(sys.executable, "-c", TWISTD, "--nodaemon", "--pidfile="),
                *("--rundir", str(rundir), "coda-proxy"),
            ]
        command += ["--port", str(self.port), *options]
        super().__init__("coda", command, [self.port], python_environment(**variables))
        self._growing = GrowingLog(self.output)

    @property
    def url(self) -> str:
        """The proxy that clients use."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def memory(self) -> int:
        """The most memory that it has ever held (VmHWM of proc(5)), in octets."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        [peak] = re.findall(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
        return int(peak) * 1024

    def log(self) -> str:
        """All that it has logged."""
        return self.output.read_text(errors="replace")

    def reset(self) -> None:
        """Forget the requests so far."""
        self._growing.reset()

    def requests(self) -> list[Access]:
        """The requests since the last reset, in the order of their ends."""
        found = map(ACCESS.search, self._growing.lines())
        return [Access(**match.groupdict()) for match in found if match is not None]


def login(scheme: str, person: Person = ALICE) -> str:
    """Who squid's log says *person* is, when they have logged on by *scheme*."""
    names = {"ntlm": person.down_level, "negotiate": person.principal, "none": "-"}
    return names.get(scheme, person.name)


def authenticating(
    scheme: str,
    person: Person = ALICE,
    password: str | None = None,
    *,
    proxy_type: str | None = None,
) -> list[str]:
    """
    Options for a service that is *person* to its upstream proxy.

    :param scheme: As of :class:`~tests.integration.squid.SquidProxy`.
    :param password: Instead of theirs.
    :param proxy_type: Instead of the scheme's.
    """
    if scheme == "none":
        return ["--proxy-type", "noauth"]
    file = workspace() / f"password-{next(_numbers)}"
    file.write_text(f"{person.password if password is None else password}\n")
    file.chmod(0o600)
    names = {"ntlm": person.down_level, "negotiate": f"{person.name}@{REALM}"}
    return [
        *("--proxy-type", proxy_type or scheme),
        *("--user", names.get(scheme, person.name), "--password-file", str(file)),
    ]


def in_front_of(
    proxy: squid.SquidProxy,
    person: Person = ALICE,
    password: str | None = None,
    *,
    proxy_type: str | None = None,
    tls: bool = False,
) -> CodaProxy:
    """
    Make a service that goes through *proxy* and logs *person* on there.

    :param tls: Reach the proxy by TLS.
    """
    environment = {}
    if proxy.auth == "negotiate":
        environment = kerberos.realm().client_environment()
    return CodaProxy(
        *("--proxy", proxy.tls_url if tls else proxy.url),
        *authenticating(proxy.auth, person, password, proxy_type=proxy_type),
        environment=environment,
    )
