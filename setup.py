"""Adds the native library where torch and a C++ compiler are at hand; says so in one line where not.

``ABPN_FAST_BUILD_CPU``: ``auto`` (default), ``0`` to leave the library out, ``1`` to fail where it cannot be built.
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
    wish = os.environ.get("ABPN_FAST_BUILD_CPU", "auto")
    if wish not in ("auto", "0", "1"):
        raise SystemExit(f"ABPN_FAST_BUILD_CPU must be auto, 0 or 1, got {wish!r}")
    missing = "ABPN_FAST_BUILD_CPU is 0" if wish == "0" else why_not_buildable()
    if missing and wish == "1":
        raise SystemExit(f"abpn_fast: the native library cannot be built: {missing}")
    if missing:
        print(f"abpn_fast: installed without its native library: {missing}", file=sys.stderr)
        return {}
    build = description()
    return {
        "ext_modules": build.extensions(),
        "cmdclass": {"build_ext": build.BuildExtension},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }


def why_not_buildable() -> str | None:
    """What is missing, or None."""
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
