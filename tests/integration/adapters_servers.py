"""
Servers that are not of the web, in the tests' reactor: mail, WebSocket, mailboxes.

They wait on loopback for what comes out of a proxy's tunnel.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from twisted.mail.imap4 import IAccount, IMAP4Server, MemoryAccount
from twisted.mail.interfaces import IMessageDelivery, IMessageSMTP
from twisted.mail.smtp import ESMTP, SMTPFactory
from zope.interface import directlyProvides, implementer

from tests.integration.certificates import server_certificate

__all__ = [
    "IMAPServer",
    "Listening",
    "SMTPServer",
    "mailbox_server",
    "websocket_server",
]


class Listening:
    """
    A factory on a port of loopback.

    :ivar port: The port.
    :ivar clients: The addresses from which connections came.
    """

    def __init__(self, factory: Any, *, tls: bool = False) -> None:
        self.clients: list[Any] = []
        self.port = 0
        self._factory = factory
        self._description = "tcp:0:interface=127.0.0.1"
        if tls:
            files = server_certificate()
            where = f"certKey={files.chain}:privateKey={files.key}"
            self._description = f"ssl:0:interface=127.0.0.1:{where}"
        self._listener: Any = None
        build = factory.buildProtocol

        def note(address: Any) -> Any:
            self.clients.append(address)
            return build(address)

        factory.buildProtocol = note

    async def start(self) -> None:
        """Listen."""
        endpoint = serverFromString(reactor, self._description)
        self._listener = await endpoint.listen(self._factory)
        self.port = self._listener.getHost().port

    def stop(self) -> Any:
        """Listen no more."""
        return self._listener.stopListening()


# IMAP


class Mailbox:
    """A mailbox of which only the number of its messages is asked for."""

    def __init__(self, messages: int) -> None:
        self._messages = messages

    def requestStatus(self, names: list[str]) -> Any:
        return succeed(dict.fromkeys(names, self._messages))


@implementer(IRealm)
class _Accounts:
    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        account = MemoryAccount(avatarId.decode())
        account.addMailbox("INBOX", Mailbox(3))
        return IAccount, account, lambda: None


class IMAPServer(Listening):
    """An IMAP server where one user has three messages."""

    def __init__(self, user: str, password: str) -> None:
        users = InMemoryUsernamePasswordDatabaseDontUse()
        users.addUser(user.encode(), password.encode())
        portal = Portal(_Accounts(), [users])

        def build() -> Any:
            server: Any = IMAP4Server()
            server.portal = portal
            return server

        super().__init__(Factory.forProtocol(build))


# SMTP


@implementer(IMessageSMTP)
class _Message:
    def __init__(self, delivered: list[bytes]) -> None:
        self._delivered = delivered
        self._lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        self._lines.append(line)

    def eomReceived(self) -> Deferred[None]:
        self._delivered.append(b"\n".join(self._lines))
        return succeed(None)

    def connectionLost(self) -> None:
        """Forget it."""


@implementer(IMessageDelivery)
class _Delivery:
    def __init__(self, delivered: list[bytes]) -> None:
        self._delivered = delivered

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b"Received: by a test"

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        return origin

    def validateTo(self, user: Any) -> Any:
        return lambda: _Message(self._delivered)


class SMTPServer(Listening):
    """
    An SMTP server that takes everything.

    :ivar delivered: The messages.
    """

    def __init__(self, *, tls: bool = False) -> None:
        self.delivered: list[bytes] = []

        class Factory(SMTPFactory):
            def buildProtocol(factory, addr: Any) -> Any:  # noqa: N805
                protocol = ESMTP()
                protocol.delivery = _Delivery(self.delivered)
                protocol.factory = factory
                protocol.host = b"mail.test"
                return protocol

        super().__init__(Factory(), tls=tls)


# WebSocket


def websocket_server(*, tls: bool = False) -> Listening:
    """A WebSocket server that greets, and returns every message."""
    from autobahn.twisted.websocket import (
        WebSocketServerFactory,
        WebSocketServerProtocol,
    )

    class Echo(WebSocketServerProtocol):
        def onOpen(self) -> None:
            self.sendMessage(b"hello")

        def onMessage(self, payload: bytes, isBinary: bool) -> None:
            self.sendMessage(payload, isBinary)

    factory = WebSocketServerFactory()
    factory.protocol = Echo
    # As websites do; without, Twisted 26.10 refuses clients that offer any protocol.
    factory.acceptableProtocols = lambda: [b"http/1.1"]
    directlyProvides(factory, IProtocolNegotiationFactory)
    return Listening(factory, tls=tls)


def mailbox_server() -> Listening:
    """A mailbox server of magic-wormhole's."""
    from wormhole_mailbox_server.database import create_channel_db, create_usage_db
    from wormhole_mailbox_server.server import make_server
    from wormhole_mailbox_server.web import make_web_server

    server = make_server(
        create_channel_db(":memory:"), usage_db=create_usage_db(":memory:")
    )
    return Listening(make_web_server(server, log_requests=False))
