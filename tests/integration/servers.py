"""
Real servers for the tests: found, started, awaited, and stopped without fail.

A server is one process, and what it spawns, on free ports of loopback.  It is
started when a test first asks for it, shared by all that follow, and stopped
when the interpreter exits.  Should the interpreter be killed, a guardian process
ends them all (:mod:`tests.integration.guardian`).

``CODA_KEEP_LOGS=1`` in the environment keeps the servers' directory, with their
configuration and logs, and says where it is.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.integration.tools import SEARCHED

__all__ = [
    "CHECKOUT",
    "GrowingLog",
    "ServerError",
    "ServerProcess",
    "clean_environment",
    "free_port",
    "has_ipv6",
    "python_environment",
    "squid_name",
    "workspace",
]

CHECKOUT = Path(__file__).parents[2]

# Below Linux's range of ephemeral ports, where other programs' outgoing
# connections now and then hold a port that was free a moment ago.
PORTS = range(20000, 32768)


class ServerError(Exception):
    """A server ended, or did not listen in time; the message has its last words."""


# Not the shared generator, which some tests seed.
_random = random.SystemRandom()
_handed_out: set[int] = set()


def free_port() -> int:
    """A port that is free on 127.0.0.1 and on ::1, and was not handed out before."""
    while True:
        port = _random.choice(PORTS)
        if port not in _handed_out and _is_free(port):
            _handed_out.add(port)
            return port


def _is_free(port: int) -> bool:
    families = [(socket.AF_INET, "127.0.0.1")]
    if has_ipv6():
        families.append((socket.AF_INET6, "::1"))
    for family, host in families:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


@functools.cache
def has_ipv6() -> bool:
    """Whether this machine has ``::1``."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


@functools.cache
def workspace() -> Path:
    """
    The directory of this run: state, keys and logs of all servers.

    Anyone may pass through it, for squid and Apache drop root's rights.
    """
    path = Path(tempfile.mkdtemp(prefix="coda-")).resolve()
    path.chmod(0o711)
    # squid leaves shared memory behind when it is killed.
    doomed = [str(path), f"/dev/shm/{squid_name('*')}-*"]
    if os.environ.get("CODA_KEEP_LOGS") == "1":
        doomed.pop(0)
        print(f"servers' directory: {path}", file=sys.stderr)  # noqa: T201
    guardian = Path(__file__).with_name("guardian.py")
    _guardians.append(
        subprocess.Popen(
            [sys.executable, "-IS", str(guardian), *doomed],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
    )
    atexit.register(_end)
    return path


def squid_name(suffix: object) -> str:
    """The name of one of this run's squids (its ``-n``), or a pattern of names."""
    return f"coda{os.getpid()}x{suffix}"


def clean_environment(**extra: str) -> dict[str, str]:
    """
    An environment for a child: no proxy, no locale, nobody's settings.

    :param extra: Variables to set in it.
    """
    home = workspace() / "home"
    home.mkdir(exist_ok=True)
    return {
        "PATH": os.pathsep.join(SEARCHED),
        "HOME": str(home),
        "TMPDIR": tempfile.gettempdir(),
        "LC_ALL": "C.UTF-8",
        # MIT's library must not find a system realm or ticket of the machine's,
        # nor gss-ntlmssp a password.
        "KRB5_CONFIG": "/dev/null",
        "KRB5CCNAME": f"FILE:{home}/no-ticket",
        "NTLM_USER_FILE": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        **extra,
    }


def python_environment(**extra: str) -> dict[str, str]:
    """As :func:`clean_environment`, for a Python that finds the modules we find."""
    path = os.pathsep.join(filter(None, [str(CHECKOUT), *sys.path]))
    return clean_environment(PYTHONPATH=path, **extra)


class GrowingLog:
    """
    A text file to which a server appends.

    :param path: The file, which need not exist yet.
    :param delay: Wait until the file has not grown for so many seconds before
        reading it: 0 for a server that writes before it answers.
    """

    def __init__(self, path: Path, delay: float = 0.1) -> None:
        self.path = path
        self.delay = delay
        self._start = 0

    def reset(self) -> None:
        """Forget what is in it so far: lines() begins here from now on."""
        self._settle()
        self._start = self._size()

    def lines(self) -> list[str]:
        """What was appended since the last reset."""
        self._settle()
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._start)
            return file.read().decode("utf-8", "replace").splitlines()

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _settle(self) -> None:
        size, steady_since = self._size(), time.monotonic()
        while time.monotonic() - steady_since < self.delay:
            time.sleep(0.02)
            if (now := self._size()) != size:
                size, steady_since = now, time.monotonic()


class ServerProcess:
    """
    A server's process; a subclass or its caller writes the configuration.

    :param name: For the log file and for messages.
    :param command: The program and its arguments; it must stay in the foreground.
    :param ports: All must accept connections before the server counts as started.
    :param environment: Replaces ours; default :func:`clean_environment`.
    :param patience: Seconds to wait for the ports.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        ports: Sequence[int],
        environment: Mapping[str, str] | None = None,
        patience: float = 20.0,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.ports = tuple(ports)
        self.environment = dict(environment or clean_environment())
        self.patience = patience
        self.output = workspace() / f"{name}-{self.ports[0]}.out"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process's id, while it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """
        Start it and wait until it listens; does nothing if it runs.

        :raises ServerError: It ended, or did not listen in time.
        """
        if self.running:
            return
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        _started.append(self)
        _guardian("watch", self._process.pid)
        try:
            self._await_ports()
        except ServerError:
            self.stop(kill=True)
            raise

    def stop(self, kill: bool = False) -> None:
        """
        End it; the same ports serve when it is started again.

        :param kill: At once, as in a crash, rather than in good order.
        """
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            _signal(process, signal.SIGKILL if kill else signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        # Whatever of its group has outlived it.
        _signal(process, signal.SIGKILL)
        process.wait()
        _started.remove(self)
        _guardian("forget", process.pid)

    def terminate(self) -> None:
        """Ask it to end, and do not wait."""
        if self._process is not None and self.running:
            _signal(self._process, signal.SIGTERM)

    def restart(self, kill: bool = False) -> None:
        """Stop and start on the same ports: every connection to it is lost."""
        self.stop(kill)
        self.start()

    def last_words(self) -> str:
        """The end of what it printed, for error messages."""
        return self.output.read_text(errors="replace")[-2000:]

    def _await_ports(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self.patience
        waiting = list(self.ports)
        while waiting:
            if _accepts(waiting[0]):
                waiting.pop(0)
            elif self._process.poll() is not None:
                raise ServerError(f"{self.name} ended: {self.last_words()}")
            elif time.monotonic() > deadline:
                raise ServerError(
                    f"{self.name} does not listen on {waiting}: {self.last_words()}"
                )
            else:
                time.sleep(0.02)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


_started: list[ServerProcess] = []
_guardians: list[subprocess.Popen[bytes]] = []


def _guardian(verb: str, group: int) -> None:
    for guardian in _guardians:
        assert guardian.stdin is not None
        guardian.stdin.write(f"{verb} {group}\n".encode())
        guardian.stdin.flush()


def _end() -> None:
    """End all servers: first tell every one of them, then wait for each."""
    for server in _started:
        server.terminate()
    for server in list(_started):
        server.stop()
    for guardian in _guardians:
        guardian.communicate()
