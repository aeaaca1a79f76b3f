"""What the chunks of a PNG file say besides EXIF and XMP: colours, texts, captions."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from abpn_fast.photo import jpeg_segments
from abpn_fast.photo import resources as photoshop

Chunks = tuple[tuple[bytes, bytes], ...]
_COLOURS = (b"gAMA", b"cHRM", b"sRGB", b"cICP")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# Old homes of EXIF and XMP; what they hold is written as a chunk of its own.
_PROFILE_TEXTS = (b"Raw profile type exif\0", b"Raw profile type APP1\0", b"XML:com.adobe.xmp\0")
_CAPTION_TEXTS = ("Raw profile type iptc", "Raw profile type 8bim")
# Of a compressed text, in bytes: beyond it Pillow takes the whole file for unreadable.
_LONGEST_TEXT = 2**20


def each(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """``(type, content)`` of each chunk of a PNG file, as far as it goes."""
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, data[position + 8 : position + 8 + length]
        position += 12 + length


def readable(data: bytes) -> bytes:
    """A PNG file without the compressed texts that Pillow would refuse all of it for."""
    parts, start, position = [], 0, 8
    for kind, content in each(data):
        end = position + 12 + len(content)
        profile = content.startswith(_PROFILE_TEXTS)
        if kind in (b"zTXt", b"iTXt") and not profile and _text(kind, content) is None:
            parts.append(data[start:position])
            start = end
        position = end
    return b"".join([*parts, data[start:]]) if parts else data


def kept(data: bytes) -> Chunks:
    """The chunks of a PNG file that describe its colours, and its texts."""
    return tuple(
        _without_thumbnails(kind, content)
        for kind, content in each(data)
        if kind in _COLOURS or (kind in _TEXTS and not content.startswith(_PROFILE_TEXTS))
    )


def from_jpeg(segments: jpeg_segments.Segments) -> Chunks:
    """The comments and IPTC captions of a JPEG file, as chunks of a PNG file."""
    comments = (_comment_chunk(content) for name, content in segments if name == "COM")
    return (*comments, *from_resources(jpeg_segments.resources_of(segments)))


def as_segments(chunks: Chunks) -> bytes:
    """The texts in the kept chunks of a PNG file as comments of a JPEG file, ``key: text``, and its IPTC caption.

    What is longer than a segment of a JPEG file is left out.
    """
    segments = []
    for kind, content in chunks:
        if kind not in _TEXTS:
            continue
        key, text = _text(kind, content) or ("", "")
        if key in _CAPTION_TEXTS:
            segments += [("APP13", jpeg_segments.CAPTION + caption)] if (caption := _profile(text)) else []
        elif text and not key.startswith("Raw profile type "):
            segments.append(("COM", (text if key == "Comment" else f"{key}: {text}").encode()))
    return jpeg_segments.kept([(name, content) for name, content in segments if len(content) <= jpeg_segments.LONGEST])


def resources_of(chunks: Chunks) -> bytes:
    """Photoshop's resources, IPTC captions among them, in the kept chunks of a PNG file."""
    texts = (_text(kind, content) or ("", "") for kind, content in chunks if kind in _TEXTS)
    return b"".join(_profile(text) for key, text in texts if key in _CAPTION_TEXTS)


def from_resources(resources: bytes) -> Chunks:
    """Photoshop's resources as a chunk of a PNG file; none of a length that would make Pillow refuse all of it."""
    if not resources or 2 * len(resources) > _LONGEST_TEXT - 64:
        return ()
    return (_resource_chunk(_CAPTION_TEXTS[0], resources),)


def _resource_chunk(key: str, resources: bytes) -> tuple[bytes, bytes]:
    text = f"\n{key.rpartition(' ')[2]}\n{len(resources):8}\n{resources.hex()}\n".encode()
    return b"zTXt", key.encode() + b"\0\0" + zlib.compress(text)


def _without_thumbnails(kind: bytes, content: bytes) -> tuple[bytes, bytes]:
    key = content.partition(b"\0")[0].decode("latin-1")
    if kind not in _TEXTS or key not in _CAPTION_TEXTS:
        return kind, content
    resources = _profile((_text(kind, content) or ("", ""))[1])
    fewer = photoshop.without_thumbnails(resources)
    return (kind, content) if fewer == resources else _resource_chunk(key, fewer)


def _comment_chunk(comment: bytes) -> tuple[bytes, bytes]:
    comment = comment.replace(b"\0", b"")
    try:
        comment.decode()
    except UnicodeDecodeError:
        return b"tEXt", b"Comment\0" + comment
    return (b"tEXt", b"Comment\0" + comment) if comment.isascii() else (b"iTXt", b"Comment" + bytes(5) + comment)


def _text(kind: bytes, content: bytes) -> tuple[str, str] | None:
    """Key and text of a text chunk; None where it cannot be expanded, to at most 1 MB."""
    key, _, text = content.partition(b"\0")
    packed = kind == b"zTXt" or (kind == b"iTXt" and text[:1] == b"\1")
    if packed and text[kind == b"iTXt" :][:1] != b"\0":
        return None
    text = text[2:].split(b"\0", 2)[-1] if kind == b"iTXt" else text[packed:]
    if packed:
        try:
            text = zlib.decompressobj().decompress(text, _LONGEST_TEXT + 1)
        except zlib.error:
            return None
        if len(text) > _LONGEST_TEXT:
            return None
    return key.decode("latin-1"), text.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")


def _profile(text: str) -> bytes:
    """The bytes of a ``Raw profile type`` text, a name, a length and hexadecimal digits; empty unless Photoshop's."""
    try:
        profile = bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return b""
    return profile if profile.startswith(photoshop.SIGNATURE) else b""
