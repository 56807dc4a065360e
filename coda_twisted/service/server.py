"""Listen, and say so."""

from __future__ import annotations

import os
from functools import partial
from ipaddress import ip_address
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.client.connector import tcp_endpoint
from coda_twisted.client.exchange import Client
from coda_twisted.credentials import (
    PasswordCredentials,
    StaticCredentials,
    TicketCredentials,
)
from coda_twisted.interfaces import ICredentials
from coda_twisted.routing.routes import Direct, HTTPProxy, StaticRouter
from coda_twisted.service.access import Access
from coda_twisted.service.argv import wipe
from coda_twisted.service.frontend import Proxy
from coda_twisted.service.options import Options

__all__ = ["ProxyService", "make_service"]

BACKLOG = 1024
"""Connections that may wait to be accepted: a build starts hundreds at once."""


def make_service(options: Options, reactor: Any) -> ProxyService:
    """Assemble the service that *options* describe; nothing listens yet."""
    access = Access(
        options["allow"],
        options["connect-ports"],
        loopback=bool(options["allow-loopback"]),
    )
    client = _client(options, access, reactor)
    name = b"coda-" + os.urandom(4).hex().encode("ascii")
    proxy = Proxy(
        client,
        reactor,
        access,
        name,
        limits=options.limits(),
        log_queries=bool(options["log-queries"]),
        quiet=bool(options["quiet"]),
    )
    notes = []
    if options.exposed:
        notes.append(_about_exposed(wipe(options.exposed)))
    return ProxyService(
        reactor,
        proxy,
        str(options["listen-address"]),
        options["port"],
        str(options["proxy"] or "direct"),
        notes,
    )


def _client(options: Options, access: Access, reactor: Any) -> Client:
    timeouts = options.timeouts()
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
        proxy_tls=options["proxy-ca"],
        endpoint_for=access.guard(endpoint_for, *exempt),
    )


def _credentials(options: Options) -> ICredentials | None:
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


def _policy(options: Options) -> AuthPolicy:
    kind = options["proxy-type"]
    nested = bool(options["ntlm-in-negotiate"])
    if kind in (None, "auto", "noauth"):
        return AuthPolicy(allow_ntlm_in_negotiate=nested)
    return AuthPolicy(schemes=(kind,), allow_ntlm_in_negotiate=nested)


def _about_exposed(wiped: bool) -> str:
    seen = (
        "it was wiped from the list of processes, where others could see it until now"
        if wiped
        else "every user of this machine can see it in the list of processes"
    )
    return (
        f"a password was given on the command line: {seen}. "
        "Use --password-file instead."
    )


class CannotServe(SystemExit, Exception):
    """
    Ends the program with one line that says why.

    An Exception too: in the background twistd's parent process hears of nothing else,
    and would wait for ever.
    """


class ProxyService(Service):
    """
    Listen while running.

    Under twistd the port is bound before privileges are dropped; twist knows no such
    moment, and it is bound at the start.

    :param upstream: Where requests go, for people.
    :param notes: Warnings to log at the start.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        proxy: Proxy,
        address: str,
        port: int,
        upstream: str,
        notes: list[str],
    ) -> None:
        self._reactor = reactor
        self._proxy = proxy
        self._address = address
        self._port = port
        self._upstream = upstream
        self._notes = notes
        self._listening: Any = None

    def privilegedStartService(self) -> None:
        """Bind the port."""
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """Bind the port if that was not done yet."""
        super().startService()
        if self._listening is None:
            self._listen()
        for note in self._notes:
            self.log.warn("{note}", note=note)

    def _listen(self) -> None:
        try:
            self._listening = self._reactor.listenTCP(
                self._port, self._proxy, backlog=BACKLOG, interface=self._address
            )
        except CannotListenError as error:
            raise CannotServe(
                f"coda-proxy cannot listen on {_url(self._address, self._port)}: "
                f"{getattr(error.socketError, 'strerror', error.socketError)}. "
                "Is it running already? Choose another port by --port."
            ) from None
        host = self._listening.getHost()
        self._proxy.access.listening = [(ip_address(host.host), host.port)]
        self.log.info(
            "coda-proxy serves {url}, upstream: {upstream}",
            url=_url(host.host, host.port),
            upstream=self._upstream,
        )

    def stopService(self) -> Deferred[Any]:
        """Stop listening, end what is under way."""
        super().stopService()
        ended: list[Deferred[Any]] = []
        listening, self._listening = self._listening, None
        if listening is not None:
            stopping = listening.stopListening()
            if stopping is not None:
                ended.append(stopping)
        ended.append(self._proxy.stop())
        ended.append(self._proxy.client.close())
        return gatherResults(ended)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
