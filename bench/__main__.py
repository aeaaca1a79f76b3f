"""Measures the CPU suites that have no result yet, one process each; then writes this machine's JSON and the report.

``python -m bench [SUITE ...] [--again] [--results FOLDER] [--report FILE]``
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from bench import machine, report, results
from bench.worker import THREADS

SUITES = {
    "latency-1024": ["bench/test_latency.py", "-k", "small and (512x512 or 1024x1024)"],
    "latency-2048": ["bench/test_latency.py", "-k", "small and (2048x2048 or 3840x2160)"],
    "latency-4096": ["bench/test_latency.py", "-k", "small and 4096"],
    "latency-base": ["bench/test_latency.py", "-k", "base"],
    "pyramid": ["bench/test_pyramid.py"],
    "operators": ["bench/test_operators.py", "bench/test_retouching.py"],
    "megapixels": ["bench/test_megapixels.py"],
    "memory": ["bench/test_memory.py"],
    "training": ["bench/test_training.py"],
}
CACHE = Path(".cache/bench")
# Waiting threads spin for some milliseconds, GCC's default, whatever the environment says.
ENVIRONMENT = {"OMP_NUM_THREADS": str(THREADS), "OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "300000"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; all by default")
    parser.add_argument("--again", action="store_true", help="measure them even where there is a result")
    parser.add_argument("--results", type=Path, default=Path("bench/results"), metavar="FOLDER")
    parser.add_argument("--report", type=Path, default=Path("docs/benchmarks.md"), metavar="FILE")
    options = parser.parse_args()
    unknown = [suite for suite in options.suites if suite not in SUITES]
    if unknown:
        parser.error(f"no suite {unknown[0]!r}; there are {', '.join(SUITES)}")
    for suite in options.suites or SUITES:
        if options.again or not _file(suite).exists():
            _measure(suite)
    measured = [suite for suite in SUITES if _file(suite).exists()]
    if len(measured) < len(SUITES):
        print("not measured yet:", ", ".join(suite for suite in SUITES if suite not in measured))
    whole = results.merged(json.loads(_file(suite).read_text(encoding="utf-8")) for suite in measured)
    name = f"{machine.file_name(whole['machine_info']['processor'])}-{whole['machine_info']['threads']}-threads"
    target = options.results / f"{name}.json"
    results.write(whole, target)
    report.write(whole, options.report, source=target)
    print(f"wrote {target} and {options.report}")


def _file(suite: str) -> Path:
    return CACHE / f"{suite}.json"


def _measure(suite: str) -> None:
    """Run the suite; a result appears only where all of it ran."""
    part = _file(suite).with_suffix(".part.json")
    part.parent.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    options = ["-q", "--benchmark-columns=min,median,rounds", f"--benchmark-json={part}"]
    subprocess.run([sys.executable, "-m", "pytest", *options, *SUITES[suite]], env=os.environ | ENVIRONMENT, check=True)
    part.replace(_file(suite))
    print(f"suite {suite}: {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
