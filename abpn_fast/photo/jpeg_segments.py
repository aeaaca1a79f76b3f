"""What the segments of a JPEG file say besides EXIF and XMP: comments, captions, extended XMP."""

from __future__ import annotations

import struct

from abpn_fast.photo.resources import without_thumbnails

Segments = list[tuple[str, bytes]]
CAPTION = b"Photoshop 3.0\0"
_XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
# What a segment of a JPEG file holds at most, in bytes.
LONGEST = 65533
_MARKERS = {"COM": b"\xff\xfe", "APP13": b"\xff\xed", "APP1": b"\xff\xe1"}


def kept(segments: Segments) -> bytes:
    """Comments, IPTC captions and extended XMP of a JPEG file, as the markers and contents to write."""
    return b"".join(
        _MARKERS[name] + struct.pack(">H", len(content) + 2) + content
        for name, content in segments
        if name in ("COM", "APP13") or (name == "APP1" and content.startswith(_XMP_EXTENSION))
    )


def cut_thumbnails(segments: Segments) -> Segments:
    """The segments of a JPEG file, Photoshop's cut anew where a thumbnail was among their resources."""
    resources = resources_of(segments)
    fewer = without_thumbnails(resources)
    if fewer == resources:
        return segments
    others = [(name, content) for name, content in segments if name != "APP13" or not content.startswith(CAPTION)]
    return others + _resource_segments(fewer)


def resources_of(segments: Segments) -> bytes:
    """Photoshop's resources, IPTC captions among them, of a JPEG file."""
    return b"".join(
        content[len(CAPTION) :] for name, content in segments if name == "APP13" and content.startswith(CAPTION)
    )


def from_resources(resources: bytes) -> bytes:
    """Photoshop's resources as segments of a JPEG file."""
    return kept(_resource_segments(resources))


def _resource_segments(resources: bytes) -> Segments:
    step = LONGEST - len(CAPTION)
    return [("APP13", CAPTION + resources[at : at + step]) for at in range(0, len(resources), step)]
