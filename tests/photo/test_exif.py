from __future__ import annotations

import struct

import pytest
from PIL import Image

from abpn_fast.photo import exif


def exif_block(order: str, orientation: int = 6) -> bytes:
    """Width, height, orientation, an EXIF IFD with width and height, and bytes that no tag describes."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    tags = [(0x0100, 4, 300), (0x0101, 4, 200), (0x0112, 3, orientation), (0x8769, 4, 62)]
    inner = [(0xA002, 4, 300), (0xA003, 4, 200)]
    return b"Exif\0\0" + head + directory(order, tags, 92) + directory(order, inner, 0) + b"camera's notes, thumbnail"


def directory(order: str, tags: list[tuple[int, int, int]], following: int) -> bytes:
    entries = (
        struct.pack(order + "HHI", tag, kind, 1) + struct.pack(order + ("HH" if kind == 3 else "I"), *values)
        for tag, kind, value in tags
        for values in [(value, 0) if kind == 3 else (value,)]
    )
    return struct.pack(order + "H", len(tags)) + b"".join(entries) + struct.pack(order + "I", following)


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_changes_only_orientation_sizes_and_the_link_to_the_thumbnail(order: str) -> None:
    block = exif_block(order)
    orientation, upright = exif.upright(block)
    assert orientation == 6
    assert upright is not None
    assert len(upright) == len(block)
    read = Image.Exif()
    read.load(upright)
    assert (read[0x0112], read[0x0100], read[0x0101]) == (1, 200, 300)
    assert read.get_ifd(0x8769) == {0xA002: 200, 0xA003: 300}
    assert read.get_ifd(0x014A) == {}
    assert upright.endswith(b"camera's notes, thumbnail")
    changed = [at for at, (old, new) in enumerate(zip(block, upright, strict=True)) if old != new]
    # 2 bytes of each of the four sizes, 1 of the orientation, 1 of the link.
    assert len(changed) == 10


def test_exif_of_an_upright_photo_keeps_its_sizes() -> None:
    orientation, upright = exif.upright(exif_block("<", orientation=1))
    assert orientation == 1
    assert upright is not None
    read = Image.Exif()
    read.load(upright)
    assert (read[0x0100], read[0x0101]) == (300, 200)


@pytest.mark.parametrize("cut", [0, 3, 10, 15, 20, 40, 60])
def test_malformed_exif_is_dropped(cut: int) -> None:
    assert exif.upright(exif_block("<")[:cut]) == (1, None)


def test_exif_with_an_impossible_orientation_is_upright() -> None:
    assert exif.upright(exif_block("<", orientation=9))[0] == 1
