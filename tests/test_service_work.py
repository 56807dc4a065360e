"""
How much the service does for a request.

Writes, timers, calls of the package's own functions and rubbish for the collector
are counted, not time, so that the figures are the same on every machine.  The limits
stand a little above what was counted when they were written; whoever makes it
cheaper lowers them.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import coda_twisted
from tests.front import Caller, FrontCase
from tests.wire import Peer

PACKAGE = str(Path(coda_twisted.__file__).parent)
ROUNDS = 100

FUNCTION_CALLS = 136
"""Without comprehensions, which newer versions of Python do not call."""

REQUEST = (
    b"GET http://site/path HTTP/1.1\r\nHost: site\r\nUser-Agent: curl/8.5\r\n"
    b"Accept: */*\r\nAccept-Encoding: gzip\r\n\r\n"
)
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nDate: Wed, 25 Nov 2026 08:00:00 GMT\r\nServer: any\r\n"
    b'Content-Type: text/plain\r\nETag: "1"\r\nContent-Length: 1024\r\n\r\n'
    + bytes(1024)
)
CONNECT = b"CONNECT site:443 HTTP/1.1\r\nHost: site:443\r\n\r\n"


class WorkTests(FrontCase):
    """What one request, and one tunnel, may cost, once connections are there."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy.access_log = None
        self.counts: Counter[str] = Counter()

    def count_calls(self, owner: Any, method: str, name: str) -> None:
        """Count under *name* how often a method of *owner* is called from now on."""
        original = getattr(owner, method)

        def counted(*arguments: Any, **more: Any) -> Any:
            self.counts[name] += 1
            return original(*arguments, **more)

        setattr(owner, method, counted)

    def count_writes(self, transport: Any, name: str) -> None:
        self.count_calls(transport, "write", name)
        self.count_calls(transport, "writeSequence", name)

    def warm(self) -> tuple[Caller, Peer]:
        """Have the connections to a client and a server that a request goes over."""
        caller = self.caller()
        self.exchange(caller, None)
        return caller, self.wire.peers[0]

    def exchange(self, caller: Caller, peer: Peer | None) -> None:
        """Carry one request and its answer."""
        caller.send(REQUEST)
        (peer or self.wire.peers[0]).send(RESPONSE)
        self.loop.turn()

    def test_writes(self) -> None:
        """A request is one write to the server, its answer one to the client."""
        caller, peer = self.warm()
        self.count_writes(peer.transport, "up")
        self.count_writes(caller.protocol.transport, "down")

        for _ in range(ROUNDS):
            self.exchange(caller, peer)

        self.assertEqual(len(self.wire.peers), 1)
        self.assertEqual(caller.statuses, [200] * (ROUNDS + 1))
        self.assertEqual(self.counts["up"], ROUNDS)
        self.assertLessEqual(self.counts["down"], ROUNDS)

    def test_timers(self) -> None:
        """Timers are moved, not made anew for each phase of each request."""
        caller, peer = self.warm()
        self.count_calls(self.loop, "callLater", "timers")

        for _ in range(ROUNDS):
            self.exchange(caller, peer)

        self.assertLessEqual(self.counts["timers"] / ROUNDS, 0.1)

    def test_function_calls(self) -> None:
        """So many of the package's own functions are called for a request."""
        caller, peer = self.warm()

        calls = self.profile(lambda: self.exchange(caller, peer))

        self.assertEqual(caller.statuses, [200, 200])
        self.assertLessEqual(calls.total(), FUNCTION_CALLS, calls.most_common())

    def test_no_rubbish(self) -> None:
        """A request leaves nothing that only the cyclic collector can free."""
        caller, peer = self.warm()
        self.addCleanup(gc.enable)
        gc.disable()
        while gc.collect():  # what other tests have left
            pass

        for _ in range(ROUNDS):
            self.exchange(caller, peer)

        # Fewer than one for each: other tests may leave a few behind.
        self.assertLess(gc.collect(), ROUNDS)

    def test_nothing_kept(self) -> None:
        """What a request needed is gone with it."""
        caller, peer = self.warm()
        gc.collect()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.exchange(caller, peer)  # what the latest has left may stay
        before = tracemalloc.take_snapshot()

        for _ in range(ROUNDS):
            self.exchange(caller, peer)

        gc.collect()
        ours = [tracemalloc.Filter(True, f"{PACKAGE}/*")]
        after = tracemalloc.take_snapshot().filter_traces(ours)
        grown = after.compare_to(before.filter_traces(ours), "lineno")
        self.assertLess(sum(each.count_diff for each in grown), ROUNDS / 4, grown[:5])

    def test_tunnel(self) -> None:
        """A tunnel's own content costs a write for each read, and no timer."""
        caller = self.caller()
        caller.send(CONNECT)
        [peer] = self.wire.peers
        peer.tunnel = b""
        self.count_writes(peer.transport, "up")
        self.count_writes(caller.protocol.transport, "down")
        self.count_calls(self.loop, "callLater", "timers")

        for _ in range(ROUNDS):
            caller.more(b"ping")
            peer.send(b"pong")
            self.loop.turn()

        self.assertEqual(self.counts, {"up": ROUNDS, "down": ROUNDS})

    def profile(self, work: Any) -> Counter[str]:
        """Count the calls of the package's own functions."""
        calls: Counter[str] = Counter()

        def note(frame: FrameType, event: str, argument: Any) -> None:
            name = frame.f_code.co_name
            if (
                event == "call"
                and frame.f_code.co_filename.startswith(PACKAGE)
                and not name.startswith("<")
            ):
                calls[name] += 1

        sys.setprofile(note)
        try:
            work()
        finally:
            sys.setprofile(None)
        return calls
