"""
The arithmetic of NTLM: MD4, RC4, NTOWFv2 and what is made of them.

It is written out here, so that a fake and the client under test do not share their
mistakes, and because OpenSSL no longer has MD4.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

__all__ = ["bindings_hash", "hmac_md5", "md4", "ntowfv1", "ntowfv2", "rc4"]

_MASK = 0xFFFFFFFF

# RFC 1320 3.4: for each round its constant, shifts, and the order of the words.
_ROUNDS = (
    (0, (3, 7, 11, 19), tuple(range(16))),
    (0x5A827999, (3, 5, 9, 13), (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)),
    (
        0x6ED9EBA1,
        (3, 9, 11, 15),
        (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15),
    ),
)


def md4(data: bytes) -> bytes:
    """Hash by MD4 (RFC 1320)."""
    padding = b"\x80" + bytes((55 - len(data)) % 64) + struct.pack("<Q", 8 * len(data))
    padded = data + padding
    state = [0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476]
    for start in range(0, len(padded), 64):
        words = struct.unpack_from("<16I", padded, start)
        a, b, c, d = state
        for number, (constant, shifts, order) in enumerate(_ROUNDS):
            for step, word in enumerate(order):
                total = a + _mix(number, b, c, d) + words[word] + constant & _MASK
                shift = shifts[step % 4]
                a, b, c, d = d, (total << shift | total >> 32 - shift) & _MASK, b, c
        state = [x + y & _MASK for x, y in zip(state, (a, b, c, d), strict=True)]
    return struct.pack("<4I", *state)


def _mix(number: int, x: int, y: int, z: int) -> int:
    if number == 0:
        return x & y | ~x & z
    if number == 1:
        return x & y | x & z | y & z
    return x ^ y ^ z


def rc4(key: bytes, data: bytes) -> bytes:
    """Encrypt or decrypt by RC4."""
    box = list(range(256))
    j = 0
    for i in range(256):
        j = j + box[i] + key[i % len(key)] & 255
        box[i], box[j] = box[j], box[i]
    out = bytearray()
    i = j = 0
    for octet in data:
        i = i + 1 & 255
        j = j + box[i] & 255
        box[i], box[j] = box[j], box[i]
        out.append(octet ^ box[box[i] + box[j] & 255])
    return bytes(out)


def hmac_md5(key: bytes, *parts: bytes) -> bytes:
    """Compute HMAC_MD5 over the parts joined (MS-NLMP 6)."""
    return hmac.digest(key, b"".join(parts), "md5")


def ntowfv1(password: str) -> bytes:
    """Hash a password as Windows keeps it (MS-NLMP 3.3.1)."""
    return md4(password.encode("utf-16-le", "surrogatepass"))


def ntowfv2(user: str, domain: str, password: str) -> bytes:
    """Compute NTOWFv2 (MS-NLMP 3.3.2); *user* and *domain* as the client sent them."""
    name = (user.upper() + domain).encode("utf-16-le", "surrogatepass")
    return hmac_md5(ntowfv1(password), name)


def bindings_hash(application_data: bytes) -> bytes:
    """Compute MsvAvChannelBindings (MS-NLMP 2.2.2.1): MD5 of the GSS structure."""
    packed = struct.pack("<5I", 0, 0, 0, 0, len(application_data)) + application_data
    return hashlib.md5(packed, usedforsecurity=False).digest()
