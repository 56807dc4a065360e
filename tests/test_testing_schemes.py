"""Tests for the fake servers' Basic, Bearer and OAuth, and how schemes are chosen."""

from __future__ import annotations

import dataclasses
from base64 import b64encode
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from oauthlib.oauth1 import Client
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.auth.challenge import parse_challenges
from coda_twisted.auth.steps import Role
from coda_twisted.http1.fields import Fields
from coda_twisted.testing.accounts import Accounts, Outcome
from coda_twisted.testing.basic import Basic
from coda_twisted.testing.bearer import Bearer
from coda_twisted.testing.checkpoint import SCHEMES, Checkpoint, Judged, scheme
from coda_twisted.testing.digest import Digest
from coda_twisted.testing.ntlm import NTLM
from coda_twisted.testing.oauth1 import OAuth1
from coda_twisted.testing.quirks import Quirks, read_quirks
from coda_twisted.testing.verdicts import (
    Accepted,
    Challenged,
    Received,
    Refused,
    Site,
)


class SchemeCase(SynchronousTestCase):
    """One connection to a server of the test's choice."""

    role = Role.ORIGIN

    def setUp(self) -> None:
        self.accounts = Accounts({"alice": "secret", "b\u00f6b": "p:w"}, lockout=3)

    def start(self, *schemes: Any, quoted_realm: bool = False) -> Checkpoint:
        site = Site(
            self.role, self.accounts, "a, realm", quoted_realm, bytes, lambda: 1e9
        )
        self.checkpoint = Checkpoint(site, schemes)
        self.guard = self.checkpoint.connected()
        return self.checkpoint

    def ask(self, *values: bytes, **changes: Any) -> Judged:
        settings: dict[str, Any] = {
            "method": b"GET",
            "target": b"/p?q=1",
            "url": b"http://www.example/p?q=1",
            "path": b"/p?q=1",
            "fields": Fields((self.role.credentials_field, value) for value in values),
            **changes,
        }
        return self.guard.judge(Received(**settings))


class BasicTests(SchemeCase):
    """Basic compares what it is sent."""

    def basic(self, text: str, encoding: str = "utf-8") -> Judged:
        return self.ask(b"Basic " + b64encode(text.encode(encoding)))

    def test_accepts(self) -> None:
        """The right password, whatever characters are in it."""
        self.start("basic")
        self.assertEqual(self.basic("alice:secret").verdict, Accepted("alice"))
        self.assertEqual(self.basic("b\u00f6b:p:w").verdict, Accepted("b\u00f6b"))
        self.assertEqual(self.accounts.logons(), 2)
        self.assertIsInstance(self.ask().verdict, Refused)

    def test_refuses(self) -> None:
        """Any other is a failed logon, and what says nothing is none."""
        self.start("basic")
        for text in ("alice:", "alice:secret ", "alice:Secret", "carol:secret"):
            self.assertIsInstance(self.basic(text).verdict, Refused, text)
        self.assertEqual(self.accounts.failed_logons(), 4)
        self.assertIsInstance(self.basic("alice").verdict, Refused)
        self.assertIsInstance(self.basic("b\u00f6b:p:w", "latin-1").verdict, Refused)
        self.assertIsInstance(self.ask(b"Basic ?").verdict, Refused)
        self.assertEqual(self.accounts.failed_logons(), 4)

    def test_challenge(self) -> None:
        """The challenge names the realm, and the charset if that is wanted."""
        self.start(Basic(charset=True))
        [challenge] = parse_challenges(self.ask().challenges)
        self.assertEqual(challenge.params, {"realm": "a, realm", "charset": "UTF-8"})

    def test_quoted_realm(self) -> None:
        """Squid's way with a quoted realm is malformed, and understood."""
        self.start("basic", quoted_realm=True)
        self.assertEqual(self.ask().challenges, (b'Basic realm=""a, realm""',))
        [challenge] = parse_challenges(self.ask().challenges)
        self.assertEqual(challenge.realm, "a, realm")


class BearerTests(SchemeCase):
    """Bearer tokens are known or not."""

    def test_tokens(self) -> None:
        """A known token gets in; another is invalid; none is merely missing."""
        tokens = {"abc": "alice"}
        self.start(Bearer(tokens))
        self.assertEqual(self.ask(b"bearer abc").verdict, Accepted("alice"))
        judged = self.ask(b"Bearer abcd")
        [challenge] = parse_challenges(judged.challenges)
        self.assertEqual(challenge.params["error"], "invalid_token")
        [challenge] = parse_challenges(self.ask().challenges)
        self.assertNotIn("error", challenge.params)
        self.assertEqual(self.accounts.failed_logons(), 1)
        del tokens["abc"]
        self.assertIsInstance(self.ask(b"Bearer abc").verdict, Refused)

    def test_locked(self) -> None:
        """A token of a locked account is no better."""
        self.start(Bearer({"abc": "alice"}))
        self.accounts.lock("alice")
        self.assertIsInstance(self.ask(b"Bearer abc").verdict, Refused)
        self.assertEqual(self.accounts.log[-1].outcome, Outcome.LOCKED)

    def test_repr(self) -> None:
        """Tokens are not shown."""
        self.assertNotIn("abc", repr(Bearer({"abc": "alice"})))


class OAuthTests(SchemeCase):
    """OAuth 1.0 checks signatures, with oauthlib's client on the other side."""

    url = "http://www.example/p?q=1&z=%20"

    def setUp(self) -> None:
        super().setUp()
        self.settings = OAuth1(
            clients={"ck": "cs"}, tokens={"tk": ("ts", "alice")}, skew=None
        )
        self.start(self.settings)

    def signed(
        self,
        *,
        body: str | None = None,
        method: str = "GET",
        content: bytes | None = None,
        url: bytes | None = None,
        mend: tuple[str, str] = ("", ""),
        **settings: Any,
    ) -> Judged:
        """Sign a request; send it with *content* to *url*."""
        settings = {
            "client_secret": "cs",
            "resource_owner_key": "tk",
            "resource_owner_secret": "ts",
            **settings,
        }
        client = Client(settings.pop("client_key", "ck"), **settings)
        kind = {}
        if body is not None:
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
        _, headers, sent = client.sign(self.url, method, body, kind)
        value = headers["Authorization"].replace(*mend)
        fields = Fields((name.encode(), text.encode()) for name, text in kind.items())
        fields.add(b"Authorization", value.encode())
        return self.ask(
            method=method.encode(),
            url=url or self.url.encode(),
            fields=fields,
            content=(sent or "").encode() if content is None else content,
        )

    def test_accepts(self) -> None:
        """Every way of signing with a secret, and forms."""
        for method in ("HMAC-SHA1", "HMAC-SHA256", "HMAC-SHA512", "PLAINTEXT"):
            judged = self.signed(signature_method=method)
            self.assertEqual(judged.verdict, Accepted("alice"), method)
        judged = self.signed(method="POST", body="a=b+c&d=%C3%A4")
        self.assertEqual(judged.verdict, Accepted("alice"))
        self.assertEqual(judged.scheme, "OAuth")

    def test_two_legs(self) -> None:
        """Without a token a request is its consumer's."""
        judged = self.signed(resource_owner_key=None, resource_owner_secret=None)
        self.assertEqual(judged.verdict, Accepted("ck"))

    def test_rsa(self) -> None:
        """Signatures by a private key are checked by the public one."""
        key = rsa.generate_private_key(65537, 2048)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.start(OAuth1({"ck": public.decode()}))
        for method in ("RSA-SHA1", "RSA-SHA256"):
            settings: dict[str, Any] = {
                "signature_method": method,
                "rsa_key": private,
                "resource_owner_key": None,
            }
            self.assertEqual(self.signed(**settings).verdict, Accepted("ck"))
            forged = self.signed(**settings, mend=('signature="', 'signature="A'))
            self.assertIsInstance(forged.verdict, Refused)
            noise = self.signed(**settings, mend=('signature="', 'signature="%FC'))
            self.assertIsInstance(noise.verdict, Refused)
            moved = self.signed(**settings, url=b"http://www.example/q")
            self.assertIsInstance(moved.verdict, Refused)

    def test_refuses(self) -> None:
        """Wrong secrets, keys and tokens."""
        wrong: list[dict[str, Any]] = [
            {"client_secret": "x"},
            {"resource_owner_secret": "x"},
            {"resource_owner_key": "x"},
            {"client_key": "x"},
            {"signature_method": "PLAINTEXT", "client_secret": "x"},
        ]
        for settings in wrong:
            self.assertIsInstance(self.signed(**settings).verdict, Refused, settings)
        self.assertEqual(self.accounts.failed_logons(), 5)

    def test_tampered(self) -> None:
        """Neither URL, method, nor form can be changed afterwards."""
        tampered: list[dict[str, Any]] = [
            {"url": b"http://www.example/p?q=2&z=%20"},
            {"url": b"http://www.example/P?q=1&z=%20"},
            {"url": b"https://www.example/p?q=1&z=%20"},
            {"method": "POST", "body": "a=b", "content": b"a=c"},
            {"mend": ("oauth_nonce=", "oauth_nonce=1")},
        ]
        for changes in tampered:
            self.assertIsInstance(self.signed(**changes).verdict, Refused, changes)
        self.assertEqual(self.accounts.logons(), 0)

    def test_replay(self) -> None:
        """A nonce is good once for its timestamp (RFC 5849 3.3)."""
        for timestamp, verdict in (("1", Accepted), ("1", Refused), ("2", Accepted)):
            judged = self.signed(nonce="n", timestamp=timestamp)
            self.assertIsInstance(judged.verdict, verdict)

    def test_skew(self) -> None:
        """Timestamps may have to be of now."""
        self.start(OAuth1({"ck": "cs"}, {"tk": ("ts", "alice")}, skew=300.0))
        for timestamp, verdict in (
            ("1000000300", Accepted),
            ("1000000301", Refused),
            ("999999699", Refused),
        ):
            judged = self.signed(timestamp=timestamp)
            self.assertIsInstance(judged.verdict, verdict, timestamp)
        self.assertIsInstance(self.signed(timestamp="now").verdict, Refused)

    def test_body_hash(self) -> None:
        """Where content is hashed, it has to be that content."""
        client = Client("ck", "cs", "tk", "ts")
        kind = {"Content-Type": "text/plain"}
        _, headers, _ = client.sign(self.url, "POST", '{"a": 1}', kind)
        self.assertIn("oauth_body_hash", headers["Authorization"])
        fields = Fields(
            [
                (b"Content-Type", b"text/plain"),
                (b"Authorization", headers["Authorization"].encode()),
            ]
        )
        for content, verdict in (
            (b'{"a": 2}', Refused),
            (b'{"a": 1}', Accepted),
        ):
            judged = self.ask(
                method=b"POST", url=self.url.encode(), fields=fields, content=content
            )
            self.assertIsInstance(judged.verdict, verdict)

    def test_malformed(self) -> None:
        """What is no signature is refused."""
        for value in (
            b"OAuth",
            b"OAuth x",
            b'OAuth oauth_consumer_key="ck"',
            b'OAuth oauth_consumer_key="ck", oauth_signature="x", oauth_nonce="n", '
            b'oauth_timestamp="1", oauth_signature_method="NONE"',
            b'OAuth oauth_consumer_key="ck", oauth_signature="x", oauth_nonce="n", '
            b'oauth_timestamp="1", oauth_signature_method="PLAINTEXT", '
            b'oauth_version="2.0"',
        ):
            self.assertIsInstance(self.ask(value).verdict, Refused, value)
        self.accounts.lock("alice")
        self.assertIsInstance(self.signed().verdict, Refused)

    def test_repr(self) -> None:
        """Secrets are not shown."""
        self.assertNotIn("cs", repr(self.settings))
        self.assertNotIn("ts'", repr(self.settings))


class CheckpointTests(SchemeCase):
    """Several schemes at one door."""

    role = Role.PROXY

    def test_open(self) -> None:
        """A server that demands nothing lets everybody in."""
        self.start()
        self.assertIsInstance(self.ask().verdict, Accepted)
        self.assertIsInstance(self.ask(b"Basic ?").verdict, Accepted)

    def test_offers(self) -> None:
        """All are offered, in their order."""
        self.start("negotiate", "ntlm", "digest", "basic")
        offered = [each.scheme for each in parse_challenges(self.ask().challenges)]
        self.assertEqual(offered, ["Negotiate", "NTLM", "Digest", "Digest", "Basic"])

    def test_not_offered(self) -> None:
        """A scheme that was not offered is refused, however good."""
        self.start("ntlm")
        judged = self.ask(b"Basic " + b64encode(b"alice:secret"))
        self.assertIsInstance(judged.verdict, Refused)
        self.assertEqual(judged.scheme, "Basic")
        self.assertEqual(judged.challenges, (b"NTLM",))

    def test_two(self) -> None:
        """Two sets of credentials are none."""
        self.start("basic")
        good = b"Basic " + b64encode(b"alice:secret")
        self.assertIsInstance(self.ask(good, good).verdict, Refused)
        self.assertEqual(self.accounts.log, [])

    def test_instead(self) -> None:
        """One scheme's own words on a refusal go among the others' offers."""
        self.start("ntlm", Bearer({}), "basic")
        judged = self.ask(b"Bearer x")
        self.assertEqual(judged.challenges[0], b"NTLM")
        self.assertIn(b"invalid_token", judged.challenges[1])
        self.assertEqual(len(judged.challenges), 3)

    def test_midway(self) -> None:
        """In the middle of a handshake nothing else is offered, as by Squid."""
        self.start("ntlm", "basic")
        judged = self.ask(
            b"NTLM " + b64encode(b"NTLMSSP\0\1\0\0\0\7\x82\x08\xa2" + bytes(24))
        )
        self.assertIsInstance(judged.verdict, Challenged)
        self.assertEqual(len(judged.challenges), 1)

    def test_names(self) -> None:
        """Schemes have names; settings of one's own are taken as they are."""
        for name in SCHEMES:
            scheme(name.upper())
        own = Digest(qop="auth-int")
        self.assertIs(scheme(own), own)
        with self.assertRaisesRegex(ValueError, "'kerberos' is none of"):
            scheme("kerberos")
        self.assertEqual(scheme("ntlm"), NTLM())


class QuirkTests(SynchronousTestCase):
    """Quirks as people write them."""

    def test_read(self) -> None:
        """Switches and values, with either kind of dash."""
        self.assertEqual(
            read_quirks("closes, closes-midway,body=7,drop_times=1,drops=3,slow=.5"),
            Quirks(
                closes=True,
                closes_midway=True,
                body=7,
                drops=3,
                drop_times=1,
                slow=0.5,
            ),
        )
        self.assertEqual(
            read_quirks("chunked,http10,early,quoted-realm,reason=Who_are_you"),
            Quirks(
                chunked=True,
                http10=True,
                early=True,
                quoted_realm=True,
                reason=b"Who are you",
            ),
        )
        self.assertEqual(read_quirks(""), Quirks())

    def test_all(self) -> None:
        """Every quirk can be written."""
        for each in dataclasses.fields(Quirks):
            written = each.name if each.default is False else f"{each.name}=1"
            self.assertNotEqual(read_quirks(written), Quirks())

    def test_wrong(self) -> None:
        """What is no quirk is named."""
        for words, why in (
            ("moody", "'moody' is none of"),
            ("closes=1", "takes no value"),
            ("body", "takes a value"),
            ("body=x", "invalid literal"),
        ):
            with self.assertRaisesRegex(ValueError, why):
                read_quirks(words)
