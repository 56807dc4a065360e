"""
The program of :class:`~tests.integration.origin.Origin`.

Written on asyncio, so that it shares no code with what is tested.  Each request
becomes one line of JSON in the log before it is answered.  The path says how:

    /echo             what was received, as JSON (so does every unknown path)
    /mirror           the content, sent back while it arrives
    /octets/N         N octets under a Content-Length
    /chunked/N        N octets in chunks, then a trailer with their SHA-256
    /until-close/N    N octets that end with the connection
    /cut/N            a Content-Length of N, half of it, and the end
    /cut-chunked/N    half of N octets in chunks, and the end
    /trickle/N        N octets, one every 0.05 s
    /silence/S        nothing for S seconds, then as /echo
    /status/CODE      this status
    /early/CODE       this status before the content has been read, then close
    /final-only       as /echo, but never 100 (Continue)
    /hints            103 (Early Hints) before the final answer
    /fields           fields that occur twice, in odd spellings
    /field/N          one field of N octets
    /reset            a connection reset instead of an answer

``Expect: 100-continue`` is answered by 100, and ``Upgrade: NAME`` by 101; from
then on every octet comes back.

The raw port speaks first: it sends a banner, returns what it gets, and after the
end of input says how many octets those were, for which it needs half a
connection.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

PIECE = 65536
BANNER = b"220 origin.test speaks first\r\n"
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n"
)
BODILESS = (204, 304)


def octets(size: int) -> Iterator[bytes]:
    """*size* octets that compress badly and are always the same, in pieces."""
    pattern = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(2048))
    while size > 0:
        yield pattern[:size]
        size -= len(pattern)


def common_name(certificate: Any) -> str | None:
    """The subject's common name in what the ssl module says of a certificate."""
    for [pair] in (certificate or {}).get("subject", ()):
        if pair[0] == "commonName":
            return str(pair[1])
    return None


@dataclass
class Request:
    """One request, and what is known of its content so far."""

    line: str
    fields: list[tuple[str, str]]
    connection: int
    number: int
    client: str
    tls: str | None
    certificate: str | None
    length: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    complete: bool = False

    def get(self, name: str) -> str:
        """All values of a field, joined."""
        return ", ".join(value for key, value in self.fields if key.lower() == name)

    @property
    def method(self) -> str:
        """The method."""
        return self.line.split(" ")[0]

    @property
    def path(self) -> list[str]:
        """The segments of the path."""
        target = re.sub(r"^[a-z]+://[^/]*", "", self.line.split(" ")[1])
        return target.partition("?")[0].strip("/").split("/")

    @property
    def chunked(self) -> bool:
        """Whether its content comes in chunks."""
        return "chunked" in self.get("transfer-encoding").lower()

    def facts(self) -> dict[str, Any]:
        """What goes into the log."""
        method, target, version = self.line.split(" ", 2)
        return {
            "method": method,
            "target": target,
            "version": version,
            "fields": self.fields,
            "connection": self.connection,
            "number": self.number,
            "client": self.client,
            "tls": self.tls,
            "certificate": self.certificate,
            "chunked": self.chunked,
            "length": self.length,
            "sha256": self.digest.hexdigest(),
            "trailers": self.trailers,
            "complete": self.complete,
        }


class Connection:
    """One connection of a client's."""

    _numbers = itertools.count(1)

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, log: TextIO
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.log = log
        self.number = next(self._numbers)

    async def serve(self) -> None:
        """Answer requests until one of them ends the connection."""
        for number in itertools.count(1):
            request = await self.read_head(number)
            if request is None or not await self.answer(request):
                break

    async def read_head(self, number: int) -> Request | None:
        """The next request; ``None`` when there is none."""
        line = await self.reader.readline()
        if not line:
            return None
        host, port = self.writer.get_extra_info("peername")[:2]
        tls = self.writer.get_extra_info("ssl_object")
        return Request(
            line=line.decode("latin-1").rstrip("\r\n"),
            fields=await self.read_fields(),
            connection=self.number,
            number=number,
            client=f"{host}:{port}",
            tls=tls and tls.version(),
            certificate=tls and common_name(tls.getpeercert()),
        )

    async def read_fields(self) -> list[tuple[str, str]]:
        """Field lines up to the empty one."""
        fields = []
        while (line := await self.reader.readline()).strip():
            name, _, value = line.decode("latin-1").partition(":")
            fields.append((name, value.strip()))
        return fields

    async def read_content(self, request: Request) -> AsyncIterator[bytes]:
        """The content, piece by piece, counted and hashed into *request*."""
        async for piece in self.pieces(request):
            request.length += len(piece)
            request.digest.update(piece)
            yield piece
        request.complete = True

    async def pieces(self, request: Request) -> AsyncIterator[bytes]:
        """The content, taken out of its framing."""
        if not request.chunked:
            async for piece in self.exactly(int(request.get("content-length") or 0)):
                yield piece
            return
        while size := int((await self.reader.readline()).partition(b";")[0], 16):
            async for piece in self.exactly(size):
                yield piece
            await self.reader.readexactly(2)
        request.trailers = await self.read_fields()

    async def exactly(self, size: int) -> AsyncIterator[bytes]:
        """*size* octets, in pieces."""
        while size:
            piece = await self.reader.read(min(size, PIECE))
            if not piece:
                raise asyncio.IncompleteReadError(b"", size)
            size -= len(piece)
            yield piece

    async def answer(self, request: Request) -> bool:
        """Answer; tell whether the connection goes on."""
        action, *arguments = request.path
        if action == "early":
            self.record(request)
            await self.send(request, int(arguments[0]), b"early\n", close=True)
            return False
        if "100-continue" in request.get("expect").lower() and action != "final-only":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if action == "mirror":
            return await self.mirror(request)
        try:
            async for _ in self.read_content(request):
                pass
        finally:
            self.record(request)
        if protocol := request.get("upgrade"):
            self.writer.write(SWITCHING % protocol.encode("latin-1"))
            await self.return_everything()
            return False
        return await self.perform(request, action, arguments)

    async def perform(
        self, request: Request, action: str, arguments: list[str]
    ) -> bool:
        """Answer as the path says, now that the content has been read."""
        status, extra = 200, []
        size = int(float(arguments[0])) if arguments else 0
        if action in ("octets", "chunked", "until-close", "cut", "cut-chunked"):
            return await self.send_octets(request, action, size)
        if action == "trickle":
            return await self.trickle(size)
        if action == "reset":
            self.reset()
            return False
        if action == "silence":
            await asyncio.sleep(float(arguments[0]))
        elif action == "hints":
            self.writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
        elif action == "fields":
            extra = ["Set-Cookie: a=1", "set-cookie: b=2, c", "X-Odd:  spaced  "]
        elif action == "field":
            extra = [f"X-Large: {'f' * size}"]
        elif action == "status":
            status = size
        content = json.dumps(request.facts()).encode() + b"\n"
        await self.send(request, status, content, extra)
        return "close" not in request.get("connection").lower()

    async def send(
        self,
        request: Request,
        status: int,
        content: bytes,
        extra: list[str] | None = None,
        close: bool = False,
    ) -> None:
        """Send one whole answer."""
        head = [f"HTTP/1.1 {status} Origin", *(extra or [])]
        if status not in BODILESS:
            head += [
                "Content-Type: application/json",
                f"Content-Length: {len(content)}",
            ]
        if status in (401, 407):
            name = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
            head.append(f'{name}: Basic realm="origin"')
        if close:
            head.append("Connection: close")
        self.writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
        if request.method != "HEAD" and status not in BODILESS:
            self.writer.write(content)
        await self.writer.drain()

    async def send_octets(self, request: Request, action: str, size: int) -> bool:
        """Send *size* octets, in the framing that *action* names."""
        chunked = "chunked" in action
        framing = f"Content-Length: {size}"
        if chunked:
            framing = "Transfer-Encoding: chunked\r\nTrailer: X-Sha256"
        elif action == "until-close":
            framing = "Connection: close"
        head = f"HTTP/1.1 200 Origin\r\nContent-Type: text/plain\r\n{framing}\r\n\r\n"
        self.writer.write(head.encode())
        if request.method == "HEAD":
            return action != "until-close"
        cut = action.startswith("cut")
        digest = hashlib.sha256()
        for piece in octets(size // 2 if cut else size):
            digest.update(piece)
            self.writer.write(
                b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece
            )
            await self.writer.drain()
        if chunked and not cut:
            self.writer.write(
                b"0\r\nX-Sha256: %s\r\n\r\n" % digest.hexdigest().encode()
            )
            await self.writer.drain()
        return not cut and action != "until-close"

    async def trickle(self, size: int) -> bool:
        """Send *size* octets slowly."""
        self.writer.write(b"HTTP/1.1 200 Origin\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size):
            await asyncio.sleep(0.05)
            self.writer.write(b".")
            await self.writer.drain()
        return True

    async def mirror(self, request: Request) -> bool:
        """Send the content back while it is still arriving."""
        self.writer.write(
            b"HTTP/1.1 200 Origin\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: application/octet-stream\r\n\r\n"
        )
        try:
            async for piece in self.read_content(request):
                self.writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await self.writer.drain()
        finally:
            self.record(request)
        trailers = "".join(f"{name}: {value}\r\n" for name, value in request.trailers)
        self.writer.write(f"0\r\n{trailers}\r\n".encode("latin-1"))
        await self.writer.drain()
        return True

    async def return_everything(self) -> int:
        """Send back what comes, until the end of input; tell how much it was."""
        total = 0
        while piece := await self.reader.read(PIECE):
            total += len(piece)
            self.writer.write(piece)
            await self.writer.drain()
        return total

    def reset(self) -> None:
        """End the connection with RST, by closing it without lingering."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def record(self, request: Request) -> None:
        """Write *request* to the log."""
        print(json.dumps(request.facts()), file=self.log, flush=True)


async def serve(arguments: argparse.Namespace, log: TextIO) -> None:
    """Listen on all ports until killed."""

    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await Connection(reader, writer, log).serve()
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass  # The client went away, or talks nonsense: the log shows it.
        finally:
            writer.close()

    async def raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(BANNER)
            total = await Connection(reader, writer, log).return_everything()
            writer.write(b"%d octets\r\n" % total)
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.chain, arguments.key)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(arguments.ca)
    await asyncio.gather(
        *(
            asyncio.start_server(
                talk, arguments.host, port, ssl=tls, backlog=500, limit=1 << 20
            )
            for talk, port, tls in (
                (web, arguments.port, None),
                (web, arguments.tls_port, context),
                (raw, arguments.raw_port, None),
            )
        )
    )
    await asyncio.Event().wait()


def main() -> None:
    """Run the server."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", action="append", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls-port", type=int, required=True)
    parser.add_argument("--raw-port", type=int, required=True)
    parser.add_argument("--chain", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--ca", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    arguments = parser.parse_args()
    with arguments.log.open("a") as log:
        asyncio.run(serve(arguments, log))


if __name__ == "__main__":
    main()
