"""What one request costs a program that uses a library, each in a fresh process."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

from benchmarks.bench import Bench
from benchmarks.clients import CLIENTS
from tests.integration.servers import CHECKOUT, python_environment

__all__ = ["measure", "missing", "present"]


def missing() -> list[str]:
    """Name the modules that are not installed."""
    modules = {client.module for client in CLIENTS.values()}
    return sorted(name for name in modules if importlib.util.find_spec(name) is None)


def present() -> list[str]:
    """Name the clients that can be measured."""
    gone = missing()
    return [name for name, client in CLIENTS.items() if client.module not in gone]


def measure(bench: Bench) -> None:
    """Have each library make the same requests, round by round."""
    bench.missing.extend(f"{name}: pip install {name}" for name in missing())
    url = f"http://127.0.0.1:{bench.origin.http}/1k"
    for number in range(bench.scale.rounds):
        bench.say(f"libraries, round {number + 1} of {bench.scale.rounds}")
        for name in present():
            command = [sys.executable, "-m", "benchmarks.clients", name, url]
            try:
                done = subprocess.run(
                    [*command, str(bench.scale.requests)],
                    cwd=CHECKOUT,
                    env=python_environment(),
                    capture_output=True,
                    text=True,
                    timeout=90,
                )
            except subprocess.TimeoutExpired:
                bench.figures.fault(name, "too slow")
                continue
            if done.returncode:
                lines = done.stderr.strip().splitlines()
                bench.figures.fault(name, lines[-1] if lines else "failed")
                continue
            cpu = json.loads(done.stdout.splitlines()[-1])
            bench.figures.add(name, "request_us", cpu / bench.scale.requests / 1000)
