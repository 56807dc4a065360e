"""Tests of how Digest challenges are answered, and of what the answers say."""

from __future__ import annotations

import hashlib
import unicodedata
from base64 import b64decode
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.auth.challenge import Challenge, parse_challenges
from coda_twisted.auth.digest import DigestConversation
from coda_twisted.auth.digest_terms import available
from coda_twisted.auth.memory import SpaceMemory
from coda_twisted.auth.policy import AuthPolicy
from coda_twisted.auth.steps import AuthRequest, GiveUp, Proceed, Reply
from coda_twisted.errors import AuthenticationFailed, MutualAuthenticationFailed
from tests.digest import (
    HASHES,
    ORIGIN,
    PLAIN,
    challenge,
    fields_of,
    proven,
    response,
    talk,
)


class ExampleTests(SynchronousTestCase):
    """The examples of the RFCs, octet by octet where the order is ours as well."""

    def test_rfc7616_md5(self) -> None:
        """RFC 7616 3.9.1, with MD5."""
        self.assertEqual(
            self.answer_3_9_1("MD5"),
            b'Digest username="Mufasa", realm="http-auth@example.org", '
            b'uri="/dir/index.html", algorithm=MD5, '
            b'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, '
            b'cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, '
            b'response="8ca523f5e9506fed4657c9700eebdbec", '
            b'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"',
        )

    def test_rfc7616_sha256(self) -> None:
        """RFC 7616 3.9.1, with SHA-256."""
        self.assertEqual(
            self.answer_3_9_1("SHA-256"),
            b'Digest username="Mufasa", realm="http-auth@example.org", '
            b'uri="/dir/index.html", algorithm=SHA-256, '
            b'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, '
            b'cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, '
            b'response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1'
            b'", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"',
        )

    def answer_3_9_1(self, algorithm: str) -> bytes:
        cnonce = b64decode("f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
        [asked] = parse_challenges(
            [
                b'Digest realm="http-auth@example.org", qop="auth, auth-int", '
                b"algorithm=" + algorithm.encode() + b", "
                b'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
                b'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
            ]
        )
        request = AuthRequest(b"GET", b"/dir/index.html", b"/dir/index.html")
        step = talk(ORIGIN, entropy=lambda size: cnonce).challenged(asked, request)
        assert isinstance(step, Reply)
        return step.value

    def test_rfc7616_sha512_256(self) -> None:
        """RFC 7616 3.9.2, with the values of erratum 4897."""
        cnonce = b64decode("NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v")
        [asked] = parse_challenges(
            [
                b'Digest realm="api@example.org", qop="auth", algorithm=SHA-512-256, '
                b'nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", '
                b'opaque="HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS", '
                b"charset=UTF-8, userhash=true"
            ]
        )
        digest = talk(
            ORIGIN,
            username="J\xe4s\xf8n Doe",
            password="Secret, or not?",
            entropy=lambda size: cnonce,
        )
        request = AuthRequest(b"GET", b"/doe.json", b"/doe.json")
        self.assertEqual(
            digest.challenged(asked, request),
            Reply(
                b"Digest username="
                b'"793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b", '
                b'realm="api@example.org", uri="/doe.json", algorithm=SHA-512-256, '
                b'nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", nc=00000001, '
                b'cnonce="NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v", qop=auth, '
                b"response="
                b'"3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5", '
                b'opaque="HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS", userhash=true'
            ),
        )

    def test_rfc2617(self) -> None:
        """RFC 2617 3.5."""
        [asked] = parse_challenges(
            [
                b'Digest realm="testrealm@host.com", qop="auth,auth-int", '
                b'nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
                b'opaque="5ccc069c403ebaf9f0171e9517f40e41"'
            ]
        )
        digest = talk(
            ORIGIN,
            password="Circle Of Life",
            entropy=lambda size: b64decode("0a4f113b"),
        )
        request = AuthRequest(b"GET", b"/dir/index.html", b"/dir/index.html")
        self.assertEqual(
            fields_of(digest.challenged(asked, request)),
            {
                "username": "Mufasa",
                "realm": "testrealm@host.com",
                "nonce": "dcd98b7102dd2f0e8b11d0f600bfb0c093",
                "uri": "/dir/index.html",
                "qop": "auth",
                "nc": "00000001",
                "cnonce": "0a4f113b",
                "response": "6629fae49393a05397450978507c4ef1",
                "opaque": "5ccc069c403ebaf9f0171e9517f40e41",
            },
        )


texts = st.text(
    st.characters(
        exclude_categories=["Cs"], exclude_characters="\x7f", min_codepoint=32
    ),
    max_size=12,
)
realms = st.text(st.characters(min_codepoint=0xA0, max_codepoint=0xFF), max_size=8)


def octets(text: str, *, utf8: bool) -> bytes:
    """Encode names as RFC 7616 3.3 says, and without charset as people hope."""
    if not utf8 and all(ord(c) < 256 for c in text):
        return text.encode("latin-1")
    return unicodedata.normalize("NFC", text).encode()


class ArithmeticTests(SynchronousTestCase):
    @given(
        username=texts,
        password=texts,
        realm=realms,
        algorithm=st.sampled_from(
            [None, *HASHES, *(f"{name}-sess" for name in HASHES)]
        ),
        qop=st.sampled_from([None, "auth", "auth-int"]),
        utf8=st.booleans(),
        body=st.binary(max_size=20),
        requests=st.integers(1, 3),
    )
    @settings(max_examples=100, deadline=None)
    def test_response(
        self,
        username: str,
        password: str,
        realm: str,
        algorithm: str | None,
        qop: str | None,
        utf8: bool,
        body: bytes,
        requests: int,
    ) -> None:
        """Whatever is asked for, the answers are what RFC 7616 3.4 says."""
        more = {} if algorithm is None else {"algorithm": algorithm}
        if utf8:
            more["charset"] = "UTF-8"
        asked = challenge(realm=realm, qop=qop, **more)
        request = AuthRequest(b"POST", b"/x", b"/x", body)
        digest = talk(ORIGIN, username=username, password=password)
        step = digest.challenged(asked, request)
        for number in range(1, requests + 1):
            fields = fields_of(step)
            self.assertEqual(
                fields["response"],
                response(
                    fields,
                    octets(username, utf8=utf8),
                    octets(password, utf8=utf8),
                    "POST",
                    body,
                ),
            )
            self.assertEqual(fields.get("algorithm"), algorithm)
            if qop is not None:
                self.assertEqual(int(fields["nc"], 16), number)
            digest.accepted(None, None)
            step = digest.first(request)

    def test_hash_functions_of_this_python(self) -> None:
        """A hash function that this Python lacks is none that we know."""
        self.assertEqual(
            available({"MD5": "md5", "SHA-3": "unheard-of"}), {"MD5": "md5"}
        )


class QopTests(SynchronousTestCase):
    def test_auth_is_preferred(self) -> None:
        """Of auth and auth-int, auth is taken."""
        step = talk().challenged(challenge(qop="auth-int,auth"), PLAIN)
        self.assertEqual(fields_of(step)["qop"], "auth")

    def test_none(self) -> None:
        """A server that follows RFC 2069 gets what it knows, and nothing else."""
        fields = fields_of(talk().challenged(challenge(qop=None), PLAIN))
        self.assertEqual(set(fields), {"username", "realm", "nonce", "uri", "response"})
        self.assertEqual(
            fields["response"], response(fields, b"Mufasa", b"Circle of Life", "GET")
        )

    def test_empty(self) -> None:
        """An empty list of options is none."""
        self.assertNotIn("qop", fields_of(talk().challenged(challenge(qop=""), PLAIN)))

    def test_auth_int(self) -> None:
        """Content at hand is signed where the peer insists."""
        request = AuthRequest(b"PUT", b"http://h/x", b"/x", b"content")
        fields = fields_of(talk().challenged(challenge(qop="auth-int"), request))
        self.assertEqual(fields["qop"], "auth-int")
        self.assertEqual(
            fields["response"],
            response(fields, b"Mufasa", b"Circle of Life", "PUT", b"content"),
        )

    def test_auth_int_impossible(self) -> None:
        """Content that is streamed, or too long, cannot be signed, which is said."""
        policy = AuthPolicy(max_auth_int=4)
        for content in (None, b"12345"):
            request = AuthRequest(b"PUT", b"http://h/x", b"/x", content)
            step = talk(policy=policy).challenged(challenge(qop="auth-int"), request)
            assert isinstance(step, GiveUp)
            self.assertFalse(step.rejected)
            self.assertIn("auth-int", step.reason)
        request = AuthRequest(b"PUT", b"http://h/x", b"/x", b"1234")
        fields_of(talk(policy=policy).challenged(challenge(qop="auth-int"), request))

    def test_auth_int_unasked(self) -> None:
        """A request whose content cannot be signed is sent, for the peer to decide."""
        digest, _ = proven(PLAIN, qop="auth-int")
        streamed = AuthRequest(b"PUT", b"http://h/x", b"/x", None)
        self.assertEqual(digest.first(streamed), Proceed())
        self.assertEqual(fields_of(digest.first(PLAIN))["nc"], "00000002")


class NameTests(SynchronousTestCase):
    def test_quoting(self) -> None:
        """Quotes and backslashes arrive as they were meant."""
        digest = talk(username='DOM\\a "b"')
        fields = fields_of(digest.challenged(challenge(realm='q"\\'), PLAIN))
        self.assertEqual(fields["username"], 'DOM\\a "b"')
        self.assertEqual(fields["realm"], 'q"\\')
        self.assertEqual(
            fields["response"],
            response(fields, b'DOM\\a "b"', b"Circle of Life", "GET"),
        )

    def test_utf8(self) -> None:
        """A name that is not ASCII goes into ``username*`` (RFC 7616 3.4, RFC 8187)."""
        digest = talk(username="J\xe4s\xf8n Doe", password="\u20ac")
        fields = fields_of(digest.challenged(challenge(charset="utf-8"), PLAIN))
        self.assertNotIn("username", fields)
        self.assertEqual(fields["username*"], "UTF-8''J%C3%A4s%C3%B8n%20Doe")
        self.assertEqual(
            fields["response"],
            response(fields, "J\xe4s\xf8n Doe".encode(), "\u20ac".encode(), "GET"),
        )

    def test_utf8_ascii(self) -> None:
        """A name in ASCII goes where it always went."""
        fields = fields_of(talk().challenged(challenge(charset="UTF-8"), PLAIN))
        self.assertEqual(fields["username"], "Mufasa")

    def test_normalised(self) -> None:
        """In UTF-8, an accent apart from its letter makes no difference."""
        digest = talk(username="A\u0308")
        fields = fields_of(digest.challenged(challenge(charset="UTF-8"), PLAIN))
        self.assertEqual(fields["username*"], "UTF-8''%C3%84")

    def test_latin1(self) -> None:
        """Without charset, what fits is sent in Latin-1."""
        digest = talk(username="J\xe4s", password="\xf8")
        fields = fields_of(digest.challenged(challenge(), PLAIN))
        self.assertEqual(fields["username"], "J\xe4s")
        self.assertEqual(
            fields["response"], response(fields, b"J\xe4s", b"\xf8", "GET")
        )

    def test_no_latin1(self) -> None:
        """Without charset, what does not fit is sent in UTF-8, as browsers do."""
        digest = talk(username="\u0141ukasz")
        fields = fields_of(digest.challenged(challenge(), PLAIN))
        self.assertEqual(fields["username"].encode("latin-1"), b"\xc5\x81ukasz")
        self.assertEqual(
            fields["response"],
            response(fields, b"\xc5\x81ukasz", b"Circle of Life", "GET"),
        )

    def test_userhash(self) -> None:
        """A hash stands for the name where the peer can do with it (3.4.4)."""
        digest = talk(username="\xc4")
        asked = challenge(userhash="TRUE", charset="UTF-8", algorithm="SHA-256")
        fields = fields_of(digest.challenged(asked, PLAIN))
        self.assertEqual(
            fields["username"], hashlib.sha256("\xc4:r".encode()).hexdigest()
        )
        self.assertEqual(fields["userhash"], "true")
        self.assertNotIn("username*", fields)

    def test_unsendable(self) -> None:
        """What cannot be said in Digest is refused at once, without telling it."""
        for username, password in (("a\nb", "SECRET"), ("a", "SECRET\ud800")):
            error = self.assertRaises(
                AuthenticationFailed, talk, username=username, password=password
            )
            self.assertEqual(error.scheme, "Digest")
            self.assertNotIn("SECRET", repr(error) + str(error))

    def test_control_characters_in_password(self) -> None:
        """A password is hashed, whatever it is made of."""
        fields = fields_of(talk(password="\n").challenged(challenge(), PLAIN))
        self.assertEqual(fields["response"], response(fields, b"Mufasa", b"\n", "GET"))

    def test_repr(self) -> None:
        """Neither password nor nonces are in any repr."""
        memory = SpaceMemory()
        digest = talk(memory=memory, password="SECRET")
        step = digest.challenged(challenge("SECRET2", opaque="SECRET3"), PLAIN)
        self.assertEqual(
            repr(digest),
            "<DigestConversation with proxy http://proxy.example:3128, ANSWERED>",
        )
        assert digest._sent is not None
        shown = f"{step} {memory} {digest._sent} {digest._sent.answer}"
        self.assertNotIn("SECRET", shown)
        self.assertNotIn(fields_of(step)["response"], shown)


class RefusalTests(SynchronousTestCase):
    """Challenges that are not answered."""

    def refused(
        self, asked: Challenge, digest: DigestConversation | None = None
    ) -> str:
        step = (digest or talk()).challenged(asked, PLAIN)
        assert isinstance(step, GiveUp)
        self.assertFalse(step.rejected)
        self.assertEqual(step.scheme, "Digest")
        self.assertEqual(step.realm, asked.realm)
        return step.reason

    def test_incomplete(self) -> None:
        """Without realm or nonce there is nothing to answer."""
        self.assertEqual(
            self.refused(Challenge("Digest", params={"nonce": "n"})),
            "the Digest challenge has no realm",
        )
        self.assertEqual(
            self.refused(Challenge("Digest", params={"realm": "r"})),
            "the Digest challenge has no nonce",
        )

    def test_unknown_algorithm(self) -> None:
        """What is not known cannot be computed; the reason names it."""
        for name in ("SHA-1", "-sess", "", "MD5-sess-sess"):
            reason = self.refused(challenge(algorithm=name))
            self.assertEqual(reason, f"the Digest algorithm {name!r} is not known here")

    def test_unknown_qop(self) -> None:
        """Only unknown ways of protection are none."""
        self.assertIn("'auth-conf'", self.refused(challenge(qop="auth-conf")))

    def test_unknown_qop_among_others(self) -> None:
        """Unknown ways of protection among others are ignored (RFC 7616 3.3)."""
        step = talk().challenged(challenge(qop="auth-conf, auth"), PLAIN)
        self.assertEqual(fields_of(step)["qop"], "auth")

    def test_too_weak(self) -> None:
        """Policy may exclude weak algorithms."""
        for weakest, offered, usable in (
            ("MD5", "MD5-sess", True),
            ("SHA-256", "MD5", False),
            ("SHA-256", "SHA-256", True),
            ("SHA-256", "SHA-512-256-sess", True),
            ("SHA-512-256", "SHA-256-sess", False),
        ):
            digest = talk(policy=AuthPolicy(min_digest=weakest))
            asked = challenge(algorithm=offered)
            if usable:
                fields_of(digest.challenged(asked, PLAIN))
            else:
                self.assertIn("min_digest", self.refused(asked, digest))

    def test_other_realm(self) -> None:
        """A configured realm must be the peer's."""
        reason = self.refused(challenge(realm="Theirs"), talk(realm="Ours"))
        self.assertEqual(reason, "the realm is 'Theirs', not 'Ours' as configured")

    def test_same_realm(self) -> None:
        """A configured realm is recognised in either encoding."""
        for theirs in (b"Caf\xe9", b"Caf\xc3\xa9", b"Cafe\xcc\x81"):
            digest = talk(realm="Caf\xe9")
            asked = challenge(realm=theirs.decode("latin-1"))
            fields = fields_of(digest.challenged(asked, PLAIN))
            self.assertEqual(fields["realm"].encode("latin-1"), theirs)

    def test_realm_not_configured(self) -> None:
        """Without a configured realm, any will do; an empty one as well."""
        for ours in (None, ""):
            for theirs in ("", "x"):
                step = talk(realm=ours).challenged(challenge(realm=theirs), PLAIN)
                self.assertEqual(fields_of(step)["realm"], theirs)

    def test_guesswork(self) -> None:
        """
        A realm that cannot be read for certain costs no logon: Squid 5.7 with quotes
        inside its quoted realm takes no answer at all.
        """
        [asked] = parse_challenges(
            [b'Digest realm=""squid, with \\"comma\\""", nonce="n", qop="auth"']
        )
        self.assertIn("realm is badly quoted", self.refused(asked))

    def test_harmless_mistakes(self) -> None:
        """Other mistakes in a challenge are no reason not to answer it."""
        [asked] = parse_challenges([b'Digest realm="r", x=a b, nonce="n" c, qop=auth'])
        self.assertTrue(asked.malformed)
        fields_of(talk().challenged(asked, PLAIN))

    def test_control_characters(self) -> None:
        """Nothing is sent back that could end a field."""
        for name in ("realm", "nonce", "opaque"):
            asked = Challenge(
                "Digest", params={"realm": "r", "nonce": "n", name: "x\r\nEvil: 1"}
            )
            self.assertIn(name, self.refused(asked))


def rspauth(
    fields: Mapping[str, str], password: bytes = b"Circle of Life", method: str = ""
) -> bytes:
    """Prove what the peer has to prove (RFC 7616 3.5): A2 without a method."""
    proof = response(fields, b"Mufasa", password, method)
    return f'rspauth="{proof}", qop=auth, nc={fields.get("nc")}'.encode()


class MutualTests(SynchronousTestCase):
    def talk(
        self, mutual: str, memory: SpaceMemory | None = None
    ) -> DigestConversation:
        return talk(memory=memory, policy=AuthPolicy(mutual=mutual))

    def test_apache(self) -> None:
        """What Apache 2.4 sent in an Authentication-Info is believed."""
        digest = talk(
            ORIGIN,
            username="alice",
            password='Alice-50%&"secret"=1, x',
            policy=AuthPolicy(mutual="require"),
            entropy=lambda size: b64decode("vmomtyG2qocA/+GHvS8eFVCM"),
        )
        [asked] = parse_challenges(
            [
                b'Digest realm="coda website", '
                b'nonce="0zgr1gdhBgA=760a1c51f9e23598f4bcb688198e6952d1d3b9df", '
                b'algorithm=MD5, qop="auth"'
            ]
        )
        target = b"/digest/1k.bin?x=1"
        fields = fields_of(
            digest.challenged(asked, AuthRequest(b"GET", target, target))
        )
        self.assertEqual(fields["response"], "c6dd44b3da8ba96dce9c2cf5f8ba63e5")
        step = digest.accepted(
            None,
            b'rspauth="78df2b5f21af3543bf1843bc4dd7630b", '
            b'cnonce="vmomtyG2qocA/+GHvS8eFVCM", nc=00000001, qop=auth',
        )
        self.assertEqual(step, Proceed())

    def test_proof(self) -> None:
        """A peer that knows the password is believed, with every algorithm."""
        for name in HASHES:
            for algorithm in (name, f"{name}-sess"):
                digest = self.talk("require")
                asked = challenge(algorithm=algorithm)
                fields = fields_of(digest.challenged(asked, PLAIN))
                proof = rspauth(fields)
                self.assertEqual(digest.accepted(None, proof), Proceed())

    def test_proof_in_capitals(self) -> None:
        """Hexadecimal digits may be capitals."""
        digest = self.talk("require")
        fields = fields_of(digest.challenged(challenge(), PLAIN))
        proof = response(fields, b"Mufasa", b"Circle of Life", "").upper()
        digest.accepted(None, f"rspauth={proof}".encode())

    def test_proof_without_qop(self) -> None:
        """A peer without qop proves itself without it."""
        digest = self.talk("require")
        fields = fields_of(digest.challenged(challenge(qop=None), PLAIN))
        proof = response(fields, b"Mufasa", b"Circle of Life", "")
        digest.accepted(None, f'rspauth="{proof}"'.encode())

    def test_wrong_proof(self) -> None:
        """A peer that does not know the password is found out."""
        for mutual in ("verify", "require"):
            memory = SpaceMemory()
            digest = self.talk(mutual, memory)
            fields = fields_of(digest.challenged(challenge(), PLAIN))
            for wrong in (
                rspauth(fields, b"guess"),
                rspauth(fields, method="GET"),
                b'rspauth="", nextnonce="evil"',
                b'rspauth="\xe9"',
            ):
                error = self.assertRaises(
                    MutualAuthenticationFailed, digest.accepted, None, wrong
                )
                self.assertEqual(error.scheme, "Digest")
                self.assertEqual(error.realm, "r")
                self.assertEqual(error.peer, "proxy http://proxy.example:3128")
            self.assertFalse(memory.proven)
            self.assertEqual(list(memory.proven_nonces()), [])

    def test_no_proof(self) -> None:
        """Silence is an error only where policy says so; Squid has nothing to say."""
        for info in (None, b"", b'nextnonce="n2"'):
            digest = self.talk("verify")
            digest.challenged(challenge(), PLAIN)
            self.assertEqual(digest.accepted(None, info), Proceed())

            digest = self.talk("require")
            digest.challenged(challenge(), PLAIN)
            self.assertRaises(MutualAuthenticationFailed, digest.accepted, None, info)

    def test_nothing_to_prove(self) -> None:
        """Where nothing was sent, nothing needs to be proven."""
        digest = self.talk("require")
        digest.first(PLAIN)
        self.assertEqual(digest.accepted(None, None), Proceed())

    def test_off(self) -> None:
        """Policy may choose not to care."""
        digest = self.talk("off")
        digest.challenged(challenge(), PLAIN)
        self.assertEqual(digest.accepted(None, b'rspauth="wrong"'), Proceed())

    def test_signed_content(self) -> None:
        """A proof made with the content of the response is not checked."""
        for asked, info in (
            (challenge(qop="auth-int"), b'rspauth="unknown"'),
            (challenge(), b'rspauth="unknown", qop="Auth-Int"'),
        ):
            digest = self.talk("verify")
            digest.challenged(asked, PLAIN)
            self.assertEqual(digest.accepted(None, info), Proceed())

            digest = self.talk("require")
            digest.challenged(asked, PLAIN)
            self.assertRaises(MutualAuthenticationFailed, digest.accepted, None, info)
