"""
The program of :class:`~tests.integration.ntlm_helper.NTLMAuthority`.

Speaks squid's helper protocol for NTLM and Negotiate over TCP, one conversation
at a time on each connection, and really verifies: pyspnego's acceptor computes
the NTLMv2 response and the MIC from the passwords it knows.

    YR token  ->  TT token                 a handshake begins
    KK token  ->  AF user | NA reason      it ends
    unlock    ->  done                     our own: forget bad passwords

Every AUTHENTICATE message is one line of JSON in the log, written before squid
is answered.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import collections
import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any, TextIO

import spnego

BINDINGS_PAIR = 10  # MsvAvChannelBindings (MS-NLMP section 2.2.2.1)
FLAGS_PAIR = 6  # MsvAvFlags
MIC_PROVIDED = 0x2
UNICODE = 0x1


def read_authenticate(message: bytes) -> dict[str, Any] | None:
    """
    What an AUTHENTICATE_MESSAGE says (MS-NLMP section 2.2.1.3).

    :returns: ``None`` if there is none in *message*, which may be wrapped in SPNEGO.
    """
    start = message.find(b"NTLMSSP\0\3\0\0\0")
    if start < 0:
        return None
    message = message[start:]

    def payload(descriptor: int) -> bytes:
        length, _, offset = struct.unpack_from("<HHI", message, descriptor)
        return message[offset : offset + length]

    [flags] = struct.unpack_from("<I", message, 60)
    encoding = "utf-16-le" if flags & UNICODE else "latin-1"
    response = payload(20)
    # NTLMv2_RESPONSE: 16 octets of proof, 28 of fixed fields, then the AV pairs.
    pairs = read_pairs(response[44:]) if len(response) > 44 else {}
    [pair_flags] = struct.unpack("<I", pairs.get(FLAGS_PAIR, bytes(4)))
    return {
        "domain": payload(28).decode(encoding, "replace"),
        "user": payload(36).decode(encoding, "replace"),
        "workstation": payload(44).decode(encoding, "replace"),
        "ntlmv2": len(response) > 24,
        "mic": bool(pair_flags & MIC_PROVIDED),
        "bindings": pairs.get(BINDINGS_PAIR, b"").hex(),
    }


def read_pairs(data: bytes) -> dict[int, bytes]:
    """The AV_PAIRs of *data* (MS-NLMP section 2.2.2.1), by their AvId."""
    pairs = {}
    while len(data) >= 4:
        identifier, length = struct.unpack_from("<HH", data)
        if not identifier:
            break
        pairs[identifier] = data[4 : 4 + length]
        data = data[4 + length :]
    return pairs


def bindings_hash(end_point: bytes) -> str:
    """MD5 over gss_channel_bindings_struct (MS-NLMP section 2.2.2.1), in hex."""
    packed = struct.pack("<5I", 0, 0, 0, 0, len(end_point)) + end_point
    return hashlib.md5(packed).hexdigest()


class Accounts:
    """
    Bad passwords counted per account, and the log of all logons.

    :param log: Where each logon becomes a line.
    :param lockout: Refuse an account after so many bad passwords; 0 for never.
    :param bindings: The hash of channel bindings without which nobody logs on.
    """

    def __init__(self, log: TextIO, lockout: int, bindings: str | None) -> None:
        self.log = log
        self.lockout = lockout
        self.bindings = bindings
        self.bad: collections.Counter[str] = collections.Counter()

    def judge(self, facts: dict[str, Any], verified: bool) -> str:
        """Record one logon; tell ``accepted`` or why not."""
        account = f"{facts['domain']}\\{facts['user']}".lower()
        if self.bindings is not None and facts["bindings"] != self.bindings:
            result = "unbound"
        elif self.lockout and self.bad[account] >= self.lockout:
            result = "locked"
        elif verified and facts["ntlmv2"]:
            result = "accepted"
            del self.bad[account]
        else:
            result = "failed"
            self.bad[account] += 1
        print(json.dumps({**facts, "result": result}), file=self.log, flush=True)
        return result


class Conversation:
    """One helper of squid's: the handshakes it has, one after the other."""

    def __init__(self, scheme: str, accounts: Accounts) -> None:
        self.scheme = scheme
        self.accounts = accounts
        self.context: Any = None

    def answer(self, line: str) -> str:
        """Answer one line of squid's."""
        verb, token, *extras = [*line.split(), ""][:3]
        if verb == "unlock":
            self.accounts.bad.clear()
            return "done"
        if verb == "YR":
            self.context = spnego.server(protocol=self.scheme)
        if verb not in ("YR", "KK") or self.context is None:
            return "BH out of turn"
        try:
            return self.step(base64.b64decode(token, validate=True), "".join(extras))
        except (binascii.Error, struct.error) as error:
            return f"NA {self.last_token}malformed: {error}"

    @property
    def last_token(self) -> str:
        """The empty token that an answer for Negotiate must begin with."""
        return "= " if self.scheme == "negotiate" else ""

    def step(self, token: bytes, client: str) -> str:
        """Give *token* to the acceptor, and the answer to squid."""
        facts = read_authenticate(token)
        error = ""
        out = None
        try:
            out = self.context.step(token)
        except spnego.exceptions.SpnegoError as refusal:
            error = str(refusal).replace("\n", " ")
        if facts is None:
            if error:
                return f"NA {self.last_token}{error}"
            return f"TT {base64.b64encode(out or b'').decode()}"
        result = self.accounts.judge({**facts, "client": client}, not error)
        context, self.context = self.context, None
        if result != "accepted":
            return f"NA {self.last_token}{result} {error}"
        final = base64.b64encode(out).decode() if out else "="
        return f"AF {final + ' ' if self.last_token else ''}{context.client_principal}"


async def serve(arguments: argparse.Namespace, log: TextIO) -> None:
    """Serve squid's helpers until killed."""
    bindings = arguments.end_point and bindings_hash(bytes.fromhex(arguments.end_point))
    accounts = Accounts(log, arguments.lockout, bindings)

    async def converse(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        scheme = (await reader.readline()).decode().strip()
        conversation = Conversation(scheme, accounts)
        while line := await reader.readline():
            writer.write(conversation.answer(line.decode("latin-1")).encode() + b"\n")
        writer.close()

    server = await asyncio.start_server(
        converse, "127.0.0.1", arguments.port, limit=1 << 20, backlog=500
    )
    await server.serve_forever()


def main() -> None:
    """Run the daemon."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--users", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--lockout", type=int, default=0)
    parser.add_argument("--end-point", help="required channel binding, in hex")
    arguments = parser.parse_args()
    os.environ["NTLM_USER_FILE"] = str(arguments.users)
    with arguments.log.open("a") as log:
        asyncio.run(serve(arguments, log))


if __name__ == "__main__":
    main()
