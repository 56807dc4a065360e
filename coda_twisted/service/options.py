"""What ``twistd coda-proxy`` accepts; values leave here parsed and checked."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from math import inf, nan

from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from coda_twisted.routing.noproxy import NoProxy
from coda_twisted.routing.routes import HTTPProxy, Userinfo
from coda_twisted.service.access import Network
from coda_twisted.service.listening import shares_ports

__all__ = [
    "PASSWORD_VARIABLE",
    "PROXY_TYPES",
    "Options",
]

PASSWORD_VARIABLE = "CODA_PROXY_PASSWORD"  # noqa: S105 - a name, not a password

PROXY_TYPES = ("noauth", "basic", "digest", "ntlm", "negotiate", "auto")

MAX_WORKERS = 256
"""More than that is a mistake on any machine of today."""

_FILES = ("password-file", "proxy-ca")

_NEED_USER = ("basic", "digest", "ntlm")


def _port(value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) < 65536):
        raise ValueError("a port is a number from 0 to 65535")
    return int(value)


def _address(value: str) -> IPv4Address | IPv6Address:
    """Read an address; an empty one means all of IPv4, as for mini_proxy.py."""
    if value == "localhost":
        value = "127.0.0.1"
    try:
        return ip_address(value.strip("[]") or "0.0.0.0")  # noqa: S104 - see --allow
    except ValueError:
        raise ValueError("an IPv4 or IPv6 address is needed") from None


def _seconds(value: str) -> float:
    """Read a duration."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = nan
    if not 0 < seconds < inf:
        raise ValueError("seconds are needed, more than 0: 10 or 2.5")
    return seconds


def _grace(value: str) -> float:
    """Read a duration that may be none at all."""
    return 0.0 if value == "0" else _seconds(value)


def _limit(value: str) -> float | None:
    """Read a duration; 0 and ``none`` are without end."""
    if value.lower() in ("0", "none"):
        return None
    try:
        return _seconds(value)
    except ValueError:
        raise ValueError(
            "seconds are needed: 10 or 2.5; none or 0 for no limit"
        ) from None


def _networks(value: str) -> tuple[Network, ...]:
    try:
        found = tuple(
            ip_network(each.strip(), strict=False)
            for each in value.split(",")
            if each.strip()
        )
    except ValueError as error:
        raise ValueError(f"{error}; write 192.168.1.0/24,fd00::/8") from None
    if not found:
        raise ValueError("at least one network is needed: 192.168.1.0/24")
    return found


def _ports(value: str) -> frozenset[int]:
    ports = frozenset(_port(each.strip()) for each in value.split(","))
    if 0 in ports:
        raise ValueError("a port is a number from 1 to 65535")
    return ports


def _proxy(value: str) -> tuple[HTTPProxy, Userinfo | None]:
    return HTTPProxy.from_url(value)


def _proxy_type(value: str) -> str:
    if value.lower() not in PROXY_TYPES:
        raise ValueError(f"one of {', '.join(PROXY_TYPES)}")
    return value.lower()


def _workers(value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) <= MAX_WORKERS):
        raise ValueError(f"a number of processes, from 0 to {MAX_WORKERS}")
    return int(value)


_LIMITS = [
    [
        "head-timeout",
        None,
        10,
        "Client: seconds for a request's head, from its first octet.",
        _limit,
    ],
    [
        "content-timeout",
        None,
        300,
        "Client: seconds without any of a request's content while it is wanted.",
        _limit,
    ],
    [
        "answer-timeout",
        None,
        300,
        "Client: seconds in which it takes nothing of an answer that waits for it.",
        _limit,
    ],
    [
        "keep-alive-timeout",
        None,
        60,
        "Client: seconds for which its connection is kept without a request.",
        _limit,
    ],
    [
        "linger-timeout",
        None,
        5,
        "Client: seconds for which what it still sends is read away after an answer "
        "that ends the connection. Always limited.",
        _seconds,
    ],
    [
        "connect-timeout",
        None,
        20,
        "Next server: seconds to find its address and connect. Always limited.",
        _seconds,
    ],
    [
        "tls-timeout",
        None,
        20,
        "Next server: seconds for a TLS handshake. Always limited.",
        _seconds,
    ],
    [
        "send-timeout",
        None,
        300,
        "Next server: seconds in which it takes nothing of a request's content that "
        "waits for it.",
        _limit,
    ],
    [
        "response-timeout",
        None,
        120,
        "Next server: seconds for a response's head, once the request is sent.",
        _limit,
    ],
    [
        "response-content-timeout",
        None,
        None,
        "Next server: seconds between two pieces of a response's content. It ends "
        "event streams that are silent. [default: none]",
        _limit,
    ],
    [
        "idle-timeout",
        None,
        60,
        "Next server: seconds for which an unused connection is kept. Always limited.",
        _seconds,
    ],
    [
        "tunnel-timeout",
        None,
        None,
        "Tunnels: seconds without anything in either direction. [default: none]",
        _limit,
    ],
    [
        "half-closed-timeout",
        None,
        60,
        "Tunnels: the same, once one half of one has ended.",
        _limit,
    ],
]


GUIDE = """\
A forward proxy for the programs of this machine.  They are told to use it as their
proxy and need no password; it forwards what they ask for, through the proxy of your
network if you name one, and authenticates there by NTLM, Kerberos, Digest or Basic.

Without options it listens on 127.0.0.1, port 8088, and connects directly:

    twistd -n coda-proxy
    curl -x http://127.0.0.1:8088 https://www.example.com/

Behind a proxy that demands NTLM:

    twistd -n coda-proxy --proxy=http://proxy.example:3128 --proxy-type=ntlm \\
        --realm=CORP --user=me --password-file=/home/me/.proxy-password

With your Kerberos ticket:

    kinit
    twistd -n coda-proxy --proxy=http://proxy.example:3128 --proxy-type=negotiate

With four processes on one port, for more than one core:

    twistd -n coda-proxy --workers=4

SIGTERM lets what is under way end first (--drain-timeout); a second one ends it.
SIGHUP reads --password-file and --proxy-ca again, and replaces the workers; no
connection is lost by that.

Timeouts are in seconds, 2.5 for example, and none or 0 where there is to be no limit.
Of clients: --head-timeout, --content-timeout, --answer-timeout, --keep-alive-timeout,
--linger-timeout.  Of the next server, proxy or website: --connect-timeout,
--tls-timeout, --send-timeout, --response-timeout, --response-content-timeout,
--idle-timeout.  Of tunnels: --tunnel-timeout, --half-closed-timeout.
"""


class Options(UsageOptions):
    """
    The command line.

    After parsing the values are what their names say: ``listen-address`` an address,
    ``proxy`` an :class:`~coda_twisted.routing.routes.HTTPProxy` or ``None``,
    ``proxy-ca`` what stands in the file, and so on; ``user`` and ``password`` are text
    or ``None``, wherever they came from.

    :ivar exposed: The secrets that the command line shows.
    """

    synopsis = "[options]"

    longdesc = ""  # Twisted would make one paragraph of it: see getUsage

    optParameters = [
        [
            "listen-address",
            None,
            "127.0.0.1",
            "Address to listen on; one that is not loopback needs --allow.",
            _address,
        ],
        ["port", None, 8088, "TCP port to listen on.", _port],
        [
            "proxy",
            None,
            None,
            "The upstream proxy: http://host:port or https://host:port. "
            "Without it, servers are reached directly.",
            _proxy,
        ],
        [
            "proxy-type",
            None,
            None,
            "How to authenticate to it: noauth, basic, digest, ntlm, negotiate, or "
            "auto, which takes the strongest that the proxy offers. "
            "[default: auto]",
            _proxy_type,
        ],
        ["user", None, None, "User name: name, DOMAIN\\name or name@domain."],
        [
            "password",
            None,
            None,
            "Password. Others may see it for a moment: prefer --password-file, or "
            f"the environment variable {PASSWORD_VARIABLE}.",
        ],
        [
            "password-file",
            None,
            None,
            "File whose first line is the password.",
            os.path.abspath,
        ],
        [
            "realm",
            None,
            None,
            "With digest the realm that the proxy must name, otherwise the "
            "(NTLM or Kerberos) domain of the user.",
        ],
        [
            "no-proxy",
            None,
            "",
            "Hosts to reach without the upstream proxy: names, which stand for all "
            "below them too, addresses and networks, separated by commas.",
            NoProxy,
        ],
        [
            "proxy-ca",
            None,
            None,
            "PEM file of the authorities to trust for an https:// upstream proxy, "
            "instead of the system's.",
            os.path.abspath,
        ],
        [
            "allow",
            None,
            None,
            "Networks that may use the service beside this machine, separated by "
            "commas: 192.168.1.0/24,fd00::/8. Needed to listen on anything but "
            "loopback; they use your credentials.",
            _networks,
        ],
        [
            "connect-ports",
            None,
            None,
            "Ports to which CONNECT is allowed. [default: any; with --allow 443,563]",
            _ports,
        ],
        *_LIMITS,
        [
            "workers",
            None,
            0,
            "Processes to serve with, for more than one core; 0 serves in this one "
            "alone. Needs Linux.",
            _workers,
        ],
        [
            "drain-timeout",
            None,
            30.0,
            "Seconds that requests and tunnels have to end when the service stops.",
            _grace,
        ],
    ]

    optFlags = [
        [
            "allow-loopback",
            None,
            "Let the service connect to this machine's own loopback addresses even "
            "though --allow serves others, who reach them by that.",
        ],
        [
            "ntlm-in-negotiate",
            None,
            "Speak NTLM under the name of Negotiate where there is no Kerberos.",
        ],
        ["log-queries", None, "Show in the log what stands behind a '?' in a URL."],
        ["quiet", "q", "Do not log each request."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.exposed: set[str] = set()
        self._arguments: list[str] = []
        self._files: dict[str, str] = {}

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse the command line, and keep it for :meth:`read_again`."""
        self._arguments = list(sys.argv[1:] if options is None else options)
        super().parseOptions(self._arguments)

    def read_again(self) -> Options:
        """
        Parse the same command line once more: files may have changed.

        :raises UsageError: What was good once is not any more.
        """
        fresh = type(self)()
        # The directory may be another by now; the last of two equal options counts.
        files = [f"--{name}={path}" for name, path in self._files.items()]
        fresh.parseOptions(self._arguments + files)
        return fresh

    def getUsage(self, width: int | None = None) -> str:
        """Write what --help shows."""
        return f"{super().getUsage(width)}\n{GUIDE}"

    def postOptions(self) -> None:
        """Check what only makes sense together; find the password."""
        self._check_listener()
        upstream = self["proxy"]
        if upstream is None:
            self._check_no_upstream()
            return
        proxy, userinfo = upstream
        self["proxy"] = proxy
        if userinfo is not None:
            if self["user"] is None:
                self["user"] = userinfo.username or None
            if userinfo.password:
                self.exposed.add(userinfo.password)
        self._files = {name: self[name] for name in _FILES if self[name] is not None}
        if self["proxy-ca"] is not None:
            self["proxy-ca"] = self._read_authorities(self["proxy-ca"])
        self["password"] = self._find_password(userinfo)
        self["proxy-type"] = self["proxy-type"] or "auto"
        self._check_user()

    def _check_listener(self) -> None:
        """Refuse to become an open proxy by accident."""
        if self["workers"] and not shares_ports():
            raise UsageError(
                "--workers: this system cannot share a port among processes; "
                "leave it out, or use Linux"
            )
        address = self["listen-address"]
        if not isinstance(address, (IPv4Address, IPv6Address)):
            address = self["listen-address"] = _address(address)
        if not isinstance(self["no-proxy"], NoProxy):
            self["no-proxy"] = NoProxy(self["no-proxy"])
        if not address.is_loopback and self["allow"] is None:
            raise UsageError(
                f"--listen-address={address} lets others use your credentials: say "
                "who may by --allow=NETWORKS, or listen on 127.0.0.1"
            )

    def _check_no_upstream(self) -> None:
        if self["proxy-type"] not in (None, "noauth"):
            raise UsageError(
                f"--proxy-type={self['proxy-type']} needs --proxy=http://host:port"
            )
        for name in ("user", "password", "password-file", "realm", "proxy-ca"):
            if self[name] is not None:
                raise UsageError(
                    f"--{name} is for an upstream proxy: name it by --proxy"
                )

    def _find_password(self, userinfo: Userinfo | None) -> str | None:
        given: str | None = self["password"]
        if given:
            self.exposed.add(given)
        if self["password-file"] is not None:
            if given is not None:
                raise UsageError("--password and --password-file exclude each other")
            return self._read_password(self["password-file"])
        if given is not None:
            return given
        if userinfo is not None and userinfo.password:
            return userinfo.password
        return os.environ.get(PASSWORD_VARIABLE) or None

    def _read_authorities(self, path: str) -> bytes:
        from coda_twisted.client.tls import TLSPolicy

        try:
            with open(path, "rb") as file:
                bundle = file.read()
            TLSPolicy.from_pem(bundle, path)
        except OSError as error:
            raise UsageError(f"--proxy-ca: {path}: {error.strerror or error}") from None
        except ValueError as error:
            raise UsageError(f"--proxy-ca: {error}") from None
        return bundle

    def _read_password(self, path: str) -> str:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                password = file.readline().rstrip("\r\n")
        except OSError as error:
            raise UsageError(
                f"--password-file: {path}: {error.strerror or error}"
            ) from None
        if not password:
            raise UsageError(f"--password-file: {path}: the first line is empty")
        return password

    def _check_user(self) -> None:
        kind, user, password = self["proxy-type"], self["user"], self["password"]
        if kind == "noauth":
            return
        if user is None and kind in _NEED_USER:
            raise UsageError(f"--proxy-type={kind} needs --user")
        if user is None and (self.exposed or self["password-file"] is not None):
            raise UsageError("a password needs --user")
        if user is not None and password is None and kind != "negotiate":
            raise UsageError(
                f"--user={user} needs a password: --password-file=FILE, or the "
                f"environment variable {PASSWORD_VARIABLE}"
            )
        if user is not None and password is not None:
            from coda_twisted.credentials import PasswordCredentials

            try:
                PasswordCredentials(user, password, domain=self["realm"] or "")
            except ValueError as error:
                raise UsageError(f"--user={user}: {error}") from None
