"""A throwaway certificate authority, and what servers and clients have of it."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.integration.servers import workspace

__all__ = ["HOSTS", "Authority", "Certificate", "authority", "server_certificate"]

# The names under which the servers of these tests are reached.
HOSTS = ("localhost", "origin.test", "proxy.test", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Certificate:
    """
    A certificate and its key, in files that everyone may read.

    :ivar chain: PEM file of the certificate.
    :ivar key: PEM file of the private key.
    :ivar der: The certificate itself.
    """

    chain: Path
    key: Path
    der: bytes

    @property
    def end_point(self) -> bytes:
        """Its ``tls-server-end-point`` channel binding (RFC 5929 section 4)."""
        return b"tls-server-end-point:" + hashlib.sha256(self.der).digest()


class Authority:
    """
    A certificate authority.

    :param name: Its common name, and that of its directory.
    :ivar ca: PEM file of the root, to be trusted or not.
    """

    def __init__(self, name: str) -> None:
        self._directory = workspace() / name
        self._directory.mkdir()
        self._directory.chmod(0o755)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        root = (
            self._builder(self._name, self._key.public_key(), days=30)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .add_extension(usage, True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca = self._write("ca.pem", root.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        hosts: tuple[str, ...] = HOSTS,
        *,
        client: bool = False,
        expired: bool = False,
    ) -> Certificate:
        """
        Issue a certificate, under a new key.

        :param name: The common name, and the stem of its files.
        :param hosts: DNS names and IP addresses it is good for.
        :param client: For a client to show, rather than a server.
        :param expired: Make it one that ended yesterday.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        usage = (
            ExtendedKeyUsageOID.CLIENT_AUTH
            if client
            else ExtendedKeyUsageOID.SERVER_AUTH
        )
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(subject, key.public_key(), days=-1 if expired else 30)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .add_extension(x509.SubjectAlternativeName(map(_general, hosts)), False)
            .add_extension(x509.ExtendedKeyUsage([usage]), False)
            .sign(self._key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Certificate(
            self._write(f"{name}.pem", pem),
            self._write(f"{name}.key", private),
            certificate.public_bytes(serialization.Encoding.DER),
        )

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=2))
            .not_valid_after(now + dt.timedelta(days=days))
        )

    def _write(self, name: str, content: bytes) -> Path:
        path = self._directory / name
        path.write_bytes(content)
        # squid reads its key after it has dropped root's rights.
        path.chmod(0o644)
        return path


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@functools.cache
def authority() -> Authority:
    """The authority that signs the servers' certificates."""
    return Authority("trusted-ca")


@functools.cache
def server_certificate() -> Certificate:
    """The certificate that every server shows, unless told otherwise."""
    return authority().issue("server")
