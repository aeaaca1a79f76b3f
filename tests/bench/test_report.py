"""From rows to a table, a report and a small JSON."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from bench import gpu_candidates, report, results, tables

MACHINE = {"processor": "Some CPU", "cpus": 2, "threads": 2, "instruction_set": "avx2", "python": "3.11"}
MACHINE |= {"versions": {"torch": "2.13"}, "date": "2026-01-01"}


def row(suite: str, name: str, column: str | None, best: float, **extra: Any) -> dict[str, Any]:
    extra |= {"suite": suite, "row": name} | ({} if column is None else {"column": column})
    stats = {"min": best, "median": best, "stddev": 0.0, "rounds": 5, "data": [best] * 5, "max": best}
    return {"group": suite, "name": name, "fullname": name, "extra_info": extra, "stats": stats, "options": {}}


def result(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    commit = {"id": "0123456789abcdef", "dirty": False, "branch": "main", "project": "p", "author_time": "t"}
    return {
        "machine_info": MACHINE | changes,
        "commit_info": commit,
        "version": "5",
        "benchmarks": list(rows),
        "refused": [],
    }


def latency(name: str, column: str, best: float, **extra: Any) -> dict[str, Any]:
    pixels = {"small": 1.0, "large": 16.0}[column]
    return row("latency, small", name, column, best, megapixels=pixels, baseline=0.5, **extra)


def test_pivot() -> None:
    rows = [latency("a", "small", 0.25), latency("b", "large", 1.5)]
    refused = [{"row": "c", "column": "small", "reason": "no"}]
    assert tables.pivot(rows, refused, tables.seconds_and_ratio, ["last", "5", "5"]) == (
        "|  | small | large |\n"
        "| --- | ---: | ---: |\n"
        "| a | 250 ms (0.5x) | - |\n"
        "| b | - | 1.5 s (3x) |\n"
        "| c | - | - |\n"
        "| last | 5 | 5 |\n"
    )


@pytest.mark.parametrize(
    ("value", "text"), [(2e-5, "20 µs"), (1e-3, "1 ms"), (0.0999, "99.9 ms"), (0.9996, "1 s"), (12.345, "12.3 s")]
)
def test_seconds(value: float, text: str) -> None:
    assert tables.seconds(value) == text


def test_trimmed_keeps_nothing_of_the_host_or_the_rounds() -> None:
    small = results.trimmed(result(latency("a", "small", 0.25)))
    assert small["commit_info"] == {"id": "0123456789abcdef", "dirty": False}
    assert set(small["benchmarks"][0]) == {"group", "name", "fullname", "extra_info", "stats"}
    assert set(small["benchmarks"][0]["stats"]) == {"min", "median", "stddev", "rounds"}


def test_merged() -> None:
    whole = results.merged([result(latency("a", "small", 1.0)), result(latency("b", "small", 2.0), date="2026-02-02")])
    assert [each["name"] for each in whole["benchmarks"]] == ["a", "b"]
    assert whole["commit_info"]["dirty"] is False


def test_suites_of_two_commits_are_marked() -> None:
    other = result(latency("b", "small", 2.0))
    other["commit_info"]["id"] = "fedcba"
    assert results.merged([result(latency("a", "small", 1.0)), other])["commit_info"]["dirty"] is True


def test_suites_of_two_machines_are_refused() -> None:
    with pytest.raises(ValueError, match="measured with threads 2 and 4"):
        results.merged([result(), result(threads=4)])
    with pytest.raises(ValueError, match="no suite"):
        results.merged([])


def test_written_figures_are_short(tmp_path: Path) -> None:
    results.write({"x": [1.23456789, 7, "1.23456789"]}, tmp_path / "a" / "b.json")
    assert json.loads((tmp_path / "a" / "b.json").read_text()) == {"x": [1.2346, 7, "1.23456789"]}


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_report(tmp_path: Path) -> None:
    whole = result(
        latency("abpn_fast", "small", 0.5, ours=True),
        latency("abpn_fast", "large", 1.0, ours=True),
        latency("peer", "small", 1.0),
        row("memory", "abpn_fast", "small", 0.5, megapixels=1.0, peak_beyond_input=12_300_000, ours=True),
        row("memory of strips", "abpn_fast", "high", 0.5, megapixels=1.0, peak_beyond_input=4_000_000),
        row("cost per megapixel", "abpn_fast", "large", 1.6, megapixels=16.0),
        row("fused pyramid", "all", None, 0.2, gflops_per_second=50.0, ceiling_gflops_per_second=100.0, share=0.5),
        row("mask in compact regions", "all", "no mask", 0.2),
        row("mask in compact regions", "all", "5 %", 0.05),
        row("training step, small", "abpn_fast", "wide", 0.05, baseline=0.05, allocator_peak=7_000_000),
        row("something new", "all", "wide", 0.05),
    )
    whole["refused"] = [{"suite": "latency, small", "row": "other", "column": "small", "reason": "not installed"}]
    report.write(whole, tmp_path / "benchmarks-some.md", source=Path("some.json"))
    text = (tmp_path / "benchmarks-some.md").read_text()
    for part in (
        "Some CPU, 2 CPUs, 2 threads",
        "torch 2.13",
        "commit 0123456789.",
        "## Latency, small",
        "| abpn_fast | 500 ms (1x) | 1 s (2x) |",
        "| *best of* | 5 | 5 |",
        "- not measured: other, small: not installed",
        "| abpn_fast | 12 MB |",
        "| abpn_fast | 1.6 s, 100 ms/MP |",
        "| all | 200 ms | 5 | 50 GFLOP/s | 100 GFLOP/s | 50% |",
        "| all | 200 ms (100%) | 50 ms (25%) |",
        "| abpn_fast | 50 ms (1x), 7 MB |",
        "float32 1e-05 and 1e-06",
    ):
        assert part in text, part
    pictures = sorted(file.name for file in (tmp_path / "images").iterdir())
    assert pictures == ["bench-some-latency-small.png", "bench-some-memory.png"]
    assert all(f"(images/{name})" in text for name in pictures)


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_report_of_a_gpu(tmp_path: Path) -> None:
    suite, graphed = "latency, small, batch 1", gpu_candidates.NETWORKS["ours_graphed"].label
    rates = {"gigabytes_per_second": 3000.0, "ceiling_gigabytes_per_second": 4000.0, "share": 0.75}
    whole = result(
        row(suite, graphed, "1 x 1", 0.5, megapixels=1.0),
        row(suite, "PyTorch eager", "1 x 1", 2.0, megapixels=1.0),
        row(suite, "PyTorch eager", "2 x 2", 4.0, megapixels=4.0),
        row("operators, 1 x 1", "down", None, 0.5, **rates),
        row("operators, 1 x 1", "up", None, 0.5, gigabytes_per_second=2000.0),
        driver="580.1",
        cuda="13.0",
        missing_backends={"cuda": "backend cuda is not compiled"},
    )
    del whole["commit_info"]
    whole["checks"] = [
        {"name": "tests", "passed": True, "output": "785 passed"},
        {"name": "memcheck", "passed": None, "output": "...\nnot done after 150 s"},
    ]
    whole["refused"] = [{"suite": "checks", "row": "all", "reason": "failed"}]
    report.write(whole, tmp_path / "report.md", source=Path("gpu.json"))
    text = (tmp_path / "report.md").read_text()
    for part in (
        "Some CPU, driver 580.1, CUDA 13.0; Python 3.11, torch 2.13;\n2026-01-01. From",
        "- **memcheck was not done: not done after 150 s**\n- **backend cuda is not compiled**\n",
        "| PyTorch eager | 2 s (4x) | 4 s |",
        "| down | 500 ms | 5 | 3000 GB/s | 4000 GB/s | 75% |",
        "| up | 500 ms | 5 | 2000 GB/s | - | - |",
        "a copy of 1 GiB",
        "- not measured: all, : failed",
    ):
        assert part in text, part
    for part in ("threads", "512 MiB", "None", "processes of"):
        assert part not in text, part
