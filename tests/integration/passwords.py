"""Password files of everybody, as the servers read them."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from tests.integration.people import NTLM_DOMAIN, PEOPLE
from tests.integration.tools import require

__all__ = ["write_basic", "write_digest", "write_ntlm"]


def write_basic(path: Path) -> None:
    """Write *path* with salted hashes, as ``htpasswd`` does."""
    [openssl] = require("openssl")
    lines = []
    for person in PEOPLE:
        hashed = subprocess.run(
            [openssl, "passwd", "-apr1", "-stdin"],
            input=person.password.encode(),
            capture_output=True,
            check=True,
        )
        lines.append(f"{person.name}:{hashed.stdout.decode()}")
    _publish(path, "".join(lines))


def write_digest(path: Path, realm: str) -> None:
    """Write *path* with H(A1) of RFC 7616 section 3.4.2, as ``htdigest`` does."""
    lines = []
    for person in PEOPLE:
        a1 = f"{person.name}:{realm}:{person.password}"
        lines.append(f"{person.name}:{realm}:{hashlib.md5(a1.encode()).hexdigest()}\n")
    _publish(path, "".join(lines))


def write_ntlm(path: Path) -> None:
    """Write *path* for gss-ntlmssp and pyspnego (their ``NTLM_USER_FILE``)."""
    lines = [f"{NTLM_DOMAIN}:{each.name}:{each.password}\n" for each in PEOPLE]
    _publish(path, "".join(lines))


def _publish(path: Path, content: str) -> None:
    path.write_text(content)
    # The servers read it after they have dropped root's rights.
    path.chmod(0o644)
