"""
The service in front of real proxies that verify whom they serve, asked by curl.

curl knows no password here: whatever the proxy demands, the service answers.  What
reached the origin, and what the proxy judged, is read from their own logs.
"""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from tests.integration import apache, kerberos, origin
from tests.integration.certificates import authority
from tests.integration.coda import CodaProxy, authenticating
from tests.integration.commands import curl_many
from tests.integration.people import ALICE, WRONG_PASSWORD
from tests.integration.servers import workspace
from tests.integration.service_case import ServiceCase, upstream

MIB = 1024 * 1024
CROWD = 200


@functools.cache
def upload() -> Path:
    """A file of one MiB."""
    file = workspace() / "one-mib"
    file.write_bytes(origin.content(MIB))
    return file


class Matrix:
    """What every upstream must carry."""

    def test_get(self: Any) -> None:
        """GET brings the content, and the origin saw one request without secrets."""
        answer = self.get(self.origin.url("/octets/1000"))
        self.assertEqual(answer.content, origin.content(1000))
        received = self.received()
        self.assertEqual(received.method, "GET")
        self.assertIsNone(received.get("Proxy-Authorization"))
        self.assertIsNone(received.get("Authorization"))
        self.assertRegex(received.get("Via"), r"^1\.1 coda-[0-9a-f]{8}")
        self.assert_logged_on()

    def test_head(self: Any) -> None:
        """HEAD brings fields and no content."""
        answer = self.get(self.origin.url("/octets/1000"), "--head")
        self.assertIn("content-length: 1000", answer.head.lower())
        self.assert_logged_on()

    def test_post(self: Any) -> None:
        """POST of a MiB arrives once, whole; announced or not."""
        for expectation in ("Expect:", "Expect: 100-continue"):
            self.origin.reset()
            self.get(
                self.origin.url(),
                *("--data-binary", f"@{upload()}", "-H", expectation),
            )
            received = self.received()
            self.assertEqual(
                (received.method, received.chunked, received.sha256),
                ("POST", False, origin.sha256_of(MIB)),
            )
        self.assert_logged_on()

    def test_chunked_put(self: Any) -> None:
        """PUT of content that tells no length arrives once, whole."""
        self.get(self.origin.url(), *self.chunked_put)
        received = self.received()
        self.assertEqual(
            (received.method, received.chunked, received.sha256),
            ("PUT", True, origin.sha256_of(MIB)),
        )
        self.assert_logged_on()

    @property
    def chunked_put(self) -> list[str]:
        """Options that have curl send a MiB in chunks."""
        return ["-T", str(upload()), "-H", "Transfer-Encoding: chunked"]

    def test_first_upload(self: Any) -> None:
        """An upload is carried even if it is the first request of all."""
        post = ["--data-binary", f"@{upload()}", "-H", "Expect:"]
        for options in (post, self.chunked_put):
            self.fresh()
            self.origin.reset()
            self.get(self.origin.url(), *options)
            self.assertEqual(self.received().sha256, origin.sha256_of(MIB))
        self.assert_logged_on()

    def test_download(self: Any) -> None:
        """Sixty-four MiB arrive unharmed."""
        website = apache.website()
        answer = self.get(website.url("/64m.bin"))
        self.assertEqual(answer.sha256, website.sha256_of("64m.bin"))

    def test_https(self: Any) -> None:
        """An https URI passes through CONNECT and is verified by the client."""
        for path in ("/octets/1000", "/chunked/1000"):
            answer = self.get(self.origin.tls_url(path))
            self.assertEqual(answer.connect_status, 200)
            self.assertEqual(answer.content, origin.content(1000))
        upload_options = ["--data-binary", f"@{upload()}"]
        self.get(self.origin.tls_url(), *upload_options)
        *_, posted = self.origin.requests()
        self.assertEqual(posted.sha256, origin.sha256_of(MIB))
        self.assertEqual(posted.tls, "TLSv1.3")
        self.assertIsNone(posted.get("Via"))
        self.assertEqual(self.proxy.failed_logons(), 0)

    def test_restart(self: Any) -> None:
        """A proxy that restarts between two requests is met again."""
        urls = [self.origin.url("/octets/9"), self.origin.tls_url("/octets/9")]
        for url in urls:
            self.get(url)
        self.proxy.restart(kill=True)
        for url in reversed(urls):
            self.get(url)
        self.assertEqual(self.proxy.failed_logons(), 0)

    def test_proxy_down(self: Any) -> None:
        """While the proxy is down the answer is 502 and says so; then all is well."""
        self.get(self.origin.url("/octets/9"))
        self.proxy.stop()
        try:
            answer = self.curl(self.origin.url("/octets/9"))
            tunnel = self.curl(self.origin.tls_url("/octets/9"))
        finally:
            self.proxy.start()
        self.assertEqual((answer.status, tunnel.connect_status), (502, 502))
        self.assertIn(b"refused", answer.content)
        self.assertIn("error=connection_refused", answer.head)
        self.get(self.origin.url("/octets/9"))

    def test_crowd(self: Any) -> None:
        """Two hundred requests at once, the first of all, are all answered."""
        self.fresh()
        answers = curl_many(
            self.origin.url("/octets/1000"), CROWD, "--proxy", self.service.url
        )
        self.assertEqual(
            Counter((each.exit_code, each.status) for each in answers),
            {(0, 200): CROWD},
        )
        self.assertEqual({each.content for each in answers}, {origin.content(1000)})
        self.assert_logged_on()
        self.assertLessEqual(self.logons(), self.connections())

    def test_crowd_of_tunnels(self: Any) -> None:
        """Two hundred tunnels at once, the first of all, are all opened."""
        self.fresh()
        answers = curl_many(
            self.origin.tls_url("/octets/10"), CROWD, "--proxy", self.service.url
        )
        self.assertEqual(
            Counter((each.exit_code, each.status) for each in answers),
            {(0, 200): CROWD},
        )
        self.assertEqual(self.proxy.failed_logons(), 0)
        self.assertLessEqual(self.logons(), self.connections())

    def logons(self: Any) -> int:
        """How often somebody logged on; of schemes that log each request on, 0."""
        return 0

    def connections(self: Any) -> int:
        """How many connections the proxy got requests on."""
        return len({each.client for each in self.proxy.requests()})


class WrongPassword:
    """What every scheme must make of a password that is wrong."""

    reason: ClassVar[str]

    def test_wrong_password(self: Any) -> None:
        """It costs one failed logon, and each client is told why."""
        self.fresh(WRONG_PASSWORD)
        answers = [
            self.curl(self.origin.url(), *options)
            for options in (
                [],
                ["--head"],
                ["--data-binary", f"@{upload()}"],
                ["-T", str(upload()), "-H", "Transfer-Encoding: chunked"],
                ["-H", "Accept: text/html"],
            )
        ]
        self.assertEqual([each.status for each in answers], [502] * len(answers))
        tunnel = self.curl(self.origin.tls_url())
        self.assertEqual((tunnel.exit_code, tunnel.connect_status), (56, 502))
        self.assertEqual(self.proxy.failed_logons(), 1)
        self.assertEqual(self.origin.requests(), [])
        for answer in [*answers, tunnel]:
            self.assertNotIn(" 407 ", answer.head)
            self.assertNotIn("proxy-authenticate", answer.head.lower())
            self.assertIn("error=proxy_configuration_error", answer.head)
        for page in (answers[0].content, answers[-1].content):
            text = page.decode()
            self.assertRegex(text, self.reason)
            self.assertIn("Give coda-proxy the right user name and password", text)
            self.assertIn(
                str(self.proxy.tls_port if self.tls else self.proxy.port), text
            )
        for text in (self.service.log(), *(each.head for each in answers)):
            self.assertNotIn(WRONG_PASSWORD, text)

    def test_wrong_password_in_a_crowd(self: Any) -> None:
        """Two hundred requests at once cost one failed logon."""
        self.fresh(WRONG_PASSWORD)
        answers = curl_many(self.origin.url(), CROWD, "--proxy", self.service.url)
        self.assertEqual(Counter(each.status for each in answers), {502: CROWD})
        self.assertEqual(self.proxy.failed_logons(), 1)
        self.assertEqual(self.origin.requests(), [])

    def test_wrong_password_in_a_crowd_of_tunnels(self: Any) -> None:
        """Two hundred tunnels at once cost one failed logon."""
        self.fresh(WRONG_PASSWORD)
        answers = curl_many(self.origin.tls_url(), CROWD, "--proxy", self.service.url)
        self.assertEqual(Counter(each.connect_status for each in answers), {502: CROWD})
        self.assertEqual(self.proxy.failed_logons(), 1)


class DirectTests(ServiceCase, Matrix):
    """No upstream proxy: the origin takes its place."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = DirectOrigin(self.origin)

    @classmethod
    def make_service(cls, password: str | None = None) -> CodaProxy:
        return CodaProxy()

    def assert_logged_on(self) -> None:
        """There is nowhere to log on."""


class DirectOrigin:
    """The origin server, where there is no proxy."""

    def __init__(self, server: origin.Origin) -> None:
        self.restart = server.restart
        self.start = server.start
        self.stop = server.stop
        self.requests = server.requests

    def failed_logons(self) -> int:
        return 0


class OpenTests(ServiceCase, Matrix):
    """A proxy that asks for nothing."""


class BasicTests(ServiceCase, Matrix, WrongPassword):
    """Basic, judged by basic_ncsa_auth."""

    scheme = "basic"
    reason = "refused"


class DigestTests(ServiceCase, Matrix, WrongPassword):
    """Digest, judged by digest_file_auth."""

    scheme = "digest"
    reason = "refused"


class NTLMTests(ServiceCase, Matrix, WrongPassword):
    """NTLM, judged by an acceptor that verifies NTLMv2 and counts logons."""

    scheme = "ntlm"
    reason = "refused"

    def logons(self) -> int:
        return len(self.proxy.authority.logons())

    def test_strength(self) -> None:
        """What is sent is NTLMv2 with a MIC."""
        self.fresh()
        self.get(self.origin.url("/octets/1"))
        [logon] = self.proxy.authority.logons()
        self.assertEqual(
            (logon.result, logon.user, logon.ntlmv2, logon.mic),
            ("accepted", ALICE.name, True, True),
        )


class AutoTests(NTLMTests):
    """``--proxy-type=auto`` in front of the proxy that offers NTLM."""

    proxy_type = "auto"


class TLSTests(NTLMTests):
    """The same proxy reached by TLS; https to origins is TLS inside TLS."""

    tls = True

    def test_bound(self) -> None:
        """The logon is bound to the proxy's certificate."""
        self.fresh()
        self.get(self.origin.url("/octets/1"))
        [logon] = self.proxy.authority.logons()
        self.assertTrue(logon.bindings)

    def test_proxy_ca(self) -> None:
        """The proxy's certificate is verified, by the system's authorities or ours."""
        options = [
            *("--proxy", self.proxy.tls_url),
            *authenticating(self.scheme),
        ]
        for more, status in (([], 502), (["--proxy-ca", str(authority().ca)], 200)):
            self.proxy.reset()
            self.service = CodaProxy(*options, *more, trust=False)
            self.service.start()
            self.addCleanup(self.service.stop)
            answer = self.curl(self.origin.url("/octets/9"))
            tunnel = self.curl(self.origin.tls_url("/octets/9"))
            self.assertEqual((answer.status, tunnel.connect_status), (status, status))
            if status == 502:
                self.assertIn("error=tls_certificate_error", answer.head)
                self.assertEqual(self.proxy.authority.logons(), [])


class NegotiateTests(ServiceCase, Matrix, WrongPassword):
    """Kerberos by a password, judged by the KDC."""

    scheme = "negotiate"
    reason = "password|Preauthentication|refused"

    def logons(self) -> int:
        return sum(1 for each in self.proxy.requests() if each.answer)

    def test_one_ticket(self) -> None:
        """Many requests and tunnels are served by one logon at the KDC."""
        self.fresh()
        for url in (self.origin.url("/octets/1"), self.origin.tls_url("/octets/1")) * 2:
            self.get(url)
        realm = kerberos.realm()
        self.assertEqual((realm.tickets_granted(), realm.service_tickets()), (1, 1))


class TicketTests(ServiceCase):
    """Kerberos by the ticket of whoever starts the service; no password."""

    scheme = "negotiate"

    @classmethod
    def make_service(cls, password: str | None = None) -> CodaProxy:
        realm = kerberos.realm()
        return CodaProxy(
            *("--proxy", upstream("negotiate").url, "--proxy-type", "negotiate"),
            environment=realm.client_environment(realm.ticket(ALICE)),
        )

    def test_ticket(self) -> None:
        """The ticket opens the proxy, for http and for https."""
        for url in (self.origin.url("/octets/10"), self.origin.tls_url("/octets/10")):
            self.assertEqual(self.get(url).content, origin.content(10))
        self.assert_logged_on()

    def test_no_ticket(self) -> None:
        """Without one the answer is 502 and says what is missing."""
        self.service = CodaProxy(
            *("--proxy", self.proxy.url, "--proxy-type", "negotiate"),
            environment=kerberos.realm().client_environment(),
        )
        self.service.start()
        self.addCleanup(self.service.stop)
        answer = self.curl(self.origin.url())
        self.assertEqual(answer.status, 502)
        self.assertIn(b"egotiate", answer.content)
        self.assertNotIn(" 407 ", answer.head)
