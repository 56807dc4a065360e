"""
One request, leg by leg, until it is answered and no longer challenged.

Theory of operation.  A leg is one request and its response on one connection.
The layers say what a leg carries; this module sees to the connection:

* after a challenge, the content is drained and the same connection carries the
  next leg, unless it may close, is poisoned, or was cut off in mid-upload;
* a proxy and an origin server may both challenge.  What the origin server is to
  get is held back until the proxy's handshake is on its last leg, for only then
  does a leg arrive there; a 407 means that it did not arrive;
* a handshake that is bound to its connection and loses it is begun anew, once;
* an idle connection that fails before any answer is the race of RFC 9112 9.3.1:
  the request is sent once more, on a new connection, if it may be repeated;
* a probe (a leg without the request's content) that is not challenged is
  followed by the request itself.

Here and in the modules below, ``except Exception`` cleans up after a failure or
a cancellation, and leaves GeneratorExit alone: it comes when a coroutine is
collected, and then what it waits for and its connection are garbage with it.  To
close that connection would call back into the coroutine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from coda_twisted.auth.layer import MAX_LEGS
from coda_twisted.auth.steps import AuthRequest, Proceed, Reply, Role, Step
from coda_twisted.client.connection import HTTPConnection, State
from coda_twisted.client.request import Outgoing
from coda_twisted.client.response import DRAIN_LIMIT, Response, collect, drain
from coda_twisted.client.upload import ReplayableBody
from coda_twisted.errors import AuthenticationFailed, ConnectionEnded

if TYPE_CHECKING:
    from coda_twisted.auth.layer import AuthLayer
    from coda_twisted.client.logon import Logon

__all__ = ["Lease", "Legs", "Party", "send_plain"]

STALL_LIMIT = 64 * 1024
"""
Octets of content after which a challenged connection is not used again.

Squid 5.7 announces keep-alive after a 407 to a longer request, takes the rest
and never answers on that connection.
"""

_CUT_TWICE = (
    "the connection ended twice in the middle of the handshake; "
    "a device in between may not keep connections open"
)

_OVERLONG = (
    f"a challenge in the middle of the handshake has more than {DRAIN_LIMIT // 1024} "
    "KiB of content, which is not read away to keep the connection"
)

Lease = Callable[[bool], Awaitable[HTTPConnection]]


async def send_plain(
    lease: Lease, outgoing: Outgoing, expect: float, *, fresh: bool = False
) -> Response:
    """
    Send a request on which nobody is authenticated.

    :param lease: Gets a connection, a fresh one if its argument is true.
    :param expect: Seconds to hold content that the caller holds back itself.
    :param fresh: Take no idle connection.
    """
    while True:
        connection = await lease(fresh)
        reused = connection.served > 0
        asks = outgoing.expect_continue and outgoing.body is not None
        head = outgoing.head((), expect=asks)
        connection.claimed = False
        try:
            return await connection.send(
                head,
                outgoing.body,
                hold=expect if asks else None,
                on_interim=outgoing.on_interim,
            )
        except ConnectionEnded:
            if fresh or not reused or not outgoing.may_repeat:
                raise
            fresh = True


class Party:
    """
    A peer that may challenge the request, and what it gets next.

    :param request: The request as this peer sees it.
    :param new_layer: Makes the layer of a connection that has none.
    :param bindings: Gets what binds a logon to a connection, if anything does.
    :ivar layer: Speaks to the peer on the present connection.
    :ivar ready: What it says; ``None`` as long as that is not settled.
    :ivar bound: Whether a handshake is under way that only the present connection
        can carry on.
    """

    __slots__ = (
        "_bindings",
        "_new_layer",
        "_step",
        "bound",
        "layer",
        "logon",
        "ready",
        "request",
        "role",
    )

    layer: AuthLayer

    def __init__(
        self,
        role: Role,
        request: AuthRequest,
        logon: Logon,
        new_layer: Callable[[], AuthLayer],
        bindings: Callable[[HTTPConnection], bytes | None],
    ) -> None:
        self.role = role
        self.request = request
        self.logon = logon
        self.ready: Proceed | Reply | None = None
        self.bound = False
        self._new_layer = new_layer
        self._bindings = bindings
        self._step: Step = Proceed()

    @property
    def silent(self) -> bool:
        """Whether nothing waits to be said to the peer."""
        return isinstance(self.ready or self._step, Proceed)

    def begin(self, connection: HTTPConnection) -> None:
        """Begin on a connection, with the layer it has or with a new one."""
        layer: AuthLayer | None = connection.layers.get(self.role)
        if layer is None:
            self.layer = self._new_layer()
            self._settle_on(connection)
        else:
            self.layer = layer
        self.begin_again()

    def begin_again(self) -> None:
        """Ask what the next request carries, unchallenged."""
        self.bound = False
        self.follow(self.layer.start(self.request))

    def follow(self, step: Step) -> None:
        """Take what the layer said."""
        self._step = step
        self.ready = None

    def succeed(self, connection: HTTPConnection) -> None:
        """Begin on a new connection, remembering what failed on the old one."""
        self.layer.lost()
        self.layer = self.layer.successor()
        self._settle_on(connection)
        self.begin_again()

    def move(self, connection: HTTPConnection) -> None:
        """Go on, on a new connection, with what was to be said on the old one."""
        self.bound = False
        self._settle_on(connection)

    def _settle_on(self, connection: HTTPConnection) -> None:
        connection.layers[self.role] = self.layer
        # Behind one name there may be several servers with a certificate each.
        self.layer.moved(self._bindings(connection))

    async def settle(self) -> Proceed | Reply:
        """
        Find out what can be sent.

        :raises AuthenticationFailed: Nothing can.
        """
        if self.ready is None:
            self.ready = await self.logon.settle(self.layer, self._step)
        return self.ready

    def arrived(self) -> None:
        """Take note that what was ready has reached the peer."""
        self.bound = isinstance(self.ready, Reply) and self.ready.bound

    async def accepted(self, response: Response) -> None:
        """Take note that the peer let a leg pass."""
        verification = self.layer.accepted(response.head.fields)
        self.logon.judged(response.head.status)
        await self.logon.verify(self.layer, verification)


class Legs:
    """
    Drive one request through the authentication of one peer, or of two.

    :param parties: The proxy and the origin server, in this order, or one of them.
    :param lease: As for :func:`send_plain`.
    :param expect: Seconds to hold content for a 100 (Continue).
    """

    def __init__(
        self,
        outgoing: Outgoing,
        parties: Sequence[Party],
        lease: Lease,
        clock: IReactorTime,
        expect: float,
    ) -> None:
        self._outgoing = outgoing
        self._parties = parties
        self._lease = lease
        self._clock = clock
        self._expect = expect
        self._connection: HTTPConnection | None = None
        self._restarted = False
        self._overlong = False

    async def run(
        self,
        *,
        fresh: bool = False,
        begun: tuple[HTTPConnection, Response] | None = None,
    ) -> Response:
        """
        Send the request, answer what challenges it.

        :param fresh: Begin on a new connection.
        :param begun: A first leg that was sent without us, because there seemed to
            be nothing to say, and its answer.
        :returns: The response that is the caller's; it may be a 401 or 407 that
            holds no challenge.
        :raises AuthenticationFailed: The challenges cannot be answered.
        :raises BodyNotReplayable: The content is needed again and is gone.
        :raises ConnectionEnded: The peer does not answer.
        """
        try:
            response = await self._run(fresh, begun)
        except Exception:
            self._drop()
            if isinstance(self._outgoing.body, ReplayableBody):
                self._outgoing.body.discard()
            raise
        if isinstance(self._outgoing.body, ReplayableBody):
            self._outgoing.body.last_leg()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()
        return response

    async def _run(
        self, fresh: bool, begun: tuple[HTTPConnection, Response] | None
    ) -> Response:
        response = None
        if begun is None:
            self._take_up(await self._lease(fresh))
        else:
            connection, response = begun
            self._take_up(connection)
        for _ in range(MAX_LEGS * len(self._parties)):
            speaking = await self._settle()
            if response is None:
                response = await self._leg(speaking)
            if response is None:
                continue
            if await self._judge(speaking, response):
                return response
            response = None
        raise AuthenticationFailed(
            f"still challenged after {MAX_LEGS * len(self._parties)} legs",
            peer=str(self._parties[-1].layer.peer),
        )

    async def _leg(self, speaking: list[Party]) -> Response | None:
        """Send what is settled; ``None`` where that has to be begun anew."""
        if self._gone():
            if any(party.bound for party in self._parties):
                await self._again(None)
                return None
            await self._move()
        return await self._send(speaking)

    async def _judge(self, speaking: list[Party], response: Response) -> bool:
        """See what came of a leg; whether it is what the caller gets."""
        challenged = self._challenged_by(response)
        if challenged is not None and challenged.role is Role.PROXY:
            arrived = [challenged]
        else:
            arrived = speaking
        for party in arrived:
            party.arrived()
            if party is not challenged:
                await party.accepted(response)
        if challenged is None:
            if self._is_final(speaking, response):
                return True
            await self._repeat(response)
        elif challenged not in speaking and not challenged.silent:
            # The proxy has stopped asking in the middle of its handshake, and
            # the origin server has not yet had what it is to get.
            await self._repeat(response, keep=challenged)
        else:
            return not await self._answer(challenged, arrived, response)
        return False

    async def _settle(self) -> list[Party]:
        """Find out what this leg carries, and for whom."""
        speaking = []
        for party in self._parties:
            ready = await party.settle()
            speaking.append(party)
            if isinstance(ready, Reply) and ready.bound:
                break
        return speaking

    def _challenged_by(self, response: Response) -> Party | None:
        for party in self._parties:
            if response.head.status == party.role.status:
                return party
        return None

    async def _answer(
        self, party: Party, arrived: Sequence[Party], response: Response
    ) -> bool:
        """Prepare the next leg after a challenge; whether there is one."""
        step = party.layer.challenged(response.head.fields, party.request)
        if isinstance(step, Proceed):
            return False
        party.follow(step)
        for other in arrived:
            if other is not party:
                other.begin_again()
        if not await self._clear(party, response):
            if party.bound and not party.layer.needs_fresh_connection:
                await self._again(None)
            else:
                await self._move(party)
        return True

    # Connections

    def _take_up(self, connection: HTTPConnection) -> None:
        self._connection = connection
        for party in self._parties:
            party.begin(connection)

    async def _move(self, mover: Party | None = None) -> None:
        """
        Go on, on a new connection; nothing binds *mover* to the old one.

        A party that the old connection had authenticated, or was about to, begins
        anew.
        """
        self._drop()
        connection = self._connection = await self._lease(True)
        for party in self._parties:
            if party is not mover and (party.bound or party.layer.identity is not None):
                party.succeed(connection)
                await party.settle()
            else:
                party.move(connection)

    async def _again(self, error: Exception | None) -> None:
        """Begin anew on a new connection, once."""
        for party in self._parties:
            party.layer.lost()
        self._drop()
        if self._restarted:
            raise AuthenticationFailed(
                _OVERLONG if self._overlong else _CUT_TWICE,
                peer=str(self._parties[0].layer.peer),
            ) from error
        self._restarted = True
        connection = self._connection = await self._lease(True)
        for party in self._parties:
            party.succeed(connection)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.layers.clear()
            connection.close()

    def _gone(self) -> bool:
        return self._connection is None or self._connection.state is State.CLOSED

    # One leg

    async def _send(self, speaking: Sequence[Party]) -> Response | None:
        """
        Send a leg.

        :returns: The response; ``None`` when the connection ended and all begins
            anew on another.
        """
        connection, outgoing = self._connection, self._outgoing
        assert connection is not None
        reused = connection.served > 0
        replies = [
            (party.role, party.ready)
            for party in speaking
            if isinstance(party.ready, Reply)
        ]
        carries = all(reply.send_body for _, reply in replies)
        body = outgoing.body if carries else None
        if isinstance(outgoing.body, ReplayableBody):
            outgoing.body.sent = 0  # on this leg, whether or not it carries any
        holds = body is not None and (
            outgoing.expect_continue or any(map(self._cautious, speaking))
        )
        try:
            return await connection.send(
                outgoing.head(replies, expect=holds, keep=self._kept()),
                body,
                hold=self._expect if holds else None,
                on_interim=outgoing.on_interim if carries else None,
            )
        except ConnectionEnded as error:
            # A bound leg is bound to be challenged: nothing was done at its word.
            bound = any(reply.bound for _, reply in replies)
            repeats = outgoing.may_repeat and (reused or bool(replies))
            if not (bound or repeats):
                raise
            await self._again(error)
            return None

    def _kept(self) -> bool:
        """Whether a proxy has authenticated the connection, and may close it."""
        assert self._connection is not None
        return self._connection.old and any(
            party.role is Role.PROXY and party.layer.identity is not None
            for party in self._parties
        )

    def _cautious(self, party: Party) -> bool:
        """
        Whether content that cannot be sent twice had better wait for a 100.

        That is where the answer may well be a challenge: on a connection that is
        not authenticated, or has not yet carried a request without credentials,
        with a Digest nonce that may have gone stale, and with a ticket where none
        was ever good.
        """
        body = self._outgoing.body
        if not isinstance(body, ReplayableBody) or body.small:
            return False
        if isinstance(party.ready, Reply):
            if party.ready.value[:6].lower() == b"digest":
                return True
            # No secret is at stake, so another scheme may follow.
            return not party.ready.logon and not party.layer.has_worked
        return not party.layer.persists

    async def _clear(self, party: Party, response: Response) -> bool:
        """Make the connection ready for the next leg; whether it can carry it."""
        connection = self._connection
        assert connection is not None
        body = self._outgoing.body
        stalls = isinstance(body, ReplayableBody) and body.sent > STALL_LIMIT
        if connection.uploading or party.layer.needs_fresh_connection or stalls:
            response.abort()
            return False
        content, drained = await collect(response, DRAIN_LIMIT, 5.0, self._clock)
        self._overlong = not drained and len(content) == DRAIN_LIMIT
        return drained and not self._gone()

    def _is_final(self, speaking: Sequence[Party], response: Response) -> bool:
        """Whether an answer is the caller's, and not that to an empty probe."""
        probe = self._outgoing.body is not None and any(
            isinstance(party.ready, Reply) and not party.ready.send_body
            for party in speaking
        )
        return not probe or response.head.status >= 400

    async def _repeat(self, response: Response, keep: Party | None = None) -> None:
        """
        Send the request itself after a leg that was taken for it.

        :param keep: The party for whom something is ready that was not sent.
        """
        await drain(response, self._clock)
        if self._gone():
            self._take_up(await self._lease(True))
            return
        for party in self._parties:
            if party is not keep:
                party.follow(Proceed())
