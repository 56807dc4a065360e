"""Tests of the Bearer scheme."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from coda_twisted.auth.bearer import BearerConversation, bearer_value
from coda_twisted.auth.challenge import Challenge
from coda_twisted.auth.layer import AuthLayer, Context
from coda_twisted.auth.memory import SpaceMemory
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import (
    AuthRequest,
    GiveUp,
    Peer,
    Proceed,
    Reply,
    Role,
    Work,
)
from coda_twisted.errors import AuthenticationFailed, LocalProtocolError
from coda_twisted.interfaces import IAuthConversation

PROXY = Peer(Role.PROXY, "http", "proxy.example", 3128)
ORIGIN = Peer(Role.ORIGIN, "https", "api.example", 443)
CLEAR = Peer(Role.ORIGIN, "http", "api.example", 80)
REQUEST = AuthRequest(b"GET", b"http://example.org/", b"/")
CHALLENGE = Challenge("Bearer", params={"realm": "example"})
INVALID = Challenge("Bearer", params={"realm": "example", "error": "invalid_token"})
TOKEN = "mF_9.B5f-4.1JqM"  # of RFC 6750 2.1
REPLY = Reply(b"Bearer mF_9.B5f-4.1JqM")


def context(memory: SpaceMemory | None = None) -> Context:
    return Context(AuthPolicy(), memory or SpaceMemory(), None, bytes)


def conversation(
    peer: Peer = PROXY, token: str = TOKEN, **settings: Any
) -> BearerConversation:
    return BearerConversation(token, peer, context(), **settings)


class ValueTests(SynchronousTestCase):
    """The field's value."""

    def test_rfc_example(self) -> None:
        """RFC 6750 2.1."""
        self.assertEqual(bearer_value(TOKEN), b"Bearer mF_9.B5f-4.1JqM")
        self.assertEqual(bearer_value("7|abc"), b"Bearer 7|abc")

    def test_unsendable(self) -> None:
        """What would end or split the field is refused, and not shown."""
        for token in ("", "SECRET\r\nX: y", "SECRET x", "SECRET\N{POUND SIGN}", "\n"):
            error = self.assertRaises(ValueError, bearer_value, token)
            self.assertNotIn("SECRET", str(error))
            failed = self.assertRaises(AuthenticationFailed, conversation, token=token)
            self.assertNotIn("SECRET", str(failed))
            self.assertEqual(failed.scheme, "Bearer")


class ConversationTests(SynchronousTestCase):
    """Sending a token on one connection."""

    def test_interface(self) -> None:
        """Bearer is a conversation like others; it authenticates requests."""
        bearer = conversation()
        self.assertTrue(verifyObject(IAuthConversation, bearer))
        self.assertEqual(bearer.scheme, "Bearer")
        self.assertFalse(bearer.connection_bound)
        self.assertNotIn(TOKEN, repr(bearer) + repr(bearer.first(REQUEST)))

    def test_unasked(self) -> None:
        """The token goes out unasked, with every request."""
        bearer = conversation()
        for _ in range(2):
            self.assertEqual(bearer.first(REQUEST), REPLY)
            self.assertEqual(bearer.accepted(None, None), Proceed())

    def test_asked(self) -> None:
        """A challenge to a request without a token is answered."""
        self.assertEqual(conversation().challenged(CHALLENGE, REQUEST), REPLY)

    def test_refused(self) -> None:
        """A refused token is not sent again."""
        for challenge in (CHALLENGE, INVALID):
            bearer = conversation()
            bearer.first(REQUEST)
            self.assertEqual(
                bearer.challenged(challenge, REQUEST),
                GiveUp("the token was not accepted", True, "Bearer", "example"),
            )
            self.assertRaises(LocalProtocolError, bearer.first, REQUEST)
            self.assertRaises(LocalProtocolError, bearer.challenged, challenge, REQUEST)
            self.assertRaises(LocalProtocolError, bearer.accepted, None, None)
            bearer.lost()
            self.assertRaises(LocalProtocolError, bearer.first, REQUEST)

    def test_other_errors(self) -> None:
        """RFC 6750 3.1: a good token may lack scope; another one would as well."""
        for error, reason in (
            ("insufficient_scope", "the token was not accepted: insufficient_scope"),
            ("<b>", "the token was not accepted"),
        ):
            bearer = conversation(renew=lambda: "other")
            bearer.first(REQUEST)
            challenge = Challenge("Bearer", params={"error": error})
            step = bearer.challenged(challenge, REQUEST)
            self.assertEqual(step, GiveUp(reason, scheme="Bearer"))

    def test_renewed(self) -> None:
        """A token that the peer calls invalid is replaced in another thread, once."""
        bearer = conversation(renew=lambda: "other")
        bearer.first(REQUEST)
        work = bearer.challenged(INVALID, REQUEST)
        assert isinstance(work, Work)
        self.assertFalse(work.logon)
        self.assertEqual(bearer.worked(work.run()), Reply(b"Bearer other"))
        step = bearer.challenged(INVALID, REQUEST)
        assert isinstance(step, GiveUp)
        self.assertTrue(step.rejected)

    def test_not_renewed(self) -> None:
        """If no other token can be had, the refusal stands, and says why."""
        for error, reason in (
            (AuthenticationFailed("no grant"), "no grant"),
            (ValueError("SECRET"), "ValueError"),
        ):
            bearer = conversation(renew=lambda: "other")
            bearer.first(REQUEST)
            bearer.challenged(INVALID, REQUEST)
            step = bearer.failed(error)
            expected = f"the token was not accepted, nor renewed: {reason}"
            self.assertEqual(step, GiveUp(expected, True, "Bearer"))

    def test_renewed_by_nonsense(self) -> None:
        """A new token that cannot be sent is none."""
        bearer = conversation(renew=lambda: "a b")
        bearer.first(REQUEST)
        bearer.challenged(INVALID, REQUEST)
        self.assertIsInstance(bearer.worked("SECRET x"), GiveUp)

    def test_no_work(self) -> None:
        """Results of work that was not asked for are refused."""
        bearer = conversation()
        self.assertRaises(LocalProtocolError, bearer.worked, "x")
        self.assertRaises(LocalProtocolError, bearer.failed, ValueError())

    def test_lost(self) -> None:
        """After a lost connection the token is sent anew."""
        bearer = conversation()
        bearer.first(REQUEST)
        bearer.lost()
        self.assertEqual(bearer.challenged(CHALLENGE, REQUEST), REPLY)

    def test_cleartext(self) -> None:
        """RFC 6750 5.3: no token without TLS, unless told so; proxies are asked."""
        error = self.assertRaises(AuthenticationFailed, conversation, CLEAR)
        self.assertEqual(error.peer, "origin http://api.example:80")
        self.assertNotIn(TOKEN, str(error))
        told = conversation(CLEAR, allow_cleartext=True)
        for bearer in (told, conversation(ORIGIN), conversation(PROXY)):
            self.assertEqual(bearer.first(REQUEST), REPLY)


class LayerTests(SynchronousTestCase):
    """Answering a proxy's challenges, as any other scheme."""

    identity = "me"
    fingerprint = 1

    def schemes(self) -> list[str]:
        return ["bearer"]

    def conversation(self, scheme: str, peer: Peer, context: Context) -> Any:
        return BearerConversation(TOKEN, peer, context)

    def test_learnt(self) -> None:
        """What a challenge has taught is sent unasked from then on."""
        layer = AuthLayer(PROXY, self, context())  # type: ignore[arg-type]
        self.assertEqual(layer.start(REQUEST), Proceed())
        fields = [(b"Proxy-Authenticate", b'Bearer realm="example"')]
        self.assertEqual(layer.challenged(fields, REQUEST), REPLY)
        layer.accepted([])
        self.assertEqual(layer.start(REQUEST), REPLY)

    def test_rejected(self) -> None:
        """The secret is barred, and another scheme is not tried with it."""
        memory = SpaceMemory()
        memory.scheme = "bearer"
        layer = AuthLayer(PROXY, self, context(memory))  # type: ignore[arg-type]
        self.assertEqual(layer.start(REQUEST), REPLY)
        fields = [(b"Proxy-Authenticate", b'Bearer error="invalid_token"')]
        step = layer.challenged(fields, REQUEST)
        assert isinstance(step, GiveUp)
        self.assertTrue(step.rejected)
