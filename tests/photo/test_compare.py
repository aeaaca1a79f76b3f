from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from abpn_fast.photo.compare import changes, compare

BEFORE, AFTER = (200, 120, 90), (90, 120, 200)


def share(sheet: Image.Image, colour: tuple[int, int, int]) -> float:
    return float((np.asarray(sheet) == colour).all(2).mean())


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (300, 300)])
def test_three_panels(size: tuple[int, int]) -> None:
    sheet = compare(Image.new("RGB", size, BEFORE), Image.new("RGB", size, AFTER))
    width, height = sheet.size
    assert (width >= 3 * size[0]) == (size[0] <= size[1])
    assert (height >= 3 * size[1]) == (size[0] > size[1])
    panel = size[0] * size[1] / (width * height)
    assert share(sheet, BEFORE) == pytest.approx(panel)
    assert share(sheet, AFTER) == pytest.approx(panel)
    where = {colour: np.argwhere((np.asarray(sheet) == colour).all(2)).mean(0) for colour in (BEFORE, AFTER)}
    axis = 1 if size[0] <= size[1] else 0
    assert where[BEFORE][axis] < where[AFTER][axis]


def test_each_panel_has_a_caption() -> None:
    grey = Image.new("RGB", (400, 500), (128, 128, 128))
    sheet = np.asarray(compare(grey, grey).convert("L"))
    captions = sheet[: sheet.shape[0] - 500]
    thirds = np.array_split(captions, 3, axis=1)
    assert all((third < 50).sum() > 50 for third in thirds)


def test_panels_are_at_most_1600_pixels_long() -> None:
    tall = Image.new("RGB", (1200, 2000))
    assert 1600 < compare(tall, tall).height < 1800


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (64, 3)])
def test_every_mode_and_small_sizes(mode: str, size: tuple[int, int]) -> None:
    picture = Image.new(mode, size)
    assert compare(picture, picture).mode == "RGB"


def test_changes_show_direction_and_amount() -> None:
    before = np.full((1, 4, 3), 100, np.uint8)
    after = before.copy()
    after[0, 1] += 40
    after[0, 2] -= 40
    after[0, 3, 1] += 4
    shown = np.asarray(changes(Image.fromarray(before), Image.fromarray(after)))[0]
    assert (shown == [[40, 40, 40], [255, 150, 0], [0, 150, 255], shown[3]]).all()
    assert 40 < shown[3, 0] < 100
