"""Tests for :mod:`coda_twisted.client.exchange` and the legs it drives."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL.crypto import FILETYPE_ASN1, load_certificate
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionRefusedError,
    DNSLookupError,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from coda_twisted.auth.bindings import tls_server_end_point
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import GiveUp, Peer, Proceed, Reply, Role, Step, Work
from coda_twisted.client.exchange import Client
from coda_twisted.client.guard import COOL_DOWN
from coda_twisted.client.request import Request
from coda_twisted.client.response import Response
from coda_twisted.client.timeouts import Timeouts
from coda_twisted.client.upload import REPLAY_LIMIT, BytesBody
from coda_twisted.credentials import PasswordCredentials, StaticCredentials
from coda_twisted.errors import (
    AuthenticationFailed,
    BodyNotReplayable,
    ConnectionEnded,
    CredentialsRejected,
    NoAcceptableScheme,
    PhaseTimeout,
    ProxyUnreachable,
    TunnelRefused,
)
from coda_twisted.http1.fields import Fields
from coda_twisted.interfaces import IAuthConversation, ICredentials
from coda_twisted.routing.routes import Direct, HTTPProxy, StaticRouter
from tests.test_auth_bindings import certificate
from tests.test_client_upload import Source
from tests.wire import Peer as WirePeer
from tests.wire import Sink, Wire

PROXY = HTTPProxy("http", "proxy", 3128)
BASIC = (b"Proxy-Authenticate", b'Basic realm="r"')
NTLM = (b"Proxy-Authenticate", b"NTLM")
CHALLENGE = (b"Proxy-Authenticate", b"NTLM " + b64encode(b"challenge"))


class InlineWorkers:
    """Run work when the test says so, or at once."""

    def __init__(self) -> None:
        self.held: list[tuple[Work, Deferred[Any]]] | None = None
        self.stopped = False

    def run(self, work: Work) -> Deferred[Any]:
        outcome: Deferred[Any] = Deferred()
        if self.held is None:
            self._run(work, outcome)
        else:
            self.held.append((work, outcome))
        return outcome

    def _run(self, work: Work, outcome: Deferred[Any]) -> None:
        try:
            result = work.run()
        except Exception:
            outcome.errback(Failure())
        else:
            outcome.callback(result)

    def release(self) -> None:
        held, self.held = self.held or [], None
        for work, outcome in held:
            if not outcome.called:
                self._run(work, outcome)

    def stop(self) -> None:
        self.stopped = True


@implementer(IAuthConversation)
class ThreeLegs:
    """
    A connection-bound conversation shaped as NTLM's, with a token one can read.

    Its peer is the test, which looks at every token.
    """

    scheme = "NTLM"
    connection_bound = True

    def __init__(self, user: bytes) -> None:
        self.user = user
        self.sent = 0

    def first(self, request: Any) -> Step:
        return Work(lambda: b"negotiate")

    def challenged(self, challenge: Any, request: Any) -> Step:
        if challenge.token68 is None:
            if self.sent >= 2:
                return GiveUp("wrong password", rejected=True, scheme="NTLM")
            return self.first(request)
        token = b64decode(challenge.token68)
        return Work(lambda: b"authenticate " + self.user + b" " + token)

    def worked(self, result: Any) -> Step:
        self.sent += 1
        last = result.startswith(b"authenticate")
        return Reply(
            b"NTLM " + b64encode(result), send_body=last, logon=True, bound=not last
        )

    def failed(self, error: Exception) -> Step:
        return GiveUp(f"failed: {error}", scheme="NTLM")

    def accepted(self, challenge: Any, info: Any) -> Step:
        return Proceed()

    def lost(self) -> None:
        self.sent = 0


@implementer(ICredentials)
class ThreeLegCredentials:
    """Credentials that speak in three legs."""

    def __init__(self, identity: str = "alice", fingerprint: int = 1) -> None:
        self.identity = identity
        self.fingerprint = fingerprint
        self.context: Any = None

    def schemes(self) -> tuple[str, ...]:
        return ("ntlm",)

    def conversation(self, scheme: str, peer: Peer, context: Any) -> Any:
        self.context = context
        return ThreeLegs(self.identity.encode())


class ExchangeCase(SynchronousTestCase):
    """A client, and the test in place of every server."""

    credentials: Any = None
    route: Any = PROXY
    timeouts = Timeouts()

    def setUp(self) -> None:
        self.clock = Clock()
        self.wire = Wire()
        self.workers = InlineWorkers()
        self.client = self.make_client()

    def make_client(self, **options: Any) -> Client:
        settings: dict[str, Any] = {
            "router": StaticRouter(self.route),
            "credentials": (
                None
                if self.credentials is None
                else StaticCredentials(self.credentials)
            ),
            "timeouts": self.timeouts,
            "workers": self.workers,
            "endpoint_for": self.wire.endpoint_for,
            "entropy": lambda size: b"\x07" * size,
            **options,
        }
        return Client(self.clock, **settings)

    def ask(
        self, method: bytes = b"GET", body: Any = None, **more: Any
    ) -> Deferred[Response]:
        return self.client.request(
            Request(
                method=method,
                scheme=more.pop("scheme", "http"),
                host=more.pop("host", "site"),
                port=more.pop("port", 80),
                path=b"/p?q",
                body=body,
                **more,
            )
        )

    def peer(self, number: int = -1) -> WirePeer:
        return self.wire.peers[number].read()

    def sent(self, number: int = -1) -> list[bytes]:
        """The credentials on each request of a connection, in words."""
        values = []
        for head in self.peer(number).requests:
            value = head.fields.get(b"Proxy-Authorization", b"-") or b""
            scheme, _, token = value.partition(b" ")
            values.append(scheme if not token else b64decode(token))
        return values

    def finish(self, answer: Deferred[Response]) -> Response:
        """Take the response, and its content."""
        response = self.successResultOf(answer)
        self.sink = Sink()
        response.deliver(self.sink)
        return response


class DirectTests(ExchangeCase):
    """Requests without a proxy."""

    route = Direct()

    def test_origin_form(self) -> None:
        """A direct request has the origin-form and a Host."""
        answer = self.ask(fields=Fields([(b"Accept", b"*/*")]))
        self.assertEqual((self.peer().host, self.peer().port), ("site", 80))
        head = self.peer().request
        self.assertEqual(head.target, b"/p?q")
        self.assertEqual(list(head.fields), [(b"Host", b"site"), (b"Accept", b"*/*")])
        self.peer().answer(200, body=b"ok")
        response = self.finish(answer)
        self.assertEqual((self.sink.data, response.route), (b"ok", Direct()))

    def test_port_and_address(self) -> None:
        """Ports that are not the scheme's are named, IPv6 addresses bracketed."""
        self.ask(host="::1", port=8080)
        self.assertEqual(self.peer().request.fields.get(b"Host"), b"[::1]:8080")

    def test_host_of_the_caller(self) -> None:
        """A caller that names the Host is obeyed, and it comes first."""
        self.ask(fields=Fields([(b"A", b"1"), (b"hOsT", b"other")]))
        self.assertEqual(
            list(self.peer().request.fields), [(b"Host", b"other"), (b"A", b"1")]
        )

    def test_reuse(self) -> None:
        """The next request to the same server uses the same connection."""
        for _ in range(3):
            answer = self.ask()
            self.peer().answer(200)
            self.finish(answer)
        self.assertEqual(len(self.wire.peers), 1)
        self.ask(host="another")
        self.assertEqual(len(self.wire.peers), 2)

    def test_framing(self) -> None:
        """Methods that anticipate content say when there is none."""
        for method, expected in ((b"POST", b"0"), (b"GET", None), (b"DELETE", None)):
            self.ask(method)
            fields = self.peer().request.fields
            self.assertEqual(fields.get(b"Content-Length"), expected)
        self.ask(b"POST", Source())
        self.assertEqual(
            self.peer().requests[0].fields.get(b"Transfer-Encoding"), b"chunked"
        )

    def test_upgrade_and_te(self) -> None:
        """Connection names what is for the next hop alone."""
        self.ask(
            upgrade=b"websocket", fields=Fields([(b"TE", b"trailers")]), close=True
        )
        fields = self.peer().request.fields
        self.assertEqual(fields.tokens(b"Connection"), [b"te", b"upgrade", b"close"])
        self.assertEqual(fields.get(b"Upgrade"), b"websocket")

    def test_race_on_a_reused_connection(self) -> None:
        """A request that met a closing connection is sent again, once."""
        self.finish_one()
        answer = self.ask()
        self.peer(0).reset()
        self.assertEqual(len(self.wire.peers), 2)
        self.assertNoResult(answer)
        self.peer(1).reset()
        self.failureResultOf(answer, ConnectionEnded)
        self.assertEqual(len(self.wire.peers), 2)

    def finish_one(self) -> None:
        answer = self.ask()
        self.peer().answer(200)
        self.finish(answer)

    def test_post_is_not_repeated(self) -> None:
        """What is not idempotent is not sent twice (RFC 9110 9.2.2)."""
        self.finish_one()
        answer = self.ask(b"POST")
        self.peer(0).reset()
        self.failureResultOf(answer, ConnectionEnded)

    def test_fresh_connection_is_not_repeated(self) -> None:
        """A server that drops a fresh connection is not asked again."""
        answer = self.ask()
        self.peer().reset()
        self.failureResultOf(answer, ConnectionEnded)
        self.assertEqual(len(self.wire.peers), 1)

    def test_expect(self) -> None:
        """Content of a caller that asks for it waits for 100 (Continue)."""
        source = Source()
        interim: list[int] = []
        answer = self.ask(
            b"PUT",
            source,
            expect_continue=True,
            on_interim=lambda head: interim.append(head.status),
        )
        self.assertEqual(self.peer().request.fields.get(b"Expect"), b"100-continue")
        self.assertEqual(source.calls, [])
        self.peer().send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual((source.calls, interim), (["start"], [100]))
        source.done.callback(None)
        self.peer().answer(201)
        self.finish(answer)

    def test_cancel_while_connecting(self) -> None:
        """A request cancelled while it connects stops connecting."""
        self.wire.hold = True
        answer = self.ask()
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.wire.cancelled, 1)

    def test_connect_timeout(self) -> None:
        """A server that cannot be reached in time is given up."""
        self.wire.hold = True
        answer = self.ask()
        self.clock.advance(20)
        self.assertEqual(
            self.failureResultOf(answer, PhaseTimeout).value.phase, "connect"
        )

    def test_name_resolution_timeout(self) -> None:
        """So is a name that is not resolved in time: that is not "not found"."""

        class Silent:
            """Never finds a name, and gives up as HostnameEndpoint does."""

            def connect(self, factory: Any) -> Deferred[Any]:
                resolving: Deferred[Any] = Deferred()
                return resolving.addErrback(lambda _: fail(DNSLookupError("no such")))

        self.client = self.make_client(endpoint_for=lambda host, port: Silent())
        answer = self.ask()
        self.clock.advance(20)
        self.assertEqual(
            self.failureResultOf(answer, PhaseTimeout).value.phase, "connect"
        )

    def test_total_timeout(self) -> None:
        """The limit for everything ends everything."""
        self.client = self.make_client(timeouts=Timeouts(total=5))
        answer = self.ask()
        self.clock.advance(5)
        self.assertEqual(
            self.failureResultOf(answer, PhaseTimeout).value.phase, "total"
        )
        self.assertTrue(self.peer().dropped)

    def test_refused(self) -> None:
        """What the socket says about an origin is told as it is."""
        self.wire.refusals["site"] = ConnectionRefusedError()
        self.failureResultOf(self.ask(), ConnectionRefusedError)

    def test_close(self) -> None:
        """Closing the client closes its connections and stops its workers."""
        answer = self.ask()
        self.successResultOf(self.client.close())
        self.failureResultOf(answer, ConnectionEnded)
        self.assertTrue(self.workers.stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AnonymousProxyTests(ExchangeCase):
    """Proxies for which we have no credentials."""

    def test_absolute_form(self) -> None:
        """A proxy gets the absolute-form, whatever the origin's port."""
        self.ask()
        self.assertEqual((self.peer().host, self.peer().port), ("proxy", 3128))
        self.assertEqual(self.peer().request.target, b"http://site/p?q")
        self.ask(port=8080)
        self.assertEqual(self.peer().request.target, b"http://site:8080/p?q")

    def test_one_pool_for_all_origins(self) -> None:
        """A connection to the proxy serves every plain-http origin."""
        for host in ("a", "b"):
            answer = self.ask(host=host)
            self.peer().answer(200)
            self.finish(answer)
        self.assertEqual(len(self.wire.peers), 1)

    def test_407_is_the_callers(self) -> None:
        """Without credentials a 407 is a response like any other."""
        answer = self.ask()
        self.peer().answer(407, BASIC, body=b"who?")
        self.assertEqual(self.finish(answer).head.status, 407)
        self.assertEqual(self.sink.data, b"who?")

    def test_unreachable(self) -> None:
        """A proxy that cannot be reached is named."""
        self.wire.refusals["proxy"] = ConnectionRefusedError()
        error = self.failureResultOf(self.ask(), ProxyUnreachable).value
        self.assertIn("http://proxy:3128", str(error))
        self.assertIsInstance(error.__cause__, ConnectionRefusedError)

    def test_cancel_is_no_failure_of_the_proxy(self) -> None:
        """A request that is cancelled while connecting tries no other route."""

        class Two:
            def routes(self, scheme: str, host: str, port: int) -> Any:
                return (PROXY, Direct())

        for cancelled in (None, ConnectingCancelledError(None)):
            self.client = self.make_client(router=Two())
            self.wire.hold = True
            self.wire.held.clear()
            answer = self.ask()
            [(opened, _)] = self.wire.held
            if cancelled is None:
                answer.cancel()
                self.failureResultOf(answer, CancelledError)
            else:  # as HostnameEndpoint has it
                opened.errback(cancelled)
                self.failureResultOf(answer, ConnectingCancelledError)
            self.assertEqual(len(self.wire.held), 1)

    def test_next_route(self) -> None:
        """When the first way is closed, the next one is taken."""

        class Two:
            def routes(self, scheme: str, host: str, port: int) -> Any:
                return [PROXY, Direct()]

        self.client = self.make_client(router=Two())
        self.wire.refusals["proxy"] = ConnectionRefusedError()
        answer = self.ask()
        self.assertEqual(self.peer().host, "site")
        self.peer().answer(200)
        self.assertEqual(self.finish(answer).route, Direct())


class BasicProxyTests(ExchangeCase):
    """One leg more, then none."""

    credentials = PasswordCredentials("alice", "secret")

    def test_challenge_and_answer(self) -> None:
        """A 407 is answered on the same connection; the caller sees the end."""
        answer = self.ask()
        self.peer().answer(407, BASIC, body=b"who?")
        self.assertNoResult(answer)
        self.assertEqual(self.sent(), [b"-", b"alice:secret"])
        self.peer().answer(200, body=b"ok")
        self.finish(answer)
        self.assertEqual(self.sink.data, b"ok")
        self.assertEqual(len(self.wire.peers), 1)

    def test_remembered(self) -> None:
        """What was learnt is used at once, on other connections too."""
        self.log_on()
        first, second = self.ask(), self.ask()
        self.assertEqual(self.sent(0), [b"-", b"alice:secret", b"alice:secret"])
        self.assertEqual(self.sent(1), [b"alice:secret"])
        for peer in self.wire.peers:
            peer.answer(200)
        self.finish(first)
        self.finish(second)

    def log_on(self) -> None:
        answer = self.ask()
        self.peer().answer(407, BASIC)
        self.peer().answer(200)
        self.finish(answer)

    def test_closing_407(self) -> None:
        """A 407 that closes is answered on a new connection."""
        answer = self.ask()
        self.peer().answer(407, BASIC, (b"Connection", b"close"))
        self.assertEqual(len(self.wire.peers), 2)
        self.assertEqual(self.sent(), [b"alice:secret"])
        self.peer().answer(200)
        self.finish(answer)

    def test_endless_407_page(self) -> None:
        """A 407 whose page does not end costs the connection, not the request."""
        answer = self.ask()
        self.peer().send(
            b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=r\r\n\r\nabc"
        )
        self.clock.advance(5)
        self.assertEqual(self.sent(), [b"alice:secret"])
        self.peer().answer(200)
        self.finish(answer)

    def test_wrong_password(self) -> None:
        """A refusal ends in an error that says who and where, never the secret."""
        answer = self.ask()
        self.peer().answer(407, BASIC)
        self.peer().answer(407, BASIC)
        error = self.failureResultOf(answer, CredentialsRejected).value
        self.assertEqual(error.identity, "alice")
        self.assertIn("proxy http://proxy:3128", str(error))
        self.assertNotIn("secret", str(error) + repr(error))

    def test_one_wrong_password_costs_one_logon(self) -> None:
        """Of two hundred requests one sends the wrong password."""
        answers = [self.ask() for _ in range(200)]
        for peer in list(self.wire.peers):
            peer.answer(407, BASIC)
        tried = [p for p in self.wire.peers if len(p.read().requests) == 2]
        self.assertEqual(len(tried), 1)
        tried[0].answer(407, BASIC)
        for answer in answers:
            self.failureResultOf(answer, CredentialsRejected)
        late = self.ask()
        self.peer().answer(407, BASIC)
        self.failureResultOf(late, CredentialsRejected)
        logons = [
            head
            for peer in self.wire.peers
            for head in peer.read().requests
            if b"Proxy-Authorization" in head.fields
        ]
        self.assertEqual(len(logons), 1)

    def test_cool_down(self) -> None:
        """After the cool-down the secret is tried once more."""
        answer = self.ask()
        self.peer().answer(407, BASIC)
        self.peer().answer(407, BASIC)
        self.failureResultOf(answer, CredentialsRejected)
        self.clock.advance(COOL_DOWN)
        answer = self.ask()
        self.peer().answer(407, BASIC)
        self.peer().answer(200)
        self.finish(answer)

    def test_403_proves_nothing(self) -> None:
        """A refusal by policy neither proves the secret nor bars it."""
        first, second = self.ask(), self.ask()
        self.peer(0).answer(407, BASIC)
        self.peer(1).answer(407, BASIC)
        self.assertEqual(self.sent(1), [b"-"])
        self.peer(0).answer(403)
        self.assertEqual(self.finish(first).head.status, 403)
        self.assertEqual(self.sent(1), [b"-", b"alice:secret"])
        self.peer(1).answer(200)
        self.finish(second)

    def test_407_without_a_challenge(self) -> None:
        """A 407 that asks for nothing is answered with nothing."""
        answer = self.ask()
        self.peer().answer(407, body=b"blocked")
        self.assertEqual(self.finish(answer).head.status, 407)
        self.assertEqual(self.sent(), [b"-"])

    def test_unknown_scheme(self) -> None:
        """Schemes that cannot be spoken are named, and nothing is sent."""
        answer = self.ask()
        self.peer().answer(407, (b"Proxy-Authenticate", b"Frob x=1"))
        error = self.failureResultOf(answer, AuthenticationFailed).value
        self.assertIn("Frob", str(error))
        self.assertEqual(self.sent(), [b"-"])
        self.assertTrue(self.peer().dropped)

    def test_small_body_is_sent_again(self) -> None:
        """Content that was challenged is sent again with the answer."""
        answer = self.ask(b"POST", BytesBody(b"hello"))
        self.peer().answer(407, BASIC)
        self.peer().answer(200)
        self.finish(answer)
        self.assertEqual(self.peer().bodies, [b"hello", b"hello"])

    def test_streamed_body_is_sent_again(self) -> None:
        """Content that came once is kept for the answer."""
        source = Source()
        source.length = 4
        answer = self.ask(b"POST", source)
        source.consumer.write(b"abcd")
        source.done.callback(None)
        self.peer().answer(407, BASIC)
        self.peer().answer(200)
        self.finish(answer)
        self.assertEqual(self.peer().bodies, [b"abcd", b"abcd"])

    def test_challenge_in_mid_upload(self) -> None:
        """A 407 in mid-upload is answered on a new connection, from the start."""
        source = Source()
        source.length = 6
        answer = self.ask(b"POST", source)
        source.consumer.write(b"abc")
        self.peer(0).send(
            b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=r\r\n"
            b"Content-Length: 99\r\n\r\n"
        )
        self.assertTrue(self.peer(0).dropped)
        source.consumer.write(b"def")
        source.done.callback(None)
        self.assertEqual(self.peer(1).bodies, [b"abcdef"])
        self.peer(1).answer(200)
        self.finish(answer)
        self.assertEqual(self.sent(1), [b"alice:secret"])

    def test_long_body_after_a_challenge(self) -> None:
        """More than Squid survives is sent again on a new connection."""
        answer = self.ask(b"POST", BytesBody(b"x" * 70_000))
        self.peer().answer(407, BASIC)
        self.assertEqual(len(self.wire.peers), 2)
        self.peer().answer(200)
        self.finish(answer)
        self.assertEqual(self.peer().bodies, [b"x" * 70_000])

    def test_content_of_unknown_length_waits(self) -> None:
        """Content that could not be sent twice waits for a sign."""
        source = Source()
        answer = self.ask(b"POST", source)
        self.assertEqual(self.peer(0).request.fields.get(b"Expect"), b"100-continue")
        self.assertEqual(source.calls, [])
        self.peer(0).answer(407, BASIC)
        self.assertTrue(self.peer(0).dropped)
        self.assertEqual(source.calls, ["start"])
        source.consumer.write(b"x" * (REPLAY_LIMIT * 2))
        source.done.callback(None)
        self.assertEqual(len(self.peer(1).bodies[0]), REPLAY_LIMIT * 2)
        self.peer(1).answer(200)
        self.finish(answer)

    def test_content_that_is_gone(self) -> None:
        """Content that was sent and cannot be had again fails the request."""
        source = Source()
        answer = self.ask(b"POST", source)
        self.clock.advance(1)
        source.consumer.write(b"x" * (REPLAY_LIMIT + 1))
        self.peer(0).answer(407, BASIC)
        self.failureResultOf(answer, BodyNotReplayable)
        self.assertEqual(source.calls[-1], "stop")
        self.assertTrue(all(peer.dropped for peer in self.wire.peers))

    def test_another_user_has_other_connections(self) -> None:
        """Connections of one user are not used for another."""
        self.log_on()
        users = {"now": PasswordCredentials("bob", "other")}

        class Source:
            def credentials_for(self, peer: Peer) -> Any:
                return users["now"]

        self.client = self.make_client(credentials=Source())
        for name, expected in (("bob", b"bob:other"), ("carol", b"carol:x")):
            if name == "carol":
                users["now"] = PasswordCredentials("carol", "x")
            answer = self.ask()
            self.peer().answer(407, BASIC)
            self.peer().answer(200)
            self.finish(answer)
            self.assertEqual(self.sent(), [b"-", expected])
        self.assertEqual(len(self.wire.peers), 3)

    def test_no_challenge(self) -> None:
        """Where none comes requests follow each other on one connection."""
        for number in range(3):
            answer = self.ask()
            self.peer().answer(200)
            self.finish(answer)
            self.assertEqual(self.sent(), [b"-"] * (number + 1))
        answer = self.ask()
        self.peer().answer(407, BASIC)
        self.peer().answer(200)
        self.finish(answer)
        self.assertEqual(self.sent()[3:], [b"-", b"alice:secret"])
        self.assertEqual(len(self.wire.peers), 1)

    def test_source_may_take_its_time(self) -> None:
        """Credentials may come from a prompt."""
        prompt: Deferred[Any] = Deferred()

        class Asking:
            def credentials_for(self, peer: Peer) -> Any:
                return prompt if peer.role is Role.PROXY else None

        self.client = self.make_client(credentials=Asking())
        answer = self.ask()
        self.assertEqual(self.wire.peers, [])
        prompt.callback(self.credentials)
        self.peer().answer(200)
        self.finish(answer)


class BoundTests(ExchangeCase):
    """Handshakes that live and die with their connection."""

    credentials = ThreeLegCredentials()

    def test_three_legs(self) -> None:
        """The whole handshake travels on one connection, the content on its end."""
        answer = self.ask(b"POST", BytesBody(b"hello"))
        self.peer().answer(407, NTLM)
        self.peer().answer(407, CHALLENGE)
        self.peer().answer(200)
        self.finish(answer)
        self.assertEqual(
            self.sent(), [b"-", b"negotiate", b"authenticate alice challenge"]
        )
        self.assertEqual(self.peer().bodies, [b"hello", b"", b"hello"])
        self.assertEqual(self.peer().requests[1].fields.get(b"Content-Length"), b"0")

    def test_afterwards_the_connection_is_the_user(self) -> None:
        """Later requests on the connection need nothing; new ones begin at once."""
        self.test_three_legs()
        first, second = self.ask(), self.ask()
        self.assertEqual(self.sent(0)[3:], [b"-"])
        self.assertEqual(self.sent(1), [b"negotiate"])
        self.peer(0).answer(200)
        self.finish(first)
        self.peer(1).answer(407, CHALLENGE)
        self.peer(1).answer(200)
        self.finish(second)

    def test_afterwards_with_http10(self) -> None:
        """A proxy of HTTP/1.0 would close, and the logon be lost, unless asked."""
        answers = [
            b"HTTP/1.0 407 A\r\nProxy-Authenticate: NTLM\r\n",
            b"HTTP/1.0 407 A\r\n%b: %b\r\n" % CHALLENGE,
            *[b"HTTP/1.0 200 A\r\n"] * 3,
        ]
        answer = self.ask()
        for number, head in enumerate(answers):
            if number > 2:
                answer = self.ask()
            request = self.peer(0).request
            keeps = request.fields.get(b"Proxy-Connection")
            self.assertEqual(keeps, b"keep-alive" if number else None)
            self.peer(0).send(
                head + b"Proxy-Connection: keep-alive\r\nContent-Length: 0\r\n\r\n"
            )
            if number > 1:
                self.finish(answer)
        self.assertEqual(len(self.wire.peers), 1)

    def test_nobody_else_on_a_half_authenticated_connection(self) -> None:
        """While a handshake is under way its connection serves nobody else."""
        first = self.ask()
        self.peer(0).answer(407, NTLM)
        self.ask()
        self.assertEqual(len(self.wire.peers), 2)
        self.peer(0).answer(407, CHALLENGE)
        self.peer(0).answer(200)
        self.finish(first)

    def test_closing_first_407(self) -> None:
        """A proxy that closes on the bare 407 gets the handshake on a new one."""
        answer = self.ask()
        self.peer(0).answer(407, NTLM, (b"Proxy-Connection", b"close"))
        self.assertEqual(self.sent(1), [b"negotiate"])
        self.peer(1).answer(407, CHALLENGE)
        self.peer(1).answer(200)
        self.finish(answer)

    def test_closing_in_mid_handshake(self) -> None:
        """A handshake that loses its connection begins anew, once."""
        answer = self.ask()
        self.peer(0).answer(407, NTLM)
        self.peer(0).answer(407, CHALLENGE, (b"Connection", b"close"))
        self.assertEqual(self.sent(1)[:1], [b"-"])
        self.peer(1).answer(407, NTLM)
        self.peer(1).answer(407, CHALLENGE, (b"Connection", b"close"))
        error = self.failureResultOf(answer, AuthenticationFailed).value
        self.assertIn("middle of the handshake", str(error))
        self.assertEqual(len(self.wire.peers), 2)

    def test_bindings(self) -> None:
        """A handshake is bound to the certificate of the connection it is on."""
        key = ec.generate_private_key(ec.SECP256R1())
        ders = [certificate(key, hashes.SHA256()) for _ in range(3)]
        self.wire.certificates = [load_certificate(FILETYPE_ASN1, der) for der in ders]
        answer = self.ask()
        self.peer(0).answer(407, NTLM, (b"Connection", b"close"))
        context = self.credentials.context
        self.assertEqual(context.channel_bindings, tls_server_end_point(ders[1]))
        self.peer(1).answer(407, CHALLENGE, (b"Connection", b"close"))
        self.assertEqual(context.channel_bindings, tls_server_end_point(ders[2]))
        self.peer(2).answer(200)
        self.finish(answer)

    def test_lost_on_the_last_leg(self) -> None:
        """A connection lost on the last leg costs one more handshake."""
        answer = self.ask()
        self.peer(0).answer(407, NTLM)
        self.peer(0).answer(407, CHALLENGE)
        self.peer(0).reset()
        self.peer(1).answer(407, NTLM)
        self.peer(1).answer(407, CHALLENGE)
        self.peer(1).answer(200)
        self.finish(answer)

    def test_post_lost_on_the_last_leg(self) -> None:
        """Content that may have been taken is not sent again."""
        answer = self.ask(b"POST", BytesBody(b"x"))
        self.peer(0).answer(407, NTLM)
        self.peer(0).answer(407, CHALLENGE)
        self.peer(0).reset()
        self.failureResultOf(answer, ConnectionEnded)

    def test_post_lost_on_a_probe(self) -> None:
        """A leg without content is begun again: it asked for nothing yet."""
        answer = self.ask(b"POST", BytesBody(b"x"))
        self.peer(0).answer(407, NTLM)
        self.peer(0).reset()
        self.peer(1).answer(407, NTLM)
        self.peer(1).answer(407, CHALLENGE)
        self.peer(1).answer(200)
        self.finish(answer)

    def test_stale_authenticated_connection(self) -> None:
        """An authenticated connection that died is replaced by a new handshake."""
        self.test_three_legs()
        answer = self.ask()
        self.peer(0).reset()
        self.assertEqual(self.sent(1), [b"negotiate"])
        self.peer(1).answer(407, CHALLENGE)
        self.peer(1).answer(200)
        self.finish(answer)

    def test_asked_again(self) -> None:
        """A challenge on an authenticated connection is answered there."""
        self.test_three_legs()
        for number in (1, 2):
            answer = self.ask()
            self.assertEqual(len(self.wire.peers), 1)
            if number == 2:  # the first one needed nothing
                self.peer().answer(407, NTLM)
                self.peer().answer(407, CHALLENGE)
            self.peer().answer(200)
            self.finish(answer)
        self.assertEqual(
            self.sent()[3:],
            [b"-", b"-", b"negotiate", b"authenticate alice challenge"],
        )

    def test_dies_when_taken_again(self) -> None:
        """A request is sent once more where the connection that it took was dying."""
        self.test_three_legs()
        answer = self.ask()
        self.peer().answer(200)
        self.finish(answer)
        answer = self.ask()
        self.assertEqual(self.sent()[3:], [b"-", b"-"])
        self.peer().reset()
        self.peer().answer(407, CHALLENGE)
        self.peer().answer(200)
        self.finish(answer)
        self.assertEqual(self.sent(), [b"negotiate", b"authenticate alice challenge"])
        self.assertEqual(len(self.wire.peers), 2)

    def test_wrong_password(self) -> None:
        """The refusal of the last leg bars the secret; one logon was spent."""
        answers = [self.ask() for _ in range(20)]
        for peer in list(self.wire.peers):
            peer.answer(407, NTLM)
        [trier] = [p for p in self.wire.peers if len(p.read().requests) == 2]
        trier.answer(407, CHALLENGE)
        trier.answer(407, NTLM)
        for answer in answers:
            self.failureResultOf(answer, CredentialsRejected)
        self.assertEqual(len(trier.requests), 3)

    def test_probe_that_is_not_challenged(self) -> None:
        """When the proxy stops asking, the request follows its empty probe."""
        self.test_three_legs()
        self.peer(0).close()
        answer = self.ask(b"PUT", BytesBody(b"hello"))
        self.assertEqual(self.sent(1), [b"negotiate"])
        self.assertEqual(self.peer(1).bodies, [b""])
        self.peer(1).answer(200, body=b"empty")
        self.assertNoResult(answer)
        self.assertEqual(self.peer(1).bodies, [b"", b"hello"])
        self.peer(1).answer(200, body=b"full")
        self.finish(answer)
        self.assertEqual(self.sink.data, b"full")

    def test_connection_lost_during_work(self) -> None:
        """A connection lost while a token is made is replaced."""
        answer = self.ask()
        self.workers.held = []
        self.peer(0).answer(407, NTLM)
        self.peer(0).close()
        self.workers.release()
        self.assertEqual(self.sent(1), [b"negotiate"])
        self.peer(1).answer(407, CHALLENGE)
        self.peer(1).answer(200)
        self.finish(answer)

    def test_connection_lost_during_bound_work(self) -> None:
        """In mid-handshake that means to begin anew."""
        answer = self.ask()
        self.peer(0).answer(407, NTLM)
        self.workers.held = []
        self.peer(0).answer(407, CHALLENGE)
        self.peer(0).close()
        self.workers.release()
        self.peer(1).answer(407, NTLM)
        self.peer(1).answer(407, CHALLENGE)
        self.peer(1).answer(200)
        self.finish(answer)

    def test_cancel_during_work(self) -> None:
        """A request cancelled while a token is made lets its connection go."""
        answer = self.ask()
        self.workers.held = []
        self.peer(0).answer(407, NTLM)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertTrue(self.peer(0).dropped)
        second = self.ask()
        self.workers.held = None
        self.peer(1).answer(407, NTLM)
        self.assertEqual(self.sent(1)[1:], [b"negotiate"])
        second.addErrback(lambda _: None)


class Reader(Protocol):
    """Remembers what came."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class TunnelTests(ExchangeCase):
    """Raw streams."""

    credentials = PasswordCredentials("alice", "secret")

    def connect(self, host: str = "db", port: int = 5432) -> Deferred[Any]:
        endpoint = self.client.endpoint(host, port)
        verifyObject(IStreamClientEndpoint, endpoint)
        self.assertIn(host, repr(endpoint))
        return endpoint.connect(Factory.forProtocol(Reader))

    def test_tunnel(self) -> None:
        """CONNECT authenticates, then the stream is the protocol's."""
        connecting = self.connect()
        head = self.peer().request
        self.assertEqual((head.method, head.target), (b"CONNECT", b"db:5432"))
        self.assertEqual(head.fields.get(b"Host"), b"db:5432")
        self.assertNotIn(b"Content-Length", head.fields)
        self.peer().answer(407, BASIC)
        self.assertEqual(self.sent(), [b"-", b"alice:secret"])
        self.peer().open_tunnel(b"welcome")
        protocol = self.successResultOf(connecting)
        self.assertEqual(protocol.data, b"welcome")
        protocol.transport.write(b"hello")
        self.assertEqual(self.peer().tunnel, b"hello")
        self.peer().close()
        self.assertIsNotNone(protocol.lost)

    def test_ipv6(self) -> None:
        """IPv6 literals are bracketed."""
        self.connect("::1", 443)
        self.assertEqual(self.peer().request.target, b"[::1]:443")

    def test_refused(self) -> None:
        """A refusal carries status, fields and the beginning of the page."""
        connecting = self.connect()
        self.peer().answer(403, (b"X-Why", b"policy"), body=b"x" * 5000)
        error = self.failureResultOf(connecting, TunnelRefused).value
        self.assertEqual((error.status, error.reason), (403, "Any"))
        self.assertIn((b"X-Why", b"policy"), error.fields)
        self.assertEqual(error.body, b"x" * 4096)
        self.assertIn("403", str(error))

    def test_warm_connection(self) -> None:
        """An idle connection to the proxy is turned into the tunnel."""
        answer = self.ask()
        self.peer().answer(407, BASIC)
        self.peer().answer(200)
        self.finish(answer)
        connecting = self.connect()
        self.assertEqual(len(self.wire.peers), 1)
        self.peer().open_tunnel()
        self.successResultOf(connecting)
        self.ask()
        self.assertEqual(len(self.wire.peers), 2)

    def test_cancel(self) -> None:
        """Cancelling drops what was begun."""
        connecting = self.connect()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertTrue(self.peer().dropped)

    def test_broken_router(self) -> None:
        """What a router raises is the endpoint's failure, and a request's."""

        class Broken:
            def routes(self, scheme: str, host: str, port: int) -> Any:
                raise ZeroDivisionError

        self.client = self.make_client(router=Broken())
        opening = self.client.endpoint("site", 22).connect(Factory())
        self.failureResultOf(opening, ZeroDivisionError)
        self.failureResultOf(self.ask(), ZeroDivisionError)

    def test_no_route(self) -> None:
        """A router that names no route is told so."""

        class Nowhere:
            def routes(self, scheme: str, host: str, port: int) -> Any:
                return ()

        self.client = self.make_client(router=Nowhere())
        opening = self.client.endpoint("site", 22).connect(Factory())
        self.assertIn("no route", str(self.failureResultOf(opening, ValueError)))
        self.assertIn("no route", str(self.failureResultOf(self.ask(), ValueError)))

    def test_no_protocol(self) -> None:
        """A factory that wants no protocol gets no tunnel."""

        class Unwilling(Factory):
            def buildProtocol(self, addr: Any) -> None:
                return None

        connecting = self.client.endpoint("db", 1).connect(Unwilling())
        self.peer().open_tunnel()
        self.failureResultOf(connecting)
        self.assertTrue(self.peer().dropped)

    def test_direct(self) -> None:
        """Without a proxy the endpoint is the host's own."""
        self.client = self.make_client(router=StaticRouter(Direct()))
        protocol = self.successResultOf(self.connect())
        self.assertEqual((self.peer().host, self.peer().port), ("db", 5432))
        self.assertIs(protocol.transport, self.peer().transport)


class PolicyTests(ExchangeCase):
    """The policy is the client's."""

    credentials = PasswordCredentials("alice", "secret")

    def test_what_was_wrong_with_each_scheme(self) -> None:
        """When nothing on offer will do, the error lists what and why."""
        answer = self.ask()
        self.peer().answer(
            407, (b"Proxy-Authenticate", b'Hoba challenge="x"'), (b"Server", b"x")
        )
        error = self.failureResultOf(answer, NoAcceptableScheme).value
        self.assertEqual(error.refusals, (("Hoba", "the credentials cannot speak it"),))
        self.assertEqual(error.peer, "proxy http://proxy:3128")

    def test_scheme_not_allowed(self) -> None:
        """A scheme that policy forbids is not spoken."""
        self.client = self.make_client(policy=AuthPolicy(schemes=("negotiate",)))
        answer = self.ask()
        self.peer().answer(407, BASIC)
        self.failureResultOf(answer, AuthenticationFailed)
        self.assertEqual(self.sent(), [b"-"])
