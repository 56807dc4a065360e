"""Tests for :mod:`coda_twisted.auth.tickets`."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import spnego
from spnego.exceptions import SpnegoError
from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.auth.steps import GiveUp
from coda_twisted.auth.tickets import (
    Began,
    Tickets,
    gss_bindings,
    in_words,
    kerberos_context,
)

HOST = "proxy.example"
SECRET = "correct horse"


class Refusal(Exception):
    """What the krb5 package raises: ``Krb5Error``, as seen with MIT Kerberos 1.20."""

    def __init__(self, number: int, text: str) -> None:
        self.err_code = number - 1765328384
        super().__init__(f"{text} {self.err_code}")


class GSSError(Exception):
    """What python-gssapi raises, as seen with MIT Kerberos 1.20."""

    def __init__(self, routine: int, number: int, text: str) -> None:
        self.maj_code = routine << 16
        self.min_code = 2**32 - 1765328384 + number
        super().__init__(
            f"Major ({self.maj_code}): Unspecified GSS failure.  Minor code may "
            f"provide more information, Minor ({self.min_code}): {text}"
        )


def gss(routine: int, number: int, text: str) -> Exception:
    """Wrap it as pyspnego does."""
    error: Exception = SpnegoError(
        base_error=GSSError(routine, number, text), context_msg="Processing"
    )
    return error


class FakeContext:
    """
    A context that makes the tokens it was given, or raises what stands for one.

    It is complete once it makes none.
    """

    def __init__(self, *tokens: bytes | Exception | None) -> None:
        self.tokens = list(tokens) or [b"token"]
        self.taken: list[bytes | None] = []
        self.bindings: object = None
        self.complete = False
        self.copies: Iterator[FakeContext] = iter(())

    def step(
        self, in_token: bytes | None = None, *, channel_bindings: Any = None
    ) -> bytes | None:
        self.taken.append(in_token)
        self.bindings = channel_bindings
        token = self.tokens.pop(0)
        if isinstance(token, Exception):
            raise token
        self.complete = token is None
        return token

    def new_context(self) -> FakeContext:
        return next(self.copies)


class Library:
    """Makes what the test says, and remembers what it was asked."""

    def __init__(self, *made: FakeContext | Exception) -> None:
        self.made = list(made)
        self.asked: list[tuple[str | None, str | None, str]] = []

    def __call__(self, principal: str | None, password: str | None, host: str) -> Any:
        self.asked.append((principal, password, host))
        made = self.made.pop(0)
        if isinstance(made, Exception):
            raise made
        return made


def begin(tickets: Tickets) -> Began | GiveUp:
    return tickets.claim(HOST).begin(None)


class ClaimTests(SynchronousTestCase):
    """Tickets that are got once."""

    def token(self, began: Began | GiveUp) -> bytes:
        assert isinstance(began, Began), began
        return began.token

    def failure(self, began: Began | GiveUp) -> GiveUp:
        assert isinstance(began, GiveUp), began
        return began

    def test_password_is_used_once(self) -> None:
        """With a password the KDC is asked once; later tokens need no password."""
        first = FakeContext(b"1")
        first.copies = iter([FakeContext(b"2"), FakeContext(b"3")])
        library = Library(first)
        tickets = Tickets("alice", SECRET, library)
        self.assertEqual(
            [self.token(begin(tickets)) for _ in range(3)], [b"1", b"2", b"3"]
        )
        self.assertEqual(library.asked, [("alice", SECRET, HOST)])

    def test_cache_is_asked_each_time(self) -> None:
        """The system's cache is asked each time: its owner may log on anew."""
        library = Library(FakeContext(b"1"), FakeContext(b"2"))
        tickets = Tickets(None, None, library)
        self.assertEqual([self.token(begin(tickets)) for _ in range(2)], [b"1", b"2"])
        self.assertEqual(library.asked, [(None, None, HOST)] * 2)

    def test_each_host(self) -> None:
        """Each host has tickets of its own."""
        library = Library(FakeContext(b"1"), FakeContext(b"2"))
        tickets = Tickets("alice", SECRET, library)
        for host in ("a", "b"):
            tickets.claim(host).begin(None)
        self.assertEqual([asked[2] for asked in library.asked], ["a", "b"])

    def test_failure_is_shared(self) -> None:
        """Who waited for a ticket shares its failure; who comes later tries anew."""
        library = Library(Refusal(156, "Cannot contact any KDC"), FakeContext(b"ok"))
        tickets = Tickets("alice", SECRET, library)
        waiting = [tickets.claim(HOST) for _ in range(3)]
        self.assertFalse(tickets.failed(HOST))
        failures = [self.failure(claim.begin(None)) for claim in waiting]
        self.assertEqual(len(set(failures)), 1)
        self.assertEqual(len(library.asked), 1)
        self.assertTrue(tickets.failed(HOST))
        self.assertEqual(self.token(begin(tickets)), b"ok")
        self.assertFalse(tickets.failed(HOST))

    def test_expired(self) -> None:
        """An expired ticket is got anew with the password."""
        for expired in (gss(13, 32, "Ticket expired"), gss(11, 0, "Success")):
            first, second = FakeContext(b"1"), FakeContext(b"2")
            first.copies = iter([FakeContext(expired)])
            library = Library(first, second)
            tickets = Tickets("alice", SECRET, library)
            self.token(begin(tickets))
            self.assertEqual(self.token(begin(tickets)), b"2")
            self.assertEqual(len(library.asked), 2)

    def test_expired_and_refused(self) -> None:
        """If the password is no longer good by then, that is told."""
        first = FakeContext(b"1")
        first.copies = iter([FakeContext(gss(13, 32, "Ticket expired"))])
        library = Library(first, Refusal(24, "Preauthentication failed"))
        tickets = Tickets("alice", SECRET, library)
        self.token(begin(tickets))
        self.assertTrue(self.failure(begin(tickets)).rejected)

    def test_expired_in_the_cache(self) -> None:
        """An expired ticket of the system's cache is the user's to renew."""
        library = Library(FakeContext(b"1"), FakeContext(gss(13, 32, "Ticket expired")))
        tickets = Tickets(None, None, library)
        self.token(begin(tickets))
        failure = self.failure(begin(tickets))
        self.assertIn("kinit", failure.reason)
        self.assertFalse(tickets.failed(HOST))

    def test_renewed_by_another(self) -> None:
        """Two that find the ticket expired at once get one new ticket."""
        first, second = FakeContext(b"1"), FakeContext(b"2")
        expired = gss(13, 32, "Ticket expired")
        library = Library(first, second)
        tickets = Tickets("alice", SECRET, library)
        self.token(begin(tickets))
        inner: list[bytes] = []

        class Slow(FakeContext):
            def step(self, *_: Any, **__: Any) -> bytes | None:
                inner.append(ClaimTests.token(self_, begin(tickets)))
                raise expired

        self_ = self
        first.copies = iter([Slow(), FakeContext(expired)])
        second.copies = iter([FakeContext(b"3")])
        self.assertEqual(self.token(begin(tickets)), b"3")
        self.assertEqual(inner, [b"2"])
        self.assertEqual(len(library.asked), 2)

    def test_other_failures_of_a_copy(self) -> None:
        """Other failures with a ticket in hand ask nobody for a password."""
        first = FakeContext(b"1")
        first.copies = iter([FakeContext(gss(13, 7, "Server not found"))])
        library = Library(first)
        tickets = Tickets("alice", SECRET, library)
        self.token(begin(tickets))
        self.assertFalse(self.failure(begin(tickets)).rejected)
        self.assertEqual(len(library.asked), 1)

    def test_no_token(self) -> None:
        """A library that makes no token is not followed."""
        failure = self.failure(begin(Tickets("a", "b", Library(FakeContext(None)))))
        self.assertFalse(failure.rejected)

    def test_threads_wait_for_the_first(self) -> None:
        """While one thread asks the KDC, the others wait and then do without."""
        go = Event()
        first = FakeContext(b"first")
        first.copies = iter([FakeContext(b"next") for _ in range(4)])
        asked: list[str] = []

        def make(principal: Any, password: Any, host: str) -> Any:
            asked.append(host)
            go.wait(5)
            return first

        tickets = Tickets("alice", SECRET, make)
        claim = tickets.claim(HOST)
        tokens: list[bytes] = []
        threads = [
            Thread(target=lambda: tokens.append(self.token(claim.begin(None))))
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        go.set()
        for thread in threads:
            thread.join(5)
        self.assertEqual(sorted(tokens), [b"first"] + [b"next"] * 4)
        self.assertEqual(asked, [HOST])

    def test_no_secret_is_shown(self) -> None:
        """Neither the tickets nor a failure show the password."""
        tickets = Tickets("alice", SECRET, Library(ValueError(SECRET)))
        failure = begin(tickets)
        for shown in (repr(tickets), repr(failure), repr(Tickets())):
            self.assertNotIn(SECRET, shown)
        self.assertIn("alice", repr(tickets))


class VerdictTests(SynchronousTestCase):
    """What follows from what the libraries raise."""

    def judge(
        self, error: Exception, password: str | None = SECRET, *, certain: bool = False
    ) -> GiveUp:
        library = Library(error)
        began = begin(Tickets("alice", password, library, certain=certain))
        assert isinstance(began, GiveUp)
        self.assertNotIn(SECRET, repr(began))
        return began

    def test_refused_by_the_kdc(self) -> None:
        """The KDC's word on account and password is final."""
        for number, text, word in (
            (1, "Client's entry in database has expired", "account has expired"),
            (18, "Client's credentials have been revoked", "locked"),
            (23, "Password has expired", "must be changed"),
            (24, "Preauthentication failed", "wrong password"),
            (31, "Decrypt integrity check failed", "wrong password"),
        ):
            verdict = self.judge(Refusal(number, text))
            self.assertTrue(verdict.rejected, text)
            self.assertIn(word, verdict.reason)
            self.assertIn(text, verdict.reason)
            self.assertNotIn("-1765", verdict.reason)

    def test_windows(self) -> None:
        """So is that of Windows."""
        denied = OSError()
        denied.winerror = -2146893044  # type: ignore[attr-defined]  # SEC_E_LOGON_DENIED
        wrapped = SpnegoError(base_error=denied)
        self.assertTrue(self.judge(wrapped).rejected)
        self.assertFalse(self.judge(wrapped, None).rejected)

    def test_unknown_user(self) -> None:
        """An unknown user is refused where the realm was given, not guessed."""
        unknown = Refusal(6, "Client 'alice@EXAMPLE' not found in Kerberos database")
        for certain in (True, False):
            verdict = self.judge(unknown, certain=certain)
            self.assertEqual(verdict.rejected, certain)
            self.assertIn("alice@EXAMPLE", verdict.reason)

    def test_not_the_passwords_fault(self) -> None:
        """What says nothing of the password says what to do instead."""
        for error, word in (
            (Refusal(156, "Cannot contact any KDC for realm"), "no KDC"),
            (Refusal(154, "Cannot find KDC for realm"), "krb5.conf"),
            (Refusal(37, "Clock skew too great"), "clock"),
            (Refusal(134, "Malformed representation"), "user name"),
            (Refusal(-99, "Input/output error"), "Input/output error"),
            (gss(13, 7, "Server HTTP/x@R not found"), "HTTP/proxy.example"),
            (gss(13, 27, "Server principal valid for user2user only"), "service"),
            (gss(13, 37, "Clock skew too great"), "clock"),
            (gss(13, 156, "Cannot contact any KDC"), "no KDC"),
            (gss(13, 24, "Preauthentication failed"), "Preauthentication"),
            (gss(7, 141, "No Kerberos credentials available"), "kinit"),
            (ImportError("no gssapi"), "coda_twisted[kerberos]"),
            (ValueError(SECRET), "ValueError"),
        ):
            verdict = self.judge(error)
            self.assertFalse(verdict.rejected, error)
            self.assertIn(word, verdict.reason)

    def test_tickets_are_never_rejected(self) -> None:
        """Without a password nothing can be refused that must not be sent again."""
        for number in (1, 6, 18, 24):
            verdict = self.judge(Refusal(number, "text"), None, certain=True)
            self.assertFalse(verdict.rejected)

    def test_words_of_the_library(self) -> None:
        """The library's own words follow, where it has any."""
        self.assertEqual(
            in_words(gss(11, 0, "Success")),
            "the Kerberos ticket has expired: run kinit",
        )
        bare = GSSError(13, 7, "")
        bare.args = ("something else",)
        self.assertIn("(something else)", in_words(bare))


class LibraryTests(SynchronousTestCase):
    """The library's own contexts."""

    def test_never_ntlm(self) -> None:
        """A Kerberos context is Kerberos or nothing."""
        try:
            context = kerberos_context(None, None, HOST)
        except ImportError:
            return  # without python-gssapi there is none, which is as good
        assert isinstance(context, spnego.ContextProxy)
        self.assertEqual(context.protocol, "kerberos")
        self.assertEqual(context.spn, f"HTTP/{HOST}")
        self.assertTrue(context.context_req & spnego.ContextReq.mutual_auth)

    def test_bindings(self) -> None:
        """Channel bindings are wrapped for pyspnego; without TLS there are none."""
        self.assertIsNone(gss_bindings(None))
        self.assertEqual(gss_bindings(b"x:y").application_data, b"x:y")
