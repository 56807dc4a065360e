"""Tests for :mod:`coda_twisted.http1.fields`."""

from __future__ import annotations

from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.errors import LocalProtocolError, RemoteProtocolError
from coda_twisted.http1.fields import (
    Fields,
    add_via,
    check_field,
    max_forwards,
    parse_fields,
    via_pseudonyms,
    without_hop_by_hop,
)

# RFC 9110 5.6.2
TCHARS = (
    b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
# RFC 9110 5.5: VCHAR and obs-text; SP and HTAB between them.
VISIBLE = bytes(range(0x21, 0x7F)) + bytes(range(0x80, 0x100))

NAMES = st.lists(st.sampled_from(TCHARS), min_size=1, max_size=8).map(bytes)
VALUES = (
    st.lists(st.sampled_from(VISIBLE + b" \t"), max_size=12)
    .map(bytes)
    .map(lambda value: value.strip(b" \t"))
)
ITEMS = st.lists(st.tuples(NAMES, VALUES), max_size=6)


class FieldsTests(SynchronousTestCase):
    """An ordered multimap whose names have no case."""

    def setUp(self) -> None:
        self.fields = Fields([(b"Host", b"a"), (b"x-Tag", b"1"), (b"X-tag", b"2, 3")])

    def test_order_and_spelling_are_kept(self) -> None:
        """What was put in comes out as it was written, in its order."""
        self.assertEqual(
            list(self.fields), [(b"Host", b"a"), (b"x-Tag", b"1"), (b"X-tag", b"2, 3")]
        )
        self.assertEqual(len(self.fields), 3)

    def test_lookup_without_case(self) -> None:
        """A field is found however its name is written."""
        self.assertIn(b"X-TAG", self.fields)
        self.assertNotIn(b"X-Tags", self.fields)
        self.assertEqual(self.fields.get(b"HOST"), b"a")
        self.assertEqual(self.fields.get(b"X-TAG"), b"1")
        self.assertEqual(self.fields.get_all(b"X-TAG"), [b"1", b"2, 3"])
        self.assertEqual(self.fields.get_all(b"hOST"), [b"a"])

    def test_absent(self) -> None:
        """A field that is not there has no value, or the one asked for."""
        self.assertIsNone(self.fields.get(b"Via"))
        self.assertEqual(self.fields.get(b"Via", b"-"), b"-")
        self.assertEqual(self.fields.get_all(b"Via"), [])
        self.assertEqual(self.fields.tokens(b"Via"), [])
        self.assertNotIn(b"Host", Fields())

    def test_tokens(self) -> None:
        """The members of a list are found in all its lines, without case."""
        fields = Fields(
            [
                (b"Connection", b"Close,,\tX-Tag ,"),
                (b"Host", b"a"),
                (b"connection", b" UPGRADE"),
                (b"Connection", b""),
            ]
        )
        self.assertEqual(fields.tokens(b"Connection"), [b"close", b"x-tag", b"upgrade"])

    def test_add(self) -> None:
        """A line is added at the end and found, looked up before or not."""
        for look in (False, True):
            fields = Fields([(b"A", b"1")])
            if look:
                self.assertNotIn(b"B", fields)
            fields.add(b"B", b"2")
            self.assertEqual(fields.get(b"b"), b"2")
            self.assertEqual(list(fields), [(b"A", b"1"), (b"B", b"2")])

    def test_set(self) -> None:
        """Setting replaces all lines of a name where the first of them was."""
        self.fields.set(b"X-TAG", b"new")
        self.assertEqual(list(self.fields), [(b"Host", b"a"), (b"X-TAG", b"new")])
        self.fields.set(b"host", b"b")
        self.assertEqual(list(self.fields), [(b"host", b"b"), (b"X-TAG", b"new")])
        self.assertEqual(self.fields.get(b"x-tag"), b"new")

    def test_set_what_is_absent(self) -> None:
        """Setting a new name adds it."""
        self.fields.set(b"Via", b"x")
        self.assertEqual(list(self.fields)[-1], (b"Via", b"x"))

    def test_remove(self) -> None:
        """Removing drops all lines of a name, and nothing where there is none."""
        self.fields.remove(b"X-TAG")
        self.fields.remove(b"Via")
        self.assertEqual(list(self.fields), [(b"Host", b"a")])
        self.assertNotIn(b"x-tag", self.fields)
        self.assertIn(b"host", self.fields)

    def test_led_by(self) -> None:
        """A line can go before all others, looked up before or not."""
        for look in (False, True):
            fields = Fields([(b"A", b"1"), (b"host", b"2")])
            if look:
                self.assertIn(b"A", fields)
            twin = fields.led_by(b"Host", b"3")
            self.assertEqual(
                list(twin), [(b"Host", b"3"), (b"A", b"1"), (b"host", b"2")]
            )
            self.assertEqual(twin.get_all(b"HOST"), [b"3", b"2"])
            self.assertEqual(fields.get_all(b"Host"), [b"2"])

    def test_lack(self) -> None:
        """Several names can be looked for at once."""
        fields = Fields([(b"A", b"1")])
        self.assertTrue(fields.lack(frozenset((b"b", b"c"))))
        self.assertFalse(fields.lack(frozenset((b"b", b"a"))))

    def test_copy(self) -> None:
        """A copy goes its own way, looked up before or not."""
        for look in (False, True):
            fields = Fields([(b"A", b"1")])
            if look:
                self.assertIn(b"A", fields)
            twin = fields.copy()
            twin.add(b"B", b"2")
            fields.remove(b"A")
            self.assertEqual(list(twin), [(b"A", b"1"), (b"B", b"2")])
            self.assertIn(b"B", twin)
            self.assertEqual((list(fields), b"B" in fields), ([], False))

    def test_equality(self) -> None:
        """The case of names makes no difference; that of values and order do."""
        self.assertEqual(Fields([(b"A", b"x")]), Fields([(b"a", b"x")]))
        self.assertNotEqual(Fields([(b"A", b"x")]), Fields([(b"A", b"X")]))
        self.assertNotEqual(Fields([(b"A", b"x")]), Fields())
        self.assertNotEqual(
            Fields([(b"A", b"x"), (b"B", b"y")]), Fields([(b"B", b"y"), (b"A", b"x")])
        )
        self.assertNotEqual(Fields(), [])

    def test_no_hash(self) -> None:
        """What can change cannot be a key."""
        self.assertRaises(TypeError, hash, Fields())

    def test_serialise(self) -> None:
        """Lines are written in their order, each with its CRLF."""
        self.assertEqual(
            self.fields.serialise(), b"Host: a\r\nx-Tag: 1\r\nX-tag: 2, 3\r\n"
        )
        self.assertEqual(Fields().serialise(), b"")
        self.assertEqual(Fields([(b"A", b"")]).serialise(), b"A: \r\n")

    def test_repr_hides_credentials(self) -> None:
        """The representation shows what is harmless, and only the size of the rest."""
        secret = b"c2VjcmV0"
        for name in (
            b"Authorization",
            b"PROXY-authorization",
            b"Cookie",
            b"Set-Cookie",
            b"WWW-Authenticate",
            b"Proxy-Authenticate",
            b"Authentication-Info",
            b"Proxy-Authentication-Info",
        ):
            shown = repr(Fields([(b"Host", b"visible"), (name, secret)]))
            self.assertNotIn(secret.decode(), shown)
            self.assertIn(name.decode(), shown)
            self.assertIn("visible", shown)


class CheckFieldTests(SynchronousTestCase):
    """What may be sent as a field line."""

    @settings(max_examples=60, deadline=None)
    @given(NAMES, VALUES)
    def test_sound(self, name: bytes, value: bytes) -> None:
        """Any token with any visible value may be sent, and is read back as it was."""
        check_field(name, value)
        section = Fields([(name, value)]).serialise() + b"\r\n"
        self.assertEqual(list(parse_fields(section)), [(name, value)])

    def test_names(self) -> None:
        """A name that is no token is refused: it could end the line."""
        for octet in set(range(256)) - set(TCHARS):
            with self.assertRaises(LocalProtocolError):
                check_field(b"X" + bytes([octet]), b"")
        self.assertRaises(LocalProtocolError, check_field, b"", b"x")

    def test_values(self) -> None:
        """Control octets and outer whitespace are refused, and not quoted."""
        controls = set(range(0x20)) - {0x09} | {0x7F}
        for value in [
            *(b"secret" + bytes([octet]) + b"x" for octet in controls),
            b" secret",
            b"secret ",
            b"\tsecret",
            b"secret\t",
            b" ",
        ]:
            with self.assertRaises(LocalProtocolError) as raised:
                check_field(b"X-Key", value)
            self.assertIn("X-Key", str(raised.exception))
            self.assertNotIn("secret", str(raised.exception))

    def test_a_value_may_be_empty(self) -> None:
        """RFC 9110 5.5: ``field-value = *field-content``."""
        check_field(b"X", b"")


class ParseTests(SynchronousTestCase):
    """A section of field lines."""

    def parse(
        self, section: bytes, *, max_fields: int = 100, folds: bool = False
    ) -> list[tuple[bytes, bytes]]:
        return list(parse_fields(section, max_fields=max_fields, folds=folds))

    def refusal(
        self, section: bytes, *, max_fields: int = 100, folds: bool = False
    ) -> RemoteProtocolError:
        with self.assertRaises(RemoteProtocolError) as raised:
            parse_fields(section, max_fields=max_fields, folds=folds)
        error: RemoteProtocolError = raised.exception
        self.assertNotIn("s3cret", str(error))
        return error

    def test_lines(self) -> None:
        """Whitespace around values is dropped, within them kept (RFC 9112 5.1)."""
        self.assertEqual(
            self.parse(b"A:1\r\nB:  2 \t 3\t \r\nc:\r\nD: \t\r\nE: \x80\xff:\r\n\r\n"),
            [
                (b"A", b"1"),
                (b"B", b"2 \t 3"),
                (b"c", b""),
                (b"D", b""),
                (b"E", b"\x80\xff:"),
            ],
        )

    def test_start(self) -> None:
        """A section may stand behind something else, and may then be empty."""
        self.assertEqual(list(parse_fields(b"x\r\nA: 1\r\n\r\n", 3)), [(b"A", b"1")])
        self.assertEqual(list(parse_fields(b"x\r\n\r\n", 3)), [])

    @settings(max_examples=100, deadline=None)
    @given(ITEMS)
    def test_what_is_written_is_read(self, items: list[tuple[bytes, bytes]]) -> None:
        """Serialising and parsing are each other's opposite."""
        block = b"\r\n" + Fields(items).serialise() + b"\r\n"
        self.assertEqual(list(parse_fields(block, 2)), items)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                [
                    b"A: 1",
                    b"A:",
                    b"b",
                    b":",
                    b" ",
                    b"\r\n",
                    b"\n",
                    b"\r",
                    b"\0",
                    b"\xff",
                ]
            ),
            max_size=7,
        ).map(b"".join)
    )
    def test_nothing_else_is_read(self, soup: bytes) -> None:
        """Whatever is accepted is exactly lines of the grammar, and loses nothing."""
        block = b"\r\n" + soup + (b"\r\n" if soup else b"") + b"\r\n"
        try:
            fields = parse_fields(block, 2)
        except RemoteProtocolError:
            return
        lines = soup.split(b"\r\n") if soup else []
        self.assertEqual(len(lines), len(fields))
        for line, (name, value) in zip(lines, fields, strict=True):
            check_field(name, value)
            self.assertEqual(line.partition(b":")[0], name)
            self.assertEqual(line.partition(b":")[2].strip(b" \t"), value)

    def test_malformed(self) -> None:
        """Each malformed line is refused, the fault named, no value quoted."""
        for line, fault in [
            (b"X : s3cret", "before its colon"),
            (b"X\t: s3cret", "before its colon"),
            (b" s3cret: y", "whitespace"),
            (b"\ts3cret", "whitespace"),
            (b"s3cret", "no colon"),
            (b": s3cret", "not a token"),
            (b"s3cret(: y", "not a token"),
            (b"s3cret\x80: y", "not a token"),
            (b"s3cret\n: y", "not a token"),
            (b"X: s3cret\ny", "X holds a bare CR or LF"),
            (b"X: s3cret\ry", "X holds a bare CR or LF"),
            (b"X: s3cret\r", "X holds a bare CR or LF"),
            (b"X: s3cret\x00", "X holds a control"),
            (b"X: s3cret\x0b", "X holds a control"),
            (b"X: s3cret\x7f", "X holds a control"),
            (b"", "no colon"),
        ]:
            error = self.refusal(b"A: s3cret\r\n" + line + b"\r\nB: 2\r\n\r\n")
            self.assertEqual(error.status_hint, 400)
            self.assertIn(fault, str(error))
            if "field line" in str(error):
                self.assertIn("line 2", str(error))

    def test_unfinished(self) -> None:
        """A section that lacks its empty line is refused, whatever it ends with."""
        for section in (
            b"",
            b"A: 1",
            b"A: 1\r\n",
            b"A: 1\r\n\n",
            b"A: 1\r\nB: 2\n\r\n",
            b"A: 1\r\nxyz\r\n",
            b"A: 1\r\n\r\nxyz",
        ):
            self.refusal(section)

    def test_too_many(self) -> None:
        """One line more than the limit is too many."""
        self.assertEqual(len(self.parse(b"A: 1\r\n" * 100 + b"\r\n")), 100)
        self.assertEqual(self.refusal(b"A: 1\r\n" * 101 + b"\r\n").status_hint, 431)
        self.refusal(b"A: 1\r\n" * 3 + b"\r\n", max_fields=2)

    def test_hostile_sections_take_no_time(self) -> None:
        """
        No regular expression goes over the same octets again and again.

        Squared, 60,000 octets take many seconds; this takes milliseconds.
        """
        begin = process_time()
        for line in (
            b"A:" + b" " * 60000 + b"\0",
            b"A: " + b"x " * 30000 + b"\0",
            b"A" * 60000,
            b"A: 1\r\n" + b" " * 60000 + b"\0",
            b"A: 1" + b" " * 30000 + b"\r\n" + b" " * 30000,
            b"A: 1" + b"\r\n " * 20000,
            b":" * 60000,
        ):
            self.refusal(line + b"\r\n\r\n", folds=True)
        self.assertLess(process_time() - begin, 1)

    def test_folds(self) -> None:
        """Folded lines become one, with a space (RFC 9112 5.2), where that is asked."""
        section = b"A: 1\r\n 2\r\n\t \t3\r\nB:\r\n 4\r\nC: 5\r\n\r\n"
        self.assertEqual(
            self.parse(section, folds=True),
            [(b"A", b"1 2 3"), (b"B", b"4"), (b"C", b"5")],
        )
        self.assertIn("folding", str(self.refusal(section)))

    def test_folds_that_hide_something(self) -> None:
        """
        A fold must continue a value.

        In front of all lines, in a name, or without anything in it, it has been
        read in different ways.
        """
        for section in (
            b" A: 1\r\nB: 2\r\n\r\n",
            b"A\r\n : 1\r\n\r\n",
            b"A: 1\r\n \r\n\r\n",
            b"A: 1\r\n \r\nB: 2\r\n\r\n",
            b"A: 1\r\n\t\r\n 2\r\n\r\n",
        ):
            self.refusal(section, folds=True)


class HopByHopTests(SynchronousTestCase):
    """Fields that end with the connection."""

    def test_named_by_connection(self) -> None:
        """Whatever Connection names goes, in any case and any line (RFC 9110 7.6.1)."""
        fields = Fields(
            [
                (b"Connection", b"close, X-Foo"),
                (b"x-foo", b"1"),
                (b"X-Bar", b"2"),
                (b"connection", b"x-BAR"),
                (b"X-Kept", b"3"),
            ]
        )
        left = without_hop_by_hop(fields)
        self.assertEqual(list(left), [(b"X-Kept", b"3")])
        self.assertEqual(len(fields), 5)

    def test_always(self) -> None:
        """The known ones go though no Connection names them."""
        for name in (
            b"Connection",
            b"Keep-Alive",
            b"Proxy-Connection",
            b"Proxy-Authenticate",
            b"Proxy-Authorization",
            b"Proxy-Authentication-Info",
            b"TE",
            b"Trailer",
            b"Transfer-Encoding",
            b"UPGRADE",
        ):
            fields = Fields([(name, b"x"), (b"Authorization", b"y")])
            self.assertEqual(
                without_hop_by_hop(fields), Fields([(b"Authorization", b"y")])
            )

    def test_length_beside_transfer_encoding(self) -> None:
        """A length that Transfer-Encoding overrides is not passed on (RFC 9112 6.3)."""
        length = (b"Content-Length", b"5")
        self.assertEqual(len(without_hop_by_hop(Fields([length]))), 1)
        both = Fields([length, (b"Transfer-Encoding", b"chunked")])
        self.assertEqual(len(without_hop_by_hop(both)), 0)


class ViaTests(SynchronousTestCase):
    """Via and Max-Forwards."""

    def test_add(self) -> None:
        """Our member comes last, with the version in which we received."""
        fields = Fields([(b"Via", b"1.0 fred"), (b"Host", b"a")])
        add_via(fields, (1, 1), b"coda")
        self.assertEqual(fields.get_all(b"via"), [b"1.0 fred", b"1.1 coda"])

    def test_pseudonyms(self) -> None:
        """Every member is found, those of RFC 9110 7.6.3's examples among them."""
        for values, names in [
            ([], []),
            ([b"1.0 fred, 1.1 p.example.net"], [b"fred", b"p.example.net"]),
            (
                [b"1.0 ricky, 1.1 ethel", b"HTTP/1.1 fred:8080, 1.0 lucy"],
                [b"ricky", b"ethel", b"fred:8080", b"lucy"],
            ),
            ([b"1.1 a (Apache/1.1, x), 1.1 b"], [b"a", b"b"]),
            ([rb"1.1 a (x (y, 1.1 z) \), 1.1 w), 1.1 b"], [b"a", b"b"]),
            ([b"1.1 a) , 1.1 b (open, 1.1 c"], [b"a)", b"b"]),
            ([b"1.1, ,x"], []),
        ]:
            fields = Fields((b"Via", value) for value in values)
            self.assertEqual(via_pseudonyms(fields), names)

    def test_deep_comments(self) -> None:
        """Comments nest to any depth."""
        nested = b"1.1 a " + b"(" * 30000 + b")" * 30000
        self.assertEqual(via_pseudonyms(Fields([(b"Via", nested)])), [b"a"])

    def test_max_forwards(self) -> None:
        """One number is understood; nothing else is guessed."""
        for values, expected in [
            ([], None),
            ([b"0"], 0),
            ([b"010"], 10),
            ([b"-1"], None),
            ([b"1, 2"], None),
            ([b"1", b"2"], None),
            ([b"x"], None),
            ([b""], None),
            ([b"9" * 11], None),
        ]:
            fields = Fields((b"Max-Forwards", value) for value in values)
            self.assertEqual(max_forwards(fields), expected)
