"""The plan of the GPU's gated convolution, carried out on a CPU."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv2d, interpolate, leaky_relu

from abpn_fast import native, reference
from abpn_fast.config import ABPNConfig
from tests import formulas
from tests.accuracy import assert_within_budget
from tests.csrc.emulator import KERNELS
from tests.csrc.test_gated_conv_kernels import inputs
from tests.ops.contract import Inputs, as_arrays, draw, halved

pytestmark = pytest.mark.skipif(native.why_missing() is not None, reason=native.why_missing() or "")

MULTIPROCESSORS = 132


def run(given: Inputs, kernel: str, phased: bool, multiprocessors: int = MULTIPROCESSORS) -> torch.Tensor:
    skip = given["skip"]
    out = torch.full((skip.shape[0], given["weight"].shape[0] // 2, *skip.shape[2:]), torch.nan)
    torch.ops.abpn_fast_cpu.gated_conv_tiles(*given.values(), KERNELS.index(kernel), phased, multiprocessors, out)
    return out


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_size(kernel: str) -> None:
    for height in range(1, 71):
        for width in range(1 + KERNELS.index(kernel), 71, 4):
            mask = (1 + width % 7, 1 + height % 5)
            given = inputs((height, width), (2, 1, 1), dtype=torch.float32, mask=mask)
            wanted = reference.gated_conv(**given)
            for phased in (False, True) if height % 2 == width % 2 == 0 else (False,):
                torch.testing.assert_close(run(given, kernel, phased), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_of_every_size(kernel: str, stride: int) -> None:
    weight, bias = draw(25, 3, 3, 3, scale=0.2, dtype=torch.float32), draw(25, dtype=torch.float32)
    for height in range(1, 40):
        for width in range(1 + KERNELS.index(kernel), 40, 4):
            features = draw(1, 2 if stride == 1 else 0, *halved((height, width)), dtype=torch.float32)
            skip = draw(1, 3 - features.shape[1], height, width, dtype=torch.float32)
            joined = skip
            if stride == 1:
                doubled = interpolate(features, scale_factor=2, mode="nearest")[..., :height, :width]
                joined = torch.cat([doubled, skip], 1)
            wanted = leaky_relu(conv2d(joined, weight, bias, stride, padding=1), 0.2)
            for phased in (False, True) if stride == 1 and height % 2 == width % 2 == 0 else (False,):
                out = torch.full_like(wanted, torch.nan)
                torch.ops.abpn_fast_cpu.gated_conv_tiles(
                    features, skip, None, weight, bias, None, None, 0.2, KERNELS.index(kernel), phased, 7, out
                )
                torch.testing.assert_close(out, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("multiprocessors", range(1, 60, 3))
def test_every_split(multiprocessors: int) -> None:
    for kept in (True, False):
        for mask in ((3, 2), None):
            given = inputs((5, 6), (71, 40, 3), dtype=torch.float32, kept=kept, mask=mask)
            wanted = reference.gated_conv(**given)
            torch.testing.assert_close(run(given, "full", False, multiprocessors), wanted, rtol=0, atol=1e-5)


def modules(widths: tuple[int, ...]) -> list[tuple[int, tuple[int, int, int]]]:
    """Size at a thumbnail of 256 and (features, skip, out) of every attentive module."""
    widths = (3, *widths)
    return [(512 >> level, (widths[level], widths[level - 1], widths[level - 1])) for level in range(6, 0, -1)]


SMALL = modules((16, 32, 64, 128, 128, 128))
BASE = modules(ABPNConfig().encoder_widths)


@pytest.mark.parametrize(("size", "channels"), SMALL + BASE, ids=str)
def test_the_network(size: int, channels: tuple[int, int, int]) -> None:
    given = inputs((size, size), channels, dtype=torch.float32, mask=(64, 64))
    wanted = reference.gated_conv(**given)
    kernel = "narrow" if channels[2] <= 8 else "middle" if channels[2] <= 32 or size == 8 else "wide"
    torch.testing.assert_close(run(given, kernel, size >= 32), wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("channels", [(4, 5, 3), (8, 24, 9), (33, 64, 70)], ids=str)
@pytest.mark.parametrize("kernel", KERNELS)
def test_budget(kernel: str, channels: tuple[int, int, int]) -> None:
    for size in ((9, 8), (8, 6)):
        given = inputs(size, channels, count=2, dtype=torch.float32, mask=(3, 5))
        exact = formulas.gated_conv(*as_arrays(given).values())
        assert_within_budget(run(given, kernel, size == (8, 6)), reference.gated_conv(**given), exact)
