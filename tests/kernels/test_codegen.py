"""Registers, spills, shared memory and instructions of every kernel, compiled for GPUs that are not here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
from abpn_fast import backends
from abpn_fast.backends import triton
from abpn_fast.kernels import adaptive_blend, blend_gradients, cost, levels, reverse_adaptive_blend
from tests.kernels.codegen import Code, Compiler, Launch, launches, recorded

BUDGETS = Path(__file__).with_name("budgets.json")
F32, F16, U8, U16 = torch.float32, torch.float16, torch.uint8, torch.uint16
SIZE = 4096


def pixels(dtype: torch.dtype, size: int = SIZE) -> Tensor:
    return torch.empty(1, 3, size, size, dtype=dtype, device="meta")


def gradients(dtype: torch.dtype, reverse: bool) -> list[Tensor]:
    image, other = ("image", pixels(dtype)), ("other", pixels(dtype))
    wanted = ["image", "other", "j", "k"]
    return blend_gradients.launch(pixels(dtype), image, other, C, C, 0.5, wanted, reverse=reverse)


C = torch.empty(3, device="meta")
# Name: the module that launches, the launch from an image's dtype and that of what is computed.
KERNELS: dict[str, tuple[str, Callable[[torch.dtype, torch.dtype], object]]] = {
    "adaptive_blend": (
        "adaptive_blend",
        lambda image, other: adaptive_blend.launch(pixels(image), pixels(other), C, C, 0.5, pixels(image)),
    ),
    "reverse_adaptive_blend": (
        "reverse_adaptive_blend",
        lambda image, other: reverse_adaptive_blend.launch(pixels(image), pixels(image), C, C, 0.5, pixels(other)),
    ),
    "adaptive_blend_backward": ("blend_gradients", lambda image, other: gradients(image, False)),
    "reverse_adaptive_blend_backward": ("blend_gradients", lambda image, other: gradients(image, True)),
    "pyramid_down": (
        "levels",
        lambda image, other: levels.launch(pixels(image), "binomial", pixels(other, SIZE // 2)),
    ),
    "laplacian_decompose": (
        "levels",
        lambda image, other: levels.launch(pixels(image), "binomial", pixels(other, SIZE // 2), pixels(other)),
    ),
}
TARGETS = [(name, F32, F32, target) for name in KERNELS for target in ("sm_80", "sm_90", "sm_100")]
TARGETS += [(name, F16, F16, "sm_90") for name in KERNELS]
TARGETS += [(name, stored, F16, "sm_90") for stored in (U8, U16) for name in KERNELS if "backward" not in name]


def launch(name: str, image: torch.dtype, other: torch.dtype) -> Launch:
    module, run = KERNELS[name]
    (only,) = launches(module, lambda: run(image, other))
    return only


def label(name: str, image: torch.dtype, other: torch.dtype, target: str) -> str:
    return f"{name} {str(image)[6:]} {str(other)[6:]} {target}"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: label(*target))
def test_code(target: tuple[str, torch.dtype, torch.dtype, str], compiler: Compiler) -> None:
    name, image, other, gpu = target
    code = compiler(launch(name, image, other), gpu)
    assert code.stack == 0 and code.count(r"(LDL|STL)\b") == 0, "registers are spilled"
    assert "tf32" not in code.ptx
    # Also the interpreter's quotients are correctly rounded; those of a plain / are not.
    assert "div.full" not in code.ptx and "div.approx" not in code.ptx
    # Each picture is read, and each of half its length or more written, 16 bytes a thread where its pixels have room.
    if image == other:
        assert code.count(r"LDG\.E\.(\w+\.)*128") > 0
    if name != "pyramid_down" and (image == other or name == "laplacian_decompose"):
        assert code.count(r"STG\.E\.(\w+\.)*128") > 0
    # With enable_fp_fusion off, what is fused is written so in the source, or part of a division.
    if name.startswith("adaptive_blend") and image.is_floating_point:
        assert "fma.rn" not in code.ptx
    if "backward" not in name:
        assert code.shared == 0 and code.count("BAR") == 0, "a layout is converted through shared memory"
    budget = recorded(json.loads(BUDGETS.read_text()))[label(*target)]
    assert code.registers <= budget["registers"] and code.shared <= budget["shared"], (code.registers, code.shared)


def last(dtype: torch.dtype, size: int = SIZE) -> Tensor:
    return pixels(dtype, size).to(memory_format=torch.channels_last)


OTHERS: dict[str, tuple[str, Callable[[], object]]] = {
    "blend of two layouts": (
        "adaptive_blend",
        lambda: adaptive_blend.launch(last(U8), pixels(F32), C, C, 0.5, last(U8)),
    ),
    "undamped inverse of two layouts": (
        "reverse_adaptive_blend",
        lambda: reverse_adaptive_blend.launch(last(F16), pixels(F16), C, C, 0.0, last(F16)),
    ),
    "gradients of two layouts": (
        "blend_gradients",
        lambda: blend_gradients.launch(
            pixels(F32), ("image", last(F32)), ("blend", last(F32)), C, C, 0.5, ["blend", "j"], reverse=True
        ),
    ),
    "levels, channels last": ("levels", lambda: levels.launch(last(F16), "binomial", last(F16, 2048), last(F16))),
    "box, odd width": (
        "levels",
        lambda: levels.launch(pixels(F32, 4095), "box", pixels(F32, 2048), pixels(F32, 4095)),
    ),
}
# Loads and stores of spilled registers, where there are any.
SPILLS: dict[str, dict[str, int]] = {"3.6": {}, "3.7": {"box, odd width": 4}}


@pytest.mark.parametrize("name", OTHERS)
def test_other_code_paths(name: str, compiler: Compiler) -> None:
    module, run = OTHERS[name]
    (only,) = launches(module, run)
    code = compiler(only, "sm_90")
    spills = recorded(SPILLS).get(name, 0)
    assert (code.stack == 0 or spills) and code.count(r"(LDL|STL)\b") <= spills, "registers are spilled"
    assert code.count("LDG") > 0 and code.count("STG") > 0


def test_every_operator_is_compiled_and_counted() -> None:
    apart = {"upsample_refine", "upsample_refine_blend"}  # test_refine_codegen.py
    operators = {name for name in backends.OPERATORS if hasattr(triton, name)}
    assert {name.removesuffix("_backward") for name in KERNELS} | apart == operators
    assert all(callable(getattr(cost, name)) for name in operators)


def test_table(compiler: Compiler, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints what was measured; nothing is in the budgets that is not measured any more."""
    rows = {label(*target): compiler(launch(*target[:3]), target[3]) for target in TARGETS}
    assert all(budgets.keys() == rows.keys() for budgets in json.loads(BUDGETS.read_text()).values())
    with capsys.disabled():
        print(f"\n{'kernel':58} registers shared instructions 16-byte loads, stores")
        for name, code in rows.items():
            print(f"{name:58} {code.registers:9} {code.shared:6} {sum(code.opcodes.values()):12} {wide(code)}")


def wide(code: Code) -> str:
    loads, stores = (code.count(rf"{kind}\.E\.(\w+\.)*128") for kind in ("LDG", "STG"))
    return f"{loads:13} {stores:7}"


@pytest.mark.parametrize("size", [4096, 4000, 3000, 3024, 3001])
def test_sizes_share_code(size: int) -> None:
    """All that a kernel's code knows of a photo's size is what divides it."""
    found = {
        length: launches("levels", lambda n=length: levels.launch(pixels(F16, n), "box", pixels(F16, -(-n // 2))))[0]
        for length in (size, size + 16 * 250)
    }
    assert len({str(sorted(launch.options.items())) for launch in found.values()}) == 1
