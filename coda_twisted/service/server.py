"""Serve: put together what carries requests, and listen in this process."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor

from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.client.connector import tcp_endpoint
from coda_twisted.client.exchange import Client
from coda_twisted.client.guard import LogonGuard
from coda_twisted.client.timeouts import Timeouts
from coda_twisted.client.tls import TLSPolicy
from coda_twisted.credentials import (
    PasswordCredentials,
    StaticCredentials,
    TicketCredentials,
)
from coda_twisted.interfaces import ICredentials
from coda_twisted.routing.routes import Direct, HTTPProxy, StaticRouter
from coda_twisted.service.access import Access
from coda_twisted.service.descriptors import Gate, raise_limit
from coda_twisted.service.lifecycle import BACKLOG, STOP_IDLE, ListeningService
from coda_twisted.service.limits import Limits
from coda_twisted.service.options import Options
from coda_twisted.service.proxy import Proxy

__all__ = ["Door", "ProxyService", "limits_of", "make_proxy", "timeouts_of"]


def make_proxy(
    options: Mapping[str, Any],
    reactor: Any,
    name: bytes,
    *,
    guard: LogonGuard | None = None,
    prefix: str = "r",
) -> Proxy:
    """
    Make what serves connections.

    :param options: As :class:`Options` leaves them.
    :param guard: As of :class:`~coda_twisted.client.exchange.Client`.
    :param name: See :class:`Proxy`, as for *prefix*.
    """
    access = Access(
        options["allow"],
        options["connect-ports"],
        loopback=bool(options["allow-loopback"]),
    )
    return Proxy(
        make_client(options, access, reactor, guard),
        reactor,
        access,
        name,
        limits=limits_of(options),
        log_queries=bool(options["log-queries"]),
        quiet=bool(options["quiet"]),
        prefix=prefix,
    )


def limits_of(options: Mapping[str, Any]) -> Limits:
    """How long clients may take, and tunnels be silent."""
    return Limits(
        head=options["head-timeout"],
        content=options["content-timeout"],
        answer=options["answer-timeout"],
        keep_alive=options["keep-alive-timeout"],
        linger=options["linger-timeout"],
        tunnel=options["tunnel-timeout"],
        half_closed=options["half-closed-timeout"],
    )


def timeouts_of(options: Mapping[str, Any]) -> Timeouts:
    """How long the next server may take."""
    return Timeouts(
        connect=options["connect-timeout"],
        tls=options["tls-timeout"],
        send=options["send-timeout"],
        head=options["response-timeout"],
        body=options["response-content-timeout"],
        idle=options["idle-timeout"],
    )


def make_client(
    options: Mapping[str, Any],
    access: Access,
    reactor: Any,
    guard: LogonGuard | None = None,
) -> Client:
    """Make what carries requests, as *options* say."""
    timeouts = timeouts_of(options)
    authorities = options["proxy-ca"]
    upstream: HTTPProxy | None = options["proxy"]

    endpoint_for = partial(tcp_endpoint, reactor, timeout=timeouts.connect)
    exempt = [] if upstream is None else [(upstream.host, upstream.port)]
    credentials = None if upstream is None else _credentials(options)
    return Client(
        reactor,
        router=StaticRouter(upstream or Direct(), options["no-proxy"]),
        credentials=None if credentials is None else StaticCredentials(credentials),
        policy=_policy(options),
        timeouts=timeouts,
        proxy_tls=None if authorities is None else TLSPolicy.from_pem(authorities),
        guard=guard,
        endpoint_for=access.guard(endpoint_for, *exempt),
    )


def _credentials(options: Mapping[str, Any]) -> ICredentials | None:
    kind, user, password = (
        options["proxy-type"],
        options["user"],
        options["password"],
    )
    if kind == "noauth":
        return None
    if user is None or password is None:
        return TicketCredentials(user)
    realm = options["realm"]
    if kind == "digest":
        return PasswordCredentials(user, password, realm=realm)
    return PasswordCredentials(user, password, domain=realm or "")


def _policy(options: Mapping[str, Any]) -> AuthPolicy:
    kind = options["proxy-type"]
    nested = bool(options["ntlm-in-negotiate"])
    if kind in (None, "auto", "noauth"):
        return AuthPolicy(allow_ntlm_in_negotiate=nested)
    return AuthPolicy(schemes=(kind,), allow_ntlm_in_negotiate=nested)


class ProxyService(ListeningService):
    """Serve in this process."""

    def __init__(
        self, reactor: Any, options: Options, name: bytes, notes: list[str]
    ) -> None:
        super().__init__(reactor, options, name, notes)
        self._proxy = make_proxy(options, reactor, name)
        self._door: Door | None = None
        self._retired: set[Client] = set()

    def _bind(self, address: str, port: int) -> tuple[str, int]:
        limit = raise_limit()
        listening: Any = self._reactor.listenTCP(
            port, self._proxy, backlog=BACKLOG, interface=address
        )
        self._door = Door(self._reactor, listening, self._proxy, limit)
        return self._door.address

    def _renew(self, options: Options) -> None:
        before = self._proxy.client
        self._proxy.client = make_client(options, self._proxy.access, self._reactor)
        self._retired.add(before)
        before.retire().addCallback(lambda _: self._retired.discard(before))
        self.log.info("the password and --proxy-ca were read again")

    def _end(self, seconds: float) -> Deferred[Any]:
        ended: list[Deferred[Any]] = []
        door, self._door = self._door, None
        if door is not None:
            ended.append(door.close())
        ended.append(self._proxy.drain(seconds, STOP_IDLE))
        return gatherResults(ended).addCallback(self._close_clients)

    def _close_clients(self, _: object) -> Deferred[Any]:
        return gatherResults(
            [each.close() for each in (self._proxy.client, *self._retired)]
        )

    def cut(self) -> None:
        """End every connection."""
        self._proxy.stop()


class Door:
    """
    A port that listens, with what must be seen to whoever does so.

    :param listening: The port.
    :param limit: How many descriptors there can be.
    :ivar address: Host and port, as they came to be.
    """

    def __init__(self, reactor: Any, listening: Any, proxy: Proxy, limit: int) -> None:
        host = listening.getHost()
        self.address: tuple[str, int] = (host.host, host.port)
        proxy.access.listening = [(ip_address(host.host), host.port)]
        self._gate: Gate | None = None
        self._listening = listening
        if IReadDescriptor.providedBy(listening) and IReactorFDSet.providedBy(reactor):
            self._gate = Gate(
                reactor,
                listening,
                BACKLOG,
                limit,
                lambda: len(proxy.connections),
                proxy.make_room,
            )

    def close(self, *, last: bool = True) -> Deferred[Any]:
        """
        Stop listening.

        :param last: Whether nobody else has the socket.
        """
        if self._gate is None:
            return maybeDeferred(self._listening.stopListening)
        return maybeDeferred(self._gate.close, last=last)
