"""TIFF files of every layout, and the pixels of those that are written, by the specification alone."""

from __future__ import annotations

import itertools
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[Any]
Values = dict[int, tuple[int, Any]]
_FORMATS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "I", 7: "s", 13: "I", 16: "Q"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 13: 4, 16: 8}


def tiff_file(
    samples: Samples,
    order: str = "<",
    *,
    big: bool = False,
    planar: bool = False,
    tile: tuple[int, int] | None = None,
    rows: int | None = None,
    compression: int = 1,
    predictor: int = 1,
    tags: Values | None = None,
) -> bytes:
    """(H, W, C) as a file whose pixels come last; ``tags``: type and values by number, over what is needed."""
    height, width, channels = samples.shape
    block_height, block_width = tile or (rows or height, width)
    blocks = []
    for plane, top, left in itertools.product(
        range(channels if planar else 1), range(0, height, block_height), range(0, width, block_width)
    ):
        block = samples[top : top + block_height, left : left + block_width]
        block = block[..., plane : plane + 1] if planar else block
        if tile:
            space = [(0, size - length) for size, length in zip(tile, block.shape, strict=False)]
            block = np.pad(block, [*space, (0, 0)], constant_values=77)
        blocks.append(encoded(block, order, compression, predictor))
    offsets, counts = (324, 325) if tile else (273, 279)
    values: Values = {
        256: (4, [width]),
        257: (3, [height]),
        258: (3, [8 * samples.itemsize] * channels),
        259: (3, [compression]),
        262: (3, [2 if channels > 2 else 1]),
        277: (3, [channels]),
        284: (3, [2 if planar else 1]),
        offsets: (4, [0] * len(blocks)),
        counts: (4, [len(block) for block in blocks]),
    }
    if predictor != 1:
        values[317] = (3, [predictor])
    if channels % 2 == 0:
        values[338] = (3, [2])
    values |= {322: (3, [tile[1]]), 323: (3, [tile[0]])} if tile else {278: (3, [block_height])}
    values |= tags or {}
    values = {number: value for number, value in values.items() if value[1] is not None}
    start = 16 if big else 8
    ends = list(itertools.accumulate((len(block) for block in blocks), initial=0))
    begin = start + len(directory(values, order, start, big))
    if offsets in values and values[offsets][1] == [0] * len(blocks):
        values[offsets] = (4, [begin + end for end in ends[:-1]])
    head = (b"II" if order == "<" else b"MM") + struct.pack(
        order + ("HHHQ" if big else "HI"), *((43, 8, 0, start) if big else (42, start))
    )
    return head + directory(values, order, start, big) + b"".join(blocks)


def directory(values: Values, order: str, at: int, big: bool = False, following: int = 0) -> bytes:
    """Tags and behind them what is too long for its tag; a value that is a dictionary becomes a directory."""
    word, count_format = ("Q", "Q") if big else ("I", "H")
    width = struct.calcsize("=" + word)
    entries, behind = struct.pack(order + count_format, len(values)), b""
    end = at + len(entries) + (4 + 2 * width) * len(values) + width
    for number, (kind, value) in sorted(values.items()):
        if isinstance(value, dict):
            place = end + len(behind)
            behind += directory(value, order, place, big)
            content = struct.pack(order + _FORMATS[kind], place)
        elif isinstance(value, bytes):
            content = value
        else:
            content = struct.pack(f"{order}{len(value)}{_FORMATS[kind]}", *value)
        count = len(content) // _SIZES[kind]
        if len(content) > width:
            behind, content = behind + content + bytes(len(content) % 2), struct.pack(order + word, end + len(behind))
        entries += struct.pack(order + "HH" + word, number, kind, count) + content.ljust(width, b"\0")
    return entries + struct.pack(order + word, following) + behind


def encoded(block: Samples, order: str, compression: int, predictor: int) -> bytes:
    if predictor == 2:
        block = np.diff(block, axis=1, prepend=block.dtype.type(0))
    plain = block.astype(block.dtype.newbyteorder(order)).tobytes()
    lengths = {1: lambda: plain, 5: lambda: lzw(plain), 32773: lambda: packbits(plain)}
    return lengths.get(compression, lambda: zlib.compress(plain))()


def lzw(plain: bytes) -> bytes:
    """Every byte as its own code of 9 bits; cleared before there would be codes of 10."""
    codes = [code for start in range(0, len(plain), 250) for code in (256, *plain[start : start + 250])] + [257]
    bits = "".join(f"{code:09b}" for code in codes)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def packbits(plain: bytes) -> bytes:
    """Runs of 3 bytes and more as such, the rest one by one."""
    packed = b""
    for value, group in itertools.groupby(plain):
        left = len(list(group))
        while left:
            count = min(left, 128)
            packed += bytes([257 - count, value]) if count > 2 else bytes([0, value]) * count
            left -= count
    return packed


class Written:
    """A file of one page with strips that are deflated differences: its tags by number, and its pixels."""

    def __init__(self, data: bytes) -> None:
        self.data, self.order = data, {b"II*\0": "<", b"MM\0*": ">"}[data[:4]]
        self.tags = self.directory(struct.unpack_from(self.order + "I", data, 4)[0])
        self.kind = "u" + str(self.tags[258][0] // 8)

    def directory(self, at: int) -> dict[int, Any]:
        (count,) = struct.unpack_from(self.order + "H", self.data, at)
        tags: dict[int, Any] = {}
        for position in range(at + 2, at + 2 + 12 * count, 12):
            number, kind, length = struct.unpack_from(self.order + "HHI", self.data, position)
            assert number > max(tags, default=0), "tags are not in ascending order"
            size = length * _SIZES[kind]
            if size > 4:
                (place,) = struct.unpack_from(self.order + "I", self.data, position + 8)
                assert place % 2 == 0, f"tag {number} does not begin at a word"
            else:
                place = position + 8
            assert place + size <= len(self.data)
            words = length * 2 if kind == 5 else length
            values = struct.unpack_from(f"{self.order}{words}{_FORMATS[kind]}", self.data, place)
            tags[number] = values[0] if kind in (2, 7) else values
        assert struct.unpack_from(self.order + "I", self.data, at + 2 + 12 * count) == (0,)
        return tags

    def samples(self) -> Samples:
        (width,), (height,), (channels,) = (self.tags[number] for number in (256, 257, 277))
        assert self.tags[259] == (8,) and self.tags[317] == (2,) and self.tags.get(284, (1,)) == (1,)
        raw = b"".join(
            zlib.decompress(self.data[offset : offset + count])
            for offset, count in zip(self.tags[273], self.tags[279], strict=True)
        )
        stored = np.frombuffer(raw, self.order + self.kind).reshape(height, width, channels)
        return np.cumsum(stored, axis=1, dtype=self.kind)
