"""
Programs that people use, through the service, and programs that do what it does.

None of the clients knows the proxy's password.  That it was Alice whom the proxy
served is read from the proxy's log.
"""

from __future__ import annotations

import base64
import functools
import re
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import spnego
from twisted.trial.unittest import SynchronousTestCase

from tests.integration import apache, origin, packages, squid, tools
from tests.integration.coda import CodaProxy, authenticating, in_front_of, login
from tests.integration.commands import Answer, curl, curl_many, run
from tests.integration.people import ALICE, BOB, NTLM_DOMAIN, WRONG_PASSWORD, Person
from tests.integration.raw import Head, Wire
from tests.integration.servers import (
    ServerProcess,
    clean_environment,
    free_port,
    workspace,
)
from tests.integration.service_case import ServiceCase, upstream

BURST = 50
CROWD = 20


class Clients:
    """What every kind of proxy looks like to programs: it asks them for nothing."""

    def assert_served(self: Any, *methods: str) -> None:
        """The proxy served Alice alone, by all of *methods*, and refused nobody."""
        deadline = time.monotonic() + 10
        # Squid logs a tunnel when it has ended.
        while not set(methods) <= {each.method for each in self.served()}:
            self.assertLess(time.monotonic(), deadline, self.proxy.requests())
            time.sleep(0.05)
        users = {each.user for each in self.served()}
        self.assertEqual(users, {login(self.scheme)})
        self.assertEqual(self.proxy.failed_logons(), 0)

    def served(self: Any) -> list[Any]:
        """The requests that the proxy did not refuse."""
        return [each for each in self.proxy.requests() if each.status != 407]

    def execute(
        self: Any, command: list[str], environment: Mapping[str, str] | None = None
    ) -> bytes:
        """Run a program that must succeed."""
        done = run(command, environment)
        self.assertEqual(done.exit_code, 0, done.errors)
        output: bytes = done.output
        return output

    def test_curl(self: Any) -> None:
        """Curl, told by option and by environment, over http and https."""
        website = apache.website()
        for url in (website.url("/1m.bin"), website.tls_url("/1m.bin")):
            variables = dict.fromkeys(("http_proxy", "https_proxy"), self.service.url)
            for answer in (
                curl(url, "--proxy", self.service.url),
                curl(url, environment=variables),
            ):
                self.assertEqual(answer.status, 200, answer.errors)
                self.assertEqual(answer.sha256, website.sha256_of("1m.bin"))
        self.assert_served("GET", "CONNECT")

    def test_pip(self: Any) -> None:
        """Pip gets a package from an index, told by option and by environment."""
        package = packages.package()
        variables = {"https_proxy": self.service.url}
        for tls, options, environment in (
            (False, ("--proxy", self.service.url), {}),
            (True, (), variables),
        ):
            target = workspace() / f"pip-{self.service.port}-{tls}"
            self.execute(
                package.pip("download", target, *options, tls=tls), environment
            )
            fetched = target / package.wheel.name
            self.assertEqual(fetched.read_bytes(), package.wheel.read_bytes())
        self.assert_served("GET", "CONNECT")

    def test_git(self: Any) -> None:
        """Git lists, clones and pushes, over http and https."""
        repository = packages.repository()
        for tls in (False, True):
            url = repository.url(tls)
            work = workspace() / f"clone-{self.service.port}-{tls}"

            def git(*arguments: str) -> bytes:
                command = repository.command(self.service.url, *arguments)
                output: bytes = self.execute(command, repository.environment)
                return output

            self.assertIn(repository.head, git("ls-remote", url).decode())
            git("clone", "-q", url, str(work))
            head = git("-C", str(work), "rev-parse", "HEAD").decode().strip()
            self.assertEqual(head, repository.head)
            branch = f"HEAD:refs/heads/{work.name}"
            git("-C", str(work), "push", "-q", url, branch)
        self.assert_served("GET", "POST", "CONNECT")


class BasicClientTests(ServiceCase, Clients):
    """A proxy that asks for Basic."""

    scheme = "basic"


class DigestClientTests(ServiceCase, Clients):
    """A proxy that asks for Digest."""

    scheme = "digest"


class NTLMClientTests(ServiceCase, Clients):
    """A proxy that asks for NTLM."""

    scheme = "ntlm"


class NegotiateClientTests(ServiceCase, Clients):
    """A proxy that asks for Kerberos."""

    scheme = "negotiate"


class AutoClientTests(ServiceCase, Clients):
    """The proxy that asks for NTLM, and a service that is to find that out."""

    scheme = "ntlm"
    proxy_type = "auto"


@functools.cache
def ntlm_website() -> squid.SquidProxy:
    """A website that asks for NTLM: squid in front of the origin server."""
    website = squid.SquidProxy(
        "ntlm",
        # Each handshake keeps a helper; and no proxy on the way may have its name.
        helpers=2 * CROWD,
        settings=["unique_hostname website.test"],
        website=origin.origin().port,
    )
    website.start()
    return website


class Visitor:
    """
    A user of a browser, who logs on to the website leg by leg.

    :param service: The proxy that the browser uses.
    """

    def __init__(self, person: Person, service: CodaProxy) -> None:
        self.wire = Wire.to(service.port)
        self._context = spnego.client(
            person.down_level, person.password, protocol="ntlm"
        )
        self._url = ntlm_website().url

    def get(self, token: bytes | None = None) -> Head:
        """Ask once, with or without a token."""
        field = ""
        if token is not None:
            field = f"Authorization: NTLM {base64.b64encode(token).decode()}\r\n"
        host = self._url.removeprefix("http://")
        self.wire.send(
            f"GET {self._url}/echo HTTP/1.1\r\nHost: {host}\r\n{field}\r\n".encode()
        )
        return self.wire.response()[0]

    def begin(self) -> Head:
        """The first leg, which brings the challenge."""
        return self.get(self._context.step())

    def finish(self, challenged: Head) -> Head:
        """The second leg, which answers it."""
        field = challenged.get("WWW-Authenticate") or ""
        [token] = re.findall(r"NTLM (\S+)", field)
        return self.get(self._context.step(base64.b64decode(token)))


class WebsiteTests(SynchronousTestCase):
    """The client's own logon, by NTLM, to a website over plain http."""

    def setUp(self) -> None:
        tools.require("curl")
        self.website = ntlm_website()
        self.website.reset()
        self.service = self.start(CodaProxy())

    def start(self, service: CodaProxy) -> CodaProxy:
        service.start()
        self.addCleanup(service.stop)
        return service

    def visitor(self, person: Person) -> Visitor:
        visitor = Visitor(person, self.service)
        self.addCleanup(visitor.wire.close)
        return visitor

    def visit(self, person: Person, password: str, service: CodaProxy) -> Answer:
        """Let curl log on."""
        user = f"{person.down_level}:{password}"
        return curl(
            f"{self.website.url}/echo",
            *("--ntlm", "--user", user, "--proxy", service.url),
        )

    def assert_one_user_each(self) -> None:
        """No connection of the website's has served two people."""
        users = self.website.users_by_connection()
        self.assertTrue(users)
        for names in users.values():
            self.assertEqual(len(names), 1, users)

    def test_curl(self) -> None:
        """The right password is let in; a wrong one gets the website's own 401."""
        self.assertEqual(self.visit(BOB, BOB.password, self.service).status, 200)
        self.assertEqual(self.visit(BOB, WRONG_PASSWORD, self.service).status, 401)
        self.assertEqual(self.website.failed_logons(), 1)

    def test_two_users(self) -> None:
        """Two users' legs interleave, and never meet on one connection."""
        alice, bob = self.visitor(ALICE), self.visitor(BOB)
        first = alice.get()
        self.assertEqual(first.status, 401)
        self.assertEqual(first.get("Proxy-Support"), "Session-Based-Authentication")
        bob.get()
        hers, his = alice.begin(), bob.begin()
        self.assertEqual((hers.status, his.status), (401, 401))
        self.assertEqual(alice.finish(hers).status, 200)
        stranger = self.visitor(ALICE)
        self.assertEqual(stranger.get().status, 401)
        self.assertEqual(bob.finish(his).status, 200)
        # The connection is the user: from now on nothing is said.
        for _ in range(3):
            for visitor in (alice, bob):
                self.assertEqual(visitor.get().status, 200)
            self.assertEqual(stranger.get().status, 401)
        self.assert_one_user_each()
        names = {
            name
            for each in self.website.users_by_connection().values()
            for name in each
        }
        self.assertEqual(names, {ALICE.down_level, BOB.down_level})

    def test_next_client(self) -> None:
        """What a user logged on for ends with that user's connection."""
        alice = self.visitor(ALICE)
        self.assertEqual(alice.finish(alice.begin()).status, 200)
        alice.wire.close()
        for _ in range(3):
            self.assertEqual(self.visitor(BOB).get().status, 401)
        self.assertEqual(len(self.website.authority.logons()), 1)

    def test_crowd(self) -> None:
        """Two users with twenty connections each are kept apart."""

        def visits(person: Person) -> list[Answer]:
            user = f"{person.down_level}:{person.password}"
            return curl_many(
                f"{self.website.url}/echo",
                CROWD,
                *("--ntlm", "--user", user, "--proxy", self.service.url),
            )

        with ThreadPoolExecutor(2) as pool:
            answers = [each for many in pool.map(visits, (ALICE, BOB)) for each in many]
        self.assertEqual(Counter(each.status for each in answers), {200: 2 * CROWD})
        self.assert_one_user_each()
        self.assertEqual(self.website.failed_logons(), 0)

    def test_behind_a_proxy(self) -> None:
        """The user's logon passes through a proxy to which the service logs on."""
        for scheme in ("none", "basic", "ntlm"):
            proxy = upstream(scheme)
            proxy.reset()
            self.website.reset()
            service = self.start(in_front_of(proxy))
            answer = self.visit(BOB, BOB.password, service)
            self.assertEqual(answer.status, 200, (scheme, answer.errors))
            self.assert_one_user_each()
            [logon] = [
                each
                for each in self.website.authority.logons()
                if each.user == BOB.name
            ]
            self.assertEqual(logon.result, "accepted")


class OthersTests(SynchronousTestCase):
    """What other programs of this kind do with a wrong password."""

    def setUp(self) -> None:
        tools.require("curl")
        self.proxy = upstream("ntlm")
        self.proxy.reset()
        self.origin = origin.origin()

    def failed(self, server: ServerProcess) -> int:
        """How many failed logons fifty requests at once cost."""
        server.start()
        self.addCleanup(server.stop)
        address = f"http://127.0.0.1:{server.ports[0]}"
        answers = curl_many(self.origin.url(), BURST, "--proxy", address)
        count = self.proxy.failed_logons()
        statuses = dict(Counter(each.status for each in answers))
        print(  # noqa: T201 - a figure for the README
            f"{server.name}: {BURST} requests, {count} failed logons, {statuses}"
        )
        return count

    def test_ours(self) -> None:
        """Ours cost one."""
        service = CodaProxy(
            *("--proxy", self.proxy.url),
            *authenticating("ntlm", ALICE, WRONG_PASSWORD),
        )
        self.assertEqual(self.failed(service), 1)

    def test_cntlm(self) -> None:
        """Cntlm's cost at least as many."""
        [cntlm] = tools.require("cntlm")
        port = free_port()
        configuration = workspace() / f"cntlm-{port}.conf"
        configuration.write_text(
            f"Username {ALICE.name}\nDomain {NTLM_DOMAIN}\nPassword {WRONG_PASSWORD}\n"
            f"Proxy 127.0.0.1:{self.proxy.port}\nListen 127.0.0.1:{port}\nAuth NTLMv2\n"
        )
        command = [cntlm, "-f", "-c", str(configuration)]
        self.assertGreaterEqual(self.failed(ServerProcess("cntlm", command, [port])), 1)

    def test_px(self) -> None:
        """Px's cost at least as many."""
        [px] = tools.require("px")
        port = free_port()
        command = [
            *(px, f"--proxy=127.0.0.1:{self.proxy.port}", f"--port={port}"),
            *("--auth=NTLM", f"--username={ALICE.down_level}", "--listen=127.0.0.1"),
        ]
        environment = clean_environment(PX_PASSWORD=WRONG_PASSWORD)
        server = ServerProcess("px", command, [port], environment)
        self.assertGreaterEqual(self.failed(server), 1)
