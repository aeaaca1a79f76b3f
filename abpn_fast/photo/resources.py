"""Photoshop's image resources, IPTC captions among them, kept byte for byte but for thumbnails."""

from __future__ import annotations

import struct

SIGNATURE = b"8BIM"
_IPTC = SIGNATURE + b"\x04\x04"
# By number: small pictures of the photo, of two versions of Photoshop.
_THUMBNAILS = (1033, 1036)


def without_thumbnails(resources: bytes) -> bytes:
    """Photoshop's resources but for thumbnails, which show the photo unretouched; malformed ones as they are."""
    kept, at = [], 0
    while resources.startswith(SIGNATURE, at) and at + 8 <= len(resources):
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


def with_iptc(resources: bytes, iptc: bytes) -> bytes:
    """Photoshop's resources with the IPTC caption that a TIFF file may have beside them."""
    if not iptc or _IPTC in resources:
        return resources
    return resources + _IPTC + struct.pack(">HI", 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
