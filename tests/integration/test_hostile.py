"""
The tables of :mod:`tests.hostile`, through a running service.

Octets go in by a socket; what comes out is read by h11, and by Apache.
"""

from __future__ import annotations

import contextlib
import functools
import re
import socket
import time
from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from tests.hostile.cases import Asked, Request, Response, placed
from tests.hostile.reading import Answer, check_answer, read_answers
from tests.hostile.requests import REQUESTS
from tests.hostile.responses import RESPONSES
from tests.integration import apache
from tests.integration.coda import CodaProxy
from tests.integration.recorder import Recorder

PATIENCE = 20.0


@functools.cache
def direct() -> CodaProxy:
    """The running service that connects directly."""
    service = CodaProxy()
    service.start()
    return service


@functools.cache
def recorder() -> Recorder:
    """The server that these tests share."""
    return Recorder()


@functools.cache
def above() -> CodaProxy:
    """The running service that has the recorder for a proxy."""
    url = f"http://127.0.0.1:{recorder().port}"
    service = CodaProxy("--proxy", url, "--proxy-type", "noauth")
    service.start()
    return service


class Speaker:
    """A client that sends octets, and keeps what it is answered."""

    def __init__(self, service: CodaProxy, sent: bytes) -> None:
        self._socket = socket.create_connection(("127.0.0.1", service.port))
        self._socket.settimeout(PATIENCE)
        self._methods = [sent.partition(b" ")[0]]
        if self._methods not in ([b"CONNECT"], [b"HEAD"]):
            self._methods = []
        self._data = b""
        self.ended = False
        self._socket.sendall(sent)

    def answers(self, number: int) -> list[Answer]:
        """Read so many answers."""
        while len(done := self._complete()) < number and not self.ended:
            self._more()
        return done

    def incomplete(self) -> list[Answer]:
        """Show the answer that was cut short."""
        return read_answers(self._data, self._methods, ended=True)[0]

    def finish(self, *, waiting: bool) -> bytes:
        """
        Send nothing more, and read to the end.

        :param waiting: Do so only when the service has ended its half.
        :returns: What came besides answers.
        """
        if not waiting:
            with contextlib.suppress(OSError):  # it may have been reset
                self._socket.shutdown(socket.SHUT_WR)
        while not self.ended:
            self._more()
        self._socket.close()
        return read_answers(self._data, self._methods, ended=True)[1]

    def _complete(self) -> list[Answer]:
        answers, _ = read_answers(self._data, self._methods, ended=self.ended)
        return [each for each in answers if each.complete]

    def _more(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        self.ended = not data
        self._data += data


class HostileTests(SynchronousTestCase):
    """What reaches the next server, and what the client is told."""

    def setUp(self) -> None:
        self.recorder = recorder()

    def check_all(self, rows: Iterable[Request]) -> None:
        """Play rows one after another."""
        for row in rows:
            self.check(row)

    def check(self, row: Request) -> None:
        """Play one row."""
        site = b"127.0.0.1:%d" % self.recorder.port
        tunnel = len(row.reached) if row.raw else None
        self.recorder.expect(row.answers, early=row.early, tunnel=tunnel)
        service = above() if row.above else direct()
        speaker = Speaker(service, placed(row.sent, site))
        statuses = [each.status for each in speaker.answers(len(row.statuses))]
        self.assertEqual(statuses, [*row.statuses], row.name)
        expected = [there(each, site) for each in row.reached]
        self.await_requests(expected, row)
        self.assertEqual(speaker.finish(waiting=row.closes), b"", row.name)
        # Whatever else was on its way is there once another request is answered.
        self.recorder.expect()
        probe = Speaker(service, get(site, b"/probe"))
        [answer] = probe.answers(1)
        self.assertEqual(answer.status, 200)
        probe.finish(waiting=False)
        [asked] = self.recorder.requests
        self.assertIn(b"/probe", asked.line, row.name)
        self.assertEqual(self.recorder.left(), b"", row.name)

    def await_requests(self, expected: list[Asked], row: Request) -> None:
        """The server got these requests, and behind them, in a tunnel, the rest."""
        raw = placed(row.raw, b"127.0.0.1:%d" % self.recorder.port)
        deadline = time.monotonic() + PATIENCE
        while raw and self.recorder.left() != raw and time.monotonic() < deadline:
            time.sleep(0.01)
        if raw:
            self.assertEqual(self.recorder.left(), raw, row.name)
        self.assertEqual(self.recorder.requests, expected, row.name)
        self.assertEqual(self.recorder.faults, [], row.name)


class AnswerTests(SynchronousTestCase):
    """What the client is told, and whether the next one is told its own."""

    def check_all(self, rows: Iterable[Response]) -> None:
        """Play rows one after another."""
        for row in rows:
            self.check(row)

    def check(self, row: Response) -> None:
        """Play one row, and another request after it."""
        site = b"127.0.0.1:%d" % recorder().port
        recorder().expect([row.sent], ends=row.ends)
        lines = b"".join(line + b"\r\n" for line in row.lines)
        first = Speaker(direct(), get(site, b"/1", lines, method=row.method))
        answers = first.answers(1) or first.incomplete()
        check_answer(self, row, answers[0])
        connections = recorder().accepted
        second = Speaker(direct(), get(site, b"/2"))
        [answer] = second.answers(1)
        self.assertEqual((answer.status, answer.content), (200, b"ok"), row.name)
        self.assertEqual(recorder().accepted == connections, row.reused, row.name)
        for each in (first, second):
            self.assertEqual(each.finish(waiting=False), b"", row.name)
        self.assertEqual(recorder().faults, [], row.name)
        self.assertEqual(len(recorder().requests), 2, row.name)


def get(site: bytes, path: bytes, lines: bytes = b"", method: bytes = b"GET") -> bytes:
    """Write a request."""
    start = b"%b http://%b%b HTTP/1.1\r\n" % (method, site, path)
    return b"%bHost: %b\r\n%b\r\n" % (start, site, lines)


class ApacheTests(SynchronousTestCase):
    """What Apache takes for requests, behind the service."""

    def check_all(self, rows: Iterable[Request]) -> None:
        """Play rows one after another; Apache logs all that they are to reach it."""
        website = apache.website()
        website.log.reset()
        site = b"127.0.0.1:%d" % website.port
        expected = []
        for row in rows:
            if row.above or row.raw or row.early or row.answers:
                continue  # the server is not free in what it answers
            if not row.statuses:
                continue  # it logs what is never complete, too
            speaker = Speaker(direct(), placed(row.sent, site))
            self.assertEqual(
                len(speaker.answers(len(row.statuses))), len(row.statuses), row.name
            )
            speaker.finish(waiting=False)
            expected += [each.line.decode("latin-1") for each in row.reached]
        self.assertEqual([visit.line for visit in website.visits()], expected)


def there(each: Asked, site: bytes) -> Asked:
    """Put the origin server's authority in its place."""
    fields = tuple(placed(line, site) for line in each.fields)
    return each._replace(line=placed(each.line, site), fields=fields)


def add_tests() -> None:
    """Make a test of each family."""
    for case, table in (
        (HostileTests, REQUESTS),
        (ApacheTests, REQUESTS),
        (AnswerTests, RESPONSES),
    ):
        for family, rows in table.items():

            def test(self, rows=rows) -> None:  # type: ignore[no-untyped-def]
                self.check_all(rows)

            test.__doc__ = f"{family}."
            words = "_".join(re.findall("[a-z]+", family.lower()))
            setattr(case, f"test_{words}", test)


add_tests()
