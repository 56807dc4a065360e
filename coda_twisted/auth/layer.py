"""
What one connection says to one peer: which scheme, and what next.

Theory of operation.  A layer holds at most one conversation.  Whoever drives it
asks what a request shall carry, and reports what came of it::

    IDLE --start, scheme remembered--> Reply | Work --> TALKING
    IDLE --start, nothing remembered-> Proceed
    IDLE --challenged----------------> rank, begin --> TALKING
    TALKING --challenged, same scheme-> the conversation answers
    TALKING --the conversation gives up, not rejected--> scheme dead, next in rank
    TALKING --accepted---------------> AUTHENTICATED (connection-bound) or IDLE
    TALKING --accepted in mid-handshake--> IDLE: the peer has stopped asking
    AUTHENTICATED --start------------> Proceed
    AUTHENTICATED --challenged-------> rank, begin; perhaps per_request from now on
    any --GiveUp, lost---------------> IDLE

A secret that a peer has refused in one scheme is not tried in another: it would be
a second failed logon.  A scheme that failed for any other reason is dead for this
layer and its successors, and the next one is begun: on a new connection, if the
peer has begun to authenticate this one.

That a scheme works is written to the peer's memory when the peer has accepted it,
not before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, TypeGuard

from coda_twisted.auth.challenge import Challenge, parse_challenges
from coda_twisted.auth.memory import SpaceMemory
from coda_twisted.auth.offers import NOT_KEPT, Offer, Offers, offer_of
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import (
    AuthRequest,
    GiveUp,
    Peer,
    Proceed,
    Reply,
    Step,
    Work,
)
from coda_twisted.errors import (
    AuthenticationFailed,
    ChallengeError,
    CredentialsRejected,
    MutualAuthenticationFailed,
    NoAcceptableScheme,
    SessionsNotKept,
)
from coda_twisted.interfaces import IAuthConversation, ICredentials

__all__ = ["MAX_LEGS", "AuthLayer", "Context"]

MAX_LEGS = 8
"""Kerberos takes 2, NTLM 3; three stale rounds and one change of scheme fit."""

Fields = Iterable[tuple[bytes, bytes]]


@dataclass(slots=True)
class Context:
    """
    What conversations share with their layer.

    :ivar policy: What is acceptable.
    :ivar memory: What is known of the peer.
    :ivar channel_bindings: The application data that binds a logon to the TLS
        connection to the peer (RFC 5929 4); ``None`` without TLS.
    :ivar entropy: Makes so many random octets.
    :ivar via: The proxy that forwards what is said to the peer, if one does.
    """

    policy: AuthPolicy
    memory: SpaceMemory
    channel_bindings: bytes | None
    entropy: Callable[[int], bytes]
    via: Hashable = None


class State(Enum):
    """What a layer is doing."""

    IDLE = auto()
    """Nothing was said that the connection would remember."""
    TALKING = auto()
    """A conversation is under way."""
    VERIFYING = auto()
    """The peer has accepted us; what it sent to prove itself is being checked."""
    AUTHENTICATED = auto()
    """The connection is ours: requests on it need nothing."""


class AuthLayer:
    """
    One connection's authentication to one peer, in one role.

    While a :class:`Work` is under way only its outcome may be reported, or that
    nobody waits for it any more (:meth:`lost`, :meth:`start`).  Otherwise every
    method may be called at any time.

    :ivar peer: Who is on the other side.
    :ivar identity: Who we are on this connection, once the peer has authenticated
        it; ``None`` before, and for schemes that authenticate requests.
    :ivar needs_fresh_connection: Whether what the layer said last must travel on a
        new connection, for the peer remembers another handshake on this one.  Call
        :meth:`moved` when it does.
    :ivar proven: Whether the answer last reported to :meth:`accepted` came after
        the peer could judge our secret.
    :ivar refusals: Scheme and reason for each challenge, after a :class:`GiveUp`
        that says that none of them can be answered; otherwise empty.
    """

    def __init__(
        self, peer: Peer, credentials: ICredentials | None, context: Context
    ) -> None:
        self.peer = peer
        self.identity: Hashable = None
        self.needs_fresh_connection = False
        self.proven = False
        self.refusals: tuple[tuple[str, str], ...] = ()
        self._credentials = credentials
        self._context = context
        self._memory = context.memory
        self._offers = Offers(
            peer,
            context.policy,
            context.memory,
            credentials.schemes if credentials is not None else tuple,
            context.via,
        )
        self._state = State.IDLE
        self._working = False
        # Of this request: how often it was challenged.
        self._request: AuthRequest | None = None
        self._legs = 0
        # Of the conversation: what it speaks, whether the peer has asked for that,
        # what was sent last.
        self._conversation: IAuthConversation | None = None
        self._offer: Offer = ("", "", None)
        self._answering = False
        self._last: Reply | None = None
        self._persistent_auth: bytes | None = None
        # Of the connection: the connection-bound scheme last spoken on it, and
        # whether requests were seen to need no credentials any more.
        self._spoken: str | None = None
        self._persists = False

    def __repr__(self) -> str:
        return f"<AuthLayer with {self.peer}, {self._state.name}>"

    @property
    def has_worked(self) -> bool:
        """Whether the peer is known to accept the scheme that is being spoken."""
        return self._memory.scheme == self._offer[0]

    @property
    def persists(self) -> bool:
        """Whether the connection was seen to be ours: a request needed nothing."""
        return self._persists

    @property
    def passes(self) -> bool:
        """
        Whether the next request needs no word of ours.

        :meth:`start` would say ``Proceed``, and :meth:`accepted` learn nothing.
        """
        if self._conversation is not None:
            return False
        if self._state is State.AUTHENTICATED:
            return self._persists and not self._memory.per_request
        return self._beginning() is None

    # What the driver reports

    def start(self, request: AuthRequest) -> Step:
        """
        Say what a request shall carry that nobody has challenged yet.

        :returns: ``Proceed`` where nothing is known of the peer, or nothing needed.
        """
        if self._conversation is not None:
            self._end()
        self._working = False
        self._request = request
        self._legs = 0
        self.needs_fresh_connection = False
        self.refusals = ()
        if self._state is State.AUTHENTICATED and not self._memory.per_request:
            return Proceed()
        scheme = self._beginning()
        if scheme is None:
            return Proceed()
        return self._follow(self._begin((scheme, "", None), None))

    def _beginning(self) -> str | None:
        """Name the scheme that is spoken before anything is asked for."""
        # Credentials may know of one, too.
        scheme = self._memory.scheme or getattr(self._credentials, "unasked", None)
        if scheme is None or not self._offers.may_begin_with(scheme):
            return None
        return scheme

    def challenged(self, fields: Fields, request: AuthRequest) -> Step:
        """
        Answer a 401 or 407, whichever is the role's.

        :param fields: The answer's fields.
        :returns: ``Proceed`` where there is nothing to answer: the response is the
            caller's.
        :raises SessionsNotKept: All that could be spoken authenticates connections,
            and the proxy in between does not keep them apart.
        """
        self._must_not_work()
        self._request = request
        self._legs += 1
        self.needs_fresh_connection = False
        self.refusals = ()
        challenges = parse_challenges(self._challenge_values(fields))
        if self._credentials is None or not challenges:
            # A page that says "blocked by policy", most likely.
            if self._conversation is not None:
                self._end()
            return Proceed()
        if self._context.via is not None and _keeps_sessions(fields):
            self._memory.keepers.add(self._context.via)
        if self._legs >= MAX_LEGS:
            self._end()
            return GiveUp(f"still challenged after {MAX_LEGS} legs")
        if self._state is State.AUTHENTICATED:
            self._expired()
        if self._conversation is None:
            self._offers.listed = challenges
            return self._choose()
        return self._continue(self._conversation, challenges, request)

    def worked(self, result: Any) -> Step:
        """Go on with what a ``Work`` returned."""
        conversation = self._worker()
        return self._after_work(self._ask(conversation.worked, result))

    def failed(self, error: Exception) -> Step:
        """
        Go on after what a ``Work`` raised.

        :raises MutualAuthenticationFailed: The peer did not prove itself.
        """
        conversation = self._worker()
        return self._after_work(self._ask(conversation.failed, error))

    def accepted(self, fields: Fields) -> Step:
        """
        Take note of an answer with any other final status.

        An answer in the middle of a handshake means that the peer has stopped
        asking, as proxies do for sites that need no logon: the conversation is
        dropped, and nothing is taken for proven or learnt.

        :param fields: The answer's fields.
        :returns: ``Proceed``, or a ``Work`` that checks the peer's final token.
        :raises MutualAuthenticationFailed: The peer did not prove itself.
        """
        self._must_not_work()
        conversation, last = self._conversation, self._last
        self.proven = last is not None and not last.bound
        if conversation is None:
            self._persists = self._state is State.AUTHENTICATED
            return Proceed()
        if not self.proven:
            self._end()
            return Proceed()
        fields = list(fields)
        challenges = parse_challenges(self._challenge_values(fields))
        self._state = State.VERIFYING
        self._persistent_auth = _value(fields, b"Persistent-Auth")
        return self._after_work(
            self._ask(
                conversation.accepted,
                self._offers.following(self._offer, challenges),
                _value(fields, self.peer.role.info_field),
            )
        )

    def lost(self) -> None:
        """Forget the connection; what is dead remains so."""
        self._end()
        self._working = False
        self._spoken = None
        self._persists = False
        self.needs_fresh_connection = False

    def moved(self, channel_bindings: bytes | None) -> None:
        """
        Take note that what was said last travels on a new connection.

        :param channel_bindings: Those of the new connection.
        """
        self._context.channel_bindings = channel_bindings
        self.needs_fresh_connection = False
        self.identity = None
        self._persists = False
        if self._state is State.AUTHENTICATED:
            self._state = State.IDLE
        if self._last is None:
            self._spoken = None

    def successor(self) -> AuthLayer:
        """Make a layer for the next connection; what is dead here is dead there."""
        layer = AuthLayer(self.peer, self._credentials, self._context)
        layer._offers.inherit(self._offers)
        return layer

    # Which scheme

    def _choose(self) -> Step:
        """Begin with the best offer; if that fails at once, with the next."""
        for offer, challenge in self._offers.candidates():
            step = self._begin(offer, challenge)
            if not _is_failure(step):
                return self._pass_on(step)
            self._bury(step)
        self.refusals = self._offers.told_refusals()
        if any(reason == NOT_KEPT for _, reason in self.refusals):
            self._memory.needs_tunnel = self._context.policy.tunnel_cleartext
            raise SessionsNotKept(NOT_KEPT, peer=str(self.peer))
        return GiveUp(NoAcceptableScheme(self.refusals).reason)

    def _begin(self, offer: Offer, challenge: Challenge | None) -> Step:
        """Begin a conversation, unasked if there is no challenge."""
        assert self._credentials is not None and self._request is not None
        scheme = offer[0]
        self._offer = offer
        try:
            conversation = self._credentials.conversation(
                scheme, self.peer, self._context
            )
        except AuthenticationFailed as error:
            return GiveUp(error.reason)
        if self._spoken not in (None, scheme):
            self.needs_fresh_connection = True
            self._spoken = None
        self._state = State.TALKING
        self._conversation = conversation
        if challenge is None:
            return self._ask(conversation.first, self._request)
        self._answering = True
        return self._ask(conversation.challenged, challenge, self._request)

    # The conversation under way

    def _continue(
        self,
        conversation: IAuthConversation,
        challenges: list[Challenge],
        request: AuthRequest,
    ) -> Step:
        challenge = self._offers.following(self._offer, challenges)
        if challenge is None:
            return self._withdrawn(challenges)
        if challenge.token68 is None or not self._offers.listed:
            # With a token a peer names that scheme only: Squid, for one.
            self._offers.listed = challenges
        self._answering = True
        self._offer = offer_of(challenge)
        return self._follow(self._ask(conversation.challenged, challenge, request))

    def _withdrawn(self, challenges: list[Challenge]) -> Step:
        """Go on after a challenge that does not name what is being spoken."""
        last = self._last
        if self._answering and last is not None and last.logon and not last.bound:
            return self._pass_on(GiveUp("the secret was refused", rejected=True))
        self._end()
        self._offers.listed = challenges
        return self._choose()

    def _ask(self, say: Callable[..., Step], *args: Any) -> Step:
        """Ask the conversation; what it raises about the peer is a step, too."""
        try:
            return say(*args)
        except MutualAuthenticationFailed:
            self._end()
            raise
        except AuthenticationFailed as error:
            rejected = isinstance(error, CredentialsRejected)
            return GiveUp(error.reason, rejected, error.scheme, error.realm)
        except ChallengeError as error:
            return GiveUp(str(error))

    def _follow(self, step: Step) -> Step:
        """Do as the conversation says; begin another if it cannot go on."""
        if not _is_failure(step):
            return self._pass_on(step)
        self._bury(step)
        # Before any challenge it is for the peer to say what else would do.
        return self._choose() if self._legs else Proceed()

    def _pass_on(self, step: Step) -> Step:
        assert self._conversation is not None
        if isinstance(step, Reply):
            self._last = step
            if self._conversation.connection_bound:
                self._spoken = self._offer[0]
        elif isinstance(step, Work):
            self._working = True
        elif isinstance(step, GiveUp):
            step = replace(step, scheme=step.scheme or self._conversation.scheme)
            self._memory.forget()
            self._end()
        else:
            self._end()
        return step

    def _after_work(self, step: Step) -> Step:
        if self._state is not State.VERIFYING:
            return self._follow(step)
        if isinstance(step, Work):
            self._working = True
        elif isinstance(step, GiveUp):
            self._end()
        else:
            self._learn()
        return step

    def _learn(self) -> None:
        """Take note of what works: the peer has accepted it."""
        assert self._conversation is not None and self._credentials is not None
        self._memory.scheme = self._offer[0]
        self._state = State.IDLE
        if self._conversation.connection_bound:
            told = (self._persistent_auth or b"").lower()
            if told in (b"true", b"false"):
                self._memory.per_request = told == b"false"
            self.identity = self._credentials.identity
            if not self._memory.per_request:
                self._state = State.AUTHENTICATED
        self._conversation = None
        self._answering = False
        self._last = None

    def _expired(self) -> None:
        """
        Take note that an authenticated connection was challenged.

        One that has carried a request without credentials was bound, and no longer
        is.  One that has not may never have been: the peer wants them each time.
        """
        if not self._persists:
            self._memory.per_request = True
        self._persists = False
        self._end()

    def _bury(self, step: GiveUp) -> None:
        """Give up a scheme for this layer."""
        self._offers.bury(self._offer, step.reason)
        if self._memory.scheme == self._offer[0]:
            self._memory.scheme = None
        self._end()

    def _end(self) -> None:
        """Give up the conversation, if any."""
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            conversation.lost()
        self.identity = None
        self._state = State.IDLE
        self._answering = False
        self._last = None

    # Plumbing

    def _challenge_values(self, fields: Fields) -> list[bytes]:
        name = self.peer.role.challenge_field.lower()
        return [value for each, value in fields if each.lower() == name]

    def _must_not_work(self) -> None:
        if self._working:
            raise RuntimeError("a Work is under way: report its outcome first")

    def _worker(self) -> IAuthConversation:
        if not self._working:
            raise RuntimeError("no Work is under way")
        assert self._conversation is not None
        self._working = False
        return self._conversation


def _is_failure(step: Step) -> TypeGuard[GiveUp]:
    """Whether a step ends a conversation without a verdict on the secret."""
    return isinstance(step, GiveUp) and not step.rejected


def _keeps_sessions(fields: Fields) -> bool:
    """Read ``Proxy-Support`` (RFC 4559 6)."""
    value = _value(fields, b"Proxy-Support") or b""
    return b"session-based-authentication" in value.lower()


def _value(fields: Fields, name: bytes) -> bytes | None:
    """Get a field's value, its lines joined (RFC 9110 5.3)."""
    lines = [value for each, value in fields if each.lower() == name.lower()]
    return b", ".join(lines) if lines else None
