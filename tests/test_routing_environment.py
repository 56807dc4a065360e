"""Tests of routes from the environment."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from coda_twisted.interfaces import IRouter
from coda_twisted.routing.environment import EnvironmentRouter
from coda_twisted.routing.routes import Direct, HTTPProxy, Route

A = HTTPProxy("http", "a.example", 3128)
B = HTTPProxy("http", "b.example", 3128)


def routes(**environ: str) -> dict[str, Route]:
    """Ask for the route of each kind to a host that is not exempt."""
    router = EnvironmentRouter(environ)
    found = {}
    for scheme in ("http", "https", "tunnel"):
        [found[scheme]] = router.routes(scheme, "origin.example", 80)
    return found


class VariablesTests(SynchronousTestCase):
    """The variables mean what curl 7.88.1 was seen to make of them."""

    def test_interface(self) -> None:
        """It is a router."""
        self.assertTrue(verifyObject(IRouter, EnvironmentRouter({})))

    def test_empty_environment(self) -> None:
        """Without variables every request goes directly."""
        self.assertEqual(
            routes(), {"http": Direct(), "https": Direct(), "tunnel": Direct()}
        )

    def test_http_proxy(self) -> None:
        """``http_proxy`` is for http alone."""
        self.assertEqual(
            routes(http_proxy="http://a.example"),
            {"http": A, "https": Direct(), "tunnel": Direct()},
        )

    def test_httpoxy(self) -> None:
        """``HTTP_PROXY``, which a CGI program's client can set, is not read."""
        self.assertEqual(routes(HTTP_PROXY="http://a.example")["http"], Direct())

    def test_https_proxy(self) -> None:
        """``https_proxy`` is for https and tunnels, in either case."""
        for name in ("https_proxy", "HTTPS_PROXY"):
            self.assertEqual(
                routes(**{name: "http://a.example"}),
                {"http": Direct(), "https": A, "tunnel": A},
            )

    def test_all_proxy(self) -> None:
        """``all_proxy`` is for whatever has no variable of its own."""
        for name in ("all_proxy", "ALL_PROXY"):
            self.assertEqual(
                routes(**{name: "a.example"}), {"http": A, "https": A, "tunnel": A}
            )
            self.assertEqual(
                routes(**{name: "a.example", "https_proxy": "b.example"}),
                {"http": A, "https": B, "tunnel": B},
            )

    def test_lower_case_wins(self) -> None:
        """Where both cases are set the lower one counts."""
        self.assertEqual(
            routes(https_proxy="a.example", HTTPS_PROXY="b.example")["https"], A
        )
        self.assertEqual(
            routes(all_proxy="a.example", ALL_PROXY="b.example")["http"], A
        )

    def test_own_variable_wins(self) -> None:
        """``HTTPS_PROXY`` counts before ``all_proxy``, whatever the case."""
        self.assertEqual(
            routes(all_proxy="a.example", HTTPS_PROXY="b.example")["https"], B
        )

    def test_empty_is_unset(self) -> None:
        """An empty variable is as good as none: the next one counts."""
        self.assertEqual(routes(http_proxy="", all_proxy="a.example")["http"], A)
        self.assertEqual(routes(https_proxy=" ", HTTPS_PROXY="a.example")["https"], A)
        self.assertEqual(routes(http_proxy="", all_proxy="")["http"], Direct())

    def test_no_proxy(self) -> None:
        """Exempt hosts are reached directly, whatever the scheme."""
        for name in ("no_proxy", "NO_PROXY"):
            router = EnvironmentRouter(
                {"all_proxy": "a.example", name: "local.example,10.0.0.0/8"}
            )
            for scheme in ("http", "https", "tunnel"):
                for host in ("local.example", "x.local.example", "10.1.2.3"):
                    self.assertEqual(router.routes(scheme, host, 80), (Direct(),))
                self.assertEqual(router.routes(scheme, "far.example", 80), (A,))

    def test_lower_case_no_proxy_wins(self) -> None:
        """``no_proxy`` counts before ``NO_PROXY``, unless it is empty."""
        proxy = {"all_proxy": "a.example", "NO_PROXY": "*"}
        self.assertEqual(routes(**proxy, no_proxy="x.example")["http"], A)
        self.assertEqual(routes(**proxy, no_proxy="")["http"], Direct())

    def test_loopback_is_not_exempt(self) -> None:
        """As with curl, loopback hosts go to the proxy unless listed."""
        router = EnvironmentRouter({"all_proxy": "a.example"})
        for host in ("localhost", "127.0.0.1", "::1"):
            self.assertEqual(router.routes("http", host, 80), (A,))

    def test_read_once(self) -> None:
        """A variable that changes later changes nothing."""
        environ = {"http_proxy": "a.example"}
        router = EnvironmentRouter(environ)
        environ["http_proxy"] = "b.example"
        self.assertEqual(router.routes("http", "origin.example", 80), (A,))


class UserinfoTests(SynchronousTestCase):
    """User names and passwords in the variables are handed over, never shown."""

    def test_by_proxy(self) -> None:
        """Each proxy's user and password are found by the proxy."""
        router = EnvironmentRouter(
            {
                "http_proxy": "http://me:p%40ss@a.example",
                "https_proxy": "http://you@b.example",
            }
        )
        self.assertEqual(router.userinfo, {A: ("me", "p@ss"), B: ("you", "")})

    def test_none(self) -> None:
        """A proxy's URL without user gives none."""
        self.assertEqual(EnvironmentRouter({"http_proxy": "a.example"}).userinfo, {})

    def test_unused_variable(self) -> None:
        """The user of a variable that is not used is not read."""
        router = EnvironmentRouter(
            {"https_proxy": "a.example", "HTTPS_PROXY": "http://me:pw@b.example"}
        )
        self.assertEqual(router.userinfo, {})

    def test_one_identity_per_proxy(self) -> None:
        """Two users at one proxy: the one of ``http_proxy`` counts."""
        router = EnvironmentRouter(
            {"https_proxy": "http://you:b@a.example", "http_proxy": "me:a@a.example"}
        )
        self.assertEqual(router.userinfo, {A: ("me", "a")})

    def test_not_shown(self) -> None:
        """Neither the router nor its mapping tells a password."""
        router = EnvironmentRouter({"http_proxy": "http://me:hunter2@a.example"})
        for told in (repr(router), str(router), repr(router.userinfo)):
            self.assertIn("a.example", told)
            self.assertNotIn("hunter2", told)


class ErrorTests(SynchronousTestCase):
    """A variable that cannot be used is named at once."""

    def test_names_the_variable(self) -> None:
        """The error names the variable and the reason, and not the value."""
        for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            error = self.assertRaises(
                ValueError,
                EnvironmentRouter,
                {name: "http://me:hunter2/x@a.example"},
            )
            self.assertIn(f"environment variable {name}: ", str(error))
            self.assertIn("percent-encode", str(error))
            self.assertNotIn("hunter2", str(error))
            self.assertTrue(error.__suppress_context__)

    def test_socks(self) -> None:
        """A SOCKS proxy that would be used is refused by name."""
        error = self.assertRaises(
            ValueError, EnvironmentRouter, {"all_proxy": "socks5h://a.example"}
        )
        self.assertIn("all_proxy: SOCKS", str(error))

    def test_unused_socks(self) -> None:
        """A SOCKS ``all_proxy`` behind both other variables does no harm."""
        self.assertEqual(
            routes(
                http_proxy="a.example",
                https_proxy="b.example",
                all_proxy="socks://c.example",
            ),
            {"http": A, "https": B, "tunnel": B},
        )
