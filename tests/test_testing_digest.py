"""Tests for the fake servers' Digest."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.auth.challenge import parse_challenges, parse_info
from coda_twisted.auth.steps import Role
from coda_twisted.http1.fields import Fields
from coda_twisted.testing.accounts import Accounts
from coda_twisted.testing.digest import Digest, DigestVerifier
from coda_twisted.testing.digest_fields import hashed, read_credentials, response
from coda_twisted.testing.verdicts import (
    Accepted,
    Challenged,
    Received,
    Refused,
    Site,
    Verdict,
)

REALM = 'http-auth@"example".org'

# RFC 7616 3.9.1.
EXAMPLE = {
    "username": "Mufasa",
    "realm": "http-auth@example.org",
    "uri": "/dir/index.html",
    "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
    "nc": "00000001",
    "cnonce": "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    "qop": "auth",
}


class FieldTests(SynchronousTestCase):
    """What credentials say, and what they should."""

    def test_rfc(self) -> None:
        """RFC 7616 3.9.1, with both algorithms."""
        for algorithm, expected in (
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            (
                "SHA-256",
                "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            ),
        ):
            said = {**EXAMPLE, "algorithm": algorithm}
            found = response(said, b"Mufasa", b"Circle of Life", "GET")
            self.assertEqual(found, expected)

    def test_rfc_2617(self) -> None:
        """RFC 2617 3.5, which has the same with other values."""
        said = {
            "realm": "testrealm@host.com",
            "nonce": "dcd98b7102dd2f0e8b11d0f600bfb0c093",
            "uri": "/dir/index.html",
            "qop": "auth",
            "nc": "00000001",
            "cnonce": "0a4f113b",
        }
        found = response(said, b"Mufasa", b"Circle Of Life", "GET")
        self.assertEqual(found, "6629fae49393a05397450978507c4ef1")

    def test_read(self) -> None:
        """Quoted or not, with whitespace and escapes; names in lower case."""
        said = read_credentials(
            b'USERNAME="a \\"b\\" \\\\", nc=00000001 ,qop="auth",uri="/?a=b,c"'
        )
        self.assertEqual(
            said,
            {
                "username": 'a "b" \\',
                "nc": "00000001",
                "qop": "auth",
                "uri": "/?a=b,c",
            },
        )

    def test_strict(self) -> None:
        """RFC 7616 3.4: some are quoted, some must not be."""
        right = b'username="a", nc=00000001, qop=auth, algorithm=MD5, realm="r"'
        self.assertIsNotNone(read_credentials(right, strict=True))
        for wrong in (
            right.replace(b'"a"', b"a"),
            right.replace(b"=auth", b'="auth"'),
            right.replace(b"=MD5", b'="MD5"'),
            right.replace(b"=00000001", b'="00000001"'),
        ):
            self.assertIsNone(read_credentials(wrong, strict=True), wrong)
            self.assertIsNotNone(read_credentials(wrong), wrong)

    def test_extended_name(self) -> None:
        """RFC 8187: ``username*``, in UTF-8, and not beside the other one."""
        said = read_credentials(b"username*=UTF-8''J%C3%A4s%C3%B8n")
        assert said is not None
        self.assertEqual(said["username"].encode("latin-1").decode(), "J\u00e4s\u00f8n")
        for wrong in (
            b"username*=UTF-8''a, username=\"a\"",
            b"username*=a",
            b"username*=ISO-8859-1''a",
        ):
            self.assertIsNone(read_credentials(wrong))

    def test_malformed(self) -> None:
        """What is malformed, or said twice, is nothing."""
        for wrong in (b'a="b', b"a", b"a=b c=d", b'a="b"c', b"a=b, a=b", b"=b"):
            self.assertIsNone(read_credentials(wrong), wrong)

    @given(st.binary(max_size=60))
    def test_garbage(self, data: bytes) -> None:
        """Nothing is raised, whatever comes."""
        read_credentials(data)
        read_credentials(b'username*="' + data)


class DigestCase(SynchronousTestCase):
    """A client whose every parameter the test can bend."""

    def setUp(self) -> None:
        self.accounts = Accounts(
            {"Mufasa": "Circle of Life", "J\u00e4s\u00f8n": "\u20ac"}
        )
        self.request = Received(
            b"POST",
            b"http://www.example/dir?a=b",
            b"http://www.example/dir?a=b",
            b"/dir?a=b",
            Fields(),
            b"content",
        )

    def start(self, role: Role = Role.PROXY, **settings: Any) -> DigestVerifier:
        numbers = iter(range(200))
        site = Site(
            role,
            self.accounts,
            REALM,
            False,
            lambda size: bytes([next(numbers)]) * size,
            lambda: 0.0,
        )
        settings.setdefault("algorithms", ["MD5"])
        self.settings = Digest(**settings)
        self.verifier = self.settings.at(site)
        return self.verifier

    def answer(
        self,
        challenge: bytes | None = None,
        password: str = "Circle of Life",
        **changes: str | None,
    ) -> Verdict:
        """Answer a challenge as a client does, but for *changes*; ``None`` drops."""
        value = challenge or self.verifier.challenges()[0]
        [read] = parse_challenges([value])
        said: dict[str, str | None] = {
            "username": "Mufasa",
            "realm": read.params["realm"],
            "nonce": read.params["nonce"],
            "uri": "/dir?a=b",
            "opaque": read.params["opaque"],
            "algorithm": read.params["algorithm"],
        }
        if "qop" in read.params:
            qop = read.params["qop"].split(",")[0]
            said.update(qop=qop, nc="00000001", cnonce="c")
        said.update(changes)
        kept = {name: text for name, text in said.items() if text is not None}
        name = (kept.get("username") or "").encode("latin-1")
        if "response" not in changes:
            kept["response"] = response(
                kept, name, password.encode(), "POST", self.request.content
            )
        return self.verify(kept)

    def verify(self, said: dict[str, str]) -> Verdict:
        escaped = (
            (name, text.replace("\\", "\\\\").replace('"', '\\"'))
            for name, text in said.items()
        )
        credentials = ", ".join(f'{name}="{text}"' for name, text in escaped)
        return self.verifier.verify(self.request, credentials.encode("latin-1"))

    def assert_refused(self, verdict: Verdict, why: str, failed: int = 0) -> None:
        assert isinstance(verdict, Refused), verdict
        self.assertIn(why, verdict.reason)
        self.assertEqual(self.accounts.failed_logons(), failed)
        self.assertEqual(self.accounts.logons(), 0)


class DigestTests(DigestCase):
    """Digest believes those who know the password."""

    def test_challenges(self) -> None:
        """One for each algorithm, as our own reader understands them."""
        verifier = self.start(algorithms=["SHA-512-256", "md5-sess"], userhash=True)
        challenges = parse_challenges(verifier.challenges())
        self.assertEqual(
            [each.params["algorithm"] for each in challenges],
            ["SHA-512-256", "md5-sess"],
        )
        for each in challenges:
            self.assertFalse(each.malformed)
            self.assertEqual(each.realm, REALM)
            self.assertEqual(each.params["charset"], "UTF-8")
            self.assertEqual(each.params["userhash"], "true")
            self.assertEqual(each.params["qop"], "auth")

    def test_accepts(self) -> None:
        """Every algorithm, and every quality of protection."""
        for algorithm in ("MD5", "SHA-256", "SHA-512-256", "MD5-sess", "SHA-256-sess"):
            for qop in ("auth", "auth-int", "auth,auth-int"):
                self.start(algorithms=[algorithm], qop=qop)
                verdict = self.answer()
                assert isinstance(verdict, Accepted), (algorithm, qop, verdict)
                self.assertEqual(verdict.user, "Mufasa")
        self.start(qop="")
        self.assertIsInstance(self.answer(), Accepted)

    def test_unknown_algorithm(self) -> None:
        """An algorithm that nobody knows is a mistake of the test's."""
        self.assertRaises(ValueError, Digest, ["SHA-1"])

    def test_uri(self) -> None:
        """Absolute-form and origin-form are taken; both are this request's."""
        self.start()
        self.assertIsInstance(self.answer(uri="http://www.example/dir?a=b"), Accepted)
        self.assertIsInstance(self.answer(uri="/dir?a=b"), Accepted)

    def test_wrong_password(self) -> None:
        """A wrong password is a failed logon."""
        self.start()
        self.assert_refused(self.answer(password="x"), "was refused", failed=1)

    def test_unknown_user(self) -> None:
        """So is one whom nobody knows."""
        self.start()
        self.assert_refused(self.answer(username="Scar"), "was refused", failed=1)

    def test_forged(self) -> None:
        """No octet of the response can be another one."""
        self.start()
        for wrong in ("", "x", "0" * 32, "\u00ff" * 32):
            self.answer(response=wrong)
        self.assertEqual(self.accounts.logons(), 0)
        self.assertEqual(self.accounts.failed_logons(), 4)

    def test_tampered(self) -> None:
        """What was hashed cannot be changed afterwards."""
        self.start(qop="auth-int")
        [read] = parse_challenges(self.verifier.challenges())
        said = {
            "username": "Mufasa",
            "realm": REALM,
            "nonce": read.params["nonce"],
            "uri": "/dir?a=b",
            "opaque": read.params["opaque"],
            "algorithm": "MD5",
            "qop": "auth-int",
            "nc": "00000001",
            "cnonce": "c",
        }
        said["response"] = response(
            said, b"Mufasa", b"Circle of Life", "POST", b"content"
        )
        for name, value in (("nc", "00000002"), ("cnonce", "d")):
            self.assertIsInstance(self.verify({**said, name: value}), Refused, name)
        original = self.request
        for changed in (
            Received(b"PUT", *_rest(original), b"content"),
            Received(b"POST", *_rest(original), b"contents"),
        ):
            self.request = changed
            self.assertIsInstance(self.verify(said), Refused)
        self.request = original
        self.assertIsInstance(self.verify(said), Accepted)

    def test_faults(self) -> None:
        """What is wrong without a look at the password is no failed logon."""
        self.start()
        for changes, why in (
            ({"realm": "other"}, "realm"),
            ({"opaque": None}, "opaque"),
            ({"opaque": "x"}, "opaque"),
            ({"algorithm": "SHA-256"}, "algorithm"),
            ({"algorithm": "md5"}, "algorithm"),
            ({"qop": None}, "qop"),
            ({"qop": "auth-int"}, "quality"),
            ({"nc": "1"}, "nc"),
            ({"nc": "0000000G"}, "nc"),
            ({"cnonce": "", "nc": "00000001 "}, "nc"),
            ({"uri": "/dir"}, "uri"),
            ({"uri": "/"}, "uri"),
            ({"uri": "http://other/dir?a=b"}, "uri"),
            ({"userhash": "true"}, "hashed"),
        ):
            self.assert_refused(self.answer(**changes), why)
        self.assert_refused(self.verify({"username": "Mufasa"}), "response")
        self.assert_refused(self.verifier.verify(self.request, b"?"), "malformed")
        self.start(qop="")
        self.assert_refused(
            self.answer(qop="auth", nc="00000001", cnonce="c"), "none was offered"
        )

    def test_no_algorithm(self) -> None:
        """No algorithm means MD5 (RFC 7616 3.4), where that is offered."""
        self.start()
        self.assertIsInstance(self.answer(algorithm=None), Accepted)
        self.start(algorithms=["SHA-256"])
        self.assertIsInstance(self.answer(algorithm=None), Refused)

    def test_userhash(self) -> None:
        """A hashed name is found; a plain one is not taken in its place."""
        self.start(userhash=True)
        name = hashed("MD5", b"Mufasa:" + REALM.encode())
        [challenge] = self.verifier.challenges()
        [read] = parse_challenges([challenge])
        said = {
            "username": name,
            "realm": REALM,
            "nonce": read.params["nonce"],
            "uri": "/dir?a=b",
            "opaque": read.params["opaque"],
            "algorithm": "MD5",
            "qop": "auth",
            "nc": "00000001",
            "cnonce": "c",
            "userhash": "true",
        }
        said["response"] = response(said, b"Mufasa", b"Circle of Life", "POST")
        verdict = self.verify(said)
        assert isinstance(verdict, Accepted)
        self.assertEqual(verdict.user, "Mufasa")
        said["username"] = hashed("MD5", b"Scar:" + REALM.encode())
        self.assertIsInstance(self.verify({**said, "nc": "00000002"}), Refused)
        self.assertIsInstance(self.answer(), Refused)

    def test_characters(self) -> None:
        """Names and passwords are of any characters, and in UTF-8 where we say so."""
        self.start()
        name = "J\u00e4s\u00f8n".encode().decode("latin-1")
        verdict = self.answer(username=name, password="\u20ac")
        assert isinstance(verdict, Accepted), verdict
        self.assertEqual(verdict.user, "J\u00e4s\u00f8n")

    def test_latin(self) -> None:
        """Without a charset it is Latin-1, where that has the characters."""
        self.accounts.set_password("J\u00e4s\u00f8n", "\u00fc")
        self.start(charset=False)
        self.assertNotIn(b"charset", self.verifier.challenges()[0])
        for name, password in (("J\u00e4s\u00f8n", "\u00fc"), ("Mufasa", "\u20ac")):
            self.accounts.set_password(name, password)
            octets = password.encode("latin-1" if password == "\u00fc" else "utf-8")
            [read] = parse_challenges(self.verifier.challenges())
            said = {
                "username": name,
                "realm": REALM,
                "nonce": read.params["nonce"],
                "uri": "/dir?a=b",
                "opaque": read.params["opaque"],
                "algorithm": "MD5",
                "qop": "auth",
                "nc": "00000001",
                "cnonce": "c",
            }
            user = name.encode("latin-1")
            said["response"] = response(said, user, octets, "POST")
            verdict = self.verify(said)
            assert isinstance(verdict, Accepted), verdict
            self.assertEqual(verdict.user, name)

    def test_strict(self) -> None:
        """A strict server wants each parameter in its own notation."""
        self.start(strict=True)
        self.assert_refused(self.answer(), "malformed")


class NonceTests(DigestCase):
    """Nonces are ours, count, and end."""

    def stale(self, verdict: Verdict) -> None:
        assert isinstance(verdict, Challenged), verdict
        [read] = parse_challenges(verdict.values)
        self.assertEqual(read.params["stale"], "true")

    def test_unknown(self) -> None:
        """A nonce that is not ours is stale, for one who knows the password."""
        self.start()
        self.stale(self.answer(nonce="00"))
        self.assertEqual(self.accounts.log, [])
        self.assert_refused(
            self.answer(nonce="00", password="x"), "was refused", failed=1
        )

    def test_stale_to_all(self) -> None:
        """Squid calls it stale whatever the password."""
        self.start(stale_to_all=True)
        self.stale(self.answer(nonce="00", password="x"))
        self.assertEqual(self.accounts.log, [])

    def test_uses(self) -> None:
        """A nonce may be good for two requests, in any order of their counts."""
        self.start(nonce_uses=2)
        [challenge] = self.verifier.challenges()
        self.assertIsInstance(self.answer(challenge, nc="00000002"), Accepted)
        self.assertIsInstance(self.answer(challenge, nc="00000001"), Accepted)
        self.stale(self.answer(challenge, nc="00000003"))

    def test_replay(self) -> None:
        """The same request is good once."""
        self.start()
        [challenge] = self.verifier.challenges()
        self.assertIsInstance(self.answer(challenge), Accepted)
        self.stale(self.answer(challenge))

    def test_expire(self) -> None:
        """A test may end them all."""
        self.start()
        [challenge] = self.verifier.challenges()
        self.verifier.expire()
        self.stale(self.answer(challenge))

    def test_info(self) -> None:
        """The answer proves that we know the password (RFC 7616 3.5)."""
        self.start(Role.ORIGIN, next_nonce=True)
        verdict = self.answer()
        assert isinstance(verdict, Accepted)
        [(name, value)] = verdict.fields
        self.assertEqual(name, b"Authentication-Info")
        info = parse_info(value)
        said = {
            "realm": REALM,
            "nonce": bytes([1] * 16).hex(),
            "uri": "/dir?a=b",
            "qop": "auth",
            "nc": "00000001",
            "cnonce": "c",
        }
        right = response(said, b"Mufasa", b"Circle of Life", "")
        self.assertEqual(info["rspauth"], right)
        self.assertEqual((info["cnonce"], info["nc"]), ("c", "00000001"))
        self.assertIsInstance(self.answer(nonce=info["nextnonce"]), Accepted)

    def test_no_info(self) -> None:
        """There may be nothing to say."""
        self.start(rspauth=False)
        self.assertEqual(self.answer(), Accepted("Mufasa"))
        self.start(qop="")
        self.assertEqual(self.answer(), Accepted("Mufasa"))


def _rest(request: Received) -> tuple[bytes, bytes, bytes, Fields]:
    return request.target, request.url, request.path, request.fields
