"""
Credentials of files, which are looked at for each request.

A file whose inode, size and times are as before is not read again.  Replace it in
one step (``mv``), as for any file that others read: one that is read while it is
written holds half a password.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Generic, TypeVar

from twisted.logger import Logger
from zope.interface import implementer

from coda_twisted.auth.steps import Peer, Role
from coda_twisted.credentials import PasswordCredentials
from coda_twisted.errors import AuthenticationFailed
from coda_twisted.interfaces import ICredentials, ICredentialSource
from coda_twisted.sources.spaces import ANY_PROXY, Found, Spaces, as_spaces

__all__ = ["FileCredentials", "NetrcCredentials", "WatchedFile", "read_secret"]

SETTLED = 2.0
"""
Seconds for which a file's times may stay the same though it was written again.

File systems keep times to 2 s (FAT), 10 ms or less; a file that was changed so
recently is read again whatever its times say.
"""

DEFAULT_PORTS = {"http": 80, "https": 443}

T = TypeVar("T")


class WatchedFile(Generic[T]):
    """
    What a file holds, read again when the file has changed.

    A warning is logged, once for each change, if users that are neither the file's
    owner nor of its group may read or write it.

    :param parse: Makes something of the file.
    """

    log = Logger("coda_twisted.sources")

    def __init__(self, path: str | os.PathLike[str], parse: Callable[[Path], T]):
        self.path = Path(path).expanduser()
        self._parse = parse
        self._mark: tuple[int, ...] | None = None
        self._checked: tuple[int, ...] | None = None
        self._value: T | None = None

    def read(self) -> T:
        """
        Get what the file holds now.

        :raises OSError: It cannot be read.
        :raises ValueError: It cannot be parsed; looked at again the next time.
        """
        found = self.path.stat()
        mark = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if mark != self._mark or self._value is None:
            self._check(found, mark)
            self._mark = None
            self._value = self._parse(self.path)
            if time.time() - found.st_mtime > SETTLED:
                self._mark = mark
        return self._value

    def _check(self, found: os.stat_result, mark: tuple[int, ...]) -> None:
        if mark == self._checked:
            return
        self._checked = mark
        if os.name == "posix" and found.st_mode & (stat.S_IROTH | stat.S_IWOTH):
            self.log.warn(
                "{path} holds a password, and every user of this machine may read or "
                "write it: chmod 600",
                path=str(self.path),
            )


@implementer(ICredentialSource)
class FileCredentials:
    """
    A password file: its first line is the password, or ``name:password``.

    :param path: ``~`` is the user's home directory.
    :param username: Whose password it is; without it the line begins with the name,
        up to the first colon.
    :param domain: See :class:`~coda_twisted.credentials.PasswordCredentials`.
    :param realm: See :class:`~coda_twisted.credentials.PasswordCredentials`.
    :param spaces: For whom it is meant; every proxy by default.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        username: str | None = None,
        *,
        domain: str = "",
        realm: str | None = None,
        spaces: Spaces | Iterable[str] = ANY_PROXY,
    ) -> None:
        self._spaces = as_spaces(spaces)

        def parse(path: Path) -> ICredentials:
            text = path.read_text("utf-8-sig", "surrogateescape")
            name, password = read_secret(text, username)
            return PasswordCredentials(name, password, domain=domain, realm=realm)

        self._file = WatchedFile(path, parse)

    def __repr__(self) -> str:
        return f"FileCredentials({str(self._file.path)!r})"

    def credentials_for(self, peer: Peer) -> Found:
        """
        Look whether the file has changed.

        :raises AuthenticationFailed: It cannot be read, or holds no password.
        """
        return self._spaces.give(peer, self._read)

    def _read(self, peer: Peer) -> ICredentials:
        try:
            return self._file.read()
        except OSError as error:
            raise _unreadable(self._file.path, error.strerror, peer) from error
        except ValueError as error:
            raise _unreadable(self._file.path, str(error), peer) from None


def read_secret(text: str, username: str | None) -> tuple[str, str]:
    """
    Take name and password from the first line of a text.

    An empty password is a file that is being written, or a program that has failed
    and does not say so; sent, it would be a failed logon.

    :param username: The name, where the line is the password alone.
    :raises ValueError: There is no password; the text repeats nothing.
    """
    line = text.partition("\n")[0].rstrip("\r")
    name, password = username, line
    if name is None:
        name, colon, password = line.partition(":")
        if line and not colon:
            raise ValueError("its first line is not name:password")
    if not password:
        raise ValueError("its first line holds no password")
    return name, password


def _unreadable(path: Path, why: str | None, peer: Peer) -> AuthenticationFailed:
    return AuthenticationFailed(f"the password file {path}: {why}", peer=str(peer))


@implementer(ICredentialSource)
class NetrcCredentials:
    """
    The machines of a netrc file, which are websites.

    A netrc knows hosts and neither schemes nor ports.  Its passwords are given to
    ``https`` websites at port 443 unless more is allowed here.  A file that does not
    exist holds nothing.

    :param path: By default what ``NETRC`` in the environment says, or ``~/.netrc``.
    :param cleartext: Give them to ``http`` websites at port 80, too.
    :param ports: Further ports to which they may be given.
    :param default: Use the file's ``default`` entry, for Digest and Basic: every
        website may ask for it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        cleartext: bool = False,
        ports: Iterable[int] = (),
        default: bool = False,
    ) -> None:
        if path is None:
            path = os.environ.get("NETRC") or "~/.netrc"
        self._schemes = ("http", "https") if cleartext else ("https",)
        self._ports = frozenset(ports)
        self._default = default
        self._file = WatchedFile(path, _parse_netrc)

    def __repr__(self) -> str:
        return f"NetrcCredentials({str(self._file.path)!r})"

    def credentials_for(self, peer: Peer) -> Found:
        """
        Look the peer's host up.

        :raises AuthenticationFailed: The file cannot be read.
        """
        if peer.role is not Role.ORIGIN or peer.scheme not in self._schemes:
            return None
        if peer.port != DEFAULT_PORTS[peer.scheme] and peer.port not in self._ports:
            return None
        try:
            machines = self._file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(self._file.path, error.strerror, peer) from error
        except ValueError as error:
            raise _unreadable(self._file.path, str(error), peer) from None
        found = machines.get(peer.host)
        if found is None and self._default and "default" in machines:
            user = machines["default"]
            every = Spaces(f"{peer.scheme}://*:{peer.port}", wildcards=True)
            return every.give(peer, lambda _: user)
        return found


def _parse_netrc(path: Path) -> dict[str, ICredentials]:
    try:
        # Given its name, the parser leaves the file's mode to us.
        entries = netrc(str(path)).hosts
    except NetrcParseError as error:
        # Its own text quotes what it did not expect: a password, for one.
        raise ValueError(f"line {error.lineno} cannot be read") from None
    except UnicodeError:
        raise ValueError("it is not UTF-8") from None
    return {
        host if host == "default" else host.lower(): PasswordCredentials(
            login or "", password
        )
        for host, (login, _, password) in entries.items()
        if password
    }
