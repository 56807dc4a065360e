"""
Read a connection's messages, in segments of any size (RFC 9112 2).

A reader is given what arrives and returns what it means: a head, pieces of
content, an end.  It never looks beyond the message it is reading: what follows is
kept, unread, until it is known whose it is.

Rules of this file: what one ``receive`` returns is complete up to what was given;
after an error the reader is dead, and what was read in the same call is lost with
it, for a message with an error in it has no part that can be trusted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from coda_twisted.errors import (
    ConnectionEnded,
    LocalProtocolError,
    RemoteProtocolError,
)
from coda_twisted.http1.bodies import (
    NO_TRAILERS,
    Decoder,
    Framing,
    LengthDecoder,
    decoder_for,
    request_framing,
    response_framing,
)
from coda_twisted.http1.fields import MAX_FIELDS, TCHAR, Fields
from coda_twisted.http1.heads import (
    MAX_HEAD,
    BlockCollector,
    RequestHead,
    ResponseHead,
    oversized_request_head,
    oversized_response_head,
    parse_request_head,
    parse_response_head,
)
from coda_twisted.http1.persistence import response_persists
from coda_twisted.http1.pieces import keep

__all__ = [
    "Data",
    "End",
    "RequestEvent",
    "RequestReader",
    "ResponseEvent",
    "ResponseReader",
]

MAX_EMPTY_LINES = 8
"""Empty lines skipped before a request line (RFC 9112 2.2: "at least one")."""

_TCHAR = re.compile(TCHAR)
_TLS_HANDSHAKE = b"\x16"
_VERSION = b"HTTP/1."


@dataclass(slots=True)
class Data:
    """A piece of content, never empty."""

    data: bytes


@dataclass(slots=True)
class End:
    """
    The message is complete.

    :ivar trailers: The trailer fields, if there were any.
    """

    trailers: Fields


_END = End(NO_TRAILERS)
"""The end of most messages, which have no trailers."""

_Event = TypeVar("_Event")

RequestEvent: TypeAlias = RequestHead | Data | End
ResponseEvent: TypeAlias = ResponseHead | Data | End


class _Reader:
    """What both readers share: limits, one message's content, and how they die."""

    __slots__ = (
        "_block",
        "_dead",
        "_decoder",
        "_max_fields",
        "_max_head",
        "framing",
        "length",
    )

    _folds: bool

    def __init__(
        self,
        max_head: int,
        max_fields: int,
        oversized: Callable[[bytes], RemoteProtocolError],
    ) -> None:
        self.framing = Framing.NONE
        self.length = 0
        self._max_head = max_head
        self._max_fields = max_fields
        self._block = BlockCollector(max_head, oversized)
        self._decoder: Decoder | None = None
        # The error's words, without its traceback, which would refer to us.
        self._dead: tuple[str, int] | None = None

    def _check_alive(self) -> None:
        if self._dead:
            raise RemoteProtocolError(*self._dead)

    def _die(self, error: RemoteProtocolError) -> None:
        self._dead = str(error), error.status_hint

    @property
    def outstanding(self) -> int:
        """Octets of content that have still to come, if a length says how many."""
        decoder = self._decoder
        return decoder.left if isinstance(decoder, LengthDecoder) else 0

    def _skip(self, octets: int) -> bool:
        """
        Take note that content was taken past the reader; whether that was the rest.

        :raises LocalProtocolError: It cannot have been content.
        """
        decoder = self._decoder
        if not isinstance(decoder, LengthDecoder) or not 0 <= octets <= decoder.left:
            raise LocalProtocolError("that was not content of known length")
        decoder.left -= octets
        if decoder.left:
            return False
        self._decoder = None
        return True

    def _begin(self) -> None:
        """Have the content read that the head has announced."""
        self._decoder = decoder_for(
            self.framing,
            self.length,
            max_trailers=self._max_head,
            max_fields=self._max_fields,
            folds=self._folds,
        )

    def _content(
        self,
        decoder: Decoder,
        data: bytes,
        position: int,
        events: list[_Event | Data | End],
    ) -> int:
        """Read content, and say where the message ends; -1 while it goes on."""
        content, position = decoder.feed(data, position)
        if content:
            events.append(Data(content))
        if position >= 0:
            trailers = decoder.trailers
            events.append(_END if trailers is NO_TRAILERS else End(trailers))
            self._decoder = None
        return position


class RequestReader(_Reader):
    """
    Reads requests, as a server does.

    It sees to the grammar of RFC 9112 and to unambiguous framing.  What a
    request-target means, and whether Host fits, is for
    :func:`~coda_twisted.http1.targets.parse_target` and
    :func:`~coda_twisted.http1.targets.check_host`.

    :ivar head: Of the current message, until that of the next is there.
    :ivar framing: Of the current message's content.
    :ivar length: Of that content, in octets, where that is what frames it.
    :param max_head: Octets of a head, and of a trailer section.
    :param max_fields: Field lines in either.
    """

    _folds = False

    __slots__ = (
        "_complete",
        "_data",
        "_ended",
        "_more",
        "_position",
        "_skipped",
        "head",
    )

    def __init__(self, max_head: int = MAX_HEAD, max_fields: int = MAX_FIELDS) -> None:
        super().__init__(max_head, max_fields, oversized_request_head)
        self.head: RequestHead | None = None
        self._complete = False
        self._ended = False
        self._skipped = 0
        # What has come behind a complete message: the rest of one segment, from
        # a position on, and segments.
        self._data = b""
        self._position = 0
        self._more: list[bytes] = []

    @property
    def pending(self) -> bytes:
        """What has come behind a complete message, unread."""
        return self._data[self._position :] + b"".join(self._more)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way: no message, and nothing of a next one."""
        return not (
            self._dead
            or self._decoder
            or self._block.held
            or self._more
            or self._position < len(self._data)
        )

    def receive(self, data: bytes) -> list[RequestEvent]:
        """
        Read what has arrived.

        :returns: What it means, up to the end of one message.  What follows stays
            in :attr:`pending`, and so does all that is received from then on until
            :meth:`next_message` is called: to bound it, stop reading meanwhile.
        :raises RemoteProtocolError: It breaks the rules; ``status_hint`` says how
            to answer.  The connection is then to be closed.
        """
        if self._dead:
            self._check_alive()
        if self._complete:
            if data:
                keep(self._more, data)
            return []
        try:
            return self._read(data, 0)
        except RemoteProtocolError as error:
            self._die(error)
            raise

    def next_message(self) -> list[RequestEvent]:
        """
        Go on with what is pending, once the message before has been dealt with.

        :raises LocalProtocolError: It is not complete.
        :raises RemoteProtocolError: As :meth:`receive`.
        """
        if self._dead:
            self._check_alive()
        if self._decoder:
            raise LocalProtocolError("the message is not complete")
        data, position = self._data, self._position
        self._complete = False
        if self._more:
            data, position = self.pending, 0
            self._more = []
        elif not data:
            return []  # as between most requests
        self._data, self._position = b"", 0
        try:
            events = self._read(data, position)
        except RemoteProtocolError as error:
            self._die(error)
            raise
        if self._ended:
            self.eof()
        return events

    def skip(self, octets: int) -> list[RequestEvent]:
        """
        Take note that so many octets of content were taken past the reader.

        :returns: The end of the message, if those were its last.
        :raises LocalProtocolError: More than :attr:`outstanding`.
        """
        self._check_alive()
        if not self._skip(octets):
            return []
        self._complete = True
        return [_END]

    def eof(self) -> None:
        """
        Take note that nothing more will arrive.

        :raises RemoteProtocolError: That cuts a message short.  If what is pending
            holds only a part of a message, :meth:`next_message` will say so.
        """
        self._check_alive()
        self._ended = True
        if self._decoder or self._block.held:
            self._dead = "the request is cut short", 400
            self._check_alive()

    def _read(self, data: bytes, position: int) -> list[RequestEvent]:
        events: list[RequestEvent] = []
        if self._decoder is None:
            if self._block.held == b"\r":  # the first half of an empty line, maybe
                data, position = b"\r" + data[position:], 0
                self._block.held.clear()
            block, position = self._take_head(data, position)
            if not block:
                return events
            head = self.head = parse_request_head(block, self._max_fields)
            events.append(head)
            self.framing, self.length = request_framing(head)
            if self.framing is not Framing.NONE:
                self._begin()
        if self._decoder is None:
            events.append(_END)
        else:
            position = self._content(self._decoder, data, position, events)
        if position >= 0:
            self._complete = True
            if position < len(data):
                self._data, self._position = data, position
        return events

    def _take_head(self, data: bytes, position: int) -> tuple[bytes, int]:
        held = self._block.held
        if not held:
            while data.startswith(b"\r\n", position):
                position += 2
                self._skipped += 1
                if self._skipped > MAX_EMPTY_LINES:
                    raise RemoteProtocolError("empty lines instead of a request")
        block, position = self._block.take(data, position)
        if block:
            self._skipped = 0
        elif held and held != b"\r" and not _TCHAR.match(held):
            # Said at once, for what is no HTTP may never send an empty line.
            if held[:1] == _TLS_HANDSHAKE:
                raise RemoteProtocolError("TLS came where HTTP was expected")
            raise RemoteProtocolError("the request line is malformed")
        return block, position


class ResponseReader(_Reader):
    """
    Reads responses, as a client does: one for each request, and nothing else.

    After the head of a 101, or of a 2xx to CONNECT, the stream is no longer HTTP:
    the message ends there, and :attr:`pending` holds what has come behind it.

    :ivar head: The latest head, interim or final.
    :ivar framing: Of the final response's content, until the next is expected.
    :ivar length: Of that content, in octets, where that is what frames it.
    :ivar surplus: Whether octets came that belong to no response: the connection
        must not be used again, they might pass for an answer (RFC 9112 9.2).
    :param max_head: Octets of a head, and of a trailer section.  All 1xx before one
        final response may have four times as many; a peer could go on with them for
        ever, and Go has such a limit, too.
    :param max_fields: Field lines in either.
    """

    _folds = True

    __slots__ = (
        "_interim",
        "_method",
        "_more",
        "_persists",
        "_taken_over",
        "head",
        "surplus",
    )

    def __init__(self, max_head: int = MAX_HEAD, max_fields: int = MAX_FIELDS) -> None:
        super().__init__(max_head, max_fields, oversized_response_head)
        self.head: ResponseHead | None = None
        self.surplus = False
        self._method: bytes | None = None  # of the request whose answer is awaited
        self._interim = 0  # octets of the 1xx before it
        self._persists = True
        self._taken_over = False
        self._more: list[bytes] = []

    @property
    def pending(self) -> bytes:
        """What has come of the stream that began behind the last head."""
        return b"".join(self._more)

    @property
    def idle(self) -> bool:
        """Whether no response is awaited or under way, and none can be doubted."""
        return not (
            self._dead or self._method is not None or self._taken_over or self.surplus
        )

    @property
    def persists(self) -> bool:
        """Whether the connection may be used for another request now."""
        return self._persists and not self.surplus

    def expect(self, method: bytes) -> None:
        """
        Take note that a request was sent; the next final response answers it.

        :raises LocalProtocolError: Another is not yet answered, or nothing that
            comes on this connection can be taken for an answer.
        """
        if not self.idle:
            raise LocalProtocolError("the connection is not free for a request")
        self._method = method
        self._interim = 0
        self._persists = False  # as long as it is under way
        self.head = None
        self.framing = Framing.NONE

    def receive(self, data: bytes) -> list[ResponseEvent]:
        """
        Read what has arrived.

        :returns: What it means.  Each 1xx comes as a head alone, and the final
            response follows.
        :raises RemoteProtocolError: It breaks the rules; ``status_hint`` is 502.
        """
        if self._dead:
            self._check_alive()
        if not data:
            return []
        if self._taken_over:
            self._more.append(data)
            return []
        if self._method is None:
            self.surplus = True
            return []
        try:
            return self._read(data)
        except RemoteProtocolError as error:
            error.status_hint = 502
            self._die(error)
            raise

    def skip(self, octets: int) -> list[ResponseEvent]:
        """As :meth:`RequestReader.skip`, for a response's content."""
        self._check_alive()
        if not self._skip(octets):
            return []
        self._finish()
        return [_END]

    def eof(self) -> list[ResponseEvent]:
        """
        Take note that nothing more will arrive.

        :returns: The end of a response that the end of the connection ends.
        :raises ConnectionEnded: A response is cut short, or has not begun.
        """
        self._check_alive()
        if self._method is None:
            return []
        if self._decoder and self.framing is Framing.UNTIL_CLOSE:
            self._finish()
            return [_END]
        answered = self.head is not None or bool(self._block.held)
        what = "the response is cut short" if answered else "no response came"
        self._dead = what, 502
        raise ConnectionEnded(what, answered=answered)

    def _read(self, data: bytes) -> list[ResponseEvent]:
        events: list[ResponseEvent] = []
        position = 0
        if self._decoder is None:
            position = self._read_heads(data, events)
            if position < 0:
                return events
        if self._decoder is None:
            events.append(_END)
        else:
            position = self._content(self._decoder, data, position, events)
        if position >= 0:
            self._finish()
            if position < len(data):
                if self._taken_over:
                    self._more.append(data[position:])
                else:
                    self.surplus = True
        return events

    def _read_heads(self, data: bytes, events: list[ResponseEvent]) -> int:
        """Read up to the content, and say where it begins; -1 if not yet."""
        assert self._method is not None
        position = 0
        while True:
            block, position = self._block.take(data, position)
            if not block:
                held = self._block.held
                if not held.startswith(_VERSION[: len(held)]):
                    raise RemoteProtocolError("the response is not HTTP/1.x")
                return -1
            head = self.head = parse_response_head(block, self._max_fields)
            events.append(head)
            framing, length = response_framing(head, self._method)
            if head.status >= 200 or head.status == 101:
                self.framing, self.length = framing, length
                if framing is not Framing.NONE:
                    self._begin()
                return position
            self._interim += len(block)
            if self._interim > 4 * self._max_head:
                raise RemoteProtocolError("1xx responses without end", 502)

    def _finish(self) -> None:
        head, method = self.head, self._method
        assert head is not None
        self._decoder = None
        self._method = None
        self._taken_over = head.status == 101 or (
            method == b"CONNECT" and head.status < 300
        )
        self._persists = not self._taken_over and response_persists(head, self.framing)
