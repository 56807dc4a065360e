"""Tests of which hosts are reached without the proxy."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.routing.noproxy import NoProxy

# Every row was tried with curl 7.88.1 in front of a listener that told whether it
# was used as a proxy: (no_proxy, host) -> whether curl went round the proxy.
AS_CURL = {
    ("*", "a.test"): True,
    ("*,x", "a.test"): False,
    ("x,*", "a.test"): False,
    ("*.a.test", "b.a.test"): False,
    ("a.test", "a.test"): True,
    ("a.test", "b.a.test"): True,
    ("a.test", "xa.test"): False,
    (".a.test", "a.test"): True,
    (".a.test", "b.a.test"): True,
    ("..a.test", "b.a.test"): False,
    ("a.test.", "a.test"): True,
    ("a.test", "a.test."): True,
    ("a.test.", "a.test."): True,
    ("A.Test", "a.tesT"): True,
    ("a.test:80", "a.test"): False,
    ("x a.test", "a.test"): True,
    ("x, a.test", "a.test"): True,
    ("x ,a.test", "a.test"): True,
    ("x\ta.test", "a.test"): True,
    ("x,,a.test", "a.test"): True,
    (",a.test", "a.test"): True,
    (" a.test", "a.test"): True,
    ("localhost", "localhost"): True,
    ("x", "localhost"): False,
    ("x", "127.0.0.1"): False,
    ("x", "[::1]"): False,
    ("127.0.0.9", "127.0.0.9"): True,
    ("127.0.0.0/8", "127.0.0.9"): True,
    ("127.0.0.8/31", "127.0.0.9"): True,
    ("127.0.0.10/31", "127.0.0.9"): False,
    ("127.0.0.9/32", "127.0.0.9"): True,
    ("127.0.0.9/33", "127.0.0.9"): False,
    ("127.0.0.0/x", "127.0.0.9"): False,
    ("127.0.0.0/255.0.0.0", "127.0.0.9"): False,
    ("127", "127.0.0.9"): False,
    ("0.9", "127.0.0.9"): False,
    (".127.0.0.9", "127.0.0.9"): False,
    ("127.0.0.9.", "127.0.0.9"): False,
    ("127.0.0.0/8", "a.127.0.0.9"): False,
    ("127.0.0.*", "127.0.0.9"): False,
    ("127.0.0.9:80", "127.0.0.9"): False,
    ("::1", "[::1]"): True,
    ("::1", "[0:0:0:0:0:0:0:1]"): True,
    ("8000::/1", "[::1]"): False,
    ("8000::/4", "[::1]"): False,
    ("[::1]:80", "[::1]"): False,
}

# Where we mean to differ; curl 7.88.1 was seen to do the opposite in every row.
UNLIKE_CURL = {
    (" * ", "a.test"): True,
    ("x\na.test", "a.test"): True,
    ("127.0.0.9/0", "127.0.0.8"): True,
    ("0.0.0.0/0", "127.0.0.9"): True,
    ("127.0.0.9/x", "127.0.0.9"): False,
    ("127.0.0.0/8", "127.9"): False,
    ("127.0.0.0/8", "127.0.0.9."): True,
    ("[::1]", "[::1]"): True,
    ("::1/128", "[::1]"): True,
    ("::/64", "[::1]"): True,
    ("::/127", "[::1]"): True,
    ("::/0", "[::1]"): True,
    ("0:0:0:0:0:0:0:1", "[::1]"): True,
}

label = st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True)
domain = st.lists(label, min_size=1, max_size=4).map(".".join)
octets = st.integers(0, 2**32 - 1)


def dotted(address: int) -> str:
    """Write an IPv4 address."""
    return ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))


class MatchTests(SynchronousTestCase):
    """Which hosts a list exempts."""

    def test_as_curl_does(self) -> None:
        """A list means what it means to curl."""
        self.assertEqual(
            {row: NoProxy(row[0]).match(row[1]) for row in AS_CURL}, AS_CURL
        )

    def test_where_curl_differs(self) -> None:
        """Networks, brackets and white space mean what their writer meant."""
        self.assertEqual(
            {row: NoProxy(row[0]).match(row[1]) for row in UNLIKE_CURL},
            UNLIKE_CURL,
        )

    def test_nothing_is_exempt(self) -> None:
        """A list without a usable entry exempts nothing, not even loopback."""
        for exempt in (NoProxy(""), NoProxy(" , ., /8 ")):
            for host in ("localhost", "127.0.0.1", "::1", "a.test", ".", ""):
                self.assertFalse(exempt.match(host), (exempt, host))

    def test_ipv6(self) -> None:
        """IPv6 hosts match by value, in brackets or not, whatever their zone."""
        exempt = NoProxy("fd00::/8, [2001:db8::1], [2001:db8:1::]/48, fe80::/10")
        for host in ("fd12::1", "[FD12::1]", "2001:db8:0::1", "2001:db8:1:2::3"):
            self.assertTrue(exempt.match(host), host)
        self.assertTrue(exempt.match("fe80::1%eth0"))
        for host in ("fc00::1", "2001:db8::2", "2001:db8:2::", "::ffff:10.0.0.1"):
            self.assertFalse(exempt.match(host), host)

    def test_families_are_apart(self) -> None:
        """Every IPv4 address is no IPv6 address, and the other way round."""
        self.assertFalse(NoProxy("0.0.0.0/0").match("::1"))
        self.assertFalse(NoProxy("::/0").match("127.0.0.1"))

    def test_repr(self) -> None:
        """It tells its list as it was written."""
        self.assertEqual(repr(NoProxy("a, b")), "NoProxy('a, b')")

    @settings(max_examples=100)
    @given(domain, domain)
    def test_subdomains(self, name: str, other: str) -> None:
        """A domain exempts itself and what is below it, never a longer label."""
        exempt = NoProxy(f"unrelated.invalid,{name}")
        self.assertTrue(exempt.match(name))
        self.assertTrue(exempt.match(f"{other}.{name}"))
        self.assertFalse(exempt.match(f"x{name}"))
        self.assertFalse(exempt.match(f"{name}.{other}.example"))

    @settings(max_examples=100)
    @given(octets, octets, st.integers(0, 32))
    def test_ipv4_networks(self, network: int, address: int, length: int) -> None:
        """A network exempts the addresses that share its first bits, and no other."""
        exempt = NoProxy(f"{dotted(network)}/{length}")
        shared = 32 - length
        self.assertEqual(
            exempt.match(dotted(address)), address >> shared == network >> shared
        )
        self.assertTrue(exempt.match(dotted(network ^ (2**shared - 1))))

    @settings(max_examples=100)
    @given(st.text(max_size=30), st.text(max_size=30))
    def test_never_fails(self, value: str, host: str) -> None:
        """Whatever the variable and the host hold, there is an answer."""
        self.assertIn(NoProxy(value).match(host), (True, False))
