"""An origin server that keeps every octet, and answers what h11 takes for requests."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence

import h11

from tests.hostile.cases import OK, Asked
from tests.hostile.reading import read_requests
from tests.integration.servers import free_port

__all__ = ["Recorder"]


class _Connection:
    """One connection; *start* is where the part that counts begins."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.data = b""
        self.start = 0
        self.answered = 0
        self.open = True


class Recorder:
    """
    Runs in threads of the test's process.

    :ivar requests: What was asked since :meth:`expect`, in order, complete.
    :ivar faults: What h11 could not read.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.requests: list[Asked] = []
        self.faults: list[str] = []
        self._connections: list[_Connection] = []
        self._answers: list[bytes] = []
        self._early = self._ends = False
        self._tunnel: int | None = None
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def expect(
        self,
        answers: Sequence[bytes] = (),
        *,
        early: bool = False,
        tunnel: int | None = None,
        ends: bool = False,
    ) -> None:
        """
        Begin anew.

        :param answers: What to answer first; 200 to all further requests.
        :param early: Answer as soon as a head is there.
        :param tunnel: How many requests come, where something else follows.
        :param ends: End the connection behind the first answer.
        """
        with self._lock:
            self.requests.clear()
            self._answers = list(answers)
            self._early, self._ends = early, ends
            self._tunnel = tunnel
            for connection in self._connections:
                connection.start = len(connection.data)
                connection.answered = 0

    @property
    def accepted(self) -> int:
        """How many connections there have been."""
        return len(self._connections)

    def left(self) -> bytes:
        """Show what came besides requests on connections that are open."""
        with self._lock:
            return b"".join(
                read_requests(each.data[each.start :], self._tunnel)[1]
                for each in self._connections
                if each.open
            )

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = _Connection(self._listener.accept()[0])
                self._connections.append(connection)
                threading.Thread(
                    target=self._serve, args=[connection], daemon=True
                ).start()

    def _serve(self, connection: _Connection) -> None:
        with contextlib.suppress(OSError):
            while data := connection.socket.recv(1 << 16):
                with self._lock:
                    connection.data += data
                    self._read(connection)
        connection.open = False
        connection.socket.close()

    def _read(self, connection: _Connection) -> None:
        data = connection.data[connection.start :]
        try:
            requests, rest = read_requests(data, self._tunnel)
        except (h11.ProtocolError, AssertionError, ValueError) as error:
            self.faults.append(f"{error!r} in {data!r}")
            return
        due = len(requests)
        if self._early and b"\r\n\r\n" in rest:
            due += 1
        for number in range(connection.answered, due):
            self.requests += requests[number : number + 1]
            answer = self._answers.pop(0) if self._answers else OK
            connection.socket.sendall(answer)
            if self._ends:
                self._ends = False
                connection.socket.shutdown(socket.SHUT_WR)
        connection.answered = due
