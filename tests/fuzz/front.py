"""
The whole front end, between clients and servers that say and do anything.

An input is a play: pieces separated by the octet FF, of which the first octet says
what happens.  The first piece of all says which way the service goes.

    d       directly; p, through a proxy; a, through one at which it is somebody
    cDATA   the client sends DATA; C, it sends no more; x, it resets the connection
    n       another client connects, and is the client from now on
    f       the client takes no octets for now; F, it takes all again
    oDATA   the latest server sends DATA; O, it sends no more; X, it resets it
    s       the server takes no octets for now; S, it takes all again
    b       the server connected to before the latest is the server from now on
    tN      N times N seconds pass, N being a digit
    .       cut every DATA into single octets from now on

Judges are h11, which reads what the clients were answered and what the servers were
asked, and what stands in this file.  They look at octets; of the service they are told
which requests it took for such, in the order in which each client sent them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h11
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from zope.interface import implementer

from coda_twisted.client.connection import HTTPConnection, State
from coda_twisted.client.exchange import Client
from coda_twisted.client.guard import LogonGuard
from coda_twisted.client.timeouts import Timeouts
from coda_twisted.credentials import PasswordCredentials, StaticCredentials
from coda_twisted.http1.heads import RequestHead
from coda_twisted.http1.targets import Target, format_authority
from coda_twisted.routing.routes import Direct, HTTPProxy, Route, StaticRouter
from coda_twisted.service.access import Access
from coda_twisted.service.accesslog import AccessLog, Entry
from coda_twisted.service.frontend import ClientConnection
from coda_twisted.service.proxy import Proxy
from tests.front import Loop, Socket, connected
from tests.test_client_exchange import InlineWorkers
from tests.test_http1_oracles import llhttp_requests

__all__ = ["Play", "Side", "front", "judge"]

NAME = b"coda-fuzz"
MAX_PIECES = 64
_ROUTES: dict[bytes, tuple[Route, bool]] = {
    b"p": (HTTPProxy("http", "proxy", 3128), False),
    b"a": (HTTPProxy("http", "proxy", 3128), True),
}
_PAUSE = 0.001


@dataclass
class Taken:
    """A request that the service took for one."""

    number: int
    head: RequestHead
    target: Target | None
    status: int
    note: str


class WatchedLog(AccessLog):
    """The access log, which keeps what the service took for requests."""

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__(clock)
        self.taken: dict[str, list[Taken]] = {}

    def entry(self, *about: Any) -> Entry:
        request_id, client, head, target, status, _ = about
        taken = self.taken.setdefault(client.partition(":")[0], [])
        number = int(request_id[1:])
        assert number not in [each.number for each in taken], "logged twice"
        taken.append(Taken(number, head, target, status, ""))
        taken.sort(key=lambda each: each.number)
        return super().entry(*about)

    def ended(self, entry: Entry, octets: int, note: str = "") -> None:
        super().ended(entry, octets, note)
        for each in self.taken[entry.client.partition(":")[0]]:
            if each.number == int(entry.request_id[1:]):
                each.note = note


class Side:
    """
    One end of a connection, as the play has it.

    :ivar said: What was sent to the service here.
    :ivar answered: How many requests were answered here, where somebody counts.
    """

    def __init__(self, socket: Socket, protocol: Any) -> None:
        self.socket = socket
        self.protocol = protocol
        self.said = b""
        self.answered = 0

    def say(self, data: bytes, *, cut: bool) -> None:
        if self.socket.closed or self.socket.ended or self.socket.gone:
            return
        self.said += data
        if cut:
            self.socket.incoming.extend(data[at : at + 1] for at in range(len(data)))
        elif data:
            self.socket.incoming.append(data)

    def reset(self) -> None:
        if not self.socket.closed:
            self.socket.gone = True
            self.protocol.transport.startReading()


@implementer(IStreamClientEndpoint)
class _Endpoint:
    def __init__(self, play: Play) -> None:
        self._play = play

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        protocol: Any = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]
        socket = connected(self._play.loop, protocol, "192.0.2.1")
        self._play.servers.append(Side(socket, protocol))
        return succeed(protocol)


class Play:
    """
    One input played.

    :ivar clients: In the order in which they connected.
    :ivar servers: In the order in which they were connected to.
    """

    def __init__(self, data: bytes) -> None:
        self.loop = Loop()
        self.clients: list[Side] = []
        self.servers: list[Side] = []
        self.failures: list[LogEvent] = []
        way, *pieces = data.split(b"\xff")[:MAX_PIECES]
        route, somebody = _ROUTES.get(way[:1], (Direct(), False))
        self.through_proxy = not isinstance(route, Direct)
        access = Access()
        credentials = None
        if somebody:
            credentials = StaticCredentials(PasswordCredentials("alice", "secret"))
        self.client = Client(
            self.loop,
            router=StaticRouter(route),
            credentials=credentials,
            timeouts=Timeouts(),
            workers=InlineWorkers(),
            guard=LogonGuard(self.loop),
            endpoint_for=access.guard(lambda host, port: _Endpoint(self)),
            entropy=lambda size: b"n" * size,
        )
        self.log = WatchedLog(self.loop)
        self.proxy = Proxy(self.client, self.loop, access, NAME)
        self.proxy.access_log = self.log
        self._pieces = pieces
        self._back = 1
        self._cut = False

    # What happens

    def run(self) -> None:
        """Play it to its end, and let everything come to rest."""
        note: Any = self._note
        globalLogPublisher.addObserver(note)
        try:
            self.connect()
            for piece in self._pieces:
                self._happen(piece[:1], piece[1:])
                self.loop.turn()
            self.finish()
        finally:
            globalLogPublisher.removeObserver(note)

    def _note(self, event: LogEvent) -> None:
        if "log_failure" in event or event.get("log_level", LogLevel.info) in (
            LogLevel.error,
            LogLevel.critical,
        ):
            self.failures.append(event)

    def connect(self) -> Side:
        """Connect a client."""
        protocol: ClientConnection = self.proxy.buildProtocol(None)
        host = f"127.0.0.{len(self.clients) + 1}"
        client = Side(connected(self.loop, protocol, host), protocol)
        self.clients.append(client)
        return client

    def _happen(self, what: bytes, data: bytes) -> None:
        client = self.clients[-1]
        server = self.servers[-self._back :][:1]
        match what:
            case b"c":
                client.say(data, cut=self._cut)
            case b"C":
                client.socket.ended = True
            case b"x":
                client.reset()
            case b"n":
                self.connect()
            case b"f":
                client.socket.room = 0
            case b"F":
                client.socket.room = None
            case b"t" if data[:1].isdigit():
                self.loop.pass_time(int(data[:1]) ** 2 + _PAUSE)
            case b".":
                self._cut = True
            case b"b":
                self._back += 1
            case _:
                for each in server:
                    self._serve(what, data, each)

    def _serve(self, what: bytes, data: bytes, server: Side) -> None:
        match what:
            case b"o":
                server.say(data, cut=self._cut)
            case b"O":
                server.socket.ended = True
            case b"X":
                server.reset()
            case b"s":
                server.socket.room = 0
            case b"S":
                server.socket.room = None

    def finish(self) -> None:
        """Let time pass until nothing is left."""
        for side in (*self.clients, *self.servers):
            side.socket.room = None
        self.loop.turn()
        for _ in range(8):
            self.loop.pass_time(200)
        for client in self.clients:
            client.socket.ended = True
        self.loop.turn()
        for server in self.servers:
            if not isinstance(server.protocol, HTTPConnection) or (
                server.protocol.state is State.DETACHED
            ):
                server.socket.ended = True  # of a tunnel only its users know
        for _ in range(4):
            self.loop.pass_time(200)


def front(data: bytes) -> None:
    """Play *data*, and judge."""
    play = Play(data)
    play.run()
    judge(play)


def judge(play: Play) -> None:
    """Judge what is finished."""
    assert not play.failures, play.failures
    for client in play.clients:
        host = client.protocol.host
        judge_answers(client, play.log.taken.get(host, []))
    judge_requests(play)
    judge_rest(play)


def judge_rest(play: Play) -> None:
    """Nothing is left behind."""
    assert not play.proxy.connections, play.proxy.connections
    for side in (*play.clients, *play.servers):
        assert side.socket.closed, side.protocol
    calls = play.loop.getDelayedCalls()
    assert not calls, [str(call) for call in calls]
    closed: list[None] = []
    play.client.close().addCallback(closed.append)
    assert closed, "a connection was left in the pool"
    assert not play.loop.getDelayedCalls()


# What the clients saw


def judge_answers(client: Side, taken: list[Taken]) -> None:
    """One final response for each request, in order, and nothing else."""
    data = client.socket.sent
    for request in taken:
        if not data:
            assert client.socket.closed
            return
        rest = judge_answer(client, request, data)
        if rest is None:
            return
        data = rest
    if data:  # what could not be taken for a request was refused
        assert judge_answer(client, None, data) == b"", data


def judge_answer(client: Side, request: Taken | None, data: bytes) -> bytes | None:
    """
    Read one response.

    :returns: What follows; ``None`` where nothing may.
    """
    method = request.head.method if request else b"GET"
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    upgrade = [("Host", "a"), ("Connection", "Upgrade"), ("Upgrade", "x")]
    reader.send(h11.Request(method=method, target="/", headers=upgrade))
    reader.send(h11.EndOfMessage())
    reader.receive_data(data)
    status = 0
    while True:
        event = reader.next_event()
        if isinstance(event, h11.InformationalResponse | h11.Response):
            status = event.status_code
            judge_head(data)
            if request is not None and request.head.version < (1, 1):
                assert status >= 200, "1xx to a client of HTTP/1.0"
        elif isinstance(event, h11.EndOfMessage):
            rest: bytes = reader.trailing_data[0]
            break
        elif event is h11.PAUSED:
            rest = reader.trailing_data[0]
            break
        elif event is h11.NEED_DATA:
            judge_cut(client, request, reader)
            return None
    if request is None:
        assert status >= 400
        return rest
    assert status == request.status, (status, request)
    if status == 101 or (method == b"CONNECT" and status < 300):
        return None
    return rest


def judge_cut(client: Side, request: Taken | None, reader: Any) -> None:
    """A response that is not complete cannot be taken for one that is."""
    assert client.socket.closed
    if client.socket.reset or client.socket.gone or client.socket.ended:
        return
    try:
        reader.receive_data(b"")
        event = reader.next_event()
        while not isinstance(event, h11.EndOfMessage):
            event = reader.next_event()
    except h11.RemoteProtocolError:
        return
    assert request is not None and not request.note, request


_HEAD = re.compile(
    rb"[ -~\x80-\xff\t]+\r\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: (?![ \t])[\t -~\x80-\xff]*\r\n)*"
)


def judge_head(data: bytes) -> None:
    """What we write is plain: no folding, no whitespace, no control octets."""
    assert _HEAD.fullmatch(data.partition(b"\r\n\r\n")[0] + b"\r\n"), data[:2000]


# What the servers saw


@dataclass(frozen=True)
class Asked:
    """What a request means, however it was written."""

    method: bytes
    path: bytes
    content: bytes


def judge_requests(play: Play) -> None:
    """They were asked what the clients asked, and not more often."""
    wanted: Counter[tuple[bytes, bytes, str]] = Counter()
    for requests in play.log.taken.values():
        for each in requests:
            target = each.target
            if target is None:
                continue
            wanted[each.head.method, target.path, target.host] += 1
            if target.scheme == b"https" and target.port:
                authority = format_authority(target.host, target.port)
                wanted[b"CONNECT", authority, target.host] += 1
    seen = understood(play)
    for server in play.servers:
        protocol = server.protocol
        if not isinstance(protocol, HTTPConnection):
            continue  # a tunnel
        asked = list(asked_of(server, protocol))
        for number, (message, host, complete, logs_on) in enumerate(asked):
            # A connection that ended under a request may have ended before it: such
            # a one is sent again (RFC 9110 9.2.2).  So is one that was challenged.
            last = number == len(asked) - 1
            repeated = last and protocol.served == number > 0
            if not repeated and not logs_on and b" 407 " not in server.said:
                wanted[message.method, message.path, host] -= 1
                assert wanted[message.method, message.path, host] >= 0, message
            if complete and message.method != b"CONNECT":
                # The leg that is bound to be challenged carries no content.
                empty = logs_on and not message.content
                assert empty or message in seen, (message, seen)


def understood(play: Play) -> set[Asked]:
    """Read what the clients sent as others would."""
    seen: set[Asked] = set()
    for client in play.clients:
        seen.update(h11_asked(client.said))
        for message in llhttp_requests(client.said):
            method, target = message.start
            seen.add(Asked(method, path_of(method, target), message.content))
    return seen


_HOST = re.compile(rb"\r\nHost:", re.IGNORECASE)


def h11_asked(data: bytes) -> Iterator[Asked]:
    """
    Read requests one by one.

    Where h11 is stricter than we need to be it is led round: it skips no empty lines
    before a request (RFC 9112 2.2), and goes no further where Host is missing or
    malformed, which we answer with 400 and go on.
    """
    while data:
        while data.startswith(b"\r\n"):
            data = data[2:]
        line, end, rest = data.partition(b"\r\n")
        head, empty, rest = (end + rest).partition(b"\r\n\r\n")
        head = b"\r\nHost: a" + _HOST.sub(b"\r\nX:", head)
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        content = b""
        try:
            reader.receive_data(line + head + empty + rest)
            request: Any = reader.next_event()
            while not isinstance(event := reader.next_event(), h11.EndOfMessage):
                if not isinstance(event, h11.Data):
                    return
                content += event.data
        except h11.ProtocolError:
            return
        yield Asked(request.method, path_of(request.method, request.target), content)
        data = reader.trailing_data[0]


_ABSOLUTE = re.compile(rb"[A-Za-z0-9+.-]+://([^/?#]*)(.*)", re.DOTALL)


def path_of(method: bytes, target: bytes) -> bytes:
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        return target
    path = absolute[2]
    if not path:
        return b"*" if method == b"OPTIONS" else b"/"
    return path if path.startswith(b"/") else b"/" + path


def asked_of(
    server: Side, protocol: HTTPConnection
) -> Iterator[tuple[Asked, str, bool, bool]]:
    """
    Read what one server was sent.

    With the host, whether the request was complete, and whether it logs on.
    """
    data = server.socket.sent
    tunnel = protocol.state is State.DETACHED
    number = 0
    while data and not (tunnel and number > protocol.served):
        judge_head(data)
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        reader.receive_data(data)
        head, content, complete = None, b"", False
        while not complete:
            event = reader.next_event()
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                content += event.data
            elif isinstance(event, h11.EndOfMessage):
                complete = True
            else:
                assert event is h11.NEED_DATA, event
                break
        assert head is not None, data
        fields = dict(head.headers)
        assert len(fields[b"host"].split()) == 1
        if complete:
            data = reader.trailing_data[0]
        else:
            assert server.socket.closed, "a request that is not complete"
            data = b""
        path = path_of(head.method, head.target)
        host = host_of(fields[b"host"])
        logs_on = b"proxy-authorization" in fields
        yield Asked(head.method, path, content), host, complete, logs_on
        number += 1


def host_of(authority: bytes) -> str:
    host = re.sub(rb":[0-9]*$", b"", authority)
    return host.strip(b"[]").decode("ascii")
