"""TIFF files of 8 and 16 bits, to be written."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from typing import BinaryIO

from abpn_fast.photo.codecs import Samples
from abpn_fast.photo.directories import BYTE, SHORT, UNDEFINED, Value, header, number_value, pack
from abpn_fast.photo.tiff import BLACK_IS_0, DEFLATE, RGB
from abpn_fast.photo.tiff_tags import Tag, descriptions, dots_per_inch, resolution, whole_block

# Types of tags that files give other types as well.
_KINDS: dict[int, int] = {Tag.XMP: BYTE, Tag.RESOURCES: BYTE}
# In bytes, before compression.
_STRIP = 2**20
# Of zlib: on examples/portrait.jpg it takes a quarter of the time of 6 for 8 % more bytes.
_LEVEL = 4


def write(
    stream: BinaryIO,
    samples: Samples,
    alpha_kind: int,
    exif: bytes,
    dpi: tuple[float, float] | None,
    contents: Mapping[int, bytes],
) -> None:
    """Write a TIFF file: Deflate with differences, in strips.

    It begins with the EXIF block, in which camera notes then keep the offsets they count from its beginning. 200
    megapixels are 1.6 GB at most, so that the 4 GB of a TIFF file suffice.

    Args:
        samples: (H, W, C), grey or RGB, then alpha if there is one.
        alpha_kind: what ExtraSamples shall call it.
        exif: a block without its ``Exif`` in front, whose tags go into the file; empty for none.
        dpi: of the file, over that in ``exif``; None for that one.
        contents: of the tags for XMP, ICC profile, IPTC and Photoshop's resources.
    """
    block = whole_block(exif)
    order, (height, width, channels) = block.order, samples.shape
    tags = descriptions(block.directory(block.first)[0])
    if dpi is not None and dpi != dots_per_inch(tags, order):
        tags |= resolution(dpi, order)
    tags |= {tag: Value(_KINDS.get(tag, UNDEFINED), content) for tag, content in contents.items() if content}
    stream.write(header(order, 0) + block.data[8:])
    rows = max(1, _STRIP // samples[0].nbytes)
    offsets, counts = [], []
    for top in range(0, height, rows):
        strip = _packed(samples[top : top + rows], order)
        offsets.append(stream.tell())
        counts.append(len(strip))
        stream.write(strip)
    tags |= {
        Tag.WIDTH: number_value(order, width),
        Tag.HEIGHT: number_value(order, height),
        Tag.BITS: _short(order, *[8 * samples.itemsize] * channels),
        Tag.COMPRESSION: _short(order, DEFLATE),
        Tag.PHOTOMETRIC: _short(order, BLACK_IS_0 if channels < 3 else RGB),
        Tag.STRIP_OFFSETS: number_value(order, *offsets),
        Tag.ORIENTATION: _short(order, 1),
        Tag.CHANNELS: _short(order, channels),
        Tag.STRIP_ROWS: number_value(order, rows),
        Tag.STRIP_COUNTS: number_value(order, *counts),
        Tag.PREDICTOR: _short(order, 2),
    }
    if channels % 2 == 0:
        tags[Tag.EXTRA] = _short(order, alpha_kind)
    stream.write(bytes(stream.tell() % 2))
    at = stream.tell()
    stream.write(pack(tags, order, at))
    stream.seek(0)
    stream.write(header(order, at))
    stream.seek(0, io.SEEK_END)


def _packed(rows: Samples, order: str) -> bytes:
    """A strip: differences from the pixel to the left, deflated."""
    differences = rows.copy()
    differences[:, 1:] -= rows[:, :-1]
    return zlib.compress(differences.astype(f"{order}u{rows.itemsize}").data, _LEVEL)


def _short(order: str, *values: int) -> Value:
    return number_value(order, *values, kind=SHORT)
