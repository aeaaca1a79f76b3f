from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch

import abpn_fast
from tests import formulas
from tests.accuracy import assert_near
from tests.ops.contract import INTEGERS, SIZES, Inputs, PixelContract, picture


class TestContract(PixelContract):
    name = "pyramid_down"
    bad_arguments: ClassVar = [
        ("image", lambda x: x["image"][:, :2]),
        ("image", lambda x: x["image"][..., :0]),
        ("filter", lambda x: "gaussian"),
    ]

    def inputs(
        self, size: tuple[int, int], *, count: int = 2, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Inputs:
        return {"image": picture(count, 3, *size, dtype=dtype, device=device), "filter": "binomial"}

    def formula(self, inputs: Inputs) -> list[np.ndarray]:
        return [formulas.down(**inputs)]


class TestBox(TestContract):
    def inputs(self, size: tuple[int, int], **options: object) -> Inputs:
        return super().inputs(size, **options) | {"filter": "box"}


@pytest.mark.parametrize("filter", ["binomial", "box"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_flat_stays_flat(size: tuple[int, int], filter: str, device: str) -> None:
    image = torch.full((1, 3, *size), 0.75, device=device)
    result = abpn_fast.ops.pyramid_down(image, filter=filter)
    assert (result == 0.75).all() and result.shape == (1, 3, (size[0] + 1) // 2, (size[1] + 1) // 2)


@pytest.mark.parametrize("stored", INTEGERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_integers_into_any_floating_out(dtype: torch.dtype, stored: torch.dtype, device: str) -> None:
    image = picture(2, 3, 9, 10, dtype=stored, device=device)
    out = torch.empty(2, 3, 5, 5, dtype=dtype, device=device)
    assert abpn_fast.ops.pyramid_down(image, out=out) is out
    assert_near(out, formulas.down(formulas.unit(image.cpu().numpy())), ulps=8)
