"""Tests for :mod:`coda_twisted.http1.targets`."""

from __future__ import annotations

from ipaddress import IPv6Address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.errors import RemoteProtocolError
from coda_twisted.http1.fields import Fields
from coda_twisted.http1.heads import RequestHead
from coda_twisted.http1.targets import (
    Form,
    Target,
    check_host,
    format_authority,
    parse_authority,
    parse_target,
)

HOSTS = st.one_of(
    st.from_regex(r"[a-z0-9._-]{1,20}", fullmatch=True),
    st.ip_addresses(v=6).map(lambda address: str(IPv6Address(int(address)))),
    st.ip_addresses(v=4).map(str),
)


class TargetTests(SynchronousTestCase):
    """The four forms of a request-target (RFC 9112 3.2)."""

    def refused(self, method: bytes, raw: bytes) -> str:
        with self.assertRaises(RemoteProtocolError) as raised:
            parse_target(method, raw)
        self.assertEqual(raised.exception.status_hint, 400)
        return str(raised.exception)

    def test_origin_form(self) -> None:
        """A path and query stay as they are (RFC 9112 3.2.1)."""
        for raw in (
            b"/where?q=now",
            b"/",
            b"//a/b",
            b"/%zz%2F?a#b".replace(b"#", b"%23"),
            b'/{|}^`"\\<>',
            b"/*",
        ):
            self.assertEqual(
                parse_target(b"GET", raw), Target(Form.ORIGIN, b"", "", None, raw)
            )

    def test_absolute_form(self) -> None:
        """RFC 9112 3.2.2's example, and URIs that leave something out."""
        for raw, scheme, host, port, path in [
            (
                b"http://www.example.org/pub/WWW/TheProject.html",
                b"http",
                "www.example.org",
                80,
                b"/pub/WWW/TheProject.html",
            ),
            (b"HTTP://Example.ORG:8080/A", b"http", "example.org", 8080, b"/A"),
            (b"https://a", b"https", "a", 443, b"/"),
            (b"http://a?q/r", b"http", "a", 80, b"/?q/r"),
            (b"ws://a/", b"ws", "a", 80, b"/"),
            (b"wss://a/", b"wss", "a", 443, b"/"),
            (b"ftp://a/f", b"ftp", "a", None, b"/f"),
            (b"ftp://a:21/f", b"ftp", "a", 21, b"/f"),
            (b"http://[::1]:8080/", b"http", "::1", 8080, b"/"),
            (b"http://[2001:DB8:0:0::1]/", b"http", "2001:db8::1", 80, b"/"),
            (b"http://a:/", b"http", "a", 80, b"/"),
            (b"http://a:00080/", b"http", "a", 80, b"/"),
            (b"http://a/b@c://d", b"http", "a", 80, b"/b@c://d"),
        ]:
            self.assertEqual(
                parse_target(b"GET", raw)[:5],
                (Form.ABSOLUTE, scheme, host, port, path),
            )

    def test_written_authority(self) -> None:
        """Host and port are also kept as they were written."""
        for raw, authority in [
            (b"http://Example.ORG:0080/A:1", b"Example.ORG:0080"),
            (b"http://[2001:DB8:0:0::1]?a", b"[2001:DB8:0:0::1]"),
            (b"http://a:", b"a:"),
        ]:
            self.assertEqual(parse_target(b"GET", raw).authority, authority)

    def test_options_of_the_whole_server(self) -> None:
        """OPTIONS of a URI without a path means ``*`` (RFC 9112 3.2.4)."""
        for raw, path in [
            (b"http://www.example.org:8001", b"*"),
            (b"http://www.example.org:8001/", b"/"),
            (b"http://www.example.org:8001?q", b"/?q"),
        ]:
            self.assertEqual(
                parse_target(b"OPTIONS", raw)[:5],
                (Form.ABSOLUTE, b"http", "www.example.org", 8001, path),
            )

    def test_authority_form(self) -> None:
        """CONNECT names a host and a port (RFC 9112 3.2.3)."""
        for raw, host, port, path in [
            (b"www.example.com:80", "www.example.com", 80, b"www.example.com:80"),
            (b"WWW.example.com:00443", "www.example.com", 443, b"www.example.com:443"),
            (b"[2001:DB8::0:1]:443", "2001:db8::1", 443, b"[2001:db8::1]:443"),
            (b"192.0.2.1:1", "192.0.2.1", 1, b"192.0.2.1:1"),
        ]:
            self.assertEqual(
                parse_target(b"CONNECT", raw),
                Target(Form.AUTHORITY, b"", host, port, path, raw),
            )

    def test_asterisk_form(self) -> None:
        """``*`` is for OPTIONS alone (RFC 9112 3.2.4)."""
        self.assertEqual(
            parse_target(b"OPTIONS", b"*"), Target(Form.ASTERISK, b"", "", None, b"*")
        )
        self.refused(b"GET", b"*")
        self.refused(b"CONNECT", b"*")

    def test_form_of_another_method(self) -> None:
        """CONNECT takes an authority with a port, and nothing else does."""
        self.refused(b"GET", b"a:80")
        self.refused(b"GET", b"a")
        for raw in (
            b"/",
            b"http://a:80/",
            b"a",
            b"a:",
            b":80",
            b"a:0",
            b"a:65536",
            b"a:443/",
            b"a:443?",
            b"a:443:443",
            b"::1:443",
            b"[::1]",
            b"[::1]443",
        ):
            self.refused(b"CONNECT", raw)

    def test_malformed(self) -> None:
        """Nothing that two readers could understand in two ways is understood."""
        for raw in (
            b"",
            b"http://",
            b"http:///a",
            b"http://:80/",
            b"http:/a",
            b"http:a",
            b"://a/",
            b"1http://a/",
            b"urn:a",
            b"http://a:b/",
            b"http://a:99999/",
            b"http://a:0/",
            b"http://a:-1/",
            b"http://a:123456/",
            b"http://a:000080/",
            b"http://a:80:80/",
            b"http://a\\@b/",
            b"http://a\\b/",
            b"http://a%2fb/",
            b"http://a,b/",
            b"http://" + b"a" * 256 + b"/",
            b"http://[::1/",
            b"http://::1/",
            b"http://[::1]a/",
            b"http://[a]/",
            b"http://[:::]/",
            b"http://[1.2.3.4]/",
            b"http://[::1%25eth0]/",
            b"http://[v1.a]/",
            b"/a#b",
            b"http://a#b",
            b"/a b",
            b"/a\tb",
            b"/a\r\nb",
            b"/a\n",
            b"/\x00",
            b"/\x7f",
            b"/\xc3\xa9",
        ):
            self.refused(b"GET", raw)

    def test_userinfo_is_refused_and_not_quoted(self) -> None:
        """URIs of http have none (RFC 9110 4.2.4), and what was sent is a secret."""
        for method, raw in [
            (b"GET", b"http://user:s3cret@a/"),
            (b"GET", b"http://s3cret@a/"),
            (b"GET", b"ftp://user:s3cret@a/"),
            (b"CONNECT", b"user:s3cret@a:443"),
        ]:
            reason = self.refused(method, raw)
            self.assertIn("user name", reason)
            self.assertNotIn("s3cret", reason)


class AuthorityTests(SynchronousTestCase):
    """Hosts and ports, read and written."""

    def test_default_port(self) -> None:
        """A port may be left out, or empty, where there is a default."""
        self.assertEqual(parse_authority(b"A", 80), ("a", 80))
        self.assertEqual(parse_authority(b"a:", 80), ("a", 80))
        self.assertEqual(parse_authority(b"a:81", 80), ("a", 81))
        for raw in (b"a", b"a:", b"[::1]"):
            self.assertRaises(RemoteProtocolError, parse_authority, raw)

    def test_format(self) -> None:
        """IPv6 is bracketed, and the default port left out."""
        self.assertEqual(format_authority("a", 443), b"a:443")
        self.assertEqual(format_authority("a", 443, 443), b"a")
        self.assertEqual(format_authority("::1", 443), b"[::1]:443")
        self.assertEqual(format_authority("::1", 443, 443), b"[::1]")

    @settings(max_examples=100, deadline=None)
    @given(HOSTS, st.integers(1, 65535), st.sampled_from([80, 443]))
    def test_what_is_written_is_read(self, host: str, port: int, default: int) -> None:
        """Formatting and parsing are each other's opposite."""
        self.assertEqual(parse_authority(format_authority(host, port)), (host, port))
        written = format_authority(host, port, default)
        self.assertEqual(parse_authority(written, default), (host, port))


class HostTests(SynchronousTestCase):
    """The Host field (RFC 9112 3.2)."""

    def check(
        self,
        *hosts: bytes,
        version: tuple[int, int] = (1, 1),
        method: bytes = b"GET",
        target: bytes = b"/",
    ) -> None:
        fields = Fields((b"Host", host) for host in hosts)
        head = RequestHead(method, target, version, fields)
        check_host(head, parse_target(method, target))

    def refused(self, *hosts: bytes, **options: bytes | tuple[int, int]) -> None:
        with self.assertRaises(RemoteProtocolError) as raised:
            self.check(*hosts, **options)  # type: ignore[arg-type]
        self.assertEqual(raised.exception.status_hint, 400)

    def test_one(self) -> None:
        """One Host with or without a port is as it should be."""
        for host in (b"a", b"A.example:8080", b"[::1]", b"[::1]:80", b"192.0.2.1"):
            self.check(host)

    def test_missing(self) -> None:
        """HTTP/1.1 requires it; HTTP/1.0 did not know it."""
        self.refused()
        self.refused(target=b"http://a/")
        self.check(version=(1, 0))

    def test_repeated(self) -> None:
        """Two are refused in any version, equal or not."""
        self.refused(b"a", b"a")
        self.refused(b"a", b"b", version=(1, 0))

    def test_malformed(self) -> None:
        """A value that names no host is refused."""
        for host in (b"a b", b"a,b", b"a/b", b"u@a", b"a:b", b"a:0", b"::1", b"[a]"):
            self.refused(host)
            self.refused(host, target=b"http://a/")
            self.refused(host, version=(1, 0))

    def test_mismatch(self) -> None:
        """Beside an absolute-form it is ignored (RFC 9112 3.2.2), so may differ."""
        self.check(b"b", target=b"http://a/")
        self.check(b"b:1", method=b"CONNECT", target=b"a:443")

    def test_empty(self) -> None:
        """It may be empty unless it is all that would say the host."""
        self.refused(b"")
        self.check(b"", method=b"OPTIONS", target=b"*")
        self.check(b"", target=b"http://a/")
        self.check(b"", method=b"CONNECT", target=b"a:443")
