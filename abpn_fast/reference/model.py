"""The whole network (Fig. 3) in plain PyTorch: the page to hold beside the paper."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from abpn_fast.config import ABPNConfig
from abpn_fast.reference.arguments import integer, number
from abpn_fast.reference.blending import ConvBlend, PolynomialBlend
from abpn_fast.reference.encoder import MutualEncoder
from abpn_fast.reference.laplacian_decompose import laplacian_decompose
from abpn_fast.reference.mask_branch import MaskPredictionBranch
from abpn_fast.reference.pixels import WHITE, to_pixels, to_unit
from abpn_fast.reference.refining import RefiningModule
from abpn_fast.reference.retouching_branch import LocalRetouchingBranch
from abpn_fast.reference.upsample import upsample
from abpn_fast.reference.upsample_refine_blend import keep_below

# Where two threads meet in the first `tanh` of a process, one may get it in low precision (PyTorch issue 188792).
for _dtype in (torch.float32, torch.float64):
    torch.zeros(1, dtype=_dtype, device="cpu").tanh()


class Retouched(NamedTuple):
    """What one pass computes.

    Args:
        image: R_0, (N, 3, H, W), dtype of the input.
        mask: M, (N, 1, ceil(h_l / 4), ceil(w_l / 4)) in [0, 1] for an I_l of (h_l, w_l); None without a mask branch.
        low_res: R_l, (N, 3, h_l, w_l).
        blend_layers: ``[B_0, ..., B_l]``.
        pyramid: ``[I_0, ..., I_l]``; I_0 is the input.
    """

    image: Tensor
    mask: Tensor | None
    low_res: Tensor
    blend_layers: list[Tensor]
    pyramid: list[Tensor]


def default_levels(height: int, width: int) -> int:
    """``l = max(1, round(log2(max(H, W) / 256)))``: the thumbnail is about 256 pixels long, as in Table 3."""
    if min(height, width) < 1:
        raise ValueError(f"height and width must be at least 1, got {height} and {width}")
    return max(1, round(math.log2(max(height, width) / 256)))


_MOST_LEVELS = 32


def check_levels(levels: int | None, height: int, width: int, config: ABPNConfig) -> int:
    """``levels``, or the default; refused unless an integer from 0 to 32, where any picture is one pixel."""
    if levels is None:
        levels = default_levels(height, width)
    else:
        levels = integer("levels", levels, 0, _MOST_LEVELS, optional=True)
    if config.refining and levels > (config.refining_levels or levels):
        raise ValueError(
            f"levels must be at most {config.refining_levels}, one refining module each, got {levels}; "
            "pass a smaller levels or configure refining_levels"
        )
    return levels


def as_config(config: ABPNConfig | str) -> ABPNConfig:
    """``config``, or the preset of that name."""
    config = ABPNConfig.preset(config) if isinstance(config, str) else config
    if not isinstance(config, ABPNConfig):
        raise TypeError(f"config must be an ABPNConfig or the name of a preset, got {config!r}")
    return config


class ABPN(nn.Module):
    """Adaptive Blend Pyramid Network.

    Args:
        config: the options, or the name of a preset, ``"base"``, ``"medium"`` or ``"small"``.
    """

    def __init__(self, config: ABPNConfig | str = "base") -> None:
        """A model with fresh weights, in training mode."""
        super().__init__()
        config = as_config(config)
        self.config = config
        self.encoder = MutualEncoder(config.encoder_widths)
        self.mask_branch = MaskPredictionBranch(config.encoder_widths) if config.mask_branch else None
        self.retouching_branch = LocalRetouchingBranch(config)
        self.blend = ConvBlend() if config.blend == "conv" else PolynomialBlend(config)
        self.refining = nn.ModuleList(RefiningModule() for _ in range((config.refining_levels or 1) * config.refining))

    def forward(
        self,
        image: Tensor,
        *,
        levels: int | None = None,
        strength: float = 1.0,
        mask_threshold: float | None = None,
        self_ensemble: bool = False,
        return_intermediates: bool = False,
    ) -> Tensor | Retouched:
        """Retouch ``image``.

        Args:
            image: I_0, (N, 3, H, W), sRGB in [0, 1] in the dtype of the parameters, uint8 or uint16.
            levels: l, how often the image is halved before the retouching layer; None for ``default_levels``.
            strength: scales B_0; 0 returns the image, 1 the full retouch.
            mask_threshold: where the mask, upsampled to the image, is below it, the pixels of ``image`` stay.
            self_ensemble: take the mean of what the retouching layer makes of I_l and of its three mirror images.
            return_intermediates: return all of ``Retouched`` instead of R_0.

        Returns:
            R_0 in the dtype of ``image``, or ``Retouched``.
        """
        levels, strength, mask_threshold = self.check(image, levels, strength, mask_threshold)
        gaussian, high = laplacian_decompose(self.unit(image), levels, filter=self.config.pyramid_filter)
        mask, low_res = (self.retouch_mirrored if self_ensemble else self.retouch)(gaussian[levels])
        blend_layers = [self.blend.reverse(gaussian[levels], low_res)]
        for i in reversed(range(levels)):
            up = upsample(blend_layers[0], (high[i].shape[-2], high[i].shape[-1]))
            blend_layers.insert(0, self.refining_at(i)(up, high[i]) if self.config.refining else up)
        result = self.apply_blend(gaussian[0], blend_layers[0], strength)
        result = to_pixels(result, image.dtype)
        if mask_threshold is not None and mask is not None:
            result = keep_below(image, result, mask, mask_threshold)
        gaussian[0] = image
        return Retouched(result, mask, low_res, blend_layers, gaussian) if return_intermediates else result

    def retouch(self, thumbnail: Tensor) -> tuple[Tensor | None, Tensor]:
        """The local retouching layer, LRL: ``(M, R_l)`` from I_l, (N, 3, h, w)."""
        height, width = thumbnail.shape[-2:]
        mask, x = self.branches(self.encoder(2 * padded(thumbnail) - 1))
        delta = torch.tanh(x)[..., :height, :width]
        low_res = thumbnail + delta if self.config.output == "residual" else (delta + 1) / 2
        return (None if mask is None else mask[..., : (height + 3) // 4, : (width + 3) // 4]), low_res

    def retouch_mirrored(self, thumbnail: Tensor) -> tuple[Tensor | None, Tensor]:
        """The mean of :meth:`retouch` over four mirror images, the self-ensemble of EDSR (Lim et al., CVPRW 2017)."""
        height, width = thumbnail.shape[-2:]
        # Mirrored with what pads it: a cell of the mask is then of the same pixels in all four.
        whole = padded(thumbnail)
        found = [self._retouch_flipped(whole, axes) for axes in ((), (3,), (2,), (2, 3))]
        masks = [mask for mask, _ in found if mask is not None]
        mask = torch.stack(masks).mean(0)[..., : (height + 3) // 4, : (width + 3) // 4] if masks else None
        return mask, torch.stack([low_res for _, low_res in found]).mean(0)[..., :height, :width]

    def _retouch_flipped(self, thumbnail: Tensor, axes: tuple[int, ...]) -> tuple[Tensor | None, Tensor]:
        mask, low_res = self.retouch(thumbnail.flip(axes))
        return None if mask is None else mask.flip(axes), low_res.flip(axes)

    def branches(self, features: list[Tensor]) -> tuple[Tensor | None, Tensor]:
        """M, and what the retouching branch makes of it and the encoder's seven features, not yet mapped to pixels."""
        mask = None if self.mask_branch is None else self.mask_branch(features)
        return mask, self.retouching_branch(features, mask)

    def refining_at(self, level: int) -> nn.Module:
        """The refining module of level ``i``."""
        return self.refining[0 if self.config.refining_levels is None else level]

    def apply_blend(self, image: Tensor, blend: Tensor, strength: float) -> Tensor:
        """R_i from I_i and B_i."""
        adaptive = isinstance(self.blend, PolynomialBlend)
        result: Tensor = self.blend(image, blend, strength) if adaptive else self.blend(image, blend)
        return result

    def unit(self, image: Tensor) -> Tensor:
        """``image`` as the network computes with it: in the dtype of the parameters, white at 1."""
        return to_unit(image, self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters."""
        return next(self.parameters()).dtype

    def check(
        self, image: Tensor, levels: int | None, strength: float, mask_threshold: float | None
    ) -> tuple[int, float, float | None]:
        """The number of levels, strength and threshold, of Python's types.

        Raises:
            ValueError, TypeError: an argument does not fit the model; the message names it.
            RuntimeError: this is a replica of ``DataParallel``.
        """
        if not isinstance(image, Tensor):
            raise TypeError(f"image must be a tensor of shape (N, 3, H, W), got {type(image).__name__}")
        if image.layout != torch.strided:
            raise TypeError(f"image must be a dense tensor, got {image.layout}; convert it with .to_dense()")
        if image.dim() != 4 or image.shape[1] != 3 or 0 in image.shape[2:]:
            raise ValueError(f"image must have shape (N, 3, H, W) with H, W >= 1, got {tuple(image.shape)}")
        parameter = next(self.parameters(), None)
        if parameter is None:
            raise RuntimeError(
                "a replica of torch.nn.DataParallel has no parameters of its own; use DistributedDataParallel"
            )
        if image.dtype not in (*WHITE, parameter.dtype):
            raise TypeError(
                f"image must be uint8, uint16 or {parameter.dtype}, the model's dtype, got {image.dtype}; "
                "convert one of them"
            )
        if image.device != parameter.device:
            raise ValueError(
                f"image must be on {parameter.device}, the model's device, got {image.device}; move one of them"
            )
        levels = check_levels(levels, image.shape[2], image.shape[3], self.config)
        strength = number("strength", strength)
        if mask_threshold is not None:
            mask_threshold = number("mask_threshold", mask_threshold)
        if strength != 1 and self.config.blend in ("conv", "rgb"):
            raise ValueError(
                f"strength must be 1 with blend={self.config.blend!r}, which has no neutral layer to scale from"
            )
        if mask_threshold is not None and not self.config.mask_branch:
            raise ValueError("mask_threshold needs a model with mask_branch=True")
        return levels, strength, mask_threshold


def padded(thumbnail: Tensor) -> Tensor:
    """Both sides raised to multiples of 64, six halvings of the encoder, by repeating the last row and column."""
    # Not `-side % 64`, which torch.compile has no code for where sizes vary.
    down, right = ((side + 63) // 64 * 64 - side for side in thumbnail.shape[-2:])
    return pad(thumbnail, (0, right, 0, down), mode="replicate") if down or right else thumbnail
