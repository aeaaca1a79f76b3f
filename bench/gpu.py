"""``python -m bench.gpu OUT_DIR``: parity, compute-sanitizer, then latency and memory on the GPU.

Writes ``OUT_DIR/<name of the GPU>.json``, which ``python -m bench.report`` reads, after every row, and the checks' logs
beside it. About five minutes once Triton's cache is warm; what does not fit ``--seconds`` is left out and listed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import importlib.util
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import abpn_fast
from bench import gpu_candidates, gpu_layer, gpu_measure, machine, networks, results
from bench.pyramid import Pyramid

# Seconds for everything, and at most for each part of it.
SECONDS, TESTS, SANITIZER, WARM_UP = 520.0, 220.0, 100.0, 200.0
SIZES = ((4096, 4096), (3840, 2160), (2048, 2048), (1024, 1024), (512, 512), (8192, 8192))
# What "base" is timed with, at the first size.
_BASE = ("ours_float16", "ours_graphed", "eager_half", "eager_graphed")
# Compiling takes up to a minute for each shape.
_COMPILED_SIZES = {"compiled": ((4096, 4096), (1024, 1024)), "autotuned": ((4096, 4096),)}
_COMPILING = 60.0
# Where a test runs on the GPU, its id names the device before the backend.
_TESTS_ON_THE_GPU = "(cuda and not cuda-reference and not test_cuda.py) or TestOnTheGPU or graphed.py or parity.py"
_TEST_FILES = ("tests/ops", "tests/backends/test_cuda.py", "tests/test_graphed.py", "tests/kernels/test_parity.py")
_LINES_KEPT = 40


class Case(NamedTuple):
    """A candidate on a batch of photos."""

    candidate: str
    width: int
    height: int
    batch: int
    network: str = "small"


class BrokenGPU(RuntimeError):
    """After an error that every later call to CUDA meets again."""


class Record:
    """The JSON as it grows, on the disk after every row.

    Args:
        target: the file.
        information: ``machine_info``.
        deadline: of ``clock``; nothing begins after it.
        device: for tests a CPU stands in for the GPU.
        clock: seconds.
    """

    def __init__(
        self,
        target: Path,
        information: dict[str, Any],
        deadline: float,
        *,
        device: str = "cuda",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.target, self.deadline, self.device, self.clock = target, deadline, device, clock
        self.checks: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.refused: list[dict[str, Any]] = []
        self.result = {"machine_info": information, "version": "1", "checks": self.checks}
        self.result |= {"benchmarks": self.rows, "refused": self.refused}

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - self.clock()

    def write(self) -> None:
        """Whole or not at all."""
        whole = self.target.with_suffix(".part")
        results.write(self.result, whole)
        whole.replace(self.target)

    def add_checks(self, *checks: dict[str, Any]) -> None:
        """Also what was not checked, for who reads the rows alone; what failed is shown at once."""
        for check in checks:
            word = {True: "passed", False: "failed", None: "not done"}[check["passed"]]
            print(f"{check['name']}: {word}", *[check["output"]] * (not check["passed"]), sep="\n", flush=True)
        self.checks.extend(checks)
        self.result["machine_info"] |= {"unchecked": self.named(None), "failed": self.named(False)}
        self.write()

    def named(self, passed: bool | None) -> list[str]:
        """The checks with that result."""
        return [check["name"] for check in self.checks if check["passed"] is passed]

    def add(self, *rows: dict[str, Any]) -> None:
        self.rows.extend(rows)
        self.write()

    def attempt(self, entry: dict[str, Any], work: Callable[..., Any], *arguments: Any, needs: float = 0) -> Any:
        """What ``work`` gives, or None, with the reason in ``refused``: it failed, refused or would come too late.

        Raises:
            BrokenGPU: it failed, and so will all that follows.
        """
        try:
            if self.left < needs:
                raise TimeoutError("no time was left")
            found = work(*arguments)
            if "refusal" not in found:
                return found
            reason = found["refusal"]
        except Exception as error:
            reason = gpu_measure.first_line(error)
        self.refuse(entry, reason)
        return None

    def refuse(self, entry: dict[str, Any], reason: str) -> None:
        self.note(entry, reason)
        if self.device == "cuda":
            try:
                torch.cuda.synchronize()
            except RuntimeError as error:
                reason = gpu_measure.first_line(error)
                self.note({"suite": "checks", "row": "all that follows"}, reason)
                raise BrokenGPU(f"the GPU cannot be used any longer: {reason}") from error

    def note(self, entry: dict[str, Any], reason: str) -> None:
        self.refused.append(entry | {"reason": reason})
        self.write()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="OUT_DIR")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for everything (default: %(default).0f)")
    options = parser.parse_args()
    reason = why_not()
    if reason is not None:
        raise SystemExit(reason)
    deadline = time.monotonic() + options.seconds
    target = options.folder / f"{machine.file_name(torch.cuda.get_device_name())}.json"
    record = Record(target, settings() | information(), deadline)
    record.add_checks(tests(options.folder, record.left))
    record.add_checks(*sanitizer(options.folder, record.left))
    # Timed all the same: a row is refused by its own parity check, and one wrong test must not cost the others.
    if record.named(False):
        record.note({"suite": "checks", "row": "all"}, f"failed: {', '.join(record.named(False))}")
    record.result["warm_up"] = warmed(options.folder, record.left / 2)
    try:
        measured(record)
    except BrokenGPU as error:
        raise SystemExit(f"{error}; {target} has what came before") from error
    print(f"wrote {target}")
    if record.named(False):
        raise SystemExit(f"{', '.join(record.named(False))} failed; the logs are beside {target}")
    if record.named(None):
        print(f"unchecked: {', '.join(record.named(None))}; the JSON says why")


def why_not() -> str | None:
    """Why nothing can be measured here, or None."""
    if not torch.cuda.is_available():
        return "bench.gpu needs an NVIDIA GPU and a CUDA build of torch: torch.cuda.is_available() is False"
    return None


def settings() -> dict[str, Any]:
    """The same for every candidate: cuDNN tries its algorithms at each new shape, float32 stays float32."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return {"cudnn_benchmark": True, "tf32": False}


def information() -> dict[str, Any]:
    """With the GPU, its driver, CUDA, and the backends that should run there but cannot, and why."""
    image = torch.empty(1, 3, 2, 2, device="cuda")
    reasons = {
        name: abpn_fast.why_not(name, image, operator=operator)
        for name, operator in (("triton", "pyramid_down"), ("cuda", "gated_conv"))
    }
    missing = {name: reason for name, reason in reasons.items() if reason is not None}
    return machine.information() | {"driver": driver(), "cuda": torch.version.cuda, "missing_backends": missing}


def driver() -> str | None:
    """Of the GPU, where nvidia-smi says it."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return None
    return lines[0] if lines else None


def tests(folder: Path, left: float) -> dict[str, Any]:
    """The operators' and the model's tests on the GPU."""
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "--durations=15", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist") is not None:
        # Each process takes GPU memory for a context of its own.
        command += ["-n", str(min(max(1, (os.cpu_count() or 1) - 2), 14))]
    command += ["-k", _TESTS_ON_THE_GPU, *_TEST_FILES]
    return check("tests", command, min(TESTS, left), folder, OMP_NUM_THREADS="1")


def sanitizer(folder: Path, left: float) -> list[dict[str, Any]]:
    """compute-sanitizer on small passes, where it is on the path and knows the GPU; both tools at once."""
    path = shutil.which("compute-sanitizer")
    if path is None:
        return [{"name": "compute-sanitizer", "passed": None, "output": "not on the path"}]

    def run(tool: str) -> dict[str, Any]:
        command = [path, "--tool", tool, "--error-exitcode", "9", *_TOOLS[tool], sys.executable, "-m", _SMALL_PASSES]
        found = check(tool, command, min(SANITIZER, left), folder, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        # As under gVisor.
        if "Device not supported" in found["output"]:
            found |= {"passed": None, "output": f"{found['output']}\nit does not support this device"}
        elif tool == "racecheck" and found["passed"] is False and _races_of_others(folder / found["log"]):
            found |= {"passed": None, "output": f"{found['output']}\nraces in kernels of other libraries alone"}
        return found

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(run, _TOOLS))


# PyTorch asks CUDA for what may be missing, which is no error.
_TOOLS = {"memcheck": ["--report-api-errors", "no"], "racecheck": []}
_SMALL_PASSES = "tests.backends.sanitize_cuda"
# What they print when they are through.
_DONE = "all passes done"
# As racecheck names the kernels of csrc/cuda and of kernels/, whose entries are all called so.
_OURS = re.compile(r"access at .*(gated_conv|gated_gradient|\bkernel\+)")


def _races_of_others(log: Path) -> bool:
    """Whether the passes ran to their end and races were reported, none of them in a kernel of ours."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    races = [line for line in lines if "access at " in line]
    return bool(races) and _DONE in lines and not any(map(_OURS.search, races))


def warmed(folder: Path, left: float) -> dict[str, Any]:
    """Compile what timing needs, in parallel; what fails or is not done is compiled when it is timed."""
    command = [sys.executable, "-c", "from bench import gpu_candidates; gpu_candidates.warm_all()"]
    return check("warm-up", command, min(WARM_UP, left), folder)


def check(name: str, command: list[str], limit: float, folder: Path, **environment: str) -> dict[str, Any]:
    """Run it, with all that it prints in ``folder/<name>.log``.

    Returns:
        ``passed``, None where it took more than ``limit`` seconds and was killed with all that it started; the last
        lines of its ``output``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log, begin = folder / f"{name}.log", time.monotonic()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
        )
        try:
            passed = process.wait(max(limit, 0)) == 0
        except subprocess.TimeoutExpired:
            passed = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    lines += [f"not done after {limit:.0f} s"] * (passed is None)
    seconds = time.monotonic() - begin
    return {
        "name": name,
        "passed": passed,
        "seconds": seconds,
        "log": log.name,
        "output": "\n".join(lines[-_LINES_KEPT:]),
    }


def cases() -> Iterator[Case]:
    """Every case, what matters most first."""
    for name in _BASE:
        yield Case(name, *SIZES[0], 1, "base")
    for batch, (width, height) in itertools.product((1, 4), SIZES):
        for name in gpu_candidates.NETWORKS:
            if name not in _COMPILED_SIZES:
                yield Case(name, width, height, batch)
    for name, sizes in _COMPILED_SIZES.items():
        for width, height in sizes:
            yield Case(name, width, height, 1)


@torch.no_grad()
def measured(record: Record) -> None:
    """Rows of everything that fits before the deadline, and what was left out and why."""
    time_operators(record)
    for network in ("base", "small"):
        time_layer(record, network)
    given = Given(record.device)
    for case in cases():
        entry, needs = described(case), _COMPILING if case.candidate in _COMPILED_SIZES else 0
        row = record.attempt(entry, _network_row, case, given, needs=needs)
        if row is not None:
            record.add(*in_suites(entry, row))
        torch._dynamo.reset()


class Given:
    """The photos of the last shape asked for, with what the reference makes of them."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.shape: tuple[int, int, int, str] | None = None
        self.pair: tuple[Tensor, Tensor] | None = None

    def of(self, case: Case) -> tuple[Tensor, Tensor]:
        if self.pair is None or self.shape != case[1:]:
            self.pair = None
            image = gpu_measure.photos(case.height, case.width, case.batch, self.device)
            model = networks.network(case.network).to(self.device)
            self.shape, self.pair = case[1:], (image, torch.cat([model(one[None]) for one in image]))
        return self.pair


def _network_row(case: Case, given: Given) -> dict[str, Any]:
    return gpu_measure.network_row(gpu_candidates.NETWORKS[case.candidate], case.network, *given.of(case))


def described(case: Case) -> dict[str, Any]:
    """``extra_info`` of a case."""
    candidate = gpu_candidates.NETWORKS[case.candidate]
    return {
        "suite": f"latency, {case.network}, batch {case.batch}",
        "row": candidate.label,
        "column": f"{case.width} x {case.height}",
        "megapixels": case.width * case.height * case.batch / 1e6,
        "ours": candidate.ours,
    }


def in_suites(entry: dict[str, Any], row: dict[str, Any]) -> list[dict[str, Any]]:
    """The row in the suite of latencies and, where its peak is known, in that of peaks."""
    extras = [entry | row["extra_info"]]
    if "peak_beyond_input" in row["extra_info"]:
        extras.append(extras[0] | {"suite": entry["suite"].replace("latency", "memory")})
    return [{"name": extra["row"], "extra_info": extra, "stats": row["stats"]} for extra in extras]


def time_operators(record: Record, side: int = 4096) -> None:
    """Rows of the single operators, each after it was compared with the reference."""
    suite = {"suite": f"operators, {side} x {side}"}
    ceiling = record.attempt(suite | {"row": "ceilings"}, gpu_measure.ceilings, record.device) or {}
    for dtype in (torch.float16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        every = suite | {"row": f"all, {name}"}
        differing = record.attempt(every, gpu_measure.operators_that_differ, dtype, record.device)
        operations = differing is not None and record.attempt(every, _operations, side, dtype, record.device)
        for operator, operation in (operations or {}).items():
            entry = suite | {"row": f"{operator}, {name}"}
            if operator in differing:
                record.refuse(entry, differing[operator])
                continue
            row = record.attempt(entry, gpu_measure.operator_row, operation, dtype, ceiling, record.device)
            if row is not None:
                record.add(row | {"name": operator, "extra_info": entry | row["extra_info"]})


def time_layer(record: Record, network: str, dtype: torch.dtype = torch.float16, **options: Any) -> None:
    """Rows of the retouching layer, step by step and whole, beside PyTorch's operators."""
    name = str(dtype).removeprefix("torch.")
    entry = {"suite": f'retouching layer, "{network}", {gpu_layer.SIDE} x {gpu_layer.SIDE}, {name}'}

    def add(row: str, work: Callable[..., dict[str, Any]], *arguments: Any, **named: Any) -> None:
        named_entry = entry | {"row": row, "column": gpu_layer.OURS}
        stats = record.attempt(named_entry, lambda: work(*arguments, record.device, **named))
        for column, found in (stats or {}).items():
            record.add({"name": row, "extra_info": named_entry | {"column": column}, "stats": found})

    def made() -> dict[str, Any]:
        layer = gpu_layer.whole(network, dtype, record.device, **options)
        return {"layer": layer, "steps": list(gpu_layer.steps(layer))}

    layer = record.attempt(entry | {"row": "all", "column": gpu_layer.OURS}, made)
    for step in layer["steps"] if layer else ():
        add(step.name, gpu_layer.step_rows, step)
    for graphed in (False, True) if layer else ():
        add("whole" + ", CUDA graph" * graphed, gpu_layer.whole_rows, layer["layer"], graphed=graphed)


def _operations(side: int, dtype: torch.dtype, device: str) -> dict[str, gpu_candidates.Operation]:
    p = Pyramid(side, side, dtype, device)
    return gpu_candidates.operations(p, p.coarser())


if __name__ == "__main__":
    main()
