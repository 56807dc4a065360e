"""
Synapse's and Sygnal's agents, with ours in their place, through real proxies.

The scenarios are those of Synapse's own ``tests/http/test_proxyagent.py``; only that
here a proxy asks before it is told who we are.
"""

from __future__ import annotations

import inspect
import os
from contextlib import AbstractContextManager
from typing import Any, ClassVar
from unittest.mock import patch
from urllib.parse import quote

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.trial.unittest import TestCase
from twisted.web.client import HTTPConnectionPool, readBody
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import Site

from coda_twisted.adapters import sygnal, synapse
from coda_twisted.client.guard import LogonGuard
from coda_twisted.errors import CredentialsRejected, TunnelRefused
from tests.integration import adapters_servers, origin, squid, tools
from tests.integration.certificates import authority
from tests.integration.people import ALICE, WRONG_PASSWORD
from tests.integration.servers import CHECKOUT, workspace
from tests.integration.test_library import trust


class ProxyConfig:
    """Synapse's, in as much as its agent looks at it."""

    def __init__(
        self,
        http_proxy: str | None = None,
        https_proxy: str | None = None,
        no_proxy_hosts: list[str] | None = None,
    ) -> None:
        self.http_proxy = http_proxy
        self.https_proxy = https_proxy
        self.no_proxy_hosts = no_proxy_hosts


class Worker(Resource):
    """
    Another worker of the homeserver's.

    :ivar asked: Targets, and who wanted them.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[bytes, bytes | None]] = []

    def render_GET(self, request: Any) -> bytes:
        self.asked.append((request.uri, request.getHeader(b"Proxy-Authorization")))
        return b"done"


class AgentCase(TestCase):
    """A proxy, an origin, and agents that are closed in the end."""

    timeout = 60
    scheme: ClassVar[str] = "ntlm"
    name: ClassVar[str] = ALICE.down_level

    def setUp(self) -> None:
        tools.require("squid")
        self.proxy = squid.proxy(self.scheme)
        self.proxy.reset()
        self.origin = origin.origin()
        self.origin.reset()
        # Tests must not remember each other's refused passwords.
        self.addCleanup(LogonGuard.of(reactor)._accounts.clear)

    def named(self, url: str, password: str = ALICE.password) -> str:
        """A proxy's URL with Alice in it."""
        user = f"{quote(self.name, safe='')}:{quote(password, safe='')}"
        return url.replace("://", f"://{user}@")

    def both(self, url: str, **more: Any) -> ProxyConfig:
        """One proxy for both schemes."""
        return ProxyConfig(http_proxy=url, https_proxy=url, **more)

    def synapse(self, config: Any = None, **more: Any) -> synapse.ProxyAgent:
        """Synapse's agent."""
        settings = {"reactor": reactor, "contextFactory": trust(), **more}
        agent = synapse.ProxyAgent(proxy_config=config, **settings)
        self.addCleanup(lambda: Deferred.fromCoroutine(agent.close()))
        return agent

    async def get(self, agent: Any, url: str, headers: Headers | None = None) -> bytes:
        """Get something."""
        response = await agent.request(b"GET", url.encode(), headers)
        self.assertEqual(response.code, 200)
        content: bytes = await readBody(response)
        return content

    async def get_both(self, agent: Any) -> None:
        """Get something over http, and over https."""
        for url in (self.origin.url("/octets/10"), self.origin.tls_url("/octets/10")):
            self.assertEqual(await self.get(agent, url), origin.content(10))

    def methods(self) -> set[str]:
        """The methods of what the proxy served, now or inside a tunnel."""
        return {each.method for each in self.proxy.requests()}


class SynapseTests(AgentCase):
    """``coda_twisted.adapters.synapse.ProxyAgent``."""

    def test_constructor(self) -> None:
        """It takes what Synapse's takes, by the same names, and as optional."""
        tools.require_modules("synapse")
        from synapse.http.proxyagent import ProxyAgent

        theirs = inspect.signature(ProxyAgent).parameters
        ours = inspect.signature(synapse.ProxyAgent).parameters
        self.assertEqual(set(theirs) - set(ours), set())
        for name, parameter in theirs.items():
            self.assertEqual(ours[name].kind, parameter.kind, name)
            self.assertEqual(ours[name].default, parameter.default, name)

    async def test_direct(self) -> None:
        """Without a proxy, and with one that is for nothing."""
        await self.get_both(self.synapse())
        await self.get_both(self.synapse(ProxyConfig()))
        self.assertEqual(self.proxy.requests(), [])

    async def test_proxy(self) -> None:
        """Both schemes through a proxy, with the user of its URL."""
        agent = self.synapse(self.both(self.named(self.proxy.url)))
        await self.get_both(agent)
        await self.get_both(agent)
        self.assertEqual(self.proxy.failed_logons(), 0)
        received = self.origin.requests()
        self.assertEqual({each.get("Proxy-Authorization") for each in received}, {None})

    async def test_tls_proxy(self) -> None:
        """Both schemes through a proxy that is reached over TLS."""
        await self.get_both(self.synapse(self.both(self.named(self.proxy.tls_url))))

    async def test_credentials(self) -> None:
        """Credentials beside the proxy's URL win over its user."""
        config = self.both(self.named(self.proxy.url, WRONG_PASSWORD))
        agent = self.synapse(config, credentials=(self.name, ALICE.password))
        await self.get_both(agent)
        self.assertEqual(self.proxy.failed_logons(), 0)

    async def test_without_scheme(self) -> None:
        """A proxy without a scheme is an http one."""
        url = self.named(self.proxy.url).partition("://")[2]
        await self.get_both(self.synapse(self.both(url)))

    async def test_one_scheme(self) -> None:
        """A proxy for one scheme is not asked for the other."""
        await self.get_both(
            self.synapse(ProxyConfig(http_proxy=self.named(self.proxy.url)))
        )
        self.assertEqual(self.methods(), {"GET"})

    async def test_no_proxy(self) -> None:
        """Hosts that are exempt: by name, by network, and all."""
        for exempt, host in (
            ("localhost", "localhost"),
            ("127.0.0.0/8", "127.0.0.1"),
            ("*", "localhost"),
        ):
            agent = self.synapse(self.both(self.proxy.url, no_proxy_hosts=[exempt]))
            await self.get(agent, self.origin.url("/octets/10", host))
            await self.get(agent, self.origin.tls_url("/octets/10", host))
        self.assertEqual(self.proxy.requests(), [])

    async def test_headers_stay(self) -> None:
        """The caller's headers are neither changed nor kept."""
        agent = self.synapse(self.both(self.named(self.proxy.url)))
        headers = Headers({b"X-Mine": [b"1"]})
        await self.get(agent, self.origin.url(), headers)
        self.assertEqual(dict(headers.getAllRawHeaders()), {b"X-Mine": [b"1"]})

    async def test_refusals(self) -> None:
        """What cannot be asked for, and proxies that cannot be meant."""
        agent = self.synapse(self.both(self.proxy.url))
        with self.assertRaises(SchemeNotSupported):
            await agent.request(b"GET", b"ftp://localhost/")
        with self.assertRaises(ValueError):
            agent.request(b"GET", b"http://localhost/a b")
        with self.assertRaises(ValueError):
            synapse.ProxyAgent(
                reactor=reactor, proxy_config=self.both("socks5://proxy.example")
            )

    async def test_wrong_password(self) -> None:
        """It costs one failed logon."""
        config = self.both(self.named(self.proxy.url, WRONG_PASSWORD))
        agent = self.synapse(config)
        for url in (self.origin.url(), self.origin.tls_url(), self.origin.url()):
            with self.assertRaises(CredentialsRejected):
                await agent.request(b"GET", url.encode())
        self.assertEqual(self.proxy.failed_logons(), 1)

    async def test_nobody(self) -> None:
        """Without a user, 407 is an answer, and to CONNECT a ``ConnectError``."""
        agent = self.synapse(self.both(self.proxy.url))
        response = await agent.request(b"GET", self.origin.url().encode())
        self.assertEqual(response.code, 407)
        await readBody(response)
        with self.assertRaises(TunnelRefused) as raised:
            await agent.request(b"GET", self.origin.tls_url().encode())
        self.assertEqual(raised.exception.status, 407)

    async def test_bind_address(self) -> None:
        """Sockets are bound, to proxies and to others."""
        agent = self.synapse(
            ProxyConfig(https_proxy=self.named(self.proxy.url)),
            bindAddress=("127.0.0.7", 0),
            pool=HTTPConnectionPool(reactor),
            connectTimeout=15,
        )
        await self.get_both(agent)
        ends = {each.client.rpartition(":")[0] for each in self.proxy.requests()}
        self.assertEqual(ends, {"127.0.0.7"})
        plain = [each.client for each in self.origin.requests() if each.tls is None]
        self.assertEqual([end.rpartition(":")[0] for end in plain], ["127.0.0.7"])

    async def test_blocklist(self) -> None:
        """A reactor that refuses addresses refuses sites', and not the proxy's."""
        tools.require_modules("synapse")
        from netaddr import IPSet
        from synapse.http.client import BlocklistingReactorWrapper

        blocking = BlocklistingReactorWrapper(reactor, None, IPSet(["127.0.0.0/8"]))
        config = self.both(self.named(self.proxy.url))
        await self.get_both(
            self.synapse(config, reactor=blocking, proxy_reactor=reactor)
        )
        direct = self.synapse(reactor=blocking, proxy_reactor=reactor)
        with self.assertRaises(DNSLookupError):
            await direct.request(b"GET", self.origin.url().encode())

    async def test_workers(self) -> None:
        """Federation by way of other workers is left to Synapse's own agent."""
        tools.require_modules("synapse")
        from synapse.config.workers import InstanceTcpLocationConfig
        from synapse.http.connectproxyclient import BearerProxyCredentials

        worker = Worker()
        server = adapters_servers.Listening(Site(worker))
        await server.start()
        self.addCleanup(server.stop)
        location = InstanceTcpLocationConfig(host="localhost", port=server.port)
        agent = self.synapse(
            federation_proxy_locations=[location],
            federation_proxy_credentials=BearerProxyCredentials(b"shared"),
        )
        uri = "matrix-federation://remote.example/echo"
        await self.get(agent, uri)
        self.assertEqual(worker.asked, [(uri.encode(), b"Bearer shared")])


class BasicSynapseTests(SynapseTests):
    """The same with Basic."""

    scheme = "basic"
    name = ALICE.name


class HomeserverTests(AgentCase):
    """A homeserver whose configuration names our module."""

    def setUp(self) -> None:
        tools.require_modules("synapse")
        super().setUp()
        self.live_in(patch.dict(os.environ, {"SSL_CERT_FILE": str(authority().ca)}))
        # Whatever the module changes is put back.
        self.addCleanup(synapse.install())

    def live_in(self, world: AbstractContextManager[Any]) -> None:
        """Change the environment while the test runs."""
        world.__enter__()
        self.addCleanup(world.__exit__, None, None, None)

    def homeserver(self, module: dict[str, Any], proxy: str, **more: Any) -> Any:
        """A homeserver that has read its configuration, and goes no further."""
        import yaml
        from synapse.app.homeserver import SynapseHomeServer
        from synapse.config.homeserver import HomeServerConfig

        example = CHECKOUT / "docs" / "examples" / "adapter_synapse.yaml"
        documented = yaml.safe_load(example.read_text("utf-8"))
        # The names are the documentation's, the values ours.
        self.assertLessEqual(set(module), set(documented["modules"][0]["config"]))
        config = HomeServerConfig()
        config.parse_config_dict(
            {
                "server_name": "corp.test",
                "signing_key": "ed25519 a_key " + "A" * 43,
                "macaroon_secret_key": "secret",
                "report_stats": False,
                "database": {"name": "sqlite3", "args": {"database": ":memory:"}},
                "media_store_path": str(workspace()),
                "trusted_key_servers": [],
                "federation_custom_ca_list": [str(authority().ca)],
                "http_proxy": proxy,
                "https_proxy": proxy,
                "modules": [{**documented["modules"][0], "config": module}],
                **more,
            },
            "",
            "",
        )
        return SynapseHomeServer("corp.test", config=config, reactor=reactor)

    def password(self) -> dict[str, Any]:
        """The module's configuration for Alice."""
        path = workspace() / "synapse's-password"
        path.write_text(ALICE.password + "\n")
        return {"user": self.name, "password_path": str(path)}

    async def check(self, client: Any) -> None:
        """Let one of Synapse's clients ask for something."""
        self.addCleanup(lambda: Deferred.fromCoroutine(agent.close()))
        agent = getattr(client.agent, "_agent", client.agent)
        self.assertIsInstance(agent, synapse.ProxyAgent)
        for url in (self.origin.url(), self.origin.tls_url()):
            facts = await client.get_json(url)
            self.assertEqual(facts["method"], "GET")

    async def test_clients(self) -> None:
        """Synapse's clients go through the proxy as the module says."""
        homeserver = self.homeserver(self.password(), self.proxy.url)
        await self.check(homeserver.get_proxied_http_client())
        await self.check(homeserver.get_proxied_blocklisted_http_client())
        self.assertEqual(len(self.origin.requests()), 4)
        self.assertEqual(self.proxy.failed_logons(), 0)

    async def test_user_of_url(self) -> None:
        """Without a user of its own the module takes that of the proxy's URL."""
        homeserver = self.homeserver({}, self.named(self.proxy.url))
        await self.check(homeserver.get_proxied_http_client())

    async def test_federation(self) -> None:
        """Other homeservers are reached by authenticated tunnels, which are kept."""
        from netaddr import IPSet
        from synapse.crypto.context_factory import FederationPolicyForHTTPS
        from synapse.http.federation.matrix_federation_agent import (
            MatrixFederationAgent,
        )

        homeserver = self.homeserver(self.password(), self.proxy.url)
        agent = MatrixFederationAgent(
            server_name="corp.test",
            reactor=reactor,
            clock=homeserver.get_clock(),
            tls_client_options_factory=FederationPolicyForHTTPS(homeserver.config),
            user_agent=b"test",
            ip_allowlist=None,
            ip_blocklist=IPSet(["127.0.0.0/8"]),
            proxy_config=homeserver.config.server.proxy_config,
        )
        self.addCleanup(agent._pool.closeCachedConnections)
        for _ in range(2):
            uri = f"matrix-federation://localhost:{self.origin.tls_port}/octets/10"
            response = await agent.request(b"GET", uri.encode(), None, None)
            self.assertEqual(await readBody(response), origin.content(10))
        received = self.origin.requests()
        self.assertEqual(len({each.connection for each in received}), 1)
        self.assertEqual(self.methods() - {"CONNECT"}, set())
        self.assertEqual(self.proxy.failed_logons(), 0)


class SygnalTests(AgentCase):
    """``coda_twisted.adapters.sygnal.ProxyAgent``."""

    def sygnal(self, *arguments: Any, **more: Any) -> sygnal.ProxyAgent:
        """Sygnal's agent."""
        agent = sygnal.ProxyAgent(*arguments, **more)
        self.addCleanup(lambda: Deferred.fromCoroutine(agent.close()))
        return agent

    async def test_pushkin(self) -> None:
        """As Sygnal's pushkins make it."""
        pool = HTTPConnectionPool(reactor=reactor)
        pool.maxPersistentPerHost = 20
        agent = self.sygnal(
            reactor=reactor,
            pool=pool,
            contextFactory=trust(),
            proxy_url_str=self.named(self.proxy.url),
        )
        await self.get_both(agent)
        self.assertEqual(self.proxy.failed_logons(), 0)

    async def test_by_position(self) -> None:
        """In the order of Sygnal's own, and with credentials beside the URL."""
        agent = self.sygnal(
            *(reactor, trust(), 15, None, None, self.proxy.url),
            credentials=(self.name, ALICE.password),
        )
        await self.get_both(agent)

    async def test_direct(self) -> None:
        """Without a proxy."""
        await self.get_both(self.sygnal(reactor, trust()))
        self.assertEqual(self.proxy.requests(), [])
