"""Who may log on, and a record of everybody who tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeVar

__all__ = ["Accounts", "Logon", "Outcome"]

Computed = TypeVar("Computed")


class Outcome(Enum):
    """What came of a logon."""

    ACCEPTED = auto()
    FAILED = auto()
    """The password, or the proof that it is known, is wrong."""
    UNKNOWN = auto()
    """There is no such user."""
    LOCKED = auto()
    """The account is locked; whether the password was right was not looked at."""
    UNBOUND = auto()
    """The logon is bound to another TLS server; the password was not looked at."""


@dataclass(frozen=True, slots=True)
class Logon:
    """
    One logon, good or bad.

    :ivar user: The account's name as configured; as sent, where there is none.
    :ivar scheme: The auth-scheme: ``NTLM``.
    """

    user: str
    scheme: str
    outcome: Outcome


class Accounts:
    r"""
    Users with their passwords, and what was tried with them.

    A *logon* is one proof that was judged: one handshake of NTLM or Negotiate, one
    request of every other scheme.

    Names are compared without regard to case.  An account ``alice`` is also
    ``CORP\alice`` and ``alice@corp.example``; an account ``CORP\alice`` is nobody
    else, so that a client that leaves the domain out fails as it would in life.

    :param users: From names to passwords.
    :param lockout: Lock an account after so many wrong passwords in a row, as a
        directory does; 0 for never.
    :param observer: Called with each logon.
    :ivar log: All logons, in order.
    """

    def __init__(
        self,
        users: Mapping[str, str] | None = None,
        *,
        lockout: int = 0,
        observer: Callable[[Logon], None] | None = None,
    ) -> None:
        self.log: list[Logon] = []
        self._passwords: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._lockout = lockout
        self._observer = observer
        self._locked: set[str] = set()
        self._failures: Counter[str] = Counter()
        for name, password in (users or {}).items():
            self.set_password(name, password)

    def __repr__(self) -> str:
        """Name the users, and nothing else of them."""
        return f"Accounts({sorted(self._passwords)})"

    # What a test arranges

    def set_password(self, user: str, password: str) -> None:
        """Add an account, or change its password; it stays locked if it was."""
        name = self._names.setdefault(user.casefold(), user)
        self._passwords[name] = password

    def lock(self, user: str) -> None:
        """Refuse *user*, whatever the password."""
        self._locked.add(self.name(user))

    def unlock(self, user: str) -> None:
        """Let *user* try again, and forget earlier failures."""
        self._locked.discard(self.name(user))
        del self._failures[self.name(user)]

    # What a test asks afterwards

    def logons(self, user: str | None = None) -> int:
        """Count the successful logons, of *user* or of all."""
        return self._count(user, lambda outcome: outcome is Outcome.ACCEPTED)

    def failed_logons(self, user: str | None = None) -> int:
        """Count the other ones, those to a locked account included."""
        return self._count(user, lambda outcome: outcome is not Outcome.ACCEPTED)

    def locked(self, user: str) -> bool:
        """Say whether *user* is refused whatever the password."""
        return self.name(user) in self._locked

    def _count(self, user: str | None, counts: Callable[[Outcome], bool]) -> int:
        name = None if user is None else self.name(user)
        return sum(
            1
            for logon in self.log
            if counts(logon.outcome) and name in (None, logon.user)
        )

    # What verifiers ask

    def name(self, user: str) -> str:
        """Find the name of the account that *user* means; *user* if there is none."""
        _, _, down_level = user.rpartition("\\")
        for spelling in (user, down_level, down_level.partition("@")[0]):
            known = self._names.get(spelling.casefold())
            if known is not None:
                return known
        return user

    def names(self) -> list[str]:
        """Name all accounts."""
        return list(self._passwords)

    def proves(self, user: str, proof: Callable[[str], bool]) -> bool:
        """
        Say whether a proof is good, without a logon.

        :param proof: Told the password, says whether it is the one that was used.
        """
        return bool(self.compute(user, proof))

    def compute(
        self, user: str, function: Callable[[str], Computed]
    ) -> Computed | None:
        """Compute something from a password; ``None`` where there is no such user."""
        password = self._passwords.get(self.name(user))
        return None if password is None else function(password)

    def judge(self, user: str, scheme: str, proof: Callable[[str], bool]) -> bool:
        """Let *user* log on, if the account is open and the proof is good."""
        name = self.name(user)
        if name in self._locked:
            outcome = Outcome.LOCKED
        elif name not in self._passwords:
            outcome = Outcome.UNKNOWN
        elif proof(self._passwords[name]):
            outcome = Outcome.ACCEPTED
            del self._failures[name]
        else:
            outcome = Outcome.FAILED
            self._failures[name] += 1
            if self._failures[name] == self._lockout:
                self._locked.add(name)
        return self._record(Logon(name, scheme, outcome))

    def vouched(self, user: str, scheme: str) -> bool:
        """
        Let *user* log on at the word of somebody else: a KDC, an issuer of tokens.

        :returns: Whether the account, if there is one, is open.
        """
        name = self.name(user)
        locked = name in self._locked
        outcome = Outcome.LOCKED if locked else Outcome.ACCEPTED
        return self._record(Logon(name, scheme, outcome))

    def unbound(self, user: str, scheme: str) -> None:
        """Take note of a logon that was meant for another TLS server."""
        self._record(Logon(self.name(user), scheme, Outcome.UNBOUND))

    def unknown(self, user: str, scheme: str) -> None:
        """Take note of a logon as somebody whom nobody knows."""
        self._record(Logon(user, scheme, Outcome.UNKNOWN))

    def _record(self, logon: Logon) -> bool:
        self.log.append(logon)
        if self._observer is not None:
            self._observer(logon)
        return logon.outcome is Outcome.ACCEPTED
