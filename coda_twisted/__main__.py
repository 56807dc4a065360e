"""``python -m coda_twisted``: see :mod:`coda_twisted.commands`."""

from __future__ import annotations

from coda_twisted.commands.main import main

if __name__ == "__main__":
    main()
