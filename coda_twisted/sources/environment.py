"""Credentials of the process's environment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from zope.interface import implementer

from coda_twisted.auth.steps import Peer
from coda_twisted.credentials import PasswordCredentials
from coda_twisted.errors import AuthenticationFailed
from coda_twisted.interfaces import ICredentials, ICredentialSource
from coda_twisted.sources.spaces import ANY_PROXY, Found, Spaces, as_spaces

__all__ = ["EnvironmentCredentials"]


@implementer(ICredentialSource)
class EnvironmentCredentials:
    """
    Name and password of two variables: ``CODA_PROXY_USER``, ``CODA_PROXY_PASSWORD``.

    They are read for each request.  Without the first, or with an empty one, there
    are no credentials.  A third one, ``CODA_PROXY_DOMAIN``, may hold the domain for
    NTLM and Negotiate.

    :param prefix: What stands in place of ``CODA_PROXY``.
    :param spaces: For whom they are meant; every proxy by default.
    :param environ: Instead of the process's environment.
    """

    def __init__(
        self,
        prefix: str = "CODA_PROXY",
        *,
        spaces: Spaces | Iterable[str] = ANY_PROXY,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._prefix = prefix
        self._spaces = as_spaces(spaces)
        self._environ = os.environ if environ is None else environ
        self._values: tuple[str, str, str] | None = None
        self._credentials: ICredentials | None = None

    def __repr__(self) -> str:
        return f"EnvironmentCredentials({self._prefix!r})"

    def credentials_for(self, peer: Peer) -> Found:
        """
        Read the variables.

        :raises AuthenticationFailed: There is a name and no password, or one of
            them cannot have been meant.
        """
        return self._spaces.give(peer, self._read)

    def _read(self, peer: Peer) -> ICredentials | None:
        user, password, domain = values = (
            self._environ.get(f"{self._prefix}_USER", ""),
            self._environ.get(f"{self._prefix}_PASSWORD", ""),
            self._environ.get(f"{self._prefix}_DOMAIN", ""),
        )
        if not user:
            return None
        if values != self._values:
            if not password:
                raise AuthenticationFailed(
                    f"{self._prefix}_USER is set and {self._prefix}_PASSWORD is not",
                    peer=str(peer),
                )
            try:
                self._credentials = PasswordCredentials(user, password, domain=domain)
            except ValueError as error:
                raise AuthenticationFailed(
                    f"{self._prefix}_USER and {self._prefix}_PASSWORD: {error}",
                    peer=str(peer),
                ) from None
            self._values = values
        return self._credentials
