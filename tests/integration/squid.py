"""Squid, as a forward proxy that authenticates in every way it can."""

from __future__ import annotations

import functools
import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.integration import kerberos, ntlm_helper
from tests.integration.certificates import Certificate, server_certificate
from tests.integration.passwords import write_basic, write_digest
from tests.integration.servers import (
    GrowingLog,
    ServerError,
    ServerProcess,
    clean_environment,
    free_port,
    has_ipv6,
    squid_name,
    workspace,
)
from tests.integration.squid_log import LOG_FORMAT, LogLine, read_lines
from tests.integration.tools import drop_to, require

__all__ = ["SCHEMES", "SquidProxy", "proxy"]

SCHEMES = ("basic", "digest", "ntlm", "negotiate")
BASIC_REALM = "coda basic"
DIGEST_REALM = "coda digest"

COMMON = """\
http_access allow all
visible_hostname {name}.test
http_upgrade_request_protocols OTHER allow all
hosts_file {directory}/hosts
dns_nameservers 127.0.0.1
dns_timeout 2 seconds
cache deny all
cache_mem 0 MB
memory_pools off
max_filedescriptors 8192
shutdown_lifetime 0 seconds
pinger_enable off
netdb_filename none
icp_port 0
pid_filename {directory}/squid.pid
coredump_dir {directory}
cache_log {directory}/cache.log
logfile_rotate 0
strip_query_terms off
{log_format}
access_log stdio:{directory}/access.log coda
"""


class SquidProxy(ServerProcess):
    """
    A squid of its own on two ports, one for http and one for https to the proxy.

    :param auth: ``none``, ``basic``, ``digest``, ``ntlm``, ``negotiate`` (Kerberos
        only), ``spnego`` (Negotiate, with NTLM inside it) or ``multi`` (the first
        four at once, strongest first).
    :param settings: Lines for squid.conf, after those on authentication.
    :param authority: Who judges NTLM logons; default: the one all squids share.
    :param helpers: Processes for each scheme, all started at once.  A handshake
        keeps an NTLM or Negotiate helper until it is over.
    :param website: Be a reverse proxy for the origin server on this port instead,
        so that the same schemes are asked for with 401.
    :param client_ca: Ask TLS clients for a certificate of this authority.
    """

    def __init__(
        self,
        auth: str = "none",
        *,
        settings: Sequence[str] = (),
        authority: ntlm_helper.NTLMAuthority | None = None,
        helpers: int = 5,
        website: int | None = None,
        client_ca: Path | None = None,
    ) -> None:
        [squid] = require("squid")
        self.auth = auth
        self.port = free_port()
        self.tls_port = free_port()
        self.certificate: Certificate = server_certificate()
        self.directory = workspace() / f"squid-{auth}-{self.port}"
        self.directory.mkdir()
        self.log = GrowingLog(self.directory / "access.log")
        self._helpers = helpers
        self._authority = authority
        self._refusal = 401 if website else 407
        configuration = self.directory / "squid.conf"
        configuration.write_text(
            "\n".join([*self._ports(website, client_ca), *self._authentication()])
            + "\n"
            + "\n".join([*settings, *self._access()])
            + "\n"
            + COMMON.format(
                name=f"squid-{auth}", directory=self.directory, log_format=LOG_FORMAT
            )
        )
        hosts = "127.0.0.1 localhost origin.test proxy.test\n::1 origin6.test\n"
        (self.directory / "hosts").write_text(hosts)
        user = drop_to("proxy", "squid")
        if user is not None:
            shutil.chown(self.directory, user)
            with configuration.open("a") as file:
                file.write(f"cache_effective_user {user}\n")
        environment = clean_environment(KRB5RCACHETYPE="none")
        if auth in ("negotiate", "multi"):
            environment.update(kerberos.realm().client_environment())
        super().__init__(
            f"squid-{auth}",
            # Squids without a name of their own share some global state.
            [squid, "-N", "-n", squid_name(self.port), "-f", str(configuration)],
            [self.port, self.tls_port],
            environment,
        )

    @property
    def url(self) -> str:
        """The proxy over http."""
        return f"http://localhost:{self.port}"

    @property
    def tls_url(self) -> str:
        """The proxy over https."""
        return f"https://localhost:{self.tls_port}"

    @property
    def authority(self) -> ntlm_helper.NTLMAuthority:
        """Who judges NTLM logons here."""
        return self._authority or ntlm_helper.authority()

    def start(self) -> None:
        """Start it; unlike squid, do not go on without a port it cannot have."""
        super().start()
        cache_log = (self.directory / "cache.log").read_text(errors="replace")
        if "Cannot bind socket" in cache_log:
            self.stop()
            raise ServerError(f"{self.name} lacks a port: {cache_log[-2000:]}")

    def reset(self) -> None:
        """Forget all that was logged so far, and unlock everybody."""
        self.log.reset()
        if self._judges_ntlm:
            self.authority.reset()
        if self._judges_tickets:
            kerberos.realm().log.reset()

    def requests(self) -> list[LogLine]:
        """The requests since the last reset, in the order of their ends."""
        return read_lines(self.log.lines())

    def failed_logons(self) -> int:
        """
        How many secrets were refused since the last reset.

        Basic and Digest: answers refused by squid itself, other than for a nonce's
        age.  NTLM: what the authority counts.  Negotiate: tokens refused by squid,
        and wrong passwords at the KDC.
        """
        refused = sum(
            1
            for request in self.requests()
            if request.status == self._refusal
            and request.judged_scheme in self._judged_by_line
            and not request.stale
        )
        if self._judges_ntlm:
            refused += len(self.authority.logons()) - len(
                self.authority.logons("accepted")
            )
        if self._judges_tickets:
            refused += kerberos.realm().failed_logons()
        return refused

    def users_by_connection(self) -> dict[str, set[str]]:
        """Whom each client connection served, among the requests not refused."""
        users: dict[str, set[str]] = {}
        for request in self.requests():
            if request.status not in (401, 407):
                users.setdefault(request.client, set()).add(request.user)
        return users

    @property
    def _judges_ntlm(self) -> bool:
        return self.auth in ("ntlm", "spnego", "multi")

    @property
    def _judges_tickets(self) -> bool:
        return self.auth in ("negotiate", "multi")

    @property
    def _judged_by_line(self) -> tuple[str, ...]:
        """The schemes of which every answer gets its verdict at once."""
        if self.auth == "spnego":
            return ()
        return ("basic", "digest", "negotiate")

    def _ports(self, website: int | None, client_ca: Path | None) -> list[str]:
        accelerate = f" accel defaultsite=localhost:{website}" if website else ""
        chain, key = self.certificate.chain, self.certificate.key
        tls = f"{accelerate} tls-cert={chain} tls-key={key}"
        if client_ca is not None:
            tls += f" clientca={client_ca}"
        lines = []
        for host in ("127.0.0.1", "[::1]") if has_ipv6() else ("127.0.0.1",):
            lines.append(f"http_port {host}:{self.port}{accelerate}")
            lines.append(f"https_port {host}:{self.tls_port}{tls}")
        if website:
            lines.append(
                f"cache_peer 127.0.0.1 parent {website} 0 no-query originserver"
            )
            lines.append("never_direct allow all")
        return lines

    def _authentication(self) -> list[str]:
        lines = {
            "none": list,
            "basic": self._basic,
            "digest": self._digest,
            "ntlm": self._ntlm,
            "negotiate": self._negotiate,
            "spnego": lambda: self._ntlm("negotiate"),
        }
        wanted = reversed(SCHEMES) if self.auth == "multi" else [self.auth]
        return list(itertools.chain.from_iterable(lines[name]() for name in wanted))

    def _access(self) -> list[str]:
        if self.auth == "none":
            return []
        return ["acl known proxy_auth REQUIRED", "http_access deny !known"]

    def _basic(self) -> list[str]:
        [helper] = require("basic_ncsa_auth")
        users = self.directory / "basic-users"
        write_basic(users)
        return [
            f"auth_param basic program {helper} {users}",
            f"auth_param basic realm {BASIC_REALM}",
            "auth_param basic credentialsttl 1 minute",
            f"auth_param basic children {self._helpers} startup={self._helpers}",
        ]

    def _digest(self) -> list[str]:
        [helper] = require("digest_file_auth")
        users = self.directory / "digest-users"
        write_digest(users, DIGEST_REALM)
        return [
            f"auth_param digest program {helper} -c {users}",
            f"auth_param digest realm {DIGEST_REALM}",
            "auth_param digest nonce_max_count 100000",
            f"auth_param digest children {self._helpers} startup={self._helpers}",
        ]

    def _ntlm(self, scheme: str = "ntlm") -> list[str]:
        return [
            f"auth_param {scheme} program {self.authority.helper(scheme)}",
            f'auth_param {scheme} key_extras "%>a:%>p"',
            self._busy_children(scheme),
        ]

    def _negotiate(self) -> list[str]:
        [helper] = require("negotiate_kerberos_auth")
        keytab = kerberos.realm().keytab
        return [
            f"auth_param negotiate program {helper} -s GSS_C_NO_NAME -k {keytab}",
            self._busy_children("negotiate"),
        ]

    def _busy_children(self, scheme: str) -> str:
        # Squid adds helpers one by one, seconds apart, while clients wait.
        number = self._helpers
        return (
            f"auth_param {scheme} children {number} startup={number} idle=1"
            " queue-size=2000 reservation-timeout=60"
        )


@functools.cache
def proxy(auth: str = "none") -> SquidProxy:
    """
    The running squid with this *auth* that all tests share.

    Its logs begin at the call; a test case that counts calls ``reset()`` first.
    """
    shared = SquidProxy(auth)
    shared.start()
    return shared
