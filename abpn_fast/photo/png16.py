"""PNG files of 16 bits per channel, of which Pillow knows all but the colours: it rounds those to 8."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from abpn_fast.photo.metadata import png_chunks

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Channels by colour type, and the other way around.
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
_COLOUR_TYPES = {channels: colour_type for colour_type, channels in _CHANNELS.items()}
# First column and row, and their steps, of the seven passes of an interlaced file.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
# In bytes, before compression.
_BLOCK = 2**20


def has_16_bits(data: bytes) -> bool:
    """Whether a PNG file has 16 bits per channel."""
    return data[24:25] == b"\x10"


def without_pixels(data: bytes) -> bytes:
    """A PNG file of one black pixel, and all that ``data`` holds besides its own."""
    rest = [(kind, content) for kind, content in png_chunks(data) if kind not in (*_PIXELS, b"IEND")]
    return _SIGNATURE + b"".join(
        _chunk(kind, content)
        for kind, content in [_head(1, 1, 8, 1), *rest, (b"IDAT", zlib.compress(bytes(2))), (b"IEND", b"")]
    )


def read(data: bytes) -> NDArray[np.uint16]:
    """The pixels of a PNG file of 16 bits, (H, W, C): grey or RGB, then alpha where it has some.

    PNG predicts each byte of a pixel from the same byte of its neighbours. So the first half of the bytes of every
    pixel is a picture of 8 bits, which Pillow reads without loss, and the second half is another.

    Raises:
        ValueError, SyntaxError, OSError, zlib.error: the file is damaged.
    """
    chunks = list(png_chunks(data))
    width, height, _, colour_type, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if colour_type not in _CHANNELS:
        raise ValueError(f"it has 16 bits and colour type {colour_type}")
    if chunks[-1][0] != b"IEND":
        raise ValueError("it is cut off")
    channels = _CHANNELS[colour_type]
    sizes = _pass_sizes(width, height) if interlaced else [(width, height)]
    packed = b"".join(content for kind, content in chunks if kind == b"IDAT")
    lines = list(_lines(_unpacked(packed, sizes, 2 * channels), sizes, channels))
    halves = [_pixels([line[half] for line in lines], (height, width, channels), interlaced) for half in range(2)]
    samples = np.concatenate(halves, axis=2).view(">u2").astype(np.uint16)
    key = next((content for kind, content in chunks if kind == b"tRNS"), b"")
    return _with_alpha(samples, key) if len(key) == 2 * channels else samples


def write(stream: BinaryIO, samples: NDArray[np.uint16], model: bytes) -> None:
    """Write a PNG file of ``samples``, (H, W, C), with the chunks of the PNG file ``model`` besides its pixels."""
    height, width, channels = samples.shape
    stream.write(_SIGNATURE)
    for kind, content in png_chunks(model):
        if kind == b"IHDR":
            stream.write(_chunk(*_head(width, height, 16, channels)))
        elif kind == b"IDAT":
            for part in _packed(samples):
                stream.write(_chunk(kind, part))
        elif kind not in _PIXELS:
            stream.write(_chunk(kind, content))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


def _head(width: int, height: int, bits: int, channels: int, interlaced: int = 0) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, bits, _COLOUR_TYPES[channels], 0, 0, interlaced)


def _pass_sizes(width: int, height: int) -> list[tuple[int, int]]:
    sizes = [((width - x + by - 1) // by, (height - y + down - 1) // down) for x, y, by, down in _PASSES]
    return [size for size in sizes if min(size) > 0]


def _unpacked(packed: bytes, sizes: list[tuple[int, int]], pixel: int) -> bytes:
    size = sum((1 + pixel * width) * height for width, height in sizes)
    # One byte more, so that the checksum behind the last one is looked at.
    raw = zlib.decompressobj().decompress(packed, size + 1)
    if len(raw) < size:
        raise ValueError("it has too few pixels")
    return raw


def _lines(raw: bytes, sizes: list[tuple[int, int]], channels: int) -> Iterator[tuple[bytes, bytes]]:
    """The lines of each pass with one half of the bytes of every pixel, and with the other, all with their filters."""
    at = 0
    for width, height in sizes:
        lines = np.frombuffer(raw, np.uint8, height * (1 + 2 * channels * width), at).reshape(height, -1)
        at += lines.size
        pixels = lines[:, 1:].reshape(height, width, 2, channels)
        first, second = (
            np.hstack((lines[:, :1], pixels[:, :, half].reshape(height, -1))).tobytes() for half in range(2)
        )
        yield first, second


def _pixels(lines: list[bytes], shape: tuple[int, int, int], interlaced: int) -> NDArray[np.uint8]:
    height, width, channels = shape
    head = _chunk(*_head(width, height, 8, channels, interlaced))
    body = _chunk(b"IDAT", zlib.compress(b"".join(lines), 0))
    with PngImageFile(io.BytesIO(_SIGNATURE + head + body + _chunk(b"IEND", b""))) as image:
        return np.asarray(image).reshape(shape)


def _with_alpha(samples: NDArray[np.uint16], key: bytes) -> NDArray[np.uint16]:
    """``samples`` with an alpha that is 0 where they are the colour of a tRNS chunk."""
    opaque = (samples != np.frombuffer(key, ">u2")).any(2)
    return np.dstack((samples, np.where(opaque, np.uint16(65535), np.uint16(0))))


def _packed(samples: NDArray[np.uint16]) -> Iterator[bytes]:
    """The contents of the IDAT chunks: rows with filter Sub, deflated."""
    packer, pixel = zlib.compressobj(), 2 * samples.shape[2]
    rows = max(1, _BLOCK // samples[0].nbytes)
    for top in range(0, len(samples), rows):
        plain = samples[top : top + rows].astype(">u2").view(np.uint8).reshape(-1, samples[0].nbytes)
        lines = np.ones((len(plain), 1 + plain.shape[1]), np.uint8)
        lines[:, 1 : 1 + pixel] = plain[:, :pixel]
        np.subtract(plain[:, pixel:], plain[:, :-pixel], out=lines[:, 1 + pixel :])
        if part := packer.compress(lines.data):
            yield part
    yield packer.flush()
