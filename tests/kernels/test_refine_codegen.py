"""The refining kernels compiled for GPUs that are not here, and what they cost at least."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
from abpn_fast.kernels import cost, refine
from tests.kernels.codegen import Compiler, Launch, launches, recorded

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
U8, U16 = torch.uint8, torch.uint16
# Image, blend layer, GPU.
TARGETS = [(kind, kind, gpu) for kind in (F32, F16) for gpu in ("sm_80", "sm_90", "sm_100")]
TARGETS += [(U8, BF16, "sm_90"), (U16, BF16, "sm_90")]
# For each target how many registers a thread may have and how many bytes a program, by versions of Triton.
BUDGETS = {
    "3.6": [(254, 0), (254, 0), (254, 0), (248, 512), (240, 1024), (248, 1024), (255, 1024), (228, 1024)],
    "3.7": [(254, 0), (254, 0), (255, 0), (246, 5120), (240, 5120), (240, 5120), (254, 5120), (239, 5120)],
}
# Loads and stores of spilled registers, where there are any.
SPILLS = {"3.6": {(F32, F32, "sm_100"): 10}, "3.7": {(F32, F32, "sm_100"): 30}}
# Instructions for two rows of 32 pixels in the middle of the image, and where it is not in the blend layer's dtype.
STEPS = {"3.6": (460, 520), "3.7": (460, 540)}


def launch(image: torch.dtype, low: torch.dtype, size: int = 4096) -> Launch:
    def pixels(dtype: torch.dtype, size: int, channels: int = 3) -> Tensor:
        return torch.empty(1, channels, size, size, dtype=dtype, device="meta")

    coarse = -(-size // 2)

    shapes = ((16, 6, 3, 3), (16,), (3, 16, 3, 3), (3,))
    weights = tuple(torch.empty(shape, dtype=low, device="meta") for shape in shapes)
    c = torch.empty(3, device="meta")

    def run() -> None:
        arguments = pixels(low, coarse), pixels(image, size), pixels(low, coarse), weights, pixels(image, size)
        refine.launch(*arguments, blend=(c, c, 0.5), mask=pixels(low, -(-size // 8), 1), mask_threshold=0.1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refine, "interpreted", lambda: False)
        (only,) = launches("refine", run)
    return only


def label(target: tuple[torch.dtype, torch.dtype, str]) -> str:
    return f"{str(target[0])[6:]}-{str(target[1])[6:]}-{target[2]}"


@pytest.mark.parametrize("target", TARGETS, ids=label)
def test_code(target: tuple[torch.dtype, torch.dtype, str], compiler: Compiler) -> None:
    image, low, gpu = target
    code = compiler(launch(image, low), gpu)
    matrices = code.count("HMMA|HGMMA|UTCHMMA")
    spills = code.count(r"(LDL|STL)\b")
    print(label(target), code.registers, code.shared, sum(code.opcodes.values()), matrices, spills, code.loops)
    assert "tf32" not in code.ptx
    assert (matrices > 0) == (low != F32)
    if low == F32:
        # Before the mask is laid over the strip.
        assert code.count("BAR") == 1
        # 4 pixels of one hidden channel: 54 and 27 taps each. Blackwell has an instruction for two of them.
        assert code.count("FFMA") + code.count("FFMA2") >= 4 * 81
    else:
        assert min(n for n in code.loops if n > 300) <= recorded(STEPS)[image != low]
    registers, shared = recorded(BUDGETS)[TARGETS.index(target)]
    assert code.registers <= registers and code.shared <= shared, (code.registers, code.shared)
    assert spills <= recorded(SPILLS).get(target, 0)


@pytest.mark.parametrize("low", [F32, F16], ids=str)
def test_sizes_share_code(low: torch.dtype) -> None:
    """A photo of another size compiles nothing anew: what the compiler sees is the same."""
    seen = set()
    for size in (1, 16, 750, 4096, 5000):
        only = launch(low, low, size)
        numbers = {name: value for name, value in only.arguments.items() if isinstance(value, int | float)}
        fixed = {name: value for name, value in numbers.items() if name.isupper()}
        assert numbers.keys() == fixed.keys() | set(refine._FREE)
        seen.add(str([sorted(fixed.items()), only.options]))
    # Of the odd size, two columns of the image are not in one word.
    assert len(seen) == (1 if low == F32 else 2)


@pytest.mark.parametrize("plan", refine.PLANS)
def test_cost(plan: str) -> None:
    rows = refine.rows_per_strip(1, 4096, 4096, 32 if plan == "fma" else 16)
    for image, low, floor in ((F32, F32, 30), (F16, F16, 15), (U8, F32, 21), (U8, F16, 12)):
        assert cost.upsample_refine(image, low, plan, rows).bytes == floor
    assert cost.upsample_refine_blend(U8, F16, plan, rows).bytes == 9
    flops = cost.upsample_refine(F32, F32, plan, rows).flops
    assert 2592 < flops < {"fma": 1.2, "dot": 2.0}[plan] * 2592
    assert cost.upsample_refine_blend(F32, F32, plan, rows).flops == flops + {"fma": 33, "dot": 36}[plan]


@pytest.mark.parametrize("group", [16, 32])
@pytest.mark.parametrize(("size", "count"), [(1, 1), (9, 1), (256, 1), (4096, 1), (8192, 4)])
def test_strips(size: int, count: int, group: int) -> None:
    rows = refine.rows_per_strip(count, size, size, group)
    assert rows % 2 == 0 and 16 <= rows <= 128
