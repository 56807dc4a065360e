"""
The faults: each is injected at one step, and each has one honest outcome.

A case plays client and next server on a :class:`~tests.integration.stage.Stage`, and
asserts what either sees.  What is left behind is counted by whoever runs it.
"""

from __future__ import annotations

import socket
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from coda_twisted.service.server import ProxyService
from coda_twisted.testing.ntlm_messages import challenge_message
from tests.integration.stage import WINDOW, Stage, Stream

__all__ = ["FAULTS", "Fault"]

Script = Callable[[Stage], Coroutine[Any, Any, None]]

KIB, MIB = 1024, 1024 * 1024

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ncontent"
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\ncontent"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TOO_LARGE = b"HTTP/1.1 413 No\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge"


@dataclass(frozen=True)
class Fault:
    """
    One row of the table.

    :ivar step: When it happens.
    :ivar what: What happens.
    :ivar seen: What the client sees.
    :ivar slow: Whether it takes seconds, by a limit that cannot be chosen.
    """

    step: str
    what: str
    seen: str
    run: Script
    slow: bool = False

    @property
    def name(self) -> str:
        """Its name, as a test's."""
        return self.run.__name__


FAULTS: list[Fault] = []


def fault(
    step: str, what: str, seen: str, *, slow: bool = False
) -> Callable[[Script], Script]:
    def note(run: Script) -> Script:
        FAULTS.append(Fault(step, what, seen, run, slow))
        return run

    return note


# ---- What cases have in common


def ask(
    stage: Stage,
    service: ProxyService | None = None,
    *fields: str,
    method: str = "GET",
    content: bytes = b"",
    window: int | None = None,
) -> Stream:
    """Have a new client ask for something of the next server."""
    client = stage.connect(service or stage.direct, window)
    client.send(request(stage, *fields, method=method) + content)
    return client


def request(
    stage: Stage, *fields: str, method: str = "GET", host: str | None = None
) -> bytes:
    authority = host or stage.authority
    target = authority if method == "CONNECT" else f"http://{authority}/"
    lines = [f"{method} {target} HTTP/1.1", f"Host: {authority}", *fields, "", ""]
    return "\r\n".join(lines).encode()


async def asked(stage: Stage, answer: bytes = b"") -> Stream:
    """Take the next connection and what is asked on it, and answer."""
    server = await stage.accept()
    await server.head()
    if answer:
        server.send(answer)
    return server


async def kept(stage: Stage, method: str = "GET") -> tuple[Stream, Stream]:
    """Ask once, in peace, so that the connection to the server is kept; ask again."""
    client = ask(stage)
    server = await asked(stage, OK)
    await stage.whole(client)
    extra = ["Content-Length: 0"] if method == "POST" else []
    client.send(request(stage, *extra, method=method))
    await server.head()
    return client, server


def post(size: int, *fields: str) -> list[str]:
    return [f"Content-Length: {size}", *fields]


async def upload(
    stage: Stage, size: int = 8 * MIB, begin: int = 256 * KIB
) -> tuple[Stream, Stream]:
    """Have a client send much, of which the server reads the head."""
    client = ask(
        stage,
        None,
        *post(size),
        method="POST",
        content=bytes(begin),
    )
    server = await stage.accept()
    await server.head()
    return client, server


# ---- Connecting


@fault("connecting", "the server refuses", "502, connection_refused")
async def refused(stage: Stage) -> None:
    await stage.refuse()
    await stage.page(ask(stage), 502, "connection_refused")


@fault("connecting", "the upstream proxy refuses", "502, connection_refused")
async def proxy_refused(stage: Stage) -> None:
    await stage.refuse()
    answer = await stage.page(ask(stage, stage.above), 502, "connection_refused")
    assert stage.authority.encode() in answer.content


@fault("connecting", "the server does not answer", "504, connection_timeout")
async def unreachable(stage: Stage) -> None:
    with blackhole() as hole:
        client = stage.connect(stage.direct)
        client.send(request(stage, host=hole))
        await stage.page(client, 504, "connection_timeout")


@fault(
    "connecting",
    "the server resets as soon as it accepts",
    "502, connection_terminated",
)
async def reset_on_accept(stage: Stage) -> None:
    client = ask(stage)
    (await stage.accept()).reset()
    await stage.page(client, 502, "connection_terminated")
    assert not stage.waiting, "a new connection that failed is not tried again"


@fault("connecting", "the client goes away meanwhile", "nothing")
async def client_gone_while_connecting(stage: Stage) -> None:
    with blackhole() as hole:
        client = stage.connect(stage.direct)
        client.send(request(stage, host=hole))
        await stage.sleep(0.02)
        client.reset()
        await stage.sleep(0.02)


@contextmanager
def blackhole() -> Iterator[str]:
    """Have an address, with its port, where nobody answers: its queue is full."""
    with ExitStack() as sockets:
        listening = sockets.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):
            filling = sockets.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listening.getsockname())
        yield f"127.0.0.1:{listening.getsockname()[1]}"


# ---- Names


def named(stage: Stage) -> Stream:
    client = stage.connect(stage.direct)
    client.send(request(stage, host=f"{stage.name}:{stage.port}"))
    return client


@fault("name resolution", "it fails, then works again", "502, dns_error; then 200")
async def name_unknown(stage: Stage) -> None:
    client = named(stage)
    await stage.page(client, 502, "dns_error")
    stage.names.known[stage.name] = "127.0.0.1"
    client.send(request(stage, host=f"{stage.name}:{stage.port}"))
    await asked(stage, OK)
    await stage.whole(client)
    assert stage.names.asked[stage.name] == 2, "a failure is not kept"


@fault("name resolution", "it does not end", "504, connection_timeout")
async def name_stalls(stage: Stage) -> None:
    stage.names.known[stage.name] = None
    await stage.page(named(stage), 504, "connection_timeout")


@fault("name resolution", "the name moves to another address", "502; then 200")
async def name_moves(stage: Stage) -> None:
    stage.names.known[stage.name] = "127.0.0.2"  # where nobody listens
    await stage.page(named(stage), 502, "connection_refused")
    stage.names.known[stage.name] = "127.0.0.1"
    client = named(stage)
    await asked(stage, OK)
    await stage.whole(client)


@fault("name resolution", "the client goes away meanwhile", "nothing")
async def client_gone_while_resolving(stage: Stage) -> None:
    stage.names.known[stage.name] = None
    client = named(stage)
    await stage.sleep(0.02)
    client.reset()
    await stage.sleep(0.02)


# ---- TLS to the upstream proxy


@fault("TLS handshake", "the proxy closes", "502")
async def tls_closed(stage: Stage) -> None:
    await stage.listen_plain()
    client = ask(stage, stage.secure)
    server = await stage.accept()
    await server.some()
    server.close()
    await failed_tls(stage, client)


@fault("TLS handshake", "the proxy resets", "502")
async def tls_reset(stage: Stage) -> None:
    await stage.listen_plain()
    client = ask(stage, stage.secure)
    server = await stage.accept()
    await server.some()
    server.reset()
    await failed_tls(stage, client)


@fault("TLS handshake", "the proxy speaks something else", "502")
async def tls_garbage(stage: Stage) -> None:
    await stage.listen_plain()
    client = ask(stage, stage.secure)
    server = await stage.accept()
    await server.some()
    server.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await failed_tls(stage, client)
    await stage.end(server)


@fault("TLS handshake", "the proxy says nothing", "504, connection_timeout")
async def tls_stalls(stage: Stage) -> None:
    await stage.listen_plain()
    client = ask(stage, stage.secure)
    server = await stage.accept()
    await stage.page(client, 504, "connection_timeout")
    await stage.end(server)


@fault("TLS handshake", "the proxy stops in the middle", "504, connection_timeout")
async def tls_stalls_midway(stage: Stage) -> None:
    await stage.listen_plain()
    client = ask(stage, stage.secure)
    server = await stage.accept()
    await server.some()
    server.send(b"\x16\x03\x03\x00\x7a\x02\x00")  # a ServerHello begins
    await stage.page(client, 504, "connection_timeout")
    await stage.end(server)


@fault(
    "TLS handshake", "the certificate is of nobody known", "502, tls_certificate_error"
)
async def tls_stranger(stage: Stage) -> None:
    await stage.listen_tls(good=False)
    await stage.page(ask(stage, stage.secure), 502, "tls_certificate_error")


@fault(
    "TLS handshake", "the certificate is for another name", "502, tls_certificate_error"
)
async def tls_wrong_name(stage: Stage) -> None:
    await stage.listen_tls(name="elsewhere.test")
    await stage.page(ask(stage, stage.secure), 502, "tls_certificate_error")


@fault("TLS handshake", "the client goes away meanwhile", "nothing")
async def client_gone_during_tls(stage: Stage) -> None:
    await stage.listen_plain()
    client = ask(stage, stage.secure)
    server = await stage.accept()
    await server.some()
    client.reset()
    await stage.end(server)


@fault("answer over TLS", "the connection is cut in the middle", "an answer cut short")
async def tls_cut(stage: Stage) -> None:
    await stage.listen_tls()
    client = ask(stage, stage.secure)
    server = await asked(stage, LONG)
    await client.until(b"content")
    server.reset()
    assert await client.rest() == b"" and client.ended


async def failed_tls(stage: Stage, client: Stream) -> None:
    answer = await stage.answer(client)
    assert (answer.status, answer.complete) == (502, True), answer
    assert b"proxy-status" in answer.fields


# ---- Before the answer


@fault("before the answer", "silence", "504, http_response_timeout")
async def silence(stage: Stage) -> None:
    client = ask(stage)
    server = await asked(stage)
    await stage.page(client, 504, "http_response_timeout")
    await stage.end(server)


@fault("before the answer", "a new connection is closed", "502, connection_terminated")
async def closed_at_once(stage: Stage) -> None:
    client = ask(stage)
    (await asked(stage)).close()
    await stage.page(client, 502, "connection_terminated")
    assert not stage.waiting


@fault("before the answer", "a new connection is reset", "502, connection_terminated")
async def reset_at_once(stage: Stage) -> None:
    client = ask(stage)
    (await asked(stage)).reset()
    await stage.page(client, 502, "connection_terminated")
    assert not stage.waiting


@fault(
    "before the answer",
    "a kept connection is closed under a GET",
    "200: it is sent again, once, on a new connection (RFC 9112 9.3.1)",
)
async def kept_closed(stage: Stage) -> None:
    client, server = await kept(stage)
    server.close()
    await asked(stage, OK)
    await stage.whole(client)


@fault("before the answer", "a kept connection is reset under a GET", "200, as above")
async def kept_reset(stage: Stage) -> None:
    client, server = await kept(stage)
    server.reset()
    await asked(stage, OK)
    await stage.whole(client)


@fault(
    "before the answer",
    "a kept connection is closed under a GET, and the new one too",
    "502, connection_terminated",
)
async def kept_closed_twice(stage: Stage) -> None:
    client, server = await kept(stage)
    server.close()
    (await asked(stage)).close()
    await stage.page(client, 502, "connection_terminated")
    assert not stage.waiting


@fault(
    "before the answer",
    "a kept connection is closed under a POST",
    "502, connection_terminated: it is not sent twice",
)
async def kept_closed_under_post(stage: Stage) -> None:
    client, server = await kept(stage, "POST")
    server.close()
    await stage.page(client, 502, "connection_terminated")
    assert not stage.waiting


@fault("before the answer", "a kept connection is closed while idle", "200")
async def closed_while_idle(stage: Stage) -> None:
    client = ask(stage)
    server = await asked(stage, OK)
    await stage.whole(client)
    server.close()
    await stage.end(server)
    client.send(request(stage, "Content-Length: 0", method="POST"))
    await asked(stage, OK)
    await stage.whole(client)


@fault("before the answer", "the client ends its half", "nothing; the request ends")
async def client_ends_half(stage: Stage) -> None:
    client = ask(stage)
    server = await asked(stage)
    client.finish()
    await stage.end(server)
    await stage.end(client)
    assert client.take() == b""


@fault("before the answer", "the client resets", "nothing; the request ends")
async def client_resets(stage: Stage) -> None:
    client = ask(stage)
    server = await asked(stage)
    client.reset()
    await stage.end(server)


@fault("before the answer", "a client that has to queue goes away", "nothing")
async def client_gone_in_queue(stage: Stage) -> None:
    pool = stage.above._proxy.client._pool
    most, pool._max_per_key = pool._max_per_key, 1
    try:
        first = ask(stage, stage.above)
        server = await asked(stage)
        second = ask(stage, stage.above)
        third = ask(stage, stage.above)
        [shelf] = pool._shelves.values()
        while len(shelf.waiters) < 2:
            await stage.sleep(0.001)
        second.reset()
        while len(shelf.waiters) > 1:
            await stage.sleep(0.001)
        server.send(OK)
        await stage.whole(first)
        await server.head()
        server.send(OK)
        await stage.whole(third)
    finally:
        pool._max_per_key = most


# ---- The answer's head


@fault("answer's head", "closed in the middle", "502, connection_terminated")
async def closed_in_head(stage: Stage) -> None:
    client = ask(stage)
    (await asked(stage, b"HTTP/1.1 200 OK\r\nContent-Le")).close()
    await stage.page(client, 502, "connection_terminated")


@fault("answer's head", "reset in the middle", "502, connection_terminated")
async def reset_in_head(stage: Stage) -> None:
    client = ask(stage)
    server = await asked(stage, b"HTTP/1.1 200 OK\r\nContent-Le")
    await stage.sleep(0.02)
    server.reset()
    await stage.page(client, 502, "connection_terminated")


@fault("answer's head", "silence in the middle", "504, http_response_timeout")
async def silence_in_head(stage: Stage) -> None:
    client = ask(stage)
    server = await asked(stage, b"HTTP/1.1 200 OK\r\nContent-Le")
    await stage.page(client, 504, "http_response_timeout")
    await stage.end(server)


@fault("answer's head", "it is no head", "502, http_protocol_error")
async def garbage(stage: Stage) -> None:
    client = ask(stage)
    server = await asked(stage, b"220 mail.example ESMTP\r\n\r\n")
    await stage.page(client, 502, "http_protocol_error")
    await stage.end(server)


@fault("answer's head", "it does not end", "502, http_protocol_error")
async def endless_head(stage: Stage) -> None:
    client = ask(stage)
    server = await asked(stage, b"HTTP/1.1 200 OK\r\n" + b"X-More: 1\r\n" * 20_000)
    await stage.page(client, 502, "http_protocol_error")
    await stage.end(server)


@fault("answer's head", "closed behind a 103", "103; 502, connection_terminated")
async def closed_behind_interim(stage: Stage) -> None:
    client = ask(stage)
    server = await asked(stage, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    assert (await client.head()).startswith(b"HTTP/1.1 103 ")
    server.close()
    await stage.page(client, 502, "connection_terminated")


# ---- The answer's content


def cutting(what: str, begin: bytes, content: bytes, how: str = "close") -> None:
    """Add a row: the answer's content ends in the middle."""
    verb = {"close": "closed", "reset": "reset", "stall": "silence"}[how]

    async def run(stage: Stage) -> None:
        client = ask(stage)
        server = await asked(stage, begin)
        if how != "stall":
            # A reset takes with it what is on its way.
            if how == "reset":
                await client.until(content[-2:] if content else b"\r\n\r\n")
                server.reset()
                assert b"\r\n0\r\n" not in await client.rest()
                assert client.ended
                return
            server.close()
        await stage.cut(client, content)
        await stage.end(server)

    slug = "".join(each if each.isalnum() else "_" for each in what)
    run.__name__ = f"{verb}_{slug}"
    fault("answer's content", f"{verb} {what}", "an answer cut short")(run)


for _how in ("close", "reset", "stall"):
    cutting("before any of it came", LONG[:-7], b"", _how)
    cutting("before Content-Length octets", LONG, b"content", _how)
    cutting("within a chunk's size", CHUNKS + b"7\r\ncontent\r\n1", b"content", _how)
    cutting("within a chunk", CHUNKS + b"9\r\ncontent", b"content", _how)
    cutting("between chunks", CHUNKS + b"7\r\ncontent\r\n", b"content", _how)
    cutting(
        "within the trailers",
        CHUNKS + b"7\r\ncontent\r\n0\r\nX-Sum: ",
        b"content",
        _how,
    )
cutting(
    "where its end is the connection's",
    OK.replace(b"Content-Length: 7\r\n", b""),
    b"content",
    "reset",
)
cutting(
    "where its end is the connection's",
    OK.replace(b"Content-Length: 7\r\n", b""),
    b"content",
    "stall",
)


@fault("answer's content", "a chunk is malformed", "an answer cut short")
async def malformed_chunk(stage: Stage) -> None:
    client = ask(stage)
    server = await asked(stage, CHUNKS + b"7\r\ncontent\r\n")
    await client.until(b"content\r\n")
    server.send(b"x\r\n")
    assert await client.rest() == b""
    await stage.end(server)


async def large(stage: Stage) -> tuple[Stream, Stream]:
    """Have the server send half of an answer that is large."""
    client = ask(stage)
    server = await asked(stage)
    server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * MIB))
    server.send(bytes(MIB))
    await client.head()
    assert len(await client.exactly(MIB)) == MIB
    return client, server


@fault("answer's content", "closed within much of it", "an answer cut short")
async def closed_in_large(stage: Stage) -> None:
    client, server = await large(stage)
    server.send(bytes(MIB // 2))
    server.close()
    assert len(await client.rest()) == MIB // 2
    assert client.ended


@fault("answer's content", "reset within much of it", "an answer cut short")
async def reset_in_large(stage: Stage) -> None:
    client, server = await large(stage)
    server.reset()
    assert await client.rest() == b""
    assert client.ended


@fault("answer's content", "silence within much of it", "an answer cut short")
async def silence_in_large(stage: Stage) -> None:
    client, server = await large(stage)
    assert await client.rest() == b""
    await stage.end(server)


@fault(
    "answer's content",
    "the client resets within much of it",
    "the server's connection ends",
)
async def client_resets_in_large(stage: Stage) -> None:
    client, server = await large(stage)
    server.send(bytes(MIB // 2))
    client.reset()
    await stage.end(server)


@fault(
    "answer's content",
    "reset where its end is the connection's, before a client of HTTP/1.0",
    "a reset",
)
async def reset_for_http10(stage: Stage) -> None:
    client = stage.connect(stage.direct)
    client.send(request(stage).replace(b"HTTP/1.1", b"HTTP/1.0"))
    server = await asked(stage, b"HTTP/1.1 200 OK\r\n\r\ncontent")
    await client.until(b"content")
    server.reset()
    assert await stage.end(client) == "reset"


@fault("answer's content", "octets come behind it", "200; the connection is not kept")
async def octets_behind(stage: Stage) -> None:
    client = ask(stage)
    server = await asked(stage, OK + b"HTTP/1.1 200 OK\r\n\r\nforged")
    await stage.whole(client)
    await stage.end(server)
    client.send(request(stage))
    await asked(stage, OK)
    await stage.whole(client)


@fault("answer's content", "the client resets", "the server's connection ends")
async def client_resets_in_answer(stage: Stage) -> None:
    client = ask(stage)
    server = await asked(stage, LONG)
    await client.until(b"content")
    client.reset()
    await stage.end(server)


@fault("answer's content", "the client closes", "the server's connection ends")
async def client_closes_in_answer(stage: Stage) -> None:
    client = ask(stage)
    server = await asked(stage, LONG)
    await client.until(b"content")
    client.close()
    await stage.end(server)


@fault("answer's content", "the client does not read it", "a reset, in time")
async def client_does_not_read(stage: Stage) -> None:
    client = ask(stage, window=WINDOW)
    client.stop_reading()
    server = await asked(stage)
    size = 8 * MIB
    server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    server.send(bytes(size))
    await stage.end(server)
    client.transport.resumeProducing()  # type: ignore[union-attr]
    assert len(await client.rest()) < size
    assert client.ended == "reset"


# ---- Requests with content


@fault(
    "request's content",
    "closed behind 100 (Continue)",
    "100; 502, connection_terminated",
)
async def closed_behind_continue(stage: Stage) -> None:
    client = ask(stage, None, *post(7, "Expect: 100-continue"), method="POST")
    server = await asked(stage, b"HTTP/1.1 100 Continue\r\n\r\n")
    assert (await client.head()).startswith(b"HTTP/1.1 100 ")
    server.close()
    await stage.page(client, 502, "connection_terminated")


@fault("request's content", "no 100 (Continue) comes", "100, of ours; 200")
async def no_continue(stage: Stage) -> None:
    client = ask(stage, None, *post(7, "Expect: 100-continue"), method="POST")
    server = await asked(stage)
    assert (await client.head()).startswith(b"HTTP/1.1 100 ")
    client.send(b"content")
    assert await server.exactly(7) == b"content"
    server.send(OK)
    await stage.whole(client)


@fault("request's content", "the server closes", "502, connection_terminated")
async def closed_in_upload(stage: Stage) -> None:
    client, server = await upload(stage)
    server.close()
    await stage.page(client, 502, "connection_terminated")


@fault("request's content", "the server resets", "502, connection_terminated")
async def reset_in_upload(stage: Stage) -> None:
    client, server = await upload(stage)
    server.reset()
    await stage.page(client, 502, "connection_terminated")


@fault("request's content", "the server takes no more", "504, http_response_timeout")
async def stall_in_upload(stage: Stage) -> None:
    client, server = await upload(stage, begin=4 * MIB)
    server.stop_reading()
    await stage.page(client, 504, "http_response_timeout")


@fault("request's content", "413 early, and closed in good order", "413")
async def early(stage: Stage) -> None:
    client, server = await upload(stage)
    server.send(TOO_LARGE)
    server.finish()
    await stage.whole(client, 413, b"large")
    await stage.end(server)


@fault(
    "request's content",
    "413 early, and closed with content unread, which resets",
    "413 (RFC 9112 9.6)",
)
async def early_and_reset(stage: Stage) -> None:
    client, server = await upload(stage, begin=512 * KIB)
    server.stop_reading()
    server.send(TOO_LARGE)
    server.close()
    for _ in range(8):
        client.send(bytes(64 * KIB))
        await stage.sleep(0)
    await stage.whole(client, 413, b"large")


@fault(
    "request's content",
    "413 early and reset, all of a small content written",
    "413 (RFC 9112 9.6)",
)
async def early_and_reset_small(stage: Stage) -> None:
    client = ask(stage, None, *post(60 * KIB), method="POST", content=bytes(60 * KIB))
    server = await stage.accept()
    await server.until(b"\r\n\r\n")
    server.stop_reading()
    server.send(TOO_LARGE)
    server.close()
    await stage.whole(client, 413, b"large")


@fault(
    "request's content",
    "an answer without length early, and reset",
    "an answer cut short",
)
async def early_unframed(stage: Stage) -> None:
    client, server = await upload(stage)
    server.send(b"HTTP/1.1 200 OK\r\n\r\ncontent")
    await client.until(b"content")
    server.reset()
    rest = await client.rest()
    assert b"0\r\n\r\n" not in rest, rest
    assert client.ended


@fault(
    "request's content",
    "so, while the client goes on sending",
    "an answer cut short",
)
async def early_unframed_and_more(stage: Stage) -> None:
    client, server = await upload(stage)
    server.send(b"HTTP/1.1 200 OK\r\n\r\ncontent")
    await client.until(b"content")
    for _ in range(8):
        client.send(bytes(64 * KIB))
    server.reset()
    await stage.sleep(0)
    client.send(bytes(64 * KIB))
    rest = await client.rest()
    assert b"0\r\n\r\n" not in rest, rest
    assert client.ended


@fault("request's content", "the client resets", "the server's connection ends")
async def client_resets_in_upload(stage: Stage) -> None:
    client, server = await upload(stage)
    client.reset()
    await stage.end(server)


@fault("request's content", "the client closes", "the server's connection ends")
async def client_closes_in_upload(stage: Stage) -> None:
    client, server = await upload(stage)
    client.close()
    await stage.end(server)


@fault("request's content", "the client sends no more", "408, http_request_error")
async def client_stalls_in_upload(stage: Stage) -> None:
    client, server = await upload(stage, begin=5)
    await stage.page(client, 408, "http_request_error")
    await stage.end(server)
    await stage.end(client)


@fault("request's content", "a chunk of the client's is malformed", "400")
async def client_sends_nonsense(stage: Stage) -> None:
    client = ask(stage, None, "Transfer-Encoding: chunked", method="POST")
    server = await asked(stage)
    client.send(b"7\r\ncontent\r\nx\r\n")
    await stage.page(client, 400, "http_request_error")
    await stage.end(server)
    assert b"0\r\n\r\n" not in server.take()


# ---- Requests


@fault("request's head", "the client stops in the middle", "408, http_request_error")
async def client_stalls_in_head(stage: Stage) -> None:
    client = stage.connect(stage.direct)
    client.send(b"GET http://a/ HTTP/1.1\r\nHo")
    await stage.page(client, 408, "http_request_error")
    await stage.end(client)


@fault("request's head", "the client closes in the middle", "nothing")
async def client_closes_in_head(stage: Stage) -> None:
    client = stage.connect(stage.direct)
    client.send(b"GET http://a/ HTTP/1.1\r\nHo")
    client.finish()
    assert await client.rest() == b""


@fault("request's head", "it is no head", "400, http_request_error")
async def client_garbage(stage: Stage) -> None:
    client = stage.connect(stage.direct)
    client.send(b"\x16\x03\x01\x02\x00\x01\r\n\r\n")
    await stage.page(client, 400, "http_request_error")
    await stage.end(client)


@fault("request's head", "the client resets between pipelined requests", "nothing")
async def client_resets_pipeline(stage: Stage) -> None:
    client = stage.connect(stage.direct)
    client.send(request(stage) * 3)
    server = await asked(stage, OK)
    await client.until(b"content")
    await server.head()
    client.reset()
    await stage.end(server)


# ---- CONNECT and tunnels


def connect(stage: Stage, service: ProxyService | None = None) -> Stream:
    return ask(stage, service or stage.above, method="CONNECT")


async def tunnel(
    stage: Stage, service: ProxyService | None = None
) -> tuple[Stream, Stream]:
    """Open a tunnel, with a word each way."""
    client = connect(stage, service or stage.direct)
    server = await stage.accept()
    if service is not None:
        await server.head()
        server.send(b"HTTP/1.1 200 Fine\r\n\r\n")
    assert (await client.head()).startswith(b"HTTP/1.1 200 ")
    client.send(b"ping")
    assert await server.exactly(4) == b"ping"
    server.send(b"pong")
    assert await client.exactly(4) == b"pong"
    return client, server


@fault("CONNECT", "the server refuses", "502, connection_refused")
async def tunnel_refused(stage: Stage) -> None:
    await stage.refuse()
    await stage.page(connect(stage, stage.direct), 502, "connection_refused")


@fault("CONNECT", "the proxy closes before it answers", "502, connection_terminated")
async def connect_closed(stage: Stage) -> None:
    client = connect(stage)
    (await asked(stage)).close()
    await stage.page(client, 502, "connection_terminated")


@fault("CONNECT", "the proxy closes within its answer", "502, connection_terminated")
async def connect_closed_in_head(stage: Stage) -> None:
    client = connect(stage)
    (await asked(stage, b"HTTP/1.1 200 Conn")).close()
    await stage.page(client, 502, "connection_terminated")


@fault("CONNECT", "the proxy resets within its answer", "502, connection_terminated")
async def connect_reset_in_head(stage: Stage) -> None:
    client = connect(stage)
    server = await asked(stage, b"HTTP/1.1 200 Conn")
    await stage.sleep(0.02)
    server.reset()
    await stage.page(client, 502, "connection_terminated")


@fault("CONNECT", "the proxy stops within its answer", "504, http_response_timeout")
async def connect_stalls_in_head(stage: Stage) -> None:
    client = connect(stage)
    server = await asked(stage, b"HTTP/1.1 200 Conn")
    await stage.page(client, 504, "http_response_timeout")
    await stage.end(server)


@fault("CONNECT", "the proxy's refusal is cut short", "403, http_request_denied")
async def connect_refusal_cut(stage: Stage) -> None:
    client = connect(stage)
    server = await asked(stage, b"HTTP/1.1 403 No\r\nContent-Length: 70\r\n\r\nbecause")
    server.close()
    await stage.page(client, 403, "http_request_denied")


@fault("CONNECT", "the client resets meanwhile", "nothing; the request ends")
async def client_resets_connect(stage: Stage) -> None:
    client = connect(stage)
    server = await asked(stage)
    client.reset()
    await stage.end(server)


@fault("tunnel", "the server resets", "a reset")
async def tunnel_reset(stage: Stage) -> None:
    client, server = await tunnel(stage)
    server.reset()
    assert await stage.end(client) == "reset"


@fault("tunnel", "the client resets", "a reset, for the server")
async def client_resets_tunnel(stage: Stage) -> None:
    client, server = await tunnel(stage, stage.above)
    client.reset()
    assert await stage.end(server) == "reset"


@fault("tunnel", "the server ends", "the end, behind all that came before")
async def tunnel_ends(stage: Stage) -> None:
    client, server = await tunnel(stage)
    server.send(bytes(MIB))
    server.close()
    assert await client.rest() == bytes(MIB)
    assert client.ended == "end"


@fault(
    "tunnel", "the server ends its half, and the client is silent", "the end, in time"
)
async def tunnel_half(stage: Stage) -> None:
    client, server = await tunnel(stage)
    server.finish()
    assert await stage.end(client) == "end"
    while stage.direct._proxy.connections:
        await stage.sleep(0.01)
    await stage.end(server)


@fault("tunnel", "the client ends its half, and is answered", "the answer, whole")
async def client_ends_half_of_tunnel(stage: Stage) -> None:
    client, server = await tunnel(stage)
    client.send(b"question")
    client.finish()
    assert await server.rest() == b"question"
    server.send(bytes(MIB))
    server.close()
    assert await client.rest() == bytes(MIB)


@fault("tunnel", "silence for longer than --tunnel-timeout", "the end")
async def tunnel_idle(stage: Stage) -> None:
    client, server = await tunnel(stage)
    assert await stage.end(client) == "end"
    assert await stage.end(server) == "end"


@fault("tunnel", "the client resets with much on its way", "a reset, for the server")
async def client_resets_full_tunnel(stage: Stage) -> None:
    client = ask(stage, stage.direct, method="CONNECT", window=WINDOW)
    server = await stage.accept()
    await client.head()
    client.stop_reading()
    server.send(bytes(8 * MIB))
    await stage.sleep(0.02)
    client.reset()
    await stage.end(server)


# ---- NTLM with the upstream proxy

_BARE = b"HTTP/1.1 407 Who\r\nProxy-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n"


def token(head: bytes) -> bytes:
    """The NTLM message of a request; empty if it has none."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b": ")
        if name.lower() == b"proxy-authorization":
            assert value.startswith(b"NTLM "), value
            return b64decode(value[5:])
    return b""


def type_of(head: bytes) -> int:
    message = token(head)
    return message[8] if message else 0


def challenge(negotiate: bytes, *fields: bytes, content: bytes = b"") -> bytes:
    """Answer a NEGOTIATE_MESSAGE."""
    message = challenge_message(negotiate, b"\x01" * 8, "fake", time.time())
    lines = [b"%b\r\n" % each for each in fields]
    if not fields:
        lines = [b"Content-Length: %d\r\n" % len(content)]
    return b"HTTP/1.1 407 Who\r\nProxy-Authenticate: NTLM %b\r\n%b\r\n%b" % (
        b64encode(message),
        b"".join(lines),
        content,
    )


async def negotiated(stage: Stage, answer: bytes | None = None) -> Stream:
    """
    Take a connection as far as its NEGOTIATE_MESSAGE, and answer that.

    :param answer: Instead of a CHALLENGE_MESSAGE; empty to say nothing.
    """
    server = await stage.accept()
    head = await server.head()
    if type_of(head) == 0:
        server.send(_BARE)
        try:
            head = await server.head()
        except EOFError:  # much content was on its way, which is not sent twice
            server = await stage.accept()
            head = await server.head()
    assert type_of(head) == 1, head
    answer = challenge(token(head)) if answer is None else answer
    if answer:
        server.send(answer)
    return server


async def authenticated(stage: Stage, answer: bytes = OK) -> Stream:
    """Take a connection as far as its AUTHENTICATE_MESSAGE, and answer that."""
    server = await negotiated(stage)
    assert type_of(await server.head()) == 3
    if answer:
        server.send(answer)
    return server


@fault("NTLM", "closed in place of a type 2 message", "200: the handshake begins anew")
async def ntlm_closed_before_type_2(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    (await negotiated(stage, b"")).close()
    await authenticated(stage)
    await stage.whole(client)


@fault("NTLM", "reset in place of a type 2 message", "200, as above")
async def ntlm_reset_before_type_2(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    (await negotiated(stage, b"")).reset()
    await authenticated(stage)
    await stage.whole(client)


@fault("NTLM", "closed behind the type 2 message", "200, as above")
async def ntlm_closed_behind_type_2(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    (await negotiated(stage)).close()
    await authenticated(stage)
    await stage.whole(client)


@fault("NTLM", "reset behind the type 2 message", "200, as above")
async def ntlm_reset_behind_type_2(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    server = await negotiated(stage)
    await server.head()
    server.reset()
    await authenticated(stage)
    await stage.whole(client)


@fault("NTLM", "closed within the content of the type 2 message's 407", "200, as above")
async def ntlm_closed_in_407(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    server = await negotiated(stage, b"")
    server.send(
        challenge(_negotiate_message(), b"Content-Length: 70", content=b"who are you")
    )
    server.close()
    await authenticated(stage)
    await stage.whole(client)


@fault(
    "NTLM",
    "silence within the content of the type 2 message's 407",
    "200, as above, after 5 s",
    slow=True,
)
async def ntlm_silence_in_407(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    server = await negotiated(stage, b"")
    server.send(
        challenge(_negotiate_message(), b"Content-Length: 70", content=b"who are you")
    )
    await authenticated(stage)
    await stage.whole(client)


@fault(
    "NTLM",
    "the type 2 message's 407 has more content than is read away",
    "200, as above",
)
async def ntlm_long_407(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    server = await negotiated(stage, b"")
    server.send(challenge(_negotiate_message(), content=bytes(200 * KIB)))
    await authenticated(stage)
    await stage.whole(client)


@fault(
    "NTLM",
    "so in both handshakes",
    "502, proxy_configuration_error: the page says so",
)
async def ntlm_long_407_twice(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    for _ in range(2):
        server = await negotiated(stage, b"")
        server.send(challenge(_negotiate_message(), content=bytes(200 * KIB)))
    answer = await stage.page(client, 502, "proxy_configuration_error")
    assert b"more than 64 KiB of content" in answer.content, answer.content
    assert not stage.waiting


@fault("NTLM", "closed in place of an answer to type 3, to a GET", "200, as above")
async def ntlm_closed_behind_type_3(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    (await authenticated(stage, b"")).close()
    await authenticated(stage)
    await stage.whole(client)


@fault("NTLM", "reset in place of an answer to type 3, to a GET", "200, as above")
async def ntlm_reset_behind_type_3(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    (await authenticated(stage, b"")).reset()
    await authenticated(stage)
    await stage.whole(client)


@fault(
    "NTLM",
    "closed in place of an answer to type 3, to a POST",
    "502, connection_terminated: it is not sent twice",
)
async def ntlm_closed_behind_post(stage: Stage) -> None:
    client = ask(stage, stage.ntlm, *post(7), method="POST", content=b"content")
    server = await authenticated(stage, b"")
    assert await server.exactly(7) == b"content"
    server.close()
    await stage.page(client, 502, "connection_terminated")
    assert not stage.waiting


@fault("NTLM", "closed in both handshakes", "502, proxy_configuration_error")
async def ntlm_closed_twice(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    (await negotiated(stage)).close()
    (await negotiated(stage)).close()
    await stage.page(client, 502, "proxy_configuration_error")
    assert not stage.waiting


@fault("NTLM", "silence in place of a type 2 message", "504, http_response_timeout")
async def ntlm_silence_before_type_2(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    server = await negotiated(stage, b"")
    await stage.page(client, 504, "http_response_timeout")
    await stage.end(server)


@fault("NTLM", "silence in place of an answer to type 3", "504, http_response_timeout")
async def ntlm_silence_behind_type_3(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    server = await authenticated(stage, b"")
    await stage.page(client, 504, "http_response_timeout")
    await stage.end(server)


@fault("NTLM", "the type 2 message is malformed", "502")
async def ntlm_garbage(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    await negotiated(stage, _BARE.replace(b"NTLM", b"NTLM TlRMTVNTUAACAAAA"))
    answer = await stage.answer(client)
    assert (answer.status, answer.complete) == (502, True), answer


@fault("NTLM", "the client goes away behind type 1", "nothing; the handshake ends")
async def client_gone_behind_type_1(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    server = await negotiated(stage, b"")
    client.reset()
    await stage.end(server)


@fault("NTLM", "the client goes away behind type 3", "nothing; the request ends")
async def client_gone_behind_type_3(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    server = await authenticated(stage, b"")
    client.reset()
    await stage.end(server)


@fault("NTLM", "the client goes away within its content", "nothing; the request ends")
async def client_gone_in_ntlm_upload(stage: Stage) -> None:
    client = ask(stage, stage.ntlm, *post(8 * MIB), method="POST", content=b"begin")
    server = await authenticated(stage, b"")
    client.reset()
    await stage.end(server)


@fault("NTLM", "the proxy restarts between requests", "200: the handshake begins anew")
async def ntlm_restarted(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    server = await authenticated(stage)
    await stage.whole(client)
    client.send(request(stage))
    assert type_of(await server.head()) == 0, "the connection is ours already"
    await stage.refuse()
    stage.listen()
    server.reset()
    await authenticated(stage)
    await stage.whole(client)


@fault("NTLM", "the proxy is down for a moment", "502, connection_refused; then 200")
async def ntlm_down(stage: Stage) -> None:
    client = ask(stage, stage.ntlm)
    server = await authenticated(stage)
    await stage.whole(client)
    await stage.refuse()
    server.close()
    await stage.end(server)
    client.send(request(stage))
    await stage.page(client, 502, "connection_refused")
    stage.listen()
    client.send(request(stage))
    await authenticated(stage)
    await stage.whole(client)


def _negotiate_message() -> bytes:
    """Such as asks for Unicode and NTLM (MS-NLMP 2.2.1.1)."""
    return b"NTLMSSP\0\x01\0\0\0\x07\x82\x08\xa2" + bytes(16)
