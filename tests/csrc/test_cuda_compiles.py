"""What nvcc makes of the kernels, without a GPU: no spills, tensor cores, registers within their budgets."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from abpn_fast import cuda_build

MISSING = cuda_build.why_not_buildable()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")

ARCHITECTURES = ("8.0", "9.0a", "10.0")
# Registers of a thread, at most; docs/gated_conv.md has what they are.
REGISTERS = {
    "gated_conv<Half<WideCut>>": 240,
    "gated_conv<Half<MiddleCut>>": 168,
    "gated_conv<Half<NarrowCut>>": 128,
    "gated_conv<Full>": 168,
    "gated_conv_reduce<Half<WideCut>>": 64,
    "gated_conv_reduce<Half<MiddleCut>>": 64,
    "gated_conv_reduce<Half<NarrowCut>>": 64,
    "gated_conv_reduce<Full>": 64,
    "gated_conv_pack": 64,
    "gated_gradient": 64,
}
SOURCES = ("gated_conv", "gated_gradient")


def compiled(architecture: str, name: str, folder: Path) -> tuple[Path, str]:
    """The cubin of a file's kernels and what ptxas said."""
    (flag,) = cuda_build.architecture_flags(architecture)
    made = folder / f"{name}-{architecture}.cubin"
    headers = [f"-I{cuda_build.SOURCES / name}" for name in ("include", "cuda")]
    source = cuda_build.SOURCES / "cuda" / f"{name}.cu"
    command = [
        str(cuda_build.nvcc()),
        *cuda_build.NVCC_FLAGS,
        "-Werror=all-warnings",
        *headers,
        flag,
        "-cubin",
        "-Xptxas=-v",
    ]
    done = subprocess.run([*command, str(source), "-o", str(made)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made, done.stderr


@pytest.fixture(scope="module")
def cubins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[tuple[Path, str]]]]:
    folder = tmp_path_factory.mktemp("cubins")
    with ThreadPoolExecutor(2) as pool:
        made = {(each, name): pool.submit(compiled, each, name, folder) for each in ARCHITECTURES for name in SOURCES}
        yield {each: [made[each, name].result() for name in SOURCES] for each in ARCHITECTURES}


def short(mangled: str) -> str:
    """``gated_conv<Half<WideCut>>`` and so on, whatever the precision."""
    names = ("gated_conv_reduce", "gated_conv_pack", "gated_gradient", "gated_conv")
    kernel = next(name for name in names if name in mangled)
    cut = re.search(r"(Wide|Middle|Narrow)Cut", mangled)
    policy = "" if kernel in ("gated_conv_pack", "gated_gradient") else f"<Half<{cut[0]}>>" if cut else "<Full>"
    return kernel + policy


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_registers_and_spills(cubins: dict[str, list[tuple[Path, str]]], architecture: str) -> None:
    log = "\n".join(log for _, log in cubins[architecture])
    kernels = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers",
        log,
        re.DOTALL,
    )
    assert {short(name) for name, *_ in kernels} == set(REGISTERS)
    for name, stores, loads, registers in kernels:
        assert (stores, loads) == ("0", "0"), f"{short(name)} spills"
        assert int(registers) <= REGISTERS[short(name)], short(name)


def disassembler() -> str | None:
    """The toolkit's cuobjdump, or Triton's."""
    found = shutil.which("cuobjdump")
    bundled = [Path(path) / "triton/backends/nvidia/bin/cuobjdump" for path in sys.path]
    return found or next((str(path) for path in bundled if path.exists()), None)


@pytest.mark.skipif(disassembler() is None, reason="there is no cuobjdump")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_instructions(cubins: dict[str, list[tuple[Path, str]]], architecture: str) -> None:
    kernels: dict[str, str] = {}
    for cubin, _ in cubins[architecture]:
        command = [str(disassembler()), "-sass", str(cubin)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        kernels |= dict(re.findall(r"Function : (\w+)(.*?)(?=Function : |\Z)", listing, re.DOTALL))
    assert {short(name) for name in kernels} == set(REGISTERS)
    groups = [code for name, code in kernels.items() if short(name) == "gated_gradient" and "LDG.E.128" in code]
    assert len(groups) == 3 and all("STG.E.128" in code for code in groups)
    for name, code in kernels.items():
        is_half = short(name).startswith("gated_conv<Half")
        assert ("HMMA.16816.F32" in code) == is_half, name
        # 16 bytes at a time, straight to shared memory; and back by whole matrices.
        assert ("LDGSTS.E" in code and ".128" in code and "LDSM.16.M88.4" in code) == is_half, name
        assert "TF32" not in code
        # No array that the compiler could not keep in registers.
        assert "LDL" not in code and "STL" not in code, name
        assert ("FFMA" in code) or short(name) != "gated_conv<Full>"


def test_the_library_builds_and_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ABPN_FAST_DISABLE_JIT", raising=False)
    library = cuda_build.on_first_use()
    assert library.is_relative_to(tmp_path)
    assert cuda_build.on_first_use() == library
    code = f"import torch; torch.ops.load_library({str(library)!r}); print(torch.ops.abpn_fast_cuda.gated_conv)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "gated_conv" in done.stdout
