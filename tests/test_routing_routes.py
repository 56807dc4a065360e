"""Tests of how proxies are written and read."""

from __future__ import annotations

from urllib.parse import quote

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from coda_twisted.interfaces import IRouter
from coda_twisted.routing.noproxy import NoProxy
from coda_twisted.routing.routes import Direct, HTTPProxy, StaticRouter, Userinfo

PROXY = HTTPProxy("http", "proxy.example", 3128)

CONTROLS = "".join(map(chr, range(32))) + "\x7f"

#: What may stand in a user name or password once it is percent-decoded.
printable = st.text(st.characters(codec="utf-8", exclude_characters=CONTROLS))


class ReadingTests(SynchronousTestCase):
    """A proxy is read from what people write for curl."""

    def test_spellings(self) -> None:
        """Scheme, port and a final slash may be left out; case does not count."""
        spellings = {
            "http://proxy.example:3128": PROXY,
            "http://proxy.example:3128/": PROXY,
            "HTTP://Proxy.Example:3128": PROXY,
            " http://proxy.example:3128\n": PROXY,
            "proxy.example:3128": PROXY,
            "proxy.example": PROXY,
            "http://proxy.example:": PROXY,
            "http://proxy.example:8080": HTTPProxy("http", "proxy.example", 8080),
            "https://proxy.example": HTTPProxy("https", "proxy.example", 443),
            "https://proxy.example:3129": HTTPProxy("https", "proxy.example", 3129),
            "10.0.0.1:65535": HTTPProxy("http", "10.0.0.1", 65535),
            "my_proxy:1": HTTPProxy("http", "my_proxy", 1),
            "http://[::1]:3128": HTTPProxy("http", "::1", 3128),
            "[2001:DB8:0:0:0:0:0:1]": HTTPProxy("http", "2001:db8::1", 3128),
        }
        self.assertEqual(
            {url: HTTPProxy.from_url(url) for url in spellings},
            {url: (proxy, None) for url, proxy in spellings.items()},
        )

    def test_userinfo(self) -> None:
        """A user name and password come percent-decoded, beside the proxy."""
        # The Basic credentials that curl 7.88.1 sends for each, decoded.
        written = {
            "http://u:p@proxy.example:3128": ("u", "p"),
            "u:p@proxy.example:3128": ("u", "p"),
            "http://u:p%40s%2Fs@proxy.example:3128": ("u", "p@s/s"),
            "http://u:p:q@proxy.example:3128": ("u", "p:q"),
            "http://u:p%zz@proxy.example:3128": ("u", "p%zz"),
            "http://u:%C3%A9@proxy.example:3128": ("u", "é"),
            "http://u;x=y:p@proxy.example:3128": ("u;x=y", "p"),
            "http://u@proxy.example:3128": ("u", ""),
            "http://:p@proxy.example:3128": ("", "p"),
            "http://:@proxy.example:3128": ("", ""),
            "http://@proxy.example:3128": ("", ""),
        }
        self.assertEqual(
            {url: HTTPProxy.from_url(url) for url in written},
            {url: (PROXY, userinfo) for url, userinfo in written.items()},
        )

    def test_domain_user(self) -> None:
        """A Windows user's backslash needs no encoding, and may have it."""
        for written in ("CORP\\me:pw@proxy.example", "CORP%5Cme:pw@proxy.example"):
            _, userinfo = HTTPProxy.from_url(written)
            self.assertEqual(userinfo, ("CORP\\me", "pw"))

    def test_last_at_sign_ends_the_password(self) -> None:
        """A password with an unencoded @ is read as it was meant."""
        self.assertEqual(
            HTTPProxy.from_url("http://u:p@ss@proxy.example"),
            (PROXY, ("u", "p@ss")),
        )

    @settings(max_examples=100)
    @given(username=printable, password=printable)
    def test_encoded_userinfo_survives(self, username: str, password: str) -> None:
        """Whatever is percent-encoded whole is read back whole."""
        encoded = f"{quote(username, safe='')}:{quote(password, safe='')}"
        self.assertEqual(
            HTTPProxy.from_url(f"http://{encoded}@proxy.example"),
            (PROXY, (username, password)),
        )

    def test_refusals(self) -> None:
        """What cannot be used is refused in words that say what to change."""
        refusals = {
            "": "a proxy's host is missing",
            "http://": "a proxy's host is missing",
            "http://:3128": "a proxy's host is missing",
            "http://pro xy:3128": "has a character that no name has",
            "http://pröxy:3128": "has a character that no name has",
            "http://proxy:http": "a proxy's port is a number",
            "http://proxy:+80": "a proxy's port is a number",
            "http://proxy:٣": "a proxy's port is a number",
            "http://proxy:0": "from 1 to 65535",
            "http://proxy:65536": "from 1 to 65535",
            "http://proxy:000080": "a proxy's port is a number",
            "http://::1:3128": "an IPv6 address in brackets",
            "http://[::1]3128": "an IPv6 address in brackets",
            "http://[proxy]:3128": "bracketed host is an IPv6 address",
            "http://[fe80::1%25eth0]:3128": "bracketed host is an IPv6 address",
            "http://[fe80::1%eth0]:3128": "bracketed host is an IPv6 address",
            "http://wpad/wpad.dat": "ends after the port",
            "http://u:p/w@proxy:3128": "percent-encode '/', '?' and '#'",
            "http://u:p#w@proxy:3128": "percent-encode '/', '?' and '#'",
            "http://u:p?w@proxy:3128": "percent-encode '/', '?' and '#'",
            "http://u:%E9@proxy:3128": "percent-encoded UTF-8",
            "http://u:p%0a@proxy:3128": "control character",
            "http://u%00:p@proxy:3128": "control character",
            "http://u:p\x7f@proxy:3128": "control character",
            "socks5://proxy:1080": "SOCKS proxies are not supported yet",
            "socks://proxy:1080": "SOCKS proxies are not supported yet",
            "SOCKS4A://proxy:1080": "SOCKS proxies are not supported yet",
            "ftp://proxy": "is http or https",
        }
        for url, reason in refusals.items():
            error = self.assertRaises(ValueError, HTTPProxy.from_url, url)
            self.assertIn(reason, str(error), url)

    @settings(max_examples=100)
    @given(before=st.text(max_size=12), after=st.text(max_size=12))
    @example(before="http://u:", after="/@proxy.example:3128")
    @example(before="http://proxy.example:", after="")
    @example(before="http://[", after="]:3128")
    @example(before="", after="://proxy.example")
    @example(before="http://u:%E9", after="@proxy.example")
    def test_refusals_repeat_nothing(self, before: str, after: str) -> None:
        """Wherever a secret stands in a malformed URL, no error repeats it."""
        try:
            proxy, userinfo = HTTPProxy.from_url(f"{before}Hunter2{after}")
        except ValueError as error:
            self.assertNotIn("hunter2", str(error).lower())
            self.assertIsNone(error.__cause__)
            self.assertTrue(error.__suppress_context__ or not error.__context__)
        else:
            told = f"{proxy!r} {userinfo!r}".lower()
            is_name = userinfo is None or "hunter2" not in userinfo.password.lower()
            self.assertEqual("hunter2" in told, is_name)


class TellingTests(SynchronousTestCase):
    """Routes are named for people without anything secret."""

    def test_str(self) -> None:
        """A proxy is told as its URL, a direct route as such."""
        self.assertEqual(str(PROXY), "http://proxy.example:3128")
        self.assertEqual(str(HTTPProxy("https", "::1", 443)), "https://[::1]:443")
        self.assertEqual(str(Direct()), "direct")

    def test_str_is_read_back(self) -> None:
        """What a proxy is told as can be pasted into a configuration."""
        for proxy in (PROXY, HTTPProxy("https", "2001:db8::1", 443)):
            self.assertEqual(HTTPProxy.from_url(str(proxy)), (proxy, None))

    def test_password_is_not_told(self) -> None:
        """A user name may be shown, its password never."""
        userinfo = Userinfo("me", "hunter2")
        for told in (repr(userinfo), str(userinfo), f"{[userinfo]}"):
            self.assertIn("me", told)
            self.assertNotIn("hunter2", told)


class StaticRouterTests(SynchronousTestCase):
    """A static router knows one way."""

    def test_interface(self) -> None:
        """It is a router."""
        self.assertTrue(verifyObject(IRouter, StaticRouter(Direct())))

    def test_one_way(self) -> None:
        """Every request goes that way."""
        router = StaticRouter(PROXY)
        for scheme in ("http", "https", "tunnel"):
            self.assertEqual(router.routes(scheme, "a.example", 80), (PROXY,))

    def test_exempt_hosts(self) -> None:
        """Exempt hosts are reached directly."""
        router = StaticRouter(PROXY, NoProxy("a.example"))
        self.assertEqual(router.routes("http", "a.example", 80), (Direct(),))
        self.assertEqual(router.routes("http", "b.example", 80), (PROXY,))

    def test_repr(self) -> None:
        """It tells its route."""
        self.assertIn("http://proxy.example:3128", repr(StaticRouter(PROXY)))
