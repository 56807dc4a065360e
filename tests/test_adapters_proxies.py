"""What the adapters share."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.adapters.proxies import as_credentials, bound_endpoints, read_proxy
from coda_twisted.client.timeouts import Timeouts
from coda_twisted.credentials import PasswordCredentials, TicketCredentials
from coda_twisted.routing.routes import HTTPProxy

PORTS = {"http": 80, "https": 443}


class ReadProxyTests(SynchronousTestCase):
    """Proxies' URLs, with another program's default ports."""

    def test_ports(self) -> None:
        """The program's port is taken where the URL has none, in any spelling."""
        for url, proxy in (
            ("http://proxy.example", HTTPProxy("http", "proxy.example", 80)),
            ("proxy.example", HTTPProxy("http", "proxy.example", 80)),
            ("https://proxy.example/", HTTPProxy("https", "proxy.example", 443)),
            ("http://proxy.example:3128", HTTPProxy("http", "proxy.example", 3128)),
            ("proxy.example:8080/", HTTPProxy("http", "proxy.example", 8080)),
            ("http://[::1]", HTTPProxy("http", "::1", 80)),
            ("http://[::1]:99", HTTPProxy("http", "::1", 99)),
            ("http://me:1234@proxy.example", HTTPProxy("http", "proxy.example", 80)),
            ("http://proxy.example:", HTTPProxy("http", "proxy.example", 80)),
            (" http://proxy.example:8080 ", HTTPProxy("http", "proxy.example", 8080)),
        ):
            self.assertEqual(read_proxy(url, PORTS)[0], proxy, url)

    def test_users(self) -> None:
        """A user becomes a password's; an empty one is the system's ticket."""
        _, nobody = read_proxy("http://proxy.example", PORTS)
        self.assertIsNone(nobody)
        _, user = read_proxy("http://CORP%5Cme:s%3Acret@proxy.example", PORTS)
        assert isinstance(user, PasswordCredentials)
        self.assertEqual(user.identity, "CORP\\me")
        _, ticket = read_proxy("http://:@proxy.example", PORTS)
        self.assertIsInstance(ticket, TicketCredentials)

    def test_refused(self) -> None:
        """What cannot be read is not repeated."""
        for url in ("socks5://me:secret@proxy.example", "http://me:secret@", ""):
            with self.assertRaises(ValueError) as raised:
                read_proxy(url, PORTS)
            self.assertNotIn("secret", str(raised.exception))


class CredentialsTests(SynchronousTestCase):
    """Credentials as settings have them."""

    def test_read(self) -> None:
        """Name and password, the word for a ticket, and credentials."""
        for given in (("me", "secret"), ["me", "secret"]):
            user = as_credentials(given)
            assert isinstance(user, PasswordCredentials)
            self.assertEqual(user.identity, "me")
        self.assertIsInstance(as_credentials("ticket"), TicketCredentials)
        self.assertIs(as_credentials(user), user)
        self.assertIsNone(as_credentials(None))

    def test_refused(self) -> None:
        """Anything else, without a word of it."""
        wrong: tuple[Any, ...] = ("secret", ("secret",), ("me", 5), ("a", "b", "c"), 7)
        for given in wrong:
            with self.assertRaises(ValueError) as raised:
                as_credentials(given)
            self.assertNotIn("secret", str(raised.exception))


class BoundEndpointsTests(SynchronousTestCase):
    """Sockets with an address of their own."""

    def test_any(self) -> None:
        """Without one, whoever makes sockets makes them."""
        self.assertIsNone(bound_endpoints(Clock(), Timeouts(), None))

    def test_bound(self) -> None:
        """With one, it is Twisted's endpoint that is bound."""
        make = bound_endpoints(reactor, Timeouts(connect=7), ("127.0.0.7", 0))
        assert make is not None
        endpoint: Any = make("proxy.example", 3128)
        self.assertIsInstance(endpoint, HostnameEndpoint)
        self.assertEqual(endpoint._bindAddress, ("127.0.0.7", 0))
        self.assertEqual(endpoint._timeout, 7)
