"""Tests for :mod:`coda_twisted.service.guarding`."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.client.guard import COOL_DOWN, PROOF_LIFETIME, LogonGuard, Ticket
from coda_twisted.errors import CredentialsRejected
from coda_twisted.service.guarding import GuardedLogons, SharedGuard

KEY = ("alice", "proxy http://above:3128", b"a fingerprint of this process")


def refusal() -> CredentialsRejected:
    return CredentialsRejected("wrong password", identity="alice", scheme="NTLM")


class GuardingCase(SynchronousTestCase):
    """
    Workers and their main process, whose pipes are JSON and no delay.

    :ivar said: What workers have said.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.said: list[str] = []
        self.workers: dict[Hashable, SharedGuard] = {}
        self.logons = GuardedLogons(LogonGuard(self.clock), self.tell_others)
        self.one, self.two, self.three = map(self.worker, (1, 2, 3))

    def worker(self, number: int, word: str = "word") -> SharedGuard:
        def tell(message: Any) -> None:
            self.said.append(message["say"])
            self.logons.heard(number, answer, json.loads(json.dumps(message)))

        def answer(message: Any) -> None:
            self.workers[number].heard(json.loads(json.dumps(message)))

        self.workers[number] = SharedGuard(self.clock, tell, word)
        return self.workers[number]

    def tell_others(self, message: Any, but: Hashable) -> None:
        for number, worker in self.workers.items():
            if number != but:
                worker.heard(json.loads(json.dumps(message)))

    def enter(self, guard: SharedGuard, fingerprint: object = None) -> Deferred[Ticket]:
        """Ask as a logon does; each process has fingerprints of its own."""
        key = (*KEY[:2], id(guard))
        try:
            ticket = guard.enter_now(key)
        except CredentialsRejected as error:
            failed: Deferred[Ticket] = Deferred()
            failed.errback(error)
            return failed
        if ticket is None:
            return Deferred.fromCoroutine(guard.enter(key))
        entered: Deferred[Ticket] = Deferred()
        entered.callback(ticket)
        return entered


class GuardingTests(GuardingCase):
    """One wrong password costs one failed logon, in all workers together."""

    def test_first_goes_alone(self) -> None:
        """The others wait for its verdict, in whichever worker they are."""
        first = self.successResultOf(self.enter(self.one))
        rest = [self.enter(each) for each in (self.one, self.two, self.two, self.three)]
        for each in rest:
            self.assertNoResult(each)
        first.accepted()
        for each in rest:
            self.successResultOf(each).accepted()

    def test_refused(self) -> None:
        """A refusal is everybody's, those who wait and those who come."""
        first = self.successResultOf(self.enter(self.one))
        rest = [self.enter(each) for each in (self.one, self.two, self.three) * 10]
        first.refused(refusal())
        for each in rest:
            error = self.failureResultOf(each, CredentialsRejected).value
            self.assertIn("wrong password", error.reason)
            self.assertEqual(
                (error.identity, error.scheme, error.realm), ("alice", "NTLM", None)
            )
        for guard in self.workers.values():
            self.failureResultOf(self.enter(guard), CredentialsRejected)
        self.clock.advance(COOL_DOWN)
        self.successResultOf(self.enter(self.two))
        self.assertNoResult(self.enter(self.one))

    def test_no_cost(self) -> None:
        """While the secret is known to be good a worker asks nobody."""
        self.successResultOf(self.enter(self.one)).accepted()
        self.assertEqual(self.said, ["ask", "accepted"])
        for _ in range(5):
            self.clock.advance(PROOF_LIFETIME / 2)
            self.successResultOf(self.enter(self.one)).accepted()
        self.assertEqual(len(self.said), 2)
        self.clock.advance(PROOF_LIFETIME)
        self.successResultOf(self.enter(self.one)).accepted()
        self.assertEqual(self.said, ["ask", "accepted"] * 2)

    def test_refused_later(self) -> None:
        """So is a refusal of a secret that was good: the others learn of it at once."""
        for guard in self.workers.values():
            self.successResultOf(self.enter(guard)).accepted()
        self.successResultOf(self.enter(self.two)).refused(refusal())
        for guard in self.workers.values():
            self.failureResultOf(self.enter(guard), CredentialsRejected)

    def test_dropped(self) -> None:
        """When nothing was learnt another may try, in another worker."""
        first = self.successResultOf(self.enter(self.one))
        second = self.enter(self.two)
        first.dropped()
        self.assertNoResult(self.enter(self.three))
        self.successResultOf(second).accepted()

    def test_died(self) -> None:
        """A worker that died with the leave in its hand leaves it to another."""
        self.successResultOf(self.enter(self.one))
        waiting = self.enter(self.one)
        second = self.enter(self.two)
        self.assertNoResult(second)
        self.logons.gone(1)
        self.successResultOf(second)
        self.assertNoResult(waiting)

    def test_died_waiting(self) -> None:
        """One that died while it waited is not waited for."""
        first = self.successResultOf(self.enter(self.one))
        self.enter(self.two)
        third = self.enter(self.three)
        self.logons.gone(2)
        first.dropped()
        self.successResultOf(third)

    def test_cancelled(self) -> None:
        """A request that is dropped while it waits leaves its turn to the next."""
        first = self.successResultOf(self.enter(self.one))
        second, third = self.enter(self.two), self.enter(self.three)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        first.dropped()
        self.successResultOf(third)

    def test_another_password(self) -> None:
        """A password that has changed is another secret; the same is the same."""
        self.successResultOf(self.enter(self.one)).refused(refusal())
        self.failureResultOf(self.enter(self.worker(4)), CredentialsRejected)
        self.successResultOf(self.enter(self.worker(5, "another"))).accepted()
