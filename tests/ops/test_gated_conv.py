from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from tests import formulas
from tests.ops.contract import Inputs, OperatorContract, draw, halved, picture

FEATURES, SKIP, OUT = 5, 4, 3
MASK = (5, 4)


class TestContract(OperatorContract):
    name = "gated_conv"
    bad_arguments: ClassVar = [
        ("skip", lambda x: x["skip"][0]),
        ("skip", lambda x: x["skip"][..., :0]),
        ("features", lambda x: x["features"][..., :-1]),
        ("features", lambda x: x["features"][:1]),
        ("features", lambda x: x["features"].double()),
        ("mask", lambda x: x["mask"].expand(-1, 2, -1, -1)),
        ("mask", lambda x: x["mask"].double()),
        ("mask", lambda x: x["mask"][..., :0]),
        ("weight", lambda x: x["weight"][:, :-1]),
        ("weight", lambda x: x["weight"][:-1]),
        ("weight", lambda x: x["weight"][:0]),
        ("bias", lambda x: x["bias"][:-1]),
        ("skip_weight", lambda x: x["skip_weight"][:-1]),
        ("skip_weight", lambda x: None),
        ("skip_bias", lambda x: x["skip_bias"][:-1]),
        ("skip_bias", lambda x: None),
        ("negative_slope", lambda x: "steep"),
    ]

    def inputs(
        self, size: tuple[int, int], *, count: int = 2, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Inputs:
        options = {"dtype": dtype, "device": device}
        return {
            "features": draw(count, FEATURES, *halved(size), scale=1, **options),
            "skip": draw(count, SKIP, *size, scale=1, **options),
            "mask": picture(count, 1, *MASK, **options),
            "weight": draw(2 * OUT, FEATURES + SKIP + 1, 3, 3, **options),
            "bias": draw(2 * OUT, **options),
            "skip_weight": draw(OUT, SKIP, 3, 3, **options),
            "skip_bias": draw(OUT, **options),
            "negative_slope": 0.2,
        }

    def formula(self, inputs: Inputs) -> list[np.ndarray]:
        return [formulas.gated_conv(*inputs.values())]


def without_mask(inputs: Inputs) -> Inputs:
    return inputs | {"mask": None, "weight": inputs["weight"][:, :-1]}


class TestPlain(TestContract):
    """``F * G`` of features and skip alone, without an activation."""

    bad_arguments: ClassVar = [("weight", lambda x: torch.zeros(2 * OUT, FEATURES + SKIP + 1, 3, 3))]

    def inputs(self, size: tuple[int, int], **options: Any) -> Inputs:
        plain = {"skip_weight": None, "skip_bias": None, "negative_slope": 1.0}
        inputs = without_mask(super().inputs(size, **options)) | plain
        return inputs | {"weight": inputs["weight"].contiguous()}


@pytest.mark.parametrize("mask", [(1, 1), (1, 7), (4, 4), (8, 6), (15, 18), (33, 2)], ids=str)
def test_mask_of_any_size(mask: tuple[int, int], device: str, backend: str) -> None:
    contract = TestContract()
    inputs = contract.inputs((15, 18), device=device)
    contract.check(inputs | {"mask": picture(2, 1, *mask, device=device)}, backend)


@pytest.mark.parametrize("masked", [True, False], ids=["mask", "no mask"])
@pytest.mark.parametrize("kept", [True, False], ids=["lam", "gated"])
def test_every_form(masked: bool, kept: bool, device: str, backend: str) -> None:
    contract = TestContract()
    inputs = contract.inputs((7, 6), device=device)
    inputs |= {} if kept else {"skip_weight": None, "skip_bias": None}
    contract.check(inputs if masked else without_mask(inputs), backend)
