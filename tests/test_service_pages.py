"""Tests for :mod:`coda_twisted.service.pages`."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.errors import (
    AuthenticationFailed,
    BodyNotReplayable,
    ConnectionEnded,
    CredentialsRejected,
    LocalProtocolError,
    NoAcceptableScheme,
    PhaseTimeout,
    ProxyUnreachable,
    RemoteProtocolError,
    TunnelRefused,
)
from coda_twisted.http1.fields import Fields
from coda_twisted.http1.heads import RequestHead
from coda_twisted.service.access import DestinationProhibited, LoopDetected, Prohibited
from coda_twisted.service.pages import (
    REASONS,
    Problem,
    page,
    problem_of,
    unanswered_407,
)

# RFC 8941 3.3.3 and 3.3.4: what a string and a token are made of.
STRING = r'"(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'
TOKEN = r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*"
# RFC 9209 2: a list of one item, as we write it.
PROXY_STATUS = re.compile(
    rf"{TOKEN}; error={TOKEN}(?:; received-status=[1-9][0-9]{{2}})?; details={STRING}"
)

# RFC 9209 2.3, as far as we use them.
ERRORS = (
    *("dns_error", "destination_unavailable", "destination_ip_prohibited"),
    *("connection_refused", "connection_terminated", "connection_timeout"),
    *("tls_certificate_error", "http_request_error", "http_request_denied"),
    *("http_response_timeout", "http_protocol_error", "proxy_internal_response"),
    *("proxy_internal_error", "proxy_configuration_error", "proxy_loop_detected"),
)


def unreachable(cause: Exception) -> ProxyUnreachable:
    """Make the error of a proxy that cannot be reached."""
    error = ProxyUnreachable("http://above:3128", "why")
    error.__cause__ = cause
    return error


class ProblemTests(SynchronousTestCase):
    """What an error means to a client."""

    def check(self, error: Exception, status: int, kind: str, *words: str) -> Problem:
        problem = problem_of(error)
        assert problem is not None, error
        self.assertEqual((problem.status, problem.error), (status, kind), error)
        self.assertIn(kind, ERRORS)
        self.assertIn(status, REASONS)
        for word in words:
            self.assertIn(word, problem.what)
        return problem

    def test_unreachable(self) -> None:
        """Servers and proxies that cannot be reached are told apart by why."""
        for cause, status, kind in (
            (DNSLookupError(), 502, "dns_error"),
            (TimeoutError(), 504, "connection_timeout"),
            (TCPTimedOutError(), 504, "connection_timeout"),
            (PhaseTimeout("connect", 20), 504, "connection_timeout"),
            (PhaseTimeout("tls", 20), 504, "connection_timeout"),
            (SSL.Error([("a", "b", "self-signed")]), 502, "tls_certificate_error"),
            (VerificationError([]), 502, "tls_certificate_error"),
            (ConnectionRefusedError(), 502, "connection_refused"),
            (NoRouteError(), 502, "destination_unavailable"),
            (ConnectError(), 502, "destination_unavailable"),
        ):
            self.check(cause, status, kind)
            told = self.check(unreachable(cause), status, kind)
            self.assertEqual(
                told.what, "the proxy http://above:3128 cannot be reached: why"
            )
        self.check(
            ProxyUnreachable("http://above:3128", "why"), 502, "destination_unavailable"
        )

    def test_tls(self) -> None:
        """What TLS failed with is told as far as it is known."""
        for error, words in (
            (SSL.Error([("a", "b", "self-signed"), ("c", "d", "e")]), "self-signed, e"),
            (SSL.Error([]), "no reason was given"),
            (SSL.Error(), "no reason was given"),
            (SSL.SysCallError(-1, "Unexpected EOF"), "no reason was given"),
            (VerificationError([]), "for another name"),
        ):
            self.check(error, 502, "tls_certificate_error", words)

    def test_name(self) -> None:
        """A name that no host can have is not a mistake of ours."""
        # As HostnameEndpoint puts it; Scrapy, once imported, keeps it from doing so.
        error = ValueError("invalid hostname: a..b")
        self.check(error, 502, "dns_error", "no host can have that name")

    def test_ended(self) -> None:
        """Connections that end, in whichever words, are the next server's."""
        for error in (
            ConnectionEnded("it ended", answered=False),
            ConnectionLost(),
            ConnectionDone(),
        ):
            self.check(error, 502, "connection_terminated")

    def test_timeouts(self) -> None:
        """So are answers that do not come."""
        for phase in ("head", "body", "total", "authentication"):
            self.check(PhaseTimeout(phase, 9), 504, "http_response_timeout", "9 s")

    def test_authentication(self) -> None:
        """Why we could not authenticate is told, and never asked of the client."""
        for error in (
            AuthenticationFailed("no ticket", peer="proxy above"),
            NoAcceptableScheme([("NTLM", "not allowed")]),
            CredentialsRejected("refused", identity="me"),
        ):
            problem = self.check(error, 502, "proxy_configuration_error", str(error))
            self.assertEqual(problem.received, 407)
            self.assertTrue(problem.advice)

    def test_rules(self) -> None:
        """What our rules forbid is told with the rule."""
        for error, status, kind in (
            (LoopDetected("loop"), 508, "proxy_loop_detected"),
            (DestinationProhibited("there"), 403, "destination_ip_prohibited"),
            (Prohibited("that"), 403, "http_request_denied"),
        ):
            self.check(error, status, kind, str(error))

    def test_protocol(self) -> None:
        """Whoever broke the rules of HTTP is to blame."""
        self.check(RemoteProtocolError("odd"), 502, "http_protocol_error", "odd")
        self.check(LocalProtocolError("odd"), 400, "http_request_error", "odd")
        self.check(BodyNotReplayable("gone"), 503, "proxy_internal_error", "gone")

    def test_tunnel(self) -> None:
        """A tunnel that was refused is refused with the same status, if it is one."""
        for status, expected, kind in (
            (403, 403, "http_request_denied"),
            (404, 404, "proxy_internal_response"),
            (503, 503, "proxy_internal_response"),
            (302, 502, "proxy_internal_response"),
            (999, 502, "proxy_internal_response"),
        ):
            problem = problem_of(TunnelRefused(status, "Because"))
            assert problem is not None
            self.assertEqual((problem.status, problem.error), (expected, kind))
            self.assertEqual(problem.received, status)
            self.assertIn(f"{status} Because", problem.what)

    def test_407(self) -> None:
        """A 407 stays with us; which schemes were offered is told."""
        fields = Fields(
            [
                (b"Proxy-Authenticate", b'NTLM, Basic realm="a, b"'),
                (b"Proxy-Authenticate", b"NTLM"),
            ]
        )
        for problem in (
            unanswered_407(fields),
            problem_of(TunnelRefused(407, "Auth", list(fields))),
        ):
            assert problem is not None
            self.assertEqual((problem.status, problem.received), (502, 407))
            self.assertIn("(NTLM, Basic)", problem.what)
        self.assertIn("without a challenge", unanswered_407(Fields()).what)

    def test_unforeseen(self) -> None:
        """Whatever else there is, is ours."""
        for error in (
            ZeroDivisionError(),
            CancelledError(),
            ValueError("x"),
            OSError(),
        ):
            self.assertIsNone(problem_of(error))


PROBLEM = Problem(502, "dns_error", "the name is not known", "Check it.", received=407)


class PageTests(SynchronousTestCase):
    """How it is told."""

    def show(self, problem: Problem = PROBLEM, accept: bytes | None = None) -> Any:
        fields = [] if accept is None else [(b"Accept", accept)]
        request = RequestHead(b"GET", b"/", (1, 1), Fields(fields))
        return page(problem, request, "coda-test", "r7")

    def test_text(self) -> None:
        """Programs are told in plain text."""
        for accept in (None, b"*/*", b"application/json"):
            head, content = self.show(accept=accept)
            self.assertEqual(
                content,
                b"502 Bad Gateway: The name is not known.\n"
                b"Check it.\n(coda-proxy, r7)\n",
            )
            self.assertEqual(
                list(head.fields),
                [
                    (
                        b"Proxy-Status",
                        b"coda-test; error=dns_error; received-status=407;"
                        b' details="the name is not known"',
                    ),
                    (b"Content-Type", b"text/plain; charset=utf-8"),
                    (b"Cache-Control", b"no-store"),
                    (b"Content-Length", b"%d" % len(content)),
                ],
            )
            self.assertEqual((head.status, head.reason), (502, b"Bad Gateway"))

    def test_browser(self) -> None:
        """Browsers are told in HTML."""
        head, content = self.show(accept=b"text/html,application/xhtml+xml,*/*;q=0.8")
        self.assertEqual(head.fields.get(b"Content-Type"), b"text/html; charset=utf-8")
        for piece in (
            *(b"<title>502 Bad Gateway</title>", b"<p>The name is not known.</p>"),
            *(b"<p>Check it.</p>", b"<small>coda-proxy, r7</small>"),
        ):
            self.assertIn(piece, content)

    def test_no_request(self) -> None:
        """What could not be read is answered in plain text."""
        head, _ = page(PROBLEM, None, "coda-test", "r7")
        self.assertEqual(head.fields.get(b"Content-Type"), b"text/plain; charset=utf-8")

    def test_without_advice(self) -> None:
        """Where there is nothing to do nothing is said."""
        _, content = self.show(Problem(403, "http_request_denied", "no"))
        self.assertEqual(content, b"403 Forbidden: No.\n(coda-proxy, r7)\n")

    def test_retry(self) -> None:
        """What may be tried again says when."""
        head, _ = self.show(Problem(503, "proxy_internal_error", "busy"))
        self.assertEqual(head.fields.get(b"Retry-After"), b"1")

    def test_unknown_status(self) -> None:
        """A status of somebody else's has a reason phrase all the same."""
        head, content = self.show(Problem(451, "proxy_internal_response", "no"))
        self.assertEqual(head.reason, b"Error")
        self.assertTrue(content.startswith(b"451 Error: No."))

    def test_escaped(self) -> None:
        """Nothing that others say becomes HTML, or ends the field's string."""
        evil = "<script>alert(\"1\")</script> & 'co' \\ \r\nA: b \u2028 \x9b \ud800"
        head, content = self.show(
            Problem(502, "dns_error", evil, evil), accept=b"text/html"
        )
        self.assertNotIn(b"<script", content)
        self.assertIn(b"&lt;script&gt;alert(&quot;1&quot;)", content)
        status = head.fields.get(b"Proxy-Status")
        self.assertEqual(
            status,
            b'coda-test; error=dns_error; details="<script>alert(\\"1\\")</script> & '
            b"'co' \\\\ ??A: b ? ? ?\"",
        )

    @settings(max_examples=100, deadline=None)
    @given(what=st.text(), received=st.none() | st.integers(100, 599))
    def test_any_words(self, what: str, received: int | None) -> None:
        """Whatever is to be told, the field is well-formed (RFC 9209, RFC 8941)."""
        for accept in (b"text/html", b"*/*"):
            head, content = self.show(
                Problem(502, "dns_error", what, received=received), accept
            )
            status = (head.fields.get(b"Proxy-Status") or b"").decode("ascii")
            self.assertIsNotNone(PROXY_STATUS.fullmatch(status), status)
            self.assertLess(len(status), 600)
            self.assertEqual(head.fields.get(b"Content-Length"), b"%d" % len(content))
            content.decode("utf-8")
