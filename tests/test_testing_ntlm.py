"""Tests for the fake servers' NTLM: vectors, and pyspnego's client."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from typing import Any

import spnego
from hypothesis import given, settings
from hypothesis import strategies as st
from spnego.channel_bindings import GssChannelBindings
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.auth.steps import Role
from coda_twisted.http1.fields import Fields
from coda_twisted.testing.accounts import Accounts, Outcome
from coda_twisted.testing.negotiate import Negotiate
from coda_twisted.testing.ntlm import NTLM
from coda_twisted.testing.ntlm_hashes import (
    bindings_hash,
    hmac_md5,
    md4,
    ntowfv1,
    ntowfv2,
    rc4,
)
from coda_twisted.testing.ntlm_messages import (
    challenge_message,
    message_type,
    read_authenticate,
)
from coda_twisted.testing.spnego_tokens import accept_incomplete, unwrap
from coda_twisted.testing.verdicts import (
    Accepted,
    Challenged,
    Received,
    Refused,
    Scheme,
    Site,
    Verdict,
    Verifier,
)
from tests.integration.kerberos import nowhere

# MS-NLMP 4.2.4.3.
AUTHENTICATE = bytes.fromhex(
    "4e544c4d5353500003000000180018006c00000054005400840000000c000c00"
    "480000000800080054000000100010005c00000010001000d8000000358288e2"
    "0501280a0000000f44006f006d00610069006e00550073006500720043004f00"
    "4d005000550054004500520086c35097ac9cec102554764a57cccc19aaaaaaaa"
    "aaaaaaaa68cd0ab851e51c96aabc927bebef6a1c010100000000000000000000"
    "00000000aaaaaaaaaaaaaaaa0000000002000c0044006f006d00610069006e00"
    "01000c005300650072007600650072000000000000000000c5dad2544fc97990"
    "94ce1ce90bc9d03e"
)
SERVER_CHALLENGE = bytes.fromhex("0123456789abcdef")


class HashTests(SynchronousTestCase):
    """The arithmetic, by the documents' own examples."""

    def test_md4(self) -> None:
        """RFC 1320 A.5."""
        for text, expected in (
            (b"", "31d6cfe0d16ae931b73c59d7e0c089c0"),
            (b"a", "bde52cb31de33e46245e05fbdbd6fb24"),
            (b"abc", "a448017aaf21d8525fc10ae87aa6729d"),
            (b"message digest", "d9130a8164549fe818874806e1c7014b"),
            (b"abcdefghijklmnopqrstuvwxyz", "d79e1c308aa5bbcdeea8ed63df412da9"),
            (b"1234567890" * 8, "e33b4ddc9c38f2199c3e7b164fcc0536"),
        ):
            self.assertEqual(md4(text).hex(), expected, text)

    @given(st.binary(max_size=200))
    def test_md4_by_another(self, data: bytes) -> None:
        """Any length gives what pyspnego's MD4 gives."""
        from spnego._ntlm_raw.md4 import md4 as theirs

        self.assertEqual(md4(data), theirs(data))

    def test_rc4(self) -> None:
        """RFC 6229 2, for a key of 128 bits; and back."""
        key = bytes(range(1, 17))
        stream = rc4(key, bytes(16))
        self.assertEqual(stream.hex(), "9ac7cc9a609d1ef7b2932899cde41b97")
        self.assertEqual(rc4(key, rc4(key, b"text")), b"text")

    def test_ntowf(self) -> None:
        """MS-NLMP 4.2.2.1.2 and 4.2.4.1.1."""
        self.assertEqual(ntowfv1("Password").hex(), "a4f49c406510bdcab6824ee7c30fd852")
        self.assertEqual(
            ntowfv2("User", "Domain", "Password").hex(),
            "0c868a403bfd7a93a3001ef22ef02e3f",
        )

    def test_session_keys(self) -> None:
        """MS-NLMP 4.2.4.1.2 and 4.2.4.2.3: SessionBaseKey, encrypted session key."""
        key = ntowfv2("User", "Domain", "Password")
        base = hmac_md5(key, bytes.fromhex("68cd0ab851e51c96aabc927bebef6a1c"))
        self.assertEqual(base.hex(), "8de40ccadbc14a82f15cb0ad0de95ca3")
        self.assertEqual(
            rc4(base, b"\x55" * 16).hex(), "c5dad2544fc9799094ce1ce90bc9d03e"
        )

    def test_bindings(self) -> None:
        """The hash is that of pyspnego's structure."""
        packed = GssChannelBindings(application_data=b"tls-server-end-point:x").pack()
        self.assertEqual(
            bindings_hash(b"tls-server-end-point:x"), hashlib.md5(packed).digest()
        )


class MessageTests(SynchronousTestCase):
    """What is read, and what is not."""

    def test_document(self) -> None:
        """MS-NLMP 4.2.4.3: read, and proven by the password alone."""
        message = read_authenticate(AUTHENTICATE)
        self.assertEqual(
            (message.domain, message.user, message.workstation),
            ("Domain", "User", "COMPUTER"),
        )
        self.assertTrue(message.is_v2)
        self.assertEqual(message.bindings, b"")
        self.assertTrue(message.proves("Password", SERVER_CHALLENGE))
        self.assertFalse(message.proves("password", SERVER_CHALLENGE))
        self.assertFalse(message.proves("Password", SERVER_CHALLENGE[::-1]))

    def test_ntlmv1(self) -> None:
        """A response of NTLMv1, as in MS-NLMP 4.2.2.2.1, proves nothing."""
        v1 = bytearray(AUTHENTICATE)
        v1[20:24] = b"\x18\0\x18\0"
        message = read_authenticate(bytes(v1))
        self.assertFalse(message.is_v2)
        self.assertFalse(message.proves("Password", SERVER_CHALLENGE))

    def test_type(self) -> None:
        """What is no message has no type."""
        self.assertEqual(message_type(AUTHENTICATE), 3)
        self.assertEqual(message_type(AUTHENTICATE[:31]), 0)
        self.assertEqual(message_type(b"NTLMSSP " + AUTHENTICATE[8:]), 0)

    def test_cut_short(self) -> None:
        """A message that points outside of itself is refused, wherever it ends."""
        for length in range(len(AUTHENTICATE)):
            self.assertRaises(ValueError, read_authenticate, AUTHENTICATE[:length])

    @given(st.binary(max_size=120))
    def test_garbage(self, data: bytes) -> None:
        """Nothing but a ValueError comes of octets that mean nothing."""
        for message in (data, AUTHENTICATE[:12] + data, AUTHENTICATE[:64] + data):
            try:
                found = read_authenticate(message)
            except ValueError:
                continue
            self.assertFalse(found.proves("Password", SERVER_CHALLENGE))

    def test_no_room_for_a_mic(self) -> None:
        """A message that says it has a MIC, and ends before, is refused."""
        flags = bytes.fromhex("06000400020000000000000000")
        message = invented("", "u", bytes(44) + flags)
        read_authenticate(message)
        empty = message[:72].replace(message[20:28], b"\x39\0\x39\0\x0f\0\0\0")
        self.assertRaises(ValueError, read_authenticate, empty)

    def test_oem(self) -> None:
        """A client without Unicode is answered in octets."""
        negotiate = b"NTLMSSP\0\1\0\0\0\2\2\0\0" + bytes(16)
        challenge = challenge_message(negotiate, SERVER_CHALLENGE, "fake", 0.0)
        self.assertEqual(challenge[56:60], b"FAKE")

    def test_challenge(self) -> None:
        """The CHALLENGE_MESSAGE reads, by pyspnego, as it was meant."""
        from spnego._ntlm_raw.messages import AvId, Challenge

        negotiate = spnego.client("u", "p", protocol="ntlm").step() or b""
        challenge = Challenge.unpack(
            challenge_message(negotiate, SERVER_CHALLENGE, "fake", 1e9)
        )
        self.assertEqual(challenge.server_challenge, SERVER_CHALLENGE)
        self.assertEqual(challenge.target_name, "FAKE")
        info = challenge.target_info
        assert info is not None
        self.assertEqual(info[AvId.dns_computer_name], "fake")
        self.assertEqual(str(info[AvId.timestamp])[:10], "2001-09-09")


class HandshakeCase(SynchronousTestCase):
    """pyspnego's client on one side, ours on the other."""

    bindings: bytes | None = None

    def setUp(self) -> None:
        self.accounts = Accounts({"CORP\\alice": "secret", "bob": "b\u00fcb"})

    def verifier(self, scheme: Scheme | None = None) -> Verifier:
        numbers = iter(range(100))
        site = Site(
            Role.PROXY,
            self.accounts,
            "r",
            False,
            lambda size: bytes([next(numbers)]) * size,
            lambda: 1e9,
        )
        return (scheme or NTLM()).at(site).connected()

    def say(self, verifier: Verifier, token: bytes) -> Verdict:
        return verifier.verify(
            Received(
                b"GET",
                b"http://x/",
                b"http://x/",
                b"/",
                Fields(),
                bindings=self.bindings,
            ),
            b64encode(token),
        )

    def token(self, verdict: Verdict) -> bytes:
        """Take the token out of a challenge."""
        assert isinstance(verdict, Challenged), verdict
        [value] = verdict.values
        return b64decode(value.partition(b" ")[2], validate=True)

    def answers(
        self,
        verifier: Verifier,
        user: str = "CORP\\alice",
        password: str = "secret",
        *,
        protocol: str = "ntlm",
        bindings: bytes | None = None,
        flags: Any = spnego.ContextReq.default,
    ) -> bytes:
        """Go as far as the last message, and get it."""
        context = spnego.client(
            user,
            password,
            hostname="h",
            service="http",
            protocol=protocol,
            context_req=flags,
            channel_bindings=bindings and GssChannelBindings(application_data=bindings),  # type: ignore[arg-type]
        )
        challenge = self.token(self.say(verifier, context.step() or b""))
        return context.step(challenge) or b""


class NTLMTests(HandshakeCase):
    """NTLM believes those who prove it, and nobody else."""

    def test_accepts(self) -> None:
        """The right password gets in; the connection is the user's."""
        verifier = self.verifier()
        self.assertIsNone(verifier.user)
        verdict = self.say(verifier, self.answers(verifier))
        self.assertEqual(verdict, Accepted("CORP\\alice"))
        self.assertEqual(verifier.user, "CORP\\alice")
        self.assertEqual(self.accounts.logons("CORP\\alice"), 1)

    def test_names(self) -> None:
        """An account without a domain is good in any; UPNs are names as well."""
        for user in ("bob", "OTHER\\Bob", "bob@corp.example"):
            verifier = self.verifier()
            token = self.answers(verifier, user, "b\u00fcb")
            self.assertEqual(self.say(verifier, token), Accepted("bob"), user)

    def test_signing(self) -> None:
        """A client that wants keys for signing is proven by its MIC, too."""
        flags = spnego.ContextReq.integrity | spnego.ContextReq.confidentiality
        for chosen in (flags, spnego.ContextReq.none):
            verifier = self.verifier()
            token = self.answers(verifier, flags=chosen)
            self.assertIsInstance(self.say(verifier, token), Accepted)

    def test_refuses(self) -> None:
        """Wrong passwords, users and domains are failed logons."""
        for user, password, outcome in (
            ("CORP\\alice", "Secret", Outcome.FAILED),
            ("CORP\\alice", "", Outcome.FAILED),
            ("alice", "secret", Outcome.UNKNOWN),
            ("OTHER\\alice", "secret", Outcome.UNKNOWN),
        ):
            verifier = self.verifier()
            verdict = self.say(verifier, self.answers(verifier, user, password))
            self.assertIsInstance(verdict, Refused)
            self.assertIsNone(verifier.user)
            self.assertEqual(self.accounts.log[-1].outcome, outcome)
        self.assertEqual(self.accounts.logons(), 0)

    def test_forged(self) -> None:
        """Not one octet of the AUTHENTICATE_MESSAGE can be changed: there is a MIC."""
        length = len(self.answers(self.verifier()))
        for position in range(length):
            verifier = self.verifier()
            token = bytearray(self.answers(verifier))
            token[position] ^= 0x20
            self.assertIsInstance(self.say(verifier, bytes(token)), Refused, position)
            self.assertIsNone(verifier.user)
        self.assertEqual(self.accounts.logons(), 0)

    def test_invented(self) -> None:
        """A message that claims to be alice's, and holds no proof, is refused."""
        for response in (b"", bytes(24), bytes(64), bytes(16) + b"\1\1" + bytes(60)):
            verifier = self.verifier()
            self.answers(verifier)
            verdict = self.say(verifier, invented("CORP", "alice", response))
            self.assertIsInstance(verdict, Refused)
        self.assertEqual(self.accounts.failed_logons("CORP\\alice"), 4)

    def test_too_short(self) -> None:
        """A response of NTLMv1's length is refused, whatever it proves."""
        self.accounts.set_password("carol", "c")
        for temp, verdict in ((bytes(8), Refused), (bytes(40), Accepted)):
            verifier = self.verifier()
            begin = spnego.client("u", "p", protocol="ntlm").step() or b""
            server_challenge = self.token(self.say(verifier, begin))[24:32]
            key = ntowfv2("carol", "", "c")
            response = hmac_md5(key, server_challenge, temp) + temp
            token = invented("", "carol", response)
            self.assertIsInstance(self.say(verifier, token), verdict)

    def test_replayed(self) -> None:
        """A message that was good once is good for nothing else."""
        first = self.verifier()
        token = self.answers(first)
        self.assertIsInstance(self.say(first, token), Accepted)
        self.assertIsInstance(self.say(first, token), Refused)
        self.assertIsNone(first.user)
        second = self.verifier()
        self.answers(second)
        self.answers(second)  # another ServerChallenge than the first's
        self.assertIsInstance(self.say(second, token), Refused)

    def test_other_connection(self) -> None:
        """The handshake's messages belong on one connection."""
        token = self.answers(self.verifier())
        self.assertIsInstance(self.say(self.verifier(), token), Refused)
        self.assertEqual(self.accounts.log, [])

    def test_again(self) -> None:
        """A connection may be somebody else's after another handshake."""
        verifier = self.verifier()
        self.say(verifier, self.answers(verifier))
        token = self.answers(verifier, "bob", "b\u00fcb")
        self.assertIsNone(verifier.user)
        self.assertEqual(self.say(verifier, token), Accepted("bob"))

    def test_per_request(self) -> None:
        """A server may forget the user with the answer."""
        verifier = self.verifier(NTLM(per_request=True))
        verdict = self.say(verifier, self.answers(verifier))
        self.assertIsInstance(verdict, Accepted)
        self.assertIsNone(verifier.user)

    def test_no_message(self) -> None:
        """What is no message of NTLM's is refused, and counts for nothing."""
        verifier = self.verifier()
        for token in (b"", b"x", b"NTLMSSP\0\2\0\0\0" + bytes(40), AUTHENTICATE[:40]):
            self.assertIsInstance(self.say(verifier, token), Refused)
        request = Received(b"GET", b"/", b"http://x/", b"/", Fields())
        self.assertIsInstance(verifier.verify(request, b"?"), Refused)
        self.assertEqual(self.accounts.log, [])

    def test_repr(self) -> None:
        """Neither tokens nor bindings are shown."""
        verdict = self.say(
            self.verifier(), spnego.client("u", "p", protocol="ntlm").step() or b""
        )
        self.assertNotIn("TlRM", repr(verdict))
        self.assertNotIn("68cd", repr(read_authenticate(AUTHENTICATE)))
        self.assertNotIn("nt_response", repr(read_authenticate(AUTHENTICATE)))

    @settings(max_examples=20)
    @given(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
    )
    def test_any_password(self, password: str) -> None:
        """Passwords may be of any characters."""
        self.accounts.set_password("bob", password)
        verifier = self.verifier()
        token = self.answers(verifier, "bob", password)
        self.assertEqual(self.say(verifier, token), Accepted("bob"))


class BoundTests(HandshakeCase):
    """Over TLS a logon may have to be for this very server."""

    bindings = b"tls-server-end-point:ours"

    def outcome(self, scheme: Scheme, bindings: bytes | None) -> Outcome:
        verifier = self.verifier(scheme)
        verdict = self.say(verifier, self.answers(verifier, bindings=bindings))
        outcome = self.accounts.log[-1].outcome
        self.assertEqual(isinstance(verdict, Accepted), outcome is Outcome.ACCEPTED)
        return outcome

    def test_bound(self) -> None:
        """What is bound to this server is good, whatever is demanded."""
        for scheme in (NTLM("off"), NTLM("check"), NTLM("require")):
            self.assertIs(self.outcome(scheme, self.bindings), Outcome.ACCEPTED)

    def test_bound_to_another(self) -> None:
        """What was relayed from another server is not, unless nobody looks."""
        other = b"tls-server-end-point:theirs"
        self.assertIs(self.outcome(NTLM("off"), other), Outcome.ACCEPTED)
        self.assertIs(self.outcome(NTLM("check"), other), Outcome.UNBOUND)
        self.assertIs(self.outcome(NTLM("require"), other), Outcome.UNBOUND)

    def test_unbound(self) -> None:
        """What is bound to nothing is good where that is not demanded."""
        self.assertIs(self.outcome(NTLM("check"), None), Outcome.ACCEPTED)
        self.assertIs(self.outcome(NTLM("require"), None), Outcome.UNBOUND)

    def test_plain(self) -> None:
        """Without TLS there is nothing to be bound to."""
        self.bindings = None  # type: ignore[assignment]
        self.assertIs(self.outcome(NTLM("require"), None), Outcome.ACCEPTED)
        self.assertIs(self.outcome(NTLM("require"), b"x"), Outcome.ACCEPTED)


class NegotiateTests(HandshakeCase):
    """NTLM under the name of Negotiate, bare and in SPNEGO."""

    def setUp(self) -> None:
        super().setUp()
        # No ticket, and no KDC that would be asked: pyspnego offers NTLM alone.
        lost = nowhere()
        lost.__enter__()
        self.addCleanup(lost.__exit__, None, None, None)

    def test_bare(self) -> None:
        """A bare token is answered by a bare token."""
        verifier = self.verifier(Negotiate())
        token = self.answers(verifier)
        self.assertEqual(self.say(verifier, token), Accepted("CORP\\alice"))
        self.assertEqual(verifier.user, "CORP\\alice")
        self.assertEqual(self.accounts.log[-1].scheme, "Negotiate")

    def test_again(self) -> None:
        """A connection is nobody's any more once a token was refused."""
        verifier = self.verifier(Negotiate())
        token = self.answers(verifier)
        self.say(verifier, token)
        self.assertIsInstance(self.say(verifier, token), Refused)
        self.assertIsNone(verifier.user)

    def test_wrapped(self) -> None:
        """A token in SPNEGO is answered by one, and so is the last."""
        verifier = self.verifier(Negotiate())
        token = self.answers(verifier, protocol="negotiate")
        self.assertIsNotNone(unwrap(token))
        verdict = self.say(verifier, token)
        assert isinstance(verdict, Accepted)
        [(name, value)] = verdict.fields
        self.assertEqual(name, b"Proxy-Authenticate")
        self.assertEqual(b64decode(value[10:]).hex(), "a1073005a0030a0100")

    def test_wrapped_wrong_password(self) -> None:
        """SPNEGO makes nothing true."""
        verifier = self.verifier(Negotiate())
        token = self.answers(verifier, password="x", protocol="negotiate")
        self.assertIsInstance(self.say(verifier, token), Refused)
        self.assertEqual(self.accounts.failed_logons("CORP\\alice"), 1)

    def test_settings(self) -> None:
        """It may do without NTLM, a final token, or a memory."""
        begin = spnego.client("u", "p", protocol="ntlm").step() or b""
        refused = self.say(self.verifier(Negotiate(ntlm=None)), begin)
        self.assertIsInstance(refused, Refused)
        verifier = self.verifier(Negotiate(final_token=False, per_request=True))
        token = self.answers(verifier, protocol="negotiate")
        self.assertEqual(self.say(verifier, token), Accepted("CORP\\alice"))
        self.assertIsNone(verifier.user)

    def test_kerberos_without_keytab(self) -> None:
        """A token for Kerberos is refused where there are no keys."""
        verifier = self.verifier(Negotiate())
        ticket = bytes.fromhex("602306092a864886f71201020201006e14") + bytes(20)
        for token in (ticket, b"", b"x", b"\x60", accept_incomplete(b"x")):
            self.assertIsInstance(self.say(verifier, token), Refused)

    @given(st.binary(max_size=60))
    def test_garbage(self, data: bytes) -> None:
        """Octets that mean nothing are no SPNEGO, and raise nothing."""
        for token in (data, b"\x60\x20\x06\x06+\x06\x01\x05\x05\x02" + data):
            unwrap(token)
            self.assertIsInstance(self.say(self.verifier(Negotiate()), token), Refused)

    def test_long_tokens(self) -> None:
        """Lengths of one, two and three octets are written and read."""
        for size in (1, 100, 200, 300, 70000):
            wrapped = unwrap(accept_incomplete(bytes(size)))
            assert wrapped is not None
            self.assertEqual(wrapped.token, bytes(size))


def invented(domain: str, user: str, response: bytes) -> bytes:
    """Write an AUTHENTICATE_MESSAGE with any response (MS-NLMP 2.2.1.3)."""
    payload = b""
    descriptors = b""
    for part in (
        bytes(24),
        response,
        domain.encode("utf-16-le"),
        user.encode("utf-16-le"),
        b"",
        b"",
    ):
        descriptors += len(part).to_bytes(2, "little") * 2
        descriptors += (64 + len(payload)).to_bytes(4, "little")
        payload += part
    return b"NTLMSSP\0\3\0\0\0" + descriptors + b"\1\0\0\0" + payload
