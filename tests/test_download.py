"""Tests for :mod:`coda_twisted.download`."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from twisted.web.http_headers import Headers

from coda_twisted.client.agent import ClientAgent
from coda_twisted.client.exchange import Client
from coda_twisted.download import (
    ChecksumMismatch,
    ContentCut,
    ContentTooLarge,
    Downloaded,
    DownloadFailed,
    download,
)
from coda_twisted.download import targets as targets_module
from coda_twisted.download.content import DISCARD_SECONDS
from coda_twisted.download.redirects import ascii_url
from coda_twisted.download.targets import Memory, NewFile, PartialFile
from coda_twisted.download.transfer import ERROR_LIMIT
from coda_twisted.download.validators import (
    Checksum,
    ContentRange,
    content_range,
    entity_tag,
    http_date,
    strong_validator,
)
from coda_twisted.errors import CodaError, PhaseTimeout, RemoteProtocolError
from coda_twisted.routing.routes import Direct, StaticRouter
from tests.wire import Peer, Wire

URL = "http://site/file.bin"
TAG = (b"ETag", b'"one"')
MODIFIED = (b"Last-Modified", b"Sun, 06 Nov 1994 08:49:37 GMT")
LATER = (b"Date", b"Sun, 06 Nov 1994 08:50:37 GMT")
SOON = (b"Date", b"Sun, 06 Nov 1994 08:50:36 GMT")
ABC = hashlib.sha256(b"abcdef").hexdigest()


class DownloadCase(SynchronousTestCase):
    """A download, a directory, and the test in place of the server."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wire = Wire()
        self.agent = ClientAgent(
            Client(
                self.clock,
                router=StaticRouter(Direct()),
                endpoint_for=self.wire.endpoint_for,
            )
        )
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.path = self.directory / "file.bin"
        self.shown: list[tuple[int, int | None]] = []

    def get(self, url: str = URL, **more: Any) -> Deferred[Downloaded]:
        more.setdefault("agent", self.agent)
        return download(self.clock, url, **more)

    def save(self, **more: Any) -> Deferred[Downloaded]:
        return self.get(path=self.path, **more)

    def resume(self, **more: Any) -> Deferred[Downloaded]:
        return self.save(resume=True, **more)

    @property
    def peer(self) -> Peer:
        return self.wire.peers[-1]

    def field(self, name: bytes) -> bytes | None:
        """A field of the latest request."""
        return self.peer.request.fields.get(name)

    def head(self, status: int, *fields: tuple[bytes, bytes]) -> None:
        """Answer with a head alone."""
        self.peer.read()
        lines = b"".join(b"%s: %s\r\n" % each for each in fields)
        self.peer.send(b"HTTP/1.1 %d Any\r\n%s\r\n" % (status, lines))

    def length(self, length: int, *fields: tuple[bytes, bytes]) -> None:
        """Answer with the head of a 200."""
        self.head(200, (b"Content-Length", b"%d" % length), *fields)

    def part(self, span: bytes, body: bytes, *fields: tuple[bytes, bytes]) -> None:
        """Answer with a 206."""
        self.peer.answer(206, (b"Content-Range", b"bytes " + span), *fields, body=body)

    def files(self) -> list[str]:
        return sorted(os.listdir(self.directory))

    def left_behind(self, body: bytes = b"abc", *fields: tuple[bytes, bytes]) -> None:
        """Let a first attempt fail that has got *body* of six octets."""
        answer = self.resume()
        self.length(6, *(fields or (TAG,)))
        self.peer.send(body)
        self.peer.close()
        self.failureResultOf(answer, ContentCut)


class MemoryTests(DownloadCase):
    """Downloads into memory."""

    def test_content(self) -> None:
        """The result has status, fields and content."""
        answer = self.get(progress=lambda *each: self.shown.append(each))
        self.assertEqual(self.peer.request.method, b"GET")
        self.assertEqual(self.field(b"Accept-Encoding"), b"identity")
        self.length(6, TAG, MODIFIED)
        self.peer.send(b"abc")
        self.peer.send(b"def")
        result = self.successResultOf(answer)
        self.assertEqual(
            (result.url, result.status, result.reason, result.body, result.size),
            (URL, 200, "Any", b"abcdef", 6),
        )
        self.assertEqual(
            (result.ok, result.not_modified, result.etag, result.last_modified),
            (True, False, '"one"', MODIFIED[1].decode()),
        )
        self.assertIsNone(result.path)
        self.assertEqual(self.shown, [(0, 6), (3, 6), (6, 6)])
        self.assertNotIn("abcdef", repr(result))

    def test_request(self) -> None:
        """Method, fields and content are the caller's, who keeps them unchanged."""
        fields = Headers({b"X-A": [b"1", b"2"], b"Accept-Encoding": [b"gzip"]})
        for each in (fields, {"X-A": "1"}):
            self.get(method="POST", fields=each, body=b"content", etag="*")
            request = self.peer.request
            self.assertEqual(request.method, b"POST")
            self.assertEqual(request.fields.get(b"X-A"), b"1")
            self.assertEqual(self.peer.bodies[-1], b"content")
        self.assertFalse(fields.hasHeader(b"If-None-Match"))

    def test_not_modified(self) -> None:
        """304 says that what the caller has is good (RFC 9110 15.4.5)."""
        answer = self.get(etag='W/"a"', last_modified=MODIFIED[1].decode())
        self.assertEqual(self.field(b"If-None-Match"), b'W/"a"')
        self.assertEqual(self.field(b"If-Modified-Since"), MODIFIED[1])
        self.peer.answer(304, TAG)
        result = self.successResultOf(answer)
        self.assertTrue(result.not_modified)
        self.assertFalse(result.ok)
        self.assertEqual((result.body, result.etag), (b"", '"one"'))

    def test_error_page(self) -> None:
        """Of a page that says why not, the first 64 KiB are kept."""
        for size in (10, ERROR_LIMIT, ERROR_LIMIT + 1):
            answer = self.save()
            self.peer.answer(404, body=b"x" * size)
            result = self.successResultOf(answer)
            self.assertEqual((result.status, result.ok), (404, False))
            self.assertEqual(len(result.body), min(size, ERROR_LIMIT))
        answer = self.get()
        self.head(500, (b"Content-Length", b"9"))
        self.peer.send(b"half")
        self.peer.close()
        self.assertEqual(self.successResultOf(answer).body, b"half")
        self.assertEqual(self.files(), [])

    def test_no_content(self) -> None:
        """HEAD and 204 bring nothing, and make no file."""
        answer = self.save(method="HEAD")
        self.length(6)
        result = self.successResultOf(answer)
        self.assertEqual((result.status, result.size, result.path), (200, 0, None))
        self.assertEqual(result.fields.getRawHeaders(b"content-length"), [b"6"])
        answer = self.save()
        self.peer.answer(204)
        self.assertIsNone(self.successResultOf(answer).path)
        self.assertEqual(self.files(), [])

    def test_cut(self) -> None:
        """Half a content is an error that tells how much there was, and why."""
        answer = self.get()
        self.length(6)
        self.peer.send(b"abc")
        self.peer.close()
        error: Any = self.failureResultOf(answer, ContentCut).value
        self.assertEqual((error.received, error.expected), (3, 6))
        self.assertIsNotNone(error.__cause__)
        self.assertIn("3 of 6", str(error))

    def test_length_kept(self) -> None:
        """An agent that does not count is counted after."""

        class Short:
            def __init__(self, agent: Any) -> None:
                self._agent = agent

            def request(self, *arguments: Any) -> Any:
                def lie(response: Any) -> Any:
                    response.length = 7
                    return response

                return self._agent.request(*arguments).addCallback(lie)

        answer = self.get(agent=Short(self.agent))
        self.peer.answer(200, body=b"abcdef")
        self.failureResultOf(answer, ContentCut)

    def test_unsized(self) -> None:
        """What ends with its connection is whole only to those who trust it."""
        for more, good in (
            ({}, False),
            ({"unsized": True}, True),
            ({"checksum": ABC}, True),
        ):
            answer = self.save(**more)
            self.head(200)
            self.peer.send(b"abcdef")
            self.peer.close()
            if good:
                self.assertEqual(self.successResultOf(answer).size, 6)
                self.path.unlink()
            else:
                error = self.failureResultOf(answer, ContentCut).value
                self.assertIn("nothing says", str(error))
            self.assertEqual(self.files(), [])

    def test_chunked(self) -> None:
        """What comes in chunks has an end of its own."""
        answer = self.get(progress=lambda *each: self.shown.append(each))
        self.head(200, (b"Transfer-Encoding", b"chunked"))
        self.peer.send(b"3\r\nabc\r\n0\r\n\r\n")
        self.assertEqual(self.successResultOf(answer).body, b"abc")
        self.assertEqual(self.shown, [(0, None), (3, None)])

    def test_part(self) -> None:
        """A part that nobody asked for is not taken for the whole."""
        answer = self.save()
        self.part(b"0-2/6", b"abc")
        self.failureResultOf(answer, RemoteProtocolError)
        self.assertEqual(self.files(), [])

    def test_no_answer(self) -> None:
        """What the agent fails with is what the caller gets."""
        answer = self.get()
        self.peer.close()
        self.failureResultOf(answer, ResponseNeverReceived)
        error = self.failureResultOf(self.get("http://me:secret@site/"), CodaError)
        self.assertNotIn("secret", str(error.value))


class LimitTests(DownloadCase):
    """What a content must be like."""

    def test_size(self) -> None:
        """A content that is too long is not read, or no further."""
        for known in (True, False):
            answer = self.save(max_size=5)
            if known:
                self.length(6)
            else:
                self.head(200, (b"Transfer-Encoding", b"chunked"))
                self.peer.send(b"6\r\nabcdef\r\n")
            error: Any = self.failureResultOf(answer, ContentTooLarge).value
            self.assertEqual(error.limit, 5)
            self.assertEqual(self.files(), [])
        self.assertTrue(self.peer.dropped)
        answer = self.save(max_size=6)
        self.peer.answer(200, body=b"abcdef")
        self.successResultOf(answer)

    def test_checksum(self) -> None:
        """A content with another hash is none; an old file stays."""
        self.path.write_bytes(b"old")
        for checksum, good in (
            (f"sha256:{ABC}", True),
            (ABC.upper(), True),
            ("0" * 64, False),
        ):
            for more in ({}, {"resume": True}):
                self.path.write_bytes(b"old")
                answer = self.save(checksum=checksum, **more)
                self.peer.answer(200, TAG, body=b"abcdef")
                if good:
                    self.successResultOf(answer)
                    self.assertEqual(self.path.read_bytes(), b"abcdef")
                else:
                    error: Any = self.failureResultOf(answer, ChecksumMismatch).value
                    self.assertEqual((error.expected, error.actual), ("0" * 64, ABC))
                    self.assertEqual(self.path.read_bytes(), b"old")
                self.assertEqual(self.files(), ["file.bin"])

    def test_slow(self) -> None:
        """A server that is silent too long is left, before the head and after it."""
        answer = self.get(timeout=5)
        self.clock.advance(5)
        error: Any = self.failureResultOf(answer, PhaseTimeout).value
        self.assertEqual((error.phase, error.seconds), ("head", 5))
        answer = self.get(timeout=5)
        self.clock.advance(4)
        self.length(6)
        for _ in range(3):
            self.clock.advance(4)
            self.peer.send(b"a")
        self.clock.advance(4)
        self.assertNoResult(answer)
        self.clock.advance(1)
        error = self.failureResultOf(answer, PhaseTimeout).value
        self.assertEqual(error.phase, "body")
        self.assertTrue(self.peer.dropped)

    def test_cancelled(self) -> None:
        """A cancelled download leaves no file and no connection."""
        for begun in (False, True):
            answer = self.save()
            if begun:
                self.length(6)
                self.peer.send(b"abc")
                self.assertEqual(len(self.files()), 1)
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
            self.assertTrue(self.peer.dropped)
            self.assertEqual(self.files(), [])

    def test_mistakes(self) -> None:
        """What cannot be meant is refused before anything is sent."""
        for more in (
            {"checksum": "abc"},
            {"etag": "unquoted"},
            {"last_modified": "yesterday"},
            {"resume": True},
            {"resume": True, "path": self.path, "method": "POST"},
            {"fields": {"Range": "bytes=0-1"}},
            {"fields": {"If-Range": '"a"'}},
        ):
            with self.assertRaises(ValueError, msg=more):
                self.get(**more)
        with self.assertRaises(TypeError):
            self.get(proxy=None)
        self.assertEqual(self.wire.peers, [])

    def test_progress_that_fails(self) -> None:
        """What the callback raises ends the download."""

        def show(size: int, total: int | None) -> None:
            if size:
                raise ZeroDivisionError

        answer = self.save(progress=show)
        self.peer.answer(200, body=b"abc")
        self.failureResultOf(answer, ZeroDivisionError)
        self.assertEqual(self.files(), [])


class OwnAgentTests(DownloadCase):
    """A download that makes its agent."""

    def test_closed(self) -> None:
        """It is made of the settings, and closed in the end."""
        answer = self.get(
            agent=None, proxy=None, endpoint_for=self.wire.endpoint_for, environ={}
        )
        self.peer.answer(200, body=b"abc")
        self.assertNoResult(answer)
        self.assertTrue(self.peer.dropped)
        self.peer.close()
        self.assertEqual(self.successResultOf(answer).body, b"abc")


class RedirectTests(DownloadCase):
    """Redirections."""

    def test_followed(self) -> None:
        """Each is resolved against the one before, and its content let go."""
        answer = self.get("http://site/a/b#fragment")
        self.peer.answer(301, (b"Location", b"c/d"), body=b"moved")
        self.assertEqual(self.peer.request.target, b"/a/c/d")
        self.peer.answer(302, (b"Location", b"e?\xfc %41#x"), body=b"moved")
        self.assertEqual(self.peer.request.target, b"/a/c/e?%FC%20%41")
        self.assertEqual(len(self.wire.peers), 1)
        self.peer.answer(200, body=b"abc")
        self.assertEqual(
            self.successResultOf(answer).url, "http://site/a/c/e?%FC%20%41"
        )

    def test_long_content(self) -> None:
        """The content of a redirection is not worth a long read."""
        for framing in (
            (b"Content-Length", b"99999999"),
            (b"Transfer-Encoding", b"chunked"),
        ):
            self.get()
            first = self.peer
            self.head(301, (b"Location", b"/b"), framing)
            self.assertTrue(first.dropped)
            self.assertEqual(self.peer.request.target, b"/b")

    def test_slow_content(self) -> None:
        """Nor is one that does not end, or is cut off."""
        for ends in (True, False):
            self.get()
            first = self.peer
            self.head(301, (b"Location", b"/b"), (b"Content-Length", b"9"))
            if ends:
                first.close()
            else:
                self.clock.advance(DISCARD_SECONDS)
            self.assertTrue(first.dropped)
            self.assertEqual(self.peer.request.target, b"/b")

    def test_cancelled_between(self) -> None:
        """Nothing is asked for after a download was cancelled."""
        answer = self.get()
        self.head(301, (b"Location", b"/b"), (b"Content-Length", b"9"))
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertTrue(self.peer.dropped)
        self.assertEqual(len(self.wire.peers), 1)

    def test_secrets(self) -> None:
        """What the caller authenticates by goes to no other origin."""
        fields = {"Authorization": "Bearer x", "Cookie": "a=b", "X-A": "1"}
        self.get(fields=fields)
        self.peer.answer(307, (b"Location", b"/same"))
        self.assertEqual(self.field(b"Authorization"), b"Bearer x")
        self.peer.answer(307, (b"Location", b"http://user:pass@site:8080/"))
        self.assertEqual(self.peer.port, 8080)
        for name in (b"Authorization", b"Cookie"):
            self.assertIsNone(self.field(name))
        self.assertEqual(self.field(b"X-A"), b"1")

    def test_downgrade(self) -> None:
        """From https nothing is followed to http."""
        asked: list[Any] = []

        class Redirecting:
            def __init__(self, agent: Any) -> None:
                self._agent = agent

            def request(self, method: bytes, uri: bytes, *more: Any) -> Any:
                asked.append(uri)
                uri = uri.replace(b"https:", b"http:")
                return self._agent.request(method, uri, *more)

        answer = self.get("https://site/", agent=Redirecting(self.agent))
        self.peer.answer(301, (b"Location", b"https://site/b"))
        self.peer.answer(301, (b"Location", b"http://site/"))
        error = self.failureResultOf(answer, DownloadFailed).value
        self.assertIn("https to http", str(error))
        self.assertEqual(asked, [b"https://site/", b"https://site/b"])

    def test_methods(self) -> None:
        """303 is followed by GET; others are the user's to repeat elsewhere."""
        self.get(method="POST", body=b"content")
        self.peer.answer(303, (b"Location", b"/outcome"))
        self.assertEqual(self.peer.request.method, b"GET")
        self.get(method="HEAD")
        self.peer.answer(303, (b"Location", b"/outcome"))
        self.assertEqual(self.peer.request.method, b"HEAD")
        answer = self.get(method="POST", body=b"content")
        self.peer.answer(307, (b"Location", b"/b"))
        self.assertEqual(self.successResultOf(answer).status, 307)

    def test_ends(self) -> None:
        """There is an end to it; one that leads nowhere is the answer."""
        answer = self.get(redirects=2)
        for _ in range(3):
            self.peer.answer(301, (b"Location", b"/again"))
        self.failureResultOf(answer, DownloadFailed)
        answer = self.get(redirects=0)
        self.peer.answer(301, (b"Location", b"/b"))
        self.assertEqual(self.successResultOf(answer).status, 301)
        answer = self.get()
        self.peer.answer(301)
        self.assertEqual(self.successResultOf(answer).status, 301)

    def test_ascii_url(self) -> None:
        """What people type is written as it is sent."""
        for typed, sent in (
            (
                "http://bücher.example:8/ä b?ö%20#x",
                "http://xn--bcher-kva.example:8/%C3%A4%20b?%C3%B6%20",
            ),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ):
            self.assertEqual(ascii_url(typed), sent)


class FileTests(DownloadCase):
    """A file that is whole or not there."""

    def test_written(self) -> None:
        """It takes its place when it is whole, not before."""
        self.path.write_bytes(b"old")
        answer = self.save()
        self.length(6)
        self.peer.send(b"abc")
        self.assertEqual(self.path.read_bytes(), b"old")
        [temporary] = set(self.files()) - {"file.bin"}
        self.assertTrue(temporary.startswith(".file.bin."))
        self.peer.send(b"def")
        result = self.successResultOf(answer)
        self.assertEqual((result.path, result.body, result.size), (self.path, b"", 6))
        self.assertEqual(self.path.read_bytes(), b"abcdef")
        self.assertEqual(self.files(), ["file.bin"])

    def test_not_modified(self) -> None:
        """304 leaves the file alone."""
        self.path.write_bytes(b"old")
        answer = self.save(etag='"a"')
        self.peer.answer(304)
        self.assertIsNone(self.successResultOf(answer).path)
        self.assertEqual(self.path.read_bytes(), b"old")

    def test_mode(self) -> None:
        """A new file has the mode that others have, another one keeps its own."""
        plain = self.directory / "plain"
        plain.touch()
        for mode in (plain.stat().st_mode & 0o777, 0o640):
            if mode == 0o640:
                self.path.chmod(mode)
            answer = self.save()
            self.peer.answer(200, body=b"abc")
            self.successResultOf(answer)
            self.assertEqual(self.path.stat().st_mode & 0o777, mode)

    def test_link(self) -> None:
        """A symbolic link goes on leading where it did."""
        link = self.directory / "link"
        link.symlink_to("file.bin")
        answer = self.get(path=link)
        self.peer.answer(200, body=b"abc")
        self.successResultOf(answer)
        self.assertTrue(link.is_symlink())
        self.assertEqual(self.path.read_bytes(), b"abc")

    def test_no_file(self) -> None:
        """What is there and is no file stays; nothing is asked for."""
        fifo = self.directory / "fifo"
        os.mkfifo(fifo)
        for resume in (False, True):
            for path in (fifo, self.directory, Path("/dev/null")):
                answer = self.get(path=path, resume=resume)
                self.failureResultOf(answer, ValueError)
            answer = self.get(path=self.directory / "no" / "such", resume=resume)
            self.failureResultOf(answer, FileNotFoundError)
        self.assertEqual(self.wire.peers, [])

    def test_full_disk(self) -> None:
        """What cannot be written is no file; the connection is dropped."""
        for when in ("write", "fsync"):
            with full_disk(self, when):
                answer = self.save()
                self.length(6)
                self.peer.send(b"abcdef")
                self.failureResultOf(answer, OSError)
            self.assertEqual(self.files(), [])

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.binary(max_size=300), max_size=5), st.booleans())
    def test_all_octets(self, pieces: list[bytes], resume: bool) -> None:
        """In whatever pieces it comes, the file is what was sent."""
        answer = self.save(resume=resume)
        self.length(sum(map(len, pieces)), TAG)
        for piece in pieces:
            self.peer.send(piece)
        self.successResultOf(answer)
        self.assertEqual(self.path.read_bytes(), b"".join(pieces))


@contextmanager
def full_disk(case: SynchronousTestCase, when: str) -> Iterator[None]:
    """Let writing files fail."""

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    if when == "fsync":
        patch = case.patch(os, "fsync", fail)
    else:
        patch = case.patch(NewFile, "write", fail)
    yield
    patch.restore()


class ResumeTests(DownloadCase):
    """Going on where it stopped (RFC 9110 14)."""

    def test_goes_on(self) -> None:
        """What is there is kept, and only the rest asked for."""
        self.left_behind()
        self.assertEqual(self.files(), ["file.bin.part", "file.bin.part.json"])
        answer = self.resume(
            checksum=ABC, progress=lambda *each: self.shown.append(each)
        )
        self.clock.advance(0)
        self.assertEqual(self.field(b"Range"), b"bytes=2-")
        self.assertEqual(self.field(b"If-Range"), b'"one"')
        self.part(b"2-5/6", b"cdef", TAG)
        result = self.successResultOf(answer)
        self.assertEqual(
            (result.status, result.size, result.resumed_at, result.path),
            (206, 6, 3, self.path),
        )
        self.assertTrue(result.ok)
        self.assertEqual(self.path.read_bytes(), b"abcdef")
        self.assertEqual(self.files(), ["file.bin"])
        self.assertEqual(self.shown, [(3, 6), (6, 6)])

    def test_again_and_again(self) -> None:
        """An octet at a time gets there as well."""
        self.left_behind(b"a")
        for count in range(1, 6):
            answer = self.resume()
            self.assertEqual(self.field(b"Range"), b"bytes=%d-" % (count - 1))
            self.head(
                206,
                TAG,
                (b"Content-Length", b"%d" % (7 - count)),
                (b"Content-Range", b"bytes %d-5/6" % (count - 1)),
            )
            self.peer.send(b"abcdef"[count - 1 : count])
            self.peer.send(b"abcdef"[count : count + 1])
            if count < 5:
                self.peer.close()
                self.failureResultOf(answer, ContentCut)
        self.successResultOf(answer)
        self.assertEqual(self.path.read_bytes(), b"abcdef")

    def test_whole_already(self) -> None:
        """What was whole but for its name gets it, after a look at its last octet."""
        self.left_behind(b"abcde")
        with (self.directory / "file.bin.part").open("ab") as file:
            file.write(b"f")
        answer = self.resume()
        self.assertEqual(self.field(b"Range"), b"bytes=5-")
        self.part(b"5-5/6", b"f", TAG)
        self.assertEqual(self.successResultOf(answer).resumed_at, 6)
        self.assertEqual(self.path.read_bytes(), b"abcdef")

    def test_changed(self) -> None:
        """A 200 is a new content, which replaces what was there."""
        self.left_behind()
        answer = self.resume()
        self.length(6, (b"ETag", b'"two"'))
        self.peer.send(b"ABCD")
        note = json.loads((self.directory / "file.bin.part.json").read_bytes())
        self.assertEqual((note["validator"], note["length"]), ('"two"', 6))
        self.peer.send(b"EF")
        self.assertEqual(self.successResultOf(answer).resumed_at, 0)
        self.assertEqual(self.path.read_bytes(), b"ABCDEF")

    def test_unfit(self) -> None:
        """A part of which one cannot be sure is refused: all is asked for."""
        two = (b"ETag", b'"two"')
        for span, body, fields in (
            (b"2-5/6", b"cdef", ()),
            (b"2-5/6", b"cdef", (two,)),
            (b"2-5/6", b"cdef", ((b"ETag", b'W/"one"'),)),
            (b"2-5/6", b"cdef", (TAG, two)),
            (b"2-5/6", b"xdef", (TAG,)),
            (b"3-5/6", b"def", (TAG,)),
            (b"2-6/7", b"cdefg", (TAG,)),
            (b"2-5/*", b"cdef", (TAG,)),
            (b"2-5/5", b"cdef", (TAG,)),
            (b"nonsense", b"cdef", (TAG,)),
        ):
            self.left_behind()
            answer = self.resume()
            self.part(span, body, *fields)
            self.assertNoResult(answer)
            self.assertIsNone(self.field(b"Range"), span)
            self.assertIsNone(self.field(b"If-Range"))
            self.peer.answer(200, TAG, body=b"ABCDEF")
            self.assertEqual(self.successResultOf(answer).resumed_at, 0)
            self.assertEqual(self.path.read_bytes(), b"ABCDEF")

    def test_several_parts(self) -> None:
        """Several ranges at once are refused as well."""
        self.left_behind()
        answer = self.resume()
        self.peer.answer(
            206, TAG, (b"Content-Type", b"multipart/byteranges; boundary=x"), body=b"x"
        )
        self.assertIsNone(self.field(b"Range"))
        answer.cancel()
        self.failureResultOf(answer)

    def test_not_satisfiable(self) -> None:
        """After a 416 all is asked for (RFC 9110 15.5.17)."""
        self.left_behind()
        answer = self.resume()
        self.peer.answer(416, (b"Content-Range", b"bytes */2"))
        self.assertIsNone(self.field(b"Range"))
        self.peer.answer(200, body=b"ab")
        self.successResultOf(answer)
        self.assertEqual(self.path.read_bytes(), b"ab")

    def test_short_part(self) -> None:
        """A part that ends before the end is kept, and is not the whole."""
        self.left_behind()
        answer = self.resume()
        self.part(b"2-3/6", b"cd", TAG)
        error: Any = self.failureResultOf(answer, ContentCut).value
        self.assertEqual((error.received, error.expected), (4, 6))
        self.resume()
        self.assertEqual(self.field(b"Range"), b"bytes=3-")

    def test_errors_keep_it(self) -> None:
        """An error of the server's, and a 304, leave what is there."""
        self.left_behind()
        for status in (503, 404, 304):
            answer = self.resume()
            self.peer.answer(status)
            self.assertEqual(self.successResultOf(answer).status, status)
            self.assertIn("file.bin.part", self.files())

    def test_wrong_checksum(self) -> None:
        """Parts that do not make what was wanted are not kept."""
        self.left_behind(b"axc")
        answer = self.resume(checksum=ABC)
        self.clock.advance(0)
        self.part(b"2-5/6", b"cdef", TAG)
        self.failureResultOf(answer, ChecksumMismatch)
        self.assertEqual(self.files(), [])

    def test_too_long(self) -> None:
        """The limit is the whole content's."""
        self.left_behind()
        answer = self.resume(max_size=5)
        self.part(b"2-5/6", b"cdef", TAG)
        self.failureResultOf(answer, ContentTooLarge)
        self.assertEqual(self.files(), [])

    def test_dates(self) -> None:
        """A date counts where there is no tag, and only if it is strong."""
        self.left_behind(b"abc", MODIFIED, LATER)
        answer = self.resume()
        self.assertEqual(self.field(b"If-Range"), MODIFIED[1])
        self.part(b"2-5/6", b"cdef")
        self.successResultOf(answer)
        self.left_behind(b"abc", MODIFIED, LATER)
        self.resume()
        self.part(b"2-5/6", b"cdef", (b"Last-Modified", LATER[1]))
        self.assertIsNone(self.field(b"Range"))

    def test_nothing_to_ask_with(self) -> None:
        """Content without a strong validator is not kept."""
        for fields in (
            ((b"ETag", b'W/"a"'),),
            ((b"ETag", b'W/"a"'), MODIFIED, LATER),
            (MODIFIED, SOON),
            (MODIFIED,),
            ((b"X-A", b"b"),),
        ):
            self.left_behind(b"abc", *fields)
            self.assertEqual(self.files(), [], fields)

    def test_of_another_url(self) -> None:
        """What was left of another URL, or cannot be read, is begun anew."""
        note = self.directory / "file.bin.part.json"
        for spoil in (
            lambda: note.unlink(),
            lambda: note.write_text("{"),
            lambda: note.write_text("[]"),
            lambda: note.write_text('{"url": "else"}'),
            lambda: (self.directory / "file.bin.part").write_bytes(b""),
        ):
            self.left_behind()
            spoil()
            answer = self.resume()
            self.assertIsNone(self.field(b"Range"))
            self.peer.answer(200, body=b"abcdef")
            self.successResultOf(answer)
            self.assertEqual(self.files(), ["file.bin"])
        self.left_behind()
        self.assertNotIn("site", note.read_text())
        self.get("http://site/other", path=self.path, resume=True)
        self.assertIsNone(self.field(b"Range"))

    def test_without_resume(self) -> None:
        """Who does not want to go on leaves alone what others have begun."""
        self.left_behind()
        answer = self.save()
        self.assertIsNone(self.field(b"Range"))
        self.peer.answer(200, body=b"abcdef")
        self.successResultOf(answer)
        self.assertIn("file.bin.part", self.files())

    def test_two_at_once(self) -> None:
        """A second download of the same file is refused; the first goes on."""
        first = self.resume()
        self.failureResultOf(self.resume(), DownloadFailed)
        self.peer.answer(200, body=b"abcdef")
        self.successResultOf(first)
        second = self.resume()
        self.peer.answer(200, body=b"abcdef")
        self.successResultOf(second)

    def test_cancelled(self) -> None:
        """A cancelled download can be gone on with."""
        answer = self.resume()
        self.length(6, TAG)
        self.peer.send(b"abc")
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.resume()
        self.assertEqual(self.field(b"Range"), b"bytes=2-")

    def test_failure_before_content(self) -> None:
        """Nothing is left of a download that has not begun."""
        answer = self.resume()
        self.peer.close()
        self.failureResultOf(answer)
        self.assertEqual(self.files(), [])


class TargetTests(DownloadCase):
    """Files on their own."""

    def test_memory(self) -> None:
        """Memory can be begun anew."""
        memory = Memory()
        memory.write(b"old")
        memory.begin(None, None)
        memory.write(b"new")
        memory.finish()
        memory.close()
        self.assertEqual((memory.content, memory.size), (b"new", 3))

    def test_finished_elsewhere(self) -> None:
        """A part that got its name while we waited for it is not written to."""
        part = self.directory / "file.bin.part"
        real = targets_module._lock
        locked = []

        def lock(file: Any, path: Path) -> None:
            real(file, path)
            locked.append(path)
            if len(locked) == 1:
                part.rename(self.path)

        self.patch(targets_module, "_lock", lock)
        target = PartialFile(self.path, URL)
        self.addCleanup(target.close)
        self.assertEqual(locked, [part, part])
        target.begin(b'"a"', None)
        target.write(b"abc")
        self.assertEqual(self.path.read_bytes(), b"")

    def test_planted(self) -> None:
        """A link, a pipe, or another user's file is not gone on with."""
        part = self.directory / "file.bin.part"
        part.symlink_to(self.directory / "elsewhere")
        with self.assertRaises(OSError):
            PartialFile(self.path, URL)
        part.unlink()
        os.mkfifo(part)
        with self.assertRaises(OSError):
            PartialFile(self.path, URL)
        part.unlink()
        part.touch()
        self.patch(os, "geteuid", lambda: part.stat().st_uid + 1)
        with self.assertRaises(PermissionError):
            PartialFile(self.path, URL)
        self.assertEqual(self.files(), ["file.bin.part"])

    def test_cannot_be_put_in_its_place(self) -> None:
        """A part that cannot be renamed is there for the next time."""
        target = PartialFile(self.path, URL)
        target.begin(b'"a"', 3)
        target.write(b"abc")
        with full_disk(self, "fsync"), self.assertRaises(OSError):
            target.finish()
        target.close()
        again = PartialFile(self.path, URL)
        self.addCleanup(again.close)
        self.assertEqual((again.size, again.validator), (3, b'"a"'))


class ValidatorTests(SynchronousTestCase):
    """Validators, ranges and hashes."""

    def test_entity_tag(self) -> None:
        """RFC 9110 8.8.3: quoted, without a quote or a space in it."""
        for good in ('"xyzzy"', 'W/"xyzzy"', '""', '"\xe4"', "*"):
            self.assertEqual(entity_tag(good), good.encode("latin-1"))
        for bad in ("xyzzy", '"a"b"', '"a b"', 'w/"a"', '"a"\n', "", '"a", "b"'):
            with self.assertRaises(ValueError, msg=bad):
                entity_tag(bad)

    def test_date(self) -> None:
        """RFC 9110 5.6.7: IMF-fixdate, in GMT; what a server sent, as it is."""
        moment = datetime(1994, 11, 6, 9, 49, 37, tzinfo=timezone(timedelta(hours=1)))
        self.assertEqual(http_date(moment), MODIFIED[1])
        for text in (MODIFIED[1].decode(), "Sunday, 06-Nov-94 08:49:37 GMT"):
            self.assertEqual(http_date(text), text.encode())
        bad: list[Any] = [datetime(1994, 11, 6), "", "now", "06 Nov 1994 08:49:37 ä"]
        for each in bad:
            with self.assertRaises(ValueError, msg=each):
                http_date(each)

    def test_content_range(self) -> None:
        """RFC 9110 14.4: first, last and complete length, or nothing of use."""
        for values, expected in (
            (["bytes 42-1233/1234"], ContentRange(42, 1233, 1234)),
            (["Bytes 0-0/1"], ContentRange(0, 0, 1)),
            (["bytes 42-1233/*"], None),
            (["bytes */1234"], None),
            (["bytes 5-4/9"], None),
            (["bytes 0-9/9"], None),
            (["bytes -1-2/9"], None),
            (["seconds 0-1/9"], None),
            (["bytes 0-1/9", "bytes 0-1/9"], None),
            ([], None),
        ):
            fields = Headers({b"Content-Range": [each.encode() for each in values]})
            self.assertEqual(content_range(fields), expected, values)

    def test_strong(self) -> None:
        """RFC 9110 13.1.5: a strong tag, or a strong date where there is no tag."""
        for fields, expected in (
            ([TAG], b'"one"'),
            ([TAG, MODIFIED, LATER], b'"one"'),
            ([(b"ETag", b'W/"a"'), MODIFIED, LATER], None),
            ([(b"ETag", b"a"), MODIFIED, LATER], None),
            ([TAG, TAG], None),
            ([MODIFIED, LATER], MODIFIED[1]),
            ([MODIFIED, SOON], None),
            ([MODIFIED], None),
            ([LATER], None),
            ([(b"Last-Modified", b"x"), LATER], None),
            ([(b"Last-Modified", b"\xe4"), LATER], None),
            ([(b"Last-Modified", b"Sun, 06 Nov 1994 08:49:37 -0000"), LATER], None),
            ([MODIFIED, MODIFIED, LATER], None),
        ):
            headers = Headers()
            for name, value in fields:
                headers.addRawHeader(name, value)
            self.assertEqual(strong_validator(headers), expected, fields)

    def test_checksum(self) -> None:
        """An algorithm and its digits; SHA-256 where there is none."""
        for text, algorithm in (
            (ABC, "sha256"),
            (f" SHA-256:{ABC.upper()}\n", "sha256"),
            ("sha512:" + "0" * 128, "sha512"),
            ("md5:" + "a" * 32, "md5"),
        ):
            self.assertEqual(Checksum.parse(text).algorithm, algorithm)
        for bad in ("", "x" * 64, "sha256:" + "0" * 63, "crc32:00000000", ":" + "0"):
            with self.assertRaises(ValueError, msg=bad):
                Checksum.parse(bad)
