"""As many file descriptors as the system allows."""

from __future__ import annotations

import resource

__all__ = ["allowed", "raise_limit"]


def allowed() -> int:
    """Tell how many a process may have at most."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


def raise_limit() -> None:
    """Allow this process, and those it starts, as many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
