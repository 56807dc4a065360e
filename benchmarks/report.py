"""The tables, for a terminal and for the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.figures import Figures
from benchmarks.results import Results
from benchmarks.targets import Verdict

__all__ = [
    "COLUMNS",
    "cell",
    "rst_table",
    "service_table",
    "targets_table",
    "text",
    "written",
]

Table = list[list[str]]

COLUMNS = (
    ("get_us", "GET, 16 at once, us CPU", 0),
    ("get1_us", "GET, 1 at a time, us CPU", 0),
    ("connect_us", "CONNECT, 16 at once, us CPU", 0),
    ("tunnel_cpu", "tunnel, CPU-s/GiB", 2),
    ("tunnel_rate", "tunnel, GiB/s", 2),
    ("length_cpu", "body, CPU-s/GiB", 2),
    ("length_rate", "body, GiB/s", 2),
    ("chunked_cpu", "chunked, CPU-s/GiB", 2),
    ("chunked_rate", "chunked, GiB/s", 2),
    ("p50_us", "GET, 1 at a time, p50 us", 0),
)

LIBRARY = (("request_us", "us CPU/request", 0),)
WORKERS = (
    ("busy_rate", "requests/s", 0),
    ("busy_us", "us CPU/request", 0),
    ("capacity", "requests/s, a processor each", 0),
)
IDLE = (
    ("idle_count", "tunnels", 0),
    ("idle_kib", "KiB each", 2),
    ("idle_cpu", "ms CPU a second", 2),
)


def cell(figure: float | None, digits: int, ratio: float | None = None) -> str:
    """Write a figure, and its ratio to the row that all are compared with."""
    if figure is None:
        return "-"
    written = f"{figure:.{digits}f}"
    return written if ratio is None else f"{written} ({ratio:.2f})"


def table(
    figures: Figures,
    rows: Sequence[str],
    columns: Sequence[tuple[str, str, int]],
    base: str,
) -> Table:
    """Make a table of *rows*, in parentheses the ratio to the row *base*."""
    lines = [["", *(title for _, title, _ in columns)]]
    for row in rows:
        line = [row]
        for column, _, digits in columns:
            ratio = None if row == base else figures.ratio(row, column, base)
            line.append(cell(figures.get(row, column), digits, ratio))
        lines.append(line)
    return lines


def service_table(figures: Figures, rows: Sequence[str]) -> Table:
    """Make the table of the proxies."""
    return table(figures, rows, COLUMNS, "squid")


def targets_table(verdicts: Sequence[Verdict]) -> Table:
    """Make the table of what was to be reached."""
    lines = [["target", "figure", "limit", ""]]
    for verdict in verdicts:
        target = verdict.target
        sign = ">=" if target.least else "<="
        figure = "-" if verdict.figure is None else f"{verdict.figure:.2f}{target.unit}"
        lines.append(
            [
                target.title,
                figure,
                f"{sign} {target.limit:g}{target.unit}",
                verdict.word,
            ]
        )
    return lines


def text(rows: Table) -> str:
    """Write a table for a terminal; headings of several words take several lines."""
    head = [heading.split(", ") for heading in rows[0]]
    depth = max(map(len, head))
    tops = [
        [parts[n] if n < len(parts) else "" for parts in head] for n in range(depth)
    ]
    lines = [*tops, *rows[1:]]
    widths = [max(len(line[n]) for line in lines) for n in range(len(rows[0]))]
    written = [
        "  ".join(
            part.ljust(width) if n == 0 else part.rjust(width)
            for n, (part, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    written.insert(depth, "  ".join("-" * width for width in widths))
    return "\n".join(written) + "\n"


def rst_table(rows: Table) -> str:
    """Write a table as a ``list-table``, ready to be pasted into a page."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        for n, part in enumerate(row):
            lines.append(f"   {'*' if n == 0 else ' '} - {part}".rstrip())
    return "\n".join(lines) + "\n"


def faults(figures: Figures) -> list[str]:
    """Say in lines what went wrong while it was measured."""
    return [
        f"{row}: {what}" + (f" ({count} times)" if count > 1 else "")
        for row, counted in figures.faults.items()
        for what, count in counted.items()
    ]


def machine_line(machine: Mapping[str, Any]) -> str:
    """Say in a line where and when it was measured."""
    return (
        f"{machine['date']}, {machine['cpus']} CPUs ({machine['processor']}), "
        f"{machine['memory_gib']:.0f} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}, Twisted {machine['packages'].get('Twisted')}"
    )


def tables(results: Results) -> dict[str, Table]:
    """Make the tables that have something to show, by their titles."""
    figures = results.bench.figures
    found = {}
    if results.rows:
        found["The service (the ratio to squid)"] = service_table(figures, results.rows)
    if libraries := figures.rows("request_us"):
        found["Libraries, 16 at once (the ratio to Twisted's Agent)"] = table(
            figures, libraries, LIBRARY, "Twisted Agent"
        )
    if busy := figures.rows("busy_rate"):
        found["Workers (the ratio to one)"] = table(
            figures, busy, WORKERS, "coda, 1 worker"
        )
    if held := figures.rows("idle_count"):
        found["Idle tunnels"] = table(figures, held, IDLE, held[0])
    found["Targets"] = targets_table(results.verdicts)
    return found


def slow(figures: Figures) -> list[str]:
    """Say in lines which contents were cut off."""
    return [
        f"{row} was slow, and is counted as far as it had come: "
        + ", ".join(sorted(which))
        for row, which in figures.cut_off.items()
    ]


def written(results: Results, *, rst: bool) -> str:
    """Write the tables and what has to be said beside them."""
    figures = results.bench.figures
    parts = [f"{machine_line(results.machine)}; {results.seconds:.0f} s\n"]
    for title, rows in tables(results).items():
        shown = f":\n\n{rst_table(rows)}" if rst else f"\n\n{text(rows)}"
        parts.append(title + shown)
    for title, lines in (
        ("What went wrong while measuring", faults(figures)),
        ("Not installed, hence not measured", results.bench.missing),
        (
            "Versions",
            [f"{row}: {what}" for row, what in results.versions.items() if what],
        ),
        ("Notes", [*results.bench.notes, *slow(figures)]),
    ):
        if lines:
            parts.append(
                "\n".join([f"{title}:\n", *(f"- {line}" for line in lines), ""])
            )
    return "\n".join(parts)
