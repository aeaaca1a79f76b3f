"""Quality on held-out photos, inside and outside the blemished region, always beside doing nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from abpn_fast.reference import ABPN, Retouched
from abpn_fast.reference.pixels import to_unit
from abpn_fast.training.losses import changed_region, target_pyramid
from abpn_fast.training.metrics import absolute_error, psnr, ssim
from abpn_fast.training.photos import BlemishedCrops, Crops, Pair

_SCHEDULE = (Crops(0, 384, 1), Crops(1, 512, 1), Crops(2, 768, 1))


def held_out(photos: list[list[NDArray[np.uint8]]], seed: int = 12345) -> list[Pair]:
    """Three fixed crops of every photo, one each for l = 0, 1 and 2."""
    return [
        BlemishedCrops([photo], 1, seed + index, [kind])[0] for index, photo in enumerate(photos) for kind in _SCHEDULE
    ]


@torch.no_grad()
def evaluate(model: ABPN, pairs: Sequence[Pair]) -> dict[str, float]:
    """Means over the pairs; each metric of the model is followed by the same of the untouched image, ``identity_...``.

    ``inside`` is where the pair differs by more than 0.02, ``outside`` the rest; ``better`` the share of pairs that
    the model brings closer to the target inside; ``mask_iou`` at 0.5 against the changed region of the thumbnail.
    """
    model.eval()
    rows = []
    for pair in pairs:
        image, target = to_unit(pair.image), to_unit(pair.target)
        region = changed_region(image, target)
        if not 0 < region.mean() < 1:
            continue
        output = model(image, levels=pair.levels, return_intermediates=True)
        assert isinstance(output, Retouched)
        row = _scores(output.image.clamp(0, 1), target, region)
        untouched = _scores(image, target, region)
        row["better"] = float(row["psnr_inside"] > untouched["psnr_inside"])
        row |= {f"identity_{name}": value for name, value in untouched.items()}
        if output.mask is not None:
            row["mask_iou"] = _iou(output, target, pair.levels, model.config.pyramid_filter)
        rows.append(row)
    if not rows:
        raise ValueError("no pair to evaluate: none has a changed region smaller than the image")
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _scores(result: Tensor, target: Tensor, region: Tensor) -> dict[str, float]:
    return {
        "psnr_inside": psnr(result, target, region),
        "psnr_outside": psnr(result, target, 1 - region),
        "psnr": psnr(result, target),
        "ssim": ssim(result, target),
        "mae_inside": absolute_error(result, target, region),
        "mae_outside": absolute_error(result, target, 1 - region),
    }


def _iou(output: Retouched, target: Tensor, levels: int, filter: str) -> float:
    assert output.mask is not None
    thumbnail = target_pyramid(target, levels, filter=filter)[-1]
    size = (output.mask.shape[-2], output.mask.shape[-1])
    truth = adaptive_max_pool2d(changed_region(output.pyramid[-1], thumbnail), size) > 0.5
    found = output.mask > 0.5
    union = (truth | found).sum()
    return float((truth & found).sum() / union) if union else 1.0
