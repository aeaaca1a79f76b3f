from __future__ import annotations

import io
import struct

import pytest
from PIL import Image

from abpn_fast.photo.metadata import (
    kept_jpeg_segments,
    kept_png_chunks,
    upright_exif,
    upright_xmp,
    without_thumbnails,
)


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
    orientation, upright = upright_exif(block)
    assert orientation == 6
    assert upright is not None
    assert len(upright) == len(block)
    exif = Image.Exif()
    exif.load(upright)
    assert (exif[0x0112], exif[0x0100], exif[0x0101]) == (1, 200, 300)
    assert exif.get_ifd(0x8769) == {0xA002: 200, 0xA003: 300}
    assert exif.get_ifd(0x014A) == {}
    assert upright.endswith(b"camera's notes, thumbnail")
    changed = [at for at, (old, new) in enumerate(zip(block, upright, strict=True)) if old != new]
    # 2 bytes of each of the four sizes, 1 of the orientation, 1 of the link.
    assert len(changed) == 10


def test_exif_of_an_upright_photo_keeps_its_sizes() -> None:
    orientation, upright = upright_exif(exif_block("<", orientation=1))
    assert orientation == 1
    assert upright is not None
    exif = Image.Exif()
    exif.load(upright)
    assert (exif[0x0100], exif[0x0101]) == (300, 200)


@pytest.mark.parametrize("cut", [0, 3, 10, 15, 20, 40, 60])
def test_malformed_exif_is_dropped(cut: int) -> None:
    assert upright_exif(exif_block("<")[:cut]) == (1, None)


def test_exif_with_an_impossible_orientation_is_upright() -> None:
    assert upright_exif(exif_block("<", orientation=9))[0] == 1


@pytest.mark.parametrize(
    "form", ['tiff:Orientation="%d"', "tiff:Orientation='%d'", "<tiff:Orientation>%d</tiff:Orientation>"]
)
def test_xmp_orientation_is_reset(form: str) -> None:
    packet = f"<x {form % 8} other='8'/>"
    assert upright_xmp(packet.encode()).decode() == f"<x {form % 1} other='8'/>"


def test_png_chunks_of_colour_and_text_are_kept_and_profiles_in_texts_are_not() -> None:
    from PIL.PngImagePlugin import PngInfo

    info, file = PngInfo(), io.BytesIO()
    info.add(b"gAMA", struct.pack(">I", 45455))
    info.add_text("Author", "someone")
    info.add_text("Raw profile type exif", "stale")
    info.add_itxt("XML:com.adobe.xmp", "<x/>")
    Image.new("RGB", (4, 4)).save(file, "PNG", pnginfo=info)
    assert kept_png_chunks(file.getvalue()) == ((b"gAMA", struct.pack(">I", 45455)), (b"tEXt", b"Author\0someone"))
    assert kept_png_chunks(file.getvalue()[:40]) == ()


def test_jpeg_segments() -> None:
    segments = [("APP0", b"JFIF"), ("COM", b"hello"), ("APP13", b"Photoshop 3.0\0")]
    assert kept_jpeg_segments(segments) == b"\xff\xfe\0\x07hello\xff\xed\0\x10Photoshop 3.0\0"


def resource(number: int, content: bytes, name: bytes = b"") -> bytes:
    titled = bytes([len(name)]) + name + bytes((1 + len(name)) % 2)
    return (
        b"8BIM"
        + struct.pack(">H", number)
        + titled
        + struct.pack(">I", len(content))
        + content
        + bytes(len(content) % 2)
    )


def test_thumbnails_are_taken_from_resources() -> None:
    kept = [resource(1028, b"caption"), resource(1005, b"", b"odd"), resource(2000, b"8BIM\x04\x0c", b"even")]
    small = [resource(1036, bytes(99)), resource(1033, bytes(100), b"name")]
    for resources in (small + kept, kept + small, [kept[0], small[0], kept[1], small[1], kept[2]]):
        assert without_thumbnails(b"".join(resources)) == b"".join(kept)
    assert without_thumbnails(b"".join(small)) == b""
    # The last content may lack what makes it even.
    assert without_thumbnails(small[0] + kept[0][:-1]) == kept[0][:-1]


def test_resources_that_are_malformed_stay() -> None:
    whole = resource(1028, b"caption") + resource(1036, bytes(10))
    for resources in (b"", b"8BI", whole[:-2], whole[:30], whole + b"PHUT", whole[:4], whole[:24] + b"more"):
        assert without_thumbnails(resources) == resources
