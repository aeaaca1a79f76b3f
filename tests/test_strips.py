"""Strips give what the whole image gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from abpn_fast import accelerate, compatible_backends, spare, strips, use_backend
from abpn_fast.ops import pyramid_down
from abpn_fast.reference import default_levels
from tests.test_model import random_model

SIZES = [(1, 9), (37, 21), (64, 40), (131, 33), (260, 18)]
# Triton's interpreter is too slow for whole models.
EXACT = [
    name
    for name in compatible_backends(torch.empty(1, 3, 1, 1), operator="upsample_refine_blend")
    if name not in ("reference", "triton")
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("strip_rows", [1, 17, 64, 1000])
@pytest.mark.parametrize("mask_threshold", [None, 0.5])
@torch.inference_mode()
def test_equals_the_whole(size: tuple[int, int], levels: int, strip_rows: int, mask_threshold: float | None) -> None:
    model = accelerate(random_model())
    image = torch.rand(2, 3, *size)
    whole = model(image, levels=levels, mask_threshold=mask_threshold)
    result = model(image, levels=levels, mask_threshold=mask_threshold, strip_rows=strip_rows)
    torch.testing.assert_close(result, whole, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.uint16, torch.bfloat16])
@torch.inference_mode()
def test_same_bits_as_the_whole(name: str, dtype: torch.dtype) -> None:
    model = accelerate(random_model().to(dtype if dtype.is_floating_point else torch.float32))
    image = torch.rand(1, 3, 203, 77)
    image = (image * (1 if dtype.is_floating_point else torch.iinfo(dtype).max)).to(dtype)
    out = torch.empty_like(image)
    with use_backend(name):
        assert torch.equal(model(image, levels=3, strip_rows=32), model(image, levels=3))
        assert model(image, levels=3, strip_rows=32, out=out) is out
    assert torch.equal(out, model(image, levels=3))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@torch.inference_mode()
def test_same_memory_format_as_the_whole(layout: torch.memory_format) -> None:
    model, image = accelerate(random_model()), torch.rand(1, 3, 50, 34).contiguous(memory_format=layout)
    assert model(image, levels=2, strip_rows=16).stride() == model(image, levels=2).stride() == image.stride()


@pytest.mark.parametrize("wrong", [torch.empty(1, 3, 40, 31), torch.empty(1, 3, 40, 32, dtype=torch.uint8)])
def test_an_out_that_does_not_fit_is_refused_before_anything_is_written(wrong: torch.Tensor) -> None:
    model, image, before = accelerate(random_model()), torch.rand(1, 3, 40, 32), wrong.zero_().clone()
    with torch.no_grad(), pytest.raises(ValueError, match=r"out must have shape \(1, 3, 40, 32\)"):
        model(image, levels=2, strip_rows=16, out=wrong)
    assert torch.equal(wrong, before)


@pytest.mark.parametrize("levels", [1, 2])
def test_gradients_are_those_of_the_whole(levels: int) -> None:
    model, image = accelerate(random_model()), torch.rand(1, 3, 50, 34)
    found = []
    for rows in (None, 16):
        leaf = image.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(leaf, levels=levels, strip_rows=rows).square().sum(), leaf)
        found.append(gradient)
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [1, 3])
def test_coarse_levels_equal_the_pyramid_to_the_bit(size: tuple[int, int], levels: int) -> None:
    image = torch.rand(1, 3, *size)
    pyramid = [image]
    for _ in range(levels):
        pyramid.append(pyramid_down(pyramid[-1], backend="reference"))
    with use_backend("reference"):
        found = strips.coarse(image, levels, 5, pyramid_down)
    assert len(found) == levels + 1 - strips.first_whole(*size, levels, 5)
    assert all(torch.equal(mine, wanted) for mine, wanted in zip(found[::-1], pyramid[::-1], strict=False))


@pytest.mark.parametrize("first", [1, 2, 3, 4])
@torch.inference_mode()
def test_any_level_can_be_the_first_whole_one(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, image = accelerate(random_model()), torch.rand(1, 3, 300, 21)
    whole = model(image, levels=4)
    monkeypatch.setattr(strips, "first_whole", lambda *_: first)
    torch.testing.assert_close(model(image, levels=4, strip_rows=10), whole, atol=2e-6, rtol=0)


def test_what_a_strip_holds_hardly_grows_with_the_height() -> None:
    def held(height: int) -> int:
        levels = default_levels(height, 2048)
        return sum(strips.held_pixels(height, 2048, levels, 512, strips.first_whole(height, 2048, levels, 512)))

    assert held(1 << 15) < 2 * held(1 << 11)


@torch.inference_mode()
def test_memory_that_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model, image = accelerate(random_model()), torch.rand(1, 3, 603, 701)
    whole = model(image, levels=4)
    monkeypatch.setattr(spare, "_LEAST", 1)
    taken: list[torch.Tensor | None] = []
    take = spare.Spare.take
    monkeypatch.setattr(spare.Spare, "take", lambda *given: taken.append(take(*given)) or taken[-1])
    for layout in (torch.contiguous_format, torch.channels_last):
        found = model(image.contiguous(memory_format=layout), levels=4, strip_rows=64)
        torch.testing.assert_close(found, whole, atol=2e-6, rtol=0)
        assert taken and all(piece is not None for piece in taken)
        taken.clear()
        monkeypatch.setattr(spare, "_LARGE", 1)
        torch.testing.assert_close(model(image.contiguous(memory_format=layout), levels=4), whole, atol=2e-6, rtol=0)
        taken.clear()


def test_lent_memory_begins_at_pages_in_the_format_asked_for() -> None:
    lender = spare.Spare(torch.empty(4 << 20, dtype=torch.uint8))
    like = torch.empty(1, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    first, second = (lender.take(like, (1, 3, 301, 301), torch.float32) for _ in range(2))
    assert first is not None and second is not None
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert (second.data_ptr() - first.data_ptr()) % spare.PAGE == 0


def test_cut_covers_every_row_once() -> None:
    for height in (1, 7, 64, 65):
        for rows, multiple in ((1, 2), (10, 4), (100, 64)):
            pieces = list(strips.cut(height, rows, multiple))
            assert [row for piece in pieces for row in range(*piece)] == list(range(height))
            assert all(piece.begin % multiple == 0 for piece in pieces)
            assert all(piece.end - piece.begin >= rows for piece in pieces[:-1])


def test_integers_of_numpy() -> None:
    model, image = accelerate(random_model()).eval(), torch.rand(1, 3, 40, 24)
    with torch.inference_mode():
        own = model(image, levels=2, strip_rows=16)
        assert torch.equal(model(image, levels=np.int8(2), strip_rows=np.int64(16)), own)
        half = model(image, levels=2, strength=0.5, mask_threshold=0.25)
        assert torch.equal(model(image, levels=2, strength=np.float32(0.5), mask_threshold=np.float16(0.25)), half)


def test_bad_strip_rows_are_refused() -> None:
    model, image = accelerate(random_model()), torch.rand(1, 3, 8, 8)
    for bad in (0, -3, 1.5, True):
        with pytest.raises(ValueError, match="strip_rows"):
            model(image, strip_rows=bad)
    with pytest.raises(ValueError, match="strip_rows"):
        model(image, strip_rows=8, return_intermediates=True)
