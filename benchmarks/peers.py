"""
The proxies to compare with: where they are, and how each is started.

Each gets one worker, a directory of its own and a free port, keeps connections, and
logs no requests.  Nothing is installed; what is missing is named.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import configurations as conf
from tests.integration.certificates import authority, server_certificate
from tests.integration.coda import CodaProxy
from tests.integration.servers import (
    ServerProcess,
    clean_environment,
    free_port,
    python_environment,
    squid_name,
    workspace,
)
from tests.integration.tools import drop_to, find

__all__ = ["PEERS", "Peer", "Running", "Upstreams", "described", "start_upstreams"]

NTLM_USER = "alice"
NTLM_PASSWORD = "Password-1"
NTLM_DOMAIN = "CORP"


@dataclass(frozen=True)
class Upstreams:
    """
    Proxies above those that are measured; what these use does not count.

    :ivar plain: Port of one that asks for nothing.
    :ivar ntlm: Port of one that asks for NTLM.
    :ivar tls: Port of one that asks for nothing, by TLS.
    """

    plain: int
    ntlm: int
    tls: int


@dataclass(frozen=True)
class Peer:
    """
    A proxy that can be measured.

    :ivar name: Its row in the table.
    :ivar program: What must be found; empty for our own.
    :ivar package: How to get it.
    :ivar version: Arguments that make it tell its version.
    :ivar start: Starts it on a free port.
    :ivar tunnels: Whether it knows CONNECT.
    :ivar keeps: Whether it keeps its clients' connections.
    :ivar upstream: Which proxy is above it, or ``""``.
    """

    name: str
    program: str
    package: str
    version: tuple[str, ...]
    start: Callable[[str, Upstreams | None], ServerProcess]
    tunnels: bool = True
    keeps: bool = True
    upstream: str = ""

    def find(self) -> str | None:
        """Where its program is; ``None`` if it is not installed."""
        return find(self.program) if self.program else sys.executable


@dataclass(frozen=True)
class Running:
    """A proxy that has been started."""

    peer: Peer
    server: ServerProcess

    @property
    def name(self) -> str:
        """Its row in the table."""
        return self.peer.name

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.ports[0]


def directory(name: str, port: int, *users: str) -> Path:
    """Make a directory for a server, and give it to the user that it drops to."""
    path = workspace() / f"{name.replace(' ', '-')}-{port}"
    path.mkdir()
    path.chmod(0o755)
    user = drop_to(*users) if users else None
    if user is not None:
        shutil.chown(path, user)
    return path


def write(path: Path, text: str) -> Path:
    """Write a configuration."""
    path.write_text(text)
    path.chmod(0o644)
    return path


def start(
    name: str, command: Sequence[str], port: int, environment: dict[str, str]
) -> ServerProcess:
    """Start a server and wait until it listens."""
    server = ServerProcess(name, command, [port], environment)
    server.start()
    return server


def _squid(
    program: str,
    access: str = "http_access allow all",
    log: str = "none",
    *,
    tls: bool = False,
) -> ServerProcess:
    port = free_port()
    place = directory("squid", port, "proxy", "squid")
    chain = server_certificate()
    text = conf.SQUID.format(
        port=f"https_port 127.0.0.1:{port} tls-cert={chain.chain} tls-key={chain.key}"
        if tls
        else f"http_port 127.0.0.1:{port}",
        directory=place,
        access=access,
        log=log.format(directory=place),
    )
    user = drop_to("proxy", "squid")
    if user is not None:
        text += f"cache_effective_user {user}\n"
    file = write(place / "squid.conf", text)
    command = [program, "-N", "-n", squid_name(port), "-f", str(file)]
    return start("squid", command, port, clean_environment())


def _tinyproxy(program: str, _: Upstreams | None) -> ServerProcess:
    port = free_port()
    place = directory("tinyproxy", port, "tinyproxy", "nobody")
    file = write(
        place / "tinyproxy.conf", conf.TINYPROXY.format(port=port, directory=place)
    )
    return start(
        "tinyproxy", [program, "-d", "-c", str(file)], port, clean_environment()
    )


def _apache(program: str, _: Upstreams | None) -> ServerProcess:
    port = free_port()
    place = directory("apache", port, "www-data", "apache")
    user = drop_to("www-data", "apache")
    modules = next(
        path
        for path in map(Path, ("/usr/lib/apache2/modules", "/usr/lib64/httpd/modules"))
        if path.exists()
    )
    text = conf.APACHE.format(port=port, directory=place, modules=modules)
    if user is not None:
        text += f"User {user}\n"
    file = write(place / "apache.conf", text)
    return start(
        "apache", [program, "-f", str(file), "-DFOREGROUND"], port, clean_environment()
    )


def _proxy_py(program: str, _: Upstreams | None) -> ServerProcess:
    port = free_port()
    command = [
        *(program, "--hostname", "127.0.0.1", "--port", str(port)),
        *("--num-workers", "1", "--num-acceptors", "1", "--log-level", "ERROR"),
    ]
    return start("proxy.py", command, port, clean_environment())


def _mitmproxy(program: str, _: Upstreams | None) -> ServerProcess:
    port = free_port()
    place = directory("mitmproxy", port)
    command = [
        *(program, "-q", "--listen-host", "127.0.0.1", "--listen-port", str(port)),
        *("--set", f"confdir={place}", "--set", "stream_large_bodies=1m"),
        # Tunnels are to be passed through, as the others do.
        *("--set", "flow_detail=0", "--ignore-hosts", ".*"),
    ]
    return start("mitmproxy", command, port, clean_environment())


def _px(program: str, upstreams: Upstreams | None) -> ServerProcess:
    port = free_port()
    place = directory("px", port)
    command = [
        *(program, "--listen=127.0.0.1", f"--port={port}", "--workers=1"),
        f"--config={write(place / 'px.ini', '')}",
    ]
    environment = clean_environment()
    if upstreams is not None:
        command += [
            f"--proxy=127.0.0.1:{upstreams.ntlm}",
            *("--auth=NTLM", f"--username={NTLM_DOMAIN}\\{NTLM_USER}"),
        ]
        environment["PX_PASSWORD"] = NTLM_PASSWORD
    return start("px", command, port, environment)


def _cntlm(program: str, upstreams: Upstreams | None) -> ServerProcess:
    assert upstreams is not None
    port = free_port()
    place = directory("cntlm", port)
    text = conf.CNTLM.format(
        port=port,
        proxy=upstreams.ntlm,
        user=NTLM_USER,
        domain=NTLM_DOMAIN,
        password=NTLM_PASSWORD,
    )
    file = write(place / "cntlm.conf", text)
    return start("cntlm", [program, "-f", "-c", str(file)], port, clean_environment())


def _program(name: str, module: str) -> ServerProcess:
    """Start one of our own programs, which take a port."""
    port = free_port()
    command = [sys.executable, "-m", f"benchmarks.{module}", str(port)]
    return start(name, command, port, python_environment())


def _coda(*options: str) -> CodaProxy:
    server = CodaProxy(*options, trust=False)
    server.start()
    return server


def _ours_plain(_: str, upstreams: Upstreams | None) -> ServerProcess:
    assert upstreams is not None
    proxy = f"http://127.0.0.1:{upstreams.plain}"
    return _coda("-q", "--proxy", proxy, "--proxy-type", "noauth")


def _ours_tls(_: str, upstreams: Upstreams | None) -> ServerProcess:
    assert upstreams is not None
    proxy = f"https://localhost:{upstreams.tls}"
    return _coda(
        *("-q", "--proxy", proxy, "--proxy-type", "noauth"),
        *("--proxy-ca", str(authority().ca)),
    )


def _ours_ntlm(_: str, upstreams: Upstreams | None) -> ServerProcess:
    assert upstreams is not None
    file = workspace() / f"password-{free_port()}"
    file.write_text(NTLM_PASSWORD + "\n")
    return _coda(
        *("-q", "--proxy", f"http://127.0.0.1:{upstreams.ntlm}"),
        *("--proxy-type", "ntlm", "--user", f"{NTLM_DOMAIN}\\{NTLM_USER}"),
        *("--password-file", str(file)),
    )


SQUID_PACKAGE = "apt-get install squid-openssl"
OURS = "coda"

PEERS = (
    Peer(OURS, "", "", (), lambda *_: _coda("-q")),
    Peer("coda with log", "", "", (), lambda *_: _coda()),
    Peer("squid", "squid", SQUID_PACKAGE, ("-v",), lambda program, _: _squid(program)),
    Peer(
        *("squid with log", "squid", SQUID_PACKAGE, ("-v",)),
        lambda program, _: _squid(program, log="stdio:{directory}/access.log"),
    ),
    Peer(
        *("tinyproxy", "tinyproxy", "apt-get install tinyproxy-bin", ("-v",)),
        _tinyproxy,
        keeps=False,
    ),
    Peer("apache", "apache2", "apt-get install apache2-bin", ("-v",), _apache),
    Peer("proxy.py", "proxy", "pip install proxy.py", ("--version",), _proxy_py),
    Peer("mitmproxy", "mitmdump", "pip install mitmproxy", ("--version",), _mitmproxy),
    Peer(
        *("twisted.web.proxy", "", "", ()),
        lambda *_: _program("twisted.web.proxy", "web_proxy"),
        tunnels=False,
    ),
    # Not a proxy: what there would be left if HTTP cost nothing.
    Peer("Twisted, no HTTP", "", "", (), lambda *_: _program("bare", "bare")),
    Peer("px", "px", "pip install px-proxy", ("--help",), _px),
    Peer("coda > squid", "", SQUID_PACKAGE, (), _ours_plain, upstream="plain"),
    Peer("coda > TLS squid", "", SQUID_PACKAGE, (), _ours_tls, upstream="tls"),
    Peer("coda > NTLM squid", "", SQUID_PACKAGE, (), _ours_ntlm, upstream="ntlm"),
    Peer(
        "cntlm > NTLM squid",
        *("cntlm", "apt-get install cntlm", ("-h",), _cntlm),
        upstream="ntlm",
    ),
    Peer(
        "px > NTLM squid",
        *("px", "pip install px-proxy", ("--help",), _px),
        upstream="ntlm",
    ),
)


def start_upstreams() -> Upstreams | None:
    """
    Start the proxies above; squid is needed for them.

    :returns: ``None`` if it is not installed.
    """
    program, helper = find("squid"), find("ntlm_fake_auth")
    if program is None or helper is None:
        return None
    plain = _squid(program)
    ntlm = _squid(program, conf.SQUID_NTLM.format(helper=helper))
    tls = _squid(program, tls=True)
    return Upstreams(plain.ports[0], ntlm.ports[0], tls.ports[0])


def described(peer: Peer) -> str:
    """The first line that tells its version, or an empty text."""
    program = peer.find()
    if not peer.version or program is None:
        return ""
    try:
        done = subprocess.run(
            [program, *peer.version], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else ""
