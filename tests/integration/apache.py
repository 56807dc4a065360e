"""Apache as a website: files, protected areas, a package index, and git."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.integration import kerberos
from tests.integration.certificates import server_certificate
from tests.integration.passwords import write_basic, write_digest
from tests.integration.servers import (
    GrowingLog,
    ServerProcess,
    clean_environment,
    free_port,
    has_ipv6,
    workspace,
)
from tests.integration.tools import drop_to, find, require, require_files

__all__ = ["AREAS", "FILES", "Apache", "Visit", "website"]

# Name and size of each file that every area has.
FILES = {"1k.bin": 1 << 10, "1m.bin": 1 << 20, "64m.bin": 64 << 20}

# Areas that ask for a logon; the root of the site asks for none.
AREAS = ("basic", "digest", "negotiate", "negotiate-per-request")

DIGEST_REALM = "coda website"
MODULES = Path("/usr/lib/apache2/modules")
MODULE_NAMES = (
    *("mpm_event", "authn_core", "authn_file", "authz_core", "authz_user"),
    *("auth_basic", "auth_digest", "alias", "dir", "env", "setenvif", "mime"),
    *("socache_shmcb", "ssl", "cgid"),
)
LOG_FORMAT = (
    r"{\"client\": \"%{c}a:%{remote}p\", \"line\": \"%r\", \"status\": \"%>s\", "
    r"\"user\": \"%u\", \"scheme\": \"%{scheme}e\", \"via\": \"%{Via}i\", "
    r"\"keepalive\": \"%k\"}"
)

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
    :ivar keepalive: As which request on its connection it came, from 0.
    """

    client: str
    line: str
    status: int
    user: str
    scheme: str
    via: str
    keepalive: int


class Apache(ServerProcess):
    """
    A website, over http and over https.

    Under ``/`` and under each area of ``AREAS`` are the ``FILES``; below
    ``/simple/`` is the package index and below ``/git/`` are the repositories of
    :mod:`tests.integration.packages`.

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
        for directory in (self.directory, self.files, self.repositories):
            directory.mkdir()
            directory.chmod(0o755)
        self.log = GrowingLog(self.directory / "access.log")
        self._make_files()
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
            lines.append(f"User {self.user}")
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
            clean_environment(),
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
        areas = {"basic": self._basic(), "digest": self._digest()}
        module = MODULES / "mod_auth_gssapi.so"
        prologue = ""
        if module.exists() and find("krb5kdc"):
            prologue = f"LoadModule auth_gssapi_module {module}\n"
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
