"""
The program of :class:`~tests.integration.guarded.GuardedSite`.

An origin server that knows who everybody is, and really verifies: Digest by the
formulas of RFC 7616, and NTLM by pyspnego's acceptor.  The query says what is
asked for; the path is that of :mod:`tests.integration.origin_server`:

    ?md5 ?sha-256 ?sha-512-256   Digest with this algorithm
    ?sha-256-sess                the same with a session key
    ?silent                      Digest without a proof that the server knows us
    ?ntlm                        NTLM; over TLS, bound to one certificate
    ?impostor                    Digest, and then a proof that is none
    ?false-ticket                Negotiate, and then a token that is none

Whatever is behind the last two lets everybody in, for it knows nobody.  A nonce
is good once with each count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import ssl
from base64 import b64encode
from pathlib import Path
from typing import Any, ClassVar, TextIO

from coda_twisted.auth.steps import Reply
from tests.digest import fields_of, response
from tests.integration.ntlm_daemon import Accounts, Conversation, bindings_hash
from tests.integration.origin_server import Connection, Request
from tests.integration.people import PEOPLE

REALM = "coda guarded"
ALGORITHMS = {
    "md5": "MD5",
    "sha-256": "SHA-256",
    "sha-512-256": "SHA-512-256",
    "sha-256-sess": "SHA-256-sess",
    "silent": "SHA-256",
    "impostor": "SHA-256",
}
PASSWORDS = {person.name: person.password for person in PEOPLE}


class Guarded(Connection):
    """One connection, on which everybody has to say who they are."""

    # Each nonce, with the counts it was used with.
    nonces: ClassVar[dict[str, set[str]]] = {}
    # Those with TLS, and those without: who is not bound to it is not let in.
    accounts: ClassVar[dict[bool, Accounts]] = {}

    user = ""
    verdict = ""
    # To be sent with the answer.
    extra: tuple[str, ...] = ()
    handshake: Conversation | None = None
    owner = ""

    async def answer(self, request: Request) -> bool:
        """Answer, or ask who it is."""
        area = request.line.split(" ")[1].partition("?")[2]
        self.user, self.extra = "", ()
        judge = {"ntlm": self.ntlm, "false-ticket": self.false_ticket}.get(area)
        self.verdict = judge(request) if judge else self.digest(request, area)
        if self.verdict == "accepted":
            return await super().answer(request)
        expects = "100-continue" in request.get("expect").lower()
        if not expects:
            async for _ in self.read_content(request):
                pass
        self.record(request)
        lines = ["HTTP/1.1 401 Guarded", *self.extra, "Content-Length: 0"]
        if expects:
            lines.append("Connection: close")
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        await self.writer.drain()
        return not expects

    # Schemes

    def digest(self, request: Request, area: str) -> str:
        """Judge by Digest."""
        value = request.get("authorization")
        verdict = "asked"
        if value.startswith("Digest "):
            fields = fields_of(Reply(value.encode("latin-1")))
            verdict = self.judge_digest(request, fields, area)
        if verdict != "accepted":
            nonce = secrets.token_hex()
            self.nonces[nonce] = set()
            stale = ", stale=true" if verdict == "stale" else ""
            self.extra = (
                f'WWW-Authenticate: Digest realm="{REALM}", nonce="{nonce}", '
                f'algorithm={ALGORITHMS[area]}, qop="auth", opaque="o"{stale}',
            )
        return verdict

    def judge_digest(self, request: Request, fields: dict[str, str], area: str) -> str:
        """Compare the response with what it has to be."""
        self.user = fields["username"]
        name, password = self.user.encode(), PASSWORDS[self.user].encode()
        right = (
            fields["algorithm"] == ALGORITHMS[area]
            and (fields["realm"], fields["opaque"]) == (REALM, "o")
            and fields["uri"] == request.line.split(" ")[1]
            and fields["response"] == response(fields, name, password, request.method)
        )
        if area != "impostor" and not right:
            return "refused"
        counts = self.nonces.get(fields["nonce"])
        if counts is None or fields["nc"] in counts:
            return "stale"
        counts.add(fields["nc"])
        if area != "silent":
            if area == "impostor":
                password = b"never heard of it"
            proof = response(fields, name, password, "")
            self.extra = (
                f'Authentication-Info: rspauth="{proof}", qop=auth, '
                f'cnonce="{fields["cnonce"]}", nc={fields["nc"]}',
            )
        return "accepted"

    def ntlm(self, request: Request) -> str:
        """Judge by NTLM, once for the connection."""
        scheme, _, token = request.get("authorization").partition(" ")
        if scheme.upper() == "NTLM":
            self.owner = ""
            if self.handshake is None:
                accounts = self.accounts[request.tls is not None]
                self.handshake = Conversation("ntlm", accounts)
                said = self.handshake.answer(f"YR {token} {request.client}")
            else:
                said = self.handshake.answer(f"KK {token} {request.client}")
                self.handshake = None
            match said.split(" ", 1):
                case ["TT", challenge]:
                    self.extra = (f"WWW-Authenticate: NTLM {challenge}",)
                    return "asked"
                case ["AF", name]:
                    self.owner = name
        self.user = self.owner
        if self.owner:
            return "accepted"
        self.extra = ("WWW-Authenticate: NTLM",)
        return "refused" if token else "asked"

    def false_ticket(self, request: Request) -> str:
        """Pretend to have seen a ticket."""
        if request.get("authorization").startswith("Negotiate "):
            token = b64encode(b"trust me").decode()
            self.extra = (f"WWW-Authenticate: Negotiate {token}",)
            return "accepted"
        self.extra = ("WWW-Authenticate: Negotiate",)
        return "asked"

    # Answers

    async def perform(
        self, request: Request, action: str, arguments: list[str]
    ) -> bool:
        """Answer as the path says; ``/echo`` says what Apache's does."""
        if action != "echo":
            return await super().perform(request, action, arguments)
        echo = {
            "method": request.method,
            "user": self.user,
            "sha256": request.digest.hexdigest(),
            "proxy_answer": request.get("proxy-authorization"),
        }
        await self.send(request, 200, json.dumps(echo).encode())
        return True

    async def send(
        self,
        request: Request,
        status: int,
        content: bytes,
        extra: list[str] | None = None,
        close: bool = False,
    ) -> None:
        """Send one whole answer, with what the scheme adds to it."""
        added = [*(extra or ()), *self.extra]
        await super().send(request, status, content, added, close)

    def record(self, request: Request) -> None:
        """Write *request* and its verdict to the log."""
        facts = {"received": request.facts(), "verdict": self.verdict}
        print(json.dumps({**facts, "user": self.user}), file=self.log, flush=True)


async def serve(arguments: argparse.Namespace, log: TextIO, logons: TextIO) -> None:
    """Listen on all ports until killed."""
    bound = bindings_hash(bytes.fromhex(arguments.end_point))
    Guarded.accounts = {
        False: Accounts(logons, 0, None),
        True: Accounts(logons, 0, bound),
    }

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await Guarded(reader, writer, log).serve()
        except (OSError, asyncio.IncompleteReadError):
            pass  # The client went away: the log shows it.
        finally:
            writer.close()

    def tls(chain: Path, key: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        return context

    listeners: list[tuple[int, Any]] = [
        (arguments.port, None),
        (arguments.tls_port, tls(arguments.chain, arguments.key)),
        (arguments.relay_port, tls(arguments.relay_chain, arguments.relay_key)),
    ]
    for port, context in listeners:
        await asyncio.start_server(
            talk, "127.0.0.1", port, ssl=context, backlog=500, limit=1 << 20
        )
    await asyncio.Event().wait()


def main() -> None:
    """Run the server."""
    parser = argparse.ArgumentParser()
    for name in ("port", "tls-port", "relay-port"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("chain", "key", "relay-chain", "relay-key"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("users", "log", "logons"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--end-point", required=True, help="channel binding, in hex")
    arguments = parser.parse_args()
    os.environ["NTLM_USER_FILE"] = str(arguments.users)
    with arguments.log.open("a") as log, arguments.logons.open("a") as logons:
        asyncio.run(serve(arguments, log, logons))


if __name__ == "__main__":
    main()
