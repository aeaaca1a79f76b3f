from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def setup(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "setup.py", "-q", *arguments]
    environment = os.environ | {"ABPN_FAST_BUILD_CUDA": "0"} | environment
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_source_distribution_has_what_builds_it(tmp_path: Path) -> None:
    assert setup("egg_info", "--egg-base", str(tmp_path), ABPN_FAST_BUILD_CPU="0").returncode == 0
    listed = set((tmp_path / "abpn_fast.egg-info" / "SOURCES.txt").read_text().split())
    needed = [path for ending in ("py", "cpp", "cu", "cuh", "h") for path in (ROOT / "csrc").rglob(f"*.{ending}")]
    assert needed and {path.relative_to(ROOT).as_posix() for path in needed} <= listed
    assert not any(name.startswith("tests/") for name in listed)


@pytest.mark.skipif(shutil.which("false") is None, reason="needs a command that fails")
def test_a_compiler_that_fails_is_told_with_the_way_around(tmp_path: Path) -> None:
    done = setup("build", "--build-base", str(tmp_path), CXX="false", CC="false")
    assert done.returncode != 0 and "set ABPN_FAST_BUILD_CPU=0 to do without" in done.stderr


def test_windows_gets_the_package_without_libraries() -> None:
    code = (
        "import runpy, sys, setuptools; "
        "sys.platform, sys.argv = 'win32', ['setup.py', '--name']; runpy.run_path('setup.py')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip() == "abpn_fast"
    assert "without its native library for CPU: it is not made for Windows" in done.stderr
