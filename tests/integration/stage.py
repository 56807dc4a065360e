"""
A stage for faults: services in this process, and both of their neighbours in one hand.

All of it shares one reactor, so that a case can say in which order things happen, and
what they leave behind can be counted: descriptors, timers, connections and objects.
"""

from __future__ import annotations

import gc
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

import h11
from twisted.internet import ssl
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from coda_twisted.service.options import Options
from coda_twisted.service.pipes import Pipe
from coda_twisted.service.server import ProxyService
from tests.integration.certificates import Authority, authority
from tests.integration.servers import free_port, workspace

__all__ = ["LIMIT", "Answer", "Names", "Stage", "Stream", "Traces"]

LIMIT = 0.4
"""Seconds that each phase may take."""

PATIENCE = 3.0
"""Seconds after which whoever waits for something gives up."""

WINDOW = 4096
"""Octets that an end takes before it reads them, where it is not to take many."""


@implementer(IHalfCloseableProtocol)
class Stream(Protocol):
    """
    One connection, whose other end is the service; every octet is the case's.

    :ivar ended: How the other end has ended: ``""`` for not at all, ``"end"`` in good
        order, ``"reset"`` otherwise.
    :ivar gone: Whether the connection is closed.
    """

    def __init__(self, everybody: set[Stream]) -> None:
        self.ended = ""
        self.gone = False
        self._everybody = everybody
        self._held = b""
        self._woken: Deferred[None] | None = None

    def connectionMade(self) -> None:
        self._everybody.add(self)

    def dataReceived(self, data: bytes) -> None:
        self._held += data
        self._wake()

    def readConnectionLost(self) -> None:
        self.ended = "end"
        self._wake()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = self.ended or ("end" if reason.check(ConnectionDone) else "reset")
        self.gone = True
        self._everybody.discard(self)
        self._wake()

    def _wake(self) -> None:
        woken, self._woken = self._woken, None
        if woken is not None:
            woken.callback(None)

    async def _more(self) -> bool:
        """Wait until more has come, or the end; whether it was more."""
        if self.ended:
            return False
        before = len(self._held)
        self._woken = Deferred()
        await self._woken
        return len(self._held) > before or not self.ended

    # What a case does

    def send(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[union-attr]

    def finish(self) -> None:
        """End our half in good order, and go on reading."""
        self.transport.loseWriteConnection()  # type: ignore[union-attr]

    def close(self) -> None:
        """End both halves: in good order, unless there is something unread."""
        self.transport.loseConnection()  # type: ignore[union-attr]

    def reset(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]

    def stop_reading(self) -> None:
        self.transport.pauseProducing()  # type: ignore[union-attr]

    async def until(self, mark: bytes) -> bytes:
        """All up to *mark*, and *mark*."""
        while mark not in self._held:
            if not await self._more():
                raise EOFError(f"{self.ended} after {self._held[-200:]!r}")
        data, mark, self._held = self._held.partition(mark)
        return data + mark

    async def exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            if not await self._more():
                raise EOFError(f"{self.ended} after {len(self._held)} octets")
        data, self._held = self._held[:size], self._held[size:]
        return data

    async def head(self) -> bytes:
        """A head; the one of a request that was sent whole is all there is."""
        return await self.until(b"\r\n\r\n")

    async def rest(self) -> bytes:
        """All that comes until the other end ends, in whichever way."""
        while await self._more():
            pass
        data, self._held = self._held, b""
        return data

    def take(self) -> bytes:
        """What is here."""
        data, self._held = self._held, b""
        return data

    async def some(self) -> bytes:
        while not self._held and await self._more():
            pass
        return self.take()


@dataclass
class Answer:
    """
    What a client saw, by the judgement of h11.

    :ivar status: 0 if there was no head.
    :ivar complete: Whether it can be taken for complete.
    :ivar ended: As of :class:`Stream`, where the answer did not end by itself.
    """

    status: int
    fields: dict[bytes, bytes]
    content: bytes
    complete: bool
    ended: str


@implementer(IHostnameResolver, IHostResolution)
class Names:
    """
    Finds what the case says; addresses it finds itself.

    :ivar known: Addresses by name; ``None`` never says anything.
    :ivar asked: How often each name was looked up.
    """

    def __init__(self) -> None:
        self.known: dict[str, str | None] = {}
        self.asked: Counter[str] = Counter()
        self.name = ""

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        self.asked[hostName] += 1
        resolutionReceiver.resolutionBegan(self)
        found: str | None = hostName
        if not hostName.replace(".", "").isdigit():
            if hostName in self.known and self.known[hostName] is None:
                return self
            found = self.known.get(hostName)
        if found is not None:
            address: Any = IPv4Address("TCP", found, portNumber)
            resolutionReceiver.addressResolved(address)
        resolutionReceiver.resolutionComplete()
        return self

    def cancel(self) -> None:
        pass


@dataclass
class Traces:
    """
    What can be left behind; what was not counted is ``None``.

    :ivar connections: Of clients; of pools all that there are, those with a place,
        those that are idle, and who waits for one.
    :ivar descriptors: What is open, by kind: ``socket``, ``pipe``; without the pipes
        that the services keep for the next to need one.
    :ivar timers: Pending calls, by what they call.
    :ivar objects: Of ours, by class.
    """

    connections: tuple[int, ...]
    descriptors: Counter[str] | None = None
    timers: Counter[str] | None = None
    objects: Counter[str] | None = None

    def excess(self, before: Traces) -> str:
        """What is here and was not before; empty if that is nothing."""
        found = []
        for name in ("descriptors", "timers", "objects"):
            here, there = getattr(self, name), getattr(before, name)
            if here is not None and there is not None and here - there:
                found.append(f"{name}: {dict(here - there)}")
        if self.connections != before.connections:
            found.append(f"connections: {self.connections}, not {before.connections}")
        return "; ".join(found)


class Stage:
    """
    Services, their clients and the next servers.

    :ivar direct: Goes to servers itself.
    :ivar above: Goes through a proxy, which is :meth:`accept`'s.
    :ivar ntlm: So, and is somebody there by NTLM.
    :ivar secure: So, by TLS, which is :meth:`accept_tls`'s.
    :ivar port: The next server's.
    :ivar names: What names mean.
    :ivar name: The next server's, which means something if the case says so.

    :param names: Those of another stage in the same process.
    """

    def __init__(
        self, reactor: Any, limit: float = LIMIT, names: Names | None = None
    ) -> None:
        self.reactor = reactor
        self.limit = limit
        self.names = names or Names()
        self._resolver = None
        if names is None:
            self._resolver = reactor.installNameResolver(self.names)
        self.streams: set[Stream] = set()
        self._accepted: deque[Stream] = deque()
        self._awaited: Deferred[None] | None = None
        self.port = free_port()
        self.name = f"flaky-{self.port}.test"
        self._listening: Any = None
        self.listen()
        self._tls: Any = None
        self.tls_port = free_port()
        self.services: list[ProxyService] = []
        password = workspace() / "password-of-faults"
        password.write_text("secret\n")
        proxy = f"--proxy=http://127.0.0.1:{self.port}"
        self.direct = self._serve()
        self.above = self._serve(proxy, "--proxy-type=noauth")
        self.ntlm = self._serve(
            *(proxy, "--proxy-type=ntlm", "--user=CORP\\alice"),
            f"--password-file={password}",
        )
        self.secure = self._serve(
            f"--proxy=https://127.0.0.1:{self.tls_port}",
            *("--proxy-type=noauth", f"--proxy-ca={authority().ca}"),
        )

    def _serve(self, *options: str) -> ProxyService:
        limits = (
            *("head", "content", "answer", "linger", "connect", "tls", "send"),
            *("response", "response-content", "half-closed"),
        )
        parsed = Options()
        parsed.parseOptions(
            [
                *("--port=0", "--quiet", "--drain-timeout=0", *options),
                *(f"--{name}-timeout={self.limit}" for name in limits),
                f"--tunnel-timeout={2 * self.limit}",
            ]
        )
        service = ProxyService(self.reactor, parsed, b"coda-stage", [])
        service.startService()
        self.services.append(service)
        return service

    async def close(self) -> None:
        """Take it down."""
        for service in self.services:
            await service.stopService()
        await self.refuse()
        await self._refuse_tls()
        while self.streams:
            for stream in list(self.streams):
                stream.reset()
            await self.sleep(0.001)
        if self._resolver is not None:
            self.reactor.installNameResolver(self._resolver)

    def sleep(self, seconds: float) -> Deferred[None]:
        return deferLater(self.reactor, seconds)

    # The next server

    @property
    def authority(self) -> str:
        """The next server's host and port."""
        return f"127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Have the next server listen, if it does not."""
        if self._listening is None:
            self._listening = self.reactor.listenTCP(
                self.port, _Accepting(self), interface="127.0.0.1"
            )
            # Its connections inherit that: it takes no more than it reads.
            self._listening.socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW
            )

    async def refuse(self) -> None:
        """Have the next server listen no more."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stopListening()

    async def listen_tls(self, good: bool = True, name: str = "127.0.0.1") -> None:
        """
        Have the next server speak TLS, with a certificate for *name*.

        :param good: Whether its authority is to be trusted.
        """
        await self._refuse_tls()
        issuer = authority() if good else _stranger()
        key = (good, name)
        if key not in _CONTEXTS:
            certificate = issuer.issue(f"faults-{name}", (name,))
            _CONTEXTS[key] = ssl.DefaultOpenSSLContextFactory(
                str(certificate.key), str(certificate.chain)
            )
        self._tls = self.reactor.listenSSL(
            self.tls_port, _Accepting(self), _CONTEXTS[key], interface="127.0.0.1"
        )

    async def listen_plain(self) -> None:
        """Have it speak whatever the case does, where TLS is awaited."""
        await self._refuse_tls()
        self._tls = self.reactor.listenTCP(
            self.tls_port, _Accepting(self), interface="127.0.0.1"
        )

    async def _refuse_tls(self) -> None:
        listening, self._tls = self._tls, None
        if listening is not None:
            await listening.stopListening()

    def accepted(self, stream: Stream) -> None:
        self._accepted.append(stream)
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.callback(None)

    async def accept(self) -> Stream:
        """Take the next connection of the service."""
        while not self._accepted:
            self._awaited = Deferred()
            await self._awaited
        return self._accepted.popleft()

    @property
    def waiting(self) -> int:
        """How many connections of the service nobody has taken."""
        return len(self._accepted)

    # Clients

    def connect(self, service: ProxyService, window: int | None = None) -> Stream:
        """
        Connect a client.

        :param window: Octets that it takes before it reads them.
        """
        [(_, port)] = service._proxy.access.listening
        connecting = socket.socket()
        if window is not None:
            connecting.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        connecting.connect(("127.0.0.1", port))  # the kernel accepts
        connecting.setblocking(False)
        factory = Factory()
        client = Stream(self.streams)
        factory.buildProtocol = lambda addr: client  # type: ignore[method-assign]
        factory.noisy = False
        self.reactor.adoptStreamConnection(connecting.fileno(), socket.AF_INET, factory)
        connecting.close()
        return client

    async def answer(self, client: Stream, method: str = "GET") -> Answer:
        """Read an answer, until it or the connection ends."""
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        reader.send(h11.EndOfMessage())
        found = Answer(0, {}, b"", False, "")
        while True:
            event = reader.next_event()
            if event is h11.NEED_DATA:
                data = await client.some()
                if not data and client.ended == "reset":
                    found.ended = "reset"
                    return found
                reader.receive_data(data)
                if not data:
                    found.ended = client.ended
                    try:
                        event = reader.next_event()
                    except h11.RemoteProtocolError:
                        return found
                    found.complete = isinstance(event, h11.EndOfMessage)
                    return found
            elif isinstance(event, h11.Response):
                found.status = event.status_code
                found.fields = dict(event.headers)
            elif isinstance(event, h11.Data):
                found.content += event.data
            elif isinstance(event, h11.EndOfMessage):
                found.complete = True
                client._held = (reader.trailing_data[0] or b"") + client._held
                return found

    async def page(self, client: Stream, status: int, error: str) -> Answer:
        """Expect a page of ours that says why."""
        answer = await self.answer(client)
        said = answer.fields.get(b"proxy-status", b"").decode()
        assert (answer.status, answer.complete) == (status, True), (answer, said)
        assert f"error={error};" in said, said
        return answer

    async def whole(
        self, client: Stream, status: int = 200, content: bytes = b"content"
    ) -> Answer:
        """Expect an answer that is complete and correct."""
        answer = await self.answer(client)
        seen = (answer.status, answer.content, answer.complete)
        assert seen == (status, content, True), answer
        return answer

    async def cut(self, client: Stream, begin: bytes | None = None) -> Answer:
        """Expect an answer that nobody can take for a complete one."""
        answer = await self.answer(client)
        assert answer.status == 200 and not answer.complete, answer
        if begin is not None:
            assert answer.content == begin, answer
        return answer

    async def end(self, stream: Stream) -> str:
        """Wait until the service has let go of a connection; in which way it did."""
        await stream.rest()
        return stream.ended

    # Cases, and what they leave

    async def run(
        self, case: Callable[[Stage], Coroutine[Any, Any, None]], seconds: float
    ) -> None:
        """Play a case, which may take so long."""
        running = Deferred.fromCoroutine(case(self))
        await running.addTimeout(seconds, self.reactor)

    def connections(self) -> Traces:
        """Count what is this stage's own."""
        pools = [service._proxy.client._pool for service in self.services]
        shelves = [shelf for pool in pools for shelf in pool._shelves.values()]
        return Traces(
            (
                sum(len(service._proxy.connections) for service in self.services),
                sum(len(pool._all) for pool in pools),
                sum(shelf.open for shelf in shelves),
                sum(len(shelf.idle) for shelf in shelves),
                sum(len(shelf.waiters) for shelf in shelves),
            )
        )

    def traces(self, *, objects: bool = False) -> Traces:
        """Count what there is in the whole process, too."""
        timers = Counter(
            getattr(call.func, "__qualname__", repr(call.func))
            for call in self.reactor.getDelayedCalls()
        )
        # At most one for each pool, and it does nothing if nothing is idle by then.
        timers.pop("Pool._expire", None)
        descriptors = _descriptors()
        for service in self.services:
            pipes = service._proxy.pipes
            for kind in (pipes._large, pipes._small):
                descriptors["pipe"] -= 2 * len(kind._idle)
        return replace(
            self.connections(),
            descriptors=descriptors,
            timers=timers,
            objects=_objects() if objects else None,
        )

    async def settle(self, before: Traces) -> str:
        """
        Let go of everything, and wait until no more is there than before.

        :returns: What is there all the same, after :data:`PATIENCE`; else nothing.
        """
        self.names.known.pop(self.name, None)
        self.names.asked.pop(self.name, None)
        for stream in list(self.streams):
            stream.reset()
        self._accepted.clear()
        for service in self.services:
            service._proxy.client._pool.close_idle()
        self.listen()
        await self._refuse_tls()
        until = time.monotonic() + PATIENCE
        while True:
            if before.descriptors is None:
                excess = self.connections().excess(before)
            else:
                excess = self.traces().excess(before)
            if not excess and before.objects is not None:
                excess = self.traces(objects=True).excess(before)
            if not excess or time.monotonic() > until:
                return excess
            await self.sleep(0.002)


class _Accepting(Factory):
    """Makes what the next server has of its connections."""

    noisy = False

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def buildProtocol(self, addr: IAddress | None) -> Stream:
        return _Accepted(self._stage)


class _Accepted(Stream):
    """A connection of the service to the next server."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.streams)
        self._stage: Stage | None = stage

    def connectionMade(self) -> None:
        super().connectionMade()
        stage, self._stage = self._stage, None
        assert stage is not None
        stage.accepted(self)


_CONTEXTS: dict[tuple[bool, str], Any] = {}


def _stranger() -> Authority:
    """Make an authority that nobody trusts."""
    if not _STRANGERS:
        _STRANGERS.append(Authority("stranger-of-faults"))
    return _STRANGERS[0]


_STRANGERS: list[Authority] = []


def _descriptors() -> Counter[str]:
    kinds: Counter[str] = Counter()
    for each in Path("/proc/self/fd").iterdir():
        try:
            kinds[os.readlink(each).partition(":")[0]] += 1
        except OSError:
            continue  # the directory's own
    return kinds


def _objects() -> Counter[str]:
    gc.collect()
    return Counter(
        type(each).__qualname__
        for each in gc.get_objects()
        if str(type(each).__module__).startswith("coda_twisted.")
        # The pools of threads and of pipes grow as they like, to their limits.
        and not isinstance(each, (Thread, Pipe))
    )
