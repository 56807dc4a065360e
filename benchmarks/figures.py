"""What was measured, round by round."""

from __future__ import annotations

import collections
import statistics
from typing import Any

__all__ = ["Figures"]


class Figures:
    """
    Samples by row and column; a figure is the median of its samples.

    :ivar samples: All of them, in the order of the rounds.
    :ivar faults: What went wrong, and how often; none of it counts as work.
    :ivar cut_off: Contents that were counted only as far as they had come in time.
    """

    def __init__(self) -> None:
        self.samples: dict[str, dict[str, list[float]]] = {}
        self.faults: dict[str, collections.Counter[str]] = {}
        self.cut_off: dict[str, set[str]] = {}

    def add(self, row: str, column: str, value: float) -> None:
        """Keep one sample."""
        self.samples.setdefault(row, {}).setdefault(column, []).append(value)

    def fault(self, row: str, what: str, count: int = 1) -> None:
        """Count what went wrong; it is no work that was done."""
        self.faults.setdefault(row, collections.Counter())[what] += count

    def slow(self, row: str, measure: str) -> None:
        """Take note that a content was counted only as far as it had come in time."""
        self.cut_off.setdefault(row, set()).add(measure)

    def rows(self, column: str) -> list[str]:
        """Name the rows that have samples in *column*."""
        return [row for row, columns in self.samples.items() if column in columns]

    def get(self, row: str, column: str) -> float | None:
        """Tell the median, or ``None`` if there is no sample."""
        samples = self.samples.get(row, {}).get(column)
        return statistics.median(samples) if samples else None

    def ratio(self, row: str, column: str, base: str, base_column: str = "") -> Any:
        """Divide a figure by that of another row, if both are there."""
        figure = self.get(row, column)
        other = self.get(base, base_column or column)
        return None if figure is None or not other else figure / other

    def as_json(self) -> dict[str, Any]:
        """Write everything down."""
        return {
            "figures": {
                row: {
                    column: {"median": statistics.median(samples), "samples": samples}
                    for column, samples in columns.items()
                }
                for row, columns in self.samples.items()
            },
            "faults": {row: dict(faults) for row, faults in self.faults.items()},
            "cut_off": {row: sorted(which) for row, which in self.cut_off.items()},
        }
