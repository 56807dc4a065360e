"""Whether a connection can be used for another message (RFC 9112 9.3)."""

from __future__ import annotations

from coda_twisted.http1.bodies import Framing
from coda_twisted.http1.fields import Fields
from coda_twisted.http1.heads import RequestHead, ResponseHead

__all__ = ["request_persists", "response_persists"]


_OPTIONS = frozenset((b"connection", b"proxy-connection"))
_UNCERTAIN = _OPTIONS | {b"transfer-encoding"}


def request_persists(head: RequestHead, *, proxy: bool = True) -> bool:
    """
    Tell whether the client may send another request on the connection.

    :param proxy: Whether we are a proxy to it.  "A proxy server MUST NOT maintain a
        persistent connection with an HTTP/1.0 client", whose keep-alive may have
        been passed on by a proxy that did not understand it.
    """
    if head.fields.lack(_OPTIONS):
        return head.version >= (1, 1)
    options = _options(head.fields)
    if b"close" in options:
        return False
    return head.version >= (1, 1) or (not proxy and b"keep-alive" in options)


def response_persists(head: ResponseHead, framing: Framing) -> bool:
    """
    Tell whether the server will take another request on the connection.

    :param framing: As :func:`~coda_twisted.http1.bodies.response_framing` says.
    """
    fields = head.fields
    if framing is Framing.UNTIL_CLOSE:
        return False
    if head.version >= (1, 1) and fields.lack(_UNCERTAIN):
        return True  # as most are
    options = _options(fields)
    if b"close" in options:
        return False
    if head.version >= (1, 1):
        # RFC 9112 6.3: with both, a message "ought to be handled as an error".  Old
        # servers do it in good faith; it is read, and is the connection's last.
        return b"Transfer-Encoding" not in fields or b"Content-Length" not in fields
    return b"keep-alive" in options and b"Transfer-Encoding" not in fields


def _options(fields: Fields) -> list[bytes]:
    """Gather the connection options; old proxies and clients have them elsewhere."""
    return fields.tokens(b"Connection") + fields.tokens(b"Proxy-Connection")
