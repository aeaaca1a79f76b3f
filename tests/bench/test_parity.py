"""The gate lets nothing through that computes something else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench import parity

IMAGE = torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(0))
EXPECTED = IMAGE + torch.linspace(0, 0.2, 7)


def one_off(amount: float) -> Tensor:
    result = EXPECTED.clone()
    result[0, 1, 4, 3] += amount
    return result


@pytest.mark.parametrize(
    ("result", "dtype"),
    [
        (EXPECTED, "float32"),
        (one_off(5e-6), "float32"),
        (EXPECTED.bfloat16(), "bfloat16"),
        (one_off(0.04), "bfloat16"),
        (EXPECTED.clamp(0, 1).mul(255).round().to(torch.uint8), "uint8"),
    ],
)
def test_right_results_pass(result: Tensor, dtype: str) -> None:
    assert parity.check(result, EXPECTED, IMAGE, dtype).refusal is None


@pytest.mark.parametrize(
    ("result", "dtype"),
    [
        (one_off(2e-5), "float32"),
        (one_off(float("nan")), "float32"),
        (EXPECTED + 2e-6, "float32"),
        (EXPECTED.half(), "float32"),
        (EXPECTED.flip(3), "bfloat16"),
        (one_off(0.05), "bfloat16"),
        (EXPECTED + 4e-3, "bfloat16"),
        (EXPECTED.clamp(0, 1).mul(255).to(torch.uint8), "uint8"),
        (IMAGE, "bfloat16"),
    ],
)
def test_wrong_results_are_refused(result: Tensor, dtype: str) -> None:
    assert "differs from the reference" in (parity.check(result, EXPECTED, IMAGE, dtype).refusal or "")


def test_wrong_shape() -> None:
    assert "has shape (1, 3, 9, 6)" in (parity.check(EXPECTED[..., :6], EXPECTED, IMAGE, "float32").refusal or "")


@pytest.mark.parametrize("change", [torch.Tensor.clone, lambda x: x + 1e-5])
def test_an_image_that_the_reference_leaves_alone_shows_nothing(change: Callable[[Tensor], Tensor]) -> None:
    expected = change(IMAGE)
    assert "hardly changes" in (parity.check(expected, expected, IMAGE, "float32").refusal or "")
