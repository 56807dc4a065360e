"""Tests for :mod:`coda_twisted.client.guard`."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.client.guard import (
    COOL_DOWN,
    PATIENCE,
    PROOF_LIFETIME,
    RENEWAL_PATIENCE,
    LogonGuard,
    Ticket,
)
from coda_twisted.errors import CredentialsRejected

KEY = ("alice", "proxy", 1)


def refusal() -> CredentialsRejected:
    return CredentialsRejected("wrong password", identity="alice", scheme="NTLM")


class GuardTests(SynchronousTestCase):
    """One wrong password costs one failed logon."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.guard = LogonGuard(self.clock)

    def enter(self, key: tuple[object, ...] = KEY) -> Deferred[Ticket]:
        return Deferred.fromCoroutine(self.guard.enter(key))

    def test_first_logon_goes_alone(self) -> None:
        """Two hundred requests wait for the first one's verdict."""
        first = self.successResultOf(self.enter())
        rest = [self.enter() for _ in range(200)]
        for each in rest:
            self.assertNoResult(each)
        first.accepted()
        for each in rest:
            self.successResultOf(each)

    def test_waiting_share_a_refusal(self) -> None:
        """When the first logon is refused, nobody else sends the secret."""
        first = self.successResultOf(self.enter())
        rest = [self.enter() for _ in range(200)]
        first.refused(refusal())
        for each in rest:
            error = self.failureResultOf(each, CredentialsRejected).value
            self.assertEqual(error.identity, "alice")
            self.assertIn("wrong password", str(error))

    def test_refused_secret_is_barred_at_once(self) -> None:
        """A later request fails without waiting, and says for how long."""
        self.successResultOf(self.enter()).refused(refusal())
        self.clock.advance(COOL_DOWN - 60)
        error = self.failureResultOf(self.enter(), CredentialsRejected).value
        self.assertIn("not sent again for 1 min", str(error))

    def test_one_probe_after_the_cool_down(self) -> None:
        """After the cool-down one request tries, and the rest wait again."""
        self.successResultOf(self.enter()).refused(refusal())
        self.clock.advance(COOL_DOWN)
        probe = self.successResultOf(self.enter())
        waiting = self.enter()
        self.assertNoResult(waiting)
        probe.refused(refusal())
        self.failureResultOf(waiting, CredentialsRejected)

    def test_changed_secret_is_another(self) -> None:
        """A new password is tried at once; so is another user's, and elsewhere."""
        self.successResultOf(self.enter()).refused(refusal())
        for other in [("alice", "proxy", 2), ("bob", "proxy", 1), ("alice", "q", 1)]:
            self.successResultOf(self.enter(other))

    def test_inconclusive_logon_passes_the_turn(self) -> None:
        """A first logon that was cut off lets exactly one other try."""
        first = self.successResultOf(self.enter())
        rest = [self.enter() for _ in range(3)]
        first.dropped()
        self.assertEqual([each.called for each in rest], [True, False, False])
        self.successResultOf(rest[0]).accepted()
        self.successResultOf(rest[1])
        self.successResultOf(rest[2])

    def test_proven_secret_is_free(self) -> None:
        """After a success nobody waits, however many are under way."""
        self.successResultOf(self.enter()).accepted()
        self.assertIsNotNone(self.guard.enter_now(KEY))
        self.assertIsNotNone(self.guard.enter_now(KEY))

    def test_old_proof_is_renewed_alone(self) -> None:
        """After a silence the next logon goes alone: the password may have changed."""
        self.successResultOf(self.enter()).accepted()
        self.clock.advance(PROOF_LIFETIME)
        first = self.successResultOf(self.enter())
        second = self.enter()
        self.assertNoResult(second)
        first.accepted()
        self.successResultOf(second)

    def test_proven_secret_may_turn_bad(self) -> None:
        """A refusal after successes bars the secret all the same."""
        self.successResultOf(self.enter()).accepted()
        self.successResultOf(self.enter()).refused(refusal())
        self.failureResultOf(self.enter(), CredentialsRejected)

    def test_patience_ends(self) -> None:
        """A first request that is a long poll does not hold the others for ever."""
        self.successResultOf(self.enter())
        rest = [self.enter(), self.enter()]
        self.clock.advance(PATIENCE - 0.1)
        self.assertNoResult(rest[0])
        self.clock.advance(0.2)
        self.successResultOf(rest[0])
        self.assertNoResult(rest[1])

    def test_renewal_is_less_patient(self) -> None:
        """Where the secret was good before, the wait is short."""
        self.successResultOf(self.enter()).accepted()
        self.clock.advance(PROOF_LIFETIME)
        self.successResultOf(self.enter())
        second = self.enter()
        self.clock.advance(RENEWAL_PATIENCE)
        self.successResultOf(second)

    def test_cancelled_waiter_leaves_no_trace(self) -> None:
        """A request cancelled while it waits neither blocks others nor leaks."""
        first = self.successResultOf(self.enter())
        gone, stays = self.enter(), self.enter()
        gone.addErrback(lambda _: None)
        gone.cancel()
        first.dropped()
        self.successResultOf(stays).accepted()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_verdict_counts_once(self) -> None:
        """A ticket that was given up cannot be accepted later."""
        ticket = self.successResultOf(self.enter())
        ticket.dropped()
        ticket.refused(refusal())
        self.successResultOf(self.enter())

    def test_bounded(self) -> None:
        """Refusals are kept; the rest is forgotten when there are too many."""
        self.successResultOf(self.enter()).refused(refusal())
        for number in range(5000):
            self.successResultOf(self.enter(("user", number))).accepted()
        self.assertLess(len(self.guard._accounts), 4200)
        self.failureResultOf(self.enter(), CredentialsRejected)
