"""Work that may block, off the reactor's thread."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from coda_twisted.auth.steps import Work
from coda_twisted.errors import PhaseTimeout

__all__ = ["RunsWork", "ThreadWorkers"]

MAX_THREADS = 8
"""A KDC that does not answer holds a thread for 25 s; seven go on meanwhile."""


class RunsWork(Protocol):
    """Runs a :class:`~coda_twisted.auth.steps.Work` somewhere."""

    def run(self, work: Work) -> Deferred[Any]:
        """Fire with what the work returned, fail with what it raised."""

    def stop(self) -> None:
        """Take no more work."""


class _DaemonThread(Thread):
    """A thread that does not keep the process alive while a KDC is silent."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.daemon = True


class ThreadWorkers:
    """
    A thread pool of its own, started with the first piece of work.

    The reactor's pool resolves names; a KDC that is down must not stop that.
    """

    def __init__(self, reactor: Any) -> None:
        # IReactorCore, IReactorFromThreads and IReactorTime at once, for which there
        # is no type.
        self._reactor: Any = reactor
        self._pool: ThreadPool | None = None
        self._trigger: Any = None
        self._busy = 0

    def run(self, work: Work) -> Deferred[Any]:
        """
        Run it in a thread.

        :returns: As :meth:`RunsWork.run`; fails with :class:`PhaseTimeout` after
            the work's own limit.  The thread cannot be stopped and is left to
            itself then.
        """
        if self._pool is None:
            self._pool = ThreadPool(minthreads=0, maxthreads=MAX_THREADS, name="coda")
            self._pool.threadFactory = _DaemonThread
            self._pool.start()
            self._trigger = self._reactor.addSystemEventTrigger(
                "during", "shutdown", self._shut_down
            )
        outcome: Deferred[Any] = Deferred()
        timer = self._reactor.callLater(work.timeout, _expire, outcome, work.timeout)

        def settle(result: Any) -> None:
            self._busy -= 1
            if timer.active():
                timer.cancel()
            if not outcome.called:
                if isinstance(result, Failure):
                    outcome.errback(result)
                else:
                    outcome.callback(result)

        self._busy += 1
        deferToThreadPool(self._reactor, self._pool, work.run).addBoth(settle)
        return outcome

    def _shut_down(self) -> None:
        """Stop with the reactor, which has let go of its trigger by now."""
        self._trigger = None
        self.stop()

    def stop(self) -> None:
        """Let the threads end; do not wait for one that a silent KDC holds."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        if self._trigger is not None:
            trigger, self._trigger = self._trigger, None
            self._reactor.removeSystemEventTrigger(trigger)
        if self._busy == 0:
            pool.stop()


def _expire(outcome: Deferred[Any], seconds: float) -> None:
    if not outcome.called:
        outcome.errback(PhaseTimeout("authentication", seconds))


_: Callable[[Any], RunsWork] = ThreadWorkers
