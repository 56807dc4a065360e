"""
``get URL``: download, through the proxy, as whoever one is.

What is said goes to the standard error, content to a file, or to the standard output
with ``-o -``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.web.client import ResponseFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers

from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.client.agent import ClientAgent
from coda_twisted.client.configure import FROM_ENVIRONMENT, make_client
from coda_twisted.client.tls import TLSPolicy
from coda_twisted.commands.console import Console, UsageMistake
from coda_twisted.commands.parser import field, seconds, size
from coda_twisted.commands.progress import Shows, in_units, progress_for
from coda_twisted.commands.who import at_proxies, at_the_website, exposed_by
from coda_twisted.download import Downloaded, DownloadFailed, download
from coda_twisted.download.targets import NewFile
from coda_twisted.download.validators import Checksum, entity_tag
from coda_twisted.errors import AuthenticationFailed, CodaError, TunnelRefused
from coda_twisted.interfaces import ICredentialSource
from coda_twisted.routing.environment import EnvironmentRouter
from coda_twisted.routing.routes import HTTPProxy

__all__ = ["Order", "add_to", "prepare"]

FAILED = 1
NOT_LET_IN = 3
NO_SUCCESS = 4
NOT_WHAT_WAS_WANTED = 5
NOT_WRITTEN = 6
INTERRUPTED = 130

EXIT_CODES = """\
exit codes:
  0    the content is there, or what is there is still good
  1    the server, or the proxy, cannot be reached, or does not answer
  2    the command line is wrong
  3    the proxy or the website did not accept who we are
  4    the website's answer is no success: 404, for one
  5    the content was cut off, is too long, or has another checksum
  6    the file cannot be written
  130  interrupted
"""

DIRECT = "none"

CHALLENGES = (401, 407)

UNREACHABLE = (
    CodaError,
    ConnectError,
    DNSLookupError,
    ResponseFailed,
    ResponseNeverReceived,
    SSL.Error,
)


def add_to(commands: Any) -> None:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "get",
        help="download a URL",
        description="Download a URL into a file that is whole or not there.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(prepare=prepare)
    add = parser.add_argument
    add("url", metavar="URL", help="http:// or https://")
    add(
        "-o",
        "--output",
        metavar="FILE",
        help="where the content goes; '-' for the standard output (default: what the "
        "URL ends with)",
    )
    add(
        "-H",
        "--header",
        metavar="FIELD",
        action="append",
        default=[],
        type=field,
        help="send this field, 'Name: value'; as often as you like",
    )
    add("-q", "--quiet", action="store_true", help="say nothing but what is wrong")
    content = parser.add_argument_group("content")
    add = content.add_argument
    add("--resume", action="store_true", help="keep what has come, and go on from it")
    add("--etag-file", metavar="FILE", help="download only what has changed since")
    add("--sha256", metavar="HEX", type=_sha256, help="the hash that it must have")
    add("--max-size", metavar="N", type=size, help="octets it may have: 700M")
    add(
        "--timeout",
        metavar="S",
        type=seconds,
        default=120.0,
        help="seconds without progress (default: 120)",
    )
    who = parser.add_argument_group(
        "who we are",
        "Passwords are read from files, from the environment variables CODA_PASSWORD "
        "and CODA_PROXY_PASSWORD, or asked for.",
    )
    add = who.add_argument
    add("--user", metavar="NAME", help="to the website")
    add("--password-file", metavar="FILE", help="its first line is the password")
    add("--netrc", action="store_true", help="to the website, by ~/.netrc")
    add(
        "--cleartext-password",
        action="store_true",
        help="let a website without TLS have the password",
    )
    add("--proxy-user", metavar="NAME", help="to the proxy")
    add("--proxy-password-file", metavar="FILE", help="as --password-file")
    way = parser.add_argument_group("the way")
    add = way.add_argument
    add(
        "--proxy",
        metavar="URL",
        default=FROM_ENVIRONMENT,
        help=f"'{DIRECT}' to go directly (default: http_proxy and its kin)",
    )
    add("--cacert", metavar="FILE", help="trust these authorities, in PEM")
    add("--cert", metavar="FILE", help="our certificate and its key, in PEM")


def _sha256(text: str) -> str:
    try:
        return "sha256:" + Checksum.parse(f"sha256:{text}").value
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def prepare(
    arguments: argparse.Namespace, console: Console, environ: Mapping[str, str]
) -> Order:
    """
    Find out what is meant, who we are included; nothing is sent yet.

    :raises UsageMistake: It cannot be meant.
    """
    try:
        parts = urlsplit(arguments.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError
        if parts.username is not None:
            raise UsageMistake("a URL has no password: use --user")
    except ValueError:
        raise UsageMistake("a URL begins with http:// or https://") from None
    output: str | None = arguments.output or _last_segment(parts.path)
    if output == "-":
        output = None
    if output is None and (arguments.resume or arguments.etag_file):
        raise UsageMistake("--resume and --etag-file need a file")
    try:
        _check_proxy(arguments.proxy, environ)
        return Order(
            arguments=arguments,
            console=console,
            output=output,
            origins=at_the_website(arguments, console, environ),
            credentials=at_proxies(arguments, console, environ),
            tls=TLSPolicy.from_files(arguments.cacert, arguments.cert),
            proxy_tls=TLSPolicy.from_files(arguments.cacert),
            environ=environ,
            exposed=exposed_by(arguments),
        )
    except OSError as error:
        raise UsageMistake(f"{error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise UsageMistake(str(error)) from None


def _check_proxy(proxy: str, environ: Mapping[str, str]) -> None:
    if proxy == FROM_ENVIRONMENT:
        EnvironmentRouter(environ)
    elif proxy != DIRECT:
        HTTPProxy.from_url(proxy)


def _last_segment(path: str) -> str:
    """Name a file as the URL's path ends, which is never another directory's."""
    name = path.rpartition("/")[2]
    return name if name not in ("", ".", "..") else "index.html"


@dataclass(frozen=True)
class Order:
    """
    One download, ready to run.

    :ivar output: The file; ``None`` for the standard output.
    :ivar origins: Who we are to the website.
    :ivar credentials: Who we are to proxies, if not what their URLs say.
    :ivar exposed: The arguments that hold a secret.
    :ivar settings: Further ones of the client's.
    """

    arguments: argparse.Namespace
    console: Console
    output: str | None
    origins: ICredentialSource
    credentials: ICredentialSource | None
    tls: TLSPolicy
    proxy_tls: TLSPolicy
    environ: Mapping[str, str]
    exposed: frozenset[str] = frozenset()

    def run(self, reactor: Any, **settings: Any) -> Deferred[None]:
        """
        Download.

        :param settings: Further ones of the client's.
        :returns: Fails with ``SystemExit``, whose code is the command's.
        """
        running = Deferred.fromCoroutine(self._run(reactor, settings))
        ended: Deferred[None] = Deferred()

        def interrupt() -> Deferred[None]:
            running.cancel()
            return ended  # the reactor waits until what is there is on the disk

        def end(result: Any) -> Any:
            ended.callback(None)
            return result

        reactor.addSystemEventTrigger("before", "shutdown", interrupt)
        return running.addBoth(end)

    async def _run(self, reactor: Any, settings: dict[str, Any]) -> None:
        arguments = self.arguments
        agent = ClientAgent(
            make_client(
                reactor,
                proxy=None if arguments.proxy == DIRECT else arguments.proxy,
                credentials=self.credentials,
                origins=self.origins,
                policy=_policy(cleartext=arguments.cleartext_password),
                tls=self.tls,
                proxy_tls=self.proxy_tls,
                environ=self.environ,
                **settings,
            )
        )
        progress = progress_for(self.console, reactor, quiet=arguments.quiet)
        try:
            code = await self._download(reactor, agent, progress)
        except CancelledError:
            code = self._objection("interrupted", INTERRUPTED)
        except AuthenticationFailed as error:
            code = self._objection(str(error), NOT_LET_IN)
        except DownloadFailed as error:
            code = self._objection(str(error), NOT_WHAT_WAS_WANTED)
        except UNREACHABLE as error:
            asked = isinstance(error, TunnelRefused) and error.status in CHALLENGES
            code = self._objection(in_words(error), NOT_LET_IN if asked else FAILED)
        except (OSError, ValueError) as error:
            code = self._objection(str(error), NOT_WRITTEN)
        finally:
            progress.close()
        await agent.client.close()
        raise SystemExit(code)

    async def _download(self, reactor: Any, agent: ClientAgent, bar: Shows) -> int:
        arguments = self.arguments
        fields = Headers()
        for each in arguments.header:
            fields.addRawHeader(each.name, each.value)
        result = await download(
            reactor,
            arguments.url,
            agent=agent,
            path=self.output,
            fields=fields,
            etag=self._known_tag(),
            resume=arguments.resume,
            max_size=arguments.max_size,
            checksum=arguments.sha256,
            timeout=arguments.timeout,
            progress=bar.show,
        )
        bar.close()
        return self._tell(result)

    def _tell(self, result: Downloaded) -> int:
        if result.not_modified:
            self._say(f"{self.output}: not modified")
            return 0
        if not result.ok:
            code = NOT_LET_IN if result.status in CHALLENGES else NO_SUCCESS
            return self._objection(f"{result.status} {result.reason}", code)
        if self.output is None:
            self.console.out.write(result.body)
            self.console.out.flush()
        elif result.path is None:
            self._say(f"{result.status} {result.reason}: no content")
        else:
            self._keep_tag(result.etag)
            resumed = result.resumed_at
            before = f", {in_units(resumed)} of them before" if resumed else ""
            self._say(f"{result.path.name}: {in_units(result.size)}{before}")
        return 0

    def _say(self, text: str) -> None:
        if not self.arguments.quiet:
            self.console.say(text)

    def _objection(self, text: str, code: int) -> int:
        self.console.say(f"coda_twisted: {text}")
        return code

    # The entity-tag of what is there

    def _known_tag(self) -> str | None:
        """Read the tag, if what it belongs to is there."""
        file, output = self.arguments.etag_file, self.output
        if file is None or output is None or not os.path.exists(output):
            return None
        try:
            tag = Path(file).read_text("latin-1").strip()
            entity_tag(tag)
        except (OSError, ValueError):
            return None
        return tag

    def _keep_tag(self, tag: str | None) -> None:
        file = self.arguments.etag_file
        if file is None:
            return
        if tag is None:
            Path(file).unlink(missing_ok=True)
            return
        kept = NewFile(file)
        kept.begin(None, None)
        try:
            kept.write(f"{tag}\n".encode("latin-1"))
            kept.finish()
        finally:
            kept.close()


def _policy(*, cleartext: bool) -> AuthPolicy:
    return AuthPolicy(allow_basic_over_cleartext=True if cleartext else None)


def in_words(error: Any) -> str:
    """Say what went wrong, without the wrappers of Twisted's agents."""
    if isinstance(error, (ResponseFailed, ResponseNeverReceived)):
        return "; ".join(in_words(each.value) for each in error.reasons)
    if isinstance(error, SSL.Error):
        details = [each[-1] for each in (error.args or [[]])[0]]
        return "TLS failed: " + (", ".join(details) or "no reason given")
    return str(error) or type(error).__name__
