"""An XMP packet, kept byte for byte but for the orientation and what only a JPEG file can have."""

from __future__ import annotations

import re


def orientation(xmp: bytes) -> int:
    """What an XMP packet says, 1 to 8; 1 where it says nothing."""
    found = re.search(rb"tiff:Orientation(?:=[\"']|>)([1-8])", xmp)
    return int(found[1]) if found else 1


def upright(xmp: bytes) -> bytes:
    """The XMP packet with every ``tiff:Orientation`` at 1."""
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>))[1-8]", rb"\g<1>1", xmp)


def without_extension(xmp: bytes) -> bytes:
    """The XMP packet without its reference to further segments, which only a JPEG file can have."""
    return re.sub(rb"\s*xmpNote:HasExtendedXMP=([\"'])\w*\1|<xmpNote:HasExtendedXMP>.*?</[^>]*>", b"", xmp)
