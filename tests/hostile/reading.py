"""Messages as h11 reads them, which shares nothing with what is tested."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import h11
from twisted.trial.unittest import SynchronousTestCase

from tests.hostile.cases import Asked, Response

__all__ = ["Answer", "check_answer", "read_answers", "read_requests"]

_VIA = re.compile(rb"1\.[01] coda-[0-9A-Za-z-]+")


class Answer(NamedTuple):
    """
    A response as a client understands it.

    :ivar interim: How many 1xx came before it.
    :ivar complete: Whether its end has come.
    :ivar framed: Whether more than the connection's end tells where that is.
    """

    status: int
    fields: tuple[bytes, ...]
    content: bytes
    trailers: tuple[bytes, ...]
    interim: int
    complete: bool
    framed: bool = True


def lines(headers: Any) -> tuple[bytes, ...]:
    """Write fields as they stood there."""
    items = headers.raw_items() if hasattr(headers, "raw_items") else headers
    return tuple(b"%b: %b" % (name, value) for name, value in items)


def without_via(fields: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Leave our own line out, of which there must be one."""
    [own] = [line for line in fields if _VIA.fullmatch(line[len(b"Via: ") :])]
    return tuple(line for line in fields if line is not own)


def read_requests(data: bytes, tunnel: int | None = None) -> tuple[list[Asked], bytes]:
    """
    Read what a client has sent on one connection.

    :param tunnel: How many requests there are, where something else is behind them.
    :returns: The complete requests, and what is behind them.
    :raises h11.RemoteProtocolError: It is malformed.
    """
    requests: list[Asked] = []
    while data and len(requests) != tunnel:
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        reader.receive_data(data)
        event: Any = reader.next_event()
        if not isinstance(event, h11.Request):
            break
        head, content = event, b""
        while isinstance(event := reader.next_event(), h11.Data):
            content += event.data
        if not isinstance(event, h11.EndOfMessage):
            break
        # h11 takes a space for what ends a target, too; there must be two.
        line = data.partition(b"\r\n")[0]
        assert line == b"%b %b HTTP/%b" % (
            head.method,
            head.target,
            head.http_version,
        ), line
        fields = without_via(lines(head.headers))
        requests.append(Asked(line, fields, content, lines(event.headers)))
        data = reader.trailing_data[0]
    return requests, data


def read_answers(
    data: bytes, methods: list[bytes], *, ended: bool
) -> tuple[list[Answer], bytes]:
    """
    Read what a server has sent on one connection.

    :param methods: Of the requests, as far as they are not GET.
    :param ended: Whether the connection has ended, in good order.
    :returns: The responses, the last perhaps incomplete, and what is behind them: what
        no response is, or belongs to another protocol.
    :raises h11.RemoteProtocolError: It is malformed.
    """
    answers: list[Answer] = []
    methods = list(methods)
    while data:
        method = methods.pop(0) if methods else b"GET"
        reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        upgrade = [("Host", "a"), ("Connection", "Upgrade"), ("Upgrade", "x")]
        reader.send(h11.Request(method=method, target="/", headers=upgrade))
        reader.send(h11.EndOfMessage())
        reader.receive_data(data)
        answer, taken_over = _read_answer(reader, ended)
        if answer is None:
            return answers, data
        answers.append(answer)
        if not answer.complete:
            return answers, b""
        data = reader.trailing_data[0]
        if taken_over:
            break
    return answers, data


def _read_answer(reader: Any, ended: bool) -> tuple[Answer | None, bool]:
    head, content, interim, framed, fed = None, b"", 0, True, False
    trailers: tuple[bytes, ...] = ()
    while True:
        try:
            event = reader.next_event()
        except h11.RemoteProtocolError:
            if not fed:
                raise
            break
        if isinstance(event, h11.InformationalResponse) and event.status_code != 101:
            interim += 1
        elif isinstance(event, h11.Response | h11.InformationalResponse):
            head = event
            names = {name for name, _ in head.headers}
            framed = bool(names & {b"content-length", b"transfer-encoding"})
        elif isinstance(event, h11.Data):
            content += event.data
        elif isinstance(event, h11.EndOfMessage) or event is h11.PAUSED:
            assert head is not None
            trailers = lines(getattr(event, "headers", ()))
            status = head.status_code
            answer = Answer(
                *(status, lines(head.headers), content, trailers, interim),
                complete=True,
                framed=framed or not fed,
            )
            return answer, event is h11.PAUSED
        elif event is h11.NEED_DATA and ended and not fed:
            fed = True
            reader.receive_data(b"")
        else:
            break
    if head is None:
        return None, False
    fields = lines(head.headers)
    return (
        Answer(head.status_code, fields, content, trailers, interim, complete=False),
        False,
    )


def check_answer(test: SynchronousTestCase, row: Response, answer: Answer) -> None:
    """See that the client was answered as *row* has it."""
    if row.content is None:
        if answer.complete:
            test.assertEqual(answer.status, 502, row.name)
    else:
        test.assertTrue(answer.complete and answer.framed, row.name)
        test.assertEqual(answer.status, row.status, row.name)
        if row.status != 502:
            test.assertEqual(answer.content, row.content, row.name)
    if row.interim >= 0:
        test.assertEqual(answer.interim, row.interim, row.name)
    names = {line.partition(b":")[0].lower() for line in answer.fields}
    test.assertLessEqual({*row.fields}, {*answer.fields}, row.name)
    test.assertFalse(names & {name.lower() for name in row.absent}, row.name)
    test.assertEqual(answer.trailers, (), row.name)
