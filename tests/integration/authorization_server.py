"""An authorization server of OAuth 1.0a and 2, which Authlib makes."""

from __future__ import annotations

import functools
import json
import ssl
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.integration.certificates import authority, server_certificate
from tests.integration.servers import (
    GrowingLog,
    ServerProcess,
    clean_environment,
    free_port,
    workspace,
)
from tests.integration.tools import require_modules

__all__ = [
    "PASSWORD",
    "PERSONAL_TOKEN",
    "SECRET",
    "AuthorizationServer",
    "authorization_server",
]

# As in authorization_server_app, which cannot be imported without Authlib.
PASSWORD = "correct horse & battery"
SECRET = "s3cret: & more"
PERSONAL_TOKEN = "personal"  # of OAuth 1.0a; its secret is SECRET


class AuthorizationServer(ServerProcess):
    """
    The server, on an http and an https port, and a proxy that wants its tokens.

    What each path does is told in :mod:`tests.integration.authorization_server_app`.

    :ivar rsa_key: The private key of the OAuth 1.0a client, in PEM.
    """

    def __init__(self) -> None:
        require_modules("authlib", "flask")
        self.port = free_port()
        self.tls_port = free_port()
        self.proxy_port = free_port()
        self.log = GrowingLog(workspace() / f"oauth-{self.port}.jsonl", delay=0)
        key = rsa.generate_private_key(65537, 2048)
        self.rsa_key = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        public = workspace() / f"oauth-{self.port}.pem"
        public.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM,
                serialization.PublicFormat.SubjectPublicKeyInfo,
            )
        )
        certificate = server_certificate()
        program = Path(__file__).with_name("authorization_server_app.py")
        command = [
            *(sys.executable, str(program), "--log", str(self.log.path)),
            *("--port", str(self.port), "--tls-port", str(self.tls_port)),
            *("--proxy-port", str(self.proxy_port), "--rsa-public", str(public)),
            *("--chain", str(certificate.chain), "--key", str(certificate.key)),
        ]
        ports = [self.port, self.tls_port, self.proxy_port]
        super().__init__("oauth", command, ports, clean_environment())

    @property
    def proxy_url(self) -> str:
        """A proxy that wants a bearer token."""
        return f"http://localhost:{self.proxy_port}"

    def url(self, path: str = "") -> str:
        """An http URL here."""
        return f"http://localhost:{self.port}{path}"

    def tls_url(self, path: str = "") -> str:
        """An https URL here."""
        return f"https://localhost:{self.tls_port}{path}"

    def reset(self) -> None:
        """Forget the requests so far."""
        self.log.reset()

    def requests(self, path: str) -> list[dict[str, Any]]:
        """What was asked for under a path since the last reset."""
        lines = map(json.loads, self.log.lines())
        return [line for line in lines if line["path"] == path]

    def visit(self, url: str) -> Deferred[str]:
        """Be the user's browser, while the reactor goes on; where it ends up."""
        return deferToThread(self.browse, url)

    def tell(self, path: str, **form: str) -> Deferred[str]:
        """Have the server do something, behind the client's back."""
        return deferToThread(self.browse, self.tls_url(path), form)

    def browse(self, url: str, form: dict[str, str] | None = None) -> str:
        """As :meth:`visit`, for who has no reactor."""
        context = ssl.create_default_context(cafile=str(authority().ca))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=context),
        )
        data = None if form is None else urlencode(form).encode("ascii")
        with opener.open(url, data, timeout=20) as response:
            response.read()
            return str(response.url)


@functools.cache
def authorization_server() -> AuthorizationServer:
    """The running authorization server that all tests share."""
    shared = AuthorizationServer()
    shared.start()
    return shared
