"""The tables of :mod:`tests.hostile`, played in memory through the whole service."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.front import Play, Side, judge
from tests.hostile.cases import OK, Asked, Request, Response, placed
from tests.hostile.reading import check_answer, read_answers, read_requests
from tests.hostile.requests import REQUESTS
from tests.hostile.responses import RESPONSES

SITE = b"site:8080"
SECTIONS = r"(?:(?:(?:9110|9112) )?[0-9C]+(?:\.[0-9]+)*(?:, |$))+$"

Cut = Callable[[bytes], Iterator[bytes]]


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def octets(data: bytes) -> Iterator[bytes]:
    """Cut it into single octets, but for the bulk of what is large."""
    step = 1 + len(data) // 10000
    for at in range(0, len(data), step):
        yield data[at : at + step]


def halves(data: bytes) -> Iterator[bytes]:
    """Cut it where most heads end, and otherwise in the middle."""
    middle = data.find(b"\r\n\r\n") + 4
    if not 3 < middle < len(data):
        middle = len(data) // 2
    yield data[:middle]
    yield data[middle:]


class Conversation:
    """
    Clients and servers around the service, as far as one row needs them.

    :param above: Whether the next server is a proxy.
    """

    def __init__(self, *, above: bool = False) -> None:
        self.play = Play(b"p" if above else b"d")
        self.client = self.play.connect()

    @property
    def servers(self) -> list[Side]:
        return self.play.servers

    def send(self, side: Side, data: bytes, cut: Cut) -> None:
        for piece in cut(data):
            side.say(piece, cut=False)
            self.play.loop.turn()

    def finish(self) -> None:
        """Bring all to rest; the judges of the fuzzer judge this, too."""
        self.play.finish()
        judge(self.play)


class TableTests(SynchronousTestCase):
    """What the tables themselves must be."""

    def test_sections(self) -> None:
        """Each row names the section that decides, and is named but once."""
        for table in (REQUESTS, RESPONSES):
            for family, rows in table.items():
                for row in rows:
                    self.assertRegex(row.why, SECTIONS)
                names = [row.name for row in rows]
                self.assertEqual(len(names), len(set(names)), family)

    def test_documented(self) -> None:
        """The page shows both tables."""
        page = Path(__file__).parents[1] / "docs" / "hostile.rst"
        self.assertEqual(
            re.findall(r"^\.\. hostile:: (\w+)$", page.read_text(), re.MULTILINE),
            ["requests", "responses"],
        )


class RequestTests(SynchronousTestCase):
    """Requests: what reaches the next server, and what the client is told."""

    def check(self, row: Request, cut: Cut) -> None:
        """Play one row."""
        conversation = Conversation(above=row.above)
        answers = list(row.answers)
        client = conversation.client
        for piece in cut(placed(row.sent, SITE)):
            conversation.send(client, piece, whole)
            self.serve_all(conversation, row, answers)
        conversation.play.loop.pass_time(2)  # content is held back for a second
        self.serve_all(conversation, row, answers)
        reached = list(self.reached(conversation, row))
        expected = [there(each) for each in row.reached]
        self.assertEqual(reached, expected, row.name)
        raw = b"".join(self.behind(server, row) for server in conversation.servers)
        if row.raw:
            self.assertEqual(raw, placed(row.raw, SITE), row.name)
        conversation.play.loop.pass_time(10)  # the limit for a head
        ended = client.socket.shut or client.socket.closed
        methods = [b"CONNECT"] if b"CONNECT" in row.sent[:7] else []
        got, rest = read_answers(client.socket.sent, methods, ended=ended)
        self.assertEqual([each.status for each in got], [*row.statuses], row.name)
        self.assertTrue(all(each.complete for each in got), row.name)
        self.assertEqual((rest, ended), (b"", row.closes), row.name)
        conversation.finish()

    def serve_all(
        self, conversation: Conversation, row: Request, answers: list[bytes]
    ) -> None:
        while self.serve(conversation, row, answers):
            conversation.play.loop.turn()

    def serve(
        self, conversation: Conversation, row: Request, answers: list[bytes]
    ) -> bool:
        """Answer what is to be answered, and tell whether there was anything."""
        for server in conversation.servers:
            requests = self.requests_of(server, row)
            due = len(requests)
            if row.early and server.socket.sent.count(b"\r\n\r\n") > due:
                due += 1
            if due > server.answered:
                server.answered += 1
                server.say(answers.pop(0) if answers else OK, cut=False)
                return True
        return False

    def requests_of(self, server: Side, row: Request) -> list[Asked]:
        tunnel = len(row.reached) if row.raw else None
        return read_requests(server.socket.sent, tunnel)[0]

    def behind(self, server: Side, row: Request) -> bytes:
        tunnel = len(row.reached) if row.raw else None
        return read_requests(server.socket.sent, tunnel)[1]

    def reached(self, conversation: Conversation, row: Request) -> Iterator[Asked]:
        """Show all that the next server understood; what is not whole is cut off."""
        for server in conversation.servers:
            yield from self.requests_of(server, row)


def there(each: Asked) -> Asked:
    """Put the origin server's authority in its place."""
    fields = tuple(placed(line, SITE) for line in each.fields)
    return each._replace(line=placed(each.line, SITE), fields=fields)


class ResponseTests(SynchronousTestCase):
    """Responses: what the client is told, and whether the next one is its own."""

    def check(self, row: Response, cut: Cut) -> None:
        """Play one row, and another request after it."""
        conversation = Conversation()
        client = conversation.client
        lines = b"".join(line + b"\r\n" for line in row.lines)
        ask = b"%b http://site/%d HTTP/1.1\r\nHost: site\r\n%b\r\n"
        conversation.send(client, ask % (row.method, 1, lines), whole)
        [server] = conversation.servers
        conversation.send(server, row.sent, cut)
        if row.ends:
            server.socket.ended = True
            conversation.play.loop.turn()
        ended = client.socket.shut or client.socket.closed
        answers, rest = read_answers(client.socket.sent, [row.method], ended=ended)
        [answer] = answers
        self.assertEqual(rest, b"", row.name)
        check_answer(self, row, answer)
        self.assertNotIn(b"poison", client.socket.sent, row.name)
        self.ask_again(conversation, row, ask % (b"GET", 2, b""))
        conversation.finish()

    def ask_again(self, conversation: Conversation, row: Response, ask: bytes) -> None:
        """The next request is answered by its own response, and no other."""
        play = conversation.play
        first = len(conversation.servers)
        client = play.connect()
        conversation.send(client, ask, whole)
        reused = len(conversation.servers) == first
        self.assertEqual(reused, row.reused, row.name)
        server = conversation.servers[-1]
        conversation.send(server, OK.replace(b"ok", b"it"), whole)
        [answer], _ = read_answers(client.socket.sent, [], ended=False)
        self.assertEqual((answer.status, answer.content), (200, b"it"), row.name)


def add_tests() -> None:
    """Make a test of each family, once for each way to cut its octets."""
    for case, table in ((RequestTests, REQUESTS), (ResponseTests, RESPONSES)):
        for family, rows in table.items():
            for cut in (whole, halves, octets):

                def test(self, rows=rows, cut=cut) -> None:  # type: ignore[no-untyped-def]
                    for row in rows:
                        self.check(row, cut)

                test.__doc__ = f"{family}, {cut.__name__}."
                words = "_".join(re.findall("[a-z]+", family.lower()))
                setattr(case, f"test_{words}_{cut.__name__}", test)


add_tests()
