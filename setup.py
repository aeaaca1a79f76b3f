"""Adds the native libraries where torch and their compilers are at hand; says so in one line where not.

``ABPN_FAST_BUILD_CPU``, ``ABPN_FAST_BUILD_CUDA``: ``auto`` (default), ``0`` to leave the library out, ``1`` to fail
where it cannot be built. ``auto`` builds the CUDA library where there is nvcc and a GPU or ``TORCH_CUDA_ARCH_LIST``.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from setuptools import setup


def native() -> dict[str, Any]:
    """Arguments of ``setup`` that build ``csrc``, or none."""
    extensions = [extension for kind in ("CPU", "CUDA") if (extension := library(kind)) is not None]
    if not extensions:
        return {}
    return {
        "ext_modules": extensions,
        "cmdclass": {"build_ext": description().BuildExtension},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }


def library(kind: str) -> Any:
    """The extension with the CPU or the CUDA kernels, or None."""
    variable = f"ABPN_FAST_BUILD_{kind}"
    wish = os.environ.get(variable, "auto")
    if wish not in ("auto", "0", "1"):
        raise SystemExit(f"{variable} must be auto, 0 or 1, got {wish!r}")
    missing = f"{variable} is 0" if wish == "0" else why_not_buildable()
    if kind == "CUDA":
        missing = missing or description().why_no_cuda(asked=wish == "1")
    if missing and wish == "1":
        raise SystemExit(f"abpn_fast: the native library for {kind} cannot be built: {missing}")
    if missing:
        print(f"abpn_fast: without its native library for {kind}: {missing}", file=sys.stderr)
        return None
    build = description()
    return build.cuda_extension() if kind == "CUDA" else build.cpu_extension()


def why_not_buildable() -> str | None:
    """What is missing, or None."""
    if sys.platform == "win32":
        return "it is not made for Windows"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed here (install it first, then use pip's --no-build-isolation)"
    if shutil.which(os.environ.get("CXX", "c++").split()[0]) is None and shutil.which("g++") is None:
        return "there is no C++ compiler (set CXX to one)"
    return None


def description() -> ModuleType:
    """The module ``csrc/build.py``."""
    spec = importlib.util.spec_from_file_location("abpn_fast_build", Path(__file__).parent / "csrc" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


setup(**native())
