"""Certificates for servers in memory, and whom to trust for them."""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from zope.interface import implementer

__all__ = ["Authority"]

_HTTP = b"http/1.1"


class Authority:
    """
    A certificate authority that lives as long as a test.

    :ivar certificate: Its own certificate, in PEM.
    """

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("a fake authority")
        root = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = root.public_bytes(Encoding.PEM)
        self._issued: dict[str, IOpenSSLServerConnectionCreator] = {}

    def trust_root(self) -> object:
        """Make what :class:`~coda_twisted.client.tls.TLSPolicy` wants to trust it."""
        return trustRootFromCertificates([Certificate.loadPEM(self.certificate)])

    def server(self, host: str) -> IOpenSSLServerConnectionCreator:
        """Make what a TLS server of this name needs; the same for the same name."""
        server = self._issued.get(host)
        if server is None:
            server = self._issued[host] = self._issue(host)
        return server

    def _issue(self, host: str) -> IOpenSSLServerConnectionCreator:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._builder(_name("a fake server"), key)
            .add_extension(x509.SubjectAlternativeName([_general(host)]), False)
            .sign(self._key, hashes.SHA256())
        )
        creator: IOpenSSLServerConnectionCreator = _Server(_context(certificate, key))
        return creator

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )


@implementer(IOpenSSLServerConnectionCreator)
class _Server:
    """Twisted's ``CertificateOptions`` would have pyOpenSSL warn of old objects."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context)


def _context(
    certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    try:
        context.use_certificate(certificate)
        context.use_privatekey(key)
    except TypeError:  # pyOpenSSL before 24.3
        context.use_certificate(X509.from_cryptography(certificate))
        context.use_privatekey(PKey.from_cryptography_key(key))
    context.set_alpn_select_callback(_select)
    return context


def _select(_: SSL.Connection, offered: list[bytes]) -> Any:
    return _HTTP if _HTTP in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
