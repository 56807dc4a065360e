"""Tests for :mod:`coda_twisted.testing.accounts`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from coda_twisted.testing.accounts import Accounts, Logon, Outcome


class AccountsTests(SynchronousTestCase):
    """Who may log on, and what is remembered of those who tried."""

    def setUp(self) -> None:
        self.accounts = Accounts({"Alice": "secret", "CORP\\bob": "b"}, lockout=3)

    def judge(self, user: str, password: str) -> bool:
        return self.accounts.judge(user, "Basic", lambda known: known == password)

    def test_counts(self) -> None:
        """Good and bad logons are counted for each user."""
        self.assertTrue(self.judge("Alice", "secret"))
        self.assertFalse(self.judge("Alice", "Secret"))
        self.assertFalse(self.judge("carol", "secret"))
        self.assertEqual(
            self.accounts.log,
            [
                Logon("Alice", "Basic", Outcome.ACCEPTED),
                Logon("Alice", "Basic", Outcome.FAILED),
                Logon("carol", "Basic", Outcome.UNKNOWN),
            ],
        )
        self.assertEqual(self.accounts.logons(), 1)
        self.assertEqual(self.accounts.failed_logons(), 2)
        self.assertEqual(self.accounts.logons("alice"), 1)
        self.assertEqual(self.accounts.failed_logons("alice"), 1)
        self.assertEqual(self.accounts.logons("carol"), 0)

    def test_names(self) -> None:
        """Case does not matter; a domain may be added, and not left out."""
        for name in ("alice", "CORP\\ALICE", "alice@corp.example", "Alice"):
            self.assertTrue(self.judge(name, "secret"), name)
        self.assertTrue(self.judge("corp\\Bob", "b"))
        for name in ("bob", "OTHER\\bob", "bob@corp", "", "\\alicia"):
            self.assertFalse(self.judge(name, "b"), name)
        self.assertEqual(self.accounts.logons("Alice"), 4)

    def test_lockout(self) -> None:
        """Three wrong passwords in a row lock an account; only an unlock helps."""
        self.judge("alice", "1")
        self.judge("alice", "2")
        self.assertTrue(self.judge("alice", "secret"))
        for password in "123":
            self.assertFalse(self.accounts.locked("alice"))
            self.judge("alice", password)
        self.assertTrue(self.accounts.locked("ALICE"))
        self.assertFalse(self.judge("CORP\\alice", "secret"))
        self.assertEqual(self.accounts.log[-1].outcome, Outcome.LOCKED)
        self.assertFalse(self.accounts.vouched("alice", "Negotiate"))
        self.accounts.unlock("alice")
        self.judge("alice", "1")
        self.judge("alice", "2")
        self.assertTrue(self.judge("alice", "secret"))
        self.assertTrue(self.judge("corp\\bob", "b"))

    def test_no_lockout(self) -> None:
        """Without a threshold nobody is locked out, but by hand."""
        accounts = Accounts({"alice": "secret"})
        for _ in range(100):
            accounts.judge("alice", "Basic", lambda _: False)
        self.assertFalse(accounts.locked("alice"))
        accounts.lock("alice")
        self.assertFalse(accounts.judge("alice", "Basic", lambda _: True))
        self.assertFalse(accounts.vouched("alice", "Bearer"))

    def test_vouched(self) -> None:
        """Whom somebody else vouches for needs no account."""
        self.assertTrue(self.accounts.vouched("alice@REALM", "Negotiate"))
        self.assertTrue(self.accounts.vouched("dave@REALM", "Negotiate"))
        self.assertEqual(self.accounts.logons("alice"), 1)
        self.assertEqual(self.accounts.logons("dave@REALM"), 1)

    def test_proves(self) -> None:
        """A proof may be looked at without a logon."""
        self.assertTrue(self.accounts.proves("alice", "secret".__eq__))
        self.assertFalse(self.accounts.proves("alice", "x".__eq__))
        self.assertFalse(self.accounts.proves("carol", lambda _: True))
        self.assertEqual(self.accounts.log, [])

    def test_new_password(self) -> None:
        """A password may change while the server runs."""
        self.accounts.set_password("ALICE", "new")
        self.assertTrue(self.judge("alice", "new"))
        self.assertFalse(self.judge("alice", "secret"))
        self.assertEqual(self.accounts.names(), ["Alice", "CORP\\bob"])

    def test_observer(self) -> None:
        """Somebody may be told of each logon."""
        seen: list[Logon] = []
        accounts = Accounts({"a": "b"}, observer=seen.append)
        accounts.judge("a", "Basic", lambda _: True)
        accounts.unbound("a", "NTLM")
        accounts.unknown("x", "Bearer")
        self.assertEqual(seen, accounts.log)
        self.assertEqual(accounts.failed_logons(), 2)

    def test_repr(self) -> None:
        """Passwords are not shown."""
        self.assertNotIn("secret", repr(self.accounts))
        self.assertIn("Alice", repr(self.accounts))
