"""What tests of the service in front of a proxy have in common."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.integration import origin, squid, tools
from tests.integration.coda import CodaProxy, in_front_of, login
from tests.integration.commands import Answer, curl
from tests.integration.people import ALICE

__all__ = ["ServiceCase", "upstream"]


@functools.cache
def upstream(scheme: str) -> squid.SquidProxy:
    """The proxy that these tests share; as many NTLM helpers as a busy site has."""
    if scheme != "ntlm":
        return squid.proxy(scheme)
    proxy = squid.SquidProxy(scheme, helpers=40)
    proxy.start()
    return proxy


class ServiceCase(SynchronousTestCase):
    """
    A service, its upstream proxy, and an origin server.

    :cvar scheme: What the proxy demands.
    :cvar proxy_type: The service's option, where it is not the scheme.
    :cvar tls: Whether the service reaches the proxy by TLS.
    """

    scheme: ClassVar[str] = "none"
    proxy_type: ClassVar[str | None] = None
    tls: ClassVar[bool] = False

    def setUp(self) -> None:
        tools.require("curl")
        self.proxy: Any = upstream(self.scheme)
        self.proxy.reset()
        self.origin = origin.origin()
        self.origin.reset()
        self.service = self.shared_service()

    @classmethod
    @functools.cache
    def shared_service(cls) -> CodaProxy:
        """The running service that the tests of this class share."""
        service = cls.make_service()
        service.start()
        return service

    @classmethod
    def make_service(cls, password: str | None = None) -> CodaProxy:
        """Make a service as Alice starts it, perhaps with a password not hers."""
        return in_front_of(
            upstream(cls.scheme),
            ALICE,
            password,
            proxy_type=cls.proxy_type,
            tls=cls.tls,
        )

    def fresh(self, password: str | None = None) -> None:
        """Let this test have a service of its own, which knows nothing yet."""
        self.service = self.make_service(password)
        self.service.start()
        self.addCleanup(self.service.stop)

    def curl(self, url: str, *options: str) -> Answer:
        """Ask through the service."""
        return curl(url, "--proxy", self.service.url, *options)

    def get(self, url: str, *options: str) -> Answer:
        """Ask through the service, and be answered."""
        answer = self.curl(url, *options)
        self.assertEqual((answer.exit_code, answer.status), (0, 200), answer.errors)
        return answer

    def received(self) -> origin.Received:
        """The only complete request that the origin got."""
        [request] = [each for each in self.origin.requests() if each.complete]
        return request

    def assert_logged_on(self) -> None:
        """Nothing was refused, and the proxy served nobody but Alice."""
        self.assertEqual(self.proxy.failed_logons(), 0)
        users = self.proxy.users_by_connection().values()
        self.assertEqual(
            {name for each in users for name in each}, {login(self.scheme)}
        )
