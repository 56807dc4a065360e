"""
Download: only what has changed, from where it stopped, and never half a file.

:func:`download` is for any Twisted program; ``python -m coda_twisted get`` is it for
people.
"""

from __future__ import annotations

from coda_twisted.download.errors import (
    ChecksumMismatch,
    ContentCut,
    ContentTooLarge,
    DownloadFailed,
)
from coda_twisted.download.fetch import download
from coda_twisted.download.transfer import Downloaded

__all__ = [
    "ChecksumMismatch",
    "ContentCut",
    "ContentTooLarge",
    "DownloadFailed",
    "Downloaded",
    "download",
]
