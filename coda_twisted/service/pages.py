"""
What we tell a client when we cannot do as it asked.

Each answer says what failed, whose fault it is and what to do: in a short page for
people, and in a ``Proxy-Status`` field for programs (RFC 9209).
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.error import (
    ConnectError,
    ConnectionClosed,
    DNSLookupError,
    TCPTimedOutError,
)
from twisted.internet.error import ConnectionRefusedError as TwistedRefused
from twisted.internet.error import TimeoutError as TwistedTimeoutError

from coda_twisted.auth.challenge import parse_challenges
from coda_twisted.errors import (
    AuthenticationFailed,
    BodyNotReplayable,
    ConnectionEnded,
    CredentialsRejected,
    LocalProtocolError,
    PhaseTimeout,
    ProxyUnreachable,
    RemoteProtocolError,
    TunnelRefused,
)
from coda_twisted.http1.fields import Fields
from coda_twisted.http1.heads import RequestHead, ResponseHead
from coda_twisted.service.access import DestinationProhibited, LoopDetected, Prohibited
from coda_twisted.service.descriptors import SHORTAGES, short_now

__all__ = ["REASONS", "Problem", "page", "problem_of", "unanswered_407"]

REASONS = {
    400: b"Bad Request",
    403: b"Forbidden",
    408: b"Request Timeout",
    414: b"URI Too Long",
    417: b"Expectation Failed",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
    508: b"Loop Detected",
}

_UNREACHABLE_ADVICE = "Check the address, and whether this machine is on the network."


@dataclass(frozen=True, slots=True)
class Problem:
    """
    Why a request is answered by us.

    :ivar status: The status code.
    :ivar error: The type of error (RFC 9209 2.3).
    :ivar what: What failed, and whose fault it is; without a full stop.
    :ivar advice: What to do, in sentences.
    :ivar received: The status that the next server answered with, if it did.
    """

    status: int
    error: str
    what: str
    advice: str = ""
    received: int | None = None


def malformed(error: RemoteProtocolError) -> Problem:
    """Say that a request breaks the rules, and how."""
    return Problem(
        error.status_hint,
        "http_request_error",
        f"the request cannot be understood: {error}",
    )


def problem_of(error: BaseException | None) -> Problem | None:
    """
    Say what an exception of the engine means to a client.

    :returns: ``None`` for one that nobody has foreseen: it is ours.
    """
    if isinstance(error, ProxyUnreachable):
        return _unreachable(error.__cause__ or error, str(error))
    if isinstance(error, TunnelRefused):
        return _refused_tunnel(error)
    if isinstance(error, CredentialsRejected):
        return Problem(
            502,
            "proxy_configuration_error",
            str(error),
            "Give coda-proxy the right user name and password. A password that was "
            "refused is not sent again, so that the account is not locked.",
            received=407,
        )
    if isinstance(error, AuthenticationFailed):
        return Problem(
            502,
            "proxy_configuration_error",
            str(error),
            "See --proxy-type, --user and --password-file of coda-proxy.",
            received=407,
        )
    if isinstance(error, LoopDetected):
        return Problem(
            508,
            "proxy_loop_detected",
            str(error),
            "Do not name coda-proxy as its own upstream proxy.",
        )
    if isinstance(error, DestinationProhibited):
        return Problem(403, "destination_ip_prohibited", str(error))
    if isinstance(error, Prohibited):
        return Problem(403, "http_request_denied", str(error))
    if isinstance(error, BodyNotReplayable):
        return Problem(
            503,
            "proxy_internal_error",
            str(error),
            "Send the request again: the way is known by now.",
        )
    return _connection_problem(error)


def _connection_problem(error: BaseException | None) -> Problem | None:
    if isinstance(error, PhaseTimeout):
        kind = {"connect": "connection_timeout", "tls": "connection_timeout"}
        return Problem(
            504,
            kind.get(error.phase, "http_response_timeout"),
            f"the next server took too long: {error}",
            "Try again later.",
        )
    if isinstance(error, (ConnectionEnded, ConnectionClosed)):
        return Problem(
            502,
            "connection_terminated",
            f"the next server is to blame: {error}",
            "Try again.",
        )
    if isinstance(error, RemoteProtocolError):
        return Problem(
            502,
            "http_protocol_error",
            f"the answer of the next server is not proper HTTP: {error}",
        )
    if isinstance(error, LocalProtocolError):
        return Problem(400, "http_request_error", str(error))
    if isinstance(error, (ConnectError, DNSLookupError, SSL.Error, VerificationError)):
        return _unreachable(error, "")
    if isinstance(error, ValueError) and "invalid hostname" in str(error):
        # HostnameEndpoint says so of what IDNA does not allow.
        return _unreachable(DNSLookupError(), "no host can have that name")
    return None


_NO_DESCRIPTORS = Problem(
    503,
    "connection_limit_reached",
    "coda-proxy has no file descriptors left to connect with",
    "Try again when other connections have ended. Whoever runs it can raise the "
    "limit: LimitNOFILE= of systemd, or ulimit -n.",
)


def _unreachable(cause: BaseException, said: str) -> Problem:
    """Tell the ways apart in which a server cannot be reached."""
    if getattr(cause, "osError", None) in SHORTAGES or (
        # The resolver needs descriptors too, and does not say what it lacked.
        isinstance(cause, DNSLookupError) and short_now()
    ):
        return _NO_DESCRIPTORS
    if isinstance(cause, DNSLookupError):
        return Problem(
            502,
            "dns_error",
            said or "the name of the host is not known",
            "Check how it is spelled, and this machine's name servers.",
        )
    if isinstance(cause, (PhaseTimeout, TwistedTimeoutError, TCPTimedOutError)):
        return Problem(
            504,
            "connection_timeout",
            said or "the connection was not answered in time",
            _UNREACHABLE_ADVICE,
        )
    if isinstance(cause, (SSL.Error, VerificationError)):
        return Problem(
            502,
            "tls_certificate_error",
            said or f"TLS failed: {_tls_words(cause)}",
            "Is the name right, and the certificate's authority trusted here?",
        )
    if isinstance(cause, TwistedRefused):
        return Problem(
            502,
            "connection_refused",
            said or "the connection was refused",
            "Nothing listens at that address and port.",
        )
    return Problem(
        502,
        "destination_unavailable",
        said or f"the connection failed: {cause or type(cause).__name__}",
        _UNREACHABLE_ADVICE,
    )


def _tls_words(cause: BaseException) -> str:
    if isinstance(cause, VerificationError):
        return "the certificate is for another name"
    errors = cause.args[0] if cause.args else None
    details = [entry[-1] for entry in errors] if isinstance(errors, list) else []
    return ", ".join(map(str, details)) or "no reason was given"


def _refused_tunnel(error: TunnelRefused) -> Problem:
    if error.status == 407:
        return unanswered_407(Fields(error.fields))
    return Problem(
        error.status if 400 <= error.status < 600 else 502,
        "http_request_denied" if error.status == 403 else "proxy_internal_response",
        str(error),
        "The proxy above decided so.",
        received=error.status,
    )


def unanswered_407(fields: Fields) -> Problem:
    """
    Say why a 407 of the proxy above stays with us.

    A client that got it would ask its user for a password that is none of its
    business.
    """
    schemes = ", ".join(
        dict.fromkeys(
            challenge.scheme
            for challenge in parse_challenges(fields.get_all(b"Proxy-Authenticate"))
        )
    )
    if not schemes:
        return Problem(
            502,
            "http_request_denied",
            "the proxy above refused the request (407 without a challenge)",
            "It may be blocked by policy.",
            received=407,
        )
    return Problem(
        502,
        "proxy_configuration_error",
        f"the proxy above demands authentication ({schemes})",
        "Start coda-proxy with --user and --password-file, or with "
        "--proxy-type=negotiate and a Kerberos ticket.",
        received=407,
    )


def page(
    problem: Problem, request: RequestHead | None, name: str, request_id: str
) -> tuple[ResponseHead, bytes]:
    """
    Write an answer of ours.

    :param request: What is answered; ``None`` when it could not be read.
    :param name: Who we are, as in ``Via``.
    :param request_id: As in the access log.
    :returns: The head, with the length of the content, and the content; the
        connection's fields are not in it.
    """
    reason = REASONS.get(problem.status, b"Error")
    what = problem.what[:1].upper() + problem.what[1:]
    accept = b"" if request is None else request.fields.get(b"Accept") or b""
    title = f"{problem.status} {reason.decode('ascii')}"
    if b"text/html" in accept:
        kind = b"text/html; charset=utf-8"
        content = _HTML.format(
            title=escape(title),
            what=escape(what),
            advice=escape(problem.advice),
            request_id=escape(request_id),
        )
    else:
        kind = b"text/plain; charset=utf-8"
        lines = [f"{title}: {what}.", problem.advice, f"(coda-proxy, {request_id})"]
        content = "\n".join(filter(None, lines)) + "\n"
    body = content.encode("utf-8", "replace")
    fields = Fields(
        [
            (b"Proxy-Status", _proxy_status(problem, name)),
            (b"Content-Type", kind),
            (b"Cache-Control", b"no-store"),
            (b"Content-Length", b"%d" % len(body)),
        ]
    )
    if problem.status == 503:
        fields.add(b"Retry-After", b"1")
    return ResponseHead(problem.status, reason, (1, 1), fields), body


_HTML = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body style="font-family: sans-serif; max-width: 40em; margin: 3em auto">
<h1>{title}</h1>
<p>{what}.</p>
<p>{advice}</p>
<p><small>coda-proxy, {request_id}</small></p>
</body></html>
"""


def _proxy_status(problem: Problem, name: str) -> bytes:
    """Write the field: a Structured Field's list of one item (RFC 8941, RFC 9209)."""
    details = "".join(
        char if " " <= char <= "~" else "?" for char in problem.what[:200]
    )
    details = details.replace("\\", "\\\\").replace('"', '\\"')
    received = (
        "" if problem.received is None else f"; received-status={problem.received}"
    )
    status = f'{name}; error={problem.error}{received}; details="{details}"'
    return status.encode("ascii")
