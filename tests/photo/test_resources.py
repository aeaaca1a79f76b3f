from __future__ import annotations

import struct

from abpn_fast.photo.resources import without_thumbnails


def resource(number: int, content: bytes, name: bytes = b"") -> bytes:
    titled = bytes([len(name)]) + name + bytes((1 + len(name)) % 2)
    return (
        b"8BIM"
        + struct.pack(">H", number)
        + titled
        + struct.pack(">I", len(content))
        + content
        + bytes(len(content) % 2)
    )


def test_thumbnails_are_taken_from_resources() -> None:
    kept = [resource(1028, b"caption"), resource(1005, b"", b"odd"), resource(2000, b"8BIM\x04\x0c", b"even")]
    small = [resource(1036, bytes(99)), resource(1033, bytes(100), b"name")]
    for resources in (small + kept, kept + small, [kept[0], small[0], kept[1], small[1], kept[2]]):
        assert without_thumbnails(b"".join(resources)) == b"".join(kept)
    assert without_thumbnails(b"".join(small)) == b""
    # The last content may lack what makes it even.
    assert without_thumbnails(small[0] + kept[0][:-1]) == kept[0][:-1]


def test_resources_that_are_malformed_stay() -> None:
    whole = resource(1028, b"caption") + resource(1036, bytes(10))
    for resources in (b"", b"8BI", whole[:-2], whole[:30], whole + b"PHUT", whole[:4], whole[:24] + b"more"):
        assert without_thumbnails(resources) == resources
