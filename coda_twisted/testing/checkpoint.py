"""All schemes of one server, and who is who on each of its connections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from coda_twisted.testing.basic import Basic
from coda_twisted.testing.digest import Digest
from coda_twisted.testing.negotiate import Negotiate
from coda_twisted.testing.ntlm import NTLM
from coda_twisted.testing.verdicts import (
    Accepted,
    Challenged,
    Received,
    Refused,
    Scheme,
    Site,
    Verdict,
    Verifier,
    Verifiers,
)

__all__ = ["SCHEMES", "Checkpoint", "Guard", "Judged", "scheme"]

SCHEMES: dict[str, Callable[[], Scheme]] = {
    "basic": Basic,
    "digest": Digest,
    "digest-md5": lambda: Digest(["MD5"]),
    "digest-sha-256": lambda: Digest(["SHA-256"]),
    "digest-sha-512-256": lambda: Digest(["SHA-512-256"]),
    "ntlm": NTLM,
    "negotiate": Negotiate,
}
"""Schemes that need nothing but users and passwords, by the names people use."""

ANYBODY = "anybody"
"""The user on a server that asks for no credentials."""


def scheme(named: str | Scheme) -> Scheme:
    """
    Find a scheme by its name.

    :raises ValueError: There is none of that name.
    """
    if not isinstance(named, str):
        return named
    made = SCHEMES.get(named.lower())
    if made is None:
        raise ValueError(f"{named!r} is none of {', '.join(SCHEMES)}")
    return made()


@dataclass(frozen=True, slots=True)
class Judged:
    """
    What became of a request at the checkpoint.

    :ivar scheme: The auth-scheme of its credentials; ``""`` where it has none.
    :ivar challenges: What to answer with, where the user is not known.
    """

    verdict: Verdict
    scheme: str
    challenges: tuple[bytes, ...] = field(default=(), repr=False)


class Checkpoint:
    """
    What a server demands.

    :param schemes: In the order in which they are offered; none lets everybody in.
    """

    def __init__(self, site: Site, schemes: Sequence[str | Scheme]) -> None:
        self.site = site
        self.schemes: list[Verifiers] = [scheme(each).at(site) for each in schemes]

    def connected(self) -> Guard:
        """Make what judges the requests of a new connection."""
        return Guard(self)

    def challenges(self, instead: dict[bytes, tuple[bytes, ...]]) -> tuple[bytes, ...]:
        """
        Offer every scheme.

        :param instead: Challenges of some, in place of their usual ones.
        """
        return tuple(
            value
            for each in self.schemes
            for value in instead.get(each.name) or each.challenges()
        )


class Guard:
    """Judges the requests of one connection, in their order."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._verifiers: dict[bytes, Verifier] = {
            each.name.lower(): each.connected() for each in checkpoint.schemes
        }

    @property
    def user(self) -> str | None:
        """Whose connection it is, if it is somebody's."""
        users = (each.user for each in self._verifiers.values())
        return next((user for user in users if user is not None), None)

    def judge(self, request: Received) -> Judged:
        """Judge a request: by its credentials, or by the connection."""
        if not self._verifiers:
            return Judged(Accepted(ANYBODY), "")
        field_name = self._checkpoint.site.role.credentials_field
        values = request.fields.get_all(field_name)
        if not values:
            if (user := self.user) is not None:
                return Judged(Accepted(user), "")
            return self._all_offers("", Refused("there are no credentials"))
        if len(values) > 1:
            return self._all_offers("", Refused("there are two sets of credentials"))
        name, _, credentials = values[0].partition(b" ")
        told = name.decode("ascii", "replace")
        verifier = self._verifiers.get(name.lower())
        if verifier is None:
            return self._all_offers(told, Refused("the scheme was not offered"))
        verdict = verifier.verify(request, credentials.strip(b" "))
        if isinstance(verdict, Accepted):
            return Judged(verdict, told)
        if isinstance(verdict, Challenged):
            return Judged(verdict, told, verdict.values)
        return self._all_offers(told, verdict)

    def _all_offers(self, told: str, verdict: Refused) -> Judged:
        instead = {}
        if verdict.values is not None:
            for each in self._checkpoint.schemes:
                if each.name.lower() == told.lower().encode("ascii", "replace"):
                    instead[each.name] = verdict.values
        return Judged(verdict, told, self._checkpoint.challenges(instead))
