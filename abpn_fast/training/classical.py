"""What one would do without a trained network: filters of OpenCV, as methods to compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

Pixels = NDArray[np.uint8]


class Method(NamedTuple):
    """A way to retouch without weights of its own.

    Args:
        run: ``(photo, mask, scale)``: (H, W, 3) uint8, (H, W) uint8 that is 0 or 255, pixels of the photo per pixel of
            the thumbnail; returns (H, W, 3) uint8.
        mask: ``"model"``: the model's, cut at 0.5; ``"truth"``: where the pair differs, which nobody knows but here;
            None for an empty one.
    """

    run: Callable[[Pixels, Pixels, int], Any]
    mask: Literal["model", "truth"] | None

    def __call__(self, image: Tensor, mask: Tensor, levels: int) -> Tensor:
        """The result for an (N, 3, H, W) image in [0, 1] and an (N, 1, h, w) mask of any size, in the image's dtype."""
        size = (image.shape[-2], image.shape[-1])
        wide = interpolate(mask.float(), size, mode="bilinear")
        photos = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        masks = ((wide[:, 0] > 0.5) * 255).to(torch.uint8).cpu().numpy()
        results = [self.run(np.ascontiguousarray(p), m, 2**levels) for p, m in zip(photos, masks, strict=True)]
        return torch.from_numpy(np.stack(results)).permute(0, 3, 1, 2).to(image) / 255


def methods() -> dict[str, Method]:
    """Median and bilateral filter, without a mask, and Telea's and the Navier-Stokes inpainting, under the model's.

    Telea's is there once more, ``telea_told``, under the true one: what finding every blemish would be worth to it.

    Sizes grow with the thumbnail's pixel, as blemishes do: a median over 5 of them, a bilateral filter of sigma 2 of
    them and 25 of 255 grey levels, inpainting from 3 of them around.

    Raises:
        RuntimeError: OpenCV is not installed.
    """
    try:
        import cv2
    except ModuleNotFoundError:
        raise RuntimeError("a comparison needs OpenCV; pip install 'abpn-fast[compare]'") from None

    def inpainting(algorithm: int) -> Callable[[Pixels, Pixels, int], Any]:
        return lambda photo, mask, scale: cv2.inpaint(photo, mask, 3 * scale, algorithm)

    return {
        "median": Method(lambda photo, _, scale: cv2.medianBlur(photo, 4 * scale + 1), None),
        "bilateral": Method(lambda photo, _, scale: cv2.bilateralFilter(photo, -1, 25, 2 * scale), None),
        "telea": Method(inpainting(cv2.INPAINT_TELEA), "model"),
        "navier_stokes": Method(inpainting(cv2.INPAINT_NS), "model"),
        "telea_told": Method(inpainting(cv2.INPAINT_TELEA), "truth"),
    }
