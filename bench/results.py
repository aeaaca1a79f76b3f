"""The JSON files: pytest-benchmark's, cut down to what a reader needs, one for all suites of a machine."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_STATISTICS = ("min", "median", "stddev", "rounds")


def trimmed(result: dict[str, Any]) -> dict[str, Any]:
    """Without the single rounds, without what describes the host or the checkout beyond ``machine.information``."""
    commit = result.get("commit_info", {})
    return {
        "machine_info": result["machine_info"],
        "commit_info": {"id": commit.get("id"), "dirty": commit.get("dirty")},
        "version": result["version"],
        "benchmarks": [
            {
                "group": benchmark["group"],
                "name": benchmark["name"],
                "fullname": benchmark["fullname"],
                "extra_info": benchmark["extra_info"],
                "stats": {key: benchmark["stats"][key] for key in _STATISTICS},
            }
            for benchmark in result["benchmarks"]
        ],
        "refused": result.get("refused", []),
    }


def merged(results: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One result with the rows of all, which must come from one machine with the same versions.

    Raises:
        ValueError: they do not.
    """
    whole: dict[str, Any] | None = None
    for result in map(trimmed, results):
        if whole is None:
            whole = result
            continue
        for key, value in whole["machine_info"].items():
            if key != "date" and result["machine_info"].get(key) != value:
                raise ValueError(
                    f"suites were measured with {key} {value!r} and {result['machine_info'].get(key)!r}; "
                    "measure all of them again (python -m bench --again)"
                )
        whole["commit_info"]["dirty"] |= result["commit_info"] != whole["commit_info"]
        whole["benchmarks"] += result["benchmarks"]
        whole["refused"] += result["refused"]
    if whole is None:
        raise ValueError("no suite was measured")
    return whole


def write(result: dict[str, Any], file: Path) -> None:
    """Figures to five digits."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(_rounded(result), indent=1) + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
