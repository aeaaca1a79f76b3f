"""What the kernels become on AMD's GPUs: CDNA 3, whose warps have 64 threads, and RDNA 3."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from abpn_fast.kernels import refine
from tests.kernels import test_codegen, test_refine_codegen
from tests.kernels.codegen import Code, Compiler, recorded, warp_size

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
U8, U16 = torch.uint8, torch.uint16
GPUS = ["gfx942", "gfx1100"]
# Registers of a thread of the refining kernels, by versions of Triton.
BUDGETS = {
    "3.6": {"gfx942": 211, "gfx1100": 248},
    "3.7": {"gfx942": 227, "gfx1100": 246},
    "3.9": {"gfx942": 280, "gfx1100": 229},
}
REFINING = [(F32, F32), (F16, F16), (U8, BF16), (U16, BF16)]


def check(code: Code) -> None:
    assert code.stack == 0 and code.count("scratch_") == 0, "registers are spilled"


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("dtype", [F32, F16], ids=str)
@pytest.mark.parametrize("name", test_codegen.KERNELS)
def test_bound_by_memory(name: str, dtype: torch.dtype, gpu: str, compiler: Compiler) -> None:
    code = compiler(test_codegen.launch(name, dtype, dtype), gpu)
    check(code)
    assert code.count(r"(global|buffer)_load_(b128|dwordx4)") > 0
    # Half precision is widened by v_fma_mix, which adds zero to a product.
    if name == "adaptive_blend" and dtype == F32:
        assert code.count(r"v_(pk_)?fma") == 0, "fused, though the source does not say so"
    if "backward" not in name:
        assert code.shared == 0 and code.count("s_barrier") == 0


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize(("image", "low"), REFINING, ids=str)
def test_refining(
    image: torch.dtype, low: torch.dtype, gpu: str, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4")
    monkeypatch.setattr(refine, "warp", lambda like: warp_size(gpu))
    launch = test_refine_codegen.launch(image, low)
    assert launch.options["threads"] == launch.arguments["GROUP"] == warp_size(gpu)
    code = compiler(launch, gpu)
    print(gpu, code.registers, sum(code.opcodes.values()))
    check(code)
    assert code.shared == 0 and code.registers <= recorded(BUDGETS)[gpu]
    # 4 pixels of one hidden channel: 54 and 27 taps each. An instruction may do two of them.
    assert 2 * code.count("v_pk_fma|v_dual_fma") + code.count("v_fma") >= 4 * 81
