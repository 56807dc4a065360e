"""OAuth 1.0a and 2 against a server that somebody else wrote: Authlib's, in Flask."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar
from urllib.parse import parse_qs, parse_qsl, quote, urlsplit

import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent as TwistedAgent
from twisted.web.client import readBody
from twisted.web.http_headers import Headers

from coda_twisted import Agent, CredentialsRejected, PasswordCredentials
from coda_twisted.auth.oauth1_signing import FORM
from coda_twisted.auth.steps import Role
from coda_twisted.client.guard import LogonGuard
from coda_twisted.client.upload import BytesBody
from coda_twisted.client.workers import ThreadWorkers
from coda_twisted.oauth import (
    LoopbackReceiver,
    OAuth1Agent,
    OAuth1Credentials,
    OAuth1Dance,
    OAuth2Agent,
    OAuth2Client,
    OAuthError,
    Placement,
    Token,
    Tokens,
    TokenSource,
)
from tests.integration import squid
from tests.integration.authorization_server import (
    PASSWORD,
    PERSONAL_TOKEN,
    SECRET,
    authorization_server,
)
from tests.integration.certificates import authority
from tests.integration.people import ALICE
from tests.integration.servers import CHECKOUT, python_environment, workspace
from tests.integration.test_library import trust

EXAMPLES = CHECKOUT / "docs" / "examples"


class OAuthCase(TestCase):
    """A server of OAuth, reached by our agent."""

    timeout = 60
    through: ClassVar[str | None] = None

    def setUp(self) -> None:
        self.server = authorization_server()
        self.server.reset()
        self.guard = LogonGuard(reactor)
        settings: dict[str, Any] = {"proxy": None}
        if self.through is not None:
            self.proxy = squid.proxy(self.through)
            self.proxy.reset()
            settings = {
                "proxy": self.proxy.url,
                "credentials": PasswordCredentials(ALICE.name, ALICE.password),
            }
        self.agent = self.make_agent(**settings)

    def make_agent(self, **settings: Any) -> Any:
        agent = Agent(reactor, tls=trust(), guard=self.guard, **settings)
        self.addCleanup(agent.client.close)
        return agent

    def oauth2(self, client_id: str = "basic", **settings: Any) -> OAuth2Client:
        known: dict[str, Any] = {
            "token_url": self.server.tls_url("/oauth2/token"),
            "client_secret": SECRET,
            "scope": ("mail",),
            "guard": self.guard,
        }
        if client_id == "public":
            known["client_secret"] = None
        return OAuth2Client(
            reactor, self.agent, client_id=client_id, **{**known, **settings}
        )

    async def get(self, agent: Any, path: str, **more: Any) -> Any:
        """Ask for JSON."""
        method = more.pop("method", b"GET")
        uri = self.server.tls_url(path).encode("ascii")
        headers, body = more.pop("headers", None), more.pop("body", None)
        response = await agent.request(method, uri, headers, body)
        # Twisted's readBody warns of Twisted's own responses.
        content = await treq.content(response)
        self.assertEqual(response.code, 200, content)
        return json.loads(content)

    async def failure(self, answer: Deferred[Any], kind: type[Exception]) -> Any:
        """What it fails with."""
        return await self.assertFailure(answer, kind)

    async def me(self, token: Token) -> Any:
        """What the API says of a token."""
        tokens = Tokens(token=token)
        agent = OAuth2Agent(self.agent, tokens, origins=self.server.tls_url())
        return await self.get(agent, "/oauth2/me")


class GrantTests(OAuthCase):
    """Every way to a token."""

    def setUp(self) -> None:
        super().setUp()
        self.visits: list[Deferred[str]] = []

    def show(self, url: str) -> None:
        """Send the user there, and do not wait for them."""
        self.visits.append(self.server.visit(url))

    async def test_client_credentials(self) -> None:
        """In the field, in the form, and under a name that has to be encoded."""
        for client, settings in (
            ("basic", {}),
            ("post", {"client_auth": "body"}),
            ("odd name:", {}),
        ):
            token = await self.oauth2(client, **settings).client_credentials()
            self.assertEqual(
                await self.me(token),
                {"client": client, "user": None, "scope": "mail", "content": ""},
            )
        forms = [each["form"] for each in self.server.requests("/oauth2/token")]
        self.assertEqual(forms[0], ["grant_type", "scope"])
        self.assertIn("client_secret", forms[1])

    async def test_wrong_secret(self) -> None:
        """A refused secret is not sent again."""
        oauth2 = self.oauth2(client_secret="WRONG")
        for _ in range(2):
            error = await self.failure(oauth2.client_credentials(), CredentialsRejected)
            self.assertNotIn("WRONG", str(error))
        self.assertEqual(len(self.server.requests("/oauth2/token")), 1)

    async def test_password(self) -> None:
        """A user's password, with and without a client's secret."""
        for client in ("basic", "public"):
            token = await self.oauth2(client).password("alice", PASSWORD)
            self.assertEqual((await self.me(token))["user"], "alice")
            self.assertAlmostEqual(token.expires_at or 0, time.time() + 3600, -2)
        error = await self.failure(
            self.oauth2().password("alice", "WRONG"), CredentialsRejected
        )
        self.assertNotIn("WRONG", str(error))

    async def test_less_scope(self) -> None:
        """Less than was asked for is what was granted: no Warning is raised."""
        oauth2 = self.oauth2(scope=("mail", "all"))
        token = await oauth2.client_credentials()
        self.assertEqual(token.scope, ("mail",))

    async def test_refresh(self) -> None:
        """A refresh token that is kept, and one that is replaced."""
        for client, kept in (("basic", True), ("public", False)):
            oauth2 = self.oauth2(client)
            first = await oauth2.password("alice", PASSWORD)
            second = await oauth2.refresh(first)
            self.assertNotEqual(second.access_token, first.access_token)
            self.assertEqual(second.refresh_token == first.refresh_token, kept)
            self.assertEqual((await self.me(second))["user"], "alice")
            third = await oauth2.refresh(second)
            self.assertEqual((await self.me(third))["scope"], "mail")
        error = await self.failure(oauth2.refresh(first), OAuthError)
        self.assertEqual(error.error, "invalid_grant")

    async def test_authorization_code(self) -> None:
        """With PKCE, on loopback, by a real browser's redirections."""
        url = self.server.tls_url("/oauth2/authorize")
        for client in ("basic", "public"):
            token = await self.oauth2(client).authorize(url, self.show)
            self.assertEqual((await self.me(token))["user"], "alice")
            ended = await self.visits.pop()
            self.assertTrue(ended.startswith("http://127.0.0.1:"), ended)
        form = self.server.requests("/oauth2/token")[-1]["form"]
        self.assertIn("code_verifier", form)

    async def test_denied(self) -> None:
        """The user does not agree."""
        url = self.server.tls_url("/oauth2/authorize?login_hint=nobody")
        error = await self.failure(self.oauth2().authorize(url, self.show), OAuthError)
        self.assertEqual(error.error, "access_denied")
        await self.visits.pop()

    async def test_without_pkce(self) -> None:
        """The server insists on the proof: another's code is of no use."""
        receiver = LoopbackReceiver(reactor)
        self.addCleanup(receiver.stop)
        url = self.server.tls_url("/oauth2/authorize")
        mine = self.oauth2("public").authorization(url, receiver.redirect_uri)
        theirs = self.oauth2("public").authorization(url, receiver.redirect_uri)
        answer = receiver.wait(mine.concerns)
        visit = self.server.visit(mine.url)
        redirected_to = await answer
        await visit
        code = parse_qs(urlsplit(redirected_to).query)["code"][0]
        state = parse_qs(urlsplit(theirs.url).query)["state"][0]
        error = await self.failure(
            theirs.finish(f"{receiver.redirect_uri}?code={code}&state={state}"),
            OAuthError,
        )
        self.assertEqual(error.error, "invalid_grant")
        self.assertNotIn(code, str(error))

    async def test_device(self) -> None:
        """A browser elsewhere, which takes its time."""
        device = await self.oauth2("public").device(
            self.server.tls_url("/oauth2/device")
        )
        answer = device.token()
        await self.server.visit(device.verification_uri_complete or "")
        token = await answer
        self.assertEqual((await self.me(token))["user"], "alice")
        self.assertGreaterEqual(len(self.server.requests("/oauth2/token")), 1)

    async def test_device_pending(self) -> None:
        """It is asked again until the user has decided, here: against it."""
        device = await self.oauth2().device(self.server.tls_url("/oauth2/device"))
        answer = device.token()
        while not self.server.requests("/oauth2/token"):
            await self.server.tell("/slow")  # that makes it slow down: 1 + 5 s
        await self.server.visit(f"{device.verification_uri_complete}&deny")
        error = await self.failure(answer, OAuthError)
        self.assertEqual(error.error, "access_denied")
        self.assertEqual(len(self.server.requests("/oauth2/token")), 2)


class ThroughProxyTests(GrantTests):
    """All of it once more, through a proxy that wants Digest."""

    through = "digest"

    async def test_through_the_proxy(self) -> None:
        """Token requests and API requests go through the proxy."""
        token = await self.oauth2().client_credentials()
        await self.me(token)
        served = {(line.method, line.user) for line in self.proxy.requests()}
        self.assertIn(("CONNECT", ALICE.name), served)
        self.assertEqual({method for method, _ in served}, {"CONNECT"})


class AgentTests(OAuthCase):
    """A token that is always good."""

    def setUp(self) -> None:
        super().setUp()
        self.saved: list[Token] = []
        self.client = self.oauth2("public")
        self.tokens = Tokens(
            self.client,
            obtain=lambda: self.client.password("alice", PASSWORD),
            save=self.saved.append,
        )
        self.api = OAuth2Agent(self.agent, self.tokens, origins=self.server.tls_url())

    async def test_single_flight(self) -> None:
        """Twenty requests at once, and one token request."""
        answers = await gatherResults(
            [self.api_request() for _ in range(20)], consumeErrors=True
        )
        self.assertEqual({answer.code for answer in answers}, {200})
        self.assertEqual(len(self.server.requests("/oauth2/token")), 1)
        self.assertEqual(len(self.saved), 1)

    def api_request(self) -> Any:
        uri = self.server.tls_url("/oauth2/me").encode("ascii")
        answer = self.api.request(b"GET", uri)

        async def whole() -> Any:
            response = await answer
            await readBody(response)
            return response

        return Deferred.fromCoroutine(whole())

    async def test_invalid_token(self) -> None:
        """Tokens that end before their time are replaced once, for all requests."""
        await self.get(self.api, "/oauth2/me")
        await self.server.tell("/expire")
        self.server.reset()
        answers = await gatherResults(
            [self.api_request() for _ in range(10)], consumeErrors=True
        )
        self.assertEqual({answer.code for answer in answers}, {200})
        [refresh] = self.server.requests("/oauth2/token")
        self.assertEqual(refresh["grant"], "refresh_token")
        self.assertEqual(len(self.saved), 2)

    async def test_content(self) -> None:
        """The content is sent once more, too."""
        await self.get(self.api, "/oauth2/me")
        await self.server.tell("/expire")
        answer = await self.get(
            self.api, "/oauth2/me", method=b"POST", body=BytesBody(b"hello")
        )
        self.assertEqual(answer["content"], "hello")

    async def test_stock_agent(self) -> None:
        """Any agent carries it: Twisted's own."""
        stock = TwistedAgent(reactor, trust())
        client = OAuth2Client(
            reactor,
            stock,
            token_url=self.server.tls_url("/oauth2/token"),
            client_id="basic",
            client_secret=SECRET,
        )
        tokens = Tokens(client, obtain=client.client_credentials)
        api = OAuth2Agent(stock, tokens, origins=self.server.tls_url())
        for _ in range(2):
            answer = await self.get(
                api, "/oauth2/me", method=b"POST", body=BytesBody(b"x")
            )
            self.assertEqual(answer["client"], "basic")
            await self.server.tell("/expire")

    async def test_as_credentials(self) -> None:
        """The origin's challenge is answered by the connection itself."""
        source = TokenSource(
            reactor, self.tokens, hosts=["localhost"], roles=[Role.ORIGIN]
        )
        agent = self.make_agent(proxy=None, credentials=source)
        answer = await self.get(agent, "/oauth2/me")
        self.assertEqual(answer["user"], "alice")
        await self.server.tell("/expire")
        answer = await self.get(agent, "/oauth2/me")
        self.assertEqual(answer["user"], "alice")
        grants = [each["grant"] for each in self.server.requests("/oauth2/token")]
        self.assertEqual(grants, ["password", "refresh_token"])


class BearerProxyTests(OAuthCase):
    """A proxy that wants a token."""

    def setUp(self) -> None:
        super().setUp()
        client = self.oauth2()
        tokens = Tokens(client, obtain=client.client_credentials)
        source = TokenSource(reactor, tokens)
        self.behind = self.make_agent(proxy=self.server.proxy_url, credentials=source)

    def statuses(self) -> list[int]:
        return [each["status"] for each in self.server.requests("proxy")]

    async def test_forwarded(self) -> None:
        """A request to an http origin."""
        for _ in range(2):
            response = await self.behind.request(b"GET", b"http://site.invalid/")
            self.assertEqual(response.code, 200)
            await readBody(response)
        self.assertEqual(self.statuses()[-2:], [200, 200])

    async def test_tunnelled(self) -> None:
        """A tunnel to an https origin."""
        uri = self.server.tls_url("/oauth2/approve?user_code=x").encode("ascii")
        response = await self.behind.request(b"GET", uri)
        self.assertEqual((response.code, await readBody(response)), (200, b"done"))
        self.assertEqual(self.statuses()[-1], 200)

    async def test_invalid_token(self) -> None:
        """A token that ended before its time is replaced, from a thread."""
        response = await self.behind.request(b"GET", b"http://site.invalid/")
        await readBody(response)
        await self.server.tell("/expire")
        self.server.reset()
        response = await self.behind.request(b"GET", b"http://site.invalid/")
        self.assertEqual(response.code, 200)
        await readBody(response)
        self.assertEqual(self.statuses()[-2:], [407, 200])
        self.assertEqual(len(self.server.requests("/oauth2/token")), 1)


class OAuth1Case(OAuthCase):
    """A server of OAuth 1.0a."""

    def setUp(self) -> None:
        super().setUp()
        self.workers = ThreadWorkers(reactor)
        self.addCleanup(self.workers.stop)

    def printer(self, method: str = "HMAC-SHA1", **more: Any) -> OAuth1Credentials:
        """The client of RFC 5849's story."""
        key = self.server.rsa_key if method.startswith("RSA") else None
        return OAuth1Credentials("printer", SECRET, method=method, rsa_key=key, **more)

    def dance(self, printer: OAuth1Credentials) -> OAuth1Dance:
        return OAuth1Dance(
            reactor,
            self.agent,
            printer,
            request_url=self.server.tls_url("/oauth1/initiate"),
            authorize_url=self.server.tls_url("/oauth1/authorize"),
            access_url=self.server.tls_url("/oauth1/token"),
            workers=self.workers,
        )

    async def jane(self, printer: OAuth1Credentials) -> OAuth1Credentials:
        """The same with Jane's token, after a walk through her browser."""
        dance = self.dance(printer)
        receiver = LoopbackReceiver(reactor)
        try:
            url = await dance.begin(receiver.redirect_uri)
            answer = receiver.wait(lambda params: "oauth_verifier" in params)
            visit = self.server.visit(url)
            query = dict(parse_qsl(urlsplit(await answer).query))
            await visit
        finally:
            await receiver.stop()
        credentials: OAuth1Credentials = await dance.finish(
            query["oauth_verifier"], query["oauth_token"]
        )
        return credentials

    def signing(self, jane: OAuth1Credentials, **more: Any) -> OAuth1Agent:
        return OAuth1Agent(
            self.agent,
            jane,
            origins=self.server.tls_url(),
            workers=self.workers,
            **more,
        )


class OAuth1Tests(OAuth1Case):
    """Signatures, checked by Authlib."""

    methods = (
        "HMAC-SHA1",
        "HMAC-SHA256",
        "HMAC-SHA512",
        "RSA-SHA1",
        "RSA-SHA256",
        "PLAINTEXT",
    )

    async def test_methods(self) -> None:
        """Every method: the dance, then requests with each placement."""
        form = Headers({b"Content-Type": [FORM + b"; charset=utf-8"]})
        for method in self.methods:
            jane = await self.jane(self.printer(method, realm="Photos"))
            for placement in Placement:
                agent = self.signing(jane, placement=placement)
                answer = await self.get(agent, "/oauth1/me?b5=%3D%253D&a+b=r%20b&f=")
                self.assertEqual(answer["user"], "alice")
                self.assertEqual(answer["query"]["b5"], "=%3D")
                answer = await self.get(
                    agent,
                    "/oauth1/me?q=1",
                    method=b"POST",
                    headers=form,
                    body=BytesBody("c@=&a3=2+q&x=\N{POUND SIGN}".encode()),
                )
                self.assertEqual(answer["form"]["a3"], "2 q", (method, placement))

    async def test_contents(self) -> None:
        """Content that is no form, and none at all."""
        jane = await self.jane(self.printer())
        for agent in (self.signing(jane), self.signing(await self.hashed())):
            kind = Headers({b"Content-Type": [b"image/png"]})
            answer = await self.get(
                agent,
                "/oauth1/me",
                method=b"PUT",
                headers=kind,
                body=BytesBody(b"\xff\xfe\x00"),
            )
            self.assertEqual(answer["length"], 3)
            answer = await self.get(agent, "/oauth1/me", method=b"DELETE")
            self.assertEqual(answer["user"], "alice")

    async def hashed(self) -> OAuth1Credentials:
        return await self.jane(self.printer(body_hash=True))

    async def test_nonces(self) -> None:
        """The server knows every nonce again, and meets none twice."""
        agent = self.signing(await self.jane(self.printer()))
        answers = [self.get(agent, "/oauth1/me") for _ in range(10)]
        for answer in answers:
            await answer

    async def test_out_of_band(self) -> None:
        """Jane is told a code, and types it."""
        dance = self.dance(self.printer())
        url = await dance.begin()
        shown = dict(parse_qsl(urlsplit(await self.server.visit(url)).query))
        jane = await dance.finish(shown["oauth_verifier"])
        answer = await self.get(self.signing(jane), "/oauth1/me")
        self.assertEqual(answer["user"], "alice")

    async def test_wrong_code(self) -> None:
        """Someone types another code."""
        dance = self.dance(self.printer())
        await dance.begin()
        error = await self.failure(dance.finish("WRONG"), OAuthError)
        self.assertNotIn("WRONG", str(error))

    async def test_refused(self) -> None:
        """A client that is not known, and one with the wrong secret."""
        for printer, status in (
            (OAuth1Credentials("scanner", SECRET), 401),
            (OAuth1Credentials("printer", "WRONG"), 401),
        ):
            error = await self.failure(self.dance(printer).begin(), OAuthError)
            self.assertEqual(error.status, status)
            self.assertNotIn("WRONG", str(error))

    async def test_challenge(self) -> None:
        """An ``OAuth`` challenge is answered by the connection itself."""
        for method in ("HMAC-SHA256", "RSA-SHA1"):
            jane = await self.jane(self.printer(method))
            agent = self.challenged(jane)
            for _ in range(2):
                answer = await self.get(agent, "/oauth1/challenged?x=1")
                self.assertEqual(answer["user"], "alice")

    async def test_challenge_refused(self) -> None:
        """A signature that is not accepted is not made again."""
        jane = (await self.jane(self.printer())).with_token("other", "secret")
        uri = self.server.tls_url("/oauth1/challenged").encode("ascii")
        response = await self.challenged(jane).request(b"GET", uri)
        # Authlib's 401 has no challenge: it is the caller's.
        self.assertEqual(response.code, 401)
        await readBody(response)

    def challenged(self, jane: OAuth1Credentials) -> Any:
        return self.make_agent(
            proxy=None,
            origins={self.server.tls_url(): jane},
        )


class OAuth1ThroughProxyTests(OAuth1Tests):
    """All of it once more, through a proxy that wants Digest."""

    through = "digest"


BROWSER = """
import sys, urllib.request
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1]).read()
"""


class ExampleTests(SynchronousTestCase):
    """The programs of docs/oauth.rst, run as they stand, behind a proxy."""

    def setUp(self) -> None:
        self.server = authorization_server()
        self.server.reset()
        self.proxy = squid.proxy("basic")
        self.proxy.reset()
        user = f"{quote(ALICE.name)}:{quote(ALICE.password, safe='')}"
        self.environment = python_environment(
            SSL_CERT_FILE=str(authority().ca),
            https_proxy=self.proxy.url.replace("://", f"://{user}@"),
            CLIENT_SECRET=SECRET,
            TOKEN_SECRET=SECRET,
        )

    def example(
        self, name: str, *arguments: str, reply: Callable[[str], str] | None = None
    ) -> str:
        """Run one, answer its first line, and see what else it prints."""
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / f"oauth_{name}.py"), *arguments],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        answer = ""
        if reply is not None:
            assert process.stdout is not None
            answer = reply(process.stdout.readline()) + "\n"
        output, errors = process.communicate(answer, timeout=50)
        self.assertEqual((process.returncode, errors), (0, ""))
        for secret in (SECRET, quote(SECRET)):
            self.assertNotIn(secret, output)
        return output

    def assert_proxied(self) -> None:
        """All of it went through the proxy."""
        served = {(line.method, line.user) for line in self.proxy.requests()}
        self.assertIn(("CONNECT", ALICE.name), served)

    def test_none_is_forgotten(self) -> None:
        """Each example has its test here, and its place in the page."""
        names = {path.stem for path in EXAMPLES.glob("oauth_*.py")}
        tested = {f"oauth_{name[5:]}" for name in dir(self) if name[:5] == "test_"}
        self.assertEqual(names - tested, set())
        page = (CHECKOUT / "docs" / "oauth.rst").read_text("utf-8")
        self.assertEqual([name for name in names if f"/{name}.py" not in page], [])

    def test_client(self) -> None:
        """Tokens for a program."""
        token_url = self.server.tls_url("/oauth2/token")
        output = self.example("client", token_url, "basic", self.server.tls_url())
        self.assertEqual(output[:4], "200 ")
        self.assertEqual(json.loads(output[4:])["client"], "basic")
        self.assert_proxied()

    def test_browser(self) -> None:
        """Tokens for a user at this machine; the second time out of the store."""
        browser = workspace() / "browser.py"
        browser.write_text(BROWSER)
        self.environment["BROWSER"] = f"{sys.executable} {browser} %s &"
        store = workspace() / "token.json"
        for _ in range(2):
            output = self.example(
                "browser", self.server.tls_url(), "public", str(store)
            )
            self.assertEqual(json.loads(output[4:])["user"], "alice")
        self.assertEqual(len(self.server.requests("/oauth2/authorize")), 1)
        self.assertEqual(len(self.server.requests("/oauth2/token")), 1)
        store.unlink()

    def test_device(self) -> None:
        """Tokens for a user elsewhere."""

        def approve(line: str) -> str:
            _, _, url, *_, code = line.split()
            self.server.browse(f"{url}?user_code={code}")
            return ""

        output = self.example("device", self.server.tls_url(), "public", reply=approve)
        self.assertIn("Token(", output)
        self.assert_proxied()

    def test_proxy(self) -> None:
        """Tokens for a proxy."""
        url = self.server.tls_url("/oauth2/approve?user_code=x")
        token_url = self.server.tls_url("/oauth2/token")
        output = self.example("proxy", self.server.proxy_url, token_url, "basic", url)
        self.assertEqual(output, "200 done\n")
        statuses = [each["status"] for each in self.server.requests("proxy")]
        self.assertEqual(statuses[-1], 200)

    def test_signed(self) -> None:
        """Signatures."""
        output = self.example(
            "signed", "printer", PERSONAL_TOKEN, self.server.tls_url()
        )
        answer = json.loads(output[4:])
        self.assertEqual(answer["form"], {"status": "a form is signed"})
        self.assert_proxied()

    def test_dance(self) -> None:
        """A user's token, in three steps."""

        def agree(line: str) -> str:
            shown = urlsplit(self.server.browse(line.split()[-1]))
            return dict(parse_qsl(shown.query))["oauth_verifier"]

        output = self.example("dance", self.server.tls_url(), "printer", reply=agree)
        self.assertIn("OAuth1Credentials('oauth1:printer #", output)
        self.assert_proxied()
