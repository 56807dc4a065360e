"""
One request, leg by leg, until it is answered and no longer challenged.

Theory of operation.  A leg is one request and its response on one connection.
The layer says what a leg carries; this module sees to the connection:

* after a challenge, the content is drained and the same connection carries the
  next leg, unless it may close, is poisoned, or was cut off in mid-upload;
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

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from coda_twisted.auth.steps import Proceed, Reply, Role, Step
from coda_twisted.client.connection import HTTPConnection, State
from coda_twisted.client.request import Outgoing
from coda_twisted.client.response import Response, drain
from coda_twisted.client.tls import channel_bindings
from coda_twisted.client.upload import ReplayableBody
from coda_twisted.errors import AuthenticationFailed, ConnectionEnded

if TYPE_CHECKING:
    from coda_twisted.auth.layer import AuthLayer
    from coda_twisted.client.logon import Logon

__all__ = ["Legs", "send_plain"]

MAX_LEGS = 8
"""Kerberos takes 2, NTLM 3; three stale rounds and one change of scheme fit."""

STALL_LIMIT = 64 * 1024
"""
Octets of content after which a challenged connection is not used again.

Squid 5.7 announces keep-alive after a 407 to a longer request, takes the rest
and never answers on that connection.
"""

Lease = Callable[[bool], Awaitable[HTTPConnection]]


async def send_plain(lease: Lease, outgoing: Outgoing, expect: float) -> Response:
    """
    Send a request to a peer for which there are no credentials.

    :param lease: Gets a connection, a fresh one if its argument is true.
    :param expect: Seconds to hold content that the caller holds back itself.
    """
    fresh = False
    while True:
        connection = await lease(fresh)
        reused = connection.served > 0
        asks = outgoing.expect_continue and outgoing.body is not None
        head = outgoing.head(Proceed(), role=Role.PROXY, expect=asks)
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


class Legs:
    """
    Drive one request through one authentication layer.

    :param lease: As for :func:`send_plain`.
    :param new_layer: Makes the layer of a connection that has none.
    :param expect: Seconds to hold content for a 100 (Continue).
    """

    def __init__(
        self,
        outgoing: Outgoing,
        role: Role,
        logon: Logon,
        lease: Lease,
        new_layer: Callable[[HTTPConnection], AuthLayer],
        clock: IReactorTime,
        expect: float,
    ) -> None:
        self._outgoing = outgoing
        self._role = role
        self._logon = logon
        self._lease = lease
        self._new_layer = new_layer
        self._clock = clock
        self._expect = expect
        self._connection: HTTPConnection | None = None
        self._bound = False
        self._restarted = False

    async def run(self) -> Response:
        """
        Send the request, answer what challenges it.

        :returns: The response that is the caller's; it may be a 401 or 407 that
            holds no challenge.
        :raises AuthenticationFailed: The challenges cannot be answered.
        :raises BodyNotReplayable: The content is needed again and is gone.
        :raises ConnectionEnded: The peer does not answer.
        """
        try:
            response = await self._run()
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

    async def _run(self) -> Response:
        layer, step = await self._begin(fresh=False)
        for _ in range(MAX_LEGS):
            ready = await self._logon.settle(layer, step)
            if self._gone():
                if self._bound:
                    layer, step = await self._again(layer, None)
                    continue
                await self._move(layer)
            assert self._connection is not None
            reused = self._connection.served > 0
            try:
                response = await self._send(layer, ready)
            except ConnectionEnded as error:
                if not self._may_restart(ready, reused=reused):
                    raise
                layer, step = await self._again(layer, error)
                continue
            if response.head.status != self._role.status:
                if await self._accepted(layer, ready, response):
                    return response
                step = Proceed()
                if self._gone():
                    layer, step = await self._begin(fresh=True)
                continue
            step = layer.challenged(response.head.fields, self._outgoing.auth)
            if isinstance(step, Proceed):
                return response
            if not await self._clear(layer, response):
                if self._bound and not layer.needs_fresh_connection:
                    layer, step = await self._again(layer, None)
                else:
                    await self._move(layer)
        raise AuthenticationFailed(
            f"still challenged after {MAX_LEGS} legs", peer=str(layer.peer)
        )

    # Connections

    async def _begin(self, *, fresh: bool) -> tuple[AuthLayer, Step]:
        connection = self._connection = await self._lease(fresh)
        layer: AuthLayer = connection.layer or self._new_layer(connection)
        connection.layer = layer
        return layer, layer.start(self._outgoing.auth)

    async def _move(self, layer: AuthLayer) -> None:
        """Go on with *layer* on a new connection; nothing binds it to the old one."""
        self._drop()
        self._bound = False
        await self._onto_new_connection(layer)

    async def _again(
        self, layer: AuthLayer, error: Exception | None
    ) -> tuple[AuthLayer, Step]:
        """Begin anew on a new connection, once."""
        layer.lost()
        self._drop()
        self._bound = False
        if self._restarted:
            raise AuthenticationFailed(
                "the connection ended twice in the middle of the handshake; "
                "a device in between may not keep connections open",
                peer=str(layer.peer),
            ) from error
        self._restarted = True
        successor = layer.successor()
        await self._onto_new_connection(successor)
        return successor, successor.start(self._outgoing.auth)

    async def _onto_new_connection(self, layer: AuthLayer) -> None:
        connection = self._connection = await self._lease(True)
        connection.layer = layer
        # Behind one name there may be several servers with a certificate each.
        layer.moved(channel_bindings(connection.transport))

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.layer = None
            connection.close()

    def _gone(self) -> bool:
        return self._connection is None or self._connection.state is State.CLOSED

    # One leg

    async def _send(self, layer: AuthLayer, ready: Proceed | Reply) -> Response:
        assert self._connection is not None
        outgoing = self._outgoing
        carries = not isinstance(ready, Reply) or ready.send_body
        body = outgoing.body if carries else None
        holds = body is not None and (
            outgoing.expect_continue or self._cautious(layer, ready)
        )
        self._bound = isinstance(ready, Reply) and ready.bound
        return await self._connection.send(
            outgoing.head(ready, role=self._role, expect=holds),
            body,
            hold=self._expect if holds else None,
            on_interim=outgoing.on_interim if carries else None,
        )

    def _cautious(self, layer: AuthLayer, ready: Proceed | Reply) -> bool:
        """
        Whether content that cannot be sent twice had better wait for a 100.

        That is where the answer may well be a challenge: on a connection that is
        not authenticated, and with a Digest nonce that may have gone stale.
        """
        body = self._outgoing.body
        if not isinstance(body, ReplayableBody) or body.small:
            return False
        if isinstance(ready, Proceed):
            return layer.identity is None
        return ready.value[:6].lower() == b"digest"

    def _may_restart(self, ready: Proceed | Reply, *, reused: bool) -> bool:
        if isinstance(ready, Reply) and ready.bound:
            return True  # bound to be challenged: nothing was done at its word
        return self._outgoing.may_repeat and (reused or isinstance(ready, Reply))

    async def _clear(self, layer: AuthLayer, response: Response) -> bool:
        """Make the connection ready for the next leg; whether it can carry it."""
        connection = self._connection
        assert connection is not None
        body = self._outgoing.body
        stalls = isinstance(body, ReplayableBody) and body.sent > STALL_LIMIT
        if connection.uploading or layer.needs_fresh_connection or stalls:
            response.abort()
            return False
        return await drain(response, self._clock) and not self._gone()

    async def _accepted(
        self, layer: AuthLayer, ready: Proceed | Reply, response: Response
    ) -> bool:
        """Take note of an answer that is no challenge; whether it is the caller's."""
        status = response.head.status
        verification = layer.accepted(response.head.fields)
        self._logon.judged(status)
        await self._logon.verify(layer, verification)
        probe = (
            isinstance(ready, Reply)
            and not ready.send_body
            and self._outgoing.body is not None
        )
        if not probe or status >= 400:
            return True
        # The peer has stopped asking: it has taken an empty request for the
        # real one, which must follow.
        await drain(response, self._clock)
        return False
