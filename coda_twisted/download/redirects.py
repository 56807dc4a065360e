"""
Follow redirections (RFC 9110 15.4), for requests whose content can be had elsewhere.

Twisted's RedirectAgent leaves the content of a redirection unread, which holds up
its connection, and resolves the second relative Location against the first URL.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urldefrag, urljoin, urlsplit, urlunsplit

from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse

from coda_twisted.download.content import discard
from coda_twisted.download.errors import DownloadFailed
from coda_twisted.errors import PhaseTimeout

__all__ = ["Asked", "ascii_url", "ask"]

SEE_OTHER = 303

_MOVED = (301, 302, 307, 308)

_SENSITIVE = (b"Authorization", b"Cookie", b"Proxy-Authorization")

_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


def ascii_url(url: str) -> str:
    """
    Write a URL as it is sent: what people type may have umlauts and spaces.

    :raises ValueError: Its host cannot be a name.
    """
    parts = urlsplit(url)
    netloc = parts.netloc
    if not netloc.isascii():
        netloc = netloc.encode("idna").decode("ascii")
    return urlunsplit(
        parts._replace(
            netloc=netloc,
            path=_escaped(parts.path),
            query=_escaped(parts.query),
            fragment="",
        )
    )


def _escaped(text: str, encoding: str = "utf-8") -> str:
    return quote(text, safe=_PRINTABLE, encoding=encoding)


@dataclass(frozen=True)
class Asked:
    """
    One request.

    :ivar url: ASCII.
    """

    method: bytes
    url: str
    fields: Headers
    body: IBodyProducer | None = None


async def ask(
    agent: IAgent,
    request: Asked,
    clock: IReactorTime,
    *,
    redirects: int,
    limit: float | None,
) -> tuple[str, IResponse]:
    """
    Send a request, and whatever it is redirected to.

    Each request is authenticated by itself, as *agent* does it.  Fields by which the
    caller authenticates go to no other origin; nothing goes from https to http.

    :param redirects: How many to follow; with 0 a redirection is the caller's.
    :param limit: Seconds that each may take to be answered.
    :returns: The URL that was answered in the end, and the response.
    :raises DownloadFailed: There are too many, or one that must not be followed.
    :raises PhaseTimeout: The limit has passed.
    """
    for _ in range(redirects + 1):
        answer = agent.request(
            request.method, request.url.encode("ascii"), request.fields, request.body
        )
        if limit is not None:
            answer.addTimeout(limit, clock, _too_long)
        response = await answer
        if redirects == 0 or not _leads_on(response, request.method):
            return request.url, response
        await discard(response, clock)
        request = _redirected(request, response)
    raise DownloadFailed(f"more than {redirects} redirections")


def _too_long(_: object, limit: float) -> None:
    raise PhaseTimeout("head", limit)


def _leads_on(response: IResponse, method: bytes) -> bool:
    """
    Tell whether a response is a redirection that may be followed unasked.

    RFC 9110 15.4: other methods than safe ones are the user's to repeat elsewhere,
    but 303 (See Other) says where to GET the outcome.
    """
    if not response.headers.hasHeader(b"Location"):
        return False
    return response.code == SEE_OTHER or (
        response.code in _MOVED and method in (b"GET", b"HEAD")
    )


def _redirected(request: Asked, response: IResponse) -> Asked:
    """
    Make the request to which a redirection leads.

    :raises DownloadFailed: From https to http.
    """
    [location, *_] = response.headers.getRawHeaders(b"Location", [])
    url = urljoin(request.url, _escaped(location.decode("latin-1"), "latin-1"))
    before, after = urlsplit(request.url), urlsplit(urldefrag(url).url)
    # A name and a password in it are somebody else's idea of who we are.
    after = after._replace(netloc=after.netloc.rpartition("@")[2])
    if before.scheme == "https" and after.scheme != "https":
        raise DownloadFailed("redirected from https to http")
    fields = request.fields
    if (before.scheme, before.netloc) != (after.scheme, after.netloc):
        fields = fields.copy()
        for name in _SENSITIVE:
            fields.removeHeader(name)
    method, body = request.method, request.body
    if response.code == SEE_OTHER and method != b"HEAD":
        method, body = b"GET", None
    return Asked(method, urlunsplit(after), fields, body)
