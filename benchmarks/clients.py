"""
The libraries as their documentation uses them: a program of its own.

``python -m benchmarks.clients NAME URL COUNT`` makes requests, 16 at once on
connections that are kept, reads each content, and writes the ns of processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.wire import BODY

__all__ = ["CLIENTS", "Client"]

AT_ONCE = 16
Fetch = Callable[[], Awaitable[None]]


def check(status: int, content: bytes) -> None:
    """Refuse to count anything but the right answer."""
    if status != 200 or content != BODY:
        raise AssertionError(f"status {status}, {len(content)} octets")


class Turns:
    """Hands out so many turns."""

    def __init__(self, count: int) -> None:
        self._turns = iter(range(count))

    def take(self) -> bool:
        """Tell whether there is one left."""
        return next(self._turns, None) is not None


def under_twisted(make: Callable[[Any, bytes], Fetch], url: str, count: int) -> int:
    """Run a client of Twisted's."""
    from twisted.internet.defer import Deferred, gatherResults
    from twisted.internet.task import react

    used = 0

    async def work(fetch: Fetch, turns: Turns) -> None:
        while turns.take():
            await fetch()

    async def main(reactor: Any) -> None:
        nonlocal used
        fetch = make(reactor, url.encode("ascii"))
        for number in (10 * AT_ONCE, count):
            begin = time.process_time_ns()
            turns = Turns(number)
            await gatherResults(
                [Deferred.fromCoroutine(work(fetch, turns)) for _ in range(AT_ONCE)]
            )
            used = time.process_time_ns() - begin

    def run(reactor: Any) -> Any:
        return Deferred.fromCoroutine(main(reactor))

    try:
        react(run, [])
    except SystemExit as end:
        if end.code:
            raise
    return used


def _coda_agent(reactor: Any) -> Any:
    from coda_twisted import Agent

    return Agent(reactor)


def _twisted_agent(reactor: Any) -> Any:
    from twisted.web.client import Agent, HTTPConnectionPool

    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = AT_ONCE
    return Agent(reactor, pool=pool)


def _by_agent(make: Callable[[Any], Any]) -> Callable[[str, int], int]:
    def start(reactor: Any, url: bytes) -> Fetch:
        from twisted.web.client import readBody

        agent = make(reactor)

        async def fetch() -> None:
            response = await agent.request(b"GET", url)
            check(response.code, await readBody(response))

        return fetch

    return lambda url, count: under_twisted(start, url, count)


def _by_treq(make: Callable[[Any], Any]) -> Callable[[str, int], int]:
    def start(reactor: Any, url: bytes) -> Fetch:
        from treq.client import HTTPClient

        client = HTTPClient(make(reactor))

        async def fetch() -> None:
            response = await client.get(url.decode("ascii"))
            check(response.code, await response.content())

        return fetch

    return lambda url, count: under_twisted(start, url, count)


async def _gather(fetch: Fetch, count: int) -> int:
    used = 0
    for number in (10 * AT_ONCE, count):
        begin = time.process_time_ns()
        turns = Turns(number)

        async def work(turns: Turns = turns) -> None:
            while turns.take():
                await fetch()

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        used = time.process_time_ns() - begin
    return used


def _aiohttp(url: str, count: int) -> int:
    import aiohttp

    async def main() -> int:
        async with aiohttp.ClientSession() as session:

            async def fetch() -> None:
                async with session.get(url) as response:
                    check(response.status, await response.read())

            return await _gather(fetch, count)

    return asyncio.run(main())


def _httpx(url: str, count: int) -> int:
    import httpx

    async def main() -> int:
        async with httpx.AsyncClient() as client:

            async def fetch() -> None:
                response = await client.get(url)
                check(response.status_code, response.content)

            return await _gather(fetch, count)

    return asyncio.run(main())


def _requests(url: str, count: int) -> int:
    import requests

    sessions = [requests.Session() for _ in range(AT_ONCE)]
    faults: list[BaseException] = []
    used = 0

    def work(session: requests.Session, turns: itertools.count[int], last: int) -> None:
        try:
            # The counter's step is atomic, which a generator's is not.
            while next(turns) < last:
                response = session.get(url)
                check(response.status_code, response.content)
        except BaseException as fault:  # told by the main thread
            faults.append(fault)

    for number in (10 * AT_ONCE, count):
        begin = time.process_time_ns()
        turns = itertools.count()
        threads = [
            threading.Thread(target=work, args=(session, turns, number))
            for session in sessions
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        used = time.process_time_ns() - begin
    if faults:
        raise faults[0]
    return used


@dataclass(frozen=True)
class Client:
    """
    A library.

    :ivar module: What must be importable.
    :ivar run: Makes so many requests and tells the ns that they took.
    """

    module: str
    run: Callable[[str, int], int]


CLIENTS = {
    "coda Agent": Client("coda_twisted", _by_agent(_coda_agent)),
    "Twisted Agent": Client("twisted", _by_agent(_twisted_agent)),
    "treq on coda": Client("treq", _by_treq(_coda_agent)),
    "treq on Twisted": Client("treq", _by_treq(_twisted_agent)),
    "aiohttp": Client("aiohttp", _aiohttp),
    "requests": Client("requests", _requests),
    "httpx": Client("httpx", _httpx),
}


def main() -> None:
    """Measure one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=CLIENTS)
    parser.add_argument("url")
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    print(CLIENTS[arguments.name].run(arguments.url, arguments.count))


if __name__ == "__main__":
    main()
