"""
Where credentials come from: files, the environment, a keyring, a program, a person.

Each source is an :class:`~coda_twisted.interfaces.ICredentialSource`, is asked for
every request, and looks again each time, or as soon as a peer has refused what it
found: a changed secret needs no restart.  Each says for which
:class:`~coda_twisted.sources.spaces.Spaces` its secrets are meant; by default that is
proxies, and no website.
"""

from __future__ import annotations

from coda_twisted.sources.asked import AskedCredentials
from coda_twisted.sources.chain import SourceChain
from coda_twisted.sources.environment import EnvironmentCredentials
from coda_twisted.sources.files import FileCredentials, NetrcCredentials
from coda_twisted.sources.keyring import KeyringCredentials
from coda_twisted.sources.program import CommandCredentials
from coda_twisted.sources.spaces import PatternCredentials, Space, Spaces

__all__ = [
    "AskedCredentials",
    "CommandCredentials",
    "EnvironmentCredentials",
    "FileCredentials",
    "KeyringCredentials",
    "NetrcCredentials",
    "PatternCredentials",
    "SourceChain",
    "Space",
    "Spaces",
]
