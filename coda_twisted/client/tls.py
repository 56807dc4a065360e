"""Whom we trust, and who we are, in TLS."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from coda_twisted.auth.bindings import tls_server_end_point

__all__ = ["TLSPolicy", "channel_bindings", "peer_certificate"]

MAX_CREATORS = 1024
"""Hosts whose TLS context is kept; making one costs milliseconds."""


@implementer(IPolicyForHTTPS)
class TLSPolicy:
    """
    Verify the peer's name and certificate (RFC 9110 4.3.4, by service-identity).

    ALPN offers ``http/1.1`` alone: NTLM cannot run over HTTP/2.

    :param trust_root: What ``optionsForClientTLS`` takes; the platform's by default.
    :param client_certificate: Certificate and key to show to a peer that asks.
    """

    def __init__(
        self,
        trust_root: Any = None,
        client_certificate: PrivateCertificate | None = None,
    ) -> None:
        self._trust_root = platformTrust() if trust_root is None else trust_root
        self._client_certificate = client_certificate
        self._creators: dict[bytes, IOpenSSLClientConnectionCreator] = {}

    @classmethod
    def from_files(
        cls,
        ca_file: str | None = None,
        certificate_file: str | None = None,
    ) -> TLSPolicy:
        """
        Read PEM files.

        :param ca_file: Certificates to trust instead of the platform's.
        :param certificate_file: A client certificate and its unencrypted key.
        :raises OSError: A file cannot be read.
        :raises ValueError: A file holds no such thing.
        """
        root = None
        if ca_file is not None:
            with open(ca_file, "rb") as file:
                root = trustRootFromCertificates(_certificates(file.read(), ca_file))
        client = None
        if certificate_file is not None:
            with open(certificate_file, "rb") as file:
                try:
                    client = PrivateCertificate.loadPEM(file.read())
                except SSL.Error as error:
                    raise ValueError(
                        f"{certificate_file}: no certificate with its key in PEM"
                    ) from error
        return cls(root, client)

    @classmethod
    def from_pem(cls, authorities: bytes, name: str = "PEM") -> TLSPolicy:
        """
        Trust the certificates of a PEM bundle instead of the platform's.

        :param name: What to call the bundle in an error.
        :raises ValueError: It holds no such thing.
        """
        return cls(trustRootFromCertificates(_certificates(authorities, name)))

    def creatorForNetloc(
        self, hostname: bytes, port: int
    ) -> IOpenSSLClientConnectionCreator:
        """
        Make what ``wrapClientTLS`` needs for one host (IPolicyForHTTPS).

        :raises ValueError: No host can have that name, in the words of Twisted's
            ``HostnameEndpoint``.
        """
        creator = self._creators.get(hostname)
        if creator is None:
            if len(self._creators) >= MAX_CREATORS:
                self._creators.clear()
            name = hostname.decode("ascii")
            try:
                creator = optionsForClientTLS(
                    name,
                    trustRoot=self._trust_root,
                    clientCertificate=self._client_certificate,
                    acceptableProtocols=[b"http/1.1"],
                )
            except UnicodeError as error:  # IDNA's: "..", "xn--a"
                raise ValueError(f"invalid hostname: {name}") from error
            self._creators[hostname] = creator
        return creator


def _certificates(bundle: bytes, name: str) -> list[Certificate]:
    """Read every certificate of a PEM bundle."""
    end = b"-----END CERTIFICATE-----"
    pieces = bundle.split(end)[:-1]
    try:
        found = [Certificate.loadPEM(piece + end + b"\n") for piece in pieces]
    except SSL.Error as error:
        raise ValueError(f"{name}: a certificate cannot be read") from error
    if not found:
        raise ValueError(f"{name}: no certificate in PEM")
    return found


def peer_certificate(transport: Any) -> bytes | None:
    """
    Get the certificate of the TLS peer nearest to us, in DER.

    :returns: ``None`` where the transport is not TLS.
    """
    get = getattr(transport, "getPeerCertificate", None)
    certificate = get() if get is not None else None
    if certificate is None:
        return None
    return bytes(Certificate(certificate).dump())


def channel_bindings(transport: Any) -> bytes | None:
    """
    Get what binds a logon to its TLS connection (RFC 5929 4).

    :returns: The application data; ``None`` where the transport is not TLS.
    """
    certificate = peer_certificate(transport)
    return None if certificate is None else tls_server_end_point(certificate)
