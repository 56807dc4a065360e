"""The messages of NTLM as a server reads and writes them (MS-NLMP 2.2.1)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest

from coda_twisted.testing.ntlm_hashes import hmac_md5, ntowfv2, rc4

__all__ = [
    "NTLM_SIGNATURE",
    "Authenticate",
    "challenge_message",
    "message_type",
    "read_authenticate",
]

NTLM_SIGNATURE = b"NTLMSSP\0"

# NegotiateFlags (MS-NLMP 2.2.2.5).
_UNICODE = 0x00000001
_OEM = 0x00000002
_REQUEST_TARGET = 0x00000004
_SIGN = 0x00000010
_SEAL = 0x00000020
_NTLM = 0x00000200
_ALWAYS_SIGN = 0x00008000
_TARGET_TYPE_SERVER = 0x00020000
_EXTENDED_SESSIONSECURITY = 0x00080000
_TARGET_INFO = 0x00800000
_VERSION = 0x02000000
_128 = 0x20000000
_KEY_EXCH = 0x40000000
_56 = 0x80000000

_ECHOED = (
    _UNICODE
    | _SIGN
    | _SEAL
    | _EXTENDED_SESSIONSECURITY
    | _VERSION
    | _128
    | _KEY_EXCH
    | _56
)

# AvIds (MS-NLMP 2.2.2.1).
_EOL = 0
_NB_COMPUTER_NAME = 1
_NB_DOMAIN_NAME = 2
_DNS_COMPUTER_NAME = 3
_FLAGS = 6
_TIMESTAMP = 7
_CHANNEL_BINDINGS = 10

_MIC_PROVIDED = 0x2
_MIC_AT = 72
_UNIX_EPOCH = 116444736000000000
"""1970 in tenths of microseconds since 1601."""

_WINDOWS_10 = struct.pack("<BBHxxxB", 10, 0, 19041, 15)


def message_type(message: bytes) -> int:
    """Tell 1, 2 or 3; 0 for what is no message of NTLM."""
    if not message.startswith(NTLM_SIGNATURE) or len(message) < 32:
        return 0
    return int.from_bytes(message[8:12], "little")


def challenge_message(
    negotiate: bytes, server_challenge: bytes, name: str, now: float
) -> bytes:
    """
    Answer a NEGOTIATE_MESSAGE (MS-NLMP 2.2.1.2 and 3.2.5.1.1).

    :param server_challenge: Eight octets that nobody can foresee.
    :param name: The server's, and its domain's.
    :param now: Seconds since 1970; with a time, clients protect the messages by a
        MIC.
    """
    [asked] = struct.unpack_from("<I", negotiate, 12)
    flags = (
        asked & _ECHOED
        | _NTLM
        | _ALWAYS_SIGN
        | _REQUEST_TARGET
        | _TARGET_TYPE_SERVER
        | _TARGET_INFO
    )
    if not asked & _UNICODE:
        flags |= _OEM
    target = _encode(name.upper(), flags)
    info = b"".join(
        struct.pack("<HH", identifier, len(value)) + value
        for identifier, value in (
            (_NB_DOMAIN_NAME, name.upper().encode("utf-16-le")),
            (_NB_COMPUTER_NAME, name.upper().encode("utf-16-le")),
            (_DNS_COMPUTER_NAME, name.lower().encode("utf-16-le")),
            (_TIMESTAMP, struct.pack("<Q", int(now * 10**7) + _UNIX_EPOCH)),
            (_EOL, b""),
        )
    )
    return b"".join(
        (
            NTLM_SIGNATURE + struct.pack("<I", 2),
            struct.pack("<HHI", len(target), len(target), 56),
            struct.pack("<I", flags) + server_challenge + bytes(8),
            struct.pack("<HHI", len(info), len(info), 56 + len(target)),
            _WINDOWS_10 if flags & _VERSION else bytes(8),
            target + info,
        )
    )


def _encode(text: str, flags: int) -> bytes:
    return text.encode("utf-16-le" if flags & _UNICODE else "latin-1", "replace")


@dataclass(frozen=True, slots=True)
class Authenticate:
    """
    An AUTHENTICATE_MESSAGE (MS-NLMP 2.2.1.3).

    :ivar bindings: MsvAvChannelBindings; empty where there are none, which a client
        says with sixteen zeros or by leaving them out.
    """

    domain: str
    user: str
    workstation: str
    nt_response: bytes = field(repr=False)
    bindings: bytes = field(repr=False)
    _flags: int = field(repr=False)
    _session_key: bytes = field(repr=False)
    _mic: bytes = field(repr=False)
    _message: bytes = field(repr=False)

    @property
    def is_v2(self) -> bool:
        """Whether the response is NTLMv2's: NTLMv1's have 24 octets (2.2.2.6)."""
        return len(self.nt_response) > 24 + 20

    def proves(self, password: str, server_challenge: bytes, *earlier: bytes) -> bool:
        """
        Say whether it was made with *password*, for this very handshake.

        MS-NLMP 3.3.2 for the response, 3.1.5.1.2 and 3.2.5.1.2 for the MIC.

        :param earlier: The NEGOTIATE_MESSAGE and the CHALLENGE_MESSAGE.
        """
        if not self.is_v2:
            return False
        key = ntowfv2(self.user, self.domain, password)
        nt_proof_str, temp = self.nt_response[:16], self.nt_response[16:]
        if not compare_digest(hmac_md5(key, server_challenge, temp), nt_proof_str):
            return False
        if not self._mic:
            return True
        bare = self._message[:_MIC_AT] + bytes(16) + self._message[_MIC_AT + 16 :]
        exported = self._exported_session_key(hmac_md5(key, nt_proof_str))
        return compare_digest(hmac_md5(exported, *earlier, bare), self._mic)

    def _exported_session_key(self, key_exchange_key: bytes) -> bytes:
        if self._flags & _KEY_EXCH and self._flags & (_SIGN | _SEAL):
            return rc4(key_exchange_key, self._session_key)
        return key_exchange_key


def read_authenticate(message: bytes) -> Authenticate:
    """
    Read an AUTHENTICATE_MESSAGE.

    :raises ValueError: It is cut short, or points outside of itself.
    """
    if message_type(message) != 3 or len(message) < 64:
        raise ValueError("no AUTHENTICATE_MESSAGE")
    [flags] = struct.unpack_from("<I", message, 60)
    encoding = "utf-16-le" if flags & _UNICODE else "latin-1"
    nt_response = _payload(message, 20)
    # NTLMv2_RESPONSE (2.2.2.8): 16 octets of proof, 28 of fixed fields, AV_PAIRs.
    pairs = _read_pairs(nt_response[44:])
    provided = int.from_bytes(pairs.get(_FLAGS, b""), "little") & _MIC_PROVIDED
    mic = message[_MIC_AT : _MIC_AT + 16] if provided else b""
    if provided and len(mic) < 16:
        raise ValueError("the AUTHENTICATE_MESSAGE has no room for its MIC")
    bindings = pairs.get(_CHANNEL_BINDINGS, b"")
    return Authenticate(
        domain=_payload(message, 28).decode(encoding, "replace"),
        user=_payload(message, 36).decode(encoding, "replace"),
        workstation=_payload(message, 44).decode(encoding, "replace"),
        nt_response=nt_response,
        bindings=bindings.strip(b"\0") and bindings,
        _flags=flags,
        _session_key=_payload(message, 52),
        _mic=mic,
        _message=message,
    )


def _payload(message: bytes, descriptor: int) -> bytes:
    length, _, offset = struct.unpack_from("<HHI", message, descriptor)
    if offset + length > len(message):
        raise ValueError("a field lies outside of the AUTHENTICATE_MESSAGE")
    return message[offset : offset + length]


def _read_pairs(data: bytes) -> Mapping[int, bytes]:
    """Read AV_PAIRs (2.2.2.1); what cannot be read ends them."""
    pairs: dict[int, bytes] = {}
    while len(data) >= 4:
        identifier, length = struct.unpack_from("<HH", data)
        if identifier == _EOL:
            break
        pairs[identifier] = data[4 : 4 + length]
        data = data[4 + length :]
    return pairs
