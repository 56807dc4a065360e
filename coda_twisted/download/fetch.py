"""The face of a download: what a program asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer

from coda_twisted.client.configure import Agent
from coda_twisted.client.upload import BytesBody
from coda_twisted.download.redirects import Asked, ascii_url
from coda_twisted.download.targets import Memory, NewFile, PartialFile, Target
from coda_twisted.download.transfer import Downloaded, Limits, Progress, Transfer
from coda_twisted.download.validators import Checksum, entity_tag, http_date

__all__ = ["download"]


def download(
    reactor: Any,
    url: str,
    *,
    agent: IAgent | None = None,
    path: str | os.PathLike[str] | None = None,
    method: str = "GET",
    fields: Headers | Mapping[str, str] | None = None,
    body: bytes | IBodyProducer | None = None,
    etag: str | None = None,
    last_modified: str | datetime | None = None,
    resume: bool = False,
    max_size: int | None = None,
    checksum: str | None = None,
    timeout: float | None = None,
    progress: Progress | None = None,
    redirects: int = 10,
    unsized: bool = False,
    **settings: Any,
) -> Deferred[Downloaded]:
    """
    Download a URL into memory or into a file.

    A file is whole or not there: it takes its place when all of the content has come
    and is what it should be.  Cancelling the Deferred drops the download.

    :param agent: Any ``IAgent``; by default an
        :class:`~coda_twisted.client.configure.Agent` that is made of *settings* for
        this download and closed after it.
    :param path: The file; without it the content is kept in memory.
    :param body: Content of the request.
    :param etag: The entity-tag of what the caller has: send the content only if it
        has another one (If-None-Match).
    :param last_modified: When what the caller has was changed, preferably as the
        server put it: send the content only if it was changed since.
    :param resume: Keep what has come of a file when the download fails, and go on
        from there the next time.
    :param max_size: Octets that the whole content may have.
    :param checksum: The hash that it must have: ``sha256:...``.
    :param timeout: Seconds that may pass before the response, and between two pieces
        of its content.
    :param progress: Called with the octets that are there, and those that there will
        be, or ``None``.
    :param redirects: How many redirections to follow.
    :param unsized: Take a content for whole whose end is that of the connection, with
        neither a length nor a checksum to say so.
    :param settings: See :func:`~coda_twisted.client.configure.make_client`: *proxy*,
        *credentials*, *tls* for trust and a client certificate, and so on.
    :returns: Fires with a :class:`~coda_twisted.download.transfer.Downloaded`,
        whatever its status.  Beside what the agent fails with, fails with a
        :class:`~coda_twisted.download.errors.DownloadFailed`,
        :class:`~coda_twisted.errors.PhaseTimeout`, ``OSError``, or ``ValueError``
        where *path* is no file.
    :raises ValueError: A parameter cannot be read.
    :raises TypeError: There is an agent, and settings.
    """
    if agent is not None and settings:
        raise TypeError(f"with an agent: {', '.join(settings)}")
    if resume and (path is None or method != "GET"):
        raise ValueError("what can be resumed is a file, and the method GET")
    wanted = _fields(fields)
    if etag is not None:
        wanted.setRawHeaders(b"If-None-Match", [entity_tag(etag)])
    if last_modified is not None:
        wanted.setRawHeaders(b"If-Modified-Since", [http_date(last_modified)])
    request = Asked(
        method.encode("ascii"),
        ascii_url(url),
        wanted,
        BytesBody(body) if isinstance(body, bytes) else body,
    )
    limits = Limits(
        max_size=max_size,
        timeout=timeout,
        checksum=None if checksum is None else Checksum.parse(checksum),
        redirects=redirects,
        unsized=unsized,
    )
    own = None
    if agent is None:
        agent = own = Agent(reactor, **settings)

    async def run() -> Downloaded:
        target: Target = Memory()
        if path is not None:
            target = PartialFile(path, url) if resume else NewFile(path)
        transfer = Transfer(reactor, agent, request, target, limits, progress)
        try:
            return await transfer.run()
        finally:
            target.close()

    outcome = Deferred.fromCoroutine(run())
    if own is not None:
        closing = own.client.close
        outcome.addBoth(lambda result: closing().addCallback(lambda _: result))
    return outcome


def _fields(fields: Headers | Mapping[str, str] | None) -> Headers:
    """
    Copy the caller's fields, and ask for the content as it is.

    Ranges and hashes are those of the encoded content (RFC 9110 8.4): it is left so.
    """
    if isinstance(fields, Headers):
        wanted = fields.copy()
    else:
        wanted = Headers({name: [value] for name, value in (fields or {}).items()})
    for name in (b"Range", b"If-Range"):
        if wanted.hasHeader(name):
            raise ValueError("a part of a content would look like the whole of it")
    if not wanted.hasHeader(b"Accept-Encoding"):
        wanted.setRawHeaders(b"Accept-Encoding", [b"identity"])
    return wanted
