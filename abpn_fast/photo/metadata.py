"""What a photo file says besides its pixels, kept byte for byte but for the orientation and a change of format."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

_ORIENTATION, _EXIF_IFD = 0x0112, 0x8769
# Width and height, and the resolutions along them, as IFD 0 and the EXIF IFD have them.
_ACROSS_AND_DOWN = (((0x0100, 0x0101), (0x011A, 0x011B)), ((0xA002, 0xA003), (0xA20E, 0xA20F)))
_COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP")
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
# Old homes of EXIF and XMP; what they hold is written as a chunk of its own.
_PROFILE_TEXTS = (b"Raw profile type exif\0", b"Raw profile type APP1\0", b"XML:com.adobe.xmp\0")
_CAPTION_TEXTS = ("Raw profile type iptc", "Raw profile type 8bim")
_CAPTION = b"Photoshop 3.0\0"
_RESOURCE = b"8BIM"
_IPTC_RESOURCE = _RESOURCE + b"\x04\x04"
# By number: small pictures of the photo, of two versions of Photoshop.
_THUMBNAILS = (1033, 1036)
_XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
# Of a compressed text, in bytes: beyond it Pillow takes the whole file for unreadable.
_LONGEST_TEXT = 2**20
# What a segment of a JPEG file holds at most, in bytes.
JPEG_SEGMENT = 65533
_SEGMENT_MARKERS = {"COM": b"\xff\xfe", "APP13": b"\xff\xed", "APP1": b"\xff\xe1"}


def upright_exif(exif: bytes, otherwise: int = 1) -> tuple[int, bytes | None]:
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
    if _ORIENTATION in main:
        value = main[_ORIENTATION] + 8
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


def xmp_orientation(xmp: bytes) -> int:
    """What an XMP packet says, 1 to 8; 1 where it says nothing."""
    found = re.search(rb"tiff:Orientation(?:=[\"']|>)([1-8])", xmp)
    return int(found[1]) if found else 1


def upright_xmp(xmp: bytes) -> bytes:
    """The XMP packet with every ``tiff:Orientation`` at 1."""
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>))[1-8]", rb"\g<1>1", xmp)


def without_extension(xmp: bytes) -> bytes:
    """The XMP packet without its reference to further segments, which only a JPEG file can have."""
    return re.sub(rb"\s*xmpNote:HasExtendedXMP=([\"'])\w*\1|<xmpNote:HasExtendedXMP>.*?</[^>]*>", b"", xmp)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """``(type, content)`` of each chunk of a PNG file, as far as it goes."""
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, data[position + 8 : position + 8 + length]
        position += 12 + length


def readable_png(data: bytes) -> bytes:
    """A PNG file without the compressed texts that Pillow would refuse all of it for."""
    parts, kept, position = [], 0, 8
    for kind, content in png_chunks(data):
        end = position + 12 + len(content)
        profile = content.startswith(_PROFILE_TEXTS)
        if kind in (b"zTXt", b"iTXt") and not profile and _text(kind, content) is None:
            parts.append(data[kept:position])
            kept = end
        position = end
    return b"".join([*parts, data[kept:]]) if parts else data


def kept_png_chunks(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The chunks of a PNG file that describe its colours, and its texts."""
    return tuple(
        _without_thumbnails(kind, content)
        for kind, content in png_chunks(data)
        if kind in _COLOUR_CHUNKS or (kind in _TEXT_CHUNKS and not content.startswith(_PROFILE_TEXTS))
    )


def kept_jpeg_segments(segments: list[tuple[str, bytes]]) -> bytes:
    """Comments, IPTC captions and extended XMP of a JPEG file, as the markers and contents to write."""
    return b"".join(
        _SEGMENT_MARKERS[name] + struct.pack(">H", len(content) + 2) + content
        for name, content in segments
        if name in ("COM", "APP13") or (name == "APP1" and content.startswith(_XMP_EXTENSION))
    )


def chunks_from_jpeg(segments: list[tuple[str, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """The comments and IPTC captions of a JPEG file, as chunks of a PNG file."""
    comments = (_comment_chunk(content) for name, content in segments if name == "COM")
    return (*comments, *chunks_from_resources(resources_from_jpeg(segments)))


def without_thumbnails(resources: bytes) -> bytes:
    """Photoshop's resources but for thumbnails, which show the photo unretouched; malformed ones as they are."""
    kept, at = [], 0
    while resources.startswith(_RESOURCE, at) and at + 8 <= len(resources):
        (number,) = struct.unpack_from(">H", resources, at + 4)
        # A name and its length are together even, and so is the content.
        size = at + 6 + (resources[at + 6] + 2) // 2 * 2
        if size + 4 > len(resources):
            break
        (length,) = struct.unpack_from(">I", resources, size)
        end = size + 4 + length + length % 2
        if end > len(resources) + 1:
            break
        if number not in _THUMBNAILS:
            kept.append(resources[at:end])
        at = end
    return b"".join(kept) if at >= len(resources) else resources


def jpeg_segments_without_thumbnails(segments: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The segments of a JPEG file, Photoshop's cut anew where a thumbnail was among their resources."""
    resources = resources_from_jpeg(segments)
    kept = without_thumbnails(resources)
    if kept == resources:
        return segments
    others = [(name, content) for name, content in segments if name != "APP13" or not content.startswith(_CAPTION)]
    return others + _resource_segments(kept)


def resources_from_jpeg(segments: list[tuple[str, bytes]]) -> bytes:
    """Photoshop's resources, IPTC captions among them, of a JPEG file."""
    return b"".join(
        content[len(_CAPTION) :] for name, content in segments if name == "APP13" and content.startswith(_CAPTION)
    )


def resources_from_png(chunks: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Photoshop's resources, IPTC captions among them, in the kept chunks of a PNG file."""
    texts = (_text(kind, content) or ("", "") for kind, content in chunks if kind in _TEXT_CHUNKS)
    return b"".join(_profile(text) for key, text in texts if key in _CAPTION_TEXTS)


def resources_with_iptc(resources: bytes, iptc: bytes) -> bytes:
    """Photoshop's resources with the IPTC caption that a TIFF file may have beside them."""
    if not iptc or _IPTC_RESOURCE in resources:
        return resources
    return resources + _IPTC_RESOURCE + struct.pack(">HI", 0, len(iptc)) + iptc + bytes(len(iptc) % 2)


def segments_from_resources(resources: bytes) -> bytes:
    """Photoshop's resources as segments of a JPEG file."""
    return kept_jpeg_segments(_resource_segments(resources))


def _resource_segments(resources: bytes) -> list[tuple[str, bytes]]:
    step = JPEG_SEGMENT - len(_CAPTION)
    return [("APP13", _CAPTION + resources[at : at + step]) for at in range(0, len(resources), step)]


def chunks_from_resources(resources: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Photoshop's resources as a chunk of a PNG file; none of a length that would make Pillow refuse all of it."""
    if not resources or 2 * len(resources) > _LONGEST_TEXT - 64:
        return ()
    return (_resource_chunk(_CAPTION_TEXTS[0], resources),)


def _resource_chunk(key: str, resources: bytes) -> tuple[bytes, bytes]:
    text = f"\n{key.rpartition(' ')[2]}\n{len(resources):8}\n{resources.hex()}\n".encode()
    return b"zTXt", key.encode() + b"\0\0" + zlib.compress(text)


def _without_thumbnails(kind: bytes, content: bytes) -> tuple[bytes, bytes]:
    key = content.partition(b"\0")[0].decode("latin-1")
    if kind not in _TEXT_CHUNKS or key not in _CAPTION_TEXTS:
        return kind, content
    resources = _profile((_text(kind, content) or ("", ""))[1])
    kept = without_thumbnails(resources)
    return (kind, content) if kept == resources else _resource_chunk(key, kept)


def _comment_chunk(comment: bytes) -> tuple[bytes, bytes]:
    comment = comment.replace(b"\0", b"")
    try:
        comment.decode()
    except UnicodeDecodeError:
        return b"tEXt", b"Comment\0" + comment
    return (b"tEXt", b"Comment\0" + comment) if comment.isascii() else (b"iTXt", b"Comment" + bytes(5) + comment)


def segments_from_png(chunks: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """The texts in the kept chunks of a PNG file as comments of a JPEG file, ``key: text``, and its IPTC caption.

    What is longer than a segment of a JPEG file is left out.
    """
    segments = []
    for kind, content in chunks:
        if kind not in _TEXT_CHUNKS:
            continue
        key, text = _text(kind, content) or ("", "")
        if key in _CAPTION_TEXTS:
            segments += [("APP13", _CAPTION + caption)] if (caption := _profile(text)) else []
        elif text and not key.startswith("Raw profile type "):
            segments.append(("COM", (text if key == "Comment" else f"{key}: {text}").encode()))
    return kept_jpeg_segments([(name, content) for name, content in segments if len(content) <= JPEG_SEGMENT])


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
    return profile if profile.startswith(_RESOURCE) else b""
