"""Credentials of the desktop's keyring, by the package of that name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from coda_twisted.auth.steps import Peer
from coda_twisted.credentials import PasswordCredentials
from coda_twisted.errors import AuthenticationFailed
from coda_twisted.interfaces import ICredentials, ICredentialSource
from coda_twisted.sources.asked import AskedCredentials
from coda_twisted.sources.spaces import ANY_PROXY, Found, Spaces, as_spaces

__all__ = ["KeyringCredentials", "in_a_thread"]

T = TypeVar("T")


@implementer(ICredentialSource)
class KeyringCredentials:
    """
    What ``keyring set SERVICE NAME`` has stored: needs ``coda_twisted[keyring]``.

    The keyring is asked in a thread, for it may have to be unlocked.  What it says is
    kept until a peer refuses it, as by
    :class:`~coda_twisted.sources.asked.AskedCredentials`.

    :param reactor: The reactor.
    :param username: Whose password; by default the keyring's backend is asked for
        the name, too, which not every backend can tell.
    :param service: What it is stored under; by default the peer's URL with its port:
        ``http://proxy.example:3128``.
    :param domain: See :class:`~coda_twisted.credentials.PasswordCredentials`.
    :param spaces: For whom it is meant; every proxy by default.
    :param backend: Instead of the module ``keyring``: anything with its functions
        ``get_password`` and ``get_credential``.
    :param run: Runs what blocks; in a thread by default.
    :raises ImportError: The package ``keyring`` is not installed.
    """

    def __init__(
        self,
        reactor: Any,
        username: str | None = None,
        *,
        service: str | None = None,
        domain: str = "",
        spaces: Spaces | Iterable[str] = ANY_PROXY,
        backend: Any = None,
        run: Callable[[Callable[[], T]], Deferred[T]] | None = None,
    ) -> None:
        self._username = username
        self._service = service
        self._domain = domain
        self._spaces = as_spaces(spaces)
        self._backend = backend or _import_keyring()
        self._run: Any = run or partial(in_a_thread, reactor)
        self._asked = AskedCredentials(reactor, self._ask, spaces=self._spaces)

    def __repr__(self) -> str:
        return f"KeyringCredentials({self._username!r}, service={self._service!r})"

    def credentials_for(self, peer: Peer) -> Found:
        """
        Ask the keyring, unless it has been asked.

        :raises AuthenticationFailed: The keyring cannot be read.
        """
        return self._asked.credentials_for(peer)

    async def _ask(self, peer: Peer) -> ICredentials | None:
        service = self._service or str(peer).partition(" ")[2]
        try:
            found = await self._run(lambda: self._look_up(service))
        except Exception as error:
            # Backends raise what they like, and their texts are not ours to vouch for.
            raise AuthenticationFailed(
                f"the keyring cannot be read ({type(error).__name__})", peer=str(peer)
            ) from error
        if found is None:
            return None
        name, password = found
        return PasswordCredentials(name, password, domain=self._domain)

    def _look_up(self, service: str) -> tuple[str, str] | None:
        """Do what blocks."""
        if self._username is None:
            found = self._backend.get_credential(service, None)
            return None if found is None else (found.username, found.password)
        password = self._backend.get_password(service, self._username)
        return None if password is None else (self._username, password)


def _import_keyring() -> Any:
    try:
        return import_module("keyring")
    except ImportError as error:
        raise ImportError("credentials of a keyring need coda_twisted[keyring]") from (
            error
        )


def in_a_thread(reactor: Any, function: Callable[[], T]) -> Deferred[T]:
    """
    Run *function* in a thread of its own, which does not keep the process alive.

    The reactor's pool resolves names, and is waited for at the end; a prompt that
    nobody answers must hold up neither.
    """
    outcome: Deferred[T] = Deferred()

    def run() -> None:
        result: Any
        try:
            result = function()
        except Exception:
            result = Failure()
        reactor.callFromThread(outcome.callback, result)

    Thread(target=run, name="coda keyring", daemon=True).start()
    return outcome
