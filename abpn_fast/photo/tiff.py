"""TIFF files of 8 and 16 bits, to be read: what they are, and their pixels exactly as they lie."""

from __future__ import annotations

import numpy as np

from abpn_fast.photo.codecs import Samples, Unsuitable, decode_tiff
from abpn_fast.photo.directories import Directory, Tagged, numbers
from abpn_fast.photo.tiff_tags import Tag, dots_per_inch, exif_block

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# What ExtraSamples calls a channel besides the colours.
UNSPECIFIED, PREMULTIPLIED, UNASSOCIATED = 0, 1, 2

DEFLATE = 8
# Without loss: none, LZW, Deflate by its two numbers, PackBits.
_LOSSLESS = (1, 5, DEFLATE, 32946, 32773)
_COMPRESSIONS = {6: "JPEG", 7: "JPEG", 34892: "JPEG", 50000: "Zstandard", 50001: "WebP"}
_WHITE_IS_0, BLACK_IS_0, RGB = 0, 1, 2
_COLOURS = {3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "Lab", 9: "Lab", 10: "Lab", 32803: "raw", 34892: "raw"}
# In pixels, unless the picture is larger.
_LARGEST_TILE = 2**24


class Page:
    """The one full-size picture of a TIFF file, its pixels not yet decoded.

    Raises:
        Unsuitable: there is not one, or it is not of 8 or 16 bits, RGB or grey, with at most one channel more.
        ValueError: the file is damaged.
    """

    def __init__(self, data: bytes) -> None:
        self.file = Tagged(data)
        self._index, self._at, self.tags = _full_page(self.file)
        self.width, self.height = self._number(Tag.WIDTH), self._number(Tag.HEIGHT)
        self.photometric, self.channels = self._number(Tag.PHOTOMETRIC), self._number(Tag.CHANNELS, 1)
        self._check()

    @property
    def alpha_kind(self) -> int:
        """What the channel besides the colours is, as ExtraSamples says."""
        kind = self._number(Tag.EXTRA, UNSPECIFIED)
        return kind if kind in (PREMULTIPLIED, UNASSOCIATED) else UNSPECIFIED

    def content(self, number: int) -> bytes:
        """The bytes of a tag; none where it is absent."""
        content = self.tags[number].content if number in self.tags else b""
        assert isinstance(content, bytes)
        return content

    def exif(self) -> bytes:
        """All that does not say how the pixels lie, as an EXIF block; empty where there is nothing."""
        return exif_block(self.file, self._at)

    def dpi(self) -> tuple[float, float] | None:
        """Horizontal and vertical resolution."""
        return dots_per_inch(self.tags, self.file.order)

    def samples(self) -> Samples:
        """The pixels, (H, W, C): grey or RGB, black at 0, then what channel there is besides.

        Raises:
            Unsuitable: imagecodecs is not installed.
            ValueError: the file is damaged.
        """
        samples = decode_tiff(self.file.data, self._index, self._number(Tag.PLANAR, 1) == 2)
        if samples.shape != (self.height, self.width, self.channels):
            raise ValueError(f"its pixels are {samples.shape}")
        if self.photometric == _WHITE_IS_0:
            np.invert(samples[..., 0], out=samples[..., 0])
        return samples

    def _numbers(self, number: int, *otherwise: int) -> tuple[int, ...]:
        if number in self.tags:
            return numbers(self.tags[number], self.file.order)
        if not otherwise:
            raise ValueError(f"it has no tag {number}")
        return otherwise

    def _number(self, number: int, *otherwise: int) -> int:
        return self._numbers(number, *otherwise)[0]

    def _check(self) -> None:
        colours = 3 if self.photometric == RGB else 1
        bits, formats = (set(self._numbers(number, 1)) for number in (Tag.BITS, Tag.SAMPLE_FORMAT))
        if self.photometric not in (_WHITE_IS_0, BLACK_IS_0, RGB):
            kind = _COLOURS.get(self.photometric, f"photometric {self.photometric}")
            raise Unsuitable(f"is a {kind} picture; convert it to RGB with its colour profile first")
        if formats & {2, 3}:
            kind = "floating-point" if 3 in formats else "signed"
            raise Unsuitable(f"has {kind} numbers; save it with 8 or 16 bits per channel, unsigned")
        if bits not in ({8}, {16}):
            raise Unsuitable(f"has {max(bits)} bits per channel; save it with 8 or 16")
        if self.channels not in (colours, colours + 1):
            raise Unsuitable(f"has {self.channels} channels; save it as grey or RGB with at most one channel more")
        compression = self._number(Tag.COMPRESSION, 1)
        if compression not in _LOSSLESS:
            kind = _COMPRESSIONS.get(compression, f"method {compression}")
            raise Unsuitable(f"is compressed by {kind}; save it with LZW, Deflate (ZIP) or no compression")
        if self._number(Tag.PREDICTOR, 1) not in (1, 2) or self._number(Tag.FILL_ORDER, 1) != 1:
            raise Unsuitable("has a predictor or an order of bits that is not read; save it without compression")
        if self.width * self.height == 0:
            raise ValueError("it has no pixels")
        # Memory is taken for whole tiles.
        tile = self._number(Tag.TILE_WIDTH, 1) * self._number(Tag.TILE_HEIGHT, 1)
        if not 0 < tile <= max(self.width * self.height, _LARGEST_TILE):
            raise ValueError(f"it has tiles of {tile / 1e6:.0f} megapixels")


def _full_page(file: Tagged) -> tuple[int, int, Directory]:
    """Which of the pages it is, where it is and its tags."""
    at, seen, found = file.first, list[int](), None
    while at and at not in seen:
        tags, following = file.directory(at)
        if Tag.DNG in tags:
            raise Unsuitable("is a camera's raw file; develop it into a TIFF file first")
        # Bit 0, and 2 in the older tag, say that it is a small version of another.
        small = [numbers(tags[tag], file.order)[0] if tag in tags else 0 for tag in (Tag.NEW_SUBFILE, Tag.OLD_SUBFILE)]
        if not small[0] & 1 and small[1] != 2:
            if found is not None:
                raise Unsuitable("has several pages; save the one to retouch by itself")
            found = len(seen), at, tags
        seen.append(at)
        at = following
    if found is None:
        raise Unsuitable("has only reduced pictures, as a camera's raw file has; develop it into a TIFF file first")
    return found
