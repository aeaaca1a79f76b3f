from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

import abpn_fast
from tests import formulas
from tests.accuracy import assert_near
from tests.ops.contract import INTEGERS, Inputs, PixelContract, draw, picture

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, *INTEGERS])
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


def stored(values: torch.Tensor, dtype: torch.dtype, device: str) -> torch.Tensor:
    """What an integer image becomes when Eq. 3 gives ``values`` for it."""
    blend = values.reshape(1, 1, 1, -1).expand(1, 3, 1, -1).to(device)
    image = torch.zeros_like(blend, dtype=dtype)
    return abpn_fast.ops.adaptive_blend(image, blend, CONSTANT.to(device), NONE.to(device))[0, 0, 0].cpu()


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_round_half_to_even(dtype: torch.dtype, device: str) -> None:
    white = torch.iinfo(dtype).max
    halves = torch.arange(white) + 0.5
    exact = halves[halves / white * white == halves]
    assert len(exact) > 100
    assert torch.equal(stored(exact / white, dtype, device), torch.from_numpy(np.rint(exact.numpy())).to(dtype))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_are_clamped_and_nan_is_black(dtype: torch.dtype, device: str) -> None:
    white = torch.iinfo(dtype).max
    values = torch.tensor([-1e30, -0.1, -0.0, 1.0, 1.1, (white + 1) / white, 1e30, torch.inf, -torch.inf, torch.nan])
    assert stored(values, dtype, device).tolist() == [0, 0, 0, white, white, white, white, white, 0, 0]


@pytest.mark.parametrize(("dtype", "exactly"), [(torch.uint8, 0.999), (torch.uint16, 0.97)], ids=str)
def test_reads_every_grey_level(dtype: torch.dtype, exactly: float, device: str) -> None:
    levels = torch.iinfo(dtype).max + 1
    image = torch.arange(levels).to(device, dtype).expand(1, 3, 2, levels)
    blend = draw(1, 3, 2, levels, device=device)
    result = abpn_fast.ops.adaptive_blend(image, blend, *(c.to(device) for c in SOFT_LIGHT)).cpu().int().numpy()
    exact = formulas.abm(*(formulas.unit(x.cpu().numpy()) for x in (image, blend, *SOFT_LIGHT)))
    stored = formulas.store(exact, np.uint8 if dtype == torch.uint8 else np.uint16)
    assert np.abs(result - stored.astype(int)).max() <= 1
    assert (result == stored).mean() > exactly
