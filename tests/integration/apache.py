"""Apache as a website: files, an echo, protected areas, a package index, and git."""

from __future__ import annotations

import functools
import grp
import hashlib
import itertools
import json
import pwd
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.integration import kerberos
from tests.integration.certificates import server_certificate
from tests.integration.passwords import write_basic, write_digest, write_ntlm
from tests.integration.servers import (
    GrowingLog,
    ServerProcess,
    clean_environment,
    free_port,
    has_ipv6,
    workspace,
)
from tests.integration.tools import SEARCHED, drop_to, find, require, require_files

__all__ = ["AREAS", "FILES", "Apache", "Echo", "Visit", "website"]

# Name and size of each file that every area has.
FILES = {"1k.bin": 1 << 10, "1m.bin": 1 << 20, "64m.bin": 64 << 20}

# Areas that ask for a logon; the root of the site asks for none.  A nonce lives a
# second in digest-stale, and in digest-next each answer brings the next one.
AREAS = (
    *("basic", "digest", "digest-next", "digest-stale"),
    *("ntlm", "negotiate", "negotiate-per-request"),
)

DIGEST_REALM = "coda website"
MODULES = Path("/usr/lib/apache2/modules")
GSSAPI_MODULE = MODULES / "mod_auth_gssapi.so"
# What makes gss-ntlmssp a mechanism of the system's GSSAPI.
NTLM_MECHANISM = Path("/etc/gss/mech.d/mech.ntlmssp.conf")
MODULE_NAMES = (
    *("mpm_event", "authn_core", "authn_file", "authz_core", "authz_user"),
    *("auth_basic", "auth_digest", "alias", "dir", "env", "setenvif", "mime"),
    *("socache_shmcb", "ssl", "cgid"),
)
LOG_FORMAT = (
    r"{\"client\": \"%{c}a:%{remote}p\", \"line\": \"%r\", \"status\": \"%>s\", "
    r"\"user\": \"%u\", \"scheme\": \"%{scheme}e\", \"via\": \"%{Via}i\", "
    r"\"answer\": \"%{Authorization}i\", \"challenge\": \"%{WWW-Authenticate}o\", "
    r"\"keepalive\": \"%k\"}"
)

# A shell starts faster than a Python.
ECHO = r"""#!/bin/sh
PATH={path}
hash=$(sha256sum)
user=$(printf %s "$REMOTE_USER" | sed 's/[\\"]/\\&/g')
cat << END
Content-Type: application/json

{{"method": "$REQUEST_METHOD", "user": "$user", "sha256": "${{hash%% *}}",
"proxy_answer": "$HTTP_PROXY_AUTHORIZATION"}}
END
"""

# ServerLimit times ThreadsPerChild clients are served at once.
BODY = """\
ServerName localhost
ServerRoot {directory}
DefaultRuntimeDir {directory}
PidFile {directory}/pid
ScriptSock {directory}/cgid
Mutex file:{directory} default
TypesConfig /dev/null
AddType text/html .html
AddType application/octet-stream .bin .whl
ServerLimit 8
StartServers 1
ThreadsPerChild 64
MaxRequestWorkers 512
ListenBacklog 500
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 60
Timeout 60
ErrorLog {directory}/error.log
SetEnvIf Authorization "^([A-Za-z]+)" scheme=$1
LogFormat "{log_format}" coda
CustomLog {directory}/access.log coda
SSLSessionCache shmcb:{directory}/sessions(512000)
DocumentRoot {directory}/files
ScriptAlias /git/ {git}/
SetEnv GIT_PROJECT_ROOT {directory}/git
SetEnv GIT_HTTP_EXPORT_ALL 1
SetEnv GIT_CONFIG_COUNT 1
SetEnv GIT_CONFIG_KEY_0 safe.directory
SetEnv GIT_CONFIG_VALUE_0 *
ScriptAliasMatch "^/(?:(?:{areas})/)?echo$" "{directory}/cgi/echo"
RedirectMatch "^/(?:{areas})/to/(https?)/([0-9]+)/(.*)$" "$1://127.0.0.1:$2/$3"
AliasMatch "^/(?:{areas})/([^/]+\\.bin)$" "{directory}/files/$1"
<Directory />
    AllowOverride None
    Require all denied
</Directory>
<Directory {directory}/files>
    Require all granted
</Directory>
<Directory {git_parent}>
    Require all granted
</Directory>
<Directory {directory}/cgi>
    Require all granted
</Directory>
<VirtualHost *:{tls_port}>
    SSLEngine on
    SSLCertificateFile {chain}
    SSLCertificateKeyFile {key}
</VirtualHost>
"""

AREA = """\
<Location "/{name}">
    {directives}
    Require valid-user
</Location>
"""


@dataclass(frozen=True)
class Visit:
    """
    One request in Apache's log.

    :ivar user: Who Apache took them for; ``-`` for nobody.
    :ivar scheme: The auth-scheme of the Authorization field, or ``-``.
    :ivar via: The Via field, or ``-``.
    :ivar answer: The Authorization field, or ``-``.
    :ivar challenge: The WWW-Authenticate field of the response, or ``-``.
    :ivar keepalive: As which request on its connection it came, from 0.
    """

    client: str
    line: str
    status: int
    user: str
    scheme: str
    via: str
    answer: str
    challenge: str
    keepalive: int

    @property
    def failed_logon(self) -> bool:
        """Whether a password was refused; for Negotiate it is the KDC that judges."""
        begins = self.answer.startswith("NTLM TlRMTVNTUAAB")  # NEGOTIATE_MESSAGE
        stale = "stale=true" in self.challenge
        judged = self.scheme in ("Basic", "Digest", "NTLM")
        return self.status == 401 and judged and not (begins or stale)


@dataclass(frozen=True)
class Echo:
    """
    What ``/echo`` says of a request, under ``/`` and in each area.

    :ivar user: Who Apache took them for, or ``""``.
    :ivar sha256: The hash of the content that came.
    :ivar proxy_answer: The Proxy-Authorization field, or ``""``.
    """

    method: str
    user: str
    sha256: str
    proxy_answer: str

    @classmethod
    def read(cls, content: bytes) -> Echo:
        """Read the content of the response."""
        return cls(**json.loads(content))


class Apache(ServerProcess):
    """
    A website, over http and over https.

    Under ``/`` and under each area of ``AREAS`` are the ``FILES``, and ``echo``,
    which tells what it was sent (:class:`Echo`).  Each area also sends from
    ``to/http/PORT/PATH`` to another server on 127.0.0.1, without asking who it is.
    Below ``/simple/`` is the package index and below ``/git/`` are the repositories
    of :mod:`tests.integration.packages`.

    :ivar files: The directory of what is published under ``/``.
    :ivar repositories: The directory of what is published under ``/git/``.
    """

    def __init__(self) -> None:
        apache, backend = require("apache2", "git-http-backend")
        modules = [MODULES / f"mod_{name}.so" for name in MODULE_NAMES]
        require_files(*modules)
        self.port = free_port()
        self.tls_port = free_port()
        self.directory = workspace() / "apache"
        self.files = self.directory / "files"
        self.repositories = self.directory / "git"
        cgi = self.directory / "cgi"
        for directory in (self.directory, self.files, self.repositories, cgi):
            directory.mkdir()
            directory.chmod(0o755)
        self.log = GrowingLog(self.directory / "access.log")
        self._make_files()
        echo = cgi / "echo"
        echo.write_text(ECHO.format(path=":".join(SEARCHED)))
        echo.chmod(0o755)
        certificate = server_certificate()
        lines = [
            f"LoadModule {path.stem.removeprefix('mod_')}_module {path}"
            for path in modules
        ]
        for host, port in itertools.product(
            ("127.0.0.1", "[::1]") if has_ipv6() else ("127.0.0.1",),
            (self.port, self.tls_port),
        ):
            lines.append(f"Listen {host}:{port}")
        self.user = drop_to("www-data", "apache")
        if self.user is not None:
            group = grp.getgrgid(pwd.getpwnam(self.user).pw_gid).gr_name
            lines += [f"User {self.user}", f"Group {group}"]
        configuration = self.directory / "apache.conf"
        configuration.write_text(
            "\n".join(lines)
            + "\n"
            + BODY.format(
                directory=self.directory,
                log_format=LOG_FORMAT,
                git=backend,
                git_parent=Path(backend).parent,
                areas="|".join(AREAS),
                tls_port=self.tls_port,
                chain=certificate.chain,
                key=certificate.key,
            )
            + self._areas()
        )
        super().__init__(
            "apache",
            [apache, "-DFOREGROUND", "-f", str(configuration)],
            [self.port, self.tls_port],
            # gss-ntlmssp finds the passwords by the environment alone.
            clean_environment(NTLM_USER_FILE=str(self.directory / "ntlm-users")),
        )

    def url(self, path: str = "/1k.bin", host: str = "localhost") -> str:
        """An http URL here."""
        return f"http://{host}:{self.port}{path}"

    def tls_url(self, path: str = "/1k.bin", host: str = "localhost") -> str:
        """An https URL here."""
        return f"https://{host}:{self.tls_port}{path}"

    def reset(self) -> None:
        """Forget the visits so far."""
        self.log.reset()

    def visits(self) -> list[Visit]:
        """The requests since the last reset, in the order of their ends."""
        visits = []
        for line in self.log.lines():
            facts = json.loads(line)
            # "-" is a connection without a request, as when we wait for the port.
            if facts["line"] != "-":
                status, keepalive = int(facts["status"]), int(facts["keepalive"])
                visits.append(
                    Visit(**{**facts, "status": status, "keepalive": keepalive})
                )
        return visits

    def failed_logons(self) -> int:
        """How many secrets were refused since the last reset."""
        return sum(visit.failed_logon for visit in self.visits())

    def sha256_of(self, name: str) -> str:
        """The hash of one of ``FILES``."""
        return self._hashes[name]

    def publish(self, path: Path) -> None:
        """Let Apache read, and write, all that is in *path*."""
        for entry in (path, *path.rglob("*")):
            if self.user is not None:
                shutil.chown(entry, self.user)

    def _make_files(self) -> None:
        self._hashes = {}
        for name, size in FILES.items():
            data = random.Random(name).randbytes(size)
            self._hashes[name] = hashlib.sha256(data).hexdigest()
            path = self.files / name
            path.write_bytes(data)
            path.chmod(0o644)

    def _areas(self) -> str:
        areas = {
            "basic": self._basic(),
            "digest": self._digest(),
            # It offers the next nonce half a minute before one dies.
            "digest-next": [*self._digest(), "AuthDigestNonceLifetime 30"],
            "digest-stale": [*self._digest(), "AuthDigestNonceLifetime 1"],
        }
        prologue = ""
        if GSSAPI_MODULE.exists():
            prologue = f"LoadModule auth_gssapi_module {GSSAPI_MODULE}\n"
        if GSSAPI_MODULE.exists() and NTLM_MECHANISM.exists():
            areas["ntlm"] = self._ntlm()
        if GSSAPI_MODULE.exists() and find("krb5kdc"):
            areas["negotiate"] = self._negotiate(bound=True)
            areas["negotiate-per-request"] = self._negotiate(bound=False)
        return prologue + "".join(
            AREA.format(name=name, directives="\n    ".join(directives))
            for name, directives in areas.items()
        )

    def _basic(self) -> list[str]:
        users = self.directory / "basic-users"
        write_basic(users)
        return ["AuthType Basic", 'AuthName "coda basic"', f"AuthUserFile {users}"]

    def _digest(self) -> list[str]:
        users = self.directory / "digest-users"
        write_digest(users, DIGEST_REALM)
        return [
            "AuthType Digest",
            f'AuthName "{DIGEST_REALM}"',
            "AuthDigestProvider file",
            f"AuthUserFile {users}",
        ]

    def _ntlm(self) -> list[str]:
        write_ntlm(self.directory / "ntlm-users")
        return [
            "AuthType GSSAPI",
            'AuthName "coda ntlm"',
            "GssapiAllowedMech ntlmssp",
            "GssapiConnectionBound On",
        ]

    def _negotiate(self, bound: bool) -> list[str]:
        return [
            "AuthType GSSAPI",
            'AuthName "coda negotiate"',
            "GssapiAllowedMech krb5",
            f"GssapiCredStore keytab:{kerberos.realm().keytab}",
            f"GssapiConnectionBound {'On' if bound else 'Off'}",
        ]


@functools.cache
def website() -> Apache:
    """The running website that all tests share."""
    shared = Apache()
    shared.start()
    return shared
