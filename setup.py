"""Adds the native library where torch and a C++ compiler are at hand; says so in one line where not."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from setuptools import setup


def native() -> dict[str, Any]:
    """Arguments of ``setup`` that build ``csrc``, or none."""
    described = Path(__file__).parent / "csrc" / "build.py"
    spec = importlib.util.spec_from_file_location("abpn_fast_build", described)
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    arguments: dict[str, Any] = build.arguments()
    return arguments


setup(**native())
