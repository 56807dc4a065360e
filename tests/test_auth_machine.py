"""Every state of :mod:`coda_twisted.auth.layer`, and every input to it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from coda_twisted.auth.layer import AuthLayer, Context, State
from coda_twisted.auth.memory import SpaceMemory
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import GiveUp, Peer, Reply, Step, Work
from coda_twisted.errors import (
    AuthenticationFailed,
    ChallengeError,
    CredentialsRejected,
    MutualAuthenticationFailed,
)
from coda_twisted.interfaces import ICredentials
from tests.test_auth_layer import NO, PEER, PROBE, REJECTED, REQUEST, WORK, Scripted
from tests.test_auth_layer import asks as asks_for

VERDICTS = (REJECTED, CredentialsRejected("no", identity="alice"))
FAILURES = (NO, ChallengeError("malformed"), AuthenticationFailed("no"))

SAYS = st.sampled_from(
    [b"x", Reply(b"y", logon=False), PROBE, WORK, WORK, None, *VERDICTS, *FAILURES]
)
SCRIPTS = st.lists(SAYS, min_size=8, max_size=8)
CHALLENGES = st.lists(
    st.sampled_from([b"Negotiate", b"NTLM", b"NTLM xxxx", b"Basic realm=r", b"Frob"]),
    max_size=4,
)


class Watched(Scripted):
    """A conversation that follows the machine's script, and tells it how it ended."""

    def __init__(self, machine: Machine, scheme: str) -> None:
        super().__init__(scheme, machine.script, bound=scheme != "basic")
        self.machine = machine

    def _next(self, heard: Any) -> Step:
        self.script = self.machine.script
        if self.machine.layer._state is State.TALKING:
            if self.script[0] in VERDICTS:
                self.machine.rejected = True
            elif self.script[0] in FAILURES:
                self.machine.dead.add(self.scheme)
        return super()._next(heard)


@implementer(ICredentials)
class Machine(RuleBasedStateMachine):
    """
    A driver that does anything, with conversations that say anything.

    It is its own credentials.
    """

    identity: Hashable = "alice"
    fingerprint: Hashable = 1

    def __init__(self) -> None:
        super().__init__()
        self.script: list[Any] = []
        self.begun: list[Watched] = []
        self.dead: set[str] = set()
        self.working = self.rejected = False
        context = Context(AuthPolicy(), SpaceMemory(), None, lambda size: bytes(size))
        self.layer = AuthLayer(PEER, self, context)

    def schemes(self) -> Sequence[str]:
        return ("negotiate", "ntlm", "basic")

    def conversation(self, scheme: str, peer: Peer, context: Context) -> Watched:
        assert scheme not in self.dead, "begun though dead"
        assert not self.rejected, "begun though the secret was refused"
        assert not self.live, "two at once"
        conversation = Watched(self, scheme)
        self.begun.append(conversation)
        return conversation

    @property
    def live(self) -> list[Watched]:
        return [each for each in self.begun if not each.gone]

    def follow(self, script: list[Any]) -> None:
        self.script = list(script)
        self.rejected = False

    def look_at(self, step: Step) -> None:
        self.working = isinstance(step, Work)
        if isinstance(step, GiveUp):
            assert not self.live, "a conversation outlives its end"
            assert step.reason
            assert step.rejected or not self.rejected, "a verdict is lost"
        else:
            assert not self.rejected, "a verdict is lost"

    @rule(script=SCRIPTS)
    def start(self, script: list[Any]) -> None:
        self.follow(script)
        self.look_at(self.layer.start(REQUEST))

    @precondition(lambda self: not self.working)
    @rule(script=SCRIPTS, challenges=CHALLENGES)
    def challenged(self, script: list[Any], challenges: list[bytes]) -> None:
        self.follow(script)
        self.look_at(self.layer.challenged(asks_for(*challenges), REQUEST))

    @precondition(lambda self: self.working)
    @rule(script=SCRIPTS, fails=st.booleans())
    def outcome(self, script: list[Any], fails: bool) -> None:
        self.follow(script)
        report: Any = self.layer.failed if fails else self.layer.worked
        self.look_at(report(ValueError()))

    @precondition(lambda self: not self.working)
    @rule(says=st.sampled_from([None, None, WORK, NO, ChallengeError("x")]))
    def accepted(self, says: Any) -> None:
        self.follow([says])
        self.look_at(self.layer.accepted([]))
        if not self.working:
            self.begun.clear()  # one that was accepted may end unheard

    @precondition(lambda self: not self.working)
    @rule()
    def not_proven(self) -> None:
        self.follow([MutualAuthenticationFailed("no")])
        before = self.layer._memory.scheme
        try:
            self.layer.accepted([])
        except MutualAuthenticationFailed:
            assert not self.live
            assert self.layer.identity is None
            assert self.layer._memory.scheme == before

    @precondition(lambda self: self.working)
    @rule()
    def out_of_turn(self) -> None:
        for report in (
            lambda: self.layer.challenged(asks_for(b"NTLM"), REQUEST),
            lambda: self.layer.accepted([]),
        ):
            try:
                report()
            except RuntimeError:
                continue
            raise AssertionError("work was under way")

    @precondition(lambda self: not self.working)
    @rule()
    def no_work(self) -> None:
        try:
            self.layer.worked(b"")
        except RuntimeError:
            return
        raise AssertionError("no work was under way")

    @rule()
    def lost(self) -> None:
        self.layer.lost()
        self.working = False
        assert not self.live
        assert self.layer.identity is None

    @rule()
    def successor(self) -> None:
        self.lost()
        self.layer = self.layer.successor()

    @rule()
    def moved(self) -> None:
        self.layer.moved(None)
        assert not self.layer.needs_fresh_connection

    @invariant()
    def work_has_a_worker(self) -> None:
        assert not self.working or len(self.live) == 1


class MachineTests(SynchronousTestCase):
    """What holds whatever happens."""

    def test_machine(self) -> None:
        """One conversation at a time, none that is dead, none after a verdict."""
        run_state_machine_as_test(
            Machine, settings=settings(max_examples=100, stateful_step_count=20)
        )
