"""TIFF files of 8 and 16 bits, read: the pixels exactly as they lie.

Neither Pillow nor OpenCV does that: one knows no 16 bits of colour and divides by alpha, the other misreads planes,
grey with alpha and inverted grey of 16 bits.
"""

from __future__ import annotations

import io
import itertools
import math
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

from abpn_fast.photo.directories import Directory, Tagged, header, number_value, numbers, pack
from abpn_fast.photo.tiff_tags import Tag, dots_per_inch, exif_block

Samples = NDArray[np.uint8 | np.uint16]

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# What ExtraSamples calls a channel besides the colours.
UNSPECIFIED, PREMULTIPLIED, UNASSOCIATED = 0, 1, 2

_NONE, _LZW, DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 8, 32946, 32773
_COMPRESSIONS = {6: "JPEG", 7: "JPEG", 34892: "JPEG", 50000: "Zstandard", 50001: "WebP"}
_WHITE_IS_0, BLACK_IS_0, RGB = 0, 1, 2
_COLOURS = {3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "Lab", 9: "Lab", 10: "Lab", 32803: "raw", 34892: "raw"}
# In bytes; Pillow takes longer ones for an attack.
_LONGEST_FOR_PILLOW = 89_000_000
# In pixels, unless the picture is larger.
_LARGEST_TILE = 2**24


class Unsuitable(ValueError):
    """A file that is whole and cannot be retouched; the message continues after its name."""


class Page:
    """The one full-size picture of a TIFF file, its pixels not yet decoded.

    Raises:
        Unsuitable: there is not one, or it is not of 8 or 16 bits, RGB or grey, with at most one channel more.
        ValueError: the file is damaged.
    """

    def __init__(self, data: bytes) -> None:
        self.file = Tagged(data)
        self._at, self.tags = _full_page(self.file)
        self.width, self.height = self._number(Tag.WIDTH), self._number(Tag.HEIGHT)
        self.photometric, self.compression = self._number(Tag.PHOTOMETRIC), self._number(Tag.COMPRESSION, _NONE)
        self.channels, self.planar = self._number(Tag.CHANNELS, 1), self._number(Tag.PLANAR, 1) == 2
        self._check()
        self._dtype = np.dtype(np.uint8 if self._number(Tag.BITS) == 8 else np.uint16)

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
            Unsuitable: a strip is too long for the decoder.
            ValueError, OSError, zlib.error: the file is damaged.
        """
        tiled = Tag.TILE_OFFSETS in self.tags
        width, height = self._tile() if tiled else (self.width, self._strip())
        planes = self.channels if self.planar else 1
        depth = self.channels // planes
        corners = itertools.product(range(planes), range(0, self.height, height), range(0, self.width, width))
        positions = self._positions(
            *((Tag.TILE_OFFSETS, Tag.TILE_COUNTS) if tiled else (Tag.STRIP_OFFSETS, Tag.STRIP_COUNTS))
        )
        samples = np.empty((self.height, self.width, self.channels), self._dtype)
        for plane, top, left in corners:
            rows = height if tiled else min(height, self.height - top)
            block = self._decoded(next(positions, None), (rows, width, depth))
            area = samples[top : top + height, left : left + width, plane * depth : plane * depth + depth]
            area[:] = block[: area.shape[0], : area.shape[1]]
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
        if self.compression not in (_NONE, _LZW, DEFLATE, _OLD_DEFLATE, _PACKBITS):
            kind = _COMPRESSIONS.get(self.compression, f"method {self.compression}")
            raise Unsuitable(f"is compressed by {kind}; save it with LZW, Deflate (ZIP) or no compression")
        if self._number(Tag.PREDICTOR, 1) not in (1, 2) or self._number(Tag.FILL_ORDER, 1) != 1:
            raise Unsuitable("has a predictor or an order of bits that is not read; save it without compression")
        if self.width * self.height == 0:
            raise ValueError("it has no pixels")

    def _strip(self) -> int:
        rows = min(self._number(Tag.STRIP_ROWS, self.height), self.height)
        if rows == 0:
            raise ValueError("it has strips of no rows")
        return rows

    def _tile(self) -> tuple[int, int]:
        width, height = self._number(Tag.TILE_WIDTH), self._number(Tag.TILE_HEIGHT)
        if not 0 < width * height <= max(self.width * self.height, _LARGEST_TILE):
            raise ValueError(f"it has tiles of {width} x {height} pixels")
        return width, height

    def _positions(self, offsets: int, counts: int) -> Iterator[tuple[int, int]]:
        """Where each strip or tile begins, and its length, which one that is not compressed may lack."""
        begins = self._numbers(offsets)
        return zip(begins, self._numbers(counts, *(begins if self.compression == _NONE else ())), strict=False)

    def _decoded(self, position: tuple[int, int] | None, shape: tuple[int, int, int]) -> Samples:
        size = math.prod(shape) * self._dtype.itemsize
        offset, length = position or (len(self.file.data), 1)
        end = offset + (size if self.compression == _NONE else length)
        if end > len(self.file.data):
            raise ValueError("it is cut off")
        raw = _unpacked(memoryview(self.file.data)[offset:end], self.compression, size, shape[0])
        if len(raw) < size:
            raise ValueError("a strip or tile of it is too short")
        stored = f"{self.file.order}u{self._dtype.itemsize}"
        block = np.frombuffer(raw, stored, math.prod(shape)).reshape(shape)
        if self._number(Tag.PREDICTOR, 1) == 1 or self.compression in (_NONE, _PACKBITS):
            return block
        return np.add.accumulate(block, axis=1, dtype=self._dtype)


def _full_page(file: Tagged) -> tuple[int, Directory]:
    at, seen, found = file.first, set(), None
    while at and at not in seen:
        seen.add(at)
        tags, following = file.directory(at)
        if Tag.DNG in tags:
            raise Unsuitable("is a camera's raw file; develop it into a TIFF file first")
        # Bit 0, and 2 in the older tag, say that it is a small version of another.
        small = [numbers(tags[tag], file.order)[0] if tag in tags else 0 for tag in (Tag.NEW_SUBFILE, Tag.OLD_SUBFILE)]
        if not small[0] & 1 and small[1] != 2:
            if found is not None:
                raise Unsuitable("has several pages; save the one to retouch by itself")
            found = at, tags
        at = following
    if found is None:
        raise Unsuitable("has only reduced pictures, as a camera's raw file has; develop it into a TIFF file first")
    return found


def _unpacked(packed: memoryview, compression: int, size: int, rows: int) -> bytes | memoryview:
    if compression == _NONE:
        return packed
    if compression in (DEFLATE, _OLD_DEFLATE):
        # One byte more, so that the checksum behind the last one is looked at.
        return zlib.decompressobj().decompress(packed, size + 1)
    if size > _LONGEST_FOR_PILLOW:
        raise Unsuitable(f"has strips of {size / 1e6:.0f} MB; save it with Deflate (ZIP) or no compression")
    return _by_pillow(packed, compression, size // rows, rows)


def _by_pillow(packed: memoryview, compression: int, width: int, height: int) -> bytes:
    """The bytes of an LZW or PackBits strip, as the pixels of a file that has no other."""
    tags = {
        Tag.WIDTH: width,
        Tag.HEIGHT: height,
        Tag.BITS: 8,
        Tag.COMPRESSION: compression,
        Tag.PHOTOMETRIC: BLACK_IS_0,
    }
    tags |= {Tag.STRIP_OFFSETS: 8, Tag.CHANNELS: 1, Tag.STRIP_ROWS: height, Tag.STRIP_COUNTS: len(packed)}
    strip = bytes(packed) + bytes(len(packed) % 2)
    end = pack({number: number_value("<", value) for number, value in tags.items()}, "<", 8 + len(strip))
    with TiffImageFile(io.BytesIO(header("<", 8 + len(strip)) + strip + end)) as image:
        image.load()
        return image.tobytes()
