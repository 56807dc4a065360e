"""What is fuzzed, but for the whole front end: see :mod:`tests.fuzz.front`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h11

from coda_twisted.auth.challenge import Challenge, parse_challenges, parse_info
from coda_twisted.auth.digest_terms import covers, is_stale, read_terms
from coda_twisted.auth.layer import AuthLayer, Context
from coda_twisted.auth.memory import SpaceMemory
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import AuthRequest, GiveUp, Peer, Reply, Role, Step, Work
from coda_twisted.credentials import PasswordCredentials
from coda_twisted.errors import ChallengeError, CodaError, RemoteProtocolError
from coda_twisted.http1.bodies import ChunkedDecoder, last_chunk, response_framing
from coda_twisted.http1.fields import (
    EMPTY_LINE,
    MAX_FIELDS,
    Fields,
    check_field,
    max_forwards,
    parse_fields,
    via_pseudonyms,
    without_hop_by_hop,
)
from coda_twisted.http1.heads import (
    RequestHead,
    ResponseHead,
    parse_request_head,
    parse_response_head,
)
from coda_twisted.http1.persistence import request_persists, response_persists
from coda_twisted.http1.readers import Data, End, RequestReader, ResponseReader
from coda_twisted.http1.targets import (
    Form,
    Target,
    check_host,
    format_authority,
    parse_target,
)
from coda_twisted.routing.environment import EnvironmentRouter
from coda_twisted.routing.noproxy import NoProxy
from coda_twisted.routing.routes import HTTPProxy
from tests.fuzz.chunks import Outcome, read_chunks
from tests.fuzz.front import front
from tests.test_http1_oracles import (
    h11_requests,
    h11_responses,
    llhttp_requests,
    llhttp_responses,
    our_requests,
    our_responses,
    stripped,
)

__all__ = ["TARGETS", "corpus"]


def corpus(target: str) -> list[bytes]:
    """Read the inputs that are kept for *target*."""
    directory = Path(__file__).with_name("corpus") / target
    return [path.read_bytes() for path in sorted(directory.iterdir())]


def pieces(data: bytes) -> Iterable[list[bytes]]:
    """Cut *data* in two at every position (of the first many), and into octets."""
    for position in range(1, min(len(data), 48)):
        yield [data[:position], data[position:]]
    yield [data[at : at + 1] for at in range(len(data))]


# Messages


def events_of(reader: Any, segments: Sequence[bytes]) -> tuple[list[Any], int | None]:
    """
    Read all messages in *segments*.

    :returns: The events, neighbouring content joined, and the status of the error
        that ended it.
    """
    events: list[Any] = []
    try:
        for segment in segments:
            new = reader.receive(segment)
            while new:
                events += new
                more = isinstance(new[-1], End) and isinstance(reader, RequestReader)
                new = reader.next_message() if more else []
    except RemoteProtocolError as error:
        return joined(events), error.status_hint
    return joined(events), None


def joined(events: list[Any]) -> list[Any]:
    """Join neighbouring pieces of content, whose borders mean nothing."""
    result: list[Any] = []
    for event in events:
        if isinstance(event, Data) and result and isinstance(result[-1], Data):
            event = Data(result.pop().data + event.data)
        result.append(event)
    return result


def same_in_pieces(new_reader: Callable[[], Any], data: bytes) -> None:
    """Reading does not depend on how the stream was cut into segments."""
    whole, error = events_of(new_reader(), [data])
    for segments in pieces(data):
        cut, cut_error = events_of(new_reader(), segments)
        assert (cut_error is None) == (error is None), (segments, error, cut_error)
        # What was read in the same call as an error is lost with it.
        assert cut[: len(whole)] == whole or error is not None, (segments, whole, cut)
        if error is None:
            assert cut == whole, (segments, whole, cut)


def requests(data: bytes) -> None:
    """
    Requests of one connection.

    All that we see somebody else sees too, with the same meaning, and what we would
    write of it means the same to ourselves.
    """
    same_in_pieces(RequestReader, data)
    ours = our_requests(data)
    oracles = [h11_requests(data, skip=True), llhttp_requests(data)]
    assert ours in [theirs[: len(ours)] for theirs in oracles], (ours, oracles)
    for head in events_of(RequestReader(), [data])[0]:
        if isinstance(head, RequestHead):
            again = parse_request_head(head.serialise())
            assert (again.method, again.target) == (head.method, head.target)
            assert again.fields == head.fields
            request_persists(head)
            repr(head)


def responses(data: bytes) -> None:
    """A response; the first octet says to what."""
    method = {b"H": b"HEAD", b"C": b"CONNECT"}.get(data[:1], b"GET")
    data = data[1:]

    def new_reader() -> ResponseReader:
        reader = ResponseReader()
        reader.expect(method)
        return reader

    same_in_pieces(new_reader, data)
    for head in events_of(new_reader(), [data])[0]:
        if isinstance(head, ResponseHead):
            again = parse_response_head(head.serialise())
            assert (again.status, again.reason) == (head.status, head.reason)
            assert again.fields == head.fields
            response_persists(head, response_framing(head, method)[0])
    ours = our_responses(data)
    if method == b"GET" and ours:
        oracles = [h11_responses(data), llhttp_responses(data)]
        assert stripped(ours) in map(stripped, oracles), (ours, oracles)


_TCHARS = frozenset(
    b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)


def lines_of(block: bytes) -> list[tuple[bytes, bytes]] | None:
    """Read field lines one by one; ``None`` where one is malformed."""
    items = []
    for line in block.removesuffix(EMPTY_LINE).split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon or not name or not _TCHARS.issuperset(name):
            return None
        if any((each < 0x20 and each != 0x09) or each == 0x7F for each in value):
            return None
        items.append((name, value.strip(b" \t")))
    return items if len(items) <= MAX_FIELDS else None


def fields(data: bytes) -> None:
    """A section of field lines, beside a reader that goes line by line."""
    block = data + EMPTY_LINE
    expected = lines_of(block)
    try:
        parsed = parse_fields(block)
    except RemoteProtocolError:
        assert expected is None, expected
    else:
        assert list(parsed) == expected, (list(parsed), expected)
        use(parsed)
    try:
        unfolded = parse_fields(block, folds=True)
    except RemoteProtocolError:
        assert expected is None
    else:
        use(unfolded)


def use(parsed: Fields) -> None:
    """Do all that is done with fields."""
    for name, value in parsed:
        check_field(name, value)
        assert parsed.get(name) == parsed.get_all(name)[0]
        parsed.tokens(name)
    if len(parsed):
        assert parse_fields(parsed.serialise() + b"\r\n") == parsed
    left = without_hop_by_hop(parsed)
    gone = {b"connection", b"transfer-encoding", *parsed.tokens(b"Connection")}
    assert not gone & {name.lower() for name, _ in left}
    for pseudonym in via_pseudonyms(parsed):
        assert pseudonym
    max_forwards(parsed)
    last_chunk(parsed)
    repr(parsed)


_HOST = re.compile(r"[0-9a-z._-]+|[0-9a-f:.]+")


def targets(data: bytes) -> None:
    """A method, a space, a request-target; a line with a Host may follow."""
    line, _, host = data.partition(b"\n")
    method, _, raw = line.partition(b" ")
    try:
        target = parse_target(method, raw)
    except RemoteProtocolError:
        return
    if host:
        try:
            check_host(
                RequestHead(method, raw, (1, 1), Fields([(b"Host", host)])), target
            )
        except RemoteProtocolError:
            pass
        else:
            assert not set(host) & set(b" \t@/?#,\\"), host
    if target.form in (Form.ORIGIN, Form.ASTERISK):
        assert target.path == raw
        return
    assert _HOST.fullmatch(target.host), target
    assert target.port is None or 0 < target.port < 65536
    written = format_authority(target.host, target.port or 1)
    assert parse_target(b"CONNECT", written).host == target.host
    if target.form is Form.ABSOLUTE:
        absolute(target, raw)


def absolute(target: Target, raw: bytes) -> None:
    """Compare with Python's own reading."""
    assert target.path[:1] == b"/" or target.path == b"*"
    theirs = urlsplit(raw.decode("ascii"))
    assert theirs.scheme == target.scheme.decode("ascii")
    assert theirs.username is None
    if ":" not in target.host:
        assert theirs.hostname == target.host, (theirs.hostname, target.host)
    assert theirs.port in (target.port, None)
    path = theirs.path + ("?" + theirs.query if theirs.query else "")
    if target.path != b"*" and not raw.endswith(b"?"):
        assert path.lstrip("/") == target.path.decode("ascii").lstrip("/"), path


def chunks(data: bytes) -> None:
    """A chunked body, beside a slow reader, and beside h11."""
    slow = read_chunks(data)
    for folds in (False, True):
        for segments in ([data], *pieces(data)):
            outcome, content, end = decode(ChunkedDecoder(folds=folds), segments)
            if outcome is Outcome.INCOMPLETE and slow.outcome is Outcome.MALFORMED:
                continue  # said at the end of the line: see below
            if outcome is Outcome.MALFORMED and slow.outcome is Outcome.COMPLETE:
                # A trailer that is no field line.
                assert slow.trailers != b"\r\n"
                continue
            assert outcome is slow.outcome, (segments, outcome, slow)
            if outcome is not Outcome.MALFORMED:
                assert content == slow.content, (segments, content, slow)
                assert end == slow.end
    if slow.outcome is Outcome.MALFORMED:
        segments = [data, b"x" * 70000 + b"\r\n"]
        assert decode(ChunkedDecoder(), segments)[0] is slow.outcome
    outcome, content, end = decode(ChunkedDecoder(), [data])
    if outcome is Outcome.COMPLETE and b":" not in slow.trailers:
        assert h11_chunks(data) == (content, data[end:])


def decode(
    decoder: ChunkedDecoder, segments: Iterable[bytes]
) -> tuple[Outcome, bytes, int]:
    """Feed *decoder*, and say what became of it."""
    content, before = b"", 0
    try:
        for segment in segments:
            piece, end = decoder.feed(segment, 0)
            content += piece
            if end >= 0:
                return Outcome.COMPLETE, content, before + end
            before += len(segment)
    except RemoteProtocolError:
        return Outcome.MALFORMED, b"", -1
    return Outcome.INCOMPLETE, content, -1


def h11_chunks(data: bytes) -> tuple[bytes, bytes] | None:
    """Read a chunked body by h11: the content, and what follows."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(
        b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data
    )
    content = b""
    try:
        while not isinstance(event := server.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                content += event.data
            elif not isinstance(event, h11.Request):
                return None
    except h11.ProtocolError:
        return None
    return content, server.trailing_data[0]


# Authentication

_PEER = Peer(Role.PROXY, "http", "proxy", 3128)
_REQUEST = AuthRequest(b"GET", b"http://site/p", b"/p")


def challenges(data: bytes) -> None:
    """Challenges, a field line on each line; and parameters of an info field."""
    values = data.split(b"\n")
    for challenge in parse_challenges(values):
        assert challenge.scheme
        repr(challenge)
        assert all(name == name.lower() for name in challenge.params)
        digest(challenge)
    for value in values:
        parse_info(value)
        assert parse_challenges([value]) == parse_challenges([value, b""])


def digest(challenge: Challenge) -> None:
    """Read Digest's parameters, whatever the scheme calls itself."""
    is_stale(challenge)
    covers(challenge, _PEER, b"/p")
    with contextlib.suppress(ChallengeError):
        read_terms(challenge)


def logon(data: bytes) -> None:
    """
    A logon with a proxy that says anything: an answer on each line.

    ``407`` and challenges separated by ``|``, or ``200`` and an info field.
    """
    context = Context(AuthPolicy(), SpaceMemory(), None, lambda size: b"n" * size)
    credentials = PasswordCredentials("CORP\\alice", "secret")
    layer = AuthLayer(_PEER, credentials, context)
    try:
        step = run(layer, layer.start(_REQUEST))
        for line in data.split(b"\n")[:10]:
            values = line[4:].split(b"|")
            if line.startswith(b"200"):
                field = _PEER.role.info_field
                answer = [(field, value) for value in values]
                step = run(layer, layer.accepted(Fields(answer)))
                step = run(layer, layer.start(_REQUEST))
            elif isinstance(step, GiveUp):
                layer.lost()
                step = run(layer, layer.start(_REQUEST))
            else:
                field = _PEER.role.challenge_field
                answer = [(field, value) for value in values]
                step = run(layer, layer.challenged(Fields(answer), _REQUEST))
    except CodaError:
        layer.lost()
    layer.successor()


def run(layer: AuthLayer, step: Step) -> Step:
    """Do the work of a step, and look at what would be sent."""
    while isinstance(step, Work):
        try:
            result = step.run()
        except Exception as error:
            step = layer.failed(error)
        else:
            step = layer.worked(result)
    if isinstance(step, Reply):
        check_field(_PEER.role.credentials_field, step.value)
        assert b"secret" not in step.value
    if layer.needs_fresh_connection:
        layer.moved(None)
    return step


# Configuration


def proxies(data: bytes) -> None:
    """The URL of a proxy, as people write it."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        proxy, userinfo = HTTPProxy.from_url(text)
    except ValueError as error:
        assert not re.search("secret", str(error)), error
    else:
        assert HTTPProxy.from_url(str(proxy)) == (proxy, None)
        assert _HOST.fullmatch(proxy.host) and 0 < proxy.port < 65536
        if userinfo is not None and "secret" not in userinfo.username:
            assert "secret" not in repr(userinfo)
    try:
        router = EnvironmentRouter({"http_proxy": text, "no_proxy": text})
    except ValueError as error:
        assert not re.search("secret", str(error)), error
    else:
        router.routes("http", "site", 80)


def no_proxy(data: bytes) -> None:
    """A list of hosts to be reached directly, a host behind a line feed."""
    value, _, host = data.decode("utf-8", "surrogateescape").partition("\n")
    exempt = NoProxy(value)
    matched = exempt.match(host)
    assert exempt.match(host.upper()) == exempt.match(host.upper().lower())
    if value.strip() == "*":
        assert matched
    if not value.strip(", \t\r\n"):
        assert not matched


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (
        requests,
        responses,
        fields,
        targets,
        chunks,
        challenges,
        logon,
        proxies,
        no_proxy,
        front,
    )
}
