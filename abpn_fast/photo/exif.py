"""An EXIF block, kept byte for byte but for what turning the photo upright changes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

ORIENTATION, _EXIF_IFD = 0x0112, 0x8769
TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda samples: samples[:, ::-1],
    3: lambda samples: samples[::-1, ::-1],
    4: lambda samples: samples[::-1],
    5: lambda samples: samples.swapaxes(0, 1),
    6: lambda samples: samples[::-1].swapaxes(0, 1),
    7: lambda samples: samples[::-1, ::-1].swapaxes(0, 1),
    8: lambda samples: samples[:, ::-1].swapaxes(0, 1),
}
"""What turns (H, W, C) upright, by the orientation; of 1 nothing does."""
# Width and height, and the resolutions along them, as IFD 0 and the EXIF IFD have them.
_ACROSS_AND_DOWN = (((0x0100, 0x0101), (0x011A, 0x011B)), ((0xA002, 0xA003), (0xA20E, 0xA20F)))


def upright(exif: bytes, otherwise: int = 1) -> tuple[int, bytes | None]:
    """``(orientation, block)``: what an EXIF block says, 1 to 8, and the block for the photo turned upright.

    In the new block the orientation is 1, width and height and their resolutions have changed places where the turn
    exchanges them, and the embedded thumbnail, which shows the photo unturned and unretouched, is no longer referred
    to. Every other byte, camera notes with their absolute offsets included, stays. A block without an orientation means
    ``otherwise``, a malformed one gives ``(otherwise, None)``.
    """
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    block = bytearray(exif[start:])
    order = {b"II": "<", b"MM": ">"}.get(bytes(block[:2]))
    if order is None:
        return otherwise, None
    try:
        orientation = _make_upright(block, order, otherwise)
    except struct.error:
        return otherwise, None
    return orientation, exif[:start] + bytes(block)


def _make_upright(block: bytearray, order: str, orientation: int) -> int:
    (first,) = struct.unpack_from(order + "I", block, 4)
    main = _entries(block, order, first)
    struct.pack_into(order + "I", block, first + 2 + 12 * len(main), 0)
    if ORIENTATION in main:
        value = main[ORIENTATION] + 8
        (orientation,) = struct.unpack_from(order + "H", block, value)
        struct.pack_into(order + "H", block, value, 1)
    if orientation in (5, 6, 7, 8):
        inner = {}
        if _EXIF_IFD in main:
            inner = _entries(block, order, *struct.unpack_from(order + "I", block, main[_EXIF_IFD] + 8))
        for entries, pairs in zip((main, inner), _ACROSS_AND_DOWN, strict=True):
            for across, down in pairs:
                if across in entries and down in entries:
                    _exchange(block, entries[across], entries[down])
    return int(orientation) if 1 <= orientation <= 8 else 1


def _entries(block: bytearray, order: str, offset: int) -> dict[int, int]:
    """Where the 12 bytes of each tag of an IFD begin."""
    (count,) = struct.unpack_from(order + "H", block, offset)
    positions = range(offset + 2, offset + 2 + 12 * count, 12)
    return {struct.unpack_from(order + "H10x", block, position)[0]: position for position in positions}


def _exchange(block: bytearray, one: int, other: int) -> None:
    """Exchange type, count and value of two entries."""
    block[one + 2 : one + 12], block[other + 2 : other + 12] = block[other + 2 : other + 12], block[one + 2 : one + 12]
