"""The tags of TIFF files: which say how pixels lie, and what becomes of the others."""

from __future__ import annotations

import contextlib
import enum
import math

from abpn_fast.photo.directories import (
    IFD,
    IFD8,
    RATIONAL,
    SHORT,
    Directory,
    Tagged,
    header,
    number_value,
    numbers,
    pack,
)


class Tag(enum.IntEnum):
    """Tags by their names in the specification, or by what they mean."""

    NEW_SUBFILE = 254
    OLD_SUBFILE = 255
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    CHANNELS = 277
    STRIP_ROWS = 278
    STRIP_COUNTS = 279
    X_RESOLUTION = 282
    Y_RESOLUTION = 283
    PLANAR = 284
    RESOLUTION_UNIT = 296
    PREDICTOR = 317
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    EXTRA = 338
    SAMPLE_FORMAT = 339
    XMP = 700
    IPTC = 33723
    RESOURCES = 34377
    ICC = 34675
    DNG = 50706


_RESOLUTION = (Tag.X_RESOLUTION, Tag.Y_RESOLUTION)
# What says how pixels lie or lists other pictures, layers of Photoshop included, and what has a place of its own.
_OF_THE_FILE = {
    *(*range(254, 267), 273, *range(277, 282), 284, *range(288, 294), 301, 317, *range(320, 335), 336),
    *(*range(338, 343), 347, 400, *range(512, 522), *range(529, 533), 37724),
    *(Tag.XMP, Tag.ICC, Tag.IPTC, Tag.RESOURCES),
}


def descriptions(tags: Directory) -> Directory:
    """The tags that remain true of other pixels in another file."""
    return {tag: value for tag, value in tags.items() if tag not in _OF_THE_FILE and value.kind not in (IFD, IFD8)}


def exif_block(file: Tagged, at: int) -> bytes:
    """The descriptions in the directory at a position, with EXIF and GPS, as a block; empty where there are none."""
    tags = descriptions(file.tree(at))
    return header(file.order, 8) + pack(tags, file.order, 8) if tags else b""


def whole_block(exif: bytes) -> Tagged:
    """The EXIF block; without what lies outside it, where the bytes of a file around it would be taken for that."""
    for strict in (True, False):
        with contextlib.suppress(ValueError):
            block = Tagged(exif, strict)
            block.tree(block.first)
            return block if strict else Tagged(exif_block(block, block.first))
    return Tagged(header("<", 8) + pack({}, "<", 8))


def dots_per_inch(tags: Directory, order: str) -> tuple[float, float] | None:
    """Horizontal and vertical; None without a unit, infinite without a denominator."""
    unit = tags.get(Tag.RESOLUTION_UNIT, number_value(order, 2, kind=SHORT))
    scale = {2: 1.0, 3: 2.54}.get(numbers(unit, order)[0] if unit.kind == SHORT else 2)
    pairs = [numbers(tags[tag], order) for tag in _RESOLUTION if tag in tags and tags[tag].kind == RATIONAL]
    if scale is None or len(pairs) < 2:
        return None
    x, y = (above / below * scale if below else math.inf for above, below, *_ in pairs)
    return x, y


def resolution(dpi: tuple[float, float], order: str) -> Directory:
    """The tags that tell it."""
    x, y = (number_value(order, round(value * 10000), 10000, kind=RATIONAL) for value in dpi)
    return {Tag.X_RESOLUTION: x, Tag.Y_RESOLUTION: y, Tag.RESOLUTION_UNIT: number_value(order, 2, kind=SHORT)}
