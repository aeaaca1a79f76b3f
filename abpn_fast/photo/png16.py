"""PNG files of 16 bits per channel: pixels by imagecodecs, all else as Pillow reads and writes it for 8."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

from abpn_fast.photo import png_chunks
from abpn_fast.photo.codecs import Samples, decode_png, encode_png

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_END = (b"IEND", b"")


def has_16_bits(data: bytes) -> bool:
    """Whether a PNG file has 16 bits per channel."""
    return data[24:25] == b"\x10"


def without_pixels(data: bytes) -> bytes:
    """A PNG file of one black pixel of 8 bits, and all that ``data`` holds besides its own."""
    rest = [(kind, content) for kind, content in png_chunks.each(data) if kind not in (*_PIXELS, b"IEND")]
    head = (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return _file([head, *rest, (b"IDAT", zlib.compress(bytes(2))), _END])


def read(data: bytes) -> Samples:
    """The pixels, (H, W, C): grey or RGB, then alpha where it has some.

    Raises:
        Unsuitable: imagecodecs is not installed.
        ValueError: the file is damaged.
    """
    *_, last = png_chunks.each(data)
    if last != _END:
        raise ValueError("it is cut off")
    return decode_png(data)


def write(stream: BinaryIO, samples: Samples, model: bytes) -> None:
    """Write a PNG file of ``samples``, (H, W, C) uint16, with what the file ``model`` of one grey pixel has besides."""
    head, *pixels = (chunk for chunk in png_chunks.each(encode_png(samples)) if chunk[0] in _PIXELS)
    chunks = []
    for chunk in png_chunks.each(model):
        chunks += {b"IHDR": [head], b"IDAT": pixels}.get(chunk[0], [chunk])
    stream.write(_file(chunks))


def _file(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return SIGNATURE + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))
        for kind, content in chunks
    )
