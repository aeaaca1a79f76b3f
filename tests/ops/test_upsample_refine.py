from __future__ import annotations

import numpy as np
import pytest
import torch

import abpn_fast
from tests import formulas
from tests.accuracy import assert_near
from tests.ops.contract import INTEGERS, Inputs, PixelContract, draw, halved, picture

WEIGHTS = ("weight1", "bias1", "weight2", "bias2")
BAD_REFINING = [
    ("image", lambda x: x["image"][:, :2]),
    ("blend_low", lambda x: x["blend_low"][..., :-1]),
    ("blend_low", lambda x: x["blend_low"].double()),
    ("blend_low", lambda x: x["blend_low"][:1]),
    ("image_low", lambda x: x["image_low"][..., :-1, :]),
    ("image_low", lambda x: x["image_low"].double()),
    ("weight1", lambda x: x["weight1"][:, :5]),
    ("bias1", lambda x: x["bias1"][:3]),
    ("weight2", lambda x: x["weight2"].bfloat16()),
    ("bias2", lambda x: x["bias1"]),
]


def refining_inputs(size: tuple[int, int], count: int, dtype: torch.dtype, device: str) -> Inputs:
    options = {"dtype": dtype, "device": device}
    return {
        "blend_low": draw(count, 3, *halved(size), **options),
        "image": picture(count, 3, *size, **options),
        "image_low": picture(count, 3, *halved(size), **options),
        "weight1": draw(16, 6, 3, 3, **options),
        "bias1": draw(16, **options),
        "weight2": draw(3, 16, 3, 3, scale=0.1, **options),
        "bias2": draw(3, **options),
    }


class TestContract(PixelContract):
    name = "upsample_refine"
    bad_arguments = BAD_REFINING

    def inputs(
        self, size: tuple[int, int], *, count: int = 2, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Inputs:
        return refining_inputs(size, count, dtype, device)

    def formula(self, inputs: Inputs) -> list[np.ndarray]:
        return [formulas.refine(**inputs)]


def test_without_weights_it_only_upsamples(device: str) -> None:
    inputs = refining_inputs((15, 17), 2, torch.float32, device)
    silent = {name: torch.zeros_like(inputs[name]) for name in WEIGHTS}
    result = abpn_fast.ops.upsample_refine(**inputs | silent)
    assert_near(result, formulas.up(inputs["blend_low"].cpu().double().numpy(), (15, 17)), ulps=4)


@pytest.mark.parametrize("stored", INTEGERS, ids=str)
def test_gradient_beside_an_integer_image(stored: torch.dtype, device: str, backend: str) -> None:
    contract = TestContract()
    contract.gradcheck(contract.integer_inputs((3, 4), stored, device, count=1, dtype=torch.float64), backend)
