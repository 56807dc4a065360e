"""Synapse's and Sygnal's agents, without a network."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import TimeoutError as TwistedTimeoutError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import HTTPConnectionPool

from coda_twisted.adapters import matrix, sygnal, synapse
from coda_twisted.errors import PhaseTimeout
from coda_twisted.routing.noproxy import NoProxy


class FakeClient:
    """Answers every request with its own name, or a failure."""

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name = name
        self.error = error
        self.closed = 0

    def request(self, request: Any) -> Deferred[Any]:
        if self.error is not None:
            return fail(self.error)
        asked: Deferred[Any] = Deferred()
        self.asked = asked
        return asked

    def close(self) -> Deferred[None]:
        self.closed += 1
        return succeed(None)


class RoutedAgentTests(SynchronousTestCase):
    """Which client gets a request."""

    def setUp(self) -> None:
        self.direct = FakeClient("direct")
        self.proxied = FakeClient("proxied")
        direct: Any = self.direct
        proxied: Any = self.proxied
        self.agent = matrix.RoutedAgent(
            direct, {b"https": proxied}, NoProxy("inside.example,10.0.0.0/8")
        )

    def way(self, uri: bytes) -> str:
        """Say who got it."""
        for client in (self.direct, self.proxied):
            client.__dict__.pop("asked", None)
        asked = self.agent.request(b"GET", uri)
        self.assertNoResult(asked)
        [name] = [
            client.name
            for client in (self.direct, self.proxied)
            if hasattr(client, "asked")
        ]
        return name

    def test_ways(self) -> None:
        """By scheme and by host; white space around a URI does not count."""
        for uri, way in (
            (b"http://outside.example/", "direct"),
            (b"https://outside.example/", "proxied"),
            (b" https://outside.example/\n", "proxied"),
            (b"https://inside.example/", "direct"),
            (b"https://10.1.2.3:8448/", "direct"),
            (b"https://[::1]/", "proxied"),
        ):
            self.assertEqual(self.way(uri), way, uri)

    def test_timeouts(self) -> None:
        """No connection in time is Twisted's error; other phases are ours."""
        for phase, error in (
            ("connect", TwistedTimeoutError),
            ("tls", TwistedTimeoutError),
            ("authentication", PhaseTimeout),
        ):
            client: Any = FakeClient("slow", PhaseTimeout(phase, 5))
            agent = matrix.RoutedAgent(client, {})
            failed = self.failureResultOf(agent.request(b"GET", b"http://a.example/"))
            self.assertEqual(failed.type, error)
            # Synapse logs the first argument of every exception.
            self.assertIn("5 s", str(failed.value.args[0]))

    def test_close(self) -> None:
        """Every client is closed."""
        closing = Deferred.fromCoroutine(self.agent.close())
        self.assertIsNone(self.successResultOf(closing))
        self.assertEqual((self.direct.closed, self.proxied.closed), (1, 1))


class TimeoutsTests(SynchronousTestCase):
    """Limits that an ``Agent`` was to have."""

    def test_limits(self) -> None:
        """The pool's and the caller's; nothing limits a long poll."""
        pool: Any = HTTPConnectionPool(Clock())
        pool.cachedConnectionTimeout = 7
        limits = matrix.timeouts_like(15, pool)
        self.assertEqual((limits.connect, limits.idle, limits.head), (15, 7, None))
        limits = matrix.timeouts_like(None, None)
        self.assertEqual((limits.connect, limits.idle), (20, 60))


class DefaultPortTests(SynchronousTestCase):
    """Proxies without a port, as each program has them."""

    def test_ports(self) -> None:
        """Synapse's are at 1080, Sygnal's at 80."""

        class Config:
            http_proxy = "proxy.example"
            https_proxy = None
            no_proxy_hosts = None

        theirs = synapse.ProxyAgent(reactor=Clock(), proxy_config=Config())
        agent = theirs._proxied[b"http"]
        self.assertEqual(str(agent.client._router.route), "http://proxy.example:1080")  # type: ignore[attr-defined]
        agent = sygnal.ProxyAgent(
            Clock(), proxy_url_str="http://proxy.example"
        )._proxied[b"https"]
        self.assertEqual(str(agent.client._router.route), "http://proxy.example:80")  # type: ignore[attr-defined]


class ModuleTests(SynchronousTestCase):
    """The configuration of Synapse's module."""

    if importlib.util.find_spec("synapse") is None:
        skip = "not installed: synapse"

    def setUp(self) -> None:
        # Whatever the module changes is put back.
        self.addCleanup(synapse.install())
        # Those of Synapse's own imports.
        self.flushWarnings()

    def test_read(self) -> None:
        """A user with a file, a ticket, or neither."""
        path = Path(self.mktemp())
        path.write_text("secret\n")
        for config in (
            {"user": "CORP\\synapse", "password_path": str(path)},
            {"ticket": True},
            {},
        ):
            self.assertEqual(synapse.Module.parse_config(config), config)
            self.assertEqual(synapse.Module(config, None).config, config)

    def test_refused(self) -> None:
        """What cannot be meant is not installed."""
        from synapse.http import client

        before = client.ProxyAgent
        for config in ({"user": "me"}, {"usr": "me"}, {"password": "secret"}):
            with self.assertRaises(ValueError) as raised:
                synapse.Module.parse_config(config)
            self.assertNotIn("secret", str(raised.exception))
        with self.assertRaises(OSError):
            synapse.Module.parse_config({"user": "me", "password_path": "/nowhere"})
        self.assertIs(client.ProxyAgent, before)

    def test_undo(self) -> None:
        """What was installed can be taken back."""
        from synapse.http import client, matrixfederationclient
        from synapse.http.federation import matrix_federation_agent

        modules = (client, matrixfederationclient, matrix_federation_agent)
        before = [dict(vars(module)) for module in modules]
        undo = synapse.install(("me", "secret"))
        self.assertNotEqual([dict(vars(module)) for module in modules], before)
        undo()
        self.assertEqual([dict(vars(module)) for module in modules], before)
