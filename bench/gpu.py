"""``python -m bench.gpu OUT_DIR``: parity, compute-sanitizer, then latency and memory on the GPU, in five minutes.

Writes ``OUT_DIR/<name of the GPU>.json``, which ``python -m bench.report`` reads.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench import gpu_candidates, gpu_measure, machine, networks, results

# Seconds for everything, of which the checks may take so many.
BUDGET, TESTS, SANITIZER = 285.0, 80.0, 30.0
SIZES = ((4096, 4096), (3840, 2160), (2048, 2048), (1024, 1024), (512, 512), (8192, 8192))
# Compiling takes up to a minute for each shape.
_COMPILED_SIZES = {"compiled": ((4096, 4096), (1024, 1024)), "autotuned": ((4096, 4096),)}
_SMALL_PASS = (
    "import torch, abpn_fast; m = abpn_fast.ABPN.from_pretrained('small', device='cuda'); "
    "m(torch.rand(2, 3, 130, 97, device='cuda')); m.half()(torch.rand(1, 3, 97, 130, device='cuda').half()); "
    "torch.cuda.synchronize()"
)


class Case(NamedTuple):
    """A candidate on a batch of photos."""

    candidate: str
    width: int
    height: int
    batch: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="OUT_DIR")
    folder = parser.parse_args().folder
    reason = why_not()
    if reason is not None:
        raise SystemExit(reason)
    deadline = time.monotonic() + BUDGET
    checks = [tests(), *sanitizer()]
    result: dict[str, Any] = {"machine_info": information(), "version": "1", "checks": checks}
    right = all(check["passed"] for check in checks if check["passed"] is not None)
    found = measured(deadline) if right else ([], [{"suite": "checks", "row": "all", "reason": "a check failed"}])
    result["benchmarks"], result["refused"] = found
    target = folder / f"{machine.file_name(torch.cuda.get_device_name())}.json"
    results.write(result, target)
    print(f"wrote {target}")
    if not right:
        raise SystemExit("a check failed, so nothing was timed; the JSON has its last lines")


def why_not() -> str | None:
    """Why nothing can be measured here, or None."""
    if not torch.cuda.is_available():
        return "bench.gpu needs an NVIDIA GPU and a CUDA build of torch: torch.cuda.is_available() is False"
    return None


def information() -> dict[str, Any]:
    """With the GPU, its driver and CUDA."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split() or [None]
    return machine.information() | {"driver": driver[0], "cuda": torch.version.cuda}


def tests() -> dict[str, Any]:
    """The operators' and the model's tests on the GPU."""
    files = ["tests/ops", "tests/test_model.py"]
    return check("tests", [sys.executable, "-m", "pytest", "-q", "-x", "-k", "cuda", *files], TESTS)


def sanitizer() -> list[dict[str, Any]]:
    """compute-sanitizer on a small pass, where it is on the path."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return [{"name": "compute-sanitizer", "passed": None, "output": "not on the path"}]
    command = [sys.executable, "-c", _SMALL_PASS]
    return [check(each, [tool, "--tool", each, "--error-exitcode", "9", *command], SANITIZER) for each in _TOOLS]


_TOOLS = ("memcheck", "racecheck")


def check(name: str, command: list[str], limit: float) -> dict[str, Any]:
    """Run it: ``passed``, None where it took more than ``limit`` seconds, and the end of its output."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return {"name": name, "passed": None, "output": f"not done after {limit:.0f} s"}
    return {"name": name, "passed": done.returncode == 0, "output": (done.stdout + done.stderr)[-800:]}


def cases() -> Iterator[Case]:
    """Every case, what matters most first."""
    for batch, (width, height) in itertools.product((1, 4), SIZES):
        for name in gpu_candidates.NETWORKS:
            if name not in _COMPILED_SIZES:
                yield Case(name, width, height, batch)
    for name, sizes in _COMPILED_SIZES.items():
        for width, height in sizes:
            yield Case(name, width, height, 1)


def measured(
    deadline: float, device: str = "cuda", clock: Callable[[], float] = time.monotonic
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of everything that fits before ``deadline``, and what was left out and why."""
    with torch.no_grad():
        rows, refused = operators(gpu_measure.ceilings(device), device)
        photos: tuple[Any, Any, Any] = None, None, None
        for case in cases():
            shape = case[1:]
            entry = described(case)
            try:
                if clock() > deadline:
                    raise RuntimeError("no time was left")
                if photos[0] != shape:
                    photos = None, None, None
                    image = gpu_measure.photos(case.height, case.width, case.batch, device)
                    model = networks.network("small").to(device)
                    photos = shape, image, torch.cat([model(one[None]) for one in image])
                row = gpu_measure.network_row(gpu_candidates.NETWORKS[case.candidate], "small", *photos[1:])
            except Exception as error:
                row = {"refusal": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"}
            if "refusal" in row:
                refused.append(entry | {"reason": row["refusal"]})
            else:
                rows += both(entry, row)
            torch._dynamo.reset()
    return rows, refused


def described(case: Case) -> dict[str, Any]:
    """``extra_info`` of a case."""
    candidate = gpu_candidates.NETWORKS[case.candidate]
    return {
        "suite": f"latency, small, batch {case.batch}",
        "row": candidate.label,
        "column": f"{case.width} x {case.height}",
        "megapixels": case.width * case.height * case.batch / 1e6,
        "ours": candidate.ours,
    }


def both(entry: dict[str, Any], row: dict[str, Any]) -> list[dict[str, Any]]:
    """The row in the suite of latencies and in that of peaks."""
    extra = entry | row["extra_info"]
    memory = extra | {"suite": extra["suite"].replace("latency", "memory")}
    return [{"name": e["row"], "extra_info": e, "stats": row["stats"]} for e in (extra, memory)]


def operators(ceiling: dict[str, float], device: str, side: int = 4096) -> tuple[list[Any], list[Any]]:
    """Rows of the single operators."""
    rows = []
    for dtype in (torch.float16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        for operator, operation in gpu_candidates.operations(side, side, dtype, device).items():
            row = gpu_measure.operator_row(operation, dtype, ceiling, device)
            row["extra_info"] |= {"suite": f"operators, {side} x {side}", "row": f"{operator}, {name}"}
            rows.append(row | {"name": operator})
    return rows, []


if __name__ == "__main__":
    main()
