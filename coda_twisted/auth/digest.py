"""
The Digest scheme: the password as a key, never on the wire (RFC 7616).

Theory of operation.  What a challenge asks for is read by
:func:`~coda_twisted.auth.digest_terms.read_terms`, which says what is wrong with it.
The conversation answers, and what it learns goes to the peer's memory, where the
other connections find it: the nonces, each with its count, which are used unasked
from then on.

Peers refuse answers for reasons of their own, too, but each refusal may cost a failed
logon.  What one means is decided so:

* ``stale=true``: the nonce was too old.  It is answered again, three times for one
  request: Squid says it of every nonce unknown to it, whatever the password.
* The secret has never worked here: it is wrong.  One answer was sent, and no more is.
* It has: one more answer is sent, once for one request, if the nonce was a remembered
  one (servers that forget nonces do not all say ``stale``) or if the form of the
  digest-uri can be to blame.
* Otherwise the secret is wrong.

The form of the digest-uri is in doubt for a request to a proxy in absolute-form.  It
should be the request-target (RFC 7616 3.4), but curl and the browsers have always
sent path and query, so that a proxy that compares must take that; we send it first.
The absolute form is tried in the one more answer, unless a request with path and
query was accepted before; what works is remembered.  A proxy that wants the absolute
form in the first request of all cannot be told from one that refuses the password.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from hmac import compare_digest
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from coda_twisted.auth.basic import refuse_unsendable
from coda_twisted.auth.challenge import Challenge, parse_info
from coda_twisted.auth.digest_terms import (
    Answer,
    Terms,
    covers,
    is_stale,
    read_terms,
)
from coda_twisted.auth.memory import Nonce, Quirk
from coda_twisted.auth.steps import (
    AuthRequest,
    GiveUp,
    Peer,
    Proceed,
    Reply,
    Role,
    Step,
)
from coda_twisted.errors import (
    ChallengeError,
    LocalProtocolError,
    MutualAuthenticationFailed,
)
from coda_twisted.interfaces import IAuthConversation

if TYPE_CHECKING:
    from coda_twisted.auth.layer import Context

__all__ = ["DigestConversation"]

MAX_STALE_ROUNDS = 3
"""How often the nonce may be called stale, for one request."""

_CNONCE_OCTETS = 18
"""More than anybody guesses, and no padding in base 64."""

_FORMS = frozenset({Quirk.ORIGIN_FORM_URI, Quirk.ABSOLUTE_FORM_URI})


class State(Enum):
    """Where a conversation stands."""

    IDLE = auto()
    ANSWERED_UNASKED = auto()
    ANSWERED = auto()
    OVER = auto()


@dataclass(frozen=True, slots=True, repr=False)
class _Sent:
    """The answer that is under way, and what may be learnt from what comes of it."""

    answer: Answer
    challenge: Challenge
    nonce: Nonce
    form: Quirk | None


@implementer(IAuthConversation)
class DigestConversation:
    """
    Speaks Digest, which every request does by itself.

    Of the qop options ``auth`` is taken where it is offered: whoever can tamper with
    requests can tamper with the options, so that to prefer ``auth-int`` would protect
    nobody, and few servers do it right.  Where it is offered alone it is spoken, for
    content that is at hand.

    :param realm: The realm to insist on; ``None`` takes the peer's.
    :raises AuthenticationFailed: Name or password cannot be said in Digest.
    """

    scheme = "Digest"
    connection_bound = False

    def __init__(
        self,
        username: str,
        password: str,
        realm: str | None,
        peer: Peer,
        context: Context,
    ) -> None:
        refuse_unsendable(self.scheme, peer, username=username, password=password)
        self._username = username
        self._password = password
        self._realm = realm
        self._peer = peer
        self._policy = context.policy
        self._memory = context.memory
        self._entropy = context.entropy
        self._state = State.IDLE
        self._sent: _Sent | None = None
        self._begin_request()

    def __repr__(self) -> str:
        return f"<DigestConversation with {self._peer}, {self._state.name}>"

    def first(self, request: AuthRequest) -> Step:
        """
        Answer unasked, with a nonce that the peer has accepted before.

        :returns: ``Proceed`` when there is none that can be used.
        :raises LocalProtocolError: The conversation is over.
        """
        self._must_go_on()
        self._begin_request()
        self._sent, self._state = None, State.IDLE
        for nonce in self._memory.proven_nonces():
            if not self._covers(nonce, request):
                continue
            try:
                reply = self._reply(nonce.challenge, nonce, request)
            except ChallengeError:
                continue  # the peer will ask, and then it is said what is wrong
            self._state = State.ANSWERED_UNASKED
            return reply
        return Proceed()

    def challenged(self, challenge: Challenge, request: AuthRequest) -> Step:
        """
        Answer a challenge, or see in it the refusal of the answer before.

        :raises LocalProtocolError: The conversation is over.
        """
        self._must_go_on()
        match self._state:
            case State.IDLE:
                self._begin_request()
            case _ if is_stale(challenge):
                if self._rounds == MAX_STALE_ROUNDS:
                    return self._give_up("every nonce was called stale", challenge)
                self._rounds += 1
            case _ if self._may_doubt(request):
                self._doubted = True
                self._absolute = self._form_in_doubt(request)
            case _:
                self._memory.secret_refused()
                reason = "the user name or the password was not accepted"
                return self._give_up(reason, challenge, rejected=True)
        try:
            reply = self._reply(challenge, None, request)
        except ChallengeError as error:
            return self._give_up(str(error), challenge)
        self._state = State.ANSWERED
        return reply

    def worked(self, result: Any) -> Step:
        """Refuse: Digest asks for no work."""
        raise LocalProtocolError("Digest has asked for no work")

    def failed(self, error: Exception) -> Step:
        """Refuse: Digest asks for no work."""
        raise LocalProtocolError("Digest has asked for no work")

    def accepted(self, challenge: Challenge | None, info: bytes | None) -> Step:
        """
        Let the peer prove itself, and remember what it accepted (RFC 7616 3.5).

        :raises LocalProtocolError: The conversation is over.
        :raises MutualAuthenticationFailed: The peer does not know the password, or
            is silent where policy requires it to prove that it does.
        """
        self._must_go_on()
        if self._sent is not None:
            params = parse_info(info or b"")
            self._verify(self._sent, params)
            self._remember(self._sent, params.get("nextnonce"))
        self._sent, self._state = None, State.IDLE
        return Proceed()

    def lost(self) -> None:
        """Forget the answer that is under way, if any."""
        self._sent = None
        if self._state is not State.OVER:
            self._state = State.IDLE

    # What a refusal means

    def _begin_request(self) -> None:
        self._rounds = 0
        self._doubted = False
        self._absolute = False

    def _must_go_on(self) -> None:
        if self._state is State.OVER:
            raise LocalProtocolError("the Digest conversation is over")

    def _may_doubt(self, request: AuthRequest) -> bool:
        """Say whether something other than the secret may be to blame."""
        if self._doubted or not self._memory.proven:
            return False
        return self._state is State.ANSWERED_UNASKED or self._form_in_doubt(request)

    def _form_in_doubt(self, request: AuthRequest) -> bool:
        return self._is_absolute_form(request) and _FORMS.isdisjoint(
            self._memory.quirks
        )

    def _is_absolute_form(self, request: AuthRequest) -> bool:
        return self._peer.role is Role.PROXY and request.target != request.path

    def _give_up(
        self, reason: str, challenge: Challenge, *, rejected: bool = False
    ) -> GiveUp:
        self._sent, self._state = None, State.OVER
        return GiveUp(reason, rejected, self.scheme, challenge.realm)

    # Answers

    def _reply(
        self, challenge: Challenge, nonce: Nonce | None, request: AuthRequest
    ) -> Reply:
        """
        Answer *challenge*, with *nonce* in place of its own where there is one.

        :raises ChallengeError: It cannot be answered; nothing has changed.
        """
        terms = self._read(challenge)
        qop = self._choose_qop(terms, request.content)
        cnonce = b64encode(self._entropy(_CNONCE_OCTETS))
        nonce = nonce or self._register(challenge, terms)
        form = self._form(request)
        answer = Answer(
            terms=terms,
            nonce=nonce.value.encode("latin-1"),
            uri=request.target if form is Quirk.ABSOLUTE_FORM_URI else request.path,
            count=b"%08x" % nonce.use(),
            cnonce=nonce.session_cnonce(cnonce) if terms.algorithm.session else cnonce,
            qop=qop,
        )
        a2 = [request.method, answer.uri]
        if qop == b"auth-int":
            a2.append(terms.algorithm.sum(request.content or b""))
        response = answer.proof(self._username, self._password, *a2)
        self._sent = _Sent(answer, challenge, nonce, form)
        return Reply(answer.credentials(self._username, response))

    def _read(self, challenge: Challenge) -> Terms:
        terms = read_terms(challenge)
        if self._realm and not terms.is_for(self._realm):
            raise ChallengeError(
                f"the realm is {challenge.realm!r}, not {self._realm!r} as configured"
            )
        weakest = self._policy.min_digest
        if not terms.algorithm.is_at_least(weakest):
            raise ChallengeError(
                f"{terms.algorithm.name} is weaker than {weakest} (policy: min_digest)"
            )
        return terms

    def _choose_qop(self, terms: Terms, content: bytes | None) -> bytes:
        if not terms.qops:
            return b""
        if b"auth" in terms.qops:
            return b"auth"
        limit = self._policy.max_auth_int
        if content is None or len(content) > limit:
            raise ChallengeError(
                "the request's content would have to be signed (qop=auth-int), and it "
                f"is streamed, or longer than {limit} octets (policy: max_auth_int)"
            )
        return b"auth-int"

    def _register(self, challenge: Challenge, terms: Terms) -> Nonce:
        """Get the challenge's nonce, in place of the one that was refused."""
        nonce = self._memory.nonce(challenge, terms.nonce)
        refused = self._sent.nonce if self._sent else nonce
        if refused is not nonce and refused.challenge.realm == challenge.realm:
            self._memory.drop(refused)
        return nonce

    def _covers(self, nonce: Nonce, request: AuthRequest) -> bool:
        # RFC 7616 3.3: domain "is not meaningful in Proxy-Authenticate".
        if self._peer.role is Role.PROXY:
            return True
        return covers(nonce.challenge, self._peer, request.path)

    def _form(self, request: AuthRequest) -> Quirk | None:
        """Say which form the digest-uri takes, where there are two."""
        if not self._is_absolute_form(request):
            return None
        if self._absolute or Quirk.ABSOLUTE_FORM_URI in self._memory.quirks:
            return Quirk.ABSOLUTE_FORM_URI
        return Quirk.ORIGIN_FORM_URI

    # What follows from being accepted

    def _verify(self, sent: _Sent, info: Mapping[str, str]) -> None:
        """Check *rspauth*, which only who knows the password can compute."""
        proof = info.get("rspauth")
        if self._policy.mutual == "off":
            return
        if b"auth-int" in (
            sent.answer.qop,
            info.get("qop", "").lower().encode("latin-1"),
        ):
            proof = None  # made with the response's content, which has not come yet
        if proof is None:
            if self._policy.mutual == "require":
                raise self._unproven("did not prove that it knows the password", sent)
            return
        expected = sent.answer.proof(
            self._username, self._password, b"", sent.answer.uri
        )
        if not compare_digest(expected, proof.lower().encode("latin-1")):
            raise self._unproven("gave a wrong proof of knowing the password", sent)

    def _unproven(self, reason: str, sent: _Sent) -> MutualAuthenticationFailed:
        return MutualAuthenticationFailed(
            f"the {self._peer.role.name.lower()} {reason} (policy: mutual)",
            peer=str(self._peer),
            scheme=self.scheme,
            realm=sent.challenge.realm,
        )

    def _remember(self, sent: _Sent, following: str | None) -> None:
        sent.nonce.proven = self._memory.proven = True
        self._memory.realm = sent.challenge.realm
        if sent.form is not None:
            self._memory.quirks.add(sent.form)
        # With -sess, RFC 7616 does not say whether A1 keeps the nonce it began with,
        # and servers differ.  To be told that the nonce is stale is no worse.
        if following and not sent.answer.terms.algorithm.session:
            self._memory.nonce(sent.challenge, following).proven = True
            self._memory.drop(sent.nonce)
