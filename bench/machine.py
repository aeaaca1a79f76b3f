"""What a result was measured with: enough to judge it by, nothing that says whose machine it was."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

import abpn_fast
from bench.worker import THREADS

_PACKAGES = ("torch", "triton", "onnx", "onnxscript", "onnxruntime", "openvino")


def information() -> dict[str, Any]:
    """For ``machine_info`` of the JSON."""
    return {
        "processor": processor(),
        "cpus": os.cpu_count(),
        "threads": THREADS,
        "instruction_set": _instruction_set(),
        "system": platform.system(),
        "python": platform.python_version(),
        "abpn_fast": abpn_fast.__version__,
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "omp": {name: os.environ[name] for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT") if name in os.environ},
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def processor() -> str:
    """The name of the GPU, else of the CPU as far as it is known."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return re.sub(r"\((R|TM)\)", "", names[0]) if names else platform.machine()


def file_name(name: str) -> str:
    """``name`` in lower case, words joined by hyphens."""
    return "-".join(re.findall(r"[a-z0-9]+", name.lower()))


def _instruction_set() -> str | None:
    from abpn_fast import native
    from abpn_fast.backends import cpu

    return cpu.instruction_set() if native.why_missing() is None else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
