"""The fake servers' verifiers are given all they know of the world."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import coda_twisted.testing
from tests.test_purity import impurities

DIRECTORY = Path(coda_twisted.testing.__file__).parent

PURE = (
    "accounts",
    "basic",
    "bearer",
    "checkpoint",
    "digest",
    "digest_fields",
    "negotiate",
    "ntlm",
    "ntlm_hashes",
    "ntlm_messages",
    "oauth1",
    "quirks",
    "spnego_tokens",
    "verdicts",
)


class PurityTests(SynchronousTestCase):
    """What verifies touches no clock, no randomness and no socket."""

    def test_pure(self) -> None:
        """They import none."""
        for name in PURE:
            source = (DIRECTORY / f"{name}.py").read_text("utf-8")
            self.assertEqual(impurities(source), [], name)

    def test_alone(self) -> None:
        """Those that verify use nothing of the client's arithmetic."""
        for name in PURE:
            source = (DIRECTORY / f"{name}.py").read_text("utf-8")
            for theirs in ("auth.digest", "auth.basic", "auth.negotiate", "spnego."):
                self.assertNotIn(f"coda_twisted.{theirs}", source)
                self.assertNotIn("import spnego", source)
