from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import abpn_fast
from tests import formulas
from tests.accuracy import assert_same_bits, chosen
from tests.ops.contract import INTEGERS, Inputs, PixelContract, as_arrays, picture
from tests.ops.test_adaptive_blend import J, K
from tests.ops.test_upsample_refine import BAD_REFINING, WEIGHTS, refining_inputs

SCALE = 8
# Exact in every dtype, and between two values of an upsampled mask of zeros and ones, which are multiples of 1 / 256.
THRESHOLD = 129 / 1024
NO_MASK: Inputs = {"mask": None, "mask_threshold": None}


def mask_of(size: tuple[int, int], count: int = 2, scale: int = SCALE, **options: Any) -> Tensor:
    """Zeros and ones."""
    return picture(count, 1, -(-size[0] // scale), -(-size[1] // scale), **options).round()


class TestContract(PixelContract):
    name = "upsample_refine_blend"
    not_differentiable = ("mask",)
    bad_arguments: ClassVar = [
        *BAD_REFINING,
        ("j", lambda x: x["j"][:2]),
        ("k", lambda x: x["k"].int()),
        ("strength", lambda x: "strong"),
        ("mask", lambda x: x["mask"].expand(-1, -1, 5, 1)),
        ("mask", lambda x: x["mask"].expand(-1, 3, -1, -1)),
        ("mask", lambda x: x["mask"].double()),
        ("mask", lambda x: None),
        ("mask_threshold", lambda x: None),
        ("mask_threshold", lambda x: "low"),
    ]

    def inputs(
        self, size: tuple[int, int], *, count: int = 2, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Inputs:
        return refining_inputs(size, count, dtype, device) | {
            "j": J.to(device, dtype, copy=True),
            "k": K.to(device, dtype, copy=True),
            "strength": 0.75,
            "mask": mask_of(size, count, dtype=dtype, device=device),
            "mask_threshold": THRESHOLD,
        }

    def formula(self, inputs: Inputs) -> list[np.ndarray]:
        blend = formulas.refine(*list(inputs.values())[:7])
        image, mask = inputs["image"], inputs["mask"]
        result = formulas.abm(image, blend, inputs["j"], inputs["k"], inputs["strength"])
        if mask is None:
            return [result]
        return [formulas.keep_below(image, result, mask, SCALE, inputs["mask_threshold"])]


class TestWithoutMask(TestContract):
    bad_arguments: ClassVar = [("mask", lambda x: mask_of((6, 8)))]

    def inputs(self, size: tuple[int, int], **options: Any) -> Inputs:
        return super().inputs(size, **options) | NO_MASK


@pytest.mark.parametrize("dtype", [torch.float32, *INTEGERS])
@pytest.mark.parametrize("scale", [1, 2, 4, 16, 64])
def test_masked_pixels_keep_their_bits(scale: int, dtype: torch.dtype, device: str) -> None:
    size = (33, 30)
    inputs = TestContract().inputs(size, device=device)
    inputs["image"] = picture(2, 3, *size, dtype=dtype, device=device)
    inputs["mask"] = mask_of(size, scale=scale, device=device)
    result = abpn_fast.ops.upsample_refine_blend(**inputs)
    free = abpn_fast.ops.upsample_refine_blend(**inputs | NO_MASK)
    below = formulas.up(as_arrays(inputs)["mask"], size, scale) < THRESHOLD
    below = torch.from_numpy(below).expand(-1, 3, -1, -1).to(device)
    assert below.any()
    assert torch.equal(result, chosen(below, inputs["image"], free))
    assert scale == 64 or not torch.equal(result, free)


@pytest.mark.parametrize("threshold", [0.0, 2.0])
def test_threshold_beyond_the_mask(threshold: float, device: str) -> None:
    inputs = TestContract().inputs((17, 16), device=device) | {"mask_threshold": threshold}
    result = abpn_fast.ops.upsample_refine_blend(**inputs)
    free = abpn_fast.ops.upsample_refine_blend(**inputs | NO_MASK)
    assert torch.equal(result, inputs["image"] if threshold else free)


def test_nan_in_a_mask_of_the_same_size_stays_where_it_is(device: str) -> None:
    inputs = TestContract().inputs((6, 6), device=device)
    mask = torch.zeros(2, 1, 6, 6, device=device)
    mask[:, :, 3, 4] = math.nan
    kept = (abpn_fast.ops.upsample_refine_blend(**inputs | {"mask": mask}) == inputs["image"]).all(1)
    assert kept.sum() == 2 * 35 and not kept[:, 3, 4].any()


def test_a_mask_at_the_threshold_is_not_below_it(device: str) -> None:
    inputs = TestContract().inputs((16, 16), device=device)
    inputs["mask"] = torch.full_like(inputs["mask"], THRESHOLD)
    assert torch.equal(
        abpn_fast.ops.upsample_refine_blend(**inputs), abpn_fast.ops.upsample_refine_blend(**inputs | NO_MASK)
    )


def test_silent_refining_is_adaptive_blend_of_the_upsampled_layer(device: str) -> None:
    inputs = TestContract().inputs((15, 17), device=device) | NO_MASK
    inputs |= {name: torch.zeros_like(inputs[name]) for name in WEIGHTS}
    blend = abpn_fast.reference.upsample(inputs["blend_low"], (15, 17))
    coefficients = inputs["j"], inputs["k"]
    expected = abpn_fast.ops.adaptive_blend(inputs["image"], blend, *coefficients, strength=0.75, backend="reference")
    assert_same_bits(abpn_fast.ops.upsample_refine_blend(**inputs, backend="reference"), expected)


def test_gradient_with_respect_to_the_mask_is_zero(device: str) -> None:
    inputs = TestContract().inputs((6, 8), device=device)
    inputs["mask"].requires_grad_()
    result = abpn_fast.ops.upsample_refine_blend(**inputs)
    (gradient,) = torch.autograd.grad(result.sum(), inputs["mask"], allow_unused=True, materialize_grads=True)
    assert (gradient == 0).all()
