from __future__ import annotations

from abpn_fast.photo import jpeg_segments


def test_jpeg_segments() -> None:
    segments = [("APP0", b"JFIF"), ("COM", b"hello"), ("APP13", b"Photoshop 3.0\0")]
    assert jpeg_segments.kept(segments) == b"\xff\xfe\0\x07hello\xff\xed\0\x10Photoshop 3.0\0"
