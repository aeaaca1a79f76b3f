"""Markdown tables from rows of the JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

Row = dict[str, Any]


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table; the first column to the left, figures to the right."""
    rules = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rules, *lines)) + "\n"


def pivot(rows: Sequence[Row], refused: Sequence[Row], cell: Callable[[Row], str], last: Sequence[str] = ()) -> str:
    """A line for each ``row`` of ``extra_info``, a column for each ``column``, in the order in which they come.

    Args:
        rows: benchmarks of one suite.
        refused: entries of the same suite without a result; they become "-".
        cell: the text for a benchmark.
        last: one more line.
    """
    entries = [row["extra_info"] for row in rows] + list(refused)
    names, columns = unique(entry["row"] for entry in entries), unique(entry["column"] for entry in entries)
    cells = {(row["extra_info"]["row"], row["extra_info"]["column"]): cell(row) for row in rows}
    lines: list[Sequence[str]] = [[name, *(cells.get((name, column), "-") for column in columns)] for name in names]
    return markdown(["", *columns], [*lines, last] if last else lines)


def unique(names: Iterable[str]) -> list[str]:
    """Each once, in order."""
    return list(dict.fromkeys(names))


def seconds(value: float) -> str:
    """Three digits, in the unit that suits."""
    if value < 1e-3:
        return f"{value * 1e6:.3g} µs"
    return f"{value * 1e3:.3g} ms" if value < 0.9995 else f"{value:.3g} s"


def megabytes(value: float) -> str:
    """Whole megabytes of 10^6 bytes."""
    return f"{value / 1e6:.0f} MB"


def seconds_and_ratio(row: Row) -> str:
    """The best time and how many times the baseline of the same rounds it is."""
    best, baseline = row["stats"]["min"], row["extra_info"].get("baseline")
    return seconds(best) if baseline is None else f"{seconds(best)} ({best / baseline:.3g}x)"


def seconds_and_share(rows: Sequence[Row]) -> Callable[[Row], str]:
    """Cells with the best time and its share of that in the first column of the same line."""
    first: dict[str, float] = {}
    for row in rows:
        first.setdefault(row["extra_info"]["row"], row["stats"]["min"])

    def cell(row: Row) -> str:
        best = row["stats"]["min"]
        return f"{seconds(best)} ({best / first[row['extra_info']['row']]:.0%})"

    return cell
