from __future__ import annotations

import pytest

from abpn_fast.photo import xmp


@pytest.mark.parametrize(
    "form", ['tiff:Orientation="%d"', "tiff:Orientation='%d'", "<tiff:Orientation>%d</tiff:Orientation>"]
)
def test_xmp_orientation_is_reset(form: str) -> None:
    packet = f"<x {form % 8} other='8'/>"
    assert xmp.upright(packet.encode()).decode() == f"<x {form % 1} other='8'/>"
