"""
The tokens of SPNEGO, as far as an acceptor of NTLM needs them (RFC 4178 4.2).

Only NTLM's are looked into; those that carry Kerberos go to GSSAPI as they are.  The
mechListMIC is neither checked nor sent: it protects the choice among mechanisms, and
there is one.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Wrapped", "accept_completed", "accept_incomplete", "unwrap"]

_SPNEGO = bytes.fromhex("06062b0601050502")
NTLM_MECHANISM = bytes.fromhex("060a2b06010401823702020a")

_INIT = 0x60  # GSS-API's framing of the first token
_SEQUENCE = 0x30
_OCTET_STRING = 0x04
_CONTEXT = 0xA0


class Wrapped(NamedTuple):
    """
    What a token of the initiator holds.

    :ivar first: Whether it is the NegTokenInit that begins an exchange.
    :ivar mechanism: The one its token is for, in DER; empty where it does not say.
    :ivar token: That mechanism's token.
    """

    first: bool
    mechanism: bytes
    token: bytes


def unwrap(data: bytes) -> Wrapped | None:
    """Look into a token; ``None`` for one that is not SPNEGO's, or is malformed."""
    try:
        tag, content, _ = _take(data)
        if tag == _INIT and content.startswith(_SPNEGO):
            fields = _fields(content[len(_SPNEGO) :], 0)
            mechanisms = _inside(fields[0], _SEQUENCE)
            length = len(mechanisms) - len(_take(mechanisms)[2])
            token = _inside(fields[2], _OCTET_STRING) if 2 in fields else b""
            return Wrapped(True, mechanisms[:length], token)
        fields = _fields(data, 1)
        return Wrapped(False, b"", _inside(fields[2], _OCTET_STRING))
    except (IndexError, KeyError, ValueError):
        return None


def accept_incomplete(token: bytes) -> bytes:
    """Write a NegTokenResp that goes on with NTLM."""
    return _response(1, _tlv(_CONTEXT + 1, NTLM_MECHANISM), token)


def accept_completed() -> bytes:
    """Write the NegTokenResp that ends an exchange."""
    return _response(0, b"", b"")


def _response(state: int, mechanism: bytes, token: bytes) -> bytes:
    content = _tlv(_CONTEXT, bytes((0x0A, 1, state))) + mechanism
    if token:
        content += _tlv(_CONTEXT + 2, _tlv(_OCTET_STRING, token))
    return _tlv(_CONTEXT + 1, _tlv(_SEQUENCE, content))


def _fields(data: bytes, choice: int) -> dict[int, bytes]:
    """Take a NegotiationToken apart, by the numbers of its fields."""
    rest = _inside(_inside(data, _CONTEXT + choice), _SEQUENCE)
    fields = {}
    while rest:
        tag, content, rest = _take(rest)
        fields[tag - _CONTEXT] = content
    return fields


def _inside(data: bytes, expected: int) -> bytes:
    tag, content, _ = _take(data)
    if tag != expected:
        raise ValueError("another tag")
    return content


def _take(data: bytes) -> tuple[int, bytes, bytes]:
    """Take the first element off: its tag, its content, and what follows."""
    tag, length, start = data[0], data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    end = start + length
    if end > len(data):
        raise ValueError("cut short")
    return tag, data[start:end], data[end:]


def _tlv(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content
