"""The fake servers' verifiers are given all they know of the world."""

from __future__ import annotations

import ast
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import coda_twisted.testing
from tests.test_purity import imports, impurities

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
        """Those that verify share none of the client's arithmetic, nor pyspnego."""
        shared = (
            "coda_twisted.testing",
            "coda_twisted.http1",
            "coda_twisted.auth.steps",
        )
        for name in PURE:
            source = (DIRECTORY / f"{name}.py").read_text("utf-8")
            for _, module in imports(ast.parse(source)):
                self.assertFalse(module.startswith("spnego"), name)
                ours = module.startswith("coda_twisted.")
                self.assertTrue(not ours or module.startswith(shared), module)
