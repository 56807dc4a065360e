"""Tests for :mod:`coda_twisted.auth.bindings`."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import CertificateBuilder, Name, NameAttribute
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.auth.bindings import tls_server_end_point

PREFIX = b"tls-server-end-point:"

# RFC 8017 A.2.4: pkcs-1 1 to 14, in DER without tag and length.
MD5_WITH_RSA = bytes.fromhex("2a864886f70d010104")
SHA1_WITH_RSA = bytes.fromhex("2a864886f70d010105")
SHA256_WITH_RSA = bytes.fromhex("2a864886f70d01010b")


def certificate(key: Any, algorithm: Any, **options: Any) -> bytes:
    """Make a certificate that is signed as told, in DER."""
    name = Name([NameAttribute(NameOID.COMMON_NAME, "proxy.example")])
    start = datetime(2026, 1, 1)
    return (
        CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
        .sign(key, algorithm, **options)
        .public_bytes(Encoding.DER)
    )


class EndPointTests(SynchronousTestCase):
    """The binding of a certificate, by its signature's hash function."""

    elliptic = ec.generate_private_key(ec.SECP256R1())
    rsa = rsa.generate_private_key(65537, 2048)

    def check(self, der: bytes, name: str) -> None:
        expected = PREFIX + hashlib.new(name, der).digest()
        self.assertEqual(tls_server_end_point(der), expected)

    def test_hash_of_the_signature(self) -> None:
        """The certificate is hashed as its signature was (RFC 5929 4.1)."""
        for algorithm, name in (
            (hashes.SHA256(), "sha256"),
            (hashes.SHA384(), "sha384"),
            (hashes.SHA512(), "sha512"),
        ):
            for key in (self.elliptic, self.rsa):
                self.check(certificate(key, algorithm), name)

    def test_weak_hashes(self) -> None:
        """MD5 and SHA-1 are replaced by SHA-256 (RFC 5929 4.1)."""
        der = certificate(self.rsa, hashes.SHA256())
        self.assertEqual(der.count(SHA256_WITH_RSA), 2)
        for weak in (MD5_WITH_RSA, SHA1_WITH_RSA):
            self.check(der.replace(SHA256_WITH_RSA, weak), "sha256")

    def test_pss(self) -> None:
        """RSA-PSS names its hash function in the signature's parameters."""
        pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
        self.check(certificate(self.rsa, hashes.SHA384(), rsa_padding=pss), "sha384")

    def test_no_hash(self) -> None:
        """Ed25519 has no hash function of its own: SHA-256 is used."""
        key = ed25519.Ed25519PrivateKey.generate()
        self.check(certificate(key, None), "sha256")

    def test_unreadable(self) -> None:
        """A certificate that cannot be read is hashed by SHA-256."""
        der = certificate(self.rsa, hashes.SHA512())
        unknown = SHA256_WITH_RSA[:-1] + b"\x7f"
        sha512 = SHA256_WITH_RSA[:-1] + b"\x0d"
        self.assertEqual(der.count(sha512), 2)
        self.check(der.replace(sha512, unknown), "sha256")
        self.check(b"no certificate", "sha256")
