"""Tell secrets apart without telling them."""

from __future__ import annotations

import hmac
import os

__all__ = ["fingerprint", "short"]

_KEY = os.urandom(32)


def fingerprint(*secrets: str) -> bytes:
    """Hash secrets with a key that lives as long as the process."""
    framed = "".join(f"{len(secret)}:{secret}" for secret in secrets)
    return hmac.digest(_KEY, framed.encode("utf-8", "surrogatepass"), "sha256")


def short(secret: str) -> str:
    """Name a secret for people, for as long as the process lives."""
    return f"#{fingerprint(secret).hex()[:8]}"
