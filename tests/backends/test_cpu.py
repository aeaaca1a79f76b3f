from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from abpn_fast import backends, native, ops, reference
from abpn_fast.backends import cpu
from abpn_fast.ops import arguments
from tests import formulas
from tests.accuracy import assert_near, assert_same_bits, assert_within_budget
from tests.backends.instruction_sets import available
from tests.layouts import Guarded, arrange
from tests.ops import (
    test_adaptive_blend,
    test_laplacian_decompose,
    test_pyramid_down,
    test_reverse_adaptive_blend,
    test_upsample_refine,
    test_upsample_refine_blend,
)
from tests.ops.contract import INTEGERS, Inputs, OperatorContract, as_arrays, picture, poisoned_pixel, tensors

pytestmark = pytest.mark.skipif(native.why_missing() is not None, reason=native.why_missing() or "")

REFINING = [
    test_upsample_refine.TestContract,
    test_upsample_refine_blend.TestContract,
    test_upsample_refine_blend.TestWithoutMask,
]
CONTRACTS = [
    test_adaptive_blend.TestContract,
    test_reverse_adaptive_blend.TestContract,
    test_pyramid_down.TestContract,
    test_pyramid_down.TestBox,
    test_laplacian_decompose.TestContract,
    *REFINING,
]
SIZES = [(1, 1), (1, 9), (7, 1), (15, 16), (17, 33), (63, 65), (64, 64), (3, 4099)]
ODD = [0.0, 1.0, -1.0, 1e-42, -1e-42, 1e-30, math.inf, -math.inf, math.nan]
IDENTITY = torch.tensor([0.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])


@pytest.fixture(autouse=True)
def _in_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "BACKENDS", ("cpu", "reference"))


@pytest.fixture(params=CONTRACTS, ids=lambda contract: f"{contract.name}-{contract.__name__}")
def contract(request: pytest.FixtureRequest) -> OperatorContract:
    made: OperatorContract = request.param()
    return made


def arranged(inputs: Inputs, layout: str) -> Inputs:
    return inputs | {name: arrange(value, layout) for name, value in tensors(inputs).items()}


def run(contract: OperatorContract, inputs: Inputs) -> list[Tensor]:
    return contract.run(inputs, "cpu")


class TestParity:
    @pytest.mark.parametrize("size", SIZES, ids=str)
    def test_float32(self, contract: OperatorContract, size: tuple[int, int], instruction_set: str) -> None:
        inputs = contract.inputs(size)
        contract.check(inputs, "cpu")
        contract.check(arranged(inputs, "channels_last"), "cpu")

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("size", [(7, 1), (17, 33)], ids=str)
    def test_half(
        self, contract: OperatorContract, size: tuple[int, int], dtype: torch.dtype, instruction_set: str
    ) -> None:
        for layout in ("contiguous", "channels_last", "expanded"):
            contract.check(arranged(contract.inputs(size, dtype=dtype), layout), "cpu")

    @pytest.mark.parametrize("stored", INTEGERS, ids=str)
    @pytest.mark.parametrize("size", [(1, 9), (17, 33), (3, 1027)], ids=str)
    def test_integers(
        self, contract: OperatorContract, size: tuple[int, int], stored: torch.dtype, instruction_set: str
    ) -> None:
        inputs = contract.inputs(size)
        inputs["image"] = picture(*inputs["image"].shape, dtype=stored)
        for layout in ("contiguous", "channels_last", "expanded"):
            contract.check(arranged(inputs, layout), "cpu")

    def test_odd_values(self, contract: OperatorContract, instruction_set: str) -> None:
        inputs = contract.inputs((18, 35))
        spoilt = [name for name in contract.differentiable(inputs) if inputs[name].dim() == 4 and "weight" not in name]
        for name in spoilt:
            for value in ODD:
                # Corners, an edge and the middle; the rest stays in reach of none of them.
                changed = inputs[name].clone()
                changed[0, :, 0, 0] = changed[0, 1, -1, -1] = changed[0, 2, 0, -1] = changed[1, 0, 4, 0] = value
                changed[1, 2, changed.shape[2] // 2, changed.shape[3] // 2] = value
                results = run(contract, inputs | {name: changed})
                for result, wanted in zip(results, contract.reference(inputs | {name: changed}), strict=True):
                    torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-4, equal_nan=True)


class TestMemory:
    @pytest.mark.parametrize("size", SIZES, ids=str)
    def test_guards(self, contract: OperatorContract, size: tuple[int, int], instruction_set: str) -> None:
        inputs = contract.inputs(size)
        plain = run(contract, inputs)
        guards = [Guarded(torch.full_like(result, math.nan)) for result in plain]
        contract.run(inputs, "cpu", out=contract.unflat([guard.view for guard in guards]))
        assert_same_bits([guard.view for guard in guards], plain)
        assert all(guard.intact for guard in guards)

    def test_empty_batch(self, contract: OperatorContract, instruction_set: str) -> None:
        assert all(result.shape[0] == 0 for result in run(contract, contract.inputs((6, 8), count=0)))


class TestCuts:
    @pytest.mark.usefixtures("any_threads")
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_threads(self, contract: OperatorContract, dtype: torch.dtype, instruction_set: str) -> None:
        inputs = contract.inputs((301, 530), count=1, dtype=dtype)
        torch.set_num_threads(1)
        plain = run(contract, inputs)
        for threads in (2, 3, 7):
            torch.set_num_threads(threads)
            assert_same_bits(run(contract, inputs), plain)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("axis", [2, 3])
    def test_strips_of_the_refinement(self, axis: int, dtype: torch.dtype, instruction_set: str) -> None:
        contract = test_upsample_refine_blend.TestContract()
        inputs = contract.inputs((310, 290), count=1, dtype=dtype)
        (whole,) = run(contract, inputs)
        scales = {"image": 1, "blend_low": 2, "image_low": 2, "mask": test_upsample_refine_blend.SCALE}
        length = inputs["image"].shape[axis]
        for begin, end in ((0, 64), (16, 200), (112, length)):
            halo = 16
            first, last = max(begin - halo, 0), min(end + halo, length)
            parts = {
                name: inputs[name].narrow(axis, first // scale, -(-last // scale) - first // scale)
                for name, scale in scales.items()
            }
            (part,) = run(contract, inputs | parts)
            assert_same_bits(part.narrow(axis, begin - first, end - begin), whole.narrow(axis, begin, end - begin))

    def test_a_mask_in_bf16(self, instruction_set: str) -> None:
        contract = test_upsample_refine_blend.TestContract()
        inputs = contract.inputs((130, 290), dtype=torch.bfloat16)
        (masked,), (whole,) = run(contract, inputs), run(contract, inputs | test_upsample_refine_blend.NO_MASK)
        kept = masked == inputs["image"]
        assert 0 < kept.float().mean() < 1
        assert_same_bits(masked[~kept], whole[~kept])


def level_on(contract: OperatorContract, inputs: Inputs, name: str) -> Tensor:
    """On one instruction set, the one before in use again afterwards."""
    before = cpu.instruction_set()
    cpu.use_instruction_set(name)
    (level,) = run(contract, inputs)
    cpu.use_instruction_set(before)
    return level


@pytest.mark.skipif("avx512_bf16" not in available(), reason="this CPU has no bf16 dot products")
@pytest.mark.parametrize("refining", REFINING, ids=lambda contract: f"{contract.name}-{contract.__name__}")
class TestDots:
    SIZE = (65, 130)

    def both(self, contract: OperatorContract, inputs: Inputs) -> tuple[Tensor, Tensor]:
        return level_on(contract, inputs, "avx512_bf16"), level_on(contract, inputs, "avx512")

    def budgeted(self, contract: OperatorContract, level: Tensor, inputs: Inputs) -> None:
        (reference,), (exact,) = contract.reference(inputs), contract.formula(as_arrays(inputs))
        assert_within_budget(level.to(reference.dtype), reference, exact)

    def test_bf16_levels(self, refining: type[OperatorContract]) -> None:
        inputs = refining().inputs(self.SIZE, dtype=torch.bfloat16)
        dots, floats = self.both(refining(), inputs)
        assert not torch.equal(dots, floats)
        self.budgeted(refining(), dots, inputs)

    @pytest.mark.parametrize("stored", INTEGERS, ids=str)
    def test_bf16_layers_of_an_integer_image(self, refining: type[OperatorContract], stored: torch.dtype) -> None:
        inputs = refining().inputs(self.SIZE, dtype=torch.bfloat16)
        inputs["image"] = picture(*inputs["image"].shape, dtype=stored)
        dots, floats = self.both(refining(), inputs)
        assert not torch.equal(dots, floats)
        self.budgeted(refining(), dots, inputs)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
    def test_other_levels_are_those_of_avx512(self, refining: type[OperatorContract], dtype: torch.dtype) -> None:
        assert_same_bits(*self.both(refining(), refining().inputs(self.SIZE, dtype=dtype)))

    def test_float32_levels_on_request(self, refining: type[OperatorContract], monkeypatch: pytest.MonkeyPatch) -> None:
        coarse = refining().inputs(self.SIZE, dtype=torch.bfloat16)
        inputs = coarse | {name: value.float() for name, value in tensors(coarse).items()}
        plain = level_on(refining(), inputs, "avx512")
        monkeypatch.setenv("ABPN_FAST_CPU_PRECISION", "bf16")
        dots, floats = self.both(refining(), inputs)
        assert_same_bits(floats, plain)
        assert not torch.equal(dots, floats)
        self.budgeted(refining(), dots, coarse)
        assert_same_bits(*self.both(refining(), refining().inputs(self.SIZE, dtype=torch.float16)))

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_not_finite(self, refining: type[OperatorContract], value: float) -> None:
        inputs = refining().inputs((64, 60), dtype=torch.bfloat16)
        for name in ("image", "blend_low", "image_low"):
            spoilt = inputs | {name: poisoned_pixel(inputs[name], value)}
            with np.errstate(all="ignore"):
                (exact,) = refining().formula(as_arrays(spoilt))
            level = level_on(refining(), spoilt, "avx512_bf16").double().numpy()
            assert (np.isfinite(level) == np.isfinite(exact)).all(), name

    def test_rows_of_huge_values_are_those_of_avx512(self, refining: type[OperatorContract]) -> None:
        inputs = refining().inputs((64, 60), dtype=torch.bfloat16)
        for name in ("image", "blend_low", "image_low"):
            dots, floats = self.both(refining(), inputs | {name: poisoned_pixel(inputs[name], 2000)})
            assert_same_bits(dots[-1, :, 32:34], floats[-1, :, 32:34])
            assert not torch.equal(dots, floats)


class TestConversions:
    @pytest.mark.parametrize("stored", INTEGERS, ids=str)
    def test_every_integer_becomes_what_division_gives(self, stored: torch.dtype, instruction_set: str) -> None:
        white = torch.iinfo(stored).max
        levels = torch.arange(white + 1)
        image = levels.repeat_interleave(2).to(stored).expand(1, 3, 2, -1)
        out = torch.full((1, 3, 1, white + 1), math.nan)
        cpu.pyramid_down(image, "box", out)
        assert_same_bits(out, (levels.float() / white).expand_as(out))

    @pytest.mark.parametrize("stored", INTEGERS, ids=str)
    def test_every_integer_survives(self, stored: torch.dtype, instruction_set: str) -> None:
        levels = torch.iinfo(stored).max + 1
        for layout in ("contiguous", "channels_last"):
            image = arrange(torch.arange(3 * levels).remainder(levels).to(stored).view(1, 3, 1, levels), layout)
            out = torch.full_like(image, 170)
            j, k = test_adaptive_blend.J, torch.tensor([0.0, 1.0, 0.0])
            cpu.adaptive_blend(image, torch.zeros(image.shape), j, k, 1.0, out)
            assert torch.equal(out, image)

    @pytest.mark.parametrize("stored", INTEGERS, ids=str)
    def test_integers_round_half_to_even_and_clamp(self, stored: torch.dtype, instruction_set: str) -> None:
        white = torch.iinfo(stored).max
        values = torch.cat([torch.arange(-4, 2 * white + 6) / 2 / white, torch.tensor([*ODD, 1e30, -1e30])])
        blend = values.expand(1, 3, 1, -1).contiguous()
        image, out = torch.zeros(blend.shape, dtype=stored), torch.full(blend.shape, 170, dtype=stored)
        cpu.adaptive_blend(image, blend, torch.tensor([1.0, 0, 0]), torch.zeros(3), 1.0, out)
        assert torch.equal(out, reference.to_pixels(blend, stored))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_every_half_survives(self, dtype: torch.dtype, instruction_set: str) -> None:
        image = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype).view(1, 1, 64, 1024).expand(1, 3, 64, 1024)
        out = torch.full_like(image, math.nan)
        cpu.adaptive_blend(image, torch.zeros_like(image), *IDENTITY, 1.0, out)
        finite = image.isfinite()
        assert torch.equal(out[finite], image[finite])
        assert out[~finite].isnan().all()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_halves_round_as_in_torch(self, dtype: torch.dtype, instruction_set: str) -> None:
        image = picture(1, 3, 130, 514, dtype=torch.uint8)
        out, half = torch.full((1, 3, 65, 257), math.nan), torch.full((1, 3, 65, 257), math.nan, dtype=dtype)
        cpu.pyramid_down(image, "binomial", out)
        cpu.pyramid_down(image, "binomial", half)
        assert_same_bits(half, out.to(dtype))


class TestPyramidDown:
    @pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
    @pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 66), (4, 4131)], ids=str)
    def test_flat_stays_flat_to_the_bit(self, size: tuple[int, int], layout: str, instruction_set: str) -> None:
        for value in range(0, 256, 1 if size[1] < 9 else 51):
            image = arrange(torch.full((1, 3, *size), value, dtype=torch.uint8), layout)
            for each in (image, image / 255):
                out = torch.full((1, 3, -(-size[0] // 2), -(-size[1] // 2)), math.nan)
                cpu.pyramid_down(each, "binomial", out)
                assert_same_bits(out, (torch.tensor(value) / 255).expand_as(out))

    @pytest.mark.parametrize("filter", ["binomial", "box"])
    @pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "strided"])
    @pytest.mark.parametrize("dtype", [*INTEGERS, torch.float32], ids=str)
    def test_wider_than_a_run_of_columns(
        self, dtype: torch.dtype, layout: str, filter: str, instruction_set: str
    ) -> None:
        image = picture(2, 3, 5, 8209, dtype=dtype)
        given = image.repeat_interleave(2, 3)[..., ::2] if layout == "strided" else arrange(image, layout)
        out = torch.full((2, 3, 3, 4105), math.nan)
        cpu.pyramid_down(given, filter, out)
        assert_near(out, formulas.down(formulas.unit(image.numpy()), filter), ulps=4)

    @pytest.mark.parametrize("width", [3392, 3397])
    def test_results_past_the_caches(self, width: int, instruction_set: str) -> None:
        """Large ones have the bits of their parts, which are not stored so; rows of an odd width are not aligned."""
        image = torch.rand(1, 3, 3400, width)

        def levels(part: Tensor) -> tuple[Tensor, Tensor]:
            (_, low), (high,) = ops.laplacian_decompose(part, 1, backend="cpu")
            assert torch.equal(ops.pyramid_down(part, backend="cpu"), low)
            return low, high

        (low, high), above, below = levels(image), levels(image[:, :, :1702]), levels(image[:, :, 1696:])
        assert low.nbytes > 32 << 20
        assert torch.equal(low[:, :, :850], above[0][:, :, :850]) and torch.equal(low[:, :, 850:], below[0][:, :, 2:])
        assert torch.equal(high[:, :, :1699], above[1][:, :, :1699])
        assert torch.equal(high[:, :, 1699:], below[1][:, :, 3:])


def test_every_operator_is_among_these() -> None:
    apart = {"gated_conv"}  # test_cpu_gated_conv.py
    assert {contract.name for contract in CONTRACTS} | apart == {o for o in backends.OPERATORS if hasattr(cpu, o)}


class TestChoice:
    def test_refusals(self) -> None:
        image = torch.rand(1, 3, 4, 4)
        assert cpu.why_not("pyramid_down", [image]) is None
        assert cpu.why_not("adaptive_blend", [image, image, torch.zeros(3, dtype=torch.float64)]) is None
        assert "float64" in (cpu.why_not("pyramid_down", [image.double()]) or "")
        assert "on meta" in (cpu.why_not("pyramid_down", [image.to("meta")]) or "")
        assert cpu.why_not("gated_conv", [image]) is None

    def test_unknown_instruction_set(self) -> None:
        with pytest.raises(ValueError, match="must be one of portable, avx2, avx512, avx512_bf16, neon, got 'mmx'"):
            cpu.use_instruction_set("mmx")

    @pytest.mark.parametrize(
        ("name", "expected"), [("portable", "portable"), ("mmx", "ABPN_FAST_CPU_ISA must be one of")]
    )
    def test_variable(self, name: str, expected: str) -> None:
        code = "from abpn_fast.backends import cpu\ntry: print(cpu.instruction_set())\nexcept ValueError as e: print(e)"
        environment = os.environ | {"ABPN_FAST_CPU_ISA": name}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert expected in done.stdout

    def test_default(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "ABPN_FAST_CPU_ISA"}
        code = "from abpn_fast.backends import cpu\nprint(cpu.instruction_set())"
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        best = available()[-1]
        # Dot products of Intel's cores are slower than FMAs.
        slow = best == "avx512_bf16" and "AuthenticAMD" not in Path("/proc/cpuinfo").read_text()
        assert done.stdout.strip() == ("avx512" if slow else best)

    def test_coefficients_and_weights_of_any_layout(self) -> None:
        inputs = test_upsample_refine_blend.TestContract().inputs((9, 8))
        changed = inputs | {name: inputs[name].double()[None].expand(2, 3).t()[:, 0] for name in ("j", "k")}
        changed["weight1"] = inputs["weight1"].permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
        out, other = torch.full_like(inputs["image"], math.nan), torch.full_like(inputs["image"], math.nan)
        cpu.upsample_refine_blend(*inputs.values(), out=out)
        cpu.upsample_refine_blend(*changed.values(), out=other)
        assert_same_bits(other, out)


def test_halved_sizes_are_those_of_the_operators() -> None:
    for size in range(1, 20):
        out = torch.full((1, 3, arguments.halved(size), 1), math.nan)
        cpu.pyramid_down(torch.ones(1, 3, size, 1), "binomial", out)
        assert (out == 1).all()
