"""What the kernels become on the GPUs of desktops and small servers: Turing, whose tensor cores plan dot does not fit,
Ada and Blackwell."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from abpn_fast.kernels import refine
from tests.kernels import test_codegen, test_refine_codegen
from tests.kernels.codegen import Code, Compiler, recorded

F32, F16, BF16, U8 = torch.float32, torch.float16, torch.bfloat16, torch.uint8
GPUS = ["sm_75", "sm_89", "sm_120"]
# Loads and stores of spilled registers of the refining kernels, where there are any, by versions of Triton.
SPILLS = {"3.6": {}, "3.8": {("sm_75", F32): 24, ("sm_75", F16): 10}, "3.9": {("sm_75", F32): 24}}


def spills(code: Code) -> int:
    return code.stack + code.count(r"(LDL|STL)\b")


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("dtype", [F32, F16], ids=str)
@pytest.mark.parametrize("name", test_codegen.KERNELS)
def test_bound_by_memory(name: str, dtype: torch.dtype, gpu: str, compiler: Compiler) -> None:
    code = compiler(test_codegen.launch(name, dtype, dtype), gpu)
    assert spills(code) == 0 and code.count(r"LDG\.E\.(\w+\.)*128") > 0
    if "backward" not in name:
        assert code.shared == 0 and code.count("BAR") == 0


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize(("image", "low"), [(F32, F32), (F16, F16), (U8, BF16)], ids=str)
def test_refining(
    image: torch.dtype, low: torch.dtype, gpu: str, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refine, "from_ampere_on", lambda like: gpu != "sm_75")
    code = compiler(test_refine_codegen.launch(image, low), gpu)
    print(gpu, code.registers, code.shared, sum(code.opcodes.values()), spills(code))
    assert spills(code) <= recorded(SPILLS).get((gpu, low), 0)
    assert (code.count("HMMA") > 0) == (low != F32 and gpu != "sm_75")
