"""Tests of OAuth 1.0a: what is signed, and the conversation that signs."""

from __future__ import annotations

import hashlib
import logging
import re
import sys
from base64 import b64decode, b64encode
from typing import Any
from urllib.parse import parse_qsl, unquote

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from oauthlib.common import Request
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from coda_twisted.auth.challenge import Challenge
from coda_twisted.auth.layer import AuthLayer, Context
from coda_twisted.auth.memory import SpaceMemory
from coda_twisted.auth.oauth1 import OAuth1Conversation
from coda_twisted.auth.oauth1_signing import (
    FORM,
    METHODS,
    Keys,
    Message,
    Placement,
    RSAKey,
    Signed,
    Signer,
    sign,
)
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import (
    AuthRequest,
    GiveUp,
    Peer,
    Proceed,
    Reply,
    Role,
    Step,
    Work,
)
from coda_twisted.errors import AuthenticationFailed, LocalProtocolError
from coda_twisted.interfaces import IAuthConversation

# The key of http://wiki.oauth.net/TestCases section 9.3, published for that.
TEST_KEY = """\
MIICdgIBADANBgkqhkiG9w0BAQEFAASCAmAwggJcAgEAAoGBALRiMLAh9iimur8V
A7qVvdqxevEuUkW4K+2KdMXmnQbG9Aa7k7eBjK1S+0LYmVjPKlJGNXHDGuy5Fw/d
7rjVJ0BLB+ubPK8iA/Tw3hLQgXMRRGRXXCn8ikfuQfjUS1uZSatdLB81mydBETlJ
hI6GH4twrbDJCR2Bwy/XWXgqgGRzAgMBAAECgYBYWVtleUzavkbrPjy0T5FMou8H
X9u2AC2ry8vD/l7cqedtwMPp9k7TubgNFo+NGvKsl2ynyprOZR1xjQ7WgrgVB+mm
uScOM/5HVceFuGRDhYTCObE+y1kxRloNYXnx3ei1zbeYLPCHdhxRYW7T0qcynNmw
rn05/KO2RLjgQNalsQJBANeA3Q4Nugqy4QBUCEC09SqylT2K9FrrItqL2QKc9v0Z
zO2uwllCbg0dwpVuYPYXYvikNHHg+aCWF+VXsb9rpPsCQQDWR9TT4ORdzoj+Nccn
qkMsDmzt0EfNaAOwHOmVJ2RVBspPcxt5iN4HI7HNeG6U5YsFBb+/GZbgfBT3kpNG
WPTpAkBI+gFhjfJvRw38n3g/+UeAkwMI2TJQS4n8+hid0uus3/zOjDySH3XHCUno
cn1xOJAyZODBo47E+67R4jV1/gzbAkEAklJaspRPXP877NssM5nAZMU0/O/NGCZ+
3jPgDUno6WbJn5cqm8MqWhW1xGkImgRk+fkDBquiq4gPiT898jusgQJAd5Zrr6Q8
AO/0isr/3aa6O6NLQxISLKcPDk2NOccAfS/xOtfOz4sJYM3+Bs4Io9+dZGSDCA54
Lw03eHTNQghS0A==
"""
PEM = f"-----BEGIN PRIVATE KEY-----\n{TEST_KEY}-----END PRIVATE KEY-----\n"

URI = b"https://api.example/path?q=1"
SECRETS = ("CSECRET", "TSECRET")
KEYS = Keys("ck", "CSECRET", "tk", "TSECRET")


def params_of(value: bytes | None) -> dict[str, str]:
    """The parameters of an Authorization field."""
    assert value is not None and value.startswith(b"OAuth ")
    found = re.findall(r'([a-z_]+)="([^"]*)"', value.decode("ascii"))
    return {name: unquote(text) for name, text in found}


def signed(
    message: Message, keys: Keys = KEYS, placement: Placement = Placement.HEADER
) -> Signed:
    return sign(keys, message, nonce="n", timestamp=7, placement=placement)


def signature(message: Message, keys: Keys = KEYS) -> str:
    return params_of(signed(message, keys).authorization)["oauth_signature"]


def vector(
    method: str,
    uri: str,
    params: list[tuple[str, str]],
    signer: Signer,
    body: str | None = None,
) -> tuple[str, str]:
    """Base string and signature for parameters that are given."""
    request = Request(uri, method, body, {})
    request.oauth_params = params
    return signer.base_string(request), signer.get_oauth_signature(request)


class VectorTests(SynchronousTestCase):
    """What others have published."""

    def published(
        self, step: str, method: str, uri: str, params: dict[str, str]
    ) -> str:
        secrets = {
            "initiate": "",
            "token": "hdhd0244k9j7ao03",
            "photos": "pfkkdhi9sl3r4s00",
        }
        signer = Signer("dpf43f3p2l4k3l03", "kd94hf93k423kf44", None, secrets[step])
        common = {
            "oauth_consumer_key": "dpf43f3p2l4k3l03",
            "oauth_signature_method": "HMAC-SHA1",
        }
        return vector(method, uri, [*common.items(), *params.items()], signer)[1]

    def test_temporary_credentials(self) -> None:
        """RFC 5849 1.2: the first of three legs."""
        made = self.published(
            "initiate",
            "POST",
            "https://photos.example.net/initiate",
            {
                "oauth_timestamp": "137131200",
                "oauth_nonce": "wIjqoS",
                "oauth_callback": "http://printer.example.com/ready",
            },
        )
        self.assertEqual(made, "74KNZJeDHnMBp0EMJ9ZHt/XKycU=")

    def test_token(self) -> None:
        """RFC 5849 1.2: the last of three legs."""
        made = self.published(
            "token",
            "POST",
            "https://photos.example.net/token",
            {
                "oauth_token": "hh5s93j4hdidpola",
                "oauth_timestamp": "137131201",
                "oauth_nonce": "walatlh",
                "oauth_verifier": "hfdp7dh39dks9884",
            },
        )
        self.assertEqual(made, "gKgrFCywp7rO0OXSjdot/IHF7IU=")

    def test_resource(self) -> None:
        """RFC 5849 1.2: the photograph itself."""
        made = self.published(
            "photos",
            "GET",
            "http://photos.example.net/photos?file=vacation.jpg&size=original",
            {
                "oauth_token": "nnch734d00sl2jdk",
                "oauth_timestamp": "137131202",
                "oauth_nonce": "chapoH",
            },
        )
        self.assertEqual(made, "MdpQcU8iPSUjWoN/UDMsK2sui9I=")

    def test_base_string(self) -> None:
        """RFC 5849 3.1 and 3.4.1.1: parameters of all three sources, in order."""
        # The signature that 3.1 shows is not the one of its own secrets; this is,
        # as other libraries' tests have it.
        text, made = vector(
            "POST",
            "http://example.com/request?b5=%3D%253D&a3=a&c%40=&a2=r%20b",
            [
                ("oauth_consumer_key", "9djdj82h48djs9d2"),
                ("oauth_token", "kkk9d7dh3k39sjv7"),
                ("oauth_signature_method", "HMAC-SHA1"),
                ("oauth_timestamp", "137131201"),
                ("oauth_nonce", "7d8f3e4a"),
            ],
            Signer("9djdj82h48djs9d2", "j49sk3j29djd", None, "dh893hdasih9"),
            "c2&a3=2+q",
        )
        self.assertEqual(
            text,
            "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q"
            "%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D%26c2%3D%26oauth_consumer_"
            "key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_m"
            "ethod%3DHMAC-SHA1%26oauth_timestamp%3D137131201%26oauth_token%3Dkkk"
            "9d7dh3k39sjv7",
        )
        self.assertEqual(made, "r6/TJjbCOr97/+UU0NsvSne7s5g=")

    def test_base_string_uri(self) -> None:
        """RFC 5849 3.4.1.2: lower case, and no default port; others stay."""
        for uri, expected in (
            ("http://EXAMPLE.COM:80/r%20v/X?id=123", "http://example.com/r%20v/X"),
            ("https://www.example.net:8080/?q=1", "https://www.example.net:8080/"),
            ("https://[::1]:443", "https://[::1]/"),
        ):
            text, _ = vector("get", uri, [], Signer("k"))
            self.assertEqual(unquote(text.split("&")[1]), expected)
            self.assertTrue(text.startswith("GET&"))

    def test_rsa(self) -> None:
        """http://wiki.oauth.net/TestCases 9.3; RFC 5849 3.4.3 gives none."""
        signer = Signer("dpf43f3p2l4k3l03", signature_method="RSA-SHA1")
        signer.rsa_key = RSAKey(PEM)
        _, made = vector(
            "GET",
            "http://photos.example.net/photos?file=vacaction.jpg&size=original",
            [
                ("oauth_consumer_key", "dpf43f3p2l4k3l03"),
                ("oauth_signature_method", "RSA-SHA1"),
                ("oauth_timestamp", "1196666512"),
                ("oauth_nonce", "13917289812797014437"),
                ("oauth_version", "1.0"),
            ],
            signer,
        )
        self.assertEqual(
            made,
            "jvTp/wX1TYtByB1m+Pbyo0lnCOLIsyGCH7wke8AUs3BpnwZJtAuEJkvQL2/9n4s5"
            "wUmUl4aCI4BwpraNx4RtEXMe5qg5T1LVTGliMRpKasKsW//e+RinhejgCuzoH26d"
            "yF8iY2ZZ/5D1ilgeijhV/vBka5twt399mXwaYdCwFYE=",
        )

    def test_plaintext(self) -> None:
        """RFC 5849 3.4.4 (and 2.1): the two secrets, encoded and joined."""
        keys = Keys("jd83jd92dhsh93js", "ja893SD9", method="PLAINTEXT")
        message = Message(b"POST", b"https://server.example.com/request_temp")
        self.assertEqual(signature(message, keys), "ja893SD9&")
        keys = Keys("k", "a&b", "t", "c d", method="PLAINTEXT")
        self.assertEqual(signature(message, keys), "a%26b&c%20d")

    def test_body_hash(self) -> None:
        """draft-eaton-oauth-bodyhash 4 (A): the hash of "Hello World!"."""
        keys = Keys("consumer", body_hash=True)
        message = Message(b"PUT", URI, b"", b"text/plain", b"Hello World!")
        made = params_of(signed(message, keys).authorization)
        self.assertEqual(made["oauth_body_hash"], "Lve95gjOVATpfV8EL5X4nxwjKHE=")


class MethodTests(SynchronousTestCase):
    """Every signature method, checked by what is not oauthlib."""

    def test_hmac(self) -> None:
        """The methods differ in the length of what they make, and are none else's."""
        sizes = {"HMAC-SHA1": 20, "HMAC-SHA256": 32, "HMAC-SHA512": 64}
        message = Message(b"GET", URI)
        for method, size in sizes.items():
            keys = Keys("ck", "CSECRET", "tk", "TSECRET", method=method)
            made = signature(message, keys)
            self.assertEqual(len(b64decode(made)), size)
            other = Keys("ck", "CSECRET", "tk", "OTHER", method=method)
            self.assertNotEqual(made, signature(message, other))

    def test_rsa_verifies(self) -> None:
        """Whoever has the public key can check each of the methods with RSA."""
        key = rsa.generate_private_key(65537, 2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        uri = "https://api.example/path"
        for method, algorithm in (
            ("RSA-SHA1", hashes.SHA1()),
            ("RSA-SHA256", hashes.SHA256()),
            ("RSA-SHA512", hashes.SHA512()),
        ):
            keys = Keys("ck", token="tk", method=method, rsa_key=RSAKey(pem))
            made = params_of(signed(Message(b"GET", uri.encode()), keys).authorization)
            octets = b64decode(made.pop("oauth_signature"))
            text, _ = vector("GET", uri, list(made.items()), Signer("k"))
            key.public_key().verify(
                octets, text.encode("ascii"), padding.PKCS1v15(), algorithm
            )

    def test_without_pyjwt(self) -> None:
        """Trap: oauthlib needs PyJWT for RSA.  We do not."""
        self.patch(sys, "modules", {**sys.modules, "jwt": None, "jwt.algorithms": None})
        keys = Keys("ck", method="RSA-SHA256", rsa_key=RSAKey(PEM))
        self.assertTrue(signature(Message(b"GET", URI), keys))

    def test_key_is_parsed_once(self) -> None:
        """Trap: oauthlib parses the PEM for every signature, for tens of ms."""
        calls = []
        load = serialization.load_pem_private_key

        def counted(*args: Any) -> Any:
            calls.append(args)
            return load(*args)

        self.patch(serialization, "load_pem_private_key", counted)
        keys = Keys("ck", method="RSA-SHA1", rsa_key=RSAKey(PEM))
        self.assertEqual(calls, [])
        for _ in range(3):
            signed(Message(b"GET", URI), keys)
        self.assertEqual(len(calls), 1)

    def test_no_key(self) -> None:
        """What is no RSA key is refused, and not shown."""
        curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        for pem in ("SECRET", curve):
            keys = Keys("ck", method="RSA-SHA1", rsa_key=RSAKey(pem))
            error = self.assertRaises(
                LocalProtocolError, signed, Message(b"GET", URI), keys
            )
            self.assertNotIn("SECRET", repr(error))
        self.assertNotIn("SECRET", repr(RSAKey("SECRET")))

    def test_bad_keys(self) -> None:
        """Settings that cannot work are refused at once."""
        for settings in (
            {"method": "HMAC-MD5"},
            {"method": "RSA-SHA1"},
            {"realm": "a\r\nb"},
            {"realm": "\N{POUND SIGN}"},
        ):
            self.assertRaises(ValueError, Keys, "ck", **settings)
        self.assertEqual(len(METHODS), 7)

    def test_repr(self) -> None:
        """Nothing shows a secret or a token."""
        shown = repr(KEYS) + repr(signed(Message(b"GET", URI)))
        for secret in (*SECRETS, "'tk'", "signature="):
            self.assertNotIn(secret, shown)


class TrapTests(SynchronousTestCase):
    """What oauthlib's client trips over (wire-facts 3.6)."""

    def post(self, content_type: bytes, content: bytes | None) -> Message:
        return Message(b"POST", URI, b"", content_type, content)

    def test_form_type_spelling(self) -> None:
        """It compares the Content-Type exactly; we tell a form in any spelling."""
        plain = signature(self.post(FORM, b"a=1"))
        for spelling in (
            b"application/x-www-form-urlencoded; charset=UTF-8",
            b"Application/X-WWW-Form-URLEncoded",
            b"  application/x-www-form-urlencoded ;x=y",
        ):
            self.assertEqual(signature(self.post(spelling, b"a=1")), plain)
        self.assertNotEqual(signature(self.post(FORM, b"a=2")), plain)

    def test_form_without_content(self) -> None:
        """It refuses a form's type without a form; there is just nothing to sign."""
        self.assertEqual(
            signature(self.post(FORM, b"")), signature(self.post(b"", b""))
        )

    def test_undecodable_forms(self) -> None:
        """It refuses characters that clients leave as they are; servers read them."""
        for raw, proper in (
            (b'a[]={"b": 1}', b"a%5B%5D=%7B%22b%22%3A%201%7D"),
            (b"a=100%&b=%zz", b"a=100%25&b=%25zz"),
            ("a=\N{POUND SIGN}".encode(), b"a=%C2%A3"),
        ):
            self.assertEqual(
                signature(self.post(FORM, raw)), signature(self.post(FORM, proper))
            )

    def test_undecodable_uri(self) -> None:
        """It refuses brackets in a query, and repeats the query in the error."""
        for raw, proper in (
            (b"/?f[a]=1", b"/?f%5Ba%5D=1"),
            (b"/?q=a|b^c", b"/?q=a%7Cb%5Ec"),
            (b"/?q=50%", b"/?q=50%25"),
        ):
            base = b"https://api.example"
            self.assertEqual(
                signature(Message(b"GET", base + raw)),
                signature(Message(b"GET", base + proper)),
            )
        unchanged = signed(Message(b"GET", b"https://api.example/?f[a]=1"))
        self.assertEqual(unchanged.uri, b"https://api.example/?f[a]=1")

    def test_form_with_get(self) -> None:
        """A form with GET or HEAD is refused, by an error of ours."""
        for method in (b"GET", b"HEAD", b"get"):
            message = Message(method, URI, b"", FORM, b"a=1")
            error = self.assertRaises(LocalProtocolError, signed, message)
            self.assertIn("GET", str(error))

    def test_form_not_at_hand(self) -> None:
        """A form that is streamed cannot be signed, and is not sent unsigned."""
        self.assertRaises(LocalProtocolError, signed, self.post(FORM, None))

    def test_other_content(self) -> None:
        """It takes any text for a form, and fails on octets; it gets to see none."""
        nothing = signature(self.post(b"application/json", None))
        for content in (b"hello", b'{"a": 1}', b"a=1", b"\xff\xfe", b""):
            for kind in (b"application/json", b"multipart/form-data; boundary=x", b""):
                self.assertEqual(signature(self.post(kind, content)), nothing)

    def test_body_hash(self) -> None:
        """It adds a hash to texts, always by SHA-1; ours is wanted, and by method."""
        content = b"\xff\xfe"
        made = params_of(signed(self.post(b"image/png", content)).authorization)
        self.assertNotIn("oauth_body_hash", made)
        for method, name in (
            ("HMAC-SHA1", "sha1"),
            ("HMAC-SHA512", "sha512"),
            ("PLAINTEXT", "sha1"),
        ):
            keys = Keys("ck", "cs", method=method, body_hash=True)
            made = params_of(
                signed(self.post(b"image/png", content), keys).authorization
            )
            expected = hashlib.new(name, content).digest()
            self.assertEqual(b64decode(made["oauth_body_hash"]), expected)
        keys = Keys("ck", "cs", body_hash=True)
        for message in (self.post(FORM, b"a=1"), self.post(b"image/png", None)):
            made = params_of(signed(message, keys).authorization)
            self.assertNotIn("oauth_body_hash", made)

    def test_host(self) -> None:
        """What is signed is the Host that is sent, without a default port."""
        uri = b"https://10.0.0.1:443/path?q=1"
        self.assertEqual(
            signature(Message(b"GET", uri, host=b"API.example:443")),
            signature(Message(b"GET", URI)),
        )

    def test_fragment(self) -> None:
        """A fragment is not sent, and not signed."""
        self.assertEqual(
            signature(Message(b"GET", URI + b"#top")), signature(Message(b"GET", URI))
        )

    def test_realm(self) -> None:
        """It puts a realm between quotes as it is; ours cannot break out."""
        keys = Keys("ck", "cs", realm=r'a"b\c')
        value = signed(Message(b"GET", URI), keys).authorization
        assert value is not None
        self.assertTrue(value.startswith(rb'OAuth realm="a\"b\\c", oauth_nonce='))
        self.assertEqual(
            params_of(value)["oauth_signature"],
            signature(Message(b"GET", URI), Keys("ck", "cs")),
        )

    def test_double_encoding(self) -> None:
        """It decodes its parameters once too often outside the field; we do not."""
        keys = Keys("a%41", "cs")
        in_query = signed(Message(b"GET", URI), keys, Placement.QUERY).uri
        made = dict(parse_qsl(in_query.partition(b"?")[2].decode("ascii")))
        self.assertEqual(made["oauth_consumer_key"], "a%41")
        self.assertEqual(made["oauth_signature"], signature(Message(b"GET", URI), keys))

    def test_nothing_is_logged(self) -> None:
        """It logs what it signs, forms with passwords in them included."""
        logger = logging.getLogger("oauthlib")
        records: list[str] = []

        class Keep(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                records.append(record.getMessage())

        handler, level = Keep(), logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        self.addCleanup(logger.removeHandler, handler)
        self.addCleanup(logger.setLevel, level)
        for method in ("HMAC-SHA1", "PLAINTEXT"):
            keys = Keys("ck", "CSECRET", "tk", "TSECRET", method=method)
            for placement in Placement:
                signed(self.post(FORM, b"password=FORMSECRET"), keys, placement)
        logged = "\n".join(records)
        for secret in (*SECRETS, "FORMSECRET", "tk"):
            self.assertNotIn(secret, logged)


class PlacementTests(SynchronousTestCase):
    """The three places for the parameters (RFC 5849 3.5)."""

    def test_header(self) -> None:
        """3.5.1: in the Authorization field; URI and content stay."""
        made = signed(Message(b"POST", URI, b"", FORM, b"a=b+c"))
        self.assertEqual((made.uri, made.content), (URI, None))
        params = params_of(made.authorization)
        self.assertEqual(
            sorted(params),
            [
                "oauth_consumer_key",
                "oauth_nonce",
                "oauth_signature",
                "oauth_signature_method",
                "oauth_timestamp",
                "oauth_token",
                "oauth_version",
            ],
        )
        self.assertEqual((params["oauth_nonce"], params["oauth_timestamp"]), ("n", "7"))

    def test_query(self) -> None:
        """3.5.3: behind the query's own parameters."""
        made = signed(Message(b"GET", URI), placement=Placement.QUERY)
        self.assertEqual((made.authorization, made.content), (None, None))
        pairs = parse_qsl(made.uri.decode("ascii").partition("?")[2])
        self.assertEqual(pairs[0], ("q", "1"))
        self.assertEqual(
            dict(pairs)["oauth_signature"], signature(Message(b"GET", URI))
        )

    def test_body(self) -> None:
        """3.5.2: behind the form's own parameters."""
        message = Message(b"POST", URI, b"", FORM, b"a=b+c")
        made = signed(message, placement=Placement.BODY)
        self.assertEqual((made.authorization, made.uri), (None, URI))
        assert made.content is not None
        pairs = parse_qsl(made.content.decode("ascii"))
        self.assertEqual(pairs[0], ("a", "b c"))
        self.assertEqual(dict(pairs)["oauth_signature"], signature(message))

    def test_body_of_nothing(self) -> None:
        """A POST without content gets a form, also where it says that it has one."""
        for content_type in (b"", FORM):
            message = Message(b"POST", URI, b"", content_type, b"")
            made = signed(message, placement=Placement.BODY)
            assert made.content is not None
            pairs = dict(parse_qsl(made.content.decode("ascii")))
            self.assertEqual(pairs["oauth_signature"], signature(message))

    def test_body_of_something_else(self) -> None:
        """Only a form can hold parameters, and not with GET."""
        for message in (
            Message(b"POST", URI, b"", b"text/plain", b"x"),
            Message(b"POST", URI, b"", b"", b"x"),
            Message(b"GET", URI),
        ):
            self.assertRaises(
                LocalProtocolError, signed, message, placement=Placement.BODY
            )


ORIGIN = Peer(Role.ORIGIN, "https", "api.example", 443)
REQUEST = AuthRequest(b"GET", b"http://ignored/", b"/path?q=1")
CHALLENGE = Challenge("OAuth", params={"realm": "r"})
SLOW = Keys("ck", method="RSA-SHA1", rsa_key=RSAKey(PEM))


class Counter:
    """Entropy that never repeats itself, and a clock."""

    def __init__(self) -> None:
        self.taken = 0

    def __call__(self, size: int) -> bytes:
        self.taken += 1
        return self.taken.to_bytes(size, "big")

    def now(self) -> float:
        return 1000.9


def context(entropy: Any = None) -> Context:
    return Context(
        policy=AuthPolicy(schemes=("oauth", "basic")),
        memory=SpaceMemory(),
        channel_bindings=None,
        entropy=entropy or Counter(),
    )


def conversation(
    keys: Keys = KEYS, peer: Peer = ORIGIN, **settings: Any
) -> OAuth1Conversation:
    return OAuth1Conversation(keys, peer, context(), Counter().now, **settings)


def problem(name: str) -> Challenge:
    return Challenge("OAuth", params={"realm": "r", "oauth_problem": name})


class ConversationTests(SynchronousTestCase):
    """Signing on one connection."""

    def reply(self, step: Step) -> dict[str, str]:
        assert isinstance(step, Reply), step
        self.assertTrue(step.send_body)
        self.assertFalse(step.bound)
        return params_of(step.value)

    def test_interface(self) -> None:
        """OAuth is a conversation like others; it authenticates requests."""
        oauth = conversation()
        self.assertTrue(verifyObject(IAuthConversation, oauth))
        self.assertEqual(oauth.scheme, "OAuth")
        self.assertFalse(oauth.connection_bound)
        self.assertNotIn("CSECRET", repr(oauth))

    def test_unasked(self) -> None:
        """The origin's URI is signed, not the target on the wire."""
        made = self.reply(conversation().first(REQUEST))
        self.assertEqual(made["oauth_nonce"], "00" * 15 + "01")
        self.assertEqual(made["oauth_timestamp"], "1000")
        expected = sign(
            KEYS, Message(b"GET", URI), nonce=made["oauth_nonce"], timestamp=1000
        )
        self.assertEqual(made, params_of(expected.authorization))

    def test_asked(self) -> None:
        """A challenge to an unsigned request is answered by a signature."""
        oauth = conversation()
        self.reply(oauth.challenged(CHALLENGE, REQUEST))
        self.assertEqual(oauth.accepted(None, None), Proceed())

    def test_fresh_nonce(self) -> None:
        """Every attempt has a nonce of its own."""
        oauth = conversation()
        nonces = []
        for _ in range(3):
            nonces.append(self.reply(oauth.first(REQUEST))["oauth_nonce"])
            oauth.accepted(None, None)
        self.assertEqual(len(set(nonces)), 3)

    def test_other_hosts(self) -> None:
        """Ports and IPv6 addresses are signed as they are sent; "*" is no path."""
        peer = Peer(Role.ORIGIN, "https", "::1", 8443)
        request = AuthRequest(b"OPTIONS", b"*", b"*")
        made = self.reply(conversation(peer=peer).first(request))
        expected = sign(
            KEYS,
            Message(b"OPTIONS", b"https://[::1]:8443"),
            nonce=made["oauth_nonce"],
            timestamp=1000,
        )
        self.assertEqual(made, params_of(expected.authorization))

    def test_content(self) -> None:
        """A form is signed where the request says that it is one."""
        request = FormRequest()
        made = self.reply(conversation().first(request))  # type: ignore[arg-type]
        expected = sign(
            KEYS,
            Message(b"POST", URI, b"other.example", FORM, b"a=1"),
            nonce=made["oauth_nonce"],
            timestamp=1000,
        )
        self.assertEqual(made, params_of(expected.authorization))

    def test_unsignable(self) -> None:
        """A form that is streamed is not sent with a signature that lacks it."""
        request = FormRequest()
        request.content = None
        step = conversation().first(request)  # type: ignore[arg-type]
        assert isinstance(step, GiveUp)
        self.assertFalse(step.rejected)
        self.assertIn("at hand", step.reason)

    def test_refused(self) -> None:
        """A refused signature is not made again; that says nothing of the secrets."""
        oauth = conversation()
        oauth.first(REQUEST)
        step = oauth.challenged(CHALLENGE, REQUEST)
        self.assertEqual(
            step,
            GiveUp("the signature was not accepted", scheme="OAuth", realm="r"),
        )
        self.assertRaises(LocalProtocolError, oauth.first, REQUEST)
        self.assertRaises(LocalProtocolError, oauth.challenged, CHALLENGE, REQUEST)
        self.assertRaises(LocalProtocolError, oauth.accepted, None, None)
        oauth.lost()
        self.assertRaises(LocalProtocolError, oauth.first, REQUEST)

    def test_secrets_refused(self) -> None:
        """They are refused where the server says so."""
        for name, rejected in (
            ("token_revoked", True),
            ("consumer_key_unknown", True),
            ("timestamp_refused", False),
            ("<script>", False),
        ):
            oauth = conversation()
            oauth.first(REQUEST)
            step = oauth.challenged(problem(name), REQUEST)
            assert isinstance(step, GiveUp)
            self.assertEqual(step.rejected, rejected)
            self.assertEqual(name in step.reason, name != "<script>")

    def test_nonce_used(self) -> None:
        """A nonce that was seen before is replaced, once for each request."""
        oauth = conversation()
        first = self.reply(oauth.first(REQUEST))
        again = self.reply(oauth.challenged(problem("nonce_used"), REQUEST))
        self.assertNotEqual(first["oauth_nonce"], again["oauth_nonce"])
        oauth.accepted(None, None)
        self.reply(oauth.first(REQUEST))
        self.reply(oauth.challenged(problem("nonce_used"), REQUEST))
        step = oauth.challenged(problem("nonce_used"), REQUEST)
        self.assertIsInstance(step, GiveUp)

    def test_rsa_is_work(self) -> None:
        """Signing that takes milliseconds is left to another thread."""
        oauth = conversation(SLOW)
        work = oauth.first(REQUEST)
        assert isinstance(work, Work)
        self.assertFalse(work.logon)
        made = self.reply(oauth.worked(work.run()))
        self.assertEqual(len(b64decode(made["oauth_signature"])), 128)

    def test_work_fails(self) -> None:
        """A key that cannot be read is the end; errors of others are not quoted."""
        for error, reason in (
            (LocalProtocolError("no key"), "the request cannot be signed: no key"),
            (ValueError("SECRET"), "the request cannot be signed: ValueError"),
        ):
            oauth = conversation(SLOW)
            oauth.first(REQUEST)
            self.assertEqual(oauth.failed(error), GiveUp(reason, scheme="OAuth"))

    def test_no_work(self) -> None:
        """Results of work that was not asked for are refused."""
        oauth = conversation()
        self.assertRaises(LocalProtocolError, oauth.worked, None)
        self.assertRaises(LocalProtocolError, oauth.failed, ValueError())

    def test_lost(self) -> None:
        """After a lost connection the same request is signed anew."""
        oauth = conversation()
        first = self.reply(oauth.first(REQUEST))
        oauth.lost()
        again = self.reply(oauth.challenged(CHALLENGE, REQUEST))
        self.assertNotEqual(first["oauth_nonce"], again["oauth_nonce"])

    def test_no_proxy(self) -> None:
        """OAuth 1.0a signs origins' URIs: it has nothing to say to a proxy."""
        proxy = Peer(Role.PROXY, "https", "proxy.example", 3128)
        error = self.assertRaises(AuthenticationFailed, conversation, peer=proxy)
        self.assertEqual(error.scheme, "OAuth")

    def test_plaintext_in_clear(self) -> None:
        """RFC 5849 3.4.4: PLAINTEXT wants TLS; signatures do not."""
        keys = Keys("ck", "CSECRET", method="PLAINTEXT")
        clear = Peer(Role.ORIGIN, "http", "api.example", 80)
        error = self.assertRaises(AuthenticationFailed, conversation, keys, clear)
        self.assertNotIn("CSECRET", str(error))
        self.reply(conversation(keys).first(REQUEST))
        self.reply(conversation(keys, clear, allow_cleartext=True).first(REQUEST))
        self.reply(conversation(KEYS, clear).first(REQUEST))


class FormRequest:
    """A request that tells what an AuthRequest does not tell yet."""

    method = b"POST"
    target = path = b"/path?q=1"
    host = b"other.example"
    content_type = FORM
    content: bytes | None = b"a=1"


class LayerTests(SynchronousTestCase):
    """Answering challenges, as any other scheme."""

    identity = "me"
    fingerprint = 1

    def setUp(self) -> None:
        self.context = context()
        self.layer = AuthLayer(ORIGIN, self, self.context)  # type: ignore[arg-type]

    def schemes(self) -> list[str]:
        return ["oauth"]

    def conversation(self, scheme: str, peer: Peer, context: Context) -> Any:
        return OAuth1Conversation(KEYS, peer, context, Counter().now)

    def test_learnt(self) -> None:
        """What a challenge has taught is said unasked from then on."""
        fields = [(b"WWW-Authenticate", b'OAuth realm="r", Basic realm="r"')]
        self.assertEqual(self.layer.start(REQUEST), Proceed())
        step = self.layer.challenged(fields, REQUEST)
        assert isinstance(step, Reply)
        self.assertEqual(self.layer.accepted([]), Proceed())
        again = self.layer.start(REQUEST)
        assert isinstance(again, Reply)
        self.assertNotEqual(again.value, step.value)
        self.assertNotIn(b64encode(b"CSECRET").decode(), repr(again))

    def test_refused(self) -> None:
        """A refused signature does not bar the identity."""
        fields = [(b"WWW-Authenticate", b'OAuth realm="r"')]
        self.layer.start(REQUEST)
        self.layer.challenged(fields, REQUEST)
        step = self.layer.challenged(fields, REQUEST)
        assert isinstance(step, GiveUp)
        self.assertFalse(step.rejected)
        self.assertIn("signature was not accepted", step.reason)
