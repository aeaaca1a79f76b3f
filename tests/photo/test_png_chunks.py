from __future__ import annotations

import io
import struct

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
