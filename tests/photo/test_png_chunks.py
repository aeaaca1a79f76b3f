from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from abpn_fast.photo import png_chunks


def test_png_chunks_of_colour_and_text_are_kept_and_profiles_in_texts_are_not() -> None:
    info, file = PngInfo(), io.BytesIO()
    info.add(b"gAMA", struct.pack(">I", 45455))
    info.add_text("Author", "someone")
    info.add_text("Raw profile type exif", "stale")
    info.add_itxt("XML:com.adobe.xmp", "<x/>")
    Image.new("RGB", (4, 4)).save(file, "PNG", pnginfo=info)
    assert png_chunks.kept(file.getvalue()) == ((b"gAMA", struct.pack(">I", 45455)), (b"tEXt", b"Author\0someone"))
    assert png_chunks.kept(file.getvalue()[:40]) == ()


def test_a_comment_of_a_jpeg_with_zeros_in_it_is_a_text() -> None:
    assert png_chunks.from_jpeg([("COM", b"one\0two\0")]) == ((b"tEXt", b"Comment\0onetwo"),)


def test_a_text_that_would_fill_the_memory_is_not_expanded() -> None:
    bomb = b"Log\0\0" + zlib.compress(bytes(1 << 26))
    tracemalloc.start()
    assert png_chunks.as_segments(((b"zTXt", bomb),)) == b""
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 23
