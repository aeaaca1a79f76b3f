from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import abpn_fast
from tests import formulas
from tests.ops.contract import INTEGERS, SIZES, Inputs, PixelContract, picture

LEVELS = 3


class TestContract(PixelContract):
    name = "laplacian_decompose"
    bad_arguments: ClassVar = [
        ("image", lambda x: x["image"][:, :2]),
        ("levels", lambda x: -1),
        ("levels", lambda x: 1.5),
        ("levels", lambda x: True),
        ("filter", lambda x: "gaussian"),
    ]

    def inputs(
        self, size: tuple[int, int], *, count: int = 2, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Inputs:
        image = picture(count, 3, *size, dtype=dtype, device=device)
        return {"image": image, "levels": LEVELS, "filter": "binomial"}

    def formula(self, inputs: Inputs) -> list[np.ndarray]:
        return self.flat(formulas.laplacian(**inputs))

    def flat(self, result: Any) -> list[Any]:
        gaussian, high = result
        return [*gaussian[1:], *high]

    def unflat(self, results: list[Tensor]) -> Any:
        return results[:LEVELS], results[LEVELS:]


class TestBox(TestContract):
    def inputs(self, size: tuple[int, int], **options: object) -> Inputs:
        return super().inputs(size, **options) | {"filter": "box"}


@pytest.mark.parametrize("levels", [0, 1, 7])
@pytest.mark.parametrize("dtype", [torch.float32, *INTEGERS])
def test_first_level_is_the_image(dtype: torch.dtype, levels: int, device: str) -> None:
    image = picture(1, 3, 9, 7, dtype=dtype, device=device)
    gaussian, high = abpn_fast.ops.laplacian_decompose(image, levels)
    assert gaussian[0] is image
    assert (len(gaussian), len(high)) == (levels + 1, levels)
    assert all(level.dtype == torch.float32 for level in [*gaussian[1:], *high])


def test_levels_of_numpy() -> None:
    image = picture(1, 3, 9, 7)
    for own, other in zip(*(abpn_fast.ops.laplacian_decompose(image, n) for n in (2, np.int8(2))), strict=True):
        assert len(own) and all(map(torch.equal, own, other))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_reconstructs(size: tuple[int, int], device: str) -> None:
    image = picture(2, 3, *size, dtype=torch.float64, device=device)
    gaussian, high = abpn_fast.ops.laplacian_decompose(image, 4)
    rebuilt = gaussian[-1].cpu().numpy()
    for detail in reversed(high):
        rebuilt = detail.cpu().numpy() + formulas.up(rebuilt, detail.shape[2:])
    assert np.abs(rebuilt - image.cpu().numpy()).max() < 1e-14


@pytest.mark.parametrize(
    "wrong", [([], []), ([torch.zeros(1, 3, 2, 2)], []), torch.zeros(2, 3), torch.empty(3), 5], ids=range(5)
)
def test_out_of_the_wrong_length(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"\bout\b.*got"):
        abpn_fast.ops.laplacian_decompose(picture(1, 3, 4, 4), 1, out=wrong)


def test_outs_that_share_memory() -> None:
    image = picture(1, 3, 8, 8)
    shared = torch.zeros(1, 3, 4, 4)
    out = [shared, torch.zeros(1, 3, 2, 2)], [torch.zeros(1, 3, 8, 8), shared]
    with pytest.raises(ValueError, match=r"\bout\b.*shares? memory"):
        abpn_fast.ops.laplacian_decompose(image, 2, out=out)
