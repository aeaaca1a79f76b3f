from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from abpn_fast.reference import laplacian_decompose, pyramid_down, to_pixels, to_unit, upsample
from tests import formulas
from tests.accuracy import assert_near
from tests.reference.networks import photo

SIZES = [(1, 1), (1, 9), (9, 1), (2, 3), (7, 13), (16, 17), (63, 64), (65, 63)]


@pytest.mark.parametrize("filter", ["binomial", "box"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_reconstruction(size: tuple[int, int], filter: str) -> None:
    image = photo(*size, dtype=torch.float64)
    gaussian, high = laplacian_decompose(image, 4, filter=filter)
    assert gaussian[0] is image and len(gaussian) == 5 and len(high) == 4
    for fine, coarse, detail in zip(gaussian, gaussian[1:], high, strict=False):
        assert coarse.shape[2:] == tuple(-(-n // 2) for n in fine.shape[2:])
        assert (detail + upsample(coarse, fine.shape[2:]) - fine).abs().max() < 1e-15


@pytest.mark.parametrize("scale", [1, 2, 4, 16])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_upsample(size: tuple[int, int], scale: int) -> None:
    low = torch.randn(2, 3, *(-(-n // scale) for n in size), dtype=torch.float64)
    assert_near(upsample(low, size, scale), formulas.up(low.numpy(), size, scale), ulps=8)


def test_reduce_is_the_adjoint_of_up() -> None:
    """``<reduce(x), y> = <x, up(y)> / 4`` for x that is 0 at the border."""
    x, y = torch.zeros(1, 1, 24, 30, dtype=torch.float64), torch.randn(1, 1, 12, 15, dtype=torch.float64)
    x[..., 3:-3, 3:-3] = torch.randn(18, 24)
    assert (pyramid_down(x) * y).sum().item() == pytest.approx((x * upsample(y, (24, 30))).sum().item() / 4, rel=1e-12)


def centre(x: Tensor) -> tuple[float, float]:
    """Of mass, in half-pixel coordinates as fractions of the size."""
    weights = x.sum((0, 1)).numpy()
    rows, columns = ((np.arange(n) + 0.5) / n for n in weights.shape)
    return float(np.average(rows, weights=weights.sum(1))), float(np.average(columns, weights=weights.sum(0)))


def test_nothing_drifts() -> None:
    image = torch.zeros(1, 1, 256, 256, dtype=torch.float64)
    image[..., 70:91, 133:150] = torch.rand(21, 17)
    level = image
    for _ in range(4):
        level = pyramid_down(level)
        assert centre(level) == pytest.approx(centre(image), abs=1e-12)
        assert centre(upsample(level, tuple(2 * n for n in level.shape[2:]))) == pytest.approx(centre(image), abs=1e-12)


@pytest.mark.parametrize("filter", ["binomial", "box"])
def test_a_symmetric_image_stays_symmetric(filter: str) -> None:
    image = photo(64, 32, dtype=torch.float64)
    gaussian, high = laplacian_decompose(image + image.flip(2) + image.flip(3) + image.flip(2, 3), 4, filter=filter)
    for level in [*gaussian, *high]:
        assert (level - level.flip(2)).abs().max() < 1e-14 and (level - level.flip(3)).abs().max() < 1e-14


@pytest.mark.parametrize("stored", [torch.uint8, torch.uint16])
def test_pixels_there_and_back(stored: torch.dtype) -> None:
    levels = torch.arange(torch.iinfo(stored).max + 1).to(stored).reshape(1, 1, 16, -1)
    for dtype in (torch.float32, torch.float64):
        assert to_unit(levels, dtype).dtype == dtype
        assert to_unit(levels, dtype).max() == 1
        assert torch.equal(to_pixels(to_unit(levels, dtype), stored), levels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_through_half_precision(dtype: torch.dtype) -> None:
    levels = torch.arange(65536)
    unit = to_unit(levels.to(torch.uint16), dtype)
    assert torch.equal(unit, (levels / 65535).to(dtype))
    assert torch.equal(to_pixels(unit, torch.uint16), (unit.float() * 65535).round().to(torch.uint16))


@pytest.mark.parametrize("stored", [torch.uint8, torch.uint16])
def test_integers_are_read_in_float32(stored: torch.dtype) -> None:
    image = photo(9, 8, dtype=stored)
    assert torch.equal(pyramid_down(image), pyramid_down(image.float() / torch.iinfo(stored).max))
    assert laplacian_decompose(image, 2)[1][0].dtype == torch.float32
