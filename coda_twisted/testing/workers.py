"""Work that would be run in threads, run at once."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from coda_twisted.auth.steps import Work

__all__ = ["InlineWorkers"]


class InlineWorkers:
    """
    Run work while the caller waits, so that a test needs no reactor.

    It is a :class:`~coda_twisted.client.workers.RunsWork`.
    """

    def run(self, work: Work) -> Deferred[Any]:
        """
        Run it.

        :returns: Has fired already.
        """
        try:
            return succeed(work.run())
        except Exception:
            return fail()

    def stop(self) -> None:
        """Do nothing: nothing is under way."""
