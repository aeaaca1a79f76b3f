"""What a kernel becomes on a GPU, without a GPU: compiled ahead of time, as its launch would have it compiled.

``launches`` notes the kernels, arguments and options of a launch on meta tensors; ``Compiler`` compiles them for a
compute capability and counts. It works in a process of its own, where Triton's interpreter is not asked for.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

_POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.uint8: "*u8",
    torch.uint16: "*u16",
    torch.int64: "*i64",
}


@dataclass
class Launch:
    """A kernel with the arguments and the options it is launched with."""

    module: str
    kernel: str
    arguments: dict[str, Any]
    options: dict[str, Any]
    programs: int


@dataclass
class Code:
    """What became of a launch; registers and bytes are those of a thread, ``shared`` of a program.

    ``loops`` are the numbers of instructions from a backward branch's target to the branch, of NVIDIA's GPUs alone.
    """

    registers: int
    stack: int
    shared: int
    opcodes: Counter[str]
    loops: list[int]
    ptx: str

    def count(self, pattern: str) -> int:
        """How many instructions begin with ``pattern``, a regular expression."""
        return sum(number for name, number in self.opcodes.items() if re.match(pattern, name))


def launches(module: str, run: Callable[[], object]) -> list[Launch]:
    """The launches of ``abpn_fast.kernels.<module>.start`` while ``run`` runs; nothing is computed."""
    found: list[Launch] = []

    def start(kernel: Any, programs: int, like: Tensor, *arguments: Any, **options: Any) -> None:
        names = kernel.arg_names
        values = dict(zip(names, arguments, strict=False)) | {n: v for n, v in options.items() if n in names}
        settings = {name: value for name, value in options.items() if name not in names}
        described = {name: _described(value) for name, value in values.items()}
        found.append(Launch(kernel.fn.__module__, kernel.fn.__name__, described, settings, programs))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module(f"abpn_fast.kernels.{module}"), "start", start)
        run()
    return found


def _described(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_described(each) for each in value]
    return {"pointer": _POINTERS[value.dtype]} if isinstance(value, Tensor) else value


def recorded(versions: dict[str, Any]) -> Any:
    """What was recorded for the installed Triton, or for the latest before it."""
    import triton

    installed = version(triton.__version__)
    return versions[max((each for each in versions if version(each) <= installed), key=version)]


def version(name: str) -> tuple[int, ...]:
    """3.10 is later than 3.9."""
    return tuple(map(int, name.split(".")[:2]))


class Compiler:
    """Compiles one launch after the other; the same one only once."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        command = [sys.executable, "-m", "tests.kernels.codegen"]
        self._pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env=environment, **self._pipe)  # type: ignore[call-overload]
        self._done: dict[str, Code] = {}

    def __call__(self, launch: Launch, target: str) -> Code:
        """``target`` is sm_90 or the like, or gfx942 or the like."""
        request = json.dumps(vars(launch) | {"target": target}, sort_keys=True)
        if request not in self._done:
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            assert answer, "the compiler died; what it says is on stderr"
            fields = json.loads(answer)
            self._done[request] = Code(**fields | {"opcodes": Counter(fields["opcodes"])})
        return self._done[request]

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def _compile(request: dict[str, Any]) -> dict[str, Any]:
    import triton
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(request["module"]), request["kernel"])
    signature: dict[str, Any] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for index, parameter in enumerate(kernel.params):
        fixed, free = parameter.is_constexpr, not parameter.do_not_specialize
        value = request["arguments"][parameter.name]
        signature[parameter.name] = _type(value, (index,), fixed, free, constants, attributes)
    source = ASTSource(kernel, signature, constants, attributes)
    options = {"enable_fp_fusion": False, **request["options"]}
    target = _target(request["target"])
    options["num_warps"] = -(-options.pop("threads") // target.warp_size)
    compiled = triton.compile(source, target=target, options=options)
    return _counted(compiled) if target.backend == "cuda" else _counted_amd(compiled)


def _target(name: str) -> Any:
    from triton.backends.compiler import GPUTarget

    if name.startswith("sm_"):
        return GPUTarget("cuda", int(name[3:]), 32)
    return GPUTarget("hip", name, warp_size(name))


def warp_size(target: str) -> int:
    """Of AMD's GPUs, those for data centres, gfx9, have 64."""
    return 64 if target.startswith("gfx9") else 32


def _type(value: Any, path: tuple[int, ...], fixed: bool, free: bool, constants: Any, attributes: Any) -> Any:
    """The type of an argument as Triton's launcher sees it; it treats 1 and multiples of 16 as cases of their own."""
    if isinstance(value, list | tuple):
        return tuple(_type(v, (*path, i), fixed, True, constants, attributes) for i, v in enumerate(value))
    if isinstance(value, dict):
        attributes[path] = [["tt.divisibility", 16]]
        return value["pointer"]
    if fixed or value is None or (free and isinstance(value, int) and value == 1):
        constants[path] = value
        return "constexpr"
    if isinstance(value, float):
        return "fp32"
    if free and value % 16 == 0:
        attributes[path] = [["tt.divisibility", 16]]
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def _counted(compiled: Any) -> dict[str, Any]:
    import triton

    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage = subprocess.check_output([tools / "cuobjdump", "-res-usage", cubin], text=True)
        listing = subprocess.check_output([tools / "nvdisasm", "-c", cubin], text=True)
    resources = {name: int(number) for name, number in re.findall(r"\b(REG|STACK|SHARED):(\d+)", usage)}
    opcodes = Counter(re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", listing))
    shared = max(resources["SHARED"], compiled.metadata.shared)
    return {
        "registers": resources["REG"],
        "stack": resources["STACK"],
        "shared": shared,
        "opcodes": opcodes,
        "loops": _loops(listing),
        "ptx": compiled.asm["ptx"],
    }


def _counted_amd(compiled: Any) -> dict[str, Any]:
    listing = compiled.asm["amdgcn"]
    (resources,) = re.findall(r"^amdhsa.kernels:.*", listing, re.MULTILINE | re.DOTALL)
    numbers = {name: int(number) for name, number in re.findall(r"\.(\w+):\s+(\d+)$", resources, re.MULTILINE)}
    return {
        "registers": numbers["vgpr_count"],
        "stack": numbers["private_segment_fixed_size"],
        "shared": compiled.metadata.shared,
        "opcodes": Counter(re.findall(r"^\t([a-z]\w+)", listing, re.MULTILINE)),
        "loops": [],
        "ptx": "",
    }


def _loops(listing: str) -> list[int]:
    """How many instructions each loop has."""
    labels: dict[str, int] = {}
    loops, count = [], 0
    for line in listing.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = count
        elif re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?[A-Z]", line):
            count += 1
            target = re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", line)
            if target and target[1] in labels:
                loops.append(count - labels[target[1]])
    return loops


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(_compile(json.loads(line))), flush=True)
