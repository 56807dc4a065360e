"""
The origin server of all measures: a program of its own.

``GET /1k`` is answered from one buffer by a bare epoll loop, ``GET /length/N`` and
``GET /chunked/N`` with N octets from a thread.  On the second port whatever comes is
sent back, and on the third a line with a number is answered with so many octets.
"""

from __future__ import annotations

import argparse
import select
import socket
import threading
from collections.abc import Callable

from benchmarks.wire import BLOCK, BODY, CHUNK, RESPONSE

SMALL_HEAD = RESPONSE % b"Content-Length: %d" % len(BODY)


def answer(buffer: bytes) -> tuple[bytes, bool]:
    """Answer all requests in *buffer*; tell also whether the connection ends then."""
    closing = (
        b" HTTP/1.0\r\n" in buffer or b"\r\nconnection: close\r\n" in buffer.lower()
    )
    return (SMALL_HEAD + BODY) * buffer.count(b"\r\n\r\n"), closing


def listen(port: int) -> socket.socket:
    """Listen on loopback."""
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listener.setblocking(False)
    return listener


class Loop:
    """
    Small answers and echoes; what is large is handed to threads.

    :param http: Listens for requests.
    :param echo: Listens for what is to be sent back.
    """

    def __init__(self, http: socket.socket, echo: socket.socket) -> None:
        self._poll = select.epoll()
        self._listeners = {http.fileno(): (http, True), echo.fileno(): (echo, False)}
        self._sockets: dict[int, tuple[socket.socket, bool]] = {}
        self._begun: dict[int, bytes] = {}
        for number in self._listeners:
            self._poll.register(number, select.EPOLLIN)

    def run(self) -> None:
        """Serve until killed."""
        while True:
            for number, _ in self._poll.poll():
                if number in self._listeners:
                    self._accept(*self._listeners[number])
                else:
                    self._read(number)

    def _accept(self, listener: socket.socket, http: bool) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[connection.fileno()] = connection, http
            self._poll.register(connection, select.EPOLLIN)

    def _read(self, number: int) -> None:
        connection, http = self._sockets[number]
        try:
            data = connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._forget(number).close()
        elif not http:
            connection.send(data)
        elif number in self._begun or not data.endswith(b"\r\n\r\n"):
            self._begun[number] = data = self._begun.get(number, b"") + data
            if data.endswith(b"\r\n\r\n"):
                del self._begun[number]
                self._answer(number, data)
        else:
            self._answer(number, data)

    def _answer(self, number: int, data: bytes) -> None:
        connection, _ = self._sockets[number]
        target = data.split(b" ", 2)[1]
        if b"/1k" in target:
            response, closing = answer(data)
            try:
                connection.send(response)
            except OSError:
                closing = True
            if closing:
                self._forget(number).close()
        else:
            framing, size = target.rsplit(b"/", 2)[1:]
            send = send_chunked if framing == b"chunked" else send_length
            in_thread(send, self._forget(number), int(size))

    def _forget(self, number: int) -> socket.socket:
        self._begun.pop(number, None)
        self._poll.unregister(number)
        return self._sockets.pop(number)[0]


def in_thread(
    send: Callable[[socket.socket, int], None], connection: socket.socket, size: int
) -> None:
    """Send something large, and close."""

    def work() -> None:
        connection.setblocking(True)
        try:
            send(connection, size)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except OSError:
            pass  # the loader counts what has come
        finally:
            connection.close()

    threading.Thread(target=work, daemon=True).start()


def send_octets(connection: socket.socket, size: int) -> None:
    """Send *size* octets."""
    view = memoryview(BLOCK)
    while size > 0:
        connection.sendall(view[:size])
        size -= len(view)


def send_length(connection: socket.socket, size: int) -> None:
    """Answer with *size* octets and their number."""
    connection.sendall(RESPONSE % b"Content-Length: %d" % size)
    send_octets(connection, size)


def send_chunked(connection: socket.socket, size: int) -> None:
    """Answer with *size* octets in chunks; a multiple of the chunk's size."""
    connection.sendall(RESPONSE % b"Transfer-Encoding: chunked")
    several = memoryview(CHUNK * 16)
    chunks = size // (len(BLOCK) // 16)
    while chunks > 0:
        connection.sendall(several[: len(CHUNK) * chunks])
        chunks -= 16
    connection.sendall(b"0\r\n\r\n")


def serve_bulk(listener: socket.socket) -> None:
    """Send as many octets as a line asks for."""
    listener.setblocking(True)

    def send(connection: socket.socket, _: int) -> None:
        line = b""
        while not line.endswith(b"\n"):
            data = connection.recv(64)
            if not data:
                return
            line += data
        send_octets(connection, int(line))

    while True:
        in_thread(send, listener.accept()[0], 0)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("ports", type=int, nargs=3, help="http, echo, bulk")
    http, echo, bulk = map(listen, parser.parse_args().ports)
    threading.Thread(target=serve_bulk, args=(bulk,), daemon=True).start()
    Loop(http, echo).run()


if __name__ == "__main__":
    main()
