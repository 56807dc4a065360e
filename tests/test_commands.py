"""Tests for :mod:`coda_twisted.commands`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from argparse import ArgumentTypeError
from base64 import b64encode
from collections.abc import Mapping
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed, ResponseNeverReceived

from coda_twisted.commands.console import Console
from coda_twisted.commands.get import in_words
from coda_twisted.commands.main import make_parser
from coda_twisted.commands.parser import field, seconds, size
from coda_twisted.commands.progress import (
    Bar,
    Lines,
    Nothing,
    in_units,
    progress_for,
)
from tests.wire import Peer, Wire

SECRET = "correct-horse"
BASIC = b'Basic realm="r"'
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def basic(name: str, password: str = SECRET) -> bytes:
    return b"Basic " + b64encode(f"{name}:{password}".encode())


class Reactor(Clock):
    """A clock that can be told to shut down."""

    def __init__(self) -> None:
        super().__init__()
        self.triggers: list[Any] = []

    def addSystemEventTrigger(self, phase: str, event: str, call: Any) -> Any:
        assert (phase, event) == ("before", "shutdown")
        self.triggers.append(call)
        return call


class CommandCase(SynchronousTestCase):
    """A command, its terminal, and the test in place of the servers."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.wire = Wire()
        self.out = BytesIO()
        self.err = StringIO()
        self.environ: dict[str, str] = {}
        self.answers: list[str] = []
        self.asked: list[str] = []
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(directory.name)
        self.directory = Path(directory.name)

    def ask(self, prompt: str) -> str:
        self.asked.append(prompt)
        return self.answers.pop(0)

    def order(self, *argv: str, live: bool = False) -> Any:
        """What the command line means."""
        console = Console(self.out, self.err, self.ask if self.answers else None, live)
        arguments = make_parser().parse_strictly(["get", *argv])
        return arguments.prepare(arguments, console, self.environ)

    def get(self, *argv: str, live: bool = False) -> Deferred[None]:
        order = self.order(*argv, live=live)
        running: Deferred[None] = order.run(
            self.reactor, endpoint_for=self.wire.endpoint_for
        )
        return running

    def ends(self, running: Deferred[None], code: int) -> str:
        """Check the exit code; what was said."""
        for peer in self.wire.peers:
            if peer.dropped:
                peer.close()
        error = self.failureResultOf(running, SystemExit).value
        said = self.err.getvalue()
        self.assertEqual(getattr(error, "code", None), code, said)
        self.assertNotIn(SECRET, said)
        return said

    @property
    def peer(self) -> Peer:
        return self.wire.peers[-1]

    def wrong(self, *argv: str) -> str:
        """What is said of a command line that cannot be meant."""
        err = StringIO()
        self.patch(sys, "stderr", err)
        error = self.assertRaises(SystemExit, self.parse_all, *argv)
        self.assertEqual(error.code, 2)
        said = err.getvalue()
        self.assertNotIn(SECRET, said)
        return said

    def parse_all(self, *argv: str) -> None:
        from coda_twisted.commands import main

        def prepared(*_: Any) -> None:
            self.fail(f"was accepted: {argv}")

        self.patch(main, "react", prepared)
        self.patch(os, "environ", self.environ)
        main.main(argv)


class GetTests(CommandCase):
    """``get``."""

    def test_file(self) -> None:
        """The content goes to the file that is named, or as the URL ends."""
        for argv, name in (
            (("http://site/a/b.bin?x=1",), "b.bin"),
            (("http://site/a/",), "index.html"),
            (("http://site",), "index.html"),
            (("http://site/..",), "index.html"),
            (("http://site/b", "-o", "c"), "c"),
            (("-o", "c", "http://site/b"), "c"),
        ):
            running = self.get(*argv)
            self.peer.answer(200, body=b"abc")
            self.assertIn(f"{name}: 3 B\n", self.ends(running, 0))
            self.assertEqual(Path(name).read_bytes(), b"abc")
            self.assertEqual(os.listdir("."), [name])
            Path(name).unlink()
        self.assertEqual(self.out.getvalue(), b"")

    def test_standard_output(self) -> None:
        """With ``-o -`` nothing but content is written there."""
        running = self.get("http://site/b", "-o", "-")
        self.peer.answer(200, body=b"abc")
        self.assertEqual(self.ends(running, 0), "")
        self.assertEqual(self.out.getvalue(), b"abc")

    def test_quiet(self) -> None:
        """A quiet success says nothing; a failure does."""
        running = self.get("-q", "http://site/b")
        self.peer.answer(200, body=b"abc")
        self.assertEqual(self.ends(running, 0), "")
        running = self.get("-q", "http://site/b")
        self.peer.answer(404)
        self.assertIn("404", self.ends(running, 4))

    def test_fields(self) -> None:
        """Fields are sent as often as they are given."""
        self.get("-H", "X-A: 1", "--header", "X-A:2", "http://site/b")
        self.assertEqual(self.peer.request.fields.get_all(b"X-A"), [b"1", b"2"])

    def test_no_success(self) -> None:
        """Each kind of failure has its exit code, and leaves no file."""
        for status, code in ((404, 4), (500, 4), (301, 4), (401, 3), (204, 0)):
            running = self.get("http://site/b")
            self.peer.answer(status, body=b"page" if status > 204 else b"")
            self.assertIn(str(status), self.ends(running, code))
            self.assertEqual(os.listdir("."), [])

    def test_not_what_was_wanted(self) -> None:
        """A content that is cut off, too long or another one is told apart."""
        for argv, expected in (
            (("--sha256", "0" * 64), "sha256 is"),
            (("--max-size", "2"), "2 octets"),
        ):
            running = self.get("http://site/b", *argv)
            self.peer.answer(200, body=b"abc")
            self.assertIn(expected, self.ends(running, 5))
        running = self.get("http://site/b")
        self.peer.read()
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        self.peer.close()
        self.assertIn("3 of 9", self.ends(running, 5))
        running = self.get("http://site/b", "--sha256", ABC.upper())
        self.peer.answer(200, body=b"abc")
        self.ends(running, 0)

    def test_unreachable(self) -> None:
        """Servers that are not there, or do not answer."""
        self.wire.refusals["down"] = ConnectionRefusedError()
        self.assertIn("refused", self.ends(self.get("http://down/b"), 1))
        running = self.get("http://site/b")
        self.peer.close()
        self.ends(running, 1)
        running = self.get("http://site/b", "--timeout", "5")
        self.reactor.advance(5)
        self.assertIn("5 s", self.ends(running, 1))

    def test_in_words(self) -> None:
        """What libraries raise is told without its wrapping."""
        for error, expected in (
            (SSL.Error([("", "", "certificate verify failed")]), "TLS failed: cert"),
            (SSL.Error(), "TLS failed: no reason"),
            (ResponseNeverReceived([Failure(SSL.Error([]))]), "TLS failed: no reason"),
            (ResponseFailed([Failure(ValueError())]), "ValueError"),
        ):
            self.assertIn(expected, in_words(error))

    def test_not_written(self) -> None:
        """A file that cannot be written."""
        for path in ("no/such", "/dev/null"):
            self.assertIn(
                path.split("/")[0], self.ends(self.get("http://site/b", "-o", path), 6)
            )
        self.assertEqual(self.wire.peers, [])

    def test_interrupted(self) -> None:
        """Who interrupts it finds no half file, and the reactor waits for that."""
        running = self.get("http://site/b")
        self.peer.read()
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        [trigger] = self.reactor.triggers
        waiting = trigger()
        self.assertIn("interrupted", self.ends(running, 130))
        self.successResultOf(waiting)
        self.assertEqual(os.listdir("."), [])

    def test_resume(self) -> None:
        """What has come is gone on with."""
        tag = b'ETag: "a"\r\n'
        running = self.get("http://site/b", "--resume")
        self.peer.read()
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n%s\r\nabc" % tag)
        self.peer.close()
        self.ends(running, 5)
        running = self.get("http://site/b", "--resume")
        self.assertEqual(self.peer.request.fields.get(b"Range"), b"bytes=2-")
        self.peer.answer(
            206, (b"ETag", b'"a"'), (b"Content-Range", b"bytes 2-4/5"), body=b"cde"
        )
        self.assertIn("b: 5 B, 3 B of them before", self.ends(running, 0))
        self.assertEqual(Path("b").read_bytes(), b"abcde")

    def test_etag_file(self) -> None:
        """Only what has changed is downloaded again."""
        argv = ("http://site/b", "--etag-file", "b.etag")
        running = self.get(*argv)
        self.assertNotIn(b"If-None-Match", self.peer.request.fields)
        self.peer.answer(200, (b"ETag", b'W/"a"'), body=b"abc")
        self.ends(running, 0)
        running = self.get(*argv)
        self.assertEqual(self.peer.request.fields.get(b"If-None-Match"), b'W/"a"')
        self.peer.answer(304)
        self.assertIn("b: not modified", self.ends(running, 0))
        Path("b").unlink()
        running = self.get(*argv)
        self.assertNotIn(b"If-None-Match", self.peer.request.fields)
        self.peer.answer(200, body=b"abc")
        self.ends(running, 0)
        self.assertEqual(os.listdir("."), ["b"])
        Path("b.etag").write_text("nonsense")
        self.get(*argv)
        self.assertNotIn(b"If-None-Match", self.peer.request.fields)


class WhoTests(CommandCase):
    """Who we are to whom."""

    def judge(self, running: Deferred[None], role: str, right: bytes) -> str:
        """Be a proxy, or a website, that knows one password."""
        status, asks, answers = {
            "proxy": (407, b"Proxy-Authenticate", b"Proxy-Authorization"),
            "website": (401, b"WWW-Authenticate", b"Authorization"),
        }[role]
        for _ in range(3):
            if running.called or self.peer.dropped:
                break
            if self.peer.request.fields.get(answers) == right:
                self.peer.answer(200, body=b"abc")
                return self.ends(running, 0)
            self.peer.answer(status, (asks, BASIC))
        return self.ends(running, 3)

    def file(self, text: str) -> str:
        path = self.directory / "password"
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    def test_proxy(self) -> None:
        """A proxy's user is named by options, the environment, or the URL."""
        by_url = f"http://alice:{SECRET}@proxy"
        for argv, environ in (
            (("--proxy-user", "alice", "--proxy-password-file", self.file(SECRET)), {}),
            (("--proxy-password-file", self.file(f"alice:{SECRET}")), {}),
            (("--proxy-user", "alice"), {"CODA_PROXY_PASSWORD": SECRET}),
            ((), {"CODA_PROXY_USER": "alice", "CODA_PROXY_PASSWORD": SECRET}),
            (("--proxy", by_url), {}),
            ((), {"http_proxy": by_url}),
        ):
            self.environ = dict(environ)
            if by_url not in (*argv, *environ.values()):
                argv = (*argv, "--proxy", "http://proxy")
            if argv[:1] == ("--proxy-password-file",):
                self.file(f"alice:{SECRET}")
            elif "--proxy-password-file" in argv:
                self.file(SECRET)
            running = self.get("http://site/b", *argv)
            self.assertEqual(self.peer.host, "proxy")
            self.judge(running, "proxy", basic("alice"))

    def test_proxy_does_not_know_us(self) -> None:
        """A proxy that refuses us, or is not told who we are."""
        by_url = f"http://alice:{SECRET}@proxy"
        running = self.get("http://site/b", "--proxy", by_url)
        self.assertIn("not accepted", self.judge(running, "proxy", b"another"))
        running = self.get("https://site/b", "--proxy", "http://proxy")
        self.peer.answer(407, (b"Proxy-Authenticate", BASIC))
        self.assertIn("407", self.ends(running, 3))
        running = self.get("https://site/b", "--proxy", "http://proxy")
        self.peer.answer(403)
        self.assertIn("403", self.ends(running, 1))

    def test_website(self) -> None:
        """A website's user is for its URL, and another website is not told."""
        argv = ("http://site/b", "--user", "alice", "--cleartext-password")
        self.environ = {"CODA_PASSWORD": SECRET}
        self.judge(self.get(*argv), "website", basic("alice"))
        running = self.get(*argv)
        self.peer.answer(302, (b"Location", b"http://site:81/"))
        self.assertIn("401", self.judge(running, "website", basic("alice")))

    def test_cleartext(self) -> None:
        """Without TLS a website does not get the password unless that is wanted."""
        self.environ = {"CODA_PASSWORD": SECRET}
        running = self.get("http://site/b", "--user", "alice")
        self.assertIn("clear", self.judge(running, "website", basic("alice")))

    def test_netrc(self) -> None:
        """The netrc file knows websites."""
        path = self.file(f"machine site login alice password {SECRET}")
        self.patch(os, "environ", {"NETRC": path})
        running = self.get("http://site/b", "--netrc", "--cleartext-password")
        self.judge(running, "website", basic("alice"))

    def test_prompt(self) -> None:
        """People are asked for passwords that nothing tells, and at once."""
        self.answers = [SECRET, SECRET]
        running = self.get(
            *("http://site/b", "--cleartext-password"),
            *("--user", "alice", "--proxy-user", "bob", "--proxy", "http://proxy"),
        )
        self.assertEqual(
            self.asked,
            ["Password of alice (http://site): ", "Password of bob (proxy *): "],
        )
        self.judge(running, "proxy", basic("bob"))

    def test_exposed(self) -> None:
        """What would show a secret in the list of processes is known."""
        proxy = f"http://alice:{SECRET}@proxy"
        order = self.order(
            *("http://site/b", "--proxy", proxy, "-H", "X-A: b"),
            *("-H", f"authorization:Bearer {SECRET}", "-H", "Cookie:"),
        )
        self.assertEqual(order.exposed, {proxy, f"authorization:Bearer {SECRET}"})
        self.assertEqual(self.order("http://site/b").exposed, frozenset())


class MistakeTests(CommandCase):
    """Command lines that cannot be meant."""

    def test_told(self) -> None:
        """They are told apart, without any value of theirs."""
        for argv, expected in (
            ((), "COMMAND"),
            (("get",), "URL"),
            (("get", "ftp://site"), "http:// or https://"),
            (("get", "site"), "http:// or https://"),
            (("get", "http://[::"), "http:// or https://"),
            (("get", f"http://me:{SECRET}@site"), "--user"),
            (("get", "http://a", f"http://b/{SECRET}"), "too many"),
            (("get", "http://a", f"--password={SECRET}"), "unknown: --password"),
            (("get", "http://a", "--pass", SECRET), "unknown: --pass"),
            (("get", "http://a", f"-q={SECRET}"), "-q"),
            (("get", "http://a", "--max-size", SECRET), "700M"),
            (("get", "http://a", "--timeout", "-1"), "seconds"),
            (("get", "http://a", "--sha256", SECRET), "hexadecimal"),
            (("get", "http://a", "-H", SECRET), "'Name: value'"),
            (("get", "http://a", "--proxy", f"ftp://me:{SECRET}@b"), "http or https"),
            (("get", "http://a", "--cacert", "/nonexistent"), "/nonexistent"),
            (("get", "http://a", "--cacert", "/dev/null"), "no certificate"),
            (("get", "http://a", "-o", "-", "--resume"), "need a file"),
            (("get", "http://a", "--user", "alice"), "CODA_PASSWORD"),
            (("get", "http://a", "--proxy-user", "alice"), "CODA_PROXY_PASSWORD"),
            (("get", "http://a", "--password-file", "/nonexistent"), "No such file"),
        ):
            self.assertIn(expected, self.wrong(*argv))

    def test_environment(self) -> None:
        """A proxy in the environment that cannot be read is told by its variable."""
        self.environ = {"http_proxy": f"socks5://me:{SECRET}@proxy"}
        self.assertIn("http_proxy", self.wrong("get", "http://a"))

    def test_values(self) -> None:
        """Sizes, times and fields as people write them."""
        for text, expected in (
            ("0", 0),
            ("1k", 1024),
            ("700M", 700 << 20),
            ("2GiB", 2 << 30),
        ):
            self.assertEqual(size(text), expected)
        self.assertEqual(seconds("1.5"), 1.5)
        for text in ("nan", "inf", "0", "x"):
            with self.assertRaises(ArgumentTypeError):
                seconds(text)
        self.assertEqual(field("X-A:  b c  ")[:2], ("X-A", "b c"))
        for text in ("X-A", "X A: b", "X-A: b\r\nX-B: c", ": b"):
            with self.assertRaises(ArgumentTypeError):
                field(text)


class ProgressTests(CommandCase):
    """How far it is."""

    def console(self, live: bool = True) -> Console:
        return Console(self.out, self.err, None, live)

    def test_choice(self) -> None:
        """A bar on a terminal, lines there without tqdm, nothing elsewhere."""
        for live, quiet, tqdm, kind in (
            (True, False, True, Bar),
            (True, False, False, Lines),
            (True, True, True, Nothing),
            (False, False, True, Nothing),
        ):
            if not tqdm:
                patch = self.patch(sys, "modules", {**sys.modules, "tqdm": None})
            shows = progress_for(self.console(live), self.reactor, quiet=quiet)
            if not tqdm:
                patch.restore()
            self.assertIs(type(shows), kind)

    def test_bar(self) -> None:
        """The bar begins where the download does, and goes away."""
        running = self.get("http://site/b", live=True)
        self.peer.read()
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2048\r\n\r\n" + b"a" * 1024)
        self.assertIn("2.00k", self.err.getvalue())
        self.peer.send(b"a" * 1024)
        said = self.ends(running, 0)
        self.assertTrue(re.search(r"\r *\rb: 2\.0 KiB\n\Z", said), repr(said))

    def test_lines(self) -> None:
        """Without a bar there is a line every second."""
        lines = Lines(self.console(), self.reactor)
        lines.show(1, None)
        for total in (None, 4096):
            self.reactor.advance(1)
            lines.show(1024, total)
            lines.show(1025, total)
        lines.close()
        self.assertEqual(self.err.getvalue(), "1.0 KiB\n1.0 KiB of 4.0 KiB\n")

    def test_nothing(self) -> None:
        """Nothing is nothing; a bar that never began is none."""
        for shows in (Nothing(), Bar(self.console(), None)):
            if isinstance(shows, Nothing):
                shows.show(1, 2)
            shows.close()
        self.assertEqual(self.err.getvalue(), "")

    def test_units(self) -> None:
        """Octets for people."""
        for octets, written in (
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (3 << 20, "3.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (7 << 40, "7.0 TiB"),
        ):
            self.assertEqual(in_units(octets), written)


class ProcessTests(CommandCase):
    """``python -m coda_twisted``, as a process."""

    def python(self, *argv: str, environ: Mapping[str, str] | None = None) -> Any:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "coda_twisted", *argv],
            capture_output=True,
            text=True,
            timeout=60,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                **(environ or {}),
            },
        )

    def test_help(self) -> None:
        """Help and version are there."""
        self.assertIn("get", self.python("--help").stdout)
        self.assertIn("exit codes", self.python("get", "--help").stdout)
        self.assertIn("coda_twisted", self.python("--version").stdout)

    def test_fails(self) -> None:
        """A failure is one line and an exit code, not a traceback."""
        done = self.python("get", "http://localhost:1/b")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_warns(self) -> None:
        """What the library warns of is shown."""
        path = self.directory / "password"
        path.write_text(SECRET)
        path.chmod(0o644)
        done = self.python(
            *("get", "http://localhost:1/b", "--proxy-user", "alice"),
            *("--proxy", "http://localhost:1", "--proxy-password-file", str(path)),
        )
        self.assertIn("chmod 600", done.stderr)
        self.assertNotIn(SECRET, done.stderr)
