"""
Faults at every step: an honest outcome, no hanging, and nothing left behind.

The table is in :mod:`tests.integration.faults`; ``python -m benchmarks.faults`` goes
through it again and again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.integration.faults import FAULTS, Fault
from tests.integration.stage import Stage

PATIENCE = 10.0
"""Seconds after which a case hangs."""


@skipUnless(Path("/proc/self/fd").exists(), "descriptors are counted in /proc/self/fd")
class FaultTests(TestCase):
    """One fault after another; each twice, so that its traces can be counted."""

    timeout = 20.0

    async def inject(self, fault: Fault) -> None:
        stage = Stage(reactor)
        try:
            await stage.sleep(0)  # the reactor, and trial's timer, are started by now
            # The first time leaves what is loaded, learnt and kept once.
            await self.once(stage, fault)
            before = stage.traces(objects=True)
            await self.once(stage, fault)
            if await stage.settle(before):
                # What is learnt of a peer is kept by several, who may keep one object.
                before = stage.traces(objects=True)
                await self.once(stage, fault)
                self.assertEqual(await stage.settle(before), "")
        finally:
            await stage.close()
        # Whatever happened was foreseen.
        self.assertEqual(self.flushLoggedErrors(), [])

    async def once(self, stage: Stage, fault: Fault) -> None:
        clean = stage.traces()
        await stage.run(fault.run, PATIENCE)
        self.assertEqual(await stage.settle(clean), "")


def _test(fault: Fault) -> Any:
    def test(self: FaultTests) -> Deferred[None]:
        return Deferred.fromCoroutine(self.inject(fault))

    test.__name__ = f"test_{fault.name}"
    test.__qualname__ = f"FaultTests.{test.__name__}"
    test.__doc__ = f"{fault.step}: {fault.what} - {fault.seen}."
    return test


for _fault in FAULTS:
    setattr(FaultTests, f"test_{_fault.name}", _test(_fault))
