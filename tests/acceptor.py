"""A peer that really verifies NTLM: pyspnego's acceptor, with users in a file."""

from __future__ import annotations

import os
import struct
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

import spnego
from spnego.channel_bindings import GssChannelBindings
from spnego.exceptions import SpnegoError

from coda_twisted.auth.layer import AuthLayer
from coda_twisted.auth.steps import Proceed, Reply, Step, Work

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase

Fields = list[tuple[bytes, bytes]]


def settle(layer: AuthLayer, step: Step) -> Step:
    """Run each work at once, as a driver's threads would."""
    while isinstance(step, Work):
        try:
            result = step.run()
        except Exception as error:
            step = layer.failed(error)
        else:
            step = layer.worked(result)
    return step


@dataclass
class NTLMAcceptor:
    """
    A proxy's side of NTLM, for any number of connections one after another.

    :ivar scheme: The name under which it speaks.
    :ivar bindings: Demand this channel binding's application data.
    :ivar per_request: Forget each logon with its answer.
    :ivar others: Challenges offered beside NTLM.
    :ivar negotiates: NEGOTIATE_MESSAGEs seen.
    :ivar logons: AUTHENTICATE_MESSAGEs seen.
    :ivar failures: Why those that failed did.
    :ivar principals: Whom those that did not were from.
    """

    scheme: bytes = b"NTLM"
    bindings: bytes | None = None
    per_request: bool = False
    others: list[bytes] = field(default_factory=list)
    negotiates: int = 0
    logons: list[bytes] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    principals: list[str] = field(default_factory=list)
    _context: Any = None
    _user: str | None = None

    @classmethod
    def made_for(cls, case: SynchronousTestCase, *lines: str) -> NTLMAcceptor:
        """
        Make one that knows some users, as long as a test runs.

        :param lines: ``DOMAIN:user:password``, as in pyspnego's ``NTLM_USER_FILE``.
        """
        with NamedTemporaryFile("w", suffix=".users", delete=False) as file:
            file.write("\n".join(lines))
        case.addCleanup(os.unlink, file.name)
        case.addCleanup(_restore, "NTLM_USER_FILE", os.environ.get("NTLM_USER_FILE"))
        os.environ["NTLM_USER_FILE"] = file.name
        return cls()

    def connected(self) -> None:
        """Forget the connection: there is a new one."""
        self._context = self._user = None

    def answer(self, step: Step) -> tuple[int, Fields]:
        """Answer a request with what *step* says on it."""
        if isinstance(step, Proceed):
            if self._user is not None and not self.per_request:
                return 200, []
            return self._challenge()
        assert isinstance(step, Reply), step
        scheme, _, token68 = step.value.partition(b" ")
        assert scheme == self.scheme, scheme
        token = b64decode(token68, validate=True)
        if token[8] == 1:
            self.negotiates += 1
            bindings = None
            if self.bindings is not None:
                bindings = GssChannelBindings(application_data=self.bindings)
            self._context = spnego.server(protocol="ntlm", channel_bindings=bindings)
            challenge = self._context.step(token)
            return 407, [(b"Proxy-Authenticate", scheme + b" " + b64encode(challenge))]
        self.logons.append(token)
        try:
            self._context.step(token)
        except SpnegoError as error:
            self.failures.append(str(error))
            return self._challenge()
        self._user = self._context.client_principal
        self.principals.append(self._context.client_principal)
        return 200, []

    def _challenge(self) -> tuple[int, Fields]:
        self._context = None
        return 407, [(b"Proxy-Authenticate", v) for v in [self.scheme, *self.others]]


def part(message: bytes, at: int) -> bytes:
    """Get a payload field of an AUTHENTICATE_MESSAGE (MS-NLMP 2.2.1.3)."""
    length, _, offset = struct.unpack_from("<HHI", message, at)
    return message[offset : offset + length]


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
