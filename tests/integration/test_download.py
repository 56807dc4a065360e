"""Downloads through real proxies, from real websites, by program and by command."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pty
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent as TwistedAgent

from coda_twisted import Agent, AuthPolicy, CredentialsRejected, TLSPolicy
from coda_twisted.client.guard import LogonGuard
from coda_twisted.download import (
    ChecksumMismatch,
    ContentCut,
    Downloaded,
    download,
)
from coda_twisted.sources import (
    AskedCredentials,
    CommandCredentials,
    KeyringCredentials,
)
from tests.integration import apache, origin, squid
from tests.integration.certificates import authority
from tests.integration.coda import login
from tests.integration.people import ALICE, BOB, WRONG_PASSWORD
from tests.integration.servers import CHECKOUT, python_environment

MIB = 1024 * 1024


class Case(TestCase):
    """A proxy, two servers, and a directory."""

    timeout = 90
    scheme: ClassVar[str] = "basic"

    def setUp(self) -> None:
        self.proxy = squid.proxy(self.scheme)
        self.proxy.reset()
        self.website = apache.website()
        self.website.reset()
        self.origin = origin.origin()
        self.origin.reset()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.path = self.directory / "file"

    def files(self) -> list[str]:
        return sorted(os.listdir(self.directory))

    def statuses(self) -> list[int]:
        """What the website has answered."""
        return [visit.status for visit in self.website.visits()]

    def saved(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


class ProgramCase(Case):
    """Downloads by a program."""

    def setUp(self) -> None:
        super().setUp()
        self.agent = Agent(
            reactor,
            proxy=self.proxy.url,
            credentials=(login(self.scheme), ALICE.password),
            origins={self.website.url(""): (BOB.name, BOB.password)},
            policy=AuthPolicy(allow_basic_over_cleartext=True),
            tls=TLSPolicy.from_files(str(authority().ca)),
            guard=LogonGuard(reactor),
        )
        self.addCleanup(self.agent.client.close)

    def get(self, url: str, **more: Any) -> Deferred[Downloaded]:
        more.setdefault("path", self.path)
        return download(reactor, url, agent=self.agent, timeout=30, **more)

    async def interrupted(self, url: str, octets: int = MIB) -> None:
        """Let a download go when so much has come."""

        def show(size: int, total: int | None) -> None:
            if size >= octets and not running.called:
                # Not within the callback: it is called by what is to be cancelled.
                reactor.callLater(0, running.cancel)

        running = self.get(url, resume=True, progress=show)
        await self.assertFailure(running, CancelledError)


class Matrix:
    """What every scheme must carry."""

    async def test_file(self: Any) -> None:
        """Sixty-four MiB arrive in a file, checked, over http and https."""
        for url in (self.website.url("/64m.bin"), self.website.tls_url("/64m.bin")):
            expected = self.website.sha256_of("64m.bin")
            result = await self.get(url, checksum=expected)
            self.assertEqual((result.status, result.size), (200, 64 * MIB))
            self.assertEqual(self.saved(), expected)
            self.assertEqual(self.files(), ["file"])
            self.path.unlink()
        self.assertEqual(self.proxy.failed_logons(), 0)

    async def test_not_modified(self: Any) -> None:
        """What is there already is not sent again."""
        url = self.website.url("/1m.bin")
        first = await self.get(url)
        for more in ({"etag": first.etag}, {"last_modified": first.last_modified}):
            again = await self.get(url, **more)
            self.assertTrue(again.not_modified)
        self.assertEqual(self.saved(), self.website.sha256_of("1m.bin"))
        self.assertEqual(self.statuses(), [200, 304, 304])

    async def test_resume(self: Any) -> None:
        """What was broken off is gone on with, over http and https."""
        for url in (self.website.url("/64m.bin"), self.website.tls_url("/64m.bin")):
            self.website.reset()
            await self.interrupted(url)
            self.assertEqual(self.files(), ["file.part", "file.part.json"])
            await self.interrupted(url, 3 * MIB)
            there = (self.directory / "file.part").stat().st_size
            result = await self.get(
                url, resume=True, checksum=self.website.sha256_of("64m.bin")
            )
            self.assertEqual((result.status, result.resumed_at), (206, there))
            self.assertGreaterEqual(there, 3 * MIB)
            self.assertEqual(self.saved(), self.website.sha256_of("64m.bin"))
            self.assertEqual(self.files(), ["file"])
            self.assertIn(206, self.statuses())
            self.path.unlink()

    async def test_website_that_asks(self: Any) -> None:
        """A website's own logon is resumed and compared like anything else."""
        for area in ("basic", "digest"):
            url = self.website.url(f"/{area}/64m.bin")
            await self.interrupted(url)
            result = await self.get(url, resume=True)
            self.assertEqual(result.status, 206)
            self.assertEqual(self.saved(), self.website.sha256_of("64m.bin"))
            self.assertTrue((await self.get(url, etag=result.etag)).not_modified)
            self.path.unlink()

    async def test_cut(self: Any) -> None:
        """A server that breaks off leaves no file."""
        for path in ("/cut/1000000", "/cut-chunked/1000000"):
            for url in (self.origin.url(path), self.origin.tls_url(path)):
                await self.assertFailure(self.get(url), ContentCut)
                self.assertEqual(self.files(), [])


class BasicTests(Matrix, ProgramCase):
    """Through a proxy that asks for Basic."""

    async def test_memory(self) -> None:
        """Without a file the content is in memory, however it is framed."""
        for path in ("/octets/100000", "/chunked/100000"):
            result = await self.get(self.origin.url(path), path=None)
            self.assertEqual(result.body, origin.content(100000))
        url = self.origin.tls_url("/until-close/100000")
        await self.assertFailure(self.get(url, path=None), ContentCut)
        result = await self.get(url, path=None, unsized=True)
        self.assertEqual(result.body, origin.content(100000))

    async def test_changed(self) -> None:
        """A file that has changed since is taken whole."""
        changing = self.website.files / "changing.bin"
        self.addCleanup(changing.unlink)
        for letter, more in ((b"a", {}), (b"b", {"resume": True})):
            changing.write_bytes(letter * 32 * MIB)
            changing.chmod(0o644)
            # Apache's tag of a file that was changed this second is weak.
            os.utime(changing, (time.time() - 100 - ord(letter),) * 2)
            url = self.website.url("/changing.bin")
            if not more:
                await self.interrupted(url)
        result = await self.get(url, resume=True)
        self.assertEqual((result.status, result.resumed_at), (200, 0))
        self.assertEqual(self.path.read_bytes(), b"b" * 32 * MIB)

    async def test_whole_part(self) -> None:
        """A part that lacks nothing but its name gets it."""
        url = self.website.url("/64m.bin")
        await self.interrupted(url)
        part = self.directory / "file.part"
        part.write_bytes((self.website.files / "64m.bin").read_bytes())
        result = await self.get(url, resume=True)
        self.assertEqual((result.status, result.resumed_at), (206, 64 * MIB))
        self.assertEqual(self.saved(), self.website.sha256_of("64m.bin"))

    async def test_another_checksum(self) -> None:
        """What is not what was wanted is not kept."""
        getting = self.get(self.website.url("/1m.bin"), checksum="0" * 64)
        await self.assertFailure(getting, ChecksumMismatch)
        self.assertEqual(self.files(), [])

    async def test_redirect(self) -> None:
        """Apache leads a directory's name to the directory."""
        (self.website.files / "dir").mkdir()
        (self.website.files / "dir").chmod(0o755)
        self.addCleanup((self.website.files / "dir").rmdir)
        result = await self.get(self.website.url("/dir"))
        self.assertEqual(result.url, self.website.url("/dir/"))
        self.assertEqual(self.statuses()[0], 301)

    async def test_asked_again(self) -> None:
        """Who mistypes the proxy's password is asked once more."""
        answers = [WRONG_PASSWORD, ALICE.password]
        source = AskedCredentials(
            reactor,
            lambda _: (ALICE.name, answers.pop(0)),
        )
        settings: dict[str, Any] = {
            "proxy": self.proxy.url,
            "credentials": source,
            "guard": LogonGuard(reactor),
        }
        url = self.website.url("/1k.bin")
        with self.assertRaises(CredentialsRejected):
            await download(reactor, url, **settings)
        result = await download(reactor, url, **settings)
        self.assertEqual((result.status, result.size), (200, 1024))
        self.assertEqual((answers, self.proxy.failed_logons()), ([], 1))

    async def test_sources(self) -> None:
        """A real program and a real thread tell the password; either is asked once."""
        secret = self.directory / "secret"
        secret.write_text(f"{WRONG_PASSWORD}\n")

        class Keyring:
            def get_password(self, service: str, username: str) -> str:
                return secret.read_text().rstrip("\n")

        url = self.website.url("/1k.bin")
        for source in (
            CommandCredentials(reactor, ["cat", str(secret)], ALICE.name),
            KeyringCredentials(reactor, ALICE.name, backend=Keyring()),
        ):
            secret.write_text(f"{WRONG_PASSWORD}\n")
            settings: dict[str, Any] = {
                "proxy": self.proxy.url,
                "credentials": source,
                "guard": LogonGuard(reactor),
            }
            with self.assertRaises(CredentialsRejected):
                await download(reactor, url, **settings)
            secret.write_text(f"{ALICE.password}\n")
            for _ in range(2):
                result = await download(reactor, url, **settings)
                self.assertEqual(result.status, 200)
                secret.write_text("not asked for any more\n")
        self.assertEqual(self.proxy.failed_logons(), 2)


class NTLMTests(Matrix, ProgramCase):
    """Through a proxy that asks for NTLM."""

    scheme = "ntlm"


class OtherAgentTests(ProgramCase):
    """By Twisted's own agent, directly."""

    def setUp(self) -> None:
        super().setUp()
        self.agent: Any = TwistedAgent(reactor)

    async def test_resume(self) -> None:
        """It carries a download as well as ours."""
        url = self.website.url("/64m.bin", "127.0.0.1")
        await self.interrupted(url)
        result = await self.get(
            url, resume=True, checksum=self.website.sha256_of("64m.bin")
        )
        self.assertEqual(result.status, 206)
        self.assertGreaterEqual(result.resumed_at, MIB)

    async def test_cut(self) -> None:
        """What is cut off under it is noticed."""
        url = self.origin.url("/cut/1000000", "127.0.0.1")
        await self.assertFailure(self.get(url), ContentCut)
        self.assertEqual(self.files(), [])


class CommandCase(Case):
    """Downloads by ``python -m coda_twisted get``."""

    scheme = "ntlm"

    def command(
        self, *argv: str, environ: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start it, as a user who trusts our authority does."""
        return subprocess.Popen(
            [sys.executable, "-m", "coda_twisted", "get", *argv],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=python_environment(**(environ or {})),
        )

    def get(self, *argv: str, **more: Any) -> tuple[int, bytes, str]:
        """Run it to its end: exit code, and what it printed."""
        process = self.command(*argv, **more)
        out, err = process.communicate(timeout=60)
        said = err.decode()
        for secret in (ALICE.password, BOB.password):
            self.assertNotIn(secret, said)
        self.assertNotIn("Traceback", said)
        return process.returncode, out, said

    def by_alice(self, password: str = ALICE.password) -> list[str]:
        """Options that name the proxy, and her to it."""
        file = self.directory.with_suffix(".password")
        file.write_text(password)
        file.chmod(0o600)
        self.addCleanup(file.unlink, missing_ok=True)
        return [
            *("--proxy", self.proxy.url, "--proxy-user", ALICE.down_level),
            *("--proxy-password-file", str(file), "--cacert", str(authority().ca)),
        ]


class CommandTests(CommandCase):
    """What people do with it."""

    def test_file(self) -> None:
        """Over http and https, a file is named as the URL ends."""
        for url in (self.website.url("/1m.bin"), self.website.tls_url("/1m.bin")):
            code, out, said = self.get(url, *self.by_alice())
            self.assertEqual((code, out, said), (0, b"", "1m.bin: 1.0 MiB\n"))
            self.path = self.directory / "1m.bin"
            self.assertEqual(self.saved(), self.website.sha256_of("1m.bin"))
        self.assertEqual(self.proxy.failed_logons(), 0)

    def test_standard_output(self) -> None:
        """With ``-o -`` the content is printed."""
        url = self.website.url("/1k.bin")
        code, out, said = self.get(url, "-o", "-", *self.by_alice())
        self.assertEqual((code, said), (0, ""))
        self.assertEqual(out, (self.website.files / "1k.bin").read_bytes())

    def test_changed_only(self) -> None:
        """With an etag file a second time costs a 304."""
        argv = [self.website.url("/1m.bin"), "--etag-file", "tag", *self.by_alice()]
        self.assertEqual(self.get(*argv)[0], 0)
        self.assertEqual(self.get(*argv), (0, b"", "1m.bin: not modified\n"))
        self.assertEqual(self.statuses(), [200, 304])

    def test_interrupted(self) -> None:
        """Ctrl-C leaves a part, with which the next one goes on."""
        argv = [self.website.url("/64m.bin"), "--resume", "-o", "file"]
        argv += [*self.by_alice(), "--sha256", self.website.sha256_of("64m.bin")]
        process = self.command(*argv)
        part = self.directory / "file.part"
        deadline = time.monotonic() + 30
        while not part.exists() or part.stat().st_size < MIB:
            self.assertLess(time.monotonic(), deadline)
            self.assertIsNone(process.poll())
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
        self.assertEqual(
            (process.returncode, said), (130, b"coda_twisted: interrupted\n")
        )
        self.assertEqual(self.files(), ["file.part", "file.part.json"])
        code, _, told = self.get(*argv)
        self.assertEqual(code, 0, told)
        self.assertIn("of them before", told)
        self.assertEqual(self.saved(), self.website.sha256_of("64m.bin"))
        self.assertEqual(self.statuses()[-1], 206)

    def test_killed(self) -> None:
        """So does what nothing can handle; without --resume there is no file at all."""
        for resume in (["--resume"], []):
            url = self.website.url("/64m.bin")
            process = self.command(url, "-o", "file", *resume, *self.by_alice())
            deadline = time.monotonic() + 30
            while not any(
                each.stat().st_size > MIB for each in self.directory.iterdir()
            ):
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.002)
            process.kill()
            process.communicate()
            self.assertFalse(self.path.exists())
        code, _, told = self.get(url, "-o", "file", "--resume", *self.by_alice())
        self.assertEqual(code, 0, told)
        self.assertIn("of them before", told)
        self.assertEqual(self.saved(), self.website.sha256_of("64m.bin"))

    def test_wrong_password(self) -> None:
        """A refused password is told by its exit code, and costs one logon."""
        argv = self.by_alice(WRONG_PASSWORD)
        for url in (self.website.url("/1k.bin"), self.website.tls_url("/1k.bin")):
            self.proxy.reset()
            code, _, said = self.get(url, *argv)
            self.assertEqual(code, 3, said)
            self.assertEqual(self.proxy.failed_logons(), 1)

    def test_list_of_processes(self) -> None:
        """A secret on the command line can be seen for a moment only."""
        user = f"{quote(ALICE.down_level, safe='')}:{quote(ALICE.password, safe='')}"
        process = self.command(
            *(self.origin.url("/silence/60"), "-H", "Authorization: Bearer secret"),
            *("--proxy", self.proxy.url.replace("://", f"://{user}@")),
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        deadline = time.monotonic() + 30
        while not self.origin.requests():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        self.assertIn(b"/silence/60", shown)
        for secret in (quote(ALICE.password, safe=""), "Bearer"):
            self.assertNotIn(secret.encode(), shown)
        [received] = self.origin.requests()
        self.assertEqual(received.get("Authorization"), "Bearer secret")

    def test_bar(self) -> None:
        """On a terminal there is a bar, which goes away."""
        terminal, child = pty.openpty()
        size = struct.pack("HHHH", 24, 80, 0, 0)
        fcntl.ioctl(child, termios.TIOCSWINSZ, size)
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "coda_twisted", "get"),
                *(self.website.url("/64m.bin"), *self.by_alice()),
            ],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stderr=child,
            env=python_environment(),
        )
        os.close(child)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal without a child ends
            while piece := os.read(terminal, 65536):
                shown += piece
        os.close(terminal)
        self.assertEqual(process.wait(), 0, shown)
        self.assertIn(b"/64.0M", shown)
        self.assertTrue(shown.endswith(b"\r64m.bin: 64.0 MiB\r\n"), shown[-200:])

    def test_website(self) -> None:
        """A website's user and password, by option and by netrc."""
        url = self.website.tls_url("/digest/1k.bin")
        environ = {"CODA_PASSWORD": BOB.password}
        argv = ["-o", "file", *self.by_alice()]
        code, _, said = self.get(url, *argv, "--user", BOB.name, environ=environ)
        self.assertEqual(code, 0, said)
        self.assertEqual(self.saved(), self.website.sha256_of("1k.bin"))
        code, _, said = self.get(url, *argv)
        self.assertEqual((code, said), (3, "coda_twisted: 401 Unauthorized\n"))

    def test_failures(self) -> None:
        """Each has its exit code."""
        for url, expected in (
            (self.website.url("/nothing"), 4),
            (self.origin.url("/cut/100000"), 5),
            (self.origin.url("/status/503"), 4),
            ("http://nothing.invalid/", 4),  # the proxy says so
            ("https://nothing.invalid/", 1),
        ):
            code, _, said = self.get(url, *self.by_alice())
            self.assertEqual(code, expected, said)
            self.assertEqual(self.files(), [], said)
        code, _, said = self.get("http://localhost:1/", "--proxy", "none")
        self.assertEqual(code, 1, said)
        code, _, said = self.get(self.website.tls_url(), "--proxy", "none")
        self.assertEqual(code, 1, said)
        self.assertIn("TLS failed", said)


class ExampleTests(CommandCase):
    """The program of the documentation."""

    scheme = "digest"

    def test_download(self) -> None:
        """Whoever copies it gets through."""
        user = f"{quote(ALICE.name)}:{quote(ALICE.password, safe='')}"
        done = subprocess.run(
            [
                *(sys.executable, str(CHECKOUT / "docs" / "examples" / "download.py")),
                self.proxy.url.replace("://", f"://{user}@"),
                *(self.website.tls_url("/1m.bin"), str(self.path)),
            ],
            capture_output=True,
            env=python_environment(SSL_CERT_FILE=str(authority().ca)),
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.decode().splitlines()
        self.assertEqual(lines[-2], f"{MIB} of {MIB}")
        self.assertTrue(lines[-1].startswith(f"200 {self.path} "))
        self.assertEqual(self.saved(), self.website.sha256_of("1m.bin"))
