"""Tests for :mod:`coda_twisted.service.options`."""

from __future__ import annotations

import os
import re
import ssl
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.client.timeouts import Timeouts
from coda_twisted.routing.routes import HTTPProxy
from coda_twisted.service import Options
from coda_twisted.service.limits import Limits
from coda_twisted.service.options import PASSWORD_VARIABLE, PROXY_TYPES
from coda_twisted.service.server import limits_of, timeouts_of
from tests.test_auth_bindings import certificate

PROXY = "--proxy=http://above:3128"


class OptionsCase(SynchronousTestCase):
    """A command line, without anything from the environment."""

    def setUp(self) -> None:
        self.patch(os, "environ", {})

    def parse(self, *arguments: str) -> Options:
        options = Options()
        options.parseOptions(list(arguments))
        return options

    def refuse(self, *arguments: str) -> str:
        """Have a command line refused, and say in which words."""
        with self.assertRaises(UsageError) as caught:
            self.parse(*arguments)
        return str(caught.exception)

    def file(self, content: bytes) -> str:
        """Make a file."""
        path = Path(self.mktemp())
        path.write_bytes(content)
        return str(path)

    def authority(self) -> str:
        """Make a file with a certificate."""
        der = certificate(ec.generate_private_key(ec.SECP256R1()), SHA256())
        return self.file(ssl.DER_cert_to_PEM_cert(der).encode("ascii"))


class DefaultTests(OptionsCase):
    """Without options."""

    def test_defaults(self) -> None:
        """The service listens on loopback, for this machine, and connects directly."""
        options = self.parse()
        self.assertEqual(options["listen-address"], ip_address("127.0.0.1"))
        self.assertEqual(options["port"], 8088)
        for name in ("proxy", "user", "password", "realm", "allow", "connect-ports"):
            self.assertIsNone(options[name], name)
        self.assertFalse(options["no-proxy"].match("site"))
        self.assertFalse(
            options["quiet"]
            or options["log-queries"]
            or options["ntlm-in-negotiate"]
            or options["allow-loopback"]
        )
        self.assertEqual(options.exposed, set())

    def test_help(self) -> None:
        """The help shows every option, and an example."""
        text = str(self.parse())
        for name in (
            "listen-address",
            "password-file",
            "connect-ports",
            "quiet",
            "head-timeout",
        ):
            self.assertIn(f"--{name}", text)
        self.assertIn("kinit twistd -n coda-proxy", re.sub(r"\s+", " ", text))

    def test_no_arguments(self) -> None:
        """Words that belong to no option are refused."""
        self.refuse("http://above:3128")


class ListenerTests(OptionsCase):
    """Where to listen, and for whom."""

    def test_loopback(self) -> None:
        """Loopback needs no permission, however it is written."""
        for written, expected in (
            ("127.0.0.1", "127.0.0.1"),
            ("127.1.2.3", "127.1.2.3"),
            ("localhost", "127.0.0.1"),
            ("::1", "::1"),
            ("[::1]", "::1"),
        ):
            options = self.parse(f"--listen-address={written}")
            self.assertEqual(options["listen-address"], ip_address(expected))

    def test_exposed(self) -> None:
        """Other addresses need it said who may."""
        for address in ("0.0.0.0", "::", "192.0.2.1", ""):
            self.assertIn(
                "--allow=NETWORKS", self.refuse(f"--listen-address={address}")
            )
            self.parse(f"--listen-address={address}", "--allow=10.0.0.0/8")

    def test_no_address(self) -> None:
        """Names and nonsense are no addresses."""
        for address in ("site", "127.1", "1.2.3.4:80", "256.0.0.1"):
            self.assertIn(
                "address is needed", self.refuse(f"--listen-address={address}")
            )

    def test_port(self) -> None:
        """A port is a number; 0 is for any that is free."""
        self.assertEqual(self.parse("--port=0")["port"], 0)
        self.assertEqual(self.parse("--port=65535")["port"], 65535)
        for port in ("65536", "-1", "http", "", "8_0", "\u0663", "9" * 9):
            self.assertIn("from 0 to 65535", self.refuse(f"--port={port}"))

    def test_allow(self) -> None:
        """Networks are written as ever; host bits do no harm."""
        options = self.parse("--allow=10.1.2.3/8, fd00::/8,192.0.2.1,")
        self.assertEqual(
            options["allow"],
            (ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("192.0.2.1")),
        )
        for networks in ("", ",", "site", "10.0.0.0/33"):
            self.refuse(f"--allow={networks}")

    def test_connect_ports(self) -> None:
        """So are ports."""
        options = self.parse("--connect-ports=443, 22")
        self.assertEqual(options["connect-ports"], {22, 443})
        for ports in ("", "443,", "0", "https", "65536"):
            self.refuse(f"--connect-ports={ports}")


class TimeoutTests(OptionsCase):
    """How long things may take."""

    def test_defaults(self) -> None:
        """They are those of the parts that keep them."""
        options = self.parse()
        self.assertEqual(limits_of(options), Limits())
        self.assertEqual(timeouts_of(options), Timeouts())

    def test_given(self) -> None:
        """Each can be chosen."""
        options = self.parse(
            *("--head-timeout=1", "--content-timeout=2", "--answer-timeout=3.5"),
            *("--keep-alive-timeout=4", "--linger-timeout=.5", "--tunnel-timeout=6"),
            *("--half-closed-timeout=7", "--connect-timeout=8", "--tls-timeout=9"),
            *("--send-timeout=10", "--response-timeout=11", "--idle-timeout=13"),
            "--response-content-timeout=12",
        )
        self.assertEqual(limits_of(options), Limits(1, 2, 3.5, 4, 0.5, 6, 7))
        self.assertEqual(
            timeouts_of(options),
            Timeouts(connect=8, tls=9, send=10, head=11, body=12, idle=13),
        )

    def test_none(self) -> None:
        """Most may be without a limit."""
        for value in ("0", "none", "NONE"):
            options = self.parse(
                *(f"--head-timeout={value}", f"--content-timeout={value}"),
                *(f"--answer-timeout={value}", f"--keep-alive-timeout={value}"),
                *(f"--tunnel-timeout={value}", f"--half-closed-timeout={value}"),
                *(f"--send-timeout={value}", f"--response-timeout={value}"),
                f"--response-content-timeout={value}",
            )
            self.assertEqual(
                limits_of(options), Limits(None, None, None, None, 5, None, None)
            )
            self.assertEqual(timeouts_of(options), Timeouts(send=None, head=None))

    def test_bad(self) -> None:
        """What is no duration is refused, with what would be one."""
        for value in ("", "-1", "soon", "nan", "inf", "1m", "1e999"):
            said = self.refuse(f"--head-timeout={value}")
            self.assertIn("seconds are needed: 10 or 2.5; none or 0 for no", said)

    def test_always_limited(self) -> None:
        """Some have to end."""
        for name in ("connect", "tls", "idle", "linger"):
            for value in ("none", "0", "-1"):
                said = self.refuse(f"--{name}-timeout={value}")
                self.assertIn("seconds are needed, more than 0: 10 or 2.5", said)


class UpstreamTests(OptionsCase):
    """The proxy above."""

    def test_proxy(self) -> None:
        """It is written as a URL; its scheme is auto until told otherwise."""
        options = self.parse(PROXY)
        self.assertEqual(options["proxy"], HTTPProxy("http", "above", 3128))
        self.assertEqual(options["proxy-type"], "auto")
        self.assertIsNone(options["user"])

    def test_bad_proxy(self) -> None:
        """What is none is refused, and not repeated."""
        for url in ("socks5://above", "http://above:x", "", "http://me:sesame@a/b"):
            self.assertNotIn("sesame", self.refuse(f"--proxy={url}"))

    def test_types(self) -> None:
        """Every scheme can be asked for, in any case."""
        for kind in PROXY_TYPES:
            options = self.parse(
                PROXY, f"--proxy-type={kind.upper()}", "--user=me", "--password=p"
            )
            self.assertEqual(options["proxy-type"], kind)
        self.assertIn("noauth, basic", self.refuse(PROXY, "--proxy-type=kerberos"))

    def test_no_proxy_at_all(self) -> None:
        """What is for an upstream proxy needs one."""
        for option in (
            *("--user=me", "--password=p", "--password-file=f", "--realm=r"),
            *("--proxy-type=basic", f"--proxy-ca={self.authority()}"),
        ):
            self.assertIn("--proxy", self.refuse(option))
        self.parse("--proxy-type=noauth")

    def test_exceptions(self) -> None:
        """Hosts that are reached without it are written as in no_proxy."""
        options = self.parse(PROXY, "--no-proxy=localhost,.internal,10.0.0.0/8")
        for host, expected in (("a.internal", True), ("10.1.1.1", True), ("b", False)):
            self.assertEqual(options["no-proxy"].match(host), expected)

    def test_authorities(self) -> None:
        """Authorities to trust are read at once."""
        file = self.authority()
        options = self.parse(PROXY, f"--proxy-ca={file}")
        self.assertEqual(options["proxy-ca"], Path(file).read_bytes())
        missing = self.refuse(PROXY, "--proxy-ca=/nowhere/ca.pem")
        self.assertIn("/nowhere/ca.pem: No such file", missing)
        self.assertIn(
            "no certificate", self.refuse(PROXY, f"--proxy-ca={self.file(b'')}")
        )


class HelpTests(OptionsCase):
    """``--help``."""

    def test_guide(self) -> None:
        """It shows every option, and command lines that can be copied and work."""
        shown = Options().getUsage()
        for name in Options():
            self.assertIn(f"--{name}", shown)
        lines = shown.replace("\\\n", " ").splitlines()
        commands = [line.split() for line in lines if line.startswith("    twistd ")]
        self.assertEqual(len(commands), 4)
        password = self.file(b"sesame")
        for _, _, name, *arguments in commands:
            self.assertEqual(name, "coda-proxy")
            self.parse(
                *(
                    f"--password-file={password}" if "password-file" in each else each
                    for each in arguments
                )
            )


class ProcessTests(OptionsCase):
    """How many processes, and how they end."""

    def test_workers(self) -> None:
        """A number of processes, which need a port that can be shared."""
        self.assertEqual(self.parse("--workers=4")["workers"], 4)
        self.assertEqual(self.parse()["workers"], 0)
        for wrong in ("-1", "two", "1.5", "100000"):
            self.assertIn("number of processes", self.refuse(f"--workers={wrong}"))

    def test_elsewhere(self) -> None:
        """Where ports cannot be shared among processes that is told."""
        for platform in ("darwin", "win32"):
            self.patch(sys, "platform", platform)
            self.assertIn("use Linux", self.refuse("--workers=2"))
            self.assertEqual(self.parse("--workers=0")["workers"], 0)

    def test_drain(self) -> None:
        """Seconds, which may be none."""
        self.assertEqual(self.parse()["drain-timeout"], 30)
        self.assertEqual(self.parse("--drain-timeout=0.5")["drain-timeout"], 0.5)
        for wrong in ("-1", "soon", "inf", "nan"):
            self.assertIn("seconds", self.refuse(f"--drain-timeout={wrong}"))

    def test_read_again(self) -> None:
        """Files are read again, where they were, though we have moved."""
        password, authority = Path(self.file(b"old\n")), Path(self.authority())
        options = self.parse(
            *(PROXY, "--user=me", f"--password-file={os.path.relpath(password)}"),
            f"--proxy-ca={os.path.relpath(authority)}",
        )
        password.write_bytes(b"new\n")
        authority.write_bytes(Path(self.authority()).read_bytes())
        home = os.getcwd()
        self.addCleanup(os.chdir, home)
        os.chdir("/")
        again = options.read_again()
        os.chdir(home)
        self.assertEqual((options["password"], again["password"]), ("old", "new"))
        self.assertEqual(again["proxy-ca"], authority.read_bytes())
        self.assertNotEqual(options["proxy-ca"], again["proxy-ca"])
        self.assertEqual(again["user"], "me")

    def test_not_there_any_more(self) -> None:
        """A file that is gone is told of as at the start."""
        password = Path(self.file(b"old\n"))
        options = self.parse(PROXY, "--user=me", f"--password-file={password}")
        password.unlink()
        self.assertRaises(UsageError, options.read_again)


class UserTests(OptionsCase):
    """Who we are, and where the password comes from."""

    def secrets(self, *arguments: str) -> tuple[Any, Any, set[str]]:
        """Parse, and say who, with which password, of which some could be seen."""
        options = self.parse(PROXY, *arguments)
        return options["user"], options["password"], options.exposed

    def test_given(self) -> None:
        """A password may be given, and is exposed then."""
        self.assertEqual(
            self.secrets("--user=me", "--password=sesame"), ("me", "sesame", {"sesame"})
        )
        self.assertEqual(self.secrets("--user=me", "--password="), ("me", "", set()))

    def test_file(self) -> None:
        """It may be a file's first line."""
        for content, expected in (
            (b"sesame", "sesame"),
            (b" two words \r\nsecond line\n", " two words "),
            ("p\u00e4ss\n".encode(), "p\u00e4ss"),
            (b"p\xe4ss\n", "p\udce4ss"),
        ):
            found = self.secrets("--user=me", f"--password-file={self.file(content)}")
            self.assertEqual(found, ("me", expected, set()))

    def test_bad_file(self) -> None:
        """A file that holds none is refused."""
        for path, words in (
            (self.file(b""), "first line is empty"),
            (self.file(b"\nsesame\n"), "first line is empty"),
            ("/nowhere/password", "/nowhere/password: No such file"),
            ("/", "directory"),
        ):
            said = self.refuse(PROXY, "--user=me", f"--password-file={path}")
            self.assertIn(words, said)

    def test_twice(self) -> None:
        """One password is enough."""
        said = self.refuse(
            *(PROXY, "--user=me", "--password=p", f"--password-file={self.file(b'p')}")
        )
        self.assertIn("exclude each other", said)

    def test_environment(self) -> None:
        """It may come from the environment; what is given goes before."""
        os.environ[PASSWORD_VARIABLE] = "sesame"
        self.assertEqual(self.secrets("--user=me"), ("me", "sesame", set()))
        file = f"--password-file={self.file(b'file')}"
        self.assertEqual(self.secrets("--user=me", file), ("me", "file", set()))
        self.assertEqual(self.secrets("--user=me", "--password=p")[1], "p")
        os.environ[PASSWORD_VARIABLE] = ""
        self.assertIn("needs a password", self.refuse(PROXY, "--user=me"))

    def url(self, userinfo: str, *arguments: str) -> tuple[Any, Any, set[str]]:
        options = self.parse(f"--proxy=http://{userinfo}@above", *arguments)
        self.assertEqual(options["proxy"], HTTPProxy("http", "above", 3128))
        return options["user"], options["password"], options.exposed

    def test_url(self) -> None:
        """Both may be in the proxy's URL."""
        self.assertEqual(self.url("me:s%2Fme"), ("me", "s/me", {"s/me"}))
        self.assertEqual(
            self.url("me:sesame", "--user=you"), ("you", "sesame", {"sesame"})
        )
        self.assertEqual(
            self.url("me:sesame", "--password=other"),
            ("me", "other", {"sesame", "other"}),
        )
        self.assertEqual(self.url(":"), (None, None, set()))

    def test_name_in_url(self) -> None:
        """If only the name is, the password comes from elsewhere."""
        os.environ[PASSWORD_VARIABLE] = "sesame"
        self.assertEqual(self.url("me"), ("me", "sesame", set()))
        os.environ.clear()
        self.assertIn("needs a password", self.refuse("--proxy=http://me@above"))

    def test_needed(self) -> None:
        """What can only go wrong later is refused now."""
        file = f"--password-file={self.file(b'p')}"
        for arguments, words in (
            (["--proxy-type=ntlm"], "--proxy-type=ntlm needs --user"),
            (["--proxy-type=basic", "--password=p"], "needs --user"),
            (["--password=p"], "a password needs --user"),
            ([file], "a password needs --user"),
            (["--user=me"], "needs a password"),
            (["--user=me", "--proxy-type=digest"], "needs a password"),
            (["--user=CORP\\", "--password=p"], "a domain without a user name"),
            (["--user=me\n", "--password=p"], "line end"),
        ):
            self.assertIn(words, self.refuse(PROXY, *arguments))

    def test_not_needed(self) -> None:
        """Kerberos has tickets, and noauth needs nobody."""
        for arguments in (
            [],
            ["--proxy-type=negotiate"],
            ["--proxy-type=negotiate", "--user=me@EXAMPLE"],
            ["--proxy-type=noauth", "--user=me"],
            ["--proxy-type=noauth"],
        ):
            self.parse(PROXY, *arguments)

    def test_never_repeated(self) -> None:
        """A password is in no message."""
        said = self.refuse(PROXY, "--user=me", "--password=sesame\nx")
        self.assertNotIn("sesame", said)
