"""TIFF's directories of tags, which an EXIF block is made of as well."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

BYTE, SHORT, LONG, RATIONAL, UNDEFINED, IFD, IFD8 = 1, 3, 4, 5, 7, 13, 18
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# Of a fraction, numerator and denominator are two.
_NUMBERS = {BYTE: "B", SHORT: "H", LONG: "I", RATIONAL: "I", IFD: "I", 16: "Q", IFD8: "Q"}
_ORDERS = {b"II": "<", b"MM": ">"}


class _Below(dict[int, "_Below"]):
    """Which tags point to further directories, and which of theirs do."""


# EXIF with interoperability in it, and GPS.
_POINTERS = _Below({0x8769: _Below({0xA005: _Below()}), 0x8825: _Below()})


class Value(NamedTuple):
    """The value of a tag: its type, and its bytes as they lie or the directory that it points to."""

    kind: int
    content: bytes | Directory


Directory = dict[int, Value]


class Tagged:
    """A TIFF or BigTIFF file, or an EXIF block without its ``Exif`` in front.

    Args:
        data: all of it.
        strict: whether a tag that reaches beyond it is an error; else it is left out.

    Raises:
        ValueError: it does not begin like one.
    """

    def __init__(self, data: bytes, strict: bool = True) -> None:
        self.data, self.strict = data, strict
        self.order = _ORDERS.get(data[:2], "<")
        (version,) = self._unpack("H", 2)
        if data[:2] not in _ORDERS or version not in (42, 43):
            raise ValueError("it does not begin as a TIFF file does")
        self.big = version == 43
        (self.first,) = self._unpack("Q", 8) if self.big else self._unpack("I", 4)

    def directory(self, at: int) -> tuple[Directory, int]:
        """The tags of the directory at a position, and where the next one is, or 0."""
        if at < 8:
            raise ValueError("a directory lies in its header")
        count_format, entry_format, word = ("Q", "HHQ", "Q") if self.big else ("H", "HHI", "I")
        (count,) = self._unpack(count_format, at)
        start, width = at + struct.calcsize(self.order + count_format), struct.calcsize("=" + word)
        step = 4 + 2 * width
        tags, total = {}, 0
        for position in range(start, start + count * step, step):
            number, kind, length = self._unpack(entry_format, position)
            size, place = _BYTES.get(kind, 0) * length, position + step - width
            if size > width:
                (place,) = self._unpack(word, place)
            total += size
            if place + size <= len(self.data) and total <= len(self.data):
                tags[number] = Value(kind, self.data[place : place + size])
            elif self.strict:
                raise ValueError(f"tag {number} reaches beyond its end")
        return {tag: value for tag, value in tags.items() if value.content}, self._unpack(word, start + count * step)[0]

    def tree(self, at: int, below: Mapping[int, _Below] = _POINTERS) -> Directory:
        """The directory at a position with those of EXIF and GPS that it points to."""
        tags, _ = self.directory(at)
        for pointer in below.keys() & tags.keys():
            try:
                tags[pointer] = Value(LONG, self.tree(numbers(tags[pointer], self.order)[0], below[pointer]))
            except ValueError:
                if self.strict:
                    raise
                del tags[pointer]
        return tags

    def _unpack(self, format: str, at: int) -> tuple[int, ...]:
        if at + struct.calcsize(self.order + format) > len(self.data):
            raise ValueError(f"it ends before byte {at}")
        return struct.unpack_from(self.order + format, self.data, at)


def numbers(value: Value, order: str) -> tuple[int, ...]:
    """The unsigned numbers of a value; of fractions, numerators and denominators in turn.

    Raises:
        ValueError: it is something else.
    """
    kind, content = value
    if kind not in _NUMBERS or isinstance(content, dict):
        raise ValueError(f"a number has type {kind}")
    letter = _NUMBERS[kind]
    return struct.unpack(f"{order}{len(content) // struct.calcsize('=' + letter)}{letter}", content)


def number_value(order: str, *values: int, kind: int = LONG) -> Value:
    """A value of unsigned numbers; of fractions, numerators and denominators in turn."""
    return Value(kind, struct.pack(f"{order}{len(values)}{_NUMBERS[kind]}", *values))


def header(order: str, first: int) -> bytes:
    """The eight bytes that a TIFF file begins with."""
    return (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, first)


def pack(tags: Directory, order: str, at: int) -> bytes:
    """The directory as it lies at a position, with its long values and the directories it points to behind."""
    entries, behind = struct.pack(order + "H", len(tags)), b""
    start = at + len(entries) + 12 * len(tags) + 4
    for number, (kind, content) in sorted(tags.items()):
        count = 1 if isinstance(content, dict) else len(content) // _BYTES[kind]
        field = struct.pack(order + "I", start + len(behind))
        if isinstance(content, dict):
            behind += pack(content, order, start + len(behind))
        elif len(content) > 4:
            behind += content + bytes(len(content) % 2)
        else:
            field = content.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", number, kind, count) + field
    return entries + bytes(4) + behind
