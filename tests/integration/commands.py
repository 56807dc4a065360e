"""Programs run as a user would run them: curl, pip, git, and any other."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet import threads
from twisted.internet.defer import Deferred

from tests.integration.certificates import authority
from tests.integration.servers import clean_environment, workspace
from tests.integration.tools import require

__all__ = [
    "Answer",
    "Completed",
    "curl",
    "curl_deferred",
    "curl_many",
    "proxy_options",
    "run",
    "run_deferred",
]

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Completed:
    """What a program did."""

    exit_code: int
    output: bytes
    errors: str


@dataclass(frozen=True)
class Answer:
    """
    What curl got.

    :ivar exit_code: curl's; 56 after a refused CONNECT, 18 for a partial body.
    :ivar status: The final status; 0 when there was none.
    :ivar connect_status: The proxy's answer to the last CONNECT; 0 for none.
    :ivar connections: How many connections curl made.
    :ivar head: The heads of all responses, as they came.
    :ivar errors: What curl said.
    """

    exit_code: int
    status: int
    connect_status: int
    connections: int
    head: str
    content: bytes = field(repr=False)
    errors: str

    @property
    def sha256(self) -> str:
        """The hash of the content."""
        return hashlib.sha256(self.content).hexdigest()

    def json(self) -> Any:
        """The content, read as JSON."""
        return json.loads(self.content)


def run(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    directory: Path | None = None,
) -> Completed:
    """
    Run *command* to its end, in a clean environment.

    :param environment: Variables to add to it.
    """
    done = subprocess.run(
        command,
        env=clean_environment(**(environment or {})),
        cwd=directory or workspace(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
    )
    return Completed(done.returncode, done.stdout, done.stderr.decode(errors="replace"))


def run_deferred(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    directory: Path | None = None,
) -> Deferred[Completed]:
    """As :func:`run`, while the reactor serves what the program talks to."""
    return threads.deferToThread(run, command, environment, timeout, directory)


def curl(
    url: str,
    *options: str,
    environment: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> Answer:
    """
    Run curl, which trusts our authority, for origins and for proxies.

    :param options: As one types them.  Further URLs among them are asked for after
        *url*, and their content goes where an ``-o`` of theirs says; the answer
        is that to the last of them.
    :param environment: Variables to add to a clean environment.
    """
    [program] = require("curl")
    stem = workspace() / f"curl-{next(_numbers)}"
    head, body = stem.with_suffix(".head"), stem.with_suffix(".body")
    done = run(
        [
            *(program, "-q", "-sS", "--max-time", str(timeout)),
            *("--cacert", str(authority().ca), "--proxy-cacert", str(authority().ca)),
            *("-D", str(head), "-o", str(body)),
            *("-w", "%{http_code} %{http_connect} %{num_connects}\n"),
            *(*options, url),
        ],
        environment,
        timeout + 10,
    )
    # One line for each URL: the last one is what counts.
    last = done.output.splitlines()[-1]
    status, connect_status, connections = map(int, last.split())
    answer = Answer(
        exit_code=done.exit_code,
        status=status,
        connect_status=connect_status,
        connections=connections,
        head=head.read_bytes().decode("latin-1") if head.exists() else "",
        content=body.read_bytes() if body.exists() else b"",
        errors=done.errors,
    )
    head.unlink(missing_ok=True)
    body.unlink(missing_ok=True)
    return answer


def curl_deferred(
    url: str,
    *options: str,
    environment: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> Deferred[Answer]:
    """As :func:`curl`, while the reactor serves what curl talks to."""
    return threads.deferToThread(
        curl, url, *options, environment=environment, timeout=timeout
    )


def curl_many(
    url: str,
    number: int,
    *options: str,
    timeout: float = 60.0,
) -> list[Answer]:
    """
    Run one curl that asks *number* times at once, on as many connections.

    :param url: Without a query: it gets one, a number.
    :param options: As one types them.
    :returns: The answers, without heads and messages, in the order of their ends.
    """
    [program] = require("curl")
    directory = workspace() / f"curl-{next(_numbers)}"
    directory.mkdir()
    written = (
        "%{exitcode} %{http_code} %{http_connect} %{num_connects} %{filename_effective}"
    )
    done = run(
        [
            *(program, "-q", "-sS", "--max-time", str(timeout)),
            *("--cacert", str(authority().ca), "--proxy-cacert", str(authority().ca)),
            *("--parallel", "--parallel-immediate", "--parallel-max", str(number)),
            *("-o", f"{directory}/#1", "-w", f"{written}\\n"),
            *(*options, f"{url}?[1-{number}]"),
        ],
        timeout=timeout + 10,
    )
    answers = []
    for line in done.output.decode().splitlines():
        *numbers, name = line.split(" ", 4)
        exit_code, status, connect_status, connections = map(int, numbers)
        body = Path(name)
        answers.append(
            Answer(
                exit_code=exit_code,
                status=status,
                connect_status=connect_status,
                connections=connections,
                head="",
                content=body.read_bytes() if name and body.exists() else b"",
                errors=done.errors,
            )
        )
    shutil.rmtree(directory)
    return answers


def proxy_options(
    proxy: str, scheme: str = "", user: str = "", password: str = ""
) -> list[str]:
    """
    Options of curl's for a proxy that asks for *scheme*.

    :param proxy: The proxy's URL.
    :param scheme: ``basic``, ``digest``, ``ntlm``, ``negotiate``, ``anyauth``; empty
        for none.  Negotiate takes the user from the ticket cache.
    """
    options = ["--proxy", proxy]
    if scheme:
        options.append(f"--proxy-{scheme}")
        # curl undoes percent-encoding here, though not in --user.
        options += [
            "--proxy-user",
            f"{quote(user, safe='')}:{quote(password, safe='')}",
        ]
    return options
