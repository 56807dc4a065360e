"""The octets that the origin server and the load generator agree on."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["BLOCK", "BODY", "CHUNK", "RESPONSE", "connect_head", "request_head"]

BODY = bytes(range(256)) * 4
"""The content of a small answer: 1 KiB."""

BLOCK = bytes(1 << 20)
"""Large contents are made of this, and of its beginning."""

CHUNK = b"10000\r\n" + BLOCK[:65536] + b"\r\n"
"""What a chunked content is made of: 64 KiB each, as a file server would send."""

RESPONSE = (
    b"HTTP/1.1 200 OK\r\n"
    b"Date: Wed, 25 Nov 2026 08:00:00 GMT\r\n"
    b"Server: benchmark\r\n"
    b"Content-Type: application/octet-stream\r\n"
    b"Last-Modified: Tue, 24 Nov 2026 08:00:00 GMT\r\n"
    b'ETag: "67443b00-400"\r\n'
    b"Cache-Control: no-store\r\n"
    b"%s\r\n\r\n"
)


def request_head(
    host: str, port: int, path: str, fields: Iterable[str], *, proxy: bool
) -> bytes:
    """
    Make a GET request much as curl makes it.

    :param fields: Lines to add.
    :param proxy: Name the whole URL, as to a proxy.
    """
    authority = f"{host}:{port}"
    target = f"http://{authority}{path}" if proxy else path
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {authority}",
        "User-Agent: benchmark/1.0",
        "Accept: */*",
        "Accept-Encoding: identity",
        *fields,
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def connect_head(host: str, port: int) -> bytes:
    """Make a CONNECT request."""
    authority = f"{host}:{port}"
    return (
        f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
        "User-Agent: benchmark/1.0\r\n\r\n"
    ).encode("ascii")
