"""A photo: its pixels, and what its file says besides."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from abpn_fast.photo.codecs import Samples
from abpn_fast.photo.tiff import UNASSOCIATED

# Of ITU-R 601, as Pillow has them; their sum is 65536.
_LUMA = np.array([19595, 38470, 7471], np.uint32)


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo, upright, in its own colour space.

    Args:
        pixels: (H, W, 3) uint8 or uint16, sRGB-encoded; a grey photo has three equal channels.
        alpha: (H, W) in the same dtype, or None.
        grey: whether the file has one colour channel, and the result shall.
        exif, icc, xmp: the blocks of the file, for an upright photo, or None.
        dpi: horizontal and vertical, or None.
        segments: comments, captions and extended XMP, ready to write into a JPEG file.
        chunks: texts, captions and colour description, for a PNG file.
        captions: Photoshop's resources and the IPTC caption, by their tags in a TIFF file.
        alpha_kind: as TIFF's ExtraSamples says: 2 for transparency, 1 if the pixels are multiplied by it, 0 for a
            channel of another kind.
    """

    pixels: Samples
    alpha: Samples | None = None
    grey: bool = False
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    segments: bytes = b""
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    captions: tuple[tuple[int, bytes], ...] = ()
    alpha_kind: int = UNASSOCIATED

    def samples(self, pixels: Samples) -> Samples:
        """``pixels``, (H, W, 3), in the channels of this photo: grey or RGB, then its alpha."""
        if self.grey:
            luma = np.einsum("hwc,c->hw", pixels, _LUMA, dtype=np.uint32, casting="unsafe")
            pixels = ((luma + 0x8000) >> 16).astype(pixels.dtype)[..., None]
        return pixels if self.alpha is None else np.dstack((pixels, self.alpha))

    def picture(self, pixels: Samples) -> Image.Image:
        """``pixels``, (H, W, 3), rounded to 8 bits, in the mode of this photo: L, LA, RGB or RGBA, with its alpha."""
        samples = self.samples(pixels)
        if samples.dtype == np.uint16:
            samples = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
