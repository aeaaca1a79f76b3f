"""Scores as tables: for the terminal, as JSON and as CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from abpn_fast.training.evaluate import Row


def text(means: Mapping[str, Mapping[str, float]]) -> str:
    """A line for every score, a column for every method."""
    names = dict.fromkeys(name for scores in means.values() for name in scores)
    widths = [max(len(method), 9) + 1 for method in means]
    lines = [" " * 20 + "".join(f"{method:>{width}}" for method, width in zip(means, widths, strict=True))]
    for name in names:
        cells = [f"{scores[name]:.4f}" if name in scores else "" for scores in means.values()]
        lines.append(f"{name:20}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))
    return "\n".join(line.rstrip() for line in lines)


def each(rows: Sequence[Row], score: str = "psnr_inside") -> str:
    """A line for every image, one score of every method."""
    methods = list(dict.fromkeys(row.method for row in rows))
    table: dict[str, dict[str, float]] = {}
    for row in rows:
        table.setdefault(row.image, {})[row.method] = row.scores[score]
    width = max(len(image) for image in [*table, score])
    lines = [f"{score:{width}}" + "".join(f"{method:>15}" for method in methods)]
    for image, scores in table.items():
        cells = [f"{scores[method]:.3f}" if method in scores else "" for method in methods]
        lines.append(f"{image:{width}}" + "".join(f"{cell:>15}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


def write_json(path: Path, means: Mapping[str, Mapping[str, float]], rows: Sequence[Row], **facts: Any) -> None:
    """``summary`` by method, ``images`` with a row each, and ``facts`` beside them."""
    images = [{"image": row.image, "method": row.method, **row.scores} for row in rows]
    path.write_text(json.dumps({**facts, "summary": means, "images": images}, indent=1) + "\n", encoding="utf-8")


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """A line for every image and method."""
    scores = dict.fromkeys(name for row in rows for name in row.scores)
    # Names of files need not be UTF-8.
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, ["image", "method", *scores])
        writer.writeheader()
        writer.writerows({"image": row.image, "method": row.method, **row.scores} for row in rows)
