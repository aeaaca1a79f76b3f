"""The expansion of the blend layer alone, as the model runs it: without the retouching layer and the image pyramid."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import abpn_fast
from abpn_fast import ops, reference, sparse
from bench import images, networks

# 2 (6 * 16 + 16 * 3) * 9, of both convolutions computed directly; nothing else is counted.
FLOPS_PER_PIXEL = 2592
THRESHOLD = 0.5


class Pyramid:
    """Everything that the expansion needs, ready.

    Args:
        height, width: of the photo.
        dtype: of the image; the layers are float32 where it is uint8.
        device: where.
    """

    def __init__(self, height: int, width: int, dtype: torch.dtype, device: str = "cpu") -> None:
        self.model = abpn_fast.accelerate(networks.network("small"))
        working = torch.float32 if dtype == torch.uint8 else dtype
        self.model = self.model.to(device=device, dtype=working)
        self.image = images.photo(height, width, dtype).to(device)
        self.levels = reference.default_levels(height, width)
        self.gaussian = [self.image]
        for _ in range(self.levels):
            target = self._empty_half(self.gaussian[-1], working)
            self.gaussian.append(ops.pyramid_down(self.gaussian[-1], out=target))
        self.mask, self.low_res = self.model.retouch(self.gaussian[-1])
        self.coefficients: tuple[Tensor, Tensor] = (self.model.blend.j, self.model.blend.k)  # type: ignore[assignment]
        self.layer = ops.reverse_adaptive_blend(self.gaussian[-1], self.low_res, *self.coefficients)

    @property
    def flops(self) -> float:
        """Of all levels."""
        return FLOPS_PER_PIXEL * sum(level.shape[2] * level.shape[3] for level in self.gaussian[:-1])

    def expand(self, out: Sequence[Tensor] | None = None) -> Tensor:
        """R_0; ``out`` from ``results`` to write where memory already is."""
        return self.finest(self.coarser(out), out=None if out is None else out[0])

    def coarser(self, out: Sequence[Tensor] | None = None) -> Tensor:
        """B_1."""
        layer = self.layer
        for i in reversed(range(1, self.levels)):
            finer, coarser, target = self.gaussian[i], self.gaussian[i + 1], None if out is None else out[i]
            layer = ops.upsample_refine(layer, finer, coarser, *self.weights, out=target)
        return layer

    def expand_masked(self, mask: Tensor, out: Sequence[Tensor]) -> Tensor:
        """R_0 with the photo's pixels where ``mask`` is below ``THRESHOLD``, other levels as the model makes them."""
        parts = sparse.rectangles(mask, THRESHOLD)
        if parts is None:
            layer = self.coarser(out)
        else:
            layer = sparse.expand(self.gaussian, self.layer, parts, lambda _: self.weights)
        return self.finest(layer, mask=mask, mask_threshold=THRESHOLD, out=out[0])

    def results(self) -> list[Tensor]:
        """R_0, B_1, ..., B_{l-1} to be written."""
        return [torch.zeros_like(level) for level in self.gaussian[:-1]]

    def finest(self, layer: Tensor, **options: Any) -> Tensor:
        """R_0 from B_1."""
        return ops.upsample_refine_blend(
            layer, self.image, self.gaussian[1], *self.weights, *self.coefficients, **options
        )

    def masked(self, mask: Tensor | None) -> Tensor:
        """The model's own pass with the retouching layer's answer given, the mask among it; None for dense."""
        answer = (self.mask if mask is None else mask), self.low_res
        with mock.patch.object(self.model, "retouch", return_value=answer):
            result: Tensor = self.model(self.image, mask_threshold=None if mask is None else THRESHOLD)
        return result

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the refining module."""
        weights: tuple[Tensor, Tensor, Tensor, Tensor] = self.model.refining[0].weights  # type: ignore[assignment]
        return weights

    @staticmethod
    def _empty_half(finer: Tensor, dtype: torch.dtype) -> Tensor:
        height, width = (-(-side // 2) for side in finer.shape[2:])
        return torch.empty(*finer.shape[:2], height, width, dtype=dtype, device=finer.device)


@functools.lru_cache(maxsize=1)
def pyramid(height: int, width: int, dtype: torch.dtype) -> Pyramid:
    """The same one for tests that follow each other."""
    return Pyramid(height, width, dtype)


def region_mask(like: Tensor, coverage: float) -> Tensor:
    """Zeros and ones of the shape of ``like``, the ones in three squares that cover the share of it."""
    mask = torch.zeros_like(like)
    height, width = mask.shape[2:]
    if coverage >= 1:
        return mask.fill_(1)
    side = round((coverage * height * width / 3) ** 0.5)
    for y, x in ((0.2, 0.25), (0.45, 0.7), (0.8, 0.4)):
        top, left = (min(max(round(at * size) - side // 2, 0), size - side) for at, size in ((y, height), (x, width)))
        mask[..., top : top + side, left : left + side] = 1
    return mask
