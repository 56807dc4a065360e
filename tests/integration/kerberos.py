"""An MIT Kerberos realm on loopback, without root's rights."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.integration.people import PEOPLE, REALM, Person
from tests.integration.servers import (
    GrowingLog,
    ServerProcess,
    clean_environment,
    free_port,
    workspace,
)
from tests.integration.tools import require

__all__ = ["SERVICE_HOSTS", "KerberosRealm", "nowhere", "realm"]

# Hosts for which there is a service principal HTTP/host.
SERVICE_HOSTS = ("localhost", "127.0.0.1", "origin.test", "proxy.test")

# Names are taken as they are written; and everything goes over TCP, for a lost
# datagram would cost a second.
CLIENT_CONFIGURATION = """\
[libdefaults]
    default_realm = {realm}
    dns_lookup_kdc = false
    dns_lookup_realm = false
    dns_canonicalize_hostname = false
    rdns = false
    udp_preference_limit = 1
[realms]
    {realm} = {{
        kdc = 127.0.0.1:{port}
    }}
[domain_realm]
    localhost = {realm}
    127.0.0.1 = {realm}
    .test = {realm}
"""

# Without pre-authentication the KDC hands out tickets to anyone, and a wrong
# password is noticed by the client alone.
KDC_CONFIGURATION = """\
[kdcdefaults]
    kdc_listen = 127.0.0.1:{port}
    kdc_tcp_listen = 127.0.0.1:{port}
[realms]
    {realm} = {{
        database_name = {directory}/principal
        key_stash_file = {directory}/stash
        supported_enctypes = aes256-cts:normal aes128-cts:normal
        default_principal_flags = +preauth
        max_life = 1h
    }}
[logging]
    kdc = FILE:{directory}/kdc.log
    default = FILE:{directory}/kdc.log
"""


class KerberosRealm(ServerProcess):
    """
    The realm ``CODA.TEST``, with everybody of :mod:`tests.integration.people`.

    :ivar configuration: The clients' ``krb5.conf``.
    :ivar keytab: Keys of ``HTTP/`` for each of ``SERVICE_HOSTS``.
    :ivar log: The KDC's log.
    """

    def __init__(self) -> None:
        [kdc] = require("krb5kdc", "kdb5_util", "kadmin.local", "kinit")[:1]
        self.port = free_port()
        self.directory = workspace() / "kdc"
        self.directory.mkdir()
        self.directory.chmod(0o711)
        self.configuration = self.directory / "krb5.conf"
        self.keytab = self.directory / "http.keytab"
        self.log = GrowingLog(self.directory / "kdc.log", delay=0)
        self._caches = itertools.count(1)
        environment = clean_environment(
            KRB5_CONFIG=str(self.configuration),
            KRB5_KDC_PROFILE=str(self.directory / "kdc.conf"),
        )
        super().__init__("kdc", [kdc, "-n", "-r", REALM], [self.port], environment)
        self._configure()
        self._create()

    def client_environment(self, cache: Path | None = None) -> dict[str, str]:
        """
        The variables by which a program finds this realm, and a ticket.

        :param cache: A ticket cache of :meth:`ticket`; default: an empty one.
        """
        cache = cache or self.directory / "no-ticket"
        return {"KRB5_CONFIG": str(self.configuration), "KRB5CCNAME": f"FILE:{cache}"}

    @contextlib.contextmanager
    def inhabited(self, cache: Path | None = None) -> Iterator[None]:
        """Make this process find the realm, and the ticket in *cache*, for a while."""
        with _variables(self.client_environment(cache)):
            yield

    def ticket(self, person: Person, password: str | None = None) -> Path:
        """
        Log *person* on with ``kinit``.

        :param password: Instead of theirs.
        :returns: A new ticket cache.
        :raises subprocess.CalledProcessError: The KDC refused.
        """
        cache = self.directory / f"ticket-{next(self._caches)}"
        [kinit] = require("kinit")
        subprocess.run(
            [kinit, "-c", f"FILE:{cache}", person.principal],
            input=f"{person.password if password is None else password}\n".encode(),
            env=clean_environment(**self.client_environment()),
            check=True,
            capture_output=True,
            timeout=30,
        )
        return cache

    def failed_logons(self) -> int:
        """How many wrong passwords the KDC was shown since the log's last reset."""
        return self._requests("AS_REQ", "PREAUTH_FAILED")

    def tickets_granted(self) -> int:
        """How many people have logged on since the log's last reset."""
        return self._requests("AS_REQ", "ISSUE")

    def service_tickets(self) -> int:
        """How many tickets for a service were issued since the log's last reset."""
        return self._requests("TGS_REQ", "ISSUE")

    def _requests(self, kind: str, outcome: str) -> int:
        wanted = re.compile(rf"\b{kind} .*: {outcome}: ")
        return sum(1 for line in self.log.lines() if wanted.search(line))

    def _configure(self) -> None:
        facts = {"realm": REALM, "port": self.port, "directory": self.directory}
        self.configuration.write_text(CLIENT_CONFIGURATION.format(**facts))
        self.configuration.chmod(0o644)
        profile = Path(self.environment["KRB5_KDC_PROFILE"])
        profile.write_text(KDC_CONFIGURATION.format(**facts))

    def _create(self) -> None:
        util, kadmin = require("kdb5_util", "kadmin.local")
        self._run([util, "create", "-s", "-r", REALM, "-P", secrets.token_hex()])
        queries = []
        for person in PEOPLE:
            password = person.password.replace('"', '""')
            queries.append(f'addprinc -pw "{password}" {person.name}')
        for host in SERVICE_HOSTS:
            queries.append(f"addprinc -randkey HTTP/{host}")
            queries.append(f"ktadd -k {self.keytab} HTTP/{host}")
        self._run([kadmin, "-r", REALM], "\n".join(queries))
        # The keys are worthless, and squid and Apache drop root's rights.
        self.keytab.chmod(0o644)

    def _run(self, command: list[str], standard_input: str = "") -> None:
        subprocess.run(
            command,
            input=standard_input.encode(),
            env=self.environment,
            check=True,
            capture_output=True,
            timeout=60,
        )


@contextlib.contextmanager
def nowhere() -> Iterator[None]:
    """Make this process find no realm and no ticket for a while."""
    with _variables({"KRB5_CONFIG": "/dev/null", "KRB5CCNAME": "FILE:/dev/null"}):
        yield


@contextlib.contextmanager
def _variables(changed: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@functools.cache
def realm() -> KerberosRealm:
    """The running realm that all tests share."""
    shared = KerberosRealm()
    shared.start()
    return shared
