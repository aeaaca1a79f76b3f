"""gated_conv on backend ``cpu``: every instruction set, width, layout and cut; no neighbour read or written."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, leaky_relu

from abpn_fast import native, ops, reference
from abpn_fast.backends import cpu
from tests.accuracy import assert_same_bits, assert_within_budget
from tests.backends.instruction_sets import available
from tests.layouts import LAYOUTS, Guarded, arrange_all
from tests.ops.contract import Inputs, draw, halved, picture
from tests.ops.test_gated_conv import without_mask

pytestmark = pytest.mark.skipif(native.why_missing() is not None, reason=native.why_missing() or "")

# The last network's 3, less than a vector, one vector, one and a half, several.
WIDTHS = [1, 3, 5, 16, 24, 48]
HALF = [torch.bfloat16, torch.float16]


def inputs(size: tuple[int, int], width: int = 16, *, count: int = 2, dtype: torch.dtype = torch.float32) -> Inputs:
    scale = (9 * 3 * width) ** -0.5
    return {
        "features": draw(count, 2 * width, *halved(size), scale=1, dtype=dtype),
        "skip": draw(count, width, *size, scale=1, dtype=dtype),
        "mask": picture(count, 1, 5, 4, dtype=dtype),
        "weight": draw(2 * width, 3 * width + 1, 3, 3, scale=scale, dtype=dtype),
        "bias": draw(2 * width, dtype=dtype),
        "skip_weight": draw(width, width, 3, 3, scale=scale, dtype=dtype),
        "skip_bias": draw(width, dtype=dtype),
        "negative_slope": 0.2,
    }


def exact(given: Inputs) -> np.ndarray:
    double = {name: value.double() if isinstance(value, Tensor) else value for name, value in given.items()}
    result: np.ndarray = reference.gated_conv(**double).numpy()
    return result


def run(given: Inputs, **options: Tensor) -> Tensor:
    return ops.gated_conv(**given, backend="cpu", **options)


def check(given: Inputs) -> None:
    assert_within_budget(run(given), reference.gated_conv(**given), exact(given))


def forms(given: Inputs) -> list[Inputs]:
    gated = given | {"skip_weight": None, "skip_bias": None}
    return [given, gated, without_mask(given), without_mask(gated), given | {"negative_slope": 1.0}]


class TestParity:
    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("size", [(2, 2), (6, 34), (66, 32), (7, 10), (10, 7)], ids=str)
    def test_float32(self, width: int, size: tuple[int, int], instruction_set: str) -> None:
        for given in forms(inputs(size, width)):
            check(given)

    @pytest.mark.parametrize("dtype", HALF, ids=str)
    @pytest.mark.parametrize("width", [3, 5, 16])
    def test_half(self, dtype: torch.dtype, width: int, instruction_set: str) -> None:
        for given in forms(inputs((14, 36), width, dtype=dtype)):
            check(given)

    def test_wide(self, instruction_set: str) -> None:
        # More channels than a part holds of all products at once, and more than one block of them.
        check(inputs((16, 24), 136, count=1))

    @pytest.mark.parametrize("mask", [(3, 7), (8, 500), (20, 731)], ids=str)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
    @pytest.mark.parametrize("width", [3, 16])
    def test_several_parts_beside_each_other(
        self, width: int, dtype: torch.dtype, mask: tuple[int, int], instruction_set: str
    ) -> None:
        given = inputs((8, 500), width, dtype=dtype)
        check(given | {"mask": picture(2, 1, *mask, dtype=dtype)})

    @pytest.mark.parametrize("values", [1e3, 1e5, 1e30, 1e-30, 1e-42])
    def test_magnitudes(self, values: float, instruction_set: str) -> None:
        given = inputs((14, 36))
        # Gates of their biases alone: others would jump where huge values cancel out.
        given["weight"][16:] = 0
        for name in ("features", "skip"):
            check(given | {name: given[name] * values})

    def test_small_beside_huge(self, instruction_set: str) -> None:
        # Two pixels away from a huge value nothing of it may be left.
        given = inputs((14, 36), count=1)
        huge = given["skip"].clone()
        huge[:, :, 6, 20] = 1e12
        result, wanted = run(given | {"skip": huge}), run(given)
        away = torch.ones(14, 36, dtype=torch.bool)
        away[5:8, 19:22] = False
        torch.testing.assert_close(result[..., away], wanted[..., away], rtol=0, atol=2e-6)

    def test_small_taps_beside_a_huge_one(self, instruction_set: str) -> None:
        # But for the pixel that the huge one leads to, all are made of the small ones alone.
        given = inputs((14, 36), count=1)
        given["skip"].zero_()[:, 2, 6, 20] = 1
        given["weight"][3, 34, 0, 0] = 1e5
        away = torch.ones(14, 36, dtype=torch.bool)
        away[7, 21] = False
        wanted = torch.from_numpy(exact(given)).float()
        torch.testing.assert_close(run(given)[..., away], wanted[..., away], rtol=0, atol=2e-6)

    @pytest.mark.parametrize("value", [300.0, 1e6])
    @pytest.mark.parametrize("name", ["weight", "skip_weight"])
    def test_a_huge_tap(self, name: str, value: float, instruction_set: str) -> None:
        given = inputs((14, 36), 16)
        given[name][3, 2, 0, 1] = value
        check(given)

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("width", [3, 5, 16])
    def test_layout(self, layout: str, width: int) -> None:
        given, guards = arrange_all(inputs((14, 36), width), layout)
        check(given)
        assert all(guard.intact for guard in guards)

    @pytest.mark.parametrize("channels", [(1, 1), (7, 2), (3, 9)], ids=str)
    @pytest.mark.parametrize("width", [3, 4])
    def test_any_channels(self, channels: tuple[int, int], width: int, instruction_set: str) -> None:
        features, skip = channels
        given = inputs((8, 10), width) | {
            "features": draw(2, features, 4, 5, scale=1),
            "skip": draw(2, skip, 8, 10, scale=1),
            "weight": draw(2 * width, features + skip + 1, 3, 3),
            "skip_weight": draw(width, skip, 3, 3),
        }
        check(given)

    @pytest.mark.parametrize("name", ["features", "skip", "mask"])
    @pytest.mark.parametrize("width", [3, 16])
    def test_not_finite(self, name: str, width: int, instruction_set: str) -> None:
        given = inputs((40, 36), width)
        for value in (math.inf, -math.inf, math.nan):
            spoilt = given[name].clone()
            spoilt[0, 0, spoilt.shape[2] // 2, spoilt.shape[3] // 2] = value
            result, wanted = run(given | {name: spoilt}), reference.gated_conv(**(given | {name: spoilt}))
            assert not wanted.isfinite().all()
            torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-4, equal_nan=True)

    def test_gates_from_shut_to_open(self, instruction_set: str) -> None:
        # The sigmoid alone: features 1, gates -x, so that F * G runs through all of it.
        gates = torch.cat([torch.linspace(-110, 110, 4094), torch.tensor([-1e-30, 1e30])]).view(1, 1, 2, 2048)
        for width in (3, 4):
            weight = torch.zeros(2 * width, 3, 3, 3)
            weight[width:, 1, 1, 1] = 1
            bias = torch.cat([torch.ones(width), torch.zeros(width)])
            skip = torch.cat([gates, gates], 1)
            found = ops.gated_conv(torch.zeros(1, 1, 1, 1024), skip, None, weight, bias, backend="cpu")
            for channel in found[0]:
                torch.testing.assert_close(channel, gates.double().sigmoid()[0, 0].float(), rtol=4e-7, atol=1e-38)


class TestMemory:
    @pytest.mark.parametrize("width", [3, 5, 16])
    @pytest.mark.parametrize("size", [(2, 2), (6, 34), (7, 10)], ids=str)
    def test_guards(self, width: int, size: tuple[int, int], instruction_set: str) -> None:
        given = inputs(size, width)
        plain = run(given)
        guard = Guarded(torch.full_like(plain, math.nan))
        run(given, out=guard.view)
        assert_same_bits(guard.view, plain)
        assert guard.intact

    @pytest.mark.parametrize("width", [3, 16])
    def test_empty_batch(self, width: int) -> None:
        assert run(inputs((6, 8), width, count=0)).shape == (0, width, 6, 8)


class TestCuts:
    @pytest.mark.parametrize(
        ("width", "size"),
        [(3, (258, 130)), (16, (130, 66)), (16, (31, 45)), (130, (8, 16)), (130, (24, 36))],
        ids=str,
    )
    @pytest.mark.usefixtures("any_threads")
    def test_threads(self, width: int, size: tuple[int, int], instruction_set: str) -> None:
        for given in forms(inputs(size, width, count=1))[::4]:
            torch.set_num_threads(1)
            plain = run(given)
            for threads in (2, 3, 16):
                torch.set_num_threads(threads)
                assert_same_bits(run(given), plain)

    def test_batch(self, instruction_set: str) -> None:
        given = inputs((34, 50), count=3)
        whole = run(given)
        for n in range(3):
            one = {name: given[name][n : n + 1] for name in ("features", "skip", "mask")}
            assert_same_bits(run(given | one), whole[n : n + 1])


@pytest.mark.skipif("avx512_bf16" not in available(), reason="this CPU has no bf16 dot products")
class TestDots:
    """Products of bfloat16 numbers, where there are such instructions."""

    @pytest.fixture(autouse=True)
    def _dots(self) -> Iterator[None]:
        before = cpu.instruction_set()
        cpu.use_instruction_set("avx512_bf16")
        yield
        cpu.use_instruction_set(before)

    @pytest.mark.parametrize("width", [16, 17, 24])
    def test_within_the_budget_of_bfloat16(self, width: int) -> None:
        for given in forms(inputs((14, 36), width, dtype=torch.bfloat16)):
            dots = run(given)
            assert_within_budget(dots, reference.gated_conv(**given), exact(given))
            cpu.use_instruction_set("avx512")
            assert not torch.equal(run(given), dots)
            cpu.use_instruction_set("avx512_bf16")

    def test_float32_only_on_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given = inputs((14, 36))
        plain = run(given)
        check(given)
        monkeypatch.setenv("ABPN_FAST_CPU_PRECISION", "bf16")
        assert not torch.equal(run(given), plain)
        half = {name: value.bfloat16() if isinstance(value, Tensor) else value for name, value in given.items()}
        found = reference.gated_conv(**half).double().numpy()
        assert np.abs(run(given).numpy() - exact(given)).max() < 2 * np.abs(found - exact(given)).max()


class TestConvolutions:
    @pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("size", [1, 3])
    def test_convolution(self, size: int, stride: int, slope: float, instruction_set: str) -> None:
        x, weight, bias = draw(2, 5, 9, 12, scale=1), draw(7, 5, size, size), draw(7)
        wanted = leaky_relu(conv2d(x.double(), weight.double(), bias.double(), stride, size // 2), slope)
        convolution = cpu.convolution(weight, bias, stride, slope)
        for given in (x, x.contiguous(memory_format=torch.channels_last)):
            found = convolution(given)
            torch.testing.assert_close(found, wanted.float(), rtol=1e-5, atol=1e-5)
        assert torch.equal(found, convolution(x))
        assert convolution(x[:0]).shape == (0, *wanted.shape[1:])

    @pytest.mark.parametrize("width", [5, 16])
    def test_joined_convolution(self, width: int, instruction_set: str) -> None:
        features, skip = draw(2, 6, 4, 9, scale=1), draw(2, width, 8, 18, scale=1)
        weight, bias = draw(width, 6 + width, 3, 3), draw(width)
        x = torch.cat([interpolate(features, scale_factor=2, mode="nearest"), skip], 1)
        wanted = leaky_relu(conv2d(x, weight, bias, padding=1), 0.2)
        torch.testing.assert_close(cpu.joined_convolution(weight, bias, 0.2)(features, skip), wanted)

    def test_changed_filters_are_seen(self) -> None:
        given = inputs((8, 8))
        run(given)
        given["skip_bias"] += 1
        given["weight"][3] *= 2
        check(given)

    def test_the_same_filters_at_even_and_odd_sizes(self) -> None:
        even, odd = inputs((8, 10)), inputs((7, 10))
        filters = {name: value for name, value in even.items() if name not in ("features", "skip", "mask")}
        for given in (even, odd | filters, without_mask(odd) | {"skip_weight": None, "skip_bias": None}, even):
            check(given)
