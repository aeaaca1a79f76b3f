"""The Triton kernels against the reference, on a GPU or in Triton's interpreter.

There on small images in smaller blocks, so that every border of a block is met.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import abpn_fast
from abpn_fast import backends, reference
from abpn_fast.backends import triton as backend
from abpn_fast.ops import arguments
from tests.accuracy import assert_same_bits
from tests.conftest import DEVICES
from tests.layouts import LAYOUTS, Guarded, arrange, arrange_all, far_apart
from tests.ops import test_adaptive_blend, test_laplacian_decompose, test_pyramid_down, test_reverse_adaptive_blend
from tests.ops.contract import INTEGERS, Inputs, OperatorContract, picture

pytest.importorskip("triton")
DEVICE = DEVICES[-1]
if DEVICE == "cpu" and not backend.interpreted():
    pytest.skip("no GPU, and TRITON_INTERPRET is not 1", allow_module_level=True)

BLENDS = [test_adaptive_blend.TestContract, test_reverse_adaptive_blend.TestContract]
LEVELS = [
    test_pyramid_down.TestContract,
    test_pyramid_down.TestBox,
    test_laplacian_decompose.TestContract,
    test_laplacian_decompose.TestBox,
]
ODD = [0.0, 1.0, -1.0, 1e-42, -1e-42, 1e-30, math.inf, -math.inf, math.nan]
HALVES = [torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cpu":
        from abpn_fast.kernels import levels, tiles

        monkeypatch.setattr(tiles, "_THREADS", 16)
        monkeypatch.setattr(levels, "_THREADS", 4)


def made(request: pytest.FixtureRequest) -> OperatorContract:
    contract: OperatorContract = request.param()
    return contract


@pytest.fixture(params=BLENDS, ids=lambda contract: contract.name)
def blend(request: pytest.FixtureRequest) -> Iterator[OperatorContract]:
    return made(request)


@pytest.fixture(params=LEVELS, ids=lambda contract: f"{contract.name}-{contract.__name__[4:]}")
def level(request: pytest.FixtureRequest) -> Iterator[OperatorContract]:
    return made(request)


@pytest.fixture(params=[*BLENDS, *LEVELS[1:3]], ids=lambda contract: contract.name)
def contract(request: pytest.FixtureRequest) -> Iterator[OperatorContract]:
    return made(request)


def small(contract: OperatorContract, size: tuple[int, int], dtype: torch.dtype = torch.float32) -> Inputs:
    """Inputs of one image, and of one level; an integer image beside float32 for integers."""
    floating = dtype if dtype.is_floating_point else torch.float32
    inputs = contract.inputs(size, count=1, dtype=floating, device=DEVICE)
    if not dtype.is_floating_point:
        inputs["image"] = picture(*inputs["image"].shape, dtype=dtype, device=DEVICE)
    return inputs | ({"levels": 1} if "levels" in inputs else {})


def run(contract: OperatorContract, inputs: Inputs) -> list[Tensor]:
    return contract.run(inputs, "triton")


def outs(contract: OperatorContract, results: list[Tensor]) -> object:
    return ([results[0]], [results[1]]) if len(results) == 2 else results[0]


class TestBlends:
    @pytest.mark.parametrize("dtype", [torch.float32, *HALVES, *INTEGERS], ids=str)
    @pytest.mark.parametrize("size", [(1, 1), (1, 65), (5, 17)], ids=str)
    def test_parity(self, blend: OperatorContract, size: tuple[int, int], dtype: torch.dtype) -> None:
        for layout in ("contiguous", "channels_last"):
            inputs, _ = arrange_all(small(blend, size, dtype), layout)
            blend.check(inputs, "triton")

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_layout(self, blend: OperatorContract, layout: str) -> None:
        blend.check_layout(blend.inputs((5, 67), device=DEVICE), layout, "triton")

    def test_mixed_layouts(self, blend: OperatorContract) -> None:
        inputs = small(blend, (5, 66), torch.uint8)
        blend.check(inputs | {"image": arrange(inputs["image"], "channels_last")}, "triton")

    @pytest.mark.parametrize("count", [0, 2])
    def test_batch(self, blend: OperatorContract, count: int) -> None:
        blend.test_batch(count, DEVICE, "triton")

    def test_gradients(self, blend: OperatorContract) -> None:
        blend.test_gradient_of_each_input_alone(DEVICE, "triton")

    def test_gradients_of_other_layouts(self, blend: OperatorContract) -> None:
        inputs = blend.inputs((5, 9), device=DEVICE)
        names = blend.differentiable(inputs)
        grads = []
        for layout in ("contiguous", "channels_last"):
            leaves, _ = arrange_all(inputs, layout)
            leaves |= {name: leaves[name].detach().requires_grad_() for name in names}
            total = sum((result * result).sum() for result in run(blend, leaves))
            grads.append(torch.autograd.grad(total, [leaves[name] for name in names]))
        for plain, last in zip(*grads, strict=True):
            torch.testing.assert_close(last, plain, rtol=1e-5, atol=1e-5)

    def test_gradients_are_contiguous(self) -> None:
        inputs, _ = arrange_all(BLENDS[0]().inputs((5, 9), device=DEVICE), "channels_last")
        grad, wanted = torch.rand(2, 3, 5, 9, device=DEVICE), ("image", "blend", "j", "k")
        found = backend.adaptive_blend_backward([grad], inputs, wanted, None)
        assert all(each.is_contiguous() for each in found)

    def test_gradient_beside_bytes(self) -> None:
        contract = test_reverse_adaptive_blend.TestContract()
        inputs = small(contract, (5, 9), torch.uint8)
        names = ["retouched", "j", "k"]
        found = []
        for name in ("triton", "reference"):
            leaves = inputs | {name: inputs[name].clone().requires_grad_() for name in names}
            found.append(torch.autograd.grad(contract.run(leaves, name)[0].square().sum(), [leaves[n] for n in names]))
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)

    def test_undamped(self) -> None:
        test_reverse_adaptive_blend.test_undamped_gradient_is_finite_at_black_and_white(DEVICE)
        inputs = test_reverse_adaptive_blend.TestContract().inputs((7, 6), device=DEVICE) | {"damping": 0}
        inputs["image"] = picture(2, 3, 7, 6, device=DEVICE)
        inputs["j"] = test_reverse_adaptive_blend.SOFT_LIGHT[0].to(DEVICE)
        names = ("image", "retouched", "j", "k")
        found = []
        for name in ("triton", "reference"):
            leaves = inputs | {name: inputs[name].clone().requires_grad_() for name in names}
            (result,) = test_reverse_adaptive_blend.TestContract().run(leaves, name)
            found.append([result, *torch.autograd.grad(result.tanh().sum(), [leaves[name] for name in names])])
        ends = (inputs["image"] == 0) | (inputs["image"] == 1)
        assert ends.any() and (found[0][0][ends] == 0).all()
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


class TestLevels:
    @pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 1), (2, 17)], ids=str)
    def test_parity(self, level: OperatorContract, size: tuple[int, int]) -> None:
        level.check(small(level, size), "triton")

    @pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
    def test_borders_of_blocks(self, level: OperatorContract, layout: str) -> None:
        inputs, _ = arrange_all(small(level, (11, 20)), layout)
        level.check(inputs, "triton")

    @pytest.mark.parametrize("dtype", [*HALVES, *INTEGERS], ids=str)
    def test_dtype(self, dtype: torch.dtype) -> None:
        contract = LEVELS[2]()
        contract.check(small(contract, (4, 7), dtype), "triton")

    @pytest.mark.parametrize("layout", ["sliced", "expanded"])
    def test_layout(self, layout: str) -> None:
        contract = LEVELS[2]()
        contract.check_layout(small(contract, (3, 6)), layout, "triton")

    def test_mixed_layouts(self) -> None:
        contract = LEVELS[2]()
        inputs = small(contract, (5, 6))
        plain = run(contract, inputs)
        for i in range(2):
            out = [torch.zeros_like(x) for x in plain]
            out[i] = arrange(out[i], "channels_last")
            assert_same_bits(contract.run(inputs, "triton", out=outs(contract, out)), plain)

    def test_high_frequencies_are_what_the_level_lacks_as_it_is_stored(self) -> None:
        contract = LEVELS[2]()
        inputs = small(contract, (6, 8), torch.float16)
        low, high = run(contract, inputs)
        lacking = inputs["image"].float() - reference.upsample(low.float(), (6, 8))
        assert ((high.float() - lacking).abs() <= 2**-11 * lacking.abs() + 1e-6).all()

    def test_several_levels_of_a_batch(self) -> None:
        contract = LEVELS[2]()
        contract.check(contract.inputs((6, 5), device=DEVICE) | {"levels": 3}, "triton")

    def test_tall_programs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Large images are walked in longer strips; the pixels are the same."""
        from abpn_fast.kernels import levels

        contract = LEVELS[2]()
        inputs = small(contract, (21, 4))
        plain = run(contract, inputs)
        monkeypatch.setattr(levels, "_LARGE", 0)
        assert_same_bits(run(contract, inputs), plain)


def test_odd_values(contract: OperatorContract) -> None:
    inputs = small(contract, (9, 18))
    for name in [name for name in contract.differentiable(inputs) if inputs[name].dim() == 4]:
        for values in (ODD[:3], ODD[3:6], ODD[6:7], ODD[7:]) if contract.name != "laplacian_decompose" else (ODD[6:],):
            changed = inputs[name].clone()
            for i, value in enumerate(values):
                # Out of reach of the first row and column, where a bilinear weight of 0 may count.
                changed[0, i, 0, 0] = changed[0, i, -1, -1] = changed[0, i, 0, -1] = changed[0, i, 6, 9] = value
            spoilt = inputs | {name: changed}
            for result, wanted in zip(run(contract, spoilt), contract.reference(spoilt), strict=True):
                torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_nothing_else_is_written(contract: OperatorContract) -> None:
    """Around outs with gaps between their pixels, and right before and after outs without."""
    inputs = small(contract, (5, 6))
    plain = run(contract, inputs)
    guards = [Guarded(torch.full_like(result, math.nan)) for result in plain]
    contract.run(inputs, "triton", out=outs(contract, [guard.view for guard in guards]))
    assert_same_bits([guard.view for guard in guards], plain)
    assert all(guard.intact for guard in guards)
    buffers = [torch.full((result.numel() + 256,), 16384.0, device=DEVICE) for result in plain]
    views = [x[128:-128].view(result.shape).fill_(math.nan) for x, result in zip(buffers, plain, strict=True)]
    contract.run(inputs, "triton", out=outs(contract, views))
    assert_same_bits(views, plain)
    assert all((x[:128] == 16384).all() and (x[-128:] == 16384).all() for x in buffers)


class TestConversions:
    @pytest.mark.parametrize("stored", INTEGERS, ids=str)
    def test_every_integer_becomes_what_division_gives(self, stored: torch.dtype) -> None:
        white = torch.iinfo(stored).max
        levels = torch.arange(white + 1, device=DEVICE)
        image, black = levels.to(stored).expand(1, 3, 1, -1), torch.zeros(1, 3, 1, white + 1, device=DEVICE)
        out = torch.full_like(black, math.nan)
        zero, minus = torch.zeros(3, device=DEVICE), torch.tensor([0.0, -1.0, 0.0], device=DEVICE)
        one = torch.tensor([1.0, 0.0, 0.0], device=DEVICE)
        backend.reverse_adaptive_blend(image, black, one + 0 * zero, minus, 0.0, out)
        assert_same_bits(out, (levels.float() / white).expand_as(out))

    @pytest.mark.parametrize("stored", INTEGERS, ids=str)
    def test_integers_round_half_to_even_and_clamp(self, stored: torch.dtype) -> None:
        white = torch.iinfo(stored).max
        values = torch.cat([torch.arange(-4, 2 * white + 6) / 2 / white, torch.tensor([*ODD, 1e30, -1e30])]).to(DEVICE)
        blend = values.expand(1, 3, 1, -1).contiguous()
        image, out = torch.zeros_like(blend, dtype=stored), torch.full_like(blend, 170, dtype=stored)
        one = torch.tensor([1.0, 0.0, 0.0], device=DEVICE)
        backend.adaptive_blend(image, blend, one, 0 * one, 1.0, out)
        assert torch.equal(out, reference.to_pixels(blend, stored))

    @pytest.mark.parametrize("dtype", HALVES, ids=str)
    def test_every_half_survives(self, dtype: torch.dtype) -> None:
        image = torch.arange(-(2**15), 2**15, 7).to(torch.int16).view(dtype).view(1, 1, 1, -1).expand(1, 3, 1, -1)
        image = image.contiguous().to(DEVICE)
        out = torch.full_like(image, math.nan)
        k = torch.tensor([0.0, 1.0, 0.0], device=DEVICE)
        backend.adaptive_blend(image, torch.zeros_like(image), 0 * k, k, 1.0, out)
        # The interpreter rounds subnormal halves to 0.
        normal = image.isfinite() & (image.abs() >= (torch.finfo(dtype).tiny if DEVICE == "cpu" else 0))
        assert torch.equal(out[normal], image[normal]) and normal.float().mean() > 0.9
        assert out[~image.isfinite()].isnan().all()


@pytest.mark.skipif(DEVICE != "cpu", reason="gigabytes that only a CPU need not have")
class TestFarApart:
    """Offsets beyond 32 bits."""

    @pytest.mark.parametrize("dim", range(4), ids=list("nchw"))
    def test_blend(self, dim: int) -> None:
        contract = BLENDS[0]()
        inputs = contract.inputs((3, 3), count=3)
        inputs["image"] = picture(3, 3, 3, 3, dtype=torch.uint8)
        near, far = torch.zeros_like(inputs["image"]), far_apart(torch.zeros_like(inputs["image"]), dim)
        contract.run(inputs, "triton", out=near)
        contract.run(inputs | {"image": far_apart(inputs["image"], dim)}, "triton", out=far)
        assert_same_bits(far.contiguous(), near)

    @pytest.mark.parametrize(
        ("layout", "dim"), [*(("contiguous", dim) for dim in range(3)), ("channels_last", 1), ("channels_last", 3)]
    )
    def test_levels(self, layout: str, dim: int) -> None:
        from abpn_fast.kernels import levels

        count = 1 if dim else 3
        image = picture(count, 3, 5, 5, dtype=torch.uint8)
        near = image, torch.zeros(count, 3, 3, 3).half(), torch.zeros(count, 3, 5, 5).half()
        far = [far_apart(arrange(x, layout), dim) for x in near]
        for pictures in (near, far):
            levels.launch(pictures[0], "binomial", *pictures[1:])
        assert near[2].any()
        assert_same_bits([x.contiguous() for x in far[1:]], list(near[1:]))

    def test_many_programs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The last program of a picture with more than 2^31 pixels."""
        from triton.runtime.interpreter import InterpreterBuilder

        from abpn_fast.kernels import adaptive_blend

        start, program = adaptive_blend.start, InterpreterBuilder.create_get_program_id

        def start_last(kernel: object, programs: int, *arguments: object, **options: object) -> None:
            def create_get_program_id(builder: object, axis: int) -> object:
                handle = program(builder, axis)
                handle.data = handle.data + (programs - 1)
                return handle

            monkeypatch.setattr(InterpreterBuilder, "create_get_program_id", create_get_program_id)
            start(kernel, 1, *arguments, **options)

        monkeypatch.setattr(adaptive_blend, "start", start_last)
        shape = 1, 3, 2**15 - 1, 21848
        image, blend, out = (torch.empty(shape, dtype=dtype) for dtype in (torch.uint8, torch.float16, torch.uint8))
        image[..., -1, -8:], blend[..., -1, -8:], out[..., -1, -8:] = 51, 0.5, 0
        none, one = torch.zeros(3), torch.tensor([1.0, 0.0, 0.0])
        adaptive_blend.launch(image, blend, one, none, 0.8, out)
        assert image.numel() > 2**31 and out[0, 2, -1, -8:].tolist() == [102] * 8


def test_coefficients_of_any_layout_and_dtype() -> None:
    inputs = small(BLENDS[0](), (3, 4))
    changed = inputs | {name: inputs[name].double()[None].expand(2, 3).t()[:, 0] for name in ("j", "k")}
    assert_same_bits(run(BLENDS[0](), changed), run(BLENDS[0](), inputs))


def test_halved_sizes_are_those_of_the_operators() -> None:
    for size in range(1, 5):
        out = torch.full((1, 1, arguments.halved(size), 1), math.nan, device=DEVICE)
        backend.pyramid_down(torch.ones(1, 1, size, 1, device=DEVICE), "box", out)
        assert (out == 1).all()


def test_every_operator_is_among_these() -> None:
    apart = {"upsample_refine", "upsample_refine_blend"}  # test_refine.py
    found = {contract.name for contract in (*BLENDS, *LEVELS)} | apart
    assert found == {name for name in backends.OPERATORS if hasattr(backend, name)}


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.rand(1, 3, 4, 4, device=DEVICE)
    for dtype in (torch.float32, *HALVES, *INTEGERS):
        assert backend.why_not("pyramid_down", [image.to(dtype)]) is None
    assert backend.why_not("adaptive_blend", [image, image, image.new_zeros(3, dtype=torch.float64)]) is None
    assert "float64" in (backend.why_not("pyramid_down", [image.double()]) or "")
    assert "on meta" in (backend.why_not("pyramid_down", [image.to("meta")]) or "")
    assert abpn_fast.why_not("triton", image, operator="gated_conv") == "backend triton has no gated_conv"
    assert "float64" in (backend.why_not("upsample_refine", [image, image.new_zeros(16, dtype=torch.float64)]) or "")
    monkeypatch.setattr(backend, "_installed", lambda: False)
    assert "pip install triton" in (backend.why_not("pyramid_down", [image]) or "")
