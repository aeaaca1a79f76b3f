from __future__ import annotations

import pytest
import torch
from torch import Tensor

from abpn_fast import ops
from abpn_fast.backends import gradient_strips

J, K = torch.tensor([0.1, 1.9, -2.1]), torch.tensor([0.02, 1.1, -0.1])


def arguments(height: int, width: int, count: int = 2) -> list[Tensor]:
    low = (count, 3, -(-height // 2), -(-width // 2))
    shapes = [low, (count, 3, height, width), low, (16, 6, 3, 3), (16,), (3, 16, 3, 3), (3,)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def gradients(name: str, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    extra = [] if name == "upsample_refine" else [J.double().requires_grad_(), K.double().requires_grad_()]
    result = getattr(ops, name)(*inputs, *extra, backend="reference")
    weights = torch.arange(result.numel()).remainder(7).sub(3).double().reshape(result.shape)
    return torch.autograd.grad((result * weights).sum(), [*inputs, *extra])


@pytest.mark.parametrize("name", ["upsample_refine", "upsample_refine_blend"])
@pytest.mark.parametrize("size", [(41, 16), (40, 17), (9, 16)], ids=str)
def test_strips_add_up_to_the_whole(name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    inputs = arguments(*size)
    whole = gradients(name, inputs)
    monkeypatch.setattr(gradient_strips, "_PIXELS", 1)
    for strip, one in zip(gradients(name, inputs), whole, strict=True):
        # A sum may end near zero: its rounding is that of what was added.
        assert strip.is_contiguous() and (strip - one).abs().max() <= 1e-14 * one.abs().max()


def test_a_strip_is_all_that_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of each call to the whole gradient: a strip with its halo."""
    heights: list[int] = []

    def whole(grads: list[Tensor], given: dict[str, Tensor], wanted: list[str], results: object) -> list[Tensor]:
        heights.append(given["image"].shape[2])
        return [torch.zeros_like(given[name]) for name in wanted]

    monkeypatch.setattr(gradient_strips, "_PIXELS", 2 * 16 * 10)
    names = ["blend_low", "image", "image_low", "weight1", "bias1", "weight2", "bias2"]
    given = dict(zip(names, arguments(64, 16), strict=True))
    gradient_strips.in_strips(whole)([given["image"]], given, names, lambda x: [x])
    assert len(heights) == 7 and max(heights) == 10 + 2 * 4


def test_strips_of_half_precision_are_summed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_strips, "_PIXELS", 1)
    image = torch.zeros(1, 3, 4096, 2, dtype=torch.bfloat16)

    def whole(grads: list[Tensor], given: dict[str, Tensor], wanted: list[str], results: object) -> list[Tensor]:
        return [torch.ones(1, dtype=torch.bfloat16)]

    (found,) = gradient_strips.in_strips(whole)(
        [image], {"image": image, "bias2": torch.zeros(1, dtype=torch.bfloat16)}, ["bias2"], lambda x: [x]
    )
    # 512 strips: a sum in bfloat16 stops at 256.
    assert found.dtype == torch.bfloat16 and found == 512


@pytest.mark.parametrize("name", ["upsample_refine", "upsample_refine_blend"])
def test_empty_batch(name: str) -> None:
    inputs = arguments(6, 4, count=0)
    assert not any(gradient.any() for gradient in gradients(name, inputs))
