"""Who has an account with every server of these tests."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALICE", "BOB", "NTLM_DOMAIN", "PEOPLE", "REALM", "WRONG_PASSWORD", "Person"]

NTLM_DOMAIN = "CORP"
REALM = "CODA.TEST"
WRONG_PASSWORD = "not-the-Password!0"


@dataclass(frozen=True)
class Person:
    """
    A user and their throwaway password.

    :ivar name: The plain name, which Basic, Digest and Kerberos know.
    :ivar password: The same everywhere.
    """

    name: str
    password: str

    @property
    def down_level(self) -> str:
        r"""The name as NTLM logs it on: ``DOMAIN\user``."""
        return f"{NTLM_DOMAIN}\\{self.name}"

    @property
    def upn(self) -> str:
        """The user principal name, by which NTLM knows them as well."""
        return f"{self.name}@corp.test"

    @property
    def principal(self) -> str:
        """The Kerberos principal."""
        return f"{self.name}@{REALM}"


# As unkind to quoting as real ones.  Only, no colon, for NTLM's user file has
# colons between its columns; and no hexadecimal digits after a percent sign, for
# curl 7.88 decodes a proxy's password once more with every leg.
ALICE = Person("alice", 'Alice-50%&"secret"=1, x')
BOB = Person("bob", "Bob's+#secret;2/")
PEOPLE = (ALICE, BOB)
