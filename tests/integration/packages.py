"""What developers' tools fetch: a package index for pip, a repository for git."""

from __future__ import annotations

import base64
import functools
import hashlib
import sys
import zipfile
from pathlib import Path

from tests.integration import apache
from tests.integration.certificates import authority
from tests.integration.commands import run
from tests.integration.servers import workspace
from tests.integration.tools import require

__all__ = ["Package", "Repository", "package", "repository"]

MODULE = "coda_sample.py"
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
WHEEL = (
    "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
)
PAGE = "<!DOCTYPE html><html><body>{links}</body></html>\n"


class Package:
    """
    A package index (PEP 503) on our website, with one pure wheel.

    :ivar name: The name of the package.
    :ivar wheel: The wheel's file.
    """

    name = "coda-sample"
    version = "1.0"

    def __init__(self) -> None:
        self._website = apache.website()
        index = self._website.files / "simple"
        directory = index / self.name
        directory.mkdir(parents=True)
        self.wheel = directory / f"coda_sample-{self.version}-py3-none-any.whl"
        _build_wheel(self.wheel, self.name, self.version)
        digest = hashlib.sha256(self.wheel.read_bytes()).hexdigest()
        link = f'<a href="{self.wheel.name}#sha256={digest}">{self.wheel.name}</a>'
        (directory / "index.html").write_text(PAGE.format(links=link))
        link = f'<a href="{self.name}/">{self.name}</a>'
        (index / "index.html").write_text(PAGE.format(links=link))
        self._website.publish(index)

    def pip(
        self, action: str, target: Path, *options: str, tls: bool = False
    ) -> list[str]:
        """
        A command by which pip gets the package from here and from nowhere else.

        :param action: ``download`` or ``install``.
        :param target: The directory into which it goes.
        :param options: More options, ``--proxy`` for one.
        :param tls: Over https.
        """
        index = self._website.url("/simple/")
        trust = ["--trusted-host", "localhost"]
        if tls:
            index = self._website.tls_url("/simple/")
            trust = ["--cert", str(authority().ca)]
        return [
            *(sys.executable, "-m", "pip", action, "--quiet", "--no-cache-dir"),
            *("--retries", "0", "--timeout", "20", "--no-deps"),
            *(*trust, "--index-url", index),
            *("--dest" if action == "download" else "--target", str(target)),
            *(*options, self.name),
        ]


def _build_wheel(path: Path, name: str, version: str) -> None:
    information = f"coda_sample-{version}.dist-info"
    files = {
        MODULE: "def answer():\n    return 42\n",
        f"{information}/METADATA": METADATA.format(name=name, version=version),
        f"{information}/WHEEL": WHEEL,
    }
    record = ""
    for member, text in files.items():
        digest = hashlib.sha256(text.encode()).digest()
        encoded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        record += f"{member},sha256={encoded},{len(text)}\n"
    files[f"{information}/RECORD"] = f"{record}{information}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, text in files.items():
            wheel.writestr(member, text)


class Repository:
    """
    A git repository on our website, to be cloned from and pushed to.

    :ivar head: The commit it begins with.
    :ivar environment: Variables for git: whom to trust, and who commits.
    """

    def __init__(self) -> None:
        [self.git] = require("git")
        self._website = apache.website()
        self.environment = {
            "GIT_SSL_CAINFO": str(authority().ca),
            "GIT_AUTHOR_NAME": "Alice",
            "GIT_AUTHOR_EMAIL": "alice@corp.test",
            "GIT_COMMITTER_NAME": "Alice",
            "GIT_COMMITTER_EMAIL": "alice@corp.test",
        }
        self.bare = self._website.repositories / "sample.git"
        work = workspace() / "sample"
        self._run("init", "--quiet", "--initial-branch", "main", str(work))
        (work / "README").write_text("A repository.\n")
        # More than git holds back: a fetch of several packets.
        (work / "large.bin").write_bytes(
            (self._website.files / "1m.bin").read_bytes() * 2
        )
        self._run("-C", str(work), "add", ".")
        self._run("-C", str(work), "commit", "--quiet", "-m", "Begin")
        self._run("clone", "--quiet", "--bare", str(work), str(self.bare))
        self._run("-C", str(self.bare), "config", "http.receivepack", "true")
        self._website.publish(self.bare)
        self.head = self._run("-C", str(work), "rev-parse", "HEAD").strip()

    def url(self, tls: bool = False) -> str:
        """Where to clone it from, and push it to."""
        website = self._website
        return (website.tls_url if tls else website.url)("/git/sample.git")

    def command(self, proxy: str, *arguments: str) -> list[str]:
        """
        A git command that goes through *proxy*, a URL.

        It runs in an :attr:`environment` of its own.
        """
        return [self.git, "-c", f"http.proxy={proxy}", *arguments]

    def _run(self, *arguments: str) -> str:
        done = run([self.git, *arguments], self.environment)
        assert done.exit_code == 0, done.errors
        return done.output.decode()


@functools.cache
def package() -> Package:
    """The package that all tests share."""
    return Package()


@functools.cache
def repository() -> Repository:
    """The repository that all tests share."""
    return Repository()
