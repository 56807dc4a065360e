"""
One wrong password costs one failed logon.

Directories lock an account after a few failed logons, and a machine sends dozens
of requests at once.  So the first logon with a secret goes alone; those that wait
share its fate.  A secret that was refused is not sent again until it changes or a
cool-down has passed, and then by one request alone.

One :class:`LogonGuard` serves all clients of a reactor, for they may share secrets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary, proxy

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from coda_twisted.errors import CredentialsRejected

__all__ = ["LogonGuard", "Ticket"]

COOL_DOWN = 30 * 60.0
"""
Seconds for which a refused secret is not sent.

Active Directory forgets failed logons after 30 minutes by default in its security
baselines, so that one attempt in each such window never adds up to a lockout.
"""

PROOF_LIFETIME = 60.0
"""
Seconds after which a silent proof is old: the next logon goes alone again.

A password that was changed or that expired meanwhile is then refused once, not
once for every request of a burst.
"""

PATIENCE = 30.0
"""
Seconds for which others wait for a first logon that neither fails nor succeeds.

The verdict comes with the response, and that may be a long poll; a directory
takes less to say no.
"""

RENEWAL_PATIENCE = 2.0
"""As :data:`PATIENCE`, where the secret was good before."""

MAX_ENTRIES = 4096
"""Secrets remembered; the longest unused are forgotten first."""

Key = tuple[Hashable, ...]

_GUARDS: WeakKeyDictionary[IReactorTime, LogonGuard] = WeakKeyDictionary()


@dataclass(slots=True)
class _Account:
    """What is known of one secret at one peer."""

    proven_at: float | None = None
    refused_at: float | None = None
    refusal: CredentialsRejected | None = None
    trying: Ticket | None = None
    trying_since: float = 0.0
    waiting: deque[Deferred[None]] = field(default_factory=deque)


class Ticket:
    """
    Leave to send a secret once; its holder must say what came of it.

    Saying so a second time changes nothing.
    """

    __slots__ = ("_guard", "_key")

    def __init__(self, guard: LogonGuard, key: Key) -> None:
        self._guard: LogonGuard | None = guard
        self._key = key

    def accepted(self) -> None:
        """Take note that the peer took the secret."""
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.accepted(self._key)

    def refused(self, error: CredentialsRejected) -> None:
        """Take note that the peer refused the secret; *error* is told to others."""
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.refused(self._key, error)

    def dropped(self) -> None:
        """Take note that nothing was learnt: another may try."""
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.dropped(self, self._key)


class LogonGuard:
    """Decide who may send a secret, and when."""

    def __init__(self, clock: IReactorTime, *, cool_down: float = COOL_DOWN) -> None:
        self._clock = clock
        self._cool_down = cool_down
        self._accounts: dict[Key, _Account] = {}

    @classmethod
    def of(cls, reactor: IReactorTime) -> LogonGuard:
        """Get the guard that all clients of a reactor share."""
        guard = _GUARDS.get(reactor)
        if guard is None:
            # A proxy: the guard must not keep its own key alive.
            guard = _GUARDS[reactor] = cls(proxy(reactor))
        return guard

    def settled(self, key: Key) -> bool:
        """Say whether the peer's last verdict on a secret still holds."""
        account, now = self._accounts.get(key), self._clock.seconds()
        if account is None:
            return False
        if account.refused_at is not None:
            return now - account.refused_at < self._cool_down
        return (
            account.proven_at is not None and now - account.proven_at < PROOF_LIFETIME
        )

    def enter_now(self, key: Key) -> Ticket | None:
        """
        Get leave without waiting.

        :param key: Identity, peer and a fingerprint of the secret.
        :returns: ``None`` when another logon's outcome must be awaited first.
        :raises CredentialsRejected: The peer has refused this secret.
        """
        account = self._accounts.pop(key, None) or _Account()
        self._accounts[key] = account  # the most recently used last
        if len(self._accounts) > MAX_ENTRIES:
            self._forget_one()
        now = self._clock.seconds()
        if account.refused_at is not None:
            if now - account.refused_at < self._cool_down:
                raise self._again(account, now)
            account.refused_at = account.refusal = None
            account.proven_at = None
        proven = account.proven_at
        if proven is not None and now - proven < PROOF_LIFETIME:
            return Ticket(self, key)
        if account.trying is not None:
            patience = PATIENCE if proven is None else RENEWAL_PATIENCE
            if now - account.trying_since < patience:
                return None
        account.trying = Ticket(self, key)
        account.trying_since = now
        return account.trying

    async def enter(self, key: Key) -> Ticket:
        """
        Get leave, after waiting for a logon under way.

        :raises CredentialsRejected: The peer refused this secret, before or while
            we waited.
        """
        while (ticket := LogonGuard.enter_now(self, key)) is None:
            await self._verdict(self._accounts[key])
        return ticket

    async def _verdict(self, account: _Account) -> None:
        waiting: Deferred[None] = Deferred()
        account.waiting.append(waiting)
        patience = PATIENCE if account.proven_at is None else RENEWAL_PATIENCE
        left = account.trying_since + patience - self._clock.seconds()
        timer = self._clock.callLater(max(left, 0.0), self._wake_one, account)
        try:
            await waiting
        finally:
            if timer.active():
                timer.cancel()
            if waiting in account.waiting:
                account.waiting.remove(waiting)

    def _wake_one(self, account: _Account) -> None:
        """Patience is over: the longest waiting tries as well."""
        if account.waiting:
            account.waiting.popleft().callback(None)

    def _again(self, account: _Account, now: float) -> CredentialsRejected:
        """Say once more what the peer said, and when it will be asked again."""
        assert account.refusal is not None and account.refused_at is not None
        refusal = account.refusal
        left = self._cool_down - (now - account.refused_at)
        return CredentialsRejected(
            f"{refusal.reason} (not sent again for {left / 60:.0f} min, "
            "or until the password changes, so that the account is not locked)",
            identity=refusal.identity,
            peer=refusal.peer,
            scheme=refusal.scheme,
            realm=refusal.realm,
        )

    def accepted(self, key: Key) -> None:
        """Let everybody send the secret; for tickets to call."""
        account = self._accounts.get(key)
        if account is None:
            return
        account.proven_at = self._clock.seconds()
        self._settle(account)

    def refused(self, key: Key, error: CredentialsRejected) -> None:
        """Bar the secret; for tickets to call."""
        account = self._accounts.get(key)
        if account is None:
            return
        account.refused_at = self._clock.seconds()
        account.refusal = error
        account.proven_at = None
        self._settle(account)

    def dropped(self, ticket: Ticket, key: Key) -> None:
        """Let another try, if this was the one; for tickets to call."""
        account = self._accounts.get(key)
        if account is None or account.trying is not ticket:
            return
        account.trying = None
        self._wake_one(account)

    def _settle(self, account: _Account) -> None:
        """Let all who wait see what is known now."""
        account.trying = None
        waiting, account.waiting = account.waiting, deque()
        for each in waiting:
            each.callback(None)

    def _forget_one(self) -> None:
        for key, account in self._accounts.items():
            if account.trying is None and account.refused_at is None:
                del self._accounts[key]
                return
