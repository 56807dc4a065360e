"""Tests of :mod:`coda_twisted.oauth.oauth1`: signed requests, and the dance."""

from __future__ import annotations

import itertools
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import BrowserLikeRedirectAgent, FileBodyProducer
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface.verify import verifyObject

from coda_twisted.auth.layer import Context
from coda_twisted.auth.memory import SpaceMemory
from coda_twisted.auth.oauth1 import OAuth1Conversation
from coda_twisted.auth.oauth1_signing import FORM, Message, sign
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import Peer, Role, Work
from coda_twisted.client.upload import BytesBody
from coda_twisted.client.workers import ThreadWorkers
from coda_twisted.errors import (
    AuthenticationFailed,
    LocalProtocolError,
    PhaseTimeout,
)
from coda_twisted.interfaces import ICredentials
from coda_twisted.oauth import (
    OAuth1Agent,
    OAuth1Credentials,
    OAuth1Dance,
    OAuthError,
    Placement,
)
from coda_twisted.oauth import signing as signing_module
from coda_twisted.oauth.contents import LIMIT
from tests.oauth import OAuthCase
from tests.test_auth_oauth1 import PEM, params_of
from tests.test_client_agent import _Now
from tests.test_client_upload import Source


def credentials(**settings: Any) -> OAuth1Credentials:
    return OAuth1Credentials(
        "ck", "CSECRET", "TOKEN", "TSECRET", now=lambda: 1000.9, **settings
    )


class Workers:
    """Does work when the test says so."""

    def __init__(self) -> None:
        self.work: list[tuple[Work, Deferred[Any]]] = []

    def run(self, work: Work) -> Deferred[Any]:
        self.work.append((work, Deferred()))
        return self.work[-1][1]

    def stop(self) -> None:
        """There are no threads."""

    def do(self) -> None:
        work, done = self.work.pop()
        done.callback(work.run())


class CredentialsTests(SynchronousTestCase):
    """A client, and perhaps a user's token."""

    def test_interface(self) -> None:
        """They are credentials like others."""
        oauth = credentials()
        verifyObject(ICredentials, oauth)
        self.assertEqual(oauth.schemes(), ("oauth",))
        context = Context(AuthPolicy(), SpaceMemory(), None, bytes)
        peer = Peer(Role.ORIGIN, "http", "api", 80)
        self.assertIsInstance(
            oauth.conversation("oauth", peer, context), OAuth1Conversation
        )
        error = self.assertRaises(
            AuthenticationFailed, oauth.conversation, "basic", peer, context
        )
        self.assertEqual(error.scheme, "basic")
        plain = credentials(method="PLAINTEXT")
        self.assertRaises(
            AuthenticationFailed, plain.conversation, "oauth", peer, context
        )
        plain = credentials(method="PLAINTEXT", allow_cleartext=True)
        plain.conversation("oauth", peer, context)

    def test_identity(self) -> None:
        """Users differ by name, secrets by fingerprint; neither tells a secret."""
        alice = credentials()
        bob = alice.with_token("OTHER", "TSECRET")
        self.assertNotEqual(alice.identity, bob.identity)
        self.assertEqual(bob.keys.client_secret, "CSECRET")
        again = alice.with_token("TOKEN", "NEW")
        self.assertEqual(again.identity, alice.identity)
        self.assertNotEqual(again.fingerprint, alice.fingerprint)
        self.assertEqual(OAuth1Credentials("ck").identity, "oauth1:ck")
        shown = f"{alice} {alice!r} {alice.identity} {alice.fingerprint!r}"
        for secret in ("CSECRET", "TSECRET", "TOKEN"):
            self.assertNotIn(secret, shown)

    def test_bad(self) -> None:
        """Settings that cannot work are refused at once."""
        self.assertRaises(ValueError, OAuth1Credentials, "ck", method="HMAC-MD5")
        self.assertRaises(ValueError, OAuth1Credentials, "ck", method="RSA-SHA1")


class AgentCase(OAuthCase):
    """An API at http://api/ that wants signatures."""

    def setUp(self) -> None:
        super().setUp()
        self.numbers = itertools.count(1)
        self.workers = Workers()
        self.oauth = self.over(credentials())

    def over(self, oauth: OAuth1Credentials, **settings: Any) -> OAuth1Agent:
        return OAuth1Agent(
            self.agent,
            oauth,
            origins="http://api",
            workers=self.workers,
            entropy=lambda size: next(self.numbers).to_bytes(size, "big"),
            **settings,
        )

    def ask(
        self,
        uri: bytes = b"http://api/things?q=1",
        method: bytes = b"GET",
        headers: Headers | None = None,
        body: Any = None,
    ) -> Deferred[IResponse]:
        return self.oauth.request(method, uri, headers, body)

    def params(self) -> dict[str, str]:
        """What the latest request was signed with."""
        return params_of(self.to("api").request.fields.get(b"Authorization"))

    def assert_signed(self, message: Message, made: dict[str, str]) -> None:
        """The signature is that of *message*."""
        expected = sign(
            credentials().keys, message, nonce=made["oauth_nonce"], timestamp=1000
        )
        self.assertEqual(
            made["oauth_signature"],
            params_of(expected.authorization)["oauth_signature"],
        )


class AgentTests(AgentCase):
    """What is signed, and for whom."""

    def test_interface(self) -> None:
        """It is an IAgent."""
        verifyObject(IAgent, self.oauth)

    def test_signed(self) -> None:
        """A request is signed unasked; the caller's object stays."""
        headers = Headers({b"X-A": [b"1"]})
        answer = self.ask(headers=headers)
        self.assert_signed(Message(b"GET", b"http://api/things?q=1"), self.params())
        self.assertEqual(self.params()["oauth_timestamp"], "1000")
        self.assertEqual(headers, Headers({b"X-A": [b"1"]}))
        self.to("api").answer(200)
        self.assertEqual(self.successResultOf(answer).code, 200)

    def test_fresh_nonce(self) -> None:
        """Trap: the same nonce must not be used twice, however alike the requests."""
        nonces = set()
        for _ in range(3):
            self.ask()
            nonces.add(self.params()["oauth_nonce"])
        self.assertEqual(len(nonces), 3)

    def test_others(self) -> None:
        """Requests to others, and those signed already, pass as they are."""
        self.ask(b"http://other/")
        self.assertIsNone(self.to("other").request.fields.get(b"Authorization"))
        self.ask(headers=Headers({b"Authorization": [b"Basic b3du"]}))
        sent = self.to("api").request.fields.get(b"Authorization")
        self.assertEqual(sent, b"Basic b3du")

    def test_redirected(self) -> None:
        """Under a RedirectAgent each hop is signed by itself."""
        agent = BrowserLikeRedirectAgent(self.oauth)
        agent.request(b"GET", b"http://api/a", None, None)
        first = self.params()
        self.to("api").answer(302, (b"Location", b"http://api/b"))
        self.assert_signed(Message(b"GET", b"http://api/b"), self.params())
        self.assertNotEqual(self.params()["oauth_nonce"], first["oauth_nonce"])
        self.to("api").answer(302, (b"Location", b"http://other/"))
        self.assertIsNone(self.to("other").request.fields.get(b"Authorization"))

    def test_host(self) -> None:
        """Trap: what is signed is the Host that is sent."""
        self.ask(headers=Headers({b"Host": [b"virtual.example"]}))
        self.assertEqual(self.to("api").request.fields.get(b"Host"), b"virtual.example")
        self.assert_signed(
            Message(b"GET", b"http://virtual.example/things?q=1"), self.params()
        )

    def test_plaintext(self) -> None:
        """PLAINTEXT is not sent without TLS, unless told so."""
        self.oauth = self.over(credentials(method="PLAINTEXT"))
        error = self.failureResultOf(self.ask(), AuthenticationFailed).value
        self.assertNotIn("SECRET", str(error))
        self.assertEqual(self.wire.peers, [])
        self.oauth = self.over(credentials(method="PLAINTEXT", allow_cleartext=True))
        self.ask()
        self.assertEqual(self.params()["oauth_signature"], "CSECRET&TSECRET")

    def test_rsa(self) -> None:
        """Signing that takes milliseconds is left to another thread."""
        self.oauth = self.over(credentials(method="RSA-SHA256", rsa_key=PEM))
        answer = self.ask()
        self.assertEqual(self.wire.peers, [])
        self.workers.do()
        self.assertEqual(self.params()["oauth_signature_method"], "RSA-SHA256")
        self.to("api").answer(200)
        self.assertEqual(self.successResultOf(answer).code, 200)

    def test_default_workers(self) -> None:
        """Without workers of one's own the global reactor's threads do it."""
        made: list[Workers] = []

        def workers(reactor: Any) -> Workers:
            from twisted.internet import reactor as global_reactor

            self.assertIs(reactor, global_reactor)
            made.append(self.workers)
            return self.workers

        self.patch(signing_module, "ThreadWorkers", workers)
        self.oauth = OAuth1Agent(
            self.agent,
            credentials(method="RSA-SHA1", rsa_key=PEM),
            origins=["http://api"],
        )
        for _ in range(2):
            self.ask()
            self.workers.do()
        self.assertEqual(made, [self.workers])
        self.assertIsNot(workers, ThreadWorkers)

    def test_cancelled(self) -> None:
        """Whoever no longer wants the answer drops the request."""
        answer = self.ask()
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertTrue(self.to("api").dropped)


class FormTests(AgentCase):
    """Forms, whose content is signed."""

    form_type = Headers({b"Content-Type": [FORM + b"; charset=utf-8"]})

    def post(self, body: Any, headers: Headers | None = None) -> Deferred[IResponse]:
        return self.ask(method=b"POST", headers=headers or self.form_type, body=body)

    def assert_form(self, content: bytes) -> None:
        message = Message(b"POST", b"http://api/things?q=1", b"", FORM, content)
        self.assert_signed(message, self.params())
        self.assertEqual(self.to("api").bodies[-1], content)

    def test_at_hand(self) -> None:
        """A form at hand is signed; it goes out as it is."""
        self.post(BytesBody(b"a=b+c&d=[1]"))
        self.assert_form(b"a=b+c&d=[1]")
        sent = self.to("api").request.fields.get(b"Content-Type")
        self.assertEqual(sent, FORM + b"; charset=utf-8")

    def test_produced(self) -> None:
        """A form from elsewhere is read first: treq makes such."""
        self.post(FileBodyProducer(BytesIO(b"a=1&b=2"), _Now()))
        self.assert_form(b"a=1&b=2")

    def test_slow(self) -> None:
        """It may take its time."""
        source = Source()
        self.post(source)
        source.consumer.registerProducer(source, True)
        source.consumer.write(b"a=")
        source.consumer.write(b"1")
        self.assertEqual(self.wire.peers, [])
        source.consumer.unregisterProducer()
        source.done.callback(None)
        self.assert_form(b"a=1")

    def test_too_long(self) -> None:
        """A form without end is not read to memory."""
        source = Source()
        answer = self.post(source)
        source.consumer.write(b"x" * LIMIT)
        self.assertNoResult(answer)
        source.consumer.write(b"x")
        self.failureResultOf(answer, LocalProtocolError)
        self.assertEqual(source.calls, ["start", "stop"])
        source.consumer.write(b"x")
        source.done.callback(None)
        self.assertEqual(self.wire.peers, [])

    def test_fails(self) -> None:
        """What a body fails with is what the request fails with."""
        source = Source()
        answer = self.post(source)
        source.done.errback(OSError("gone"))
        self.failureResultOf(answer, OSError)

    def test_cancelled(self) -> None:
        """Cancelling stops the reading."""
        source = Source()
        answer = self.post(source)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(source.calls, ["start", "stop"])
        source.done.errback(OSError("stopped"))

    def test_with_get(self) -> None:
        """Trap: oauthlib's ValueError for a form with GET; nothing is sent."""
        answer = self.ask(headers=self.form_type, body=BytesBody(b"a=1"))
        self.failureResultOf(answer, LocalProtocolError)
        self.assertEqual(self.wire.peers, [])

    def test_without_content(self) -> None:
        """Trap: oauthlib's ValueError for a form's type without a form."""
        self.post(None)
        self.assert_signed(Message(b"POST", b"http://api/things?q=1"), self.params())

    def test_other_content(self) -> None:
        """Other content is streamed, and not part of the signature."""
        source = Source()
        self.post(source, Headers({b"Content-Type": [b"application/json"]}))
        self.assert_signed(
            Message(b"POST", b"http://api/things?q=1", content=None), self.params()
        )
        self.post(BytesBody(b"\xff"), Headers({b"Content-Type": [b"image/png"]}))
        self.assertEqual(self.to("api").bodies[-1], b"\xff")

    def test_body_hash(self) -> None:
        """Unless its hash is wanted."""
        self.oauth = self.over(credentials(body_hash=True))
        source = Source()
        self.post(source, Headers({b"Content-Type": [b"text/plain"]}))
        source.consumer.write(b"Hello World!")
        source.done.callback(None)
        self.assertEqual(
            self.params()["oauth_body_hash"], "Lve95gjOVATpfV8EL5X4nxwjKHE="
        )
        self.assertEqual(self.to("api").bodies, [b"Hello World!"])


class PlacementTests(AgentCase):
    """Parameters elsewhere than in the field (RFC 5849 3.5)."""

    def test_query(self) -> None:
        """3.5.3: in the query."""
        self.oauth = self.over(credentials(), placement=Placement.QUERY)
        self.ask()
        sent = self.to("api").request
        self.assertNotIn(b"Authorization", sent.fields)
        made = dict(parse_qsl(sent.target.decode("ascii").partition("?")[2]))
        self.assertEqual(made["q"], "1")
        self.assert_signed(Message(b"GET", b"http://api/things?q=1"), made)

    def test_body(self) -> None:
        """3.5.2: in a form, whose length is another then."""
        self.oauth = self.over(credentials(), placement=Placement.BODY)
        headers = Headers({b"Content-Type": [FORM], b"Content-Length": [b"3"]})
        self.ask(method=b"POST", headers=headers, body=BytesBody(b"a=1"))
        sent = self.to("api").request
        self.assertNotIn(b"Authorization", sent.fields)
        self.assertEqual(len(sent.fields.get_all(b"Content-Length")), 1)
        made = self.form("api")
        self.assertEqual(made["a"], "1")
        message = Message(b"POST", b"http://api/things?q=1", b"", FORM, b"a=1")
        self.assert_signed(message, made)

    def test_body_of_nothing(self) -> None:
        """A POST without content gets a form."""
        self.oauth = self.over(credentials(), placement=Placement.BODY)
        self.ask(method=b"POST")
        self.assertEqual(self.to("api").request.fields.get(b"Content-Type"), FORM)
        message = Message(b"POST", b"http://api/things?q=1")
        self.assert_signed(message, self.form("api"))

    def test_no_body(self) -> None:
        """What has no form is signed in the field."""
        self.oauth = self.over(credentials(), placement=Placement.BODY)
        self.ask()
        self.assert_signed(Message(b"GET", b"http://api/things?q=1"), self.params())
        kind = Headers({b"Content-Type": [b"application/json"]})
        self.ask(method=b"POST", headers=kind, body=BytesBody(b"{}"))
        self.assertTrue(self.params())


class DanceTests(OAuthCase):
    """Three steps to a user's token (RFC 5849 2)."""

    def setUp(self) -> None:
        super().setUp()
        self.workers = Workers()

    def dance(self, **settings: Any) -> OAuth1Dance:
        known: dict[str, Any] = {
            "request_url": "http://as/initiate",
            "authorize_url": "http://as/authorize",
            "access_url": "http://as/token",
            "allow_cleartext": True,
            "workers": self.workers,
        }
        oauth = settings.pop(
            "credentials", OAuth1Credentials("ck", "CSECRET", now=lambda: 1000.0)
        )
        return OAuth1Dance(self.clock, self.agent, oauth, **{**known, **settings})

    def answer(self, body: bytes, status: int = 200) -> None:
        self.to().answer(status, (b"Content-Type", FORM), body=body)

    def begun(self, dance: OAuth1Dance, callback: str = "oob") -> str:
        url = dance.begin(callback)
        self.answer(
            b"oauth_token=hh5s93j4hdidpola&oauth_token_secret=hdhd0244k9j7ao03"
            b"&oauth_callback_confirmed=true"
        )
        return self.successResultOf(url)

    def test_dance(self) -> None:
        """All of it, with the answers of RFC 5849 1.2."""
        dance = self.dance()
        url = self.begun(dance, "http://printer.example.com/ready")
        self.assertEqual(url, "http://as/authorize?oauth_token=hh5s93j4hdidpola")
        sent = self.to().request
        self.assertEqual((sent.method, sent.target), (b"POST", b"/initiate"))
        made = params_of(sent.fields.get(b"Authorization"))
        self.assertEqual(made["oauth_callback"], "http://printer.example.com/ready")
        self.assertNotIn("oauth_token", made)

        answer = dance.finish("hfdp7dh39dks9884", "hh5s93j4hdidpola")
        sent = self.to().request
        self.assertEqual(sent.target, b"/token")
        made = params_of(sent.fields.get(b"Authorization"))
        self.assertEqual(made["oauth_verifier"], "hfdp7dh39dks9884")
        self.assertEqual(made["oauth_token"], "hh5s93j4hdidpola")
        self.answer(b"oauth_token=nnch734d00sl2jdk&oauth_token_secret=pfkkdhi9sl3r4s00")
        keys = self.successResultOf(answer).keys
        self.assertEqual(
            (keys.client_key, keys.client_secret, keys.token, keys.token_secret),
            ("ck", "CSECRET", "nnch734d00sl2jdk", "pfkkdhi9sl3r4s00"),
        )
        self.failureResultOf(dance.finish("again"), OAuthError)
        self.assertEqual(self.asked(), 2)

    def test_query(self) -> None:
        """An authorization URL may have a query; the token is encoded."""
        dance = self.dance(authorize_url="http://as/authorize?x=1")
        answer = dance.begin()
        self.answer(
            b"oauth_token=a%26b&oauth_token_secret=&oauth_callback_confirmed=True"
        )
        self.assertEqual(
            self.successResultOf(answer), "http://as/authorize?x=1&oauth_token=a%26b"
        )

    def test_rsa(self) -> None:
        """Signing that takes milliseconds is left to another thread, here too."""
        rsa = OAuth1Credentials("ck", method="RSA-SHA1", rsa_key=PEM)
        self.dance(credentials=rsa).begin()
        self.assertEqual(self.wire.peers, [])
        self.workers.do()
        self.assertEqual(self.asked(), 1)

    def test_old_server(self) -> None:
        """OAuth 1.0 without the a could be given another's token."""
        answer = self.dance().begin()
        self.answer(b"oauth_token=t&oauth_token_secret=s")
        error = self.failureResultOf(answer, OAuthError).value
        self.assertIn("1.0a", str(error))

    def test_other_token(self) -> None:
        """A callback about another token is refused; the right one may follow."""
        dance = self.dance()
        self.begun(dance)
        self.failureResultOf(dance.finish("v", "other"), OAuthError)
        self.assertEqual(self.asked(), 1)
        dance.finish("v", "hh5s93j4hdidpola")
        self.assertEqual(self.asked(), 2)

    def test_not_begun(self) -> None:
        """What was not begun cannot be finished."""
        self.failureResultOf(self.dance().finish("v"), OAuthError)

    def test_refused(self) -> None:
        """Servers say in several ways what is wrong; what we sent is not shown."""
        for body, code, told in (
            (b"oauth_problem=consumer_key_unknown", "consumer_key_unknown", "unknown"),
            (b"error=invalid_client&error_description=no+CSECRET", None, "no ..."),
            (b"<html>", None, "401"),
        ):
            answer = self.dance().begin()
            self.answer(body, 401)
            error = self.failureResultOf(answer, OAuthError).value
            self.assertEqual(error.status, 401)
            if code is not None:
                self.assertEqual(error.error, code)
            self.assertIn(told, str(error))
            self.assertNotIn("CSECRET", str(error) + repr(error))
            self.assertEqual(error.peer, "authorization server http://as")

    def test_no_token(self) -> None:
        """An answer without a token, or without its secret, is none."""
        for body in (b"", b"oauth_token=t", b"oauth_token=&oauth_token_secret=s"):
            answer = self.dance().begin()
            self.answer(body)
            self.failureResultOf(answer, OAuthError)

    def test_no_answer(self) -> None:
        """A server that says nothing does not hold up for ever."""
        answer = self.dance().begin()
        self.clock.advance(30)
        self.failureResultOf(answer, PhaseTimeout)
        self.assertTrue(self.to().dropped)

    def test_cleartext(self) -> None:
        """RFC 5849 2.1 and 2.3: what gives out secrets must have TLS."""
        for name in ("request_url", "authorize_url", "access_url"):
            urls: dict[str, Any] = {
                "request_url": "https://as/1",
                "authorize_url": "https://as/2",
                "access_url": "https://as/3",
                "allow_cleartext": False,
            }
            self.dance(**urls)
            self.assertRaises(ValueError, self.dance, **{**urls, name: "http://as/"})
            self.assertRaises(ValueError, self.dance, **{**urls, name: "as"})
