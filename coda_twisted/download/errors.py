"""Why there is no file."""

from __future__ import annotations

from coda_twisted.errors import CodaError

__all__ = ["ChecksumMismatch", "ContentCut", "ContentTooLarge", "DownloadFailed"]


class DownloadFailed(CodaError):
    """What was asked for cannot be had as it was asked for."""


class ContentCut(DownloadFailed):
    """
    The content ended before its end; ``__cause__`` may say why.

    :ivar received: The octets that are there, those of former attempts included.
    :ivar expected: How many there should be; ``None`` if nothing says so.
    """

    def __init__(self, received: int, expected: int | None) -> None:
        self.received = received
        self.expected = expected
        if expected is None:
            message = f"nothing says that the {received} octets received are all"
        else:
            message = f"{received} of {expected} octets were received"
        super().__init__(message)


class ContentTooLarge(DownloadFailed):
    """
    The content is longer than allowed.

    :ivar limit: The octets that were allowed.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"the content is longer than the {limit} octets allowed")
        self.limit = limit


class ChecksumMismatch(DownloadFailed):
    """
    The content is whole, and is not what it should be.

    :ivar expected: The hash that was wanted, in hexadecimal.
    :ivar actual: The hash of what came.
    """

    def __init__(self, algorithm: str, expected: str, actual: str) -> None:
        super().__init__(f"the content's {algorithm} is {actual}, not {expected}")
        self.expected = expected
        self.actual = actual
