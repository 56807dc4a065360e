"""Carry out what an authentication layer asks for: threads, leave, verdicts."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError

from coda_twisted.auth.steps import GiveUp, Peer, Proceed, Reply, Step, Work
from coda_twisted.client.guard import LogonGuard, Ticket
from coda_twisted.client.workers import RunsWork
from coda_twisted.errors import (
    AuthenticationFailed,
    CredentialsRejected,
    NoAcceptableScheme,
)

if TYPE_CHECKING:
    from coda_twisted.auth.layer import AuthLayer
    from coda_twisted.interfaces import ICredentials

__all__ = ["Logon"]


class Logon:
    """
    One request's dealings with one peer's authentication.

    Whoever makes one calls :meth:`dropped` in the end; after a verdict that
    changes nothing.
    """

    def __init__(
        self,
        peer: Peer,
        credentials: ICredentials,
        guard: LogonGuard,
        workers: RunsWork,
    ) -> None:
        self._peer = peer
        self._credentials = credentials
        self._guard = guard
        self._workers = workers
        self._ticket: Ticket | None = None

    @property
    def _key(self) -> tuple[Hashable, ...]:
        return (self._credentials.identity, self._peer, self._credentials.fingerprint)

    async def settle(self, layer: AuthLayer, step: Step) -> Proceed | Reply:
        """
        Go on until something can be sent.

        :raises CredentialsRejected: The peer refused the secret, now or before.
        :raises AuthenticationFailed: There is no (more) way to authenticate.
        """
        while True:
            if isinstance(step, GiveUp):
                raise self._error(layer, step)
            if isinstance(step, Proceed):
                return step
            if step.logon and self._ticket is None:
                self._ticket = self._guard.enter_now(
                    self._key
                ) or await self._guard.enter(self._key)
            if isinstance(step, Reply):
                return step
            step = await self._work(layer, step)

    async def _work(self, layer: AuthLayer, work: Work) -> Step:
        try:
            result = await self._workers.run(work) if work.blocks else work.run()
        except CancelledError:
            raise
        except Exception as error:
            # Whatever a Kerberos library raises is the conversation's to judge.
            return layer.failed(error)
        return layer.worked(result)

    async def verify(self, layer: AuthLayer, step: Step) -> None:
        """
        Carry out what ``layer.accepted`` asked for.

        :raises AuthenticationFailed: The peer did not prove itself.
        """
        while isinstance(step, Work):
            step = await self._work(layer, step)
        if isinstance(step, GiveUp):
            raise self._error(layer, step)

    def judged(self, status: int) -> None:
        """
        Take note of an answer that is no challenge.

        A 403 or an error of the proxy's may have come before the secret was
        looked at, so they prove nothing.
        """
        if status == 403 or status >= 500:
            self.dropped()
        elif self._ticket is not None:
            self._ticket.accepted()
            self._ticket = None

    def dropped(self) -> None:
        """Take note that nothing was learnt."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            ticket.dropped()

    def _error(self, layer: AuthLayer, step: GiveUp) -> AuthenticationFailed:
        if layer.refusals:
            return NoAcceptableScheme(layer.refusals, peer=str(self._peer))
        if not step.rejected:
            return AuthenticationFailed(
                step.reason, peer=str(self._peer), scheme=step.scheme, realm=step.realm
            )
        error = CredentialsRejected(
            step.reason,
            identity=str(self._credentials.identity),
            peer=str(self._peer),
            scheme=step.scheme,
            realm=step.realm,
        )
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            ticket.refused(error)
        return error
