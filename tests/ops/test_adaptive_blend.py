from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

import abpn_fast
from tests import formulas
from tests.accuracy import assert_near
from tests.ops.contract import Inputs, PixelContract, draw, picture

J, K = torch.tensor([0.1, 1.9, -2.2]), torch.tensor([0.02, 0.7, 0.3])
SOFT_LIGHT = torch.tensor([0.0, 2.0, -2.0]), torch.tensor([0.0, 1.0, 0.0])
NONE, CONSTANT = torch.zeros(3), torch.tensor([1.0, 0.0, 0.0])


class TestContract(PixelContract):
    name = "adaptive_blend"
    bad_arguments: ClassVar = [
        ("image", lambda x: x["image"][:, :2]),
        ("image", lambda x: x["image"][:, :, :0]),
        ("blend", lambda x: x["blend"][..., :-1]),
        ("blend", lambda x: x["blend"].double()),
        ("j", lambda x: x["j"][:2]),
        ("k", lambda x: x["k"].int()),
        ("strength", lambda x: "strong"),
    ]

    def inputs(
        self, size: tuple[int, int], *, count: int = 2, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Inputs:
        options = {"dtype": dtype, "device": device}
        return {
            "image": picture(count, 3, *size, **options),
            "blend": draw(count, 3, *size, **options),
            "j": J.to(device, dtype, copy=True),
            "k": K.to(device, dtype, copy=True),
            "strength": 0.75,
        }

    def formula(self, inputs: Inputs) -> list[np.ndarray]:
        return [formulas.abm(**inputs)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("what", ["neutral blend", "no strength"])
def test_neutral_keeps_every_bit(what: str, dtype: torch.dtype, device: str) -> None:
    image = picture(2, 3, 9, 11, dtype=dtype, device=device)
    blend = draw(2, 3, 9, 11, dtype=dtype if dtype.is_floating_point else torch.float32, device=device)
    soft_light = [c.to(device) for c in SOFT_LIGHT]
    if what == "neutral blend":
        result = abpn_fast.ops.adaptive_blend(image, 0 * blend, *soft_light)
    else:
        result = abpn_fast.ops.adaptive_blend(image, blend, *soft_light, strength=0)
    assert result.dtype == dtype and torch.equal(result, image)


def test_coefficients_of_another_dtype(device: str) -> None:
    image, blend = picture(1, 3, 5, 7, device=device), draw(1, 3, 5, 7, device=device)
    result = abpn_fast.ops.adaptive_blend(image, blend, J.to(device).double(), K.to(device).double())
    exact = formulas.abm(*(x.cpu().double().numpy() for x in (image, blend, J, K)))
    assert result.dtype == torch.float32
    assert_near(result, exact, ulps=8)


def stored(values: torch.Tensor, device: str) -> torch.Tensor:
    """What a uint8 image becomes when Eq. 3 gives ``values`` for it."""
    blend = values.reshape(1, 1, 1, -1).expand(1, 3, 1, -1).to(device)
    image = torch.zeros_like(blend, dtype=torch.uint8)
    return abpn_fast.ops.adaptive_blend(image, blend, CONSTANT.to(device), NONE.to(device))[0, 0, 0].cpu()


def test_uint8_rounds_half_to_even(device: str) -> None:
    halves = torch.arange(255) + 0.5
    exact = halves[halves / 255 * 255 == halves]
    assert len(exact) > 100
    assert torch.equal(stored(exact / 255, device), torch.from_numpy(np.rint(exact.numpy())).to(torch.uint8))


def test_uint8_clamps_and_stores_nan_as_black(device: str) -> None:
    values = torch.tensor([-1e30, -0.1, -0.0, 1.0, 1.1, 256 / 255, 1e30, torch.inf, -torch.inf, torch.nan])
    assert stored(values, device).tolist() == [0, 0, 0, 255, 255, 255, 255, 255, 0, 0]


def test_uint8_reads_every_grey_level(device: str) -> None:
    image = torch.arange(256, dtype=torch.uint8, device=device).expand(1, 3, 2, 256)
    blend = draw(1, 3, 2, 256, device=device)
    result = abpn_fast.ops.adaptive_blend(image, blend, *(c.to(device) for c in SOFT_LIGHT)).cpu().int().numpy()
    exact = formulas.abm(*(formulas.unit(x.cpu().numpy()) for x in (image, blend, *SOFT_LIGHT)))
    assert np.abs(result - formulas.store(exact).astype(int)).max() <= 1
    assert (result == formulas.store(exact)).mean() > 0.999
