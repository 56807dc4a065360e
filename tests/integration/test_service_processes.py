"""
The service's processes: how they share the port, are replaced, and end.

What is under test is a process and its children; they are killed, stopped and sent
signals as an administrator would, and found by what the system knows of them.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.service.listening import shared_sockets, shares_ports
from tests.integration import squid
from tests.integration.coda import CodaProxy, in_front_of
from tests.integration.commands import curl_many, run
from tests.integration.people import ALICE, WRONG_PASSWORD
from tests.integration.raw import Wire
from tests.integration.servers import has_ipv6, python_environment, workspace
from tests.integration.test_service_behaviour import BehaviourCase

LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
os.execv(sys.argv[3], sys.argv[3:])
"""

SOON = 1.0
"""Seconds within which a worker must be back, on a machine that is not overloaded."""


def children(pid: int) -> set[int]:
    """The processes that *pid* has started."""
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        raise SkipTest("this system does not list a process's children") from None
    return {int(each) for each in listed.split()}


def alive(pid: int) -> bool:
    """Whether a process is there, and not only its exit status."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def soon() -> float:
    """As SOON; where Python takes long to begin, three times as long as it takes."""
    began = time.monotonic()
    code = "import coda_twisted.service.worker, twisted.internet.reactor"
    subprocess.run([sys.executable, "-c", code], env=python_environment(), check=True)
    return max(SOON, 3 * (time.monotonic() - began))


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> float:
    """Wait until something is true; how long that took."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not true after {seconds} s: {true}")
        time.sleep(0.01)
    return time.monotonic() - began


class ProcessesCase(BehaviourCase):
    """A service with workers."""

    def setUp(self) -> None:
        super().setUp()
        if not shares_ports():
            raise SkipTest("this system cannot share a port among processes")

    def serve(self, *options: str) -> None:
        """Start a service whose workers are ready."""
        self.own_service(*options)
        [count] = [each for each in options if each.startswith("--workers=")]
        self.count = int(count.partition("=")[2])
        eventually(self.settled)

    def settled(self) -> bool:
        """Whether as many workers accept as there should be, and no others live."""
        started = re.findall(r"worker (\d+): Proxy starting", self.service.log())
        return len(self.workers) == self.count and len(started) >= self.count

    @property
    def workers(self) -> set[int]:
        """The workers' process ids."""
        return children(self.service.pid)

    def get(self, path: str = "/octets/9") -> int:
        """Ask the origin on a new connection; the status."""
        return self.ask("GET", path, authority=self.at_origin())[0].status

    def at_origin(self, port: int | None = None) -> str:
        """The origin server's authority, without a name to resolve."""
        return f"127.0.0.1:{port or self.origin.port}"

    def holder(self, wire: Wire) -> int:
        """The worker that has the other end of a connection."""
        ends = self.service.port, wire.socket.getsockname()[1]
        [inode] = [
            fields[9]
            for fields in map(str.split, Path("/proc/net/tcp").read_text().splitlines())
            if tuple(int(each[-4:], 16) for each in fields[1:3] if ":" in each) == ends
        ]
        for worker in self.workers:
            for each in Path(f"/proc/{worker}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if os.readlink(each) == f"socket:[{inode}]":
                        return worker
        raise AssertionError("nobody has it")


class SocketTests(SynchronousTestCase):
    """Sockets that share a port."""

    def share(self, address: str, port: int, count: int) -> list[socket.socket]:
        if not shares_ports():
            raise SkipTest("this system cannot share a port among processes")
        made = shared_sockets(address, port, count, 64)
        for each in made:
            self.addCleanup(each.close)
        return made

    def test_any_port(self) -> None:
        """Where any port will do all get the same."""
        for address in ("127.0.0.1", *(("::1",) if has_ipv6() else ())):
            ports = {each.getsockname()[1] for each in self.share(address, 0, 4)}
            self.assertEqual(len(ports), 1)
            self.assertNotIn(0, ports)

    def test_alone(self) -> None:
        """Nobody else gets a port that is shared, nor does one that is taken."""
        [first, *_] = self.share("127.0.0.1", 0, 2)
        port = first.getsockname()[1]
        self.assertRaises(OSError, self.share, "127.0.0.1", port, 2)
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = other.getsockname()[1]
            self.assertRaises(OSError, self.share, "127.0.0.1", taken, 1)

    def test_spread(self) -> None:
        """
        Connections are spread evenly.

        A hash of the addresses decides; that a fair one is off by more than half for
        one of four has a probability below 1e-6.
        """
        sockets = self.share("127.0.0.1", 0, 4)
        port = sockets[0].getsockname()[1]
        clients = []
        got: Counter[int] = Counter()
        for _ in range(400):
            clients.append(socket.create_connection(("127.0.0.1", port)))
            for number, each in enumerate(sockets):
                with contextlib.suppress(BlockingIOError):
                    clients.append(each.accept()[0])
                    got[number] += 1
        for client in clients:
            client.close()
        self.assertEqual(got.total(), 400)
        self.assertTrue(all(50 < n < 150 for n in got.values()), got)


class WorkerTests(ProcessesCase):
    """Workers serve, die, and are replaced."""

    def test_serve(self) -> None:
        """Requests and tunnels are served, by all of them; ids and Via are unique."""
        self.serve("--workers=3")
        for _ in range(60):
            self.assertEqual(self.get("/echo"), 200)
        lines = self.service.requests()
        self.assertEqual(len({each.id for each in lines}), 60)
        self.assertEqual(len({each.id.partition("-")[0] for each in lines}), 3)
        names = {str(each.get("Via")) for each in self.origin.requests()}
        self.assertEqual(len(names), 1, names)
        client, server = self.tunnel()
        client.send(b"ping")
        self.assertEqual(server.exactly(4), b"ping")

    def test_loop(self) -> None:
        """A request that comes back to another worker is known to be a loop."""
        self.serve("--workers=3")
        self.get("/echo")
        [request] = self.origin.requests()
        via = f"Via: {request.get('Via')}"
        for _ in range(20):
            head, _ = self.ask("GET", "/", via, authority="192.0.2.1")
            self.assertEqual(head.status, 508)

    def test_port_in_use(self) -> None:
        """Another service does not get in at the same port, with workers or without."""
        self.serve("--workers=2")
        for options in (("--workers=2",), ()):
            other = CodaProxy(*options, port=self.service.port)
            done = run(other.command, other.environment)
            self.assertNotEqual(done.exit_code, 0)
            text = f"{done.output.decode()}\n{done.errors}"
            [line] = [each for each in text.splitlines() if "cannot listen" in each]
            self.assertIn("Address already in use", line)
            self.assertNotIn("Traceback", text)

    def test_killed(self) -> None:
        """One that is killed is back within a second; the others' streams go on."""
        self.serve("--workers=2")
        tunnels = [self.tunnel() for _ in range(16)]
        by_worker: dict[int, list[tuple[Wire, Wire]]] = {}
        for each in tunnels:
            by_worker.setdefault(self.holder(each[0]), []).append(each)
        self.assertEqual(set(by_worker), self.workers)
        victim, *_ = by_worker
        os.kill(victim, signal.SIGKILL)
        slowest = 0.0
        for _ in range(30):  # some are queued where nobody is yet
            asked = time.monotonic()
            self.assertEqual(self.get(), 200)
            slowest = max(slowest, time.monotonic() - asked)
        self.assertLess(slowest, soon())
        eventually(lambda: len(self.workers - set(by_worker)) == 1)
        for worker, pairs in by_worker.items():
            for client, server in pairs:
                if worker == victim:
                    self.assertLess(client.seconds_to_end(), SOON)
                else:
                    client.send(b"still here")
                    self.assertEqual(server.exactly(10), b"still here")
        self.assertIn("was killed by signal 9; another takes its place now", self.log())

    def log(self) -> str:
        return self.service.log()

    def test_queued(self) -> None:
        """What waits to be accepted by one that dies is served by its successor."""
        self.serve("--workers=1")
        [worker] = self.workers
        os.kill(worker, signal.SIGSTOP)
        clients = [self.client() for _ in range(20)]
        for client in clients:
            client.send(self.request("GET", "/octets/9", authority=self.at_origin()))
        os.kill(worker, signal.SIGKILL)
        began = time.monotonic()
        for client in clients:
            head, _ = client.response()
            self.assertEqual(head.status, 200)
        self.assertLess(time.monotonic() - began, soon())

    def test_asked_to_end(self) -> None:
        """One that gets SIGTERM by itself has a successor before it goes."""
        self.serve("--workers=1")
        [worker] = self.workers
        client, server, _ = self.exchange(self.request())
        os.kill(worker, signal.SIGTERM)
        eventually(lambda: "Port" in self.service.log())
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        head, content = client.response()
        self.assertEqual((content, head.get("Connection")), (b"ok", "close"))
        eventually(lambda: not alive(worker))
        self.assertEqual(self.get(), 200)

    def test_orphans(self) -> None:
        """When the main process is killed the workers end too."""
        self.serve("--workers=3")
        self.tunnel()
        workers = self.workers
        os.kill(self.service.pid, signal.SIGKILL)
        eventually(lambda: not any(map(alive, workers)), 2)

    def test_secrets(self) -> None:
        """A worker shows the password nowhere, and runs no code of who starts it."""
        proxy = squid.proxy("basic")
        proxy.reset()
        self.service = CodaProxy(
            *("--proxy", proxy.url, "--user", ALICE.name, "--workers=1"),
            environment={"CODA_PROXY_PASSWORD": ALICE.password},
        )
        self.service.start()
        self.addCleanup(self.service.stop)
        self.assertEqual(self.get(), 200)
        [worker] = self.workers
        for name in ("cmdline", "environ"):
            shown = Path(f"/proc/{worker}/{name}").read_bytes()
            self.assertNotIn(ALICE.password.encode(), shown)
        self.assertEqual(proxy.failed_logons(), 0)

    def test_wrong_password(self) -> None:
        """With four workers a wrong password costs one failed logon all the same."""
        for scheme in ("basic", "digest", "ntlm", "negotiate"):
            proxy = squid.proxy(scheme)
            proxy.reset()
            self.service = in_front_of(proxy, ALICE, WRONG_PASSWORD)
            self.service.command += ["--workers=4"]
            self.service.start()
            self.addCleanup(self.service.stop)
            self.count = 4
            eventually(self.settled)
            self.refused(100)
            ids = {each.id.partition("-")[0] for each in self.service.requests()}
            self.assertEqual(len(ids), 4)
            self.assertEqual(proxy.failed_logons(), 1, scheme)
            os.kill(self.service.pid, signal.SIGHUP)
            eventually(lambda: self.log().count("Proxy starting") == 8)
            self.refused(40)
            self.assertEqual(proxy.failed_logons(), 1, scheme)
            self.service.stop()

    def refused(self, count: int) -> None:
        """Ask so often at once; all are told that the password is refused."""
        answers = curl_many(self.origin.url(), count, "--proxy", self.service.url)
        self.assertEqual(Counter(each.status for each in answers), {502: count})

    def test_cannot_begin(self) -> None:
        """A worker that ends again and again is started more and more seldom."""
        self.serve("--workers=1")
        for expected in ("place now", "place in 0.5 s", "place in 1 s"):
            eventually(lambda: bool(self.workers))
            [worker] = self.workers
            os.kill(worker, signal.SIGKILL)
            eventually(lambda text=expected: text in self.log())  # type: ignore[misc]
        self.assertLess(eventually(lambda: self.get() == 200), 3)


class ReloadTests(ProcessesCase):
    """SIGHUP."""

    def reload(self) -> None:
        os.kill(self.service.pid, signal.SIGHUP)

    def test_ten(self) -> None:
        """Clients see none of ten reloads; keep-alives are told that they end."""
        self.serve("--workers=2")
        failures: list[str] = []
        answered: Counter[str] = Counter()
        enough = threading.Event()
        request = self.request("GET", "/octets/9", authority=self.at_origin())

        def new_connections() -> None:
            while not enough.is_set():
                with contextlib.closing(Wire.to(self.service.port)) as wire:
                    wire.send(request)
                    answered["new", wire.response()[0].status] += 1  # type: ignore[index]

        def kept_alive(pause: float) -> None:
            wire = Wire.to(self.service.port)
            while not enough.is_set():
                wire.send(request)
                head, _ = wire.response()
                answered["kept", head.status] += 1  # type: ignore[index]
                if head.get("Connection") == "close":
                    answered["told"] += 1
                    wire.close()
                    wire = Wire.to(self.service.port)
                time.sleep(pause)
            wire.close()

        def noting(loop: Callable[..., None], *arguments: float) -> None:
            try:
                loop(*arguments)
            except Exception as error:
                failures.append(f"{loop.__name__}: {error!r}")

        first = self.workers
        threads = [threading.Thread(target=noting, args=[new_connections])]
        threads += [
            threading.Thread(target=noting, args=[kept_alive, pause])
            for pause in (0.0, 0.05, 0.7)
        ]
        for thread in threads:
            thread.start()
        try:
            for number in range(10):
                self.reload()
                started = 2 * (number + 2)
                eventually(
                    lambda n=started: self.service.log().count("Proxy starting") >= n  # type: ignore[misc]
                )
        finally:
            time.sleep(1)
            enough.set()
            for thread in threads:
                thread.join()
        self.assertEqual(failures, [])
        self.assertEqual({key[1] for key in answered if isinstance(key, tuple)}, {200})
        self.assertGreater(answered["told"], 5)
        eventually(self.settled)
        self.assertFalse(first & self.workers)

    def test_again_at_once(self) -> None:
        """SIGHUPs that come faster than workers begin lose nothing either."""
        self.serve("--workers=2")
        for _ in range(10):
            self.reload()
            self.assertEqual(self.get(), 200)
        eventually(self.settled)
        self.assertEqual(self.get(), 200)

    def test_tunnel_stays(self) -> None:
        """A tunnel outlives the reload; the worker that has it ends with it."""
        self.serve("--workers=1")
        client, server = self.tunnel()
        [before] = self.workers
        self.reload()
        eventually(lambda: len(self.workers) == 2)
        eventually(lambda: "Port" in self.service.log())
        client.send(b"ping")
        self.assertEqual(server.exactly(4), b"ping")
        client.close()
        server.close()
        eventually(lambda: not alive(before))

    def test_password(self) -> None:
        """A password that was changed in its file is used, with workers or without."""
        proxy = squid.proxy("basic")
        for options in (("--workers=2",), ()):
            proxy.reset()
            file = workspace() / "password-reloaded"
            file.write_text(f"{WRONG_PASSWORD}\n")
            self.own_service(
                *("--proxy", proxy.url, "--user", ALICE.name, *options),
                *("--password-file", str(file)),
            )
            self.assertEqual(self.get(), 502)
            file.write_text(f"{ALICE.password}\n")
            self.reload()
            if options:  # each place changes by itself
                eventually(lambda: self.service.log().count("Proxy starting") == 4)
            eventually(lambda: self.get() == 200)
            self.assertEqual(proxy.failed_logons(), 1)
            file.unlink()
            self.reload()
            eventually(lambda: "nothing was reloaded" in self.service.log())
            self.assertEqual(self.get(), 200)
            self.service.stop()

    def test_in_one_process(self) -> None:
        """Without workers what is under way goes on, on the old connection."""
        self.own_service("--proxy", squid.proxy("none").url)
        self.own_service()
        client, server, _ = self.exchange(self.request())
        tunnel = self.tunnel()
        self.reload()
        eventually(lambda: "read again" in self.service.log())
        self.assertEqual(self.get(), 200)
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        self.assertEqual(client.response()[1], b"ok")
        self.assertLess(server.seconds_to_end(), SOON)  # nobody needs it any more
        tunnel[0].send(b"ping")
        self.assertEqual(tunnel[1].exactly(4), b"ping")


class StopTests(ProcessesCase):
    """SIGTERM, with workers and without."""

    def each(self) -> list[tuple[str, ...]]:
        return [("--workers=2",), ()]

    def stop(self) -> None:
        os.kill(self.service.pid, signal.SIGTERM)

    def refused(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.service.port), 1).close()
        except ConnectionRefusedError:
            return True
        return False

    def test_in_flight(self) -> None:
        """What is under way ends in good order; nothing new begins."""
        for options in self.each():
            self.own_service(*options)
            begun, server, _ = self.exchange(self.request())
            slow, slow_server, _ = self.exchange(self.request())
            slow_server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhal")
            self.assertEqual(slow.head().get("Connection"), None)
            idle = self.client()
            idle.send(self.request("GET", "/octets/9", authority=self.at_origin()))
            idle.response()
            self.stop()
            eventually(self.refused)
            self.assertLess(idle.seconds_to_end(), 2)
            self.assertTrue(self.service.running)
            server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            head, content = begun.response()
            self.assertEqual((head.get("Connection"), content), ("close", b"ok"))
            slow_server.send(b"ves")
            self.assertEqual(slow.exactly(6), b"halves")
            self.assertLess(slow.seconds_to_end(), 2)
            eventually(lambda: not self.service.running)
            self.assertNotIn("cut", self.service.log())

    def test_drained(self) -> None:
        """When the time is over what is left is cut, tunnels too."""
        for options in self.each():
            self.own_service("--drain-timeout=1", *options)
            client, _, _ = self.exchange(self.request())
            tunnel, _ = self.tunnel()
            began = time.monotonic()
            self.stop()
            client.seconds_to_end()
            tunnel.seconds_to_end()
            eventually(lambda: not self.service.running)
            self.assertTrue(0.9 < time.monotonic() - began < 3)

    def test_twice(self) -> None:
        """A second signal cuts at once; the program ends as it should."""
        for options in self.each():
            for number in (signal.SIGTERM, signal.SIGINT):
                self.own_service(*options)
                tunnel, _ = self.tunnel()
                self.stop()
                eventually(lambda: "second signal" in self.service.log())
                os.kill(self.service.pid, number)
                self.assertLess(tunnel.seconds_to_end(), SOON)
                eventually(lambda: not self.service.running, 2)
                self.assertIn("Server Shut Down", self.service.log())

    def test_group(self) -> None:
        """A signal to all of the processes, as a terminal's, ends them as well."""
        self.serve("--workers=2")
        begun, server, _ = self.exchange(self.request())
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            if number != signal.SIGTERM:
                for worker in self.workers:
                    os.kill(worker, number)
        os.killpg(self.service.pid, signal.SIGTERM)
        eventually(self.refused)
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        self.assertEqual(begun.response()[1], b"ok")
        eventually(lambda: not self.service.running)

    def test_load(self) -> None:
        """Under load every request that was begun is answered."""
        for options in self.each():
            self.own_service(*options)
            outcomes: Counter[str] = Counter()

            def ask(outcomes: Counter[str] = outcomes) -> None:
                request = self.request("GET", "/octets/999", authority=self.at_origin())
                while True:
                    try:
                        wire = Wire.to(self.service.port)
                    except OSError:
                        return
                    with contextlib.closing(wire):
                        try:
                            wire.send(request)
                            status = wire.response()[0].status
                        except (OSError, EOFError):
                            # It was in the queue of a port that closed.
                            outcomes["not accepted"] += 1
                            continue
                        outcomes[str(status)] += 1

            threads = [threading.Thread(target=ask) for _ in range(8)]
            for thread in threads:
                thread.start()
            time.sleep(0.5)
            self.stop()
            for thread in threads:
                thread.join()
            eventually(lambda: not self.service.running)
            self.assertLessEqual(outcomes.pop("not accepted", 0), 8)
            self.assertEqual(set(outcomes), {"200"})


class DescriptorTests(ProcessesCase):
    """File descriptors."""

    LIMIT = 128

    def limited(self, *options: str) -> None:
        """Start a service that may have few descriptors."""
        self.service = CodaProxy(*options)
        self.service.command = [
            *(sys.executable, "-c", LIMITED, str(self.LIMIT // 2), str(self.LIMIT)),
            *self.service.command,
        ]
        self.service.start()
        self.addCleanup(self.service.stop)

    def test_limit(self) -> None:
        """The soft limit is raised to the hard one."""
        self.limited()
        limits = Path(f"/proc/{self.service.pid}/limits").read_text()
        found = re.search(r"Max open files\s+(\d+)\s+(\d+)", limits)
        assert found is not None
        self.assertEqual(found.groups(), (str(self.LIMIT), str(self.LIMIT)))

    def test_shortage(self) -> None:
        """Who is served goes on; others wait, unharmed, until there is room."""
        for options in ((), ("--workers=1",)):
            self.limited(*options)
            first = self.tunnel()
            crowd = [self.client() for _ in range(self.LIMIT)]
            request = self.request("GET", "/octets/9", authority=self.at_origin())
            eventually(lambda: "no file descriptors left" in self.service.log())
            first[0].send(b"ping")
            self.assertEqual(first[1].exactly(4), b"ping")
            busy = self.cpu()
            time.sleep(1)
            self.assertLess(self.cpu() - busy, 0.3)
            for client in crowd:
                client.send(request)
                head, _ = client.response()
                self.assertEqual(head.status, 200)
                client.close()
            self.assertEqual(self.get(), 200)
            log = self.service.log()
            self.assertEqual(log.count("no file descriptors left"), 1)
            self.assertNotIn("EMFILE", log)
            self.service.stop()

    def cpu(self) -> float:
        """Seconds of processor that the service has used, its workers too."""
        ticks = 0
        for pid in {self.service.pid} | self.workers:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def test_none_to_connect(self) -> None:
        """A client hears of it when none is left to connect upstream with."""
        self.limited()
        client = self.client()
        client.send(self.request("GET", "/octets/9", authority=self.at_origin()))
        self.assertEqual(client.response()[0].status, 200)
        used = len(list(Path(f"/proc/{self.service.pid}/fd").iterdir()))
        # As if others had taken the rest.
        few = (used - 2, self.LIMIT)
        resource.prlimit(self.service.pid, resource.RLIMIT_NOFILE, few)
        for method, target in (("GET", None), ("CONNECT", None)):
            client.send(self.request(method, "/", authority=target))
            head, content = client.response()
            self.assertEqual(head.status, 503)
            self.assertIn(b"no file descriptors left", content)
            self.assertIn("coda", str(head.get("Proxy-Status")))
        resource.prlimit(
            self.service.pid, resource.RLIMIT_NOFILE, (self.LIMIT, self.LIMIT)
        )
        self.assertEqual(self.get(), 200)
