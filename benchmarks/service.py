"""What concerns our service alone: its start, its idle tunnels, its workers."""

from __future__ import annotations

import contextlib
import http.client
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.cpu import tree_ns, tree_pids
from benchmarks.descriptors import allowed
from benchmarks.loader import Loader
from coda_twisted.service.options import Options
from tests.integration.coda import CodaProxy
from tests.integration.servers import CHECKOUT, ServerError, python_environment

__all__ = ["has_workers", "idle", "imports", "start", "workers"]

# The service is then what is busy, not the load generator and the origin server,
# which need a part of the same processors.
BUSY_FIELDS = 80

IMPORTS = """
import time
from twisted.internet import reactor, ssl
from twisted.web import client
begin = time.perf_counter()
import coda_twisted
coda_twisted.Agent(reactor)
print(time.perf_counter() - begin)
"""


def start(bench: Bench) -> None:
    """Take the time from the start to the first served request."""
    bench.say("start to first served request")
    for _ in range(2 * bench.scale.rounds + 1):
        proxy = CodaProxy("-q", trust=False)
        begin = time.perf_counter()
        process = subprocess.Popen(
            proxy.command,
            env=proxy.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not _serves(proxy.port, bench.origin.http):
                if process.poll() is not None or time.perf_counter() > begin + 20:
                    raise ServerError("the service did not start")
                time.sleep(0.002)
            bench.figures.add("coda", "start_s", time.perf_counter() - begin)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _serves(port: int, origin: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", f"http://127.0.0.1:{origin}/1k")
        response = connection.getresponse()
        return response.status == 200 and len(response.read()) == 1024
    except OSError:
        return False
    finally:
        connection.close()


def imports(bench: Bench) -> None:
    """Take the time to import the library once Twisted's own client is imported."""
    bench.say("import")
    for _ in range(2 * bench.scale.rounds + 1):
        done = subprocess.run(
            [sys.executable, "-c", IMPORTS],
            cwd=CHECKOUT,
            env=python_environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        bench.figures.add("import coda_twisted", "import_s", float(done.stdout))


def idle(bench: Bench) -> None:
    """Hold idle tunnels: what each needs of memory, and all of the processor."""
    # The service has two for each tunnel.
    count = min(bench.scale.tunnels, (allowed() - 500) // 2)
    bench.say(f"{count} idle tunnels")
    proxy = CodaProxy("-q", trust=False)
    proxy.start()
    try:
        _hold(bench, proxy, 50, 0)
        before = pss_kib(proxy.pid)
        after, used = _hold(bench, proxy, count, 3)
        bench.figures.add("coda, idle", "idle_kib", (after - before) / count)
        bench.figures.add("coda, idle", "idle_count", count)
        bench.figures.add("coda, idle", "idle_cpu", used / 3e6)
    except ServerError as error:
        bench.figures.fault("coda, idle", str(error))
    finally:
        proxy.stop()


def _hold(
    bench: Bench, proxy: CodaProxy, count: int, seconds: float
) -> tuple[float, int]:
    loader = Loader(
        *("idle", bench.origin.echo, "--proxy", proxy.port, "--connections", count),
        patience=120,
    )
    loader.await_ready()
    loader.go()
    loader.await_ready()
    time.sleep(0.5)
    begin = tree_ns(proxy.pid)
    time.sleep(seconds)
    used = tree_ns(proxy.pid) - begin
    memory = pss_kib(proxy.pid)
    loader.go()
    faults = loader.result()["faults"]
    if faults:
        raise ServerError(f"idle tunnels: {faults}")
    return memory, used


def pss_kib(root: int) -> float:
    """Add up the proportional set size of a process and its children, in KiB."""
    total = 0.0
    for pid in tree_pids(root):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += sum(map(float, re.findall(r"^Pss:\s+(\d+) kB", rollup, re.M)))
    return total


def has_workers() -> bool:
    """Whether this version of the service has the option ``--workers``."""
    parameters: Any = Options.optParameters
    return any(each[0] == "workers" for each in parameters)


def workers(bench: Bench) -> None:
    """Load one worker and two, in turns."""
    if not has_workers():
        bench.notes.append("workers: this version of the service has no --workers")
        return
    rows = {"coda, 1 worker": 1, "coda, 2 workers": 2}
    proxies = {}
    for row, number in rows.items():
        proxies[row] = CodaProxy("-q", "--workers", str(number), trust=False)
        proxies[row].start()
    try:
        for number in range(bench.scale.rounds):
            bench.say(f"workers, round {number + 1} of {bench.scale.rounds}")
            for row, proxy in proxies.items():
                _busy(bench, row, proxy, rows[row])
    finally:
        for proxy in proxies.values():
            proxy.stop()


def _busy(bench: Bench, row: str, proxy: CodaProxy, number: int) -> None:
    loader = Loader(
        *("get", bench.origin.http, "--proxy", proxy.port, "--connections", 32),
        *("--extra", BUSY_FIELDS, "--seconds", bench.scale.seconds),
    )
    loader.await_ready()
    before = tree_ns(proxy.pid)
    loader.go()
    result = loader.result()
    used = tree_ns(proxy.pid) - before
    for what, count in result["faults"].items():
        bench.figures.fault(row, what, count)
    if result["done"]:
        bench.figures.add(row, "busy_rate", result["done"] / result["seconds"])
        each = used / result["done"] / 1000
        bench.figures.add(row, "busy_us", each)
        bench.figures.add(row, "capacity", number * 1e6 / each)
