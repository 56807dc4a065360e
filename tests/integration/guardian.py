"""
Ends what the tests started if they cannot do so themselves.

Reads lines from standard input, which only the tests' process holds open:
``watch PGID`` and ``forget PGID`` name process groups.  At end of file the tests
are over, however they ended: the groups still watched are killed, and what matches
the glob patterns in the arguments is removed.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import shutil
import signal
import sys


def main() -> None:
    """Watch until end of file, then clean up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        verb, group = line.split()
        (groups.add if verb == "watch" else groups.discard)(int(group))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    for path in itertools.chain.from_iterable(map(glob.iglob, sys.argv[1:])):
        if os.path.isdir(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.remove(path)


if __name__ == "__main__":
    main()
