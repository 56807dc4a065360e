"""
One wrong password costs one failed logon, with any number of workers.

Each worker has a guard of its own, which decides by itself for as long as it knows
that the secret is good.  Before the first logon, and the first after a silence, it
asks the main process, whose guard lets one worker go alone.  A refusal is told to all.

A secret is named between processes by its identity, its peer, and a word that the
main process has chosen for the password: no worker need tell what it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from coda_twisted.client.guard import Key, LogonGuard, Ticket
from coda_twisted.errors import CredentialsRejected
from coda_twisted.service.control import Message

__all__ = ["GuardedLogons", "SharedGuard"]


class SharedGuard(LogonGuard):
    """
    A worker's guard.

    :param tell: Sends a message to the main process.
    :param word: What the main process calls the password.
    """

    def __init__(
        self, clock: IReactorTime, tell: Callable[[Message], None], word: str
    ) -> None:
        super().__init__(clock)
        self._tell = tell
        self._word = word
        self._numbers = count(1)
        self._asking: dict[int, Deferred[None]] = {}
        self._leave: dict[Key, int] = {}
        self._keys: dict[str, Key] = {}

    def enter_now(self, key: Key) -> Ticket | None:
        """Get leave, where this worker can give it by itself."""
        return super().enter_now(key) if self.settled(key) else None

    async def enter(self, key: Key) -> Ticket:
        """Get leave, from the main process if this worker's logon is the first."""
        ticket = await super().enter(key)
        if self.settled(key):
            return ticket
        number = next(self._numbers)
        name = self._name(key)
        answer = self._asking[number] = Deferred()
        self._tell({"say": "ask", "number": number, "secret": name})
        try:
            await answer
        except BaseException:
            # Refused elsewhere, or not waited for any more.
            self._tell({"say": "dropped", "number": number})
            ticket.dropped()
            raise
        finally:
            del self._asking[number]
        overtaken = self._leave.get(key)
        if overtaken is not None:
            self._tell({"say": "dropped", "number": overtaken})
        self._leave[key] = number
        return ticket

    def _name(self, key: Key) -> str:
        identity, peer, *_ = key
        name = f"{identity} {peer} {self._word}"
        self._keys[name] = key
        return name

    def accepted(self, key: Key) -> None:
        """Take note that a secret is good, and say so to those who wait for it."""
        super().accepted(key)
        number = self._leave.pop(key, None)
        if number is not None:
            self._tell({"say": "accepted", "number": number})

    def refused(self, key: Key, error: CredentialsRejected) -> None:
        """Bar a secret everywhere."""
        super().refused(key, error)
        self._leave.pop(key, None)
        name = self._name(key)
        self._tell({"say": "refused", "secret": name, "error": _write(error)})

    def dropped(self, ticket: Ticket, key: Key) -> None:
        """Let another try, here or elsewhere."""
        number, account = self._leave.get(key), self._accounts.get(key)
        if number is not None and account is not None and account.trying is ticket:
            del self._leave[key]
            self._tell({"say": "dropped", "number": number})
        super().dropped(ticket, key)

    def heard(self, message: Message) -> None:
        """Take what the main process says of a logon."""
        if message["say"] == "barred":
            key = self._keys.get(message["secret"])
            if key is not None:
                super().refused(key, _read(message["error"]))
            return
        answer = self._asking.get(message["number"])
        if answer is None or answer.called:
            return
        if message["say"] == "go":
            answer.callback(None)
        else:
            answer.errback(_read(message["error"]))


class GuardedLogons:
    """
    The main process's part, for all its workers.

    :param guard: Decides.
    :param tell_all: Sends a message to every worker but one.
    """

    def __init__(
        self, guard: LogonGuard, tell_all: Callable[[Message, Hashable], None]
    ) -> None:
        self._guard = guard
        self._tell_all = tell_all
        self._waiting: dict[tuple[Hashable, int], Deferred[Any]] = {}
        self._tickets: dict[tuple[Hashable, int], Ticket] = {}

    def heard(
        self, worker: Hashable, tell: Callable[[Message], None], message: Message
    ) -> None:
        """
        Take what a worker says of a logon.

        :param tell: Sends a message to it.
        """
        match message["say"]:
            case "ask":
                self._asked(worker, tell, message["number"], (message["secret"],))
            case "refused":
                error = _read(message["error"])
                self._guard.refused((message["secret"],), error)
                self._tell_all({**message, "say": "barred"}, worker)
            case verdict:
                self._judged((worker, message["number"]), good=verdict == "accepted")

    def _asked(
        self,
        worker: Hashable,
        tell: Callable[[Message], None],
        number: int,
        key: Key,
    ) -> None:
        def enter(ticket: Ticket) -> None:
            self._tickets[worker, number] = ticket
            tell({"say": "go", "number": number})

        def refuse(reason: Failure) -> None:
            if reason.check(CredentialsRejected):
                error: Any = reason.value
                tell({"say": "no", "number": number, "error": _write(error)})

        def done(_: object) -> None:
            self._waiting.pop((worker, number), None)

        entering = Deferred.fromCoroutine(self._guard.enter(key))
        self._waiting[worker, number] = entering
        entering.addCallbacks(enter, refuse).addBoth(done)

    def _judged(self, which: tuple[Hashable, int], *, good: bool) -> None:
        waiting = self._waiting.pop(which, None)
        if waiting is not None:
            waiting.cancel()
        ticket = self._tickets.pop(which, None)
        if ticket is None:
            return
        if good:
            ticket.accepted()
        else:
            ticket.dropped()

    def gone(self, worker: Hashable) -> None:
        """Take note that a worker will say nothing more."""
        for which in [*self._waiting, *self._tickets]:
            if which[0] == worker:
                self._judged(which, good=False)


def _write(error: CredentialsRejected) -> dict[str, Any]:
    return {
        "reason": error.reason,
        "identity": error.identity,
        "peer": error.peer,
        "scheme": error.scheme,
        "realm": error.realm,
    }


def _read(facts: dict[str, Any]) -> CredentialsRejected:
    return CredentialsRejected(**facts)
