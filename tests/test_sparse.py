"""Only the levels' parts around the mask, and the same bits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from abpn_fast import ABPN, ABPNConfig, accelerate, native, sparse
from abpn_fast.strips import Rows
from tests.test_model import random_model

needs_cpu_backend = pytest.mark.skipif(native.why_missing() is not None, reason=native.why_missing() or "")


def heats(kind: str, size: tuple[int, int]) -> Tensor:
    mask = torch.rand(2, 1, *size) * 0.4
    if kind == "spots":
        mask[0, 0, 1, 1] = mask[1, 0, -1, -2] = mask[0, 0, size[0] // 2, 3] = 0.9
    elif kind == "nan":
        mask[0, 0, 2, 2] = float("nan")
    elif kind == "threshold":
        mask[0, 0, 0, 0] = 0.5  # replicated at the corner: reached there, and nowhere exceeded
    elif kind == "all":
        mask += 0.6
    return mask


def masked_model(monkeypatch: pytest.MonkeyPatch, kind: str) -> ABPN:
    model = accelerate(random_model())
    retouch = model.retouch

    def with_mask(thumbnail: Tensor) -> tuple[Tensor | None, Tensor]:
        mask, low_res = retouch(thumbnail)
        assert mask is not None
        torch.manual_seed(3)
        return heats(kind, (mask.shape[2], mask.shape[3])), low_res

    monkeypatch.setattr(model, "retouch", with_mask)
    return model


@needs_cpu_backend
@pytest.mark.parametrize("kind", ["none", "spots", "nan", "threshold", "all"])
@pytest.mark.parametrize("levels", [2, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.uint16])
@torch.inference_mode()
def test_same_bits_as_dense(monkeypatch: pytest.MonkeyPatch, kind: str, levels: int, dtype: torch.dtype) -> None:
    model = masked_model(monkeypatch, kind)
    image = torch.rand(2, 3, 333, 402)
    image = image if dtype.is_floating_point else (image * torch.iinfo(dtype).max).to(dtype)
    found = model(image, levels=levels, mask_threshold=0.5)
    monkeypatch.setattr(sparse, "rectangles", lambda *_: None)
    assert torch.equal(model(image, levels=levels, mask_threshold=0.5), found)
    assert torch.equal(found, image) == (kind == "none")


@needs_cpu_backend
@torch.inference_mode()
def test_computes_only_around_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    model = masked_model(monkeypatch, "spots")
    pixels: list[int] = []
    whole = sparse.ops.upsample_refine

    def counted(blend_low: Tensor, image: Tensor, *others: Tensor) -> Tensor:
        pixels.append(image.shape[-2] * image.shape[-1])
        return whole(blend_low, image, *others)

    monkeypatch.setattr(sparse.ops, "upsample_refine", counted)
    model(torch.rand(2, 3, 1024, 1024), levels=2, mask_threshold=0.5)
    assert len(pixels) >= 3
    assert sum(pixels) < 0.05 * 512 * 512


@pytest.mark.parametrize("seed", range(20))
def test_rectangles_cover_what_is_needed_once(seed: int) -> None:
    torch.manual_seed(seed)
    mask = (torch.rand(1, 1, 40, 57) > 0.995).float()
    parts = sparse.rectangles(mask, 0.5)
    assert parts is not None
    covered = torch.zeros(40, 57)
    for part in parts:
        part.of(covered).add_(1)
    assert covered.max() <= 1
    for y, x in mask[0, 0].nonzero().tolist():
        assert covered[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].min() == 1


def test_no_rectangles_for_nothing_or_everything() -> None:
    assert sparse.rectangles(torch.zeros(1, 1, 9, 9), 0.5) == []
    assert sparse.rectangles(torch.ones(1, 1, 9, 9), 0.5) is None
    assert sparse.rectangles(torch.ones(0, 1, 9, 9), 0.5) is None
    assert sparse.rectangles(torch.full((1, 1, 30, 30), 0.5), 0.5) is None
    # Between such cells, rounding may reach the threshold.
    assert sparse.rectangles(torch.full((1, 1, 30, 30), 0.4999999), 0.5) is None
    lone = torch.zeros(1, 1, 30, 30)
    lone[0, 0, 0, 29] = float("nan")
    assert sparse.rectangles(lone, 0.5) == [sparse.Rectangle(Rows(0, 2), Rows(28, 30))]


def test_no_rectangles_where_they_are_too_many() -> None:
    mask = torch.zeros(1, 1, 4 * 17, 4 * 17)
    mask[..., ::4, ::4] = 1
    assert len(sparse.rectangles(mask[..., :64, :64], 0.5) or ()) == 256
    assert sparse.rectangles(mask, 0.5) is None


@torch.inference_mode()
def test_bfloat16_and_one_module_per_level() -> None:
    model = ABPN(ABPNConfig.preset("small")).eval().to(torch.bfloat16)
    image = torch.rand(1, 3, 200, 300).to(torch.bfloat16)
    assert model(image, levels=3, mask_threshold=2.0).equal(image)


@torch.inference_mode()
def test_no_image() -> None:
    model, image = accelerate(random_model()), torch.rand(0, 3, 33, 40)
    assert model(image, levels=2, mask_threshold=0.5).equal(image)
