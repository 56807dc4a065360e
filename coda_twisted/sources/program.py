"""Credentials that a program prints: ``pass show proxy``, for one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from coda_twisted.auth.steps import Peer
from coda_twisted.credentials import PasswordCredentials
from coda_twisted.errors import AuthenticationFailed
from coda_twisted.interfaces import ICredentials, ICredentialSource
from coda_twisted.sources.asked import AskedCredentials
from coda_twisted.sources.files import read_secret
from coda_twisted.sources.spaces import ANY_PROXY, Found, Spaces, as_spaces

__all__ = ["CommandCredentials"]

TIMEOUT = 60.0
"""Seconds after which a program is killed: somebody may have to type a passphrase."""

OUTPUT_LIMIT = 64 * 1024
"""Octets of output after which it is killed, for that is no password."""


@implementer(ICredentialSource)
class CommandCredentials:
    """
    Run a program; the first line that it prints is the password.

    It is run when credentials are first needed, and again after a peer has refused
    what it printed; see :class:`~coda_twisted.sources.asked.AskedCredentials`.  It
    gets this process's environment and no input.  What it says on its standard error
    is thrown away.

    :param reactor: The reactor.
    :param command: The program and its arguments; there is no shell.
    :param username: Whose password it is; without it the line begins with the name,
        up to the first colon.
    :param domain: See :class:`~coda_twisted.credentials.PasswordCredentials`.
    :param spaces: For whom it is meant; every proxy by default.
    :param timeout: Seconds after which it is killed.
    :raises ValueError: There is no program.
    """

    def __init__(
        self,
        reactor: Any,
        command: Sequence[str],
        username: str | None = None,
        *,
        domain: str = "",
        spaces: Spaces | Iterable[str] = ANY_PROXY,
        timeout: float = TIMEOUT,
    ) -> None:
        if isinstance(command, str) or not command:
            raise ValueError("command: a program and its arguments, in a list")
        self._reactor = reactor
        self._command = list(command)
        self._username = username
        self._domain = domain
        self._timeout = timeout
        self._asked = AskedCredentials(reactor, self._ask, spaces=as_spaces(spaces))

    def __repr__(self) -> str:
        return f"CommandCredentials({self._name!r})"

    @property
    def _name(self) -> str:
        """The program without its arguments, which are nobody's business."""
        return os.path.basename(self._command[0])

    def credentials_for(self, peer: Peer) -> Found:
        """
        Run the program, unless what it printed is still good.

        :raises AuthenticationFailed: It cannot be run, fails, takes too long, or
            prints no password.
        """
        return self._asked.credentials_for(peer)

    async def _ask(self, peer: Peer) -> ICredentials:
        try:
            output = await self._run()
            text = output.decode("utf-8", "surrogateescape")
            name, password = read_secret(text, self._username)
            return PasswordCredentials(name, password, domain=self._domain)
        except (OSError, ValueError) as error:
            raise AuthenticationFailed(
                f"the program {self._name}: {error}", peer=str(peer)
            ) from None

    async def _run(self) -> bytes:
        program = shutil.which(self._command[0])
        if program is None:
            raise ValueError("is not there, or cannot be executed")
        running = _Running()
        self._reactor.spawnProcess(running, program, self._command, env=None)
        timer = self._reactor.callLater(
            self._timeout, running.kill, f"did not end within {self._timeout:g} s"
        )
        try:
            return await running.done
        finally:
            if timer.active():
                timer.cancel()


class _Running(ProcessProtocol):
    """One run of a program."""

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred()
        self._output = b""
        self._objection: str | None = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._output += data
        if len(self._output) > OUTPUT_LIMIT:
            self.kill("prints too much to be a password")

    def kill(self, objection: str) -> None:
        """End it; the first objection is told."""
        assert self.transport is not None
        self._objection = self._objection or objection
        try:
            self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            self.transport.loseConnection()  # a child of its own holds the pipes

    def processEnded(self, reason: Failure) -> None:
        error: Any = reason.value
        if self._objection is not None:
            self.done.errback(ValueError(self._objection))
        elif reason.check(ProcessDone) is None:
            how = (
                f"exit code {error.exitCode}"
                if error.signal is None
                else f"signal {error.signal}"
            )
            self.done.errback(ValueError(f"failed ({how})"))
        else:
            self.done.callback(self._output)
