"""Tests for :mod:`coda_twisted.service.access`."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from coda_twisted.service.access import (
    Access,
    DestinationProhibited,
    GuardedEndpoint,
    LoopDetected,
    Prohibited,
)
from tests.wire import PeerTransport, Wire

NETWORKS = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


class ClientTests(SynchronousTestCase):
    """Who may use the service."""

    def test_loopback_only(self) -> None:
        """Where only loopback can connect, nobody is looked at."""
        for host in ("127.0.0.1", "::1", "192.168.1.1", "/run/socket"):
            Access().check_client(host)

    def test_networks(self) -> None:
        """Where others can, the networks are served, and this machine always."""
        access = Access(NETWORKS)
        for host in (
            *("10.0.0.1", "fd00::1", "fd00::1%eth0", "::ffff:10.255.0.1"),
            *("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"),
        ):
            access.check_client(host)
        for host in (
            *("11.0.0.1", "fe80::1", "::ffff:11.0.0.1", "::", "0.0.0.0"),
            *("", "localhost", "10.0.0.1.example", "010.0.0.1"),
        ):
            with self.assertRaises(Prohibited):
                access.check_client(host)

    def test_told(self) -> None:
        """Who is refused is told by which rule."""
        with self.assertRaisesRegex(Prohibited, r"^192\.0\.2\.1 is not .*--allow"):
            Access(NETWORKS).check_client("192.0.2.1")


class ConnectTests(SynchronousTestCase):
    """Where CONNECT may go."""

    def test_loopback_only(self) -> None:
        """For this machine: anywhere, unless told otherwise."""
        Access().check_connect("site", 22)
        with self.assertRaisesRegex(Prohibited, "port 22 .*--connect-ports"):
            Access(None, [443]).check_connect("site", 22)

    def test_networks(self) -> None:
        """For others: to https, unless told otherwise."""
        access = Access(NETWORKS)
        access.check_connect("site", 443)
        access.check_connect("site", 563)
        with self.assertRaises(Prohibited):
            access.check_connect("site", 22)
        Access(NETWORKS, [22]).check_connect("site", 22)
        with self.assertRaises(Prohibited):
            Access(NETWORKS, [22]).check_connect("site", 443)

    def test_destination(self) -> None:
        """And nowhere that nothing may go."""
        with self.assertRaises(DestinationProhibited):
            Access(NETWORKS).check_connect("169.254.169.254", 443)


class DestinationTests(SynchronousTestCase):
    """Where nothing may go."""

    def test_link_local(self) -> None:
        """Others than this machine cannot reach link-local addresses through it."""
        access = Access(NETWORKS)
        for host in (
            *("169.254.169.254", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe"),
            *("fe80::1", "fe80::1%eth0", "0.0.0.0", "::", "::ffff:0.0.0.0"),
        ):
            with self.assertRaises(DestinationProhibited):
                access.check_destination(host, 80)
            Access().check_destination(host, 80)

    def test_others(self) -> None:
        """Other addresses they can, and names are looked at later."""
        access = Access(NETWORKS)
        for host in ("192.0.2.1", "2001:db8::1", "10.0.0.1", "site", "169.254.example"):
            access.check_destination(host, 80)

    def test_metadata(self) -> None:
        """Nor where clouds keep secrets behind other addresses."""
        for host in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200"):
            with self.assertRaises(DestinationProhibited):
                Access(NETWORKS, loopback=True).check_destination(host, 80)
            Access().check_destination(host, 80)
        Access(NETWORKS).check_destination("fd00:ec2::253", 80)

    def test_loopback(self) -> None:
        """Nor this machine's own services, unless that is wanted."""
        for host in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"):
            with self.assertRaisesRegex(DestinationProhibited, "--allow-loopback"):
                Access(NETWORKS).check_destination(host, 80)
            with self.assertRaises(DestinationProhibited):
                Access(NETWORKS).check_connect(host, 443)
            Access(NETWORKS, loopback=True).check_destination(host, 80)
            Access().check_destination(host, 80)

    def check_own(self, own: str, host: str, local: str = "") -> bool:
        """Say whether a connection to port 8088 is one to ourselves."""
        access = Access()
        access.listening = [(ip_address(own), 8088)]
        access.check_destination(host, 8089, local)
        try:
            access.check_destination(host, 8088, local)
        except LoopDetected:
            return True
        return False

    def test_itself(self) -> None:
        """The service cannot be reached through itself."""
        for own, host, expected in (
            ("127.0.0.1", "127.0.0.1", True),
            ("127.0.0.1", "::ffff:127.0.0.1", True),
            ("127.0.0.1", "0.0.0.0", True),
            ("127.0.0.1", "127.0.0.2", False),
            ("127.0.0.1", "10.0.0.1", False),
            ("10.0.0.1", "127.0.0.1", False),
            ("::1", "::1", True),
            ("::1", "::", True),
            ("0.0.0.0", "127.0.0.2", True),
            ("0.0.0.0", "10.0.0.1", False),
            ("::", "::1", True),
            ("::", "127.0.0.1", True),
        ):
            self.assertEqual(self.check_own(own, host), expected, (own, host))

    def test_itself_by_another_address(self) -> None:
        """A connection from an address to itself ends where we listen on all."""
        self.assertTrue(self.check_own("0.0.0.0", "10.0.0.1", "10.0.0.1"))
        self.assertTrue(self.check_own("::", "2001:db8::1", "2001:db8::1"))
        self.assertFalse(self.check_own("0.0.0.0", "10.0.0.2", "10.0.0.1"))
        self.assertFalse(self.check_own("10.0.0.9", "10.0.0.1", "10.0.0.1"))


class GuardTests(SynchronousTestCase):
    """Connections, which know better than names where they lead."""

    def setUp(self) -> None:
        self.wire = Wire()
        self.access = Access(NETWORKS)

    def connect(self, address: Any, host: str = "site", *exempt: Any) -> Any:
        """Connect to a name that turns out to be *address*."""
        self.patch(PeerTransport, "peerAddr", address)
        endpoint = self.access.guard(self.wire.endpoint_for, *exempt)(host, 80)
        return endpoint.connect(Factory.forProtocol(Protocol))

    def test_interface(self) -> None:
        """What is guarded is an endpoint as well."""
        endpoint = self.access.guard(self.wire.endpoint_for)("site", 80)
        verifyObject(IStreamClientEndpoint, endpoint)
        self.assertIsInstance(endpoint, GuardedEndpoint)

    def test_allowed(self) -> None:
        """A connection to where one may go is passed on."""
        connected = self.connect(IPv4Address("TCP", "192.0.2.1", 80))
        self.assertIsInstance(self.successResultOf(connected), Protocol)
        self.assertFalse(self.wire.peers[0].dropped)

    def test_prohibited(self) -> None:
        """One to where one may not is dropped, and nothing was sent."""
        connected = self.connect(IPv4Address("TCP", "169.254.169.254", 80))
        self.failureResultOf(connected, DestinationProhibited)
        self.assertTrue(self.wire.peers[0].transport.aborted)
        self.assertEqual(self.wire.peers[0].transport.value(), b"")

    def test_loopback(self) -> None:
        """So is one whose name led to loopback."""
        connected = self.connect(IPv4Address("TCP", "127.0.0.1", 80))
        self.failureResultOf(connected, DestinationProhibited)
        self.assertTrue(self.wire.peers[0].transport.aborted)

    def test_itself(self) -> None:
        """So is one to ourselves."""
        self.access.listening = [(ip_address("0.0.0.0"), 8088)]
        # As for StringTransport, 10.0.0.1 is our end of every connection.
        connected = self.connect(IPv4Address("TCP", "10.0.0.1", 8088))
        self.failureResultOf(connected, LoopDetected)
        self.assertTrue(self.wire.peers[0].transport.aborted)

    def test_exempt(self) -> None:
        """The proxies above were chosen by who started the service."""
        address = IPv4Address("TCP", "169.254.0.1", 80)
        self.successResultOf(self.connect(address, "above", ("above", 80)))
        self.failureResultOf(self.connect(address, "above", ("above", 81)))

    def test_elsewhere(self) -> None:
        """What is no address of IP is not looked at."""
        self.successResultOf(self.connect(object()))
