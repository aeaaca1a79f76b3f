"""What other compilers than the one at hand by default make of the CPU kernels: clang, and GCC for ARM."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

from abpn_fast import cuda_build

CSRC = Path(__file__).parents[2] / "csrc"
COMPILERS = ("clang++", "aarch64-linux-gnu-g++")
BUILD = runpy.run_path(str(CSRC / "build.py"))
SOURCES = sorted(path.name for path in (CSRC / "cpu").glob("*.cpp"))


def compiled(compiler: str, source: str, to: Path, more: Sequence[str] = ()) -> Path:
    """The object file; any warning of ours is an error."""
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    made = to / f"{source}.o"
    headers = [f"-I{CSRC / 'include'}", *(f"-isystem{path}" for path in include_paths())]
    target = f"-DTORCH_TARGET_VERSION={cuda_build.TORCH_TARGET}"
    command = [
        compiler,
        *BUILD["COMPILE_FLAGS"],
        *more,
        "-Werror",
        "-fPIC",
        target,
        *headers,
        "-c",
        str(CSRC / "cpu" / source),
    ]
    done = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_compiles(compiler: str, source: str, tmp_path: Path) -> None:
    compiled(compiler, source, tmp_path)


def test_compiles_without_the_headers_of_python(tmp_path: Path) -> None:
    compiled("c++", "library.cpp", tmp_path)


def test_sums_stay_in_registers_on_arm(tmp_path: Path) -> None:
    """Of the loop that multiplies: 24 sums, and nothing but its pixels and filters comes from memory."""
    made = compiled("aarch64-linux-gnu-g++", "gated_conv.cpp", tmp_path, BUILD["ARM_FLAGS"])
    command = ["aarch64-linux-gnu-objdump", "-dC", "--no-show-raw-insn", str(made)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    name = "<void abpn::neon::multiply<abpn::neon::Floats, 1, 8, 3>"
    (function,) = re.findall(name + r".*?>:\n(.*?)\n\n", listing, re.DOTALL)
    assert len(re.findall(r"\bfmla\s+v", function)) == 24
    assert not re.findall(r"\b(?:ld|st)[pr]\s+q\d+.*\[sp", function)
