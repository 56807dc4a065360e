"""Tests of how challenges are read."""

from __future__ import annotations

from time import process_time

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.auth.challenge import Challenge, parse_challenges, parse_info

Shape = tuple[str, str | None, dict[str, str]]


def shapes(*values: bytes) -> list[Shape]:
    return [(c.scheme, c.token68, dict(c.params)) for c in parse_challenges(values)]


# Well-formed, or wrong in a way that leaves no doubt.
CLEAR: dict[bytes, list[Shape]] = {
    b'Negotiate, NTLM, Basic realm="x"': [
        ("Negotiate", None, {}),
        ("NTLM", None, {}),
        ("Basic", None, {"realm": "x"}),
    ],
    b'Negotiate YIIG+/a==, Basic realm="x"': [
        ("Negotiate", "YIIG+/a==", {}),
        ("Basic", None, {"realm": "x"}),
    ],
    # RFC 9110 11.6.1
    b'Basic realm="simple", Newauth realm="apps", type=1, '
    b'title="Login to \\"apps\\""': [
        ("Basic", None, {"realm": "simple"}),
        (
            "Newauth",
            None,
            {"realm": "apps", "type": "1", "title": 'Login to "apps"'},
        ),
    ],
    # RFC 7235 4.1, the same the other way round
    b'Newauth realm="apps", type=1, title="Login to \\"apps\\"", '
    b'Basic realm="simple"': [
        (
            "Newauth",
            None,
            {"realm": "apps", "type": "1", "title": 'Login to "apps"'},
        ),
        ("Basic", None, {"realm": "simple"}),
    ],
    b'Digest realm="a, b=c", nonce="x==", qop="auth,auth-int", stale=FALSE, '
    b'algorithm="SHA-256", Digest realm="r", nonce="y", algorithm=MD5': [
        (
            "Digest",
            None,
            {
                "realm": "a, b=c",
                "nonce": "x==",
                "qop": "auth,auth-int",
                "stale": "FALSE",
                "algorithm": "SHA-256",
            },
        ),
        ("Digest", None, {"realm": "r", "nonce": "y", "algorithm": "MD5"}),
    ],
    b'Digest realm="r", nonce="n", Negotiate, NTLM': [
        ("Digest", None, {"realm": "r", "nonce": "n"}),
        ("Negotiate", None, {}),
        ("NTLM", None, {}),
    ],
    b"Custom abc=": [("Custom", "abc=", {})],
    b"Basic realm=": [("Basic", None, {"realm": ""})],
    b"Basic realm=x": [("Basic", None, {"realm": "x"})],
    b'basic REALM = "x"': [("basic", None, {"realm": "x"})],
    b'Basic\trealm\t=\t"x"\t,\tNTLM\t': [
        ("Basic", None, {"realm": "x"}),
        ("NTLM", None, {}),
    ],
    b'Digest realm="x" nonce="y"': [("Digest", None, {"realm": "x", "nonce": "y"})],
    b"Digest realm=x nonce=y==": [("Digest", None, {"realm": "x", "nonce": "y=="})],
    b'Digest realm="x", qop=auth,auth-int, nonce="n"': [
        ("Digest", None, {"realm": "x", "qop": "auth,auth-int", "nonce": "n"})
    ],
    b'Digest qop=auth-int , AUTH nonce="n", auth': [
        ("Digest", None, {"qop": "auth-int,AUTH", "nonce": "n"}),
        ("auth", None, {}),
    ],
    b'Digest qop="auth", auth-int': [
        ("Digest", None, {"qop": "auth"}),
        ("auth-int", None, {}),
    ],
    # Squid 5.7 with "auth_param digest realm" set to a text in quotes: it takes the
    # realm to be what is inside.
    b'Digest realm=""Our, proxy"", nonce="b91b", qop="auth", stale=false': [
        (
            "Digest",
            None,
            {
                "realm": "Our, proxy",
                "nonce": "b91b",
                "qop": "auth",
                "stale": "false",
            },
        )
    ],
    b'Basic realm=""squid""': [("Basic", None, {"realm": "squid"})],
    b'Basic realm=""squid"", Digest realm="x", nonce="n"': [
        ("Basic", None, {"realm": "squid"}),
        ("Digest", None, {"realm": "x", "nonce": "n"}),
    ],
    b'Basic realm=""squid"", Negotiate, NTLM': [
        ("Basic", None, {"realm": "squid"}),
        ("Negotiate", None, {}),
        ("NTLM", None, {}),
    ],
    b'Basic realm="a", realm="a"': [("Basic", None, {"realm": "a"})],
    b', ,Basic realm="x",,': [("Basic", None, {"realm": "x"})],
    b'realm="nobody\'s, too", Basic': [("Basic", None, {})],
    b'Basic realm="\xe9t\xc3\xa9"': [("Basic", None, {"realm": "\xe9t\xc3\xa9"})],
    b"": [],
    b" \t": [],
    b",,": [],
}

# Wrong, and flagged: (challenges, which are malformed, what was guessed in those).
DOUBTFUL: dict[bytes, tuple[list[Shape], set[int], set[str]]] = {
    b"Basic realm=foo bar": (
        [("Basic", None, {"realm": "foo bar"})],
        {0},
        {"realm"},
    ),
    b'Basic realm=foo bar, Digest realm="x"': (
        [("Basic", None, {"realm": "foo bar"}), ("Digest", None, {"realm": "x"})],
        {0},
        {"realm"},
    ),
    b'Basic realm=foo "bar", NTLM': (
        [("Basic", None, {"realm": 'foo "bar"'}), ("NTLM", None, {})],
        {0},
        {"realm"},
    ),
    b'Basic realm="foo, bar': (
        [("Basic", None, {"realm": "foo, bar"})],
        {0},
        {"realm"},
    ),
    b'Basic realm="a", realm="b"': (
        [("Basic", None, {"realm": "a"})],
        {0},
        {"realm"},
    ),
    # Squid 5.7, configured with quotes inside the quotes: it takes no answer.
    b'Digest realm=""squid, with \\"comma\\""", nonce="n", qop="auth"': (
        [
            (
                "Digest",
                None,
                {
                    "realm": '"squid, with \\"comma\\""',
                    "nonce": "n",
                    "qop": "auth",
                },
            )
        ],
        {0},
        {"realm"},
    ),
    b'Digest realm="my "special" proxy", nonce="n"': (
        [("Digest", None, {"realm": 'my "special" proxy', "nonce": "n"})],
        {0},
        {"realm"},
    ),
    b'Digest realm="a"b, nonce=n, opaque="c"d, NTLM': (
        [
            ("Digest", None, {"realm": "a", "nonce": "n", "opaque": "c"}),
            ("NTLM", None, {}),
        ],
        {0},
        {"realm", "opaque"},
    ),
    b'Digest realm="a" b, nonce="n"': (
        [("Digest", None, {"realm": "a", "nonce": "n"})],
        {0},
        set(),
    ),
    b"NTLM abc def, Basic realm=x": (
        [("NTLM", None, {}), ("Basic", None, {"realm": "x"})],
        {0},
        set(),
    ),
    b"NTLM abc, Negotiate YII=, realm=x": (
        [("NTLM", "abc", {}), ("Negotiate", "YII=", {"realm": "x"})],
        {1},
        set(),
    ),
    b"Negotiate YII*==": (
        [("Negotiate", None, {"yii*": "="})],
        {0},
        {"yii*"},
    ),
    b"Basic;x, NTLM": ([("NTLM", None, {})], set(), set()),
    b"NTLM, Basic;x, Negotiate": (
        [("NTLM", None, {}), ("Negotiate", None, {})],
        {0},
        set(),
    ),
}


class GrammarTests(SynchronousTestCase):
    def test_clear_challenges(self) -> None:
        """What can be understood is understood, without reservations."""
        for value, expected in CLEAR.items():
            with self.subTest(value=value):
                self.assertEqual(shapes(value), expected)
                for challenge in parse_challenges([value]):
                    self.assertFalse(challenge.malformed)
                    self.assertEqual(challenge.guessed, frozenset())

    def test_doubtful_challenges(self) -> None:
        """What must be guessed at is read all the same, and flagged."""
        for value, (expected, malformed, guessed) in DOUBTFUL.items():
            with self.subTest(value=value):
                self.assertEqual(shapes(value), expected)
                challenges = parse_challenges([value])
                flagged = {i for i, c in enumerate(challenges) if c.malformed}
                self.assertEqual(flagged, malformed)
                self.assertEqual(set().union(*(c.guessed for c in challenges)), guessed)

    def test_several_lines(self) -> None:
        """Challenges may come in one field line each, as most servers send them."""
        self.assertEqual(
            shapes(b"Negotiate", b"NTLM", b'Basic realm="x"'),
            shapes(b'Negotiate, NTLM, Basic realm="x"'),
        )

    def test_broken_line(self) -> None:
        """An unfinished quoted text in one line does not swallow the next line."""
        self.assertEqual(
            shapes(b'Basic realm="x, y', b"NTLM"),
            [("Basic", None, {"realm": "x, y"}), ("NTLM", None, {})],
        )

    def test_no_lines(self) -> None:
        """Without the field there is no challenge."""
        self.assertEqual(parse_challenges([]), [])

    def test_hostile_lines(self) -> None:
        """Fields as long as a head may be are read without delay, whatever they say."""
        # Each takes some 50 ms at most; read in quadratic time, one takes seconds.
        for part, count in {
            b" ": 0,
            b'"': 0,
            b"=": 0,
            b'a="x"y ': 0,
            b'a=""y': 0,
            b'a="" , ': 0,
            b"a= \t": 0,
            b"a b ": 1,
            b"A \t ,": None,
            b'A x=""y, z,': None,
            b'A x="\\"y': 1,
            b'A b=" "c ,': None,
        }.items():
            with self.subTest(part=part):
                parts = 65536 // len(part)
                begin = process_time()
                found = len(parse_challenges([part * parts]))
                self.assertLess(process_time() - begin, 1)
                self.assertEqual(
                    found, part.count(b",") * parts if count is None else count
                )


# How the grammar's parts are generated and written.

TCHARS = "!#$%&'*+-.^_`|~" + "".join(
    chr(c) for c in range(0x30, 0x7B) if chr(c).isalnum()
)
tokens = st.text(TCHARS, min_size=1, max_size=8)
token68s = st.builds(
    lambda text, pad: text + "=" * pad,
    st.text("abcXYZ019-._~+/", min_size=1, max_size=12),
    st.integers(0, 2),
)
values = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"),
    max_size=12,
)
# A scheme called like a qop option is taken for one after an unquoted qop.
schemes = tokens.filter(lambda t: t.lower() not in {"auth", "auth-int", "auth-conf"})
params = st.dictionaries(tokens.map(str.lower), values, max_size=4)
spaces = st.sampled_from(["", " ", "\t", "  "])


@st.composite
def challenges(draw: st.DrawFn) -> tuple[Challenge, list[str]]:
    """Make a challenge and the list members in which it is written."""
    scheme = draw(schemes)
    kind = draw(st.sampled_from(["bare", "token68", "params"]))
    parameter_scheme = scheme.lower() in {"basic", "bearer", "digest", "oauth"}
    if kind == "token68" and not parameter_scheme:
        token68 = draw(token68s)
        return Challenge(scheme, token68), [f"{scheme} {token68}"]
    given_params = draw(params) if kind == "params" else {}
    members = []
    for name, value in given_params.items():
        written = draw(st.sampled_from([str.lower, str.upper]))(name)
        if value and all(c in TCHARS for c in value) and draw(st.booleans()):
            text = value
        else:
            text = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        members.append(f"{written}{draw(spaces)}={draw(spaces)}{text}")
    if members:
        members[0] = f"{scheme} {members[0]}"
    else:
        members = [scheme]
    return Challenge(scheme, None, given_params), members


class PropertyTests(SynchronousTestCase):
    @given(st.lists(st.binary(max_size=80), max_size=3))
    @settings(max_examples=100, deadline=None)
    @example([b'"'])
    @example([b'A a="\\'])
    def test_anything(self, lines: list[bytes]) -> None:
        """No octets whatever are an error."""
        for challenge in parse_challenges(lines):
            self.assertRegex(challenge.scheme, r"\A[!-~]+\Z")

    @given(
        st.lists(
            st.text('Digest realm,="\\\t x+', max_size=60).map(str.encode), max_size=3
        )
    )
    @settings(max_examples=100, deadline=None)
    def test_nearly_challenges(self, lines: list[bytes]) -> None:
        """Nothing made of what challenges are made of is an error."""
        for challenge in parse_challenges(lines):
            self.assertNotIn(",", challenge.scheme)
        for line in lines:
            parse_info(line)

    @given(st.lists(challenges(), max_size=4), st.data())
    @settings(max_examples=100, deadline=None)
    def test_round_trip(
        self, written: list[tuple[Challenge, list[str]]], data: st.DataObject
    ) -> None:
        """
        What the grammar can write is read back, however the list is divided into
        field lines (RFC 9110 5.3).
        """
        lines: list[list[str]] = [[]]
        for member in (member for _, members in written for member in members):
            if data.draw(st.booleans()):
                lines.append([])
            lines[-1].append(member)
        comma = data.draw(spaces) + "," + data.draw(spaces)
        self.assertEqual(
            parse_challenges(comma.join(line).encode("latin-1") for line in lines),
            [challenge for challenge, _ in written],
        )


class ChallengeTests(SynchronousTestCase):
    def test_names(self) -> None:
        """The scheme is kept as the peer writes it, and compared without case."""
        [challenge] = parse_challenges([b'NeGoTiAtE abc, Realm="X"'])
        self.assertEqual(challenge.scheme, "NeGoTiAtE")
        self.assertEqual(challenge.key, "negotiate")
        self.assertEqual(challenge.realm, "X")

    def test_no_realm(self) -> None:
        """A challenge need not have a realm."""
        self.assertIsNone(Challenge("NTLM").realm)

    def test_immutable(self) -> None:
        """Nobody changes the parameters of a challenge that others may hold."""
        [challenge] = parse_challenges([b"Basic realm=x"])
        for each in (challenge, Challenge("NTLM")):
            with self.assertRaises(TypeError):
                each.params["realm"] = "y"  # type: ignore[index]

    def test_repr(self) -> None:
        """A log shows what was asked for, but neither tokens nor nonces."""
        [digest, ntlm] = parse_challenges(
            [b'Digest realm="r", nonce="SECRET1", opaque="SECRET2" x, NTLM SECRET3']
        )
        self.assertEqual(
            repr(digest), "Challenge(Digest realm='r' nonce=... opaque=... (malformed))"
        )
        self.assertEqual(repr(ntlm), "Challenge(NTLM [7 characters])")


class InfoTests(SynchronousTestCase):
    def test_apache(self) -> None:
        """Apache's Authentication-Info is read."""
        self.assertEqual(
            parse_info(
                b'rspauth="78df2b5f21af3543bf1843bc4dd7630b", '
                b'cnonce="vmomtyG2qocA/+GHvS8eFVCM", nc=00000001, qop=auth'
            ),
            {
                "rspauth": "78df2b5f21af3543bf1843bc4dd7630b",
                "cnonce": "vmomtyG2qocA/+GHvS8eFVCM",
                "nc": "00000001",
                "qop": "auth",
            },
        )

    def test_squid(self) -> None:
        """Squid's Proxy-Authentication-Info is read."""
        self.assertEqual(
            parse_info(b'nextnonce="1ddfc099044bd76468913a7700675c4d"'),
            {"nextnonce": "1ddfc099044bd76468913a7700675c4d"},
        )

    def test_nonsense(self) -> None:
        """What is no list of parameters says nothing."""
        self.assertEqual(parse_info(b"Basic, a b"), {})
        self.assertEqual(parse_info(b""), {})
