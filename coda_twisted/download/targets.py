"""
Where content goes: memory, or a file that is whole or not there.

A file grows under another name in its own directory, is written to the disk, and
only then takes its place, in one step (rename(2)).  Whoever opens it, at any time
and after any crash, gets the old content or the new.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from coda_twisted.download.errors import DownloadFailed

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no fcntl
    fcntl = None  # type: ignore[assignment]

__all__ = ["Memory", "NewFile", "PartialFile", "Target"]

CHUNK = 1024 * 1024
"""Octets that are read at once."""


class Target(Protocol):
    """
    Takes one content.

    :ivar size: The octets that it has.
    :ivar validator: What may stand in If-Range to get those that it lacks; ``None``
        when it must begin with the first one.
    """

    size: int
    validator: bytes | None

    def begin(self, validator: bytes | None, length: int | None) -> None:
        """Forget what is there: the whole content comes."""

    def write(self, data: bytes) -> None:
        """Append some of it."""

    def finish(self) -> Path | None:
        """Take note that the content is whole, and all right."""

    def discard(self) -> None:
        """Take note that it is of no use."""

    def close(self) -> None:
        """Let go; what is not finished is kept where it can be resumed."""


class Memory:
    """Content that is kept in memory."""

    validator: bytes | None = None

    def __init__(self) -> None:
        self.size = 0
        self._pieces: list[bytes] = []

    @property
    def content(self) -> bytes:
        """All that has come."""
        return b"".join(self._pieces)

    def begin(self, validator: bytes | None, length: int | None) -> None:
        """Forget what is there."""
        self.discard()

    def write(self, data: bytes) -> None:
        """Append to it."""
        self._pieces.append(data)
        self.size += len(data)

    def finish(self) -> None:
        """Nothing is to be done."""

    def discard(self) -> None:
        """Forget it."""
        self._pieces.clear()
        self.size = 0

    def close(self) -> None:
        """Nothing is to be let go."""


class NewFile:
    """
    A file whose content comes in one piece, or not at all.

    The temporary one has a name that nobody can guess, and is removed when it is not
    finished.

    :param path: Where the content goes in the end; where a symbolic link is, where it
        leads to.
    :raises ValueError: There is something that is no file.
    :raises OSError: There is no such directory.
    """

    validator: bytes | None = None

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = _destination(path)
        self.size = 0
        self._file: BinaryIO | None = None
        self._temporary = self.path

    def begin(self, validator: bytes | None, length: int | None) -> None:
        """Make the temporary file."""
        self.discard()
        self._temporary = self.path.with_name(
            f".{self.path.name[:200]}.{secrets.token_hex(6)}.part"
        )
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY
        self._file = os.fdopen(os.open(self._temporary, flags, 0o666), "wb")

    def write(self, data: bytes) -> None:
        """Append to it."""
        assert self._file is not None
        self._file.write(data)
        self.size += len(data)

    def finish(self) -> Path:
        """Put it in its place."""
        file, self._file = self._file, None
        assert file is not None
        try:
            _publish(file, self._temporary, self.path)
        except OSError:
            self._temporary.unlink(missing_ok=True)
            raise
        return self.path

    def discard(self) -> None:
        """Remove it."""
        file, self._file = self._file, None
        self.size = 0
        if file is not None:
            with contextlib.suppress(OSError):  # what is left to write is in vain
                file.close()
            self._temporary.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove it, unless it has its place."""
        self.discard()


class PartialFile:
    """
    A file that can be gone on with: ``NAME.part``, and ``NAME.part.json`` about it.

    The second one says which URL the content is of, as a hash, for URLs hold secrets,
    and what it must be asked for with.  Content that cannot be asked for again is not
    kept.

    The file is locked, where the system can do that, until it is closed.

    :param path: As for :class:`NewFile`.
    :param url: What is downloaded.
    :raises ValueError: There is something that is no file.
    :raises OSError: It cannot be opened, or belongs to somebody else.
    :raises DownloadFailed: It is being downloaded by somebody else.
    """

    def __init__(self, path: str | os.PathLike[str], url: str) -> None:
        self.path = _destination(path)
        self._part = self.path.with_name(self.path.name + ".part")
        self._note = self.path.with_name(self.path.name + ".part.json")
        self._url = hashlib.sha256(url.encode()).hexdigest()
        self._file: BinaryIO | None = _open_locked(self._part)
        self.size = os.fstat(self._file.fileno()).st_size
        self.validator: bytes | None = None
        self.length: int | None = None
        self._recall()

    def _recall(self) -> None:
        """Read what was noted of the content, if it is of the same URL."""
        try:
            noted = json.loads(self._note.read_bytes())
            if noted["url"] == self._url and self.size:
                self.validator = noted["validator"].encode("latin-1")
                self.length = noted["length"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self.validator = None

    def pieces(self) -> Iterator[bytes]:
        """Read what is there from its start; then it can be appended to."""
        assert self._file is not None
        self._file.seek(0)
        while piece := self._file.read(CHUNK):
            yield piece

    def last_octet(self) -> bytes:
        """Read the last of what is there; then it can be appended to."""
        assert self._file is not None
        self._file.seek(-1, os.SEEK_END)
        return self._file.read(1)

    def begin(self, validator: bytes | None, length: int | None) -> None:
        """Forget what is there, and note what comes."""
        assert self._file is not None
        self._file.seek(0)
        self._file.truncate()  # before the note: no old octet is under a new one
        self.size = 0
        self.validator = validator
        self.length = length
        if validator is None:
            self._note.unlink(missing_ok=True)
            return
        noted = {
            "url": self._url,
            "validator": validator.decode("latin-1"),
            "length": length,
        }
        temporary = NewFile(self._note)
        temporary.begin(None, None)
        try:
            temporary.write(json.dumps(noted).encode())
            temporary.finish()
        finally:
            temporary.close()

    def write(self, data: bytes) -> None:
        """Append to it."""
        assert self._file is not None
        self._file.write(data)
        self.size += len(data)

    def finish(self) -> Path:
        """Put it in its place."""
        file, self._file = self._file, None
        assert file is not None
        _publish(file, self._part, self.path)
        self._note.unlink(missing_ok=True)
        return self.path

    def discard(self) -> None:
        """Remove it, and what was noted of it."""
        file, self._file = self._file, None
        if file is not None:
            self._note.unlink(missing_ok=True)
            self._part.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                file.close()

    def close(self) -> None:
        """Keep it for the next time, if it can be gone on with."""
        if self._file is None:
            return
        if not self.size or self.validator is None:
            self.discard()
            return
        file, self._file = self._file, None
        with contextlib.suppress(OSError), file:  # a full disk has what fits on it
            file.flush()
            os.fsync(file.fileno())


_BINARY = getattr(os, "O_BINARY", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


def _destination(path: str | os.PathLike[str]) -> Path:
    """
    Find where a file is to be in the end.

    To put a file in the place of ``/dev/null`` would be a feat.
    """
    found = Path(os.path.realpath(path))
    if not found.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, os.strerror(errno.ENOENT), str(found.parent)
        )
    if found.exists() and not found.is_file():
        raise ValueError(f"{path} is there, and is no file")
    return found


def _open_locked(path: Path) -> BinaryIO:
    """Open a file that this process alone writes."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | _BINARY | _NOFOLLOW
        file = os.fdopen(os.open(path, flags, 0o666), "r+b")
        try:
            _lock(file, path)
            opened = os.fstat(file.fileno())
            if not stat.S_ISREG(opened.st_mode):
                raise FileExistsError(errno.EEXIST, "is no file", str(path))
            if os.name == "posix" and opened.st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "belongs to another user", str(path))
            # Whoever had the lock may have renamed the file: then it is a whole
            # one now, and not ours to write.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(opened, path.stat()):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: BinaryIO, path: Path) -> None:
    if fcntl is None:  # pragma: no cover - nothing to lock with, on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DownloadFailed(f"{path} is being downloaded by somebody else") from None


def _publish(file: BinaryIO, temporary: Path, path: Path) -> None:
    """
    Write a file to the disk, and put it in its place, with the old one's mode.

    A name that is on the disk before its content is, is that of an empty file after a
    crash: hence the order.
    """
    with file:
        file.flush()
        if hasattr(os, "fchmod"):
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
        os.fsync(file.fileno())
        if os.name == "posix":  # elsewhere an open file cannot be renamed
            os.replace(temporary, path)
    if os.name != "posix":  # pragma: no cover - Windows renames closed files only
        os.replace(temporary, path)
        return
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
