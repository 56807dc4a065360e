"""
For other people's tests: a proxy and an origin server that verify what they are sent.

:class:`FakeNetwork` has them in memory, for ``SynchronousTestCase``; on TCP
:class:`FakeProxy` and :class:`FakeOrigin` are protocol factories as any other, and
``twistd -n coda-fake-proxy`` starts a proxy by hand.
"""

from __future__ import annotations

from coda_twisted.testing.accounts import Accounts, Logon, Outcome
from coda_twisted.testing.basic import Basic
from coda_twisted.testing.bearer import Bearer
from coda_twisted.testing.digest import Digest
from coda_twisted.testing.exchanges import Answer, Exchange
from coda_twisted.testing.negotiate import Negotiate
from coda_twisted.testing.network import FakeNetwork
from coda_twisted.testing.ntlm import NTLM
from coda_twisted.testing.oauth1 import OAuth1
from coda_twisted.testing.quirks import Quirks
from coda_twisted.testing.servers import FakeOrigin, FakeProxy, FakeServer
from coda_twisted.testing.verdicts import Received
from coda_twisted.testing.workers import InlineWorkers

__all__ = [
    "NTLM",
    "Accounts",
    "Answer",
    "Basic",
    "Bearer",
    "Digest",
    "Exchange",
    "FakeNetwork",
    "FakeOrigin",
    "FakeProxy",
    "FakeServer",
    "InlineWorkers",
    "Logon",
    "Negotiate",
    "OAuth1",
    "Outcome",
    "Quirks",
    "Received",
]
