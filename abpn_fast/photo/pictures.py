"""What a pass of the network computed besides its result, as pictures."""

from __future__ import annotations

from PIL import Image

from abpn_fast.reference import Retouched, mask_scale, upsample


def mask_picture(output: Retouched) -> Image.Image:
    """The mask M of one image, upsampled to its size, mode L: black is 0, white is 1.

    Raises:
        ValueError: there is none.
    """
    if output.mask is None:
        raise ValueError("the model predicts no mask; use one with mask_branch=True")
    size = (output.image.shape[-2], output.image.shape[-1])
    scale = mask_scale(size, (output.mask.shape[-2], output.mask.shape[-1]))
    assert scale is not None
    mask = upsample(output.mask.float(), size, scale)
    return Image.fromarray(mask[0, 0].mul(255).round().clamp(0, 255).byte().cpu().numpy())


def blend_picture(output: Retouched) -> Image.Image:
    """B_0 of one image as RGB, ``255 (B + 1/2)`` clamped: 0 is mid grey, as in a soft-light layer of a photo editor."""
    blend = output.blend_layers[0][0].float().add(0.5).mul_(255).round_().clamp_(0, 255)
    return Image.fromarray(blend.byte().permute(1, 2, 0).contiguous().cpu().numpy())
