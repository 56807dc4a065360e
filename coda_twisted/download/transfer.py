"""
One download, from the request to the content in its place.

Theory of operation.  What a former attempt has left is gone on with only if the
server says by a strong validator that it still is the same content: the request has
Range and If-Range (RFC 9110 13.1.5, 14.2), and

* 206 is checked against Content-Range and the validator, and appended;
* 200 means that the content has changed: it comes whole, and what was there goes;
* 416, or a 206 that does not fit, means that one of the two is mistaken: the whole
  content is asked for.

The range begins with the last octet that is there already.  A content that was whole
but for its name is so answered by a 206 as well, and the octet itself is compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IResponse

from coda_twisted.download.content import EndedEarly, discard, drop, receive
from coda_twisted.download.errors import ChecksumMismatch, ContentCut, ContentTooLarge
from coda_twisted.download.redirects import Asked, ask
from coda_twisted.download.targets import Memory, PartialFile, Target
from coda_twisted.download.validators import (
    Checksum,
    content_range,
    strong_validator,
)
from coda_twisted.errors import RemoteProtocolError

__all__ = ["Downloaded", "Limits", "Progress", "Transfer"]

ERROR_LIMIT = 64 * 1024
"""Octets that are kept of the content of a response that is no success."""

NO_CONTENT = (204, 205)
PARTIAL_CONTENT = 206
NOT_MODIFIED = 304
RANGE_NOT_SATISFIABLE = 416

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Downloaded:
    """
    What came of a download.

    :ivar url: Where the response came from, after all redirections.
    :ivar status: Its status code; a file was written only where it is a 2xx.
    :ivar reason: Its reason phrase.
    :ivar fields: Its fields.
    :ivar body: The content, where it is not in a file; of a response that is no
        success the first 64 KiB.
    :ivar path: The file with the content, or ``None``.
    :ivar size: The octets of the whole content.
    :ivar resumed_at: How many of them were there before.
    """

    url: str
    status: int
    reason: str
    fields: Headers
    body: bytes = field(default=b"", repr=False)
    path: Path | None = None
    size: int = 0
    resumed_at: int = 0

    @property
    def ok(self) -> bool:
        """Whether the content is here: any 2xx."""
        return 200 <= self.status < 300

    @property
    def not_modified(self) -> bool:
        """Whether what the caller has is still good (RFC 9110 15.4.5)."""
        return self.status == NOT_MODIFIED

    @property
    def etag(self) -> str | None:
        """The content's entity-tag, as :func:`download` takes it."""
        return self._field(b"ETag")

    @property
    def last_modified(self) -> str | None:
        """When the content was changed, as :func:`download` takes it."""
        return self._field(b"Last-Modified")

    def _field(self, name: bytes) -> str | None:
        values = self.fields.getRawHeaders(name, [])
        return values[0].decode("latin-1") if values else None


@dataclass(frozen=True)
class Limits:
    """What is acceptable; as :func:`coda_twisted.download.download` takes it."""

    max_size: int | None = None
    timeout: float | None = None
    checksum: Checksum | None = None
    redirects: int = 10
    unsized: bool = False


class _Unfit(Exception):
    """The rest of a content is not that of what is there."""


class Transfer:
    """One download into one target, which its maker closes."""

    def __init__(
        self,
        clock: Any,
        agent: IAgent,
        request: Asked,
        target: Target,
        limits: Limits,
        progress: Progress | None,
    ) -> None:
        self._clock = clock
        self._agent = agent
        self._request = request
        self._target = target
        self._limits = limits
        self._progress = progress or _ignore
        self._hash: Any = None

    async def run(self) -> Downloaded:
        """Download, going on with what is there if that is possible."""
        if isinstance(self._target, PartialFile) and self._target.validator:
            with contextlib.suppress(_Unfit):
                return await self._go_on(self._target)
        url, response = await self._ask(self._request.fields)
        if response.code == PARTIAL_CONTENT:
            drop(response, self._clock)
            raise RemoteProtocolError("a part came that was not asked for", 502)
        return await self._take(url, response)

    async def _ask(self, fields: Headers) -> tuple[str, IResponse]:
        return await ask(
            self._agent,
            replace(self._request, fields=fields),
            self._clock,
            redirects=self._limits.redirects,
            limit=self._limits.timeout,
        )

    # From where it stopped

    async def _go_on(self, target: PartialFile) -> Downloaded:
        """
        Ask for the rest.

        :raises _Unfit: It cannot be had.
        """
        assert target.validator is not None
        await self._hash_what_is_there(target)
        last = target.last_octet()
        start = target.size - 1
        fields = self._request.fields.copy()
        fields.setRawHeaders(b"Range", [b"bytes=%d-" % start])
        fields.setRawHeaders(b"If-Range", [target.validator])
        url, response = await self._ask(fields)
        if response.code == RANGE_NOT_SATISFIABLE:
            await discard(response, self._clock)
            raise _Unfit
        if response.code != PARTIAL_CONTENT:
            return await self._take(url, response)
        part = content_range(response.headers)
        if (
            part is None
            or part.first != start
            or part.complete != (target.length or part.complete)
            or not _same(response, target.validator)
        ):
            await discard(response, self._clock)
            raise _Unfit
        self._check_size(response, part.complete)
        resumed_at = target.size

        def without_overlap(data: bytes) -> bytes:
            nonlocal last
            overlap, last = last, b""
            if not data.startswith(overlap):
                raise _Unfit
            return data[len(overlap) :]

        await self._receive(response, part.complete, without_overlap)
        return self._finish(url, response, resumed_at)

    async def _hash_what_is_there(self, target: PartialFile) -> None:
        if self._limits.checksum is None:
            return
        self._hash = self._limits.checksum.new()
        for piece in target.pieces():
            self._hash.update(piece)
            await deferLater(self._clock, 0.0)

    # From the start

    async def _take(self, url: str, response: IResponse) -> Downloaded:
        """Take a response that is no part of anything."""
        if (
            not 200 <= response.code < 300
            or response.code in NO_CONTENT
            or self._request.method == b"HEAD"
        ):
            body = await self._read_error(response)
            return self._result(url, response, body=body, size=len(body))
        length = None if response.length is UNKNOWN_LENGTH else response.length
        if self._limits.checksum is not None:
            self._hash = self._limits.checksum.new()
        self._check_size(response, length)
        self._target.begin(strong_validator(response.headers), length)
        await self._receive(response, length, lambda data: data)
        return self._finish(url, response, 0)

    async def _read_error(self, response: IResponse) -> bytes:
        """Read the page that explains, as far as it is worth it."""
        page = Memory()

        def consume(data: bytes) -> None:
            page.write(data[: ERROR_LIMIT - page.size])
            if page.size >= ERROR_LIMIT:
                raise ContentTooLarge(ERROR_LIMIT)

        with contextlib.suppress(ContentTooLarge, EndedEarly):
            await receive(response, consume, self._clock, self._limits.timeout)
        return page.content

    def _check_size(self, response: IResponse, length: int | None) -> None:
        limit = self._limits.max_size
        if limit is not None and length is not None and length > limit:
            drop(response, self._clock)
            self._target.discard()
            raise ContentTooLarge(limit)

    # Either way

    async def _receive(
        self,
        response: IResponse,
        expected: int | None,
        unwrap: Callable[[bytes], bytes],
    ) -> None:
        """Append a response's content to the target."""
        target, limits = self._target, self._limits
        self._progress(target.size, expected)

        def consume(data: bytes) -> None:
            data = unwrap(data)
            maximum = limits.max_size
            if maximum is not None and target.size + len(data) > maximum:
                raise ContentTooLarge(maximum)
            target.write(data)
            if self._hash is not None:
                self._hash.update(data)
            self._progress(target.size, expected)

        try:
            certain = await receive(response, consume, self._clock, limits.timeout)
        except EndedEarly as error:
            raise ContentCut(target.size, expected) from error.__cause__
        except ContentTooLarge:
            target.discard()
            raise
        if expected is not None and target.size != expected:
            raise ContentCut(target.size, expected)
        vouched = certain or expected is not None or limits.checksum is not None
        if not vouched and not limits.unsized:
            raise ContentCut(target.size, None)

    def _finish(self, url: str, response: IResponse, resumed_at: int) -> Downloaded:
        """Check the whole content, and put it in its place."""
        target, checksum = self._target, self._limits.checksum
        size = target.size
        if checksum is not None:
            actual = self._hash.hexdigest()
            if actual != checksum.value:
                target.discard()
                raise ChecksumMismatch(checksum.algorithm, checksum.value, actual)
        body = target.content if isinstance(target, Memory) else b""
        path = target.finish()
        return self._result(
            url, response, body=body, path=path, size=size, resumed_at=resumed_at
        )

    def _result(self, url: str, response: IResponse, **more: Any) -> Downloaded:
        phrase = response.phrase.decode("latin-1")
        return Downloaded(url, response.code, phrase, response.headers, **more)


def _same(response: IResponse, validator: bytes) -> bool:
    """
    Tell whether a part is of the content that had this validator.

    RFC 9110 15.3.7.3: parts may be combined if they have the same strong validator;
    15.3.7: a 206 has the ETag that a 200 would have had.
    """
    if validator.startswith(b'"'):
        return bool(response.headers.getRawHeaders(b"ETag") == [validator])
    return response.headers.getRawHeaders(b"Last-Modified") in (None, [validator])


def _ignore(size: int, expected: int | None) -> None:
    """Show no progress."""
