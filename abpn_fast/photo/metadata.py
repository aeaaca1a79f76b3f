"""What a photo file says besides its pixels, kept byte for byte but for the orientation."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

_ORIENTATION, _EXIF_IFD = 0x0112, 0x8769
# Width and height as IFD 0 and the EXIF IFD have them.
_SIZE_TAGS = ((0x0100, 0x0101), (0xA002, 0xA003))
_COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP")
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
# Old homes of EXIF and XMP; what they hold is written as a chunk of its own.
_PROFILE_TEXTS = (b"Raw profile type exif\0", b"Raw profile type APP1\0", b"XML:com.adobe.xmp\0")


def upright_exif(exif: bytes) -> tuple[int, bytes | None]:
    """``(orientation, block)``: what an EXIF block says, 1 to 8, and the block for the photo turned upright.

    In the new block the orientation is 1, width and height have changed places where the turn exchanges them, and the
    embedded thumbnail, which shows the photo unturned and unretouched, is no longer referred to. Every other byte,
    camera notes with their absolute offsets included, stays. A malformed block gives ``(1, None)``.
    """
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    block = bytearray(exif[start:])
    order = {b"II": "<", b"MM": ">"}.get(bytes(block[:2]))
    if order is None:
        return 1, None
    try:
        orientation = _make_upright(block, order)
    except struct.error:
        return 1, None
    return orientation, exif[:start] + bytes(block)


def _make_upright(block: bytearray, order: str) -> int:
    (first,) = struct.unpack_from(order + "I", block, 4)
    main = _entries(block, order, first)
    struct.pack_into(order + "I", block, first + 2 + 12 * len(main), 0)
    if _ORIENTATION not in main:
        return 1
    value = main[_ORIENTATION] + 8
    (orientation,) = struct.unpack_from(order + "H", block, value)
    struct.pack_into(order + "H", block, value, 1)
    if orientation in (5, 6, 7, 8):
        inner = {}
        if _EXIF_IFD in main:
            inner = _entries(block, order, *struct.unpack_from(order + "I", block, main[_EXIF_IFD] + 8))
        for entries, (width, height) in zip((main, inner), _SIZE_TAGS, strict=True):
            if width in entries and height in entries:
                _exchange(block, entries[width], entries[height])
    return int(orientation) if 1 <= orientation <= 8 else 1


def _entries(block: bytearray, order: str, offset: int) -> dict[int, int]:
    """Where the 12 bytes of each tag of an IFD begin."""
    (count,) = struct.unpack_from(order + "H", block, offset)
    positions = range(offset + 2, offset + 2 + 12 * count, 12)
    return {struct.unpack_from(order + "H10x", block, position)[0]: position for position in positions}


def _exchange(block: bytearray, one: int, other: int) -> None:
    """Exchange type, count and value of two entries."""
    block[one + 2 : one + 12], block[other + 2 : other + 12] = block[other + 2 : other + 12], block[one + 2 : one + 12]


def upright_xmp(xmp: bytes) -> bytes:
    """The XMP packet with every ``tiff:Orientation`` at 1."""
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>))[1-8]", rb"\g<1>1", xmp)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """``(type, content)`` of each chunk of a PNG file, as far as it goes."""
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, data[position + 8 : position + 8 + length]
        position += 12 + length


def kept_png_chunks(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The chunks of a PNG file that describe its colours, and its texts."""
    return tuple(
        (kind, content)
        for kind, content in png_chunks(data)
        if kind in _COLOUR_CHUNKS or (kind in _TEXT_CHUNKS and not content.startswith(_PROFILE_TEXTS))
    )


def kept_jpeg_segments(segments: list[tuple[str, bytes]]) -> bytes:
    """Comments and IPTC captions of a JPEG file, as the markers and contents to write."""
    kept = [(b"\xff\xfe", content) for name, content in segments if name == "COM"]
    kept += [(b"\xff\xed", content) for name, content in segments if name == "APP13"]
    return b"".join(marker + struct.pack(">H", len(content) + 2) + content for marker, content in kept)
