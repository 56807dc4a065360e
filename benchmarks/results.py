"""All that one run has found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.bench import Bench
from benchmarks.targets import Verdict

__all__ = ["Results"]


@dataclass(frozen=True)
class Results:
    """
    The figures, and what they mean.

    :ivar machine: As :func:`benchmarks.machine.describe` has it.
    :ivar versions: Of the peers.
    :ivar rows: Proxies in the order of the table.
    :ivar seconds: That it took.
    """

    bench: Bench
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    rows: Sequence[str]
    verdicts: Sequence[Verdict]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Write everything down."""
        return {
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "scale": dataclasses.asdict(self.bench.scale),
            "seconds": round(self.seconds),
            "missing": self.bench.missing,
            "notes": self.bench.notes,
            "rows": list(self.rows),
            **self.bench.figures.as_json(),
            "targets": [
                {
                    "title": verdict.target.title,
                    "figure": verdict.figure,
                    "limit": verdict.target.limit,
                    "met": verdict.met,
                }
                for verdict in self.verdicts
            ],
        }
