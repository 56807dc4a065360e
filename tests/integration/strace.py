"""The service under strace: which system calls it makes for what it is asked."""

from __future__ import annotations

import collections
import re
import subprocess
from unittest import SkipTest

from tests.integration.coda import CodaProxy
from tests.integration.servers import workspace
from tests.integration.tools import require

__all__ = ["TracedProxy"]

# "[pid 7] recvfrom(9, ..." or, with -o, "7 recvfrom(9, ...".  What a thread resumes
# was counted where it began.
CALL = re.compile(r"^\d+\s+(?P<name>\w+)\(", re.MULTILINE)


class TracedProxy(CodaProxy):
    """
    ``twistd -n coda-proxy`` under ``strace -f``.

    :param options: Of coda-proxy, without its own port.
    """

    def __init__(self, *options: str) -> None:
        [strace] = require("strace")
        tried = subprocess.run([strace, "-o", "/dev/null", "true"], capture_output=True)
        if tried.returncode:
            raise SkipTest(f"strace may not trace here: {tried.stderr.decode()}")
        super().__init__(*options)
        self.trace = workspace() / f"strace-{self.port}"
        self.command = [
            *(strace, "-f", "-qq", "-s", "64", "-o", str(self.trace)),
            *self.command,
        ]

    def calls_between(self, first: str, last: str) -> collections.Counter[str]:
        """
        Count the system calls from where *first* was received to where *last* was.

        The service must have been stopped.

        :param first: What stands in the octets received, as strace writes them.
        """
        text = self.trace.read_text(errors="replace")
        begin = self._received(text, first)
        end = self._received(text, last)
        return collections.Counter(CALL.findall(text[begin:end]))

    def _received(self, text: str, what: str) -> int:
        found = re.search(rf"^\d+\s+recv\w*\(.*{re.escape(what)}", text, re.MULTILINE)
        assert found is not None, f"strace has not seen {what}"
        return found.start()
