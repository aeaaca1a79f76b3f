from __future__ import annotations

import itertools
from typing import ClassVar

import numpy as np
import pytest
import torch

import abpn_fast
from tests import formulas
from tests.accuracy import assert_near
from tests.ops.contract import INTEGERS, Inputs, PixelContract, as_arrays, picture
from tests.ops.test_adaptive_blend import SOFT_LIGHT


class TestContract(PixelContract):
    name = "reverse_adaptive_blend"
    # A rounding of the image counts up to 1 / d^2 times in the quotient.
    reference_ulps = 512
    bad_arguments: ClassVar = [
        ("image", lambda x: x["image"][:, :2]),
        ("retouched", lambda x: x["retouched"][..., :-1]),
        ("retouched", lambda x: x["retouched"].double()),
        ("j", lambda x: x["j"][:2]),
        ("k", lambda x: x["k"].int()),
        ("damping", lambda x: -1e-4),
        ("damping", lambda x: float("nan")),
        ("damping", lambda x: "little"),
    ]

    def inputs(
        self, size: tuple[int, int], *, count: int = 2, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Inputs:
        options = {"dtype": dtype, "device": device}
        return {
            "image": 0.1 + 0.8 * picture(count, 3, *size, **options),
            "retouched": picture(count, 3, *size, **options),
            "j": torch.tensor([0.1, 1.9, -2.0]).to(device, dtype),
            "k": torch.tensor([0.02, 0.7, 0.3]).to(device, dtype),
            "damping": 1e-3,
        }

    def formula(self, inputs: Inputs) -> list[np.ndarray]:
        return [formulas.rabm(**inputs)]


@pytest.mark.parametrize("damping", [0.0, 1e-4])
@pytest.mark.parametrize("dtypes", list(itertools.product([torch.float32, *INTEGERS], repeat=2)), ids=str)
def test_black_and_white(dtypes: tuple[torch.dtype, torch.dtype], damping: float, device: str) -> None:
    image, retouched = (picture(2, 3, 16, 17, dtype=dtype, device=device) for dtype in dtypes)
    white = 1 if dtypes[0].is_floating_point else torch.iinfo(dtypes[0]).max
    ends = (image.double() == 0) | (image.double() == white)
    assert (image.double() == 0).any() and (image.double() == white).any()
    j, k = (c.to(device) for c in SOFT_LIGHT)
    inputs = {"image": image, "retouched": retouched, "j": j, "k": k}
    result = abpn_fast.ops.reverse_adaptive_blend(**inputs, damping=damping)
    exact = formulas.rabm(**as_arrays(inputs), damping=damping)
    assert result.dtype == torch.float32
    assert torch.isfinite(result).all()
    assert (result[ends] == 0).all()
    if damping:
        assert_near(result, exact, ulps=2**14)
    else:
        relative = np.abs(result.cpu().numpy() - exact) / (np.abs(exact) + 1e-2)
        steep = formulas.unit(image.cpu().numpy())
        assert relative[(steep > 0.02) & (steep < 0.98)].max() < 1e-4


@pytest.mark.parametrize("image_dtype", [*INTEGERS, torch.float64])
def test_dtype_is_the_floating_one(image_dtype: torch.dtype, device: str) -> None:
    image = picture(1, 3, 4, 5, dtype=image_dtype, device=device)
    other = picture(1, 3, 4, 5, dtype=torch.uint8 if image_dtype == torch.float64 else torch.float64, device=device)
    result = abpn_fast.ops.reverse_adaptive_blend(image, other, *(c.to(device) for c in SOFT_LIGHT))
    assert result.dtype == torch.float64


def test_undamped_gradient_is_finite_at_black_and_white(device: str) -> None:
    image = picture(1, 3, 8, 8, device=device).requires_grad_()
    retouched = picture(1, 3, 8, 8, device=device).requires_grad_()
    soft_light = [c.to(device) for c in SOFT_LIGHT]
    abpn_fast.ops.reverse_adaptive_blend(image, retouched, *soft_light, damping=0).sum().backward()
    ends = (image == 0) | (image == 1)
    assert ends.any()
    assert (image.grad[ends] == 0).all() and (retouched.grad[ends] == 0).all()


def test_negative_divisor(device: str, backend: str) -> None:
    contract = TestContract()
    inputs = contract.inputs((7, 6), device=device)
    contract.check(inputs | {"j": -inputs["j"]}, backend)


@pytest.mark.parametrize("stored", INTEGERS, ids=str)
def test_gradient_beside_an_integer_image(stored: torch.dtype, device: str, backend: str) -> None:
    contract = TestContract()
    inputs = contract.integer_inputs((3, 4), stored, device, count=1, dtype=torch.float64)
    inner = inputs["image"].int().clamp(torch.iinfo(stored).max // 10, torch.iinfo(stored).max // 10 * 9)
    contract.gradcheck(inputs | {"image": inner.to(stored)}, backend)
