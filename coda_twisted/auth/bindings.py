"""Channel bindings: what ties a logon to the TLS connection it travels on."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256, Hash, HashAlgorithm
from cryptography.x509 import load_der_x509_certificate

__all__ = ["tls_server_end_point"]


def tls_server_end_point(certificate: bytes) -> bytes:
    """
    Make the ``tls-server-end-point`` binding of a server's certificate.

    RFC 5929 4.1: the certificate is hashed by its signature's hash function, but by
    SHA-256 in place of MD5 and SHA-1.  Where the signature has no single hash
    function (Ed25519) the RFC leaves the binding undefined; SHA-256 is what
    deployed servers use then.  It serves as well where the signature cannot be
    read: a wrong binding and none are refused alike by a server that asks for one.

    :param certificate: The certificate that the peer showed, in DER.
    :returns: The application data of the binding: prefix, colon and hash.
    """
    digest = Hash(_hash_function(certificate))
    digest.update(certificate)
    return b"tls-server-end-point:" + digest.finalize()


def _hash_function(certificate: bytes) -> HashAlgorithm:
    try:
        signed_with = load_der_x509_certificate(certificate).signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        # Not every certificate that OpenSSL takes is read by stricter parsers.
        return SHA256()
    if signed_with is None or signed_with.name in ("md5", "sha1"):
        return SHA256()
    return signed_with
