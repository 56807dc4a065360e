"""Tests for :mod:`coda_twisted.client.exchange` where origin servers challenge."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

from twisted.internet.defer import Deferred

from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import GiveUp, Peer, Reply, Role, Step
from coda_twisted.client.upload import REPLAY_LIMIT, BytesBody
from coda_twisted.credentials import PasswordCredentials
from coda_twisted.errors import (
    AuthenticationFailed,
    CredentialsRejected,
    SessionsNotKept,
)
from coda_twisted.http1.fields import Fields
from coda_twisted.interfaces import ICredentials
from coda_twisted.routing.routes import Direct
from tests.test_client_exchange import (
    BASIC,
    CHALLENGE,
    NTLM,
    ExchangeCase,
    ThreeLegCredentials,
    ThreeLegs,
)
from tests.test_client_upload import Source

SITE_BASIC = (b"WWW-Authenticate", b'Basic realm="s"')
SITE_DIGEST = (b"WWW-Authenticate", b'Digest realm="s", nonce="n", qop="auth"')
SITE_NEGOTIATE = (b"WWW-Authenticate", b"Negotiate")
SITE_NTLM = (b"WWW-Authenticate", b"NTLM")
SITE_CHALLENGE = (b"WWW-Authenticate", b"NTLM " + b64encode(b"site"))
KEPT = (b"Proxy-Support", b"Session-Based-Authentication")


class Users:
    """Who we are to the proxy, and to the site ``site`` on port 80."""

    def __init__(self, borrower: Any = None, user: Any = None) -> None:
        self.borrower = borrower
        self.user = user

    def credentials_for(self, peer: Peer) -> ICredentials | None:
        if peer.role is Role.PROXY:
            found: ICredentials | None = self.borrower
        else:
            found = self.user if (peer.host, peer.port) == ("site", 80) else None
        return found


class OriginCase(ExchangeCase):
    """A client that is somebody to a site, and perhaps to a proxy."""

    borrower: Any = None
    user: Any = None
    policy = AuthPolicy(allow_basic_over_cleartext=True)

    def setUp(self) -> None:
        super().setUp()
        self.client = self.make_client(
            credentials=Users(self.borrower, self.user), policy=self.policy
        )

    def said(self, number: int = -1, field: bytes = b"Authorization") -> list[bytes]:
        """The credentials for the site on each request of a connection."""
        values = []
        for head in self.peer(number).requests:
            scheme, _, token = (head.fields.get(field) or b"-").partition(b" ")
            values.append(b64decode(token) if token else scheme)
        return values


class DirectBasicTests(OriginCase):
    """A site that wants Basic, without a proxy."""

    route = Direct()
    user = PasswordCredentials("alice", "secret")

    def test_challenge_and_answer(self) -> None:
        """A 401 is answered, and the next request needs none."""
        answer = self.ask(b"POST", BytesBody(b"hello"))
        self.peer().answer(401, SITE_BASIC)
        self.peer().answer(200)
        self.finish(answer)
        self.ask()
        self.assertEqual(self.said(), [b"-", b"alice:secret", b"alice:secret"])
        self.assertEqual(self.peer().bodies, [b"hello", b"hello", b""])

    def test_wrong_password(self) -> None:
        """A site's refusal costs one logon and names the site."""
        answer = self.ask()
        self.peer().answer(401, SITE_BASIC)
        self.peer().answer(401, SITE_BASIC)
        error = self.failureResultOf(answer, CredentialsRejected).value
        self.assertEqual(error.peer, "origin http://site:80")
        answer = self.ask()
        self.peer().answer(401, SITE_BASIC)
        self.failureResultOf(answer, CredentialsRejected)
        self.assertEqual(self.said(1), [b"-"])

    def test_own_field_wins(self) -> None:
        """A caller's own Authorization is sent, and its 401 is the caller's."""
        answer = self.ask(fields=Fields([(b"Authorization", b"Basic b3du")]))
        self.peer().answer(401, SITE_BASIC)
        self.assertEqual(self.finish(answer).head.status, 401)
        self.assertEqual(self.said(), [b"own"])

    def test_another_port_is_another_site(self) -> None:
        """Credentials are for one origin: scheme, host and port."""
        answer = self.ask(port=8080)
        self.peer().answer(401, SITE_BASIC)
        self.assertEqual(self.finish(answer).head.status, 401)
        self.assertEqual(self.said(), [b"-"])

    def test_401_without_a_challenge(self) -> None:
        """There is nothing to answer, and nothing is sent."""
        answer = self.ask()
        self.peer().answer(401)
        self.assertEqual(self.finish(answer).head.status, 401)


class CleartextTests(OriginCase):
    """The policy that is in force unless somebody changes it."""

    route = Direct()
    user = PasswordCredentials("alice", "secret")
    policy = AuthPolicy()

    def test_no_password_in_clear(self) -> None:
        """Basic is not spoken to a site without TLS."""
        answer = self.ask()
        self.peer().answer(401, SITE_BASIC)
        error = self.failureResultOf(answer, AuthenticationFailed).value
        self.assertIn("in clear", str(error))
        self.assertEqual(self.said(), [b"-"])


class DirectBoundTests(OriginCase):
    """A site that authenticates connections, without a proxy."""

    route = Direct()
    user = ThreeLegCredentials()

    def test_three_legs(self) -> None:
        """The handshake stays on its connection, which is ours afterwards."""
        answer = self.ask(b"PUT", BytesBody(b"hello"))
        self.peer().answer(401, SITE_NTLM)
        self.peer().answer(401, SITE_CHALLENGE)
        self.peer().answer(201)
        self.finish(answer)
        self.ask()
        self.assertEqual(
            self.said(), [b"-", b"negotiate", b"authenticate alice site", b"-"]
        )
        self.assertEqual(self.peer().bodies, [b"hello", b"", b"hello", b""])
        self.assertNotIn(b"Proxy-Connection", self.peer().requests[1].fields)

    def test_long_content(self) -> None:
        """Content that went out in vain does not end the handshake after it."""
        content = b"x" * 100_000
        answer = self.ask(b"POST", BytesBody(content))
        self.peer().answer(401, SITE_NTLM)
        self.peer().answer(401, SITE_CHALLENGE)
        self.peer().answer(200)
        self.finish(answer)
        # Squid would not answer again on the first connection.
        self.assertEqual(len(self.wire.peers), 2)
        self.assertEqual(self.said(1), [b"negotiate", b"authenticate alice site"])
        self.assertEqual(self.peer(1).bodies, [b"", content])


class Ticket(ThreeLegs):
    """A ticket, at one who may not take it."""

    scheme = "Negotiate"

    def challenged(self, challenge: Any, request: Any) -> Step:
        return GiveUp("refused") if self.sent else self.first(request)

    def worked(self, result: Any) -> Step:
        self.sent += 1
        return Reply(b"Negotiate " + b64encode(b"ticket"), logon=False)


class TicketAndPassword(ThreeLegCredentials):
    """Credentials that begin with a ticket."""

    def schemes(self) -> tuple[str, ...]:
        return ("negotiate", "basic")

    def conversation(self, scheme: str, peer: Peer, context: Any) -> Any:
        if scheme == "negotiate":
            return Ticket(b"alice")
        password = PasswordCredentials("alice", "secret")
        return password.conversation(scheme, peer, context)


class TicketTests(OriginCase):
    """A site that takes tickets, or does not."""

    route = Direct()
    user = TicketAndPassword()

    def put(self) -> tuple[Deferred[Any], Source]:
        """Send content that cannot be sent twice."""
        source = Source()
        return self.ask(b"PUT", source), source

    def test_refused(self) -> None:
        """Content waits to see whether the ticket is good."""
        answer, source = self.put()
        for _ in range(2):
            self.assertEqual(self.peer().request.fields.get(b"Expect"), b"100-continue")
            self.peer().answer(401, SITE_NEGOTIATE, SITE_BASIC)
        self.assertEqual(
            [self.said(number) for number in range(3)],
            [[b"-"], [b"ticket"], [b"alice:secret"]],
        )
        self.assertEqual(source.calls, ["start"])
        source.consumer.write(b"x" * (REPLAY_LIMIT * 2))
        source.done.callback(None)
        self.peer().answer(201)
        self.finish(answer)

    def test_persistence_unknown(self) -> None:
        """Content waits until a request was seen to need no ticket of its own."""
        answer = self.ask()
        self.peer().answer(401, SITE_NEGOTIATE)
        self.peer().answer(200)
        self.finish(answer)
        for expect in (b"100-continue", None):
            answer, source = self.put()
            self.assertEqual(self.said()[-1], b"-")
            self.assertEqual(self.peer().request.fields.get(b"Expect"), expect)
            self.peer().send(b"HTTP/1.1 100 Continue\r\n\r\n")
            source.done.callback(None)
            self.peer().answer(201)
            self.finish(answer)

    def test_accepted(self) -> None:
        """Where it was good before, content does not wait."""
        answer = self.ask()
        self.peer().answer(401, SITE_NEGOTIATE)
        self.peer().answer(200, (b"Persistent-Auth", b"false"))
        self.finish(answer)
        answer, source = self.put()
        self.assertEqual(self.said(), [b"-", b"ticket", b"ticket"])
        self.assertNotIn(b"Expect", self.peer().request.fields)
        source.done.callback(None)
        self.peer().answer(201)
        self.finish(answer)


class ThroughAnonymousProxyTests(OriginCase):
    """A site behind a proxy that asks nothing."""

    user = PasswordCredentials("alice", "secret")

    def test_digest_has_the_origin_form(self) -> None:
        """A site compares the digest-uri with what it gets, not with our line."""
        answer = self.ask()
        self.peer().answer(401, SITE_DIGEST)
        head = self.peer().request
        self.assertEqual(head.target, b"http://site/p?q")
        self.assertIn(b'uri="/p?q"', head.fields.get(b"Authorization") or b"")
        self.peer().answer(200)
        self.finish(answer)

    def test_other_sites_have_other_connections(self) -> None:
        """Where a site may take us for somebody no other site's requests go."""
        answer = self.ask()
        self.peer().answer(200)
        self.finish(answer)
        self.ask(host="other")
        self.assertEqual(len(self.wire.peers), 2)


class BoundThroughProxyTests(OriginCase):
    """A site that authenticates connections, behind a proxy that asks nothing."""

    user = ThreeLegCredentials()

    def test_kept(self) -> None:
        """A proxy that keeps connections apart may carry the handshake."""
        answer = self.ask()
        self.peer().answer(401, SITE_NTLM, KEPT)
        self.peer().answer(401, SITE_CHALLENGE, KEPT)
        self.peer().answer(200)
        self.finish(answer)
        self.assertEqual(self.said(), [b"-", b"negotiate", b"authenticate alice site"])

    def test_not_kept(self) -> None:
        """Otherwise a tunnel carries it, at once the next time."""
        for _ in range(2):
            answer = self.ask()
            if len(self.wire.peers) == 1 and self.peer().requests:
                self.peer().answer(401, SITE_NTLM)
            self.assertEqual(self.peer().request.method, b"CONNECT")
            self.assertEqual(self.peer().request.target, b"site:80")
            self.wire.peers[-1].transport.lose(ConnectionError())
            self.failureResultOf(answer)

    def test_no_tunnel(self) -> None:
        """Where policy forbids that, or content is gone, the request fails."""
        for policy, body in (
            (AuthPolicy(tunnel_cleartext=False), None),
            (AuthPolicy(), BytesBody(b"x")),
        ):
            self.client = self.make_client(
                credentials=Users(None, self.user), policy=policy
            )
            answer = self.ask(body=body)
            self.peer().answer(401, SITE_NTLM)
            self.failureResultOf(answer, SessionsNotKept)


class BothTests(OriginCase):
    """A proxy and a site that both want three legs."""

    borrower = ThreeLegCredentials("proxyuser")
    user = ThreeLegCredentials("siteuser")

    def authenticate(self, answer: Deferred[Any], *, begun: bool = False) -> None:
        """Play both servers' parts."""
        if not begun:
            self.peer().answer(407, NTLM)
        self.peer().answer(407, CHALLENGE)
        if not begun:
            self.peer().answer(401, SITE_NTLM, KEPT)
        self.peer().answer(401, SITE_CHALLENGE, KEPT)
        self.peer().answer(200)
        self.finish(answer)

    def test_one_after_the_other(self) -> None:
        """The site's handshake waits for the proxy's; content is sent once more."""
        answer = self.ask(b"POST", BytesBody(b"hello"))
        self.authenticate(answer)
        self.assertEqual(len(self.wire.peers), 1)
        self.assertEqual(
            self.sent(),
            [b"-", b"negotiate", b"authenticate proxyuser challenge", b"-", b"-"],
        )
        self.assertEqual(
            self.said(),
            [b"-", b"-", b"-", b"negotiate", b"authenticate siteuser site"],
        )
        self.assertEqual(self.peer().bodies, [b"hello", b"", b"hello", b"", b"hello"])

    def test_both_known(self) -> None:
        """What is known of both is used at once; content goes out on the last leg."""
        self.test_one_after_the_other()
        self.peer().close()
        answer = self.ask(b"POST", BytesBody(b"hello"))
        # Whether the proxy keeps connections apart is known by now.
        self.authenticate(answer, begun=True)
        self.assertEqual(
            self.sent(), [b"negotiate", b"authenticate proxyuser challenge", b"-"]
        )
        self.assertEqual(
            self.said(), [b"-", b"negotiate", b"authenticate siteuser site"]
        )
        self.assertEqual(self.peer().bodies, [b"", b"", b"hello"])

    def test_proxy_asks_again_in_between(self) -> None:
        """A 407 in the site's handshake begins both anew on that connection."""
        answer = self.ask()
        self.peer().answer(407, NTLM)
        self.peer().answer(407, CHALLENGE)
        self.peer().answer(401, SITE_NTLM, KEPT)
        self.peer().answer(401, SITE_CHALLENGE, KEPT)
        # The site's last leg did not arrive there.
        self.peer().answer(407, NTLM)
        self.peer().answer(407, CHALLENGE)
        self.assertEqual(self.said()[-1], b"authenticate siteuser site")
        self.peer().answer(200)
        self.finish(answer)

    def test_connection_lost(self) -> None:
        """A connection lost in the site's handshake costs both, once."""
        answer = self.ask()
        self.peer().answer(407, NTLM)
        self.peer().answer(407, CHALLENGE)
        self.peer().answer(401, SITE_NTLM, KEPT)
        self.peer().reset()
        self.assertEqual(len(self.wire.peers), 2)
        self.authenticate(answer, begun=True)

    def test_401_closes(self) -> None:
        """A site's bare 401 that closes the connection costs the proxy's handshake."""
        answer = self.ask()
        self.peer().answer(407, NTLM)
        self.peer().answer(407, CHALLENGE)
        self.peer().answer(401, SITE_NTLM, KEPT, (b"Connection", b"close"))
        self.authenticate(answer, begun=True)
        self.assertEqual(len(self.wire.peers), 2)

    def test_proxy_stops_asking(self) -> None:
        """A site's 401 in the proxy's handshake is answered, too."""
        answer = self.ask()
        self.peer().answer(407, NTLM)
        self.peer().answer(401, SITE_NTLM, KEPT)
        self.peer().answer(401, SITE_CHALLENGE, KEPT)
        self.peer().answer(200)
        self.finish(answer)
        self.assertEqual(self.said()[2:], [b"negotiate", b"authenticate siteuser site"])


class MixedTests(OriginCase):
    """A proxy and a site that both authenticate each request."""

    borrower = PasswordCredentials("bob", "other")
    user = PasswordCredentials("alice", "secret")

    def test_both(self) -> None:
        """Each gets its own, and never the other's."""
        answer = self.ask()
        self.peer().answer(407, BASIC)
        self.peer().answer(401, SITE_BASIC)
        self.peer().answer(200)
        self.finish(answer)
        self.ask()
        self.assertEqual(self.sent(), [b"-", b"bob:other", b"bob:other", b"bob:other"])
        self.assertEqual(self.said(), [b"-", b"-", b"alice:secret", b"alice:secret"])
