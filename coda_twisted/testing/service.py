"""``twistd coda-fake-proxy``: a proxy, or an origin server, started by hand."""

from __future__ import annotations

from typing import Any, get_args

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from coda_twisted.testing.accounts import Accounts, Logon
from coda_twisted.testing.bearer import Bearer
from coda_twisted.testing.checkpoint import scheme
from coda_twisted.testing.exchanges import hello
from coda_twisted.testing.negotiate import Negotiate
from coda_twisted.testing.ntlm import NTLM, Bindings
from coda_twisted.testing.quirks import read_quirks
from coda_twisted.testing.servers import FakeOrigin, FakeProxy, FakeServer
from coda_twisted.testing.verdicts import Scheme

__all__ = ["FakeService", "Options", "makeService"]

_log = Logger("coda_twisted.testing")


def _names(value: str) -> list[str]:
    names = [name.strip().lower() for name in value.split(",") if name.strip()]
    for name in names:
        if name != "bearer":
            scheme(name)
    return names


def _bindings(value: str) -> str:
    if value not in get_args(Bindings):
        raise ValueError(f"{value!r} is none of {', '.join(get_args(Bindings))}")
    return value


def _number(value: str) -> int:
    number = int(value)
    if number < 0:
        raise ValueError("not a number of logons")
    return number


class Options(UsageOptions):
    """What ``twistd coda-fake-proxy`` accepts."""

    synopsis = "[options]"
    longdesc = (
        "A proxy for tests, which demands credentials, verifies them, counts logons, "
        "locks accounts, and behaves as badly as it is told to.  Keep it on loopback: "
        "whoever logs on can reach through it what this machine can."
    )

    optFlags = [["origin", "o", "be an origin server, which answers by itself"]]

    optParameters = [
        [
            "auth",
            "a",
            None,
            "schemes to demand, comma-separated; ntlm by default: basic, digest, "
            "digest-md5, digest-sha-256, digest-sha-512-256, ntlm, negotiate, bearer",
            _names,
        ],
        [
            "listen",
            "l",
            "tcp:3128:interface=127.0.0.1",
            "server endpoint to serve on; ssl: for a proxy that is reached by TLS",
        ],
        ["realm", "r", "fake", "the realm of Basic and Digest"],
        ["keytab", "k", None, "file with the keys of HTTP/host, for Kerberos"],
        [
            "bindings",
            "b",
            "check",
            "whether NTLM logons over TLS have to be bound to it: off, check, require",
            _bindings,
        ],
        ["lockout", None, 0, "lock an account after so many wrong passwords", _number],
        [
            "quirks",
            "q",
            None,
            "bad manners, comma-separated: closes, closes-midway, body=OCTETS, "
            "chunked, reason=WORDS, http10, slow=SECONDS, drops=LEG, "
            "drop-times=NUMBER, early, quoted-realm",
            read_quirks,
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.users: dict[str, str] = {}
        self.tokens: dict[str, str] = {}

    def opt_user(self, pair: str) -> None:
        r"""Add an account: NAME:PASSWORD; NAME may be DOMAIN\user."""
        name, colon, password = pair.partition(":")
        if not name or not colon:
            raise UsageError("--user is NAME:PASSWORD")
        self.users[name] = password

    opt_u = opt_user

    def opt_token(self, pair: str) -> None:
        """Add a Bearer token: NAME:TOKEN."""
        name, colon, token = pair.partition(":")
        if not name or not colon:
            raise UsageError("--token is NAME:TOKEN")
        self.tokens[token] = name

    def postOptions(self) -> None:
        """See that somebody can log on."""
        self["auth"] = self["auth"] or ["ntlm"]
        names = set(self["auth"])
        by_password = names - {"bearer"}
        if self["keytab"] is not None:
            if "negotiate" not in names:
                raise UsageError("--keytab is for --auth negotiate")
            by_password.discard("negotiate")
        if by_password and not self.users:
            raise UsageError("nobody can log on: add --user NAME:PASSWORD")
        if "bearer" in names and not self.tokens:
            raise UsageError("nobody can log on: add --token NAME:TOKEN")

    def schemes(self) -> list[str | Scheme]:
        """Set up what is demanded."""
        ntlm = NTLM(self["bindings"])
        made: dict[str, Scheme] = {
            "bearer": Bearer(self.tokens),
            "negotiate": Negotiate(self["keytab"], ntlm),
            "ntlm": ntlm,
        }
        return [made.get(name, name) for name in self["auth"]]


def makeService(options: Options) -> FakeService:
    """Make the service that twistd and twist run."""
    from twisted.internet import reactor

    settings: dict[str, Any] = {
        "accounts": Accounts(options.users, lockout=options["lockout"], observer=_tell),
        "realm": options["realm"],
        "quirks": options["quirks"],
    }
    server: FakeServer
    if options["origin"]:
        server = FakeOrigin(reactor, hello, *options.schemes(), **settings)
    else:
        server = FakeProxy(reactor, *options.schemes(), **settings)
    return FakeService(reactor, server, options["listen"])


class FakeService(Service):
    """
    Listen while running.

    :ivar server: What listens.
    :param listen: The description of a server endpoint.
    """

    def __init__(self, reactor: Any, server: FakeServer, listen: str) -> None:
        self._reactor = reactor
        self.server = server
        self._listen = listen
        self._port: IListeningPort | None = None

    def startService(self) -> None:
        """
        Bind the port.

        :raises SystemExit: It cannot be bound.
        """
        super().startService()
        endpoint = serverFromString(self._reactor, self._listen)
        reasons: list[Failure] = []
        endpoint.listen(self.server).addCallbacks(self._listening, reasons.append)
        for reason in reasons:  # every endpoint of Twisted's fails at once
            why = reason.getErrorMessage()
            raise SystemExit(f"coda-fake-proxy cannot listen: {why}")

    def _listening(self, port: IListeningPort) -> None:
        self._port = port
        _log.info("{server} at {address}", server=self.server, address=port.getHost())

    def stopService(self) -> Deferred[Any]:
        """Stop listening, and end what is under way."""
        super().stopService()
        port, self._port = self._port, None
        ended: list[Deferred[Any]] = [self.server.close()]
        stopping = None if port is None else port.stopListening()
        if stopping is not None:
            ended.append(stopping)
        return gatherResults(ended)


def _tell(logon: Logon) -> None:
    _log.info(
        "{outcome}: {user!r} by {scheme}",
        outcome=logon.outcome.name.lower(),
        user=logon.user,
        scheme=logon.scheme,
    )
