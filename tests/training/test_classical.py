from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
import torch

from abpn_fast.training import classical


def photo(levels: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Grey with one dark dot of a thumbnail pixel, and a mask around it at a quarter of the thumbnail."""
    scale = 2**levels
    image = torch.full((1, 3, 32 * scale, 32 * scale), 0.6)
    image[..., 16 * scale : 17 * scale, 16 * scale : 17 * scale] = 0.2
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 3:6, 3:6] = 1
    return image, mask


@pytest.mark.parametrize("levels", [0, 1, 2])
@pytest.mark.parametrize("name", ["median", "telea", "navier_stokes", "telea_told"])
def test_a_dot_goes(name: str, levels: int) -> None:
    pytest.importorskip("cv2")
    image, mask = photo(levels)
    result = classical.methods()[name](image, mask, levels)
    assert result.shape == image.shape and result.dtype == image.dtype
    # Of its contrast of 0.4 at most 5 % stays: inpainting truncates to whole grey levels.
    assert (result - 0.6).abs().max() < 0.02


def test_a_mask_is_cut_at_one_half() -> None:
    shown = classical.Method(lambda photo, mask, scale: np.broadcast_to(mask[..., None], photo.shape), "model")
    for level, cut in ((0.4, 0.0), (0.6, 1.0)):
        assert (shown(photo()[0], torch.full((1, 1, 8, 8), level), 0) == cut).all()


def test_what_each_method_leaves_alone() -> None:
    pytest.importorskip("cv2")
    methods = classical.methods()
    mask = photo()[1]
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), np.uint8)) / 255
    for name in ("telea", "navier_stokes"):
        assert methods[name].mask == "model"
        assert torch.equal(methods[name](noise, torch.zeros_like(mask), 0), noise)
        kept = methods[name](noise, mask, 0) == noise
        assert kept[..., :8, :].all() and not kept[..., 14:20, 14:20].all()
    # A bilateral filter keeps an edge of 100 levels and calms noise of a few.
    calm = torch.where(torch.arange(32) < 16, 0.3, 0.7).expand(1, 3, 32, 32) + 0.02 * (noise - 0.5)
    result = methods["bilateral"](calm, torch.zeros_like(mask), 0)
    assert result[..., :12].std() < 0.5 * calm[..., :12].std()
    assert (result[..., 20:].mean() - result[..., :12].mean()).item() == pytest.approx(0.4, abs=0.01)


def test_a_batch() -> None:
    pytest.importorskip("cv2")
    images = torch.cat([photo()[0], 1 - photo()[0]])
    masks = torch.cat([photo()[1]] * 2)
    method = classical.methods()["telea"]
    one_by_one = [method(images[n : n + 1], masks[n : n + 1], 0) for n in range(2)]
    assert torch.equal(method(images, masks, 0), torch.cat(one_by_one))


def test_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "cv2":
            raise ModuleNotFoundError("No module named 'cv2'", name="cv2")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(RuntimeError, match=r"a comparison needs OpenCV; pip install 'abpn-fast\[compare\]'"):
        classical.methods()
