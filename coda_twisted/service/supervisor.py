"""
Which worker serves, which one comes and which ones go.

Each listening socket is a *place*.  A place has at most one worker that serves it, at
most one that is coming, and those that are leaving: they accept nothing any more and
finish what they have.  A worker that comes takes over when it says that it is ready,
so that a place is never without one because of us; what is queued at the socket waits
for whoever serves it next.

Nothing here knows of processes: ``spawn`` makes them, and they are told and tell by
method calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from coda_twisted.service.lifecycle import STOP_IDLE

__all__ = ["Child", "Supervisor"]

STEADY = 10.0
"""Seconds after which a worker that ends is not taken for one that cannot begin."""

FIRST_DELAY = 0.5
"""Seconds before a place is filled for the third time; then twice as many each time."""

LONGEST_DELAY = 30.0
"""Seconds between two tries, at most."""

RELOAD_IDLE = 15.0
"""
Seconds for which a worker that leaves keeps connections without a request.

The next request on each is answered, and the answer says that it was the last: closing
at once would meet requests that are on their way.
"""

MOST_LEAVING = 8
"""
Workers of one place that may be leaving at once; the oldest is cut off then.

A tunnel may stay open for days, and with it the worker that holds it.
"""

PATIENCE = 5.0
"""Seconds for which a worker may outlive the moment when it should have ended."""


class Child(Protocol):
    """A worker, as the supervisor knows it."""

    number: int

    def drain(self, seconds: float | None, idle: float) -> None:
        """Have it accept nothing, finish, and end after *seconds* at the latest."""

    def kill(self) -> None:
        """End it now, whatever it does."""


@dataclass(slots=True)
class _Place:
    """
    One listening socket.

    :ivar again: Whether whoever comes is to be replaced at once: it began before the
        last reload.
    :ivar failures: Workers that ended early, one after another.
    """

    index: int
    serving: Child | None = None
    coming: Child | None = None
    leaving: list[Child] = field(default_factory=list)
    again: bool = False
    failures: int = 0
    began: float = 0.0
    retry: IDelayedCall | None = None

    @property
    def children(self) -> list[Child]:
        """All that live."""
        return [
            child
            for child in (self.serving, self.coming, *self.leaving)
            if child is not None
        ]


class Supervisor:
    """
    Keep each place served.

    :param places: How many there are.
    :param spawn: Starts a worker, given its place and its number; calls
        :meth:`ready`, :meth:`leaves` and :meth:`ended` for it, the last once.
    """

    log = Logger()

    def __init__(
        self, clock: IReactorTime, places: int, spawn: Callable[[int, int], Child]
    ) -> None:
        self._clock = clock
        self._spawn = spawn
        self._places = [_Place(index) for index in range(places)]
        self._last_number = 0
        self._stopped: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None

    @property
    def children(self) -> list[Child]:
        """All workers that live."""
        return [child for place in self._places for child in place.children]

    def start(self) -> None:
        """Fill every place."""
        if self._stopped is None:
            for place in self._places:
                self._begin(place)

    def _begin(self, place: _Place) -> None:
        place.retry = None
        place.again = False
        place.began = self._clock.seconds()
        self._last_number += 1
        place.coming = self._spawn(place.index, self._last_number)

    def _place_of(self, child: Child) -> _Place:
        [place] = [each for each in self._places if child in each.children]
        return place

    # What workers say

    def ready(self, child: Child) -> None:
        """Take note that a worker accepts connections."""
        place = self._place_of(child)
        if place.coming is not child:
            return
        before, place.serving, place.coming = place.serving, child, None
        if before is not None:
            self._leave(place, before)
        if place.again and self._stopped is None:
            self._begin(place)

    def leaves(self, child: Child) -> None:
        """Take note that somebody asked a worker to end: it gets a successor first."""
        place = self._place_of(child)
        if self._stopped is None and place.serving is child and place.coming is None:
            self._begin(place)

    def ended(self, child: Child, how: str) -> None:
        """
        Take note that a worker is gone.

        :param how: For people.
        """
        place = self._place_of(child)
        if child in place.leaving:
            place.leaving.remove(child)
        elif child is place.coming:
            place.coming = None
            self._lost(place, child, how)
        else:
            place.serving = None
            self._lost(place, child, how)
        self._check_stopped()

    def _lost(self, place: _Place, child: Child, how: str) -> None:
        """See that a place is served again."""
        if self._stopped is not None:
            return
        if place.coming is not None:
            self.log.error("worker {n} {how}", n=child.number, how=how)
            return
        if place.serving is not None:
            self.log.error(
                "worker {n} {how} before it was ready; worker {other} goes on",
                n=child.number,
                how=how,
                other=place.serving.number,
            )
            return
        lived = self._clock.seconds() - place.began
        place.failures = place.failures + 1 if lived < STEADY else 1
        delay = 0.0
        if place.failures > 1:
            delay = min(FIRST_DELAY * 2.0 ** (place.failures - 2), LONGEST_DELAY)
        self.log.error(
            "worker {n} {how}; another takes its place {when}",
            n=child.number,
            how=how,
            when=f"in {delay:g} s" if delay else "now",
        )
        place.retry = self._clock.callLater(delay, self._begin, place)

    # What is asked of all

    def reload(self) -> None:
        """Replace every worker."""
        for place in self._places if self._stopped is None else ():
            if place.coming is not None:
                place.again = True
            else:
                if place.retry is not None:
                    place.retry.cancel()
                self._begin(place)

    def _leave(self, place: _Place, child: Child) -> None:
        child.drain(None, RELOAD_IDLE)
        place.leaving.append(child)
        if len(place.leaving) > MOST_LEAVING:
            oldest = place.leaving[-MOST_LEAVING - 1]
            self.log.warn(
                "worker {n} still had connections when {most} others had left after "
                "it: they are cut",
                n=oldest.number,
                most=MOST_LEAVING,
            )
            oldest.drain(0, 0)

    def stop(self, seconds: float) -> Deferred[None]:
        """
        End every worker.

        :param seconds: For what is under way.
        :returns: Fires when the last is gone.
        """
        self._stopped = Deferred()
        for place in self._places:
            if place.retry is not None:
                place.retry.cancel()
                place.retry = None
        self._end(seconds, STOP_IDLE)
        self._check_stopped()
        return self._stopped

    def cut(self) -> None:
        """End every worker at once."""
        if self.children:
            self._end(0, 0)

    def _end(self, seconds: float, idle: float) -> None:
        for child in self.children:
            child.drain(seconds, idle)
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._clock.callLater(seconds + PATIENCE, self._kill)

    def _kill(self) -> None:
        self._deadline = None
        for child in self.children:
            self.log.error("worker {n} does not end: it is killed", n=child.number)
            child.kill()

    def _check_stopped(self) -> None:
        if self._stopped is None or self._stopped.called or self.children:
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._stopped.callback(None)
