from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abpn_fast.training import blemishes
from abpn_fast.training.blemishes import KINDS, blemish, draw
from abpn_fast.training.marks import Scene, disc, stroke

kinds = st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3, unique=True)


def photo(height: int = 96, width: int = 128) -> np.ndarray:
    """Skin-coloured, with a gentle slope."""
    slope = np.linspace(0, 0.2, width, dtype=np.float32)[None, :, None]
    return np.broadcast_to(np.float32([0.7, 0.55, 0.45]) + slope, (height, width, 3)).copy()


def damaged(seed: int, **options: float) -> np.ndarray:
    return blemish(photo(), np.random.default_rng(seed), **{"clean": 0.0, **options})


def scene(seed: int = 0, light: float = 0.0, scale: float = 1.0, size: int = 101, grey: float = 0.5) -> Scene:
    """All marks sit at the centre."""
    pixels = np.full((size, size, 3), grey, np.float32)
    return Scene(pixels, np.random.default_rng(seed), scale, light, (size // 2, size // 2), (0, 0))


@settings(max_examples=60, deadline=None)
@given(
    names=kinds,
    seed=st.integers(0, 2**32),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    scale=st.floats(0.5, 8),
    level=st.floats(0, 1, width=32),
)
def test_properties(names: list[str], seed: int, size: tuple[int, int], scale: float, level: float) -> None:
    """Range, dtype, determinism; the input is left alone, and so is what lies outside the region."""
    clean = np.random.default_rng(seed).random((*size, 3), np.float32) * np.float32(level)
    before = clean.copy()
    result, region = draw(clean, np.random.default_rng(seed), names, scale=scale)
    again, _ = draw(clean, np.random.default_rng(seed), names, scale=scale)
    assert np.array_equal(clean, before) and not np.shares_memory(clean, result)
    assert result.dtype == np.float32 and result.shape == clean.shape and region.shape == size
    assert result.min() >= 0 and result.max() <= 1
    assert np.array_equal(result, again)
    assert np.array_equal(result[~region], clean[~region])


def test_the_seed_decides() -> None:
    assert all(np.array_equal(damaged(seed), damaged(seed)) for seed in range(5))
    assert len({damaged(seed).tobytes() for seed in range(5)}) == 5


def test_the_region_is_local() -> None:
    """Something visible changes in nearly every picture, and on average a small part of it."""
    parts = np.array([(np.abs(damaged(seed) - photo()).max(2) > 0.02).mean() for seed in range(100)])
    assert (parts > 0).mean() > 0.95
    assert 0.005 < parts.mean() < 0.25
    assert np.median(parts) < 0.15 and (parts < 0.9).all()


def test_clean_pictures() -> None:
    untouched = [np.array_equal(damaged(seed, clean=0.5), photo()) for seed in range(100)]
    assert 30 < sum(untouched) < 70
    assert all(np.array_equal(damaged(seed, clean=1.0), photo()) for seed in range(5))
    white = np.ones((9, 9, 3), np.float32)
    assert not np.shares_memory(blemish(white, np.random.default_rng(0), clean=1.0), white)


@pytest.mark.parametrize("kind", ["bumps", "creases"])
def test_no_light_is_brighter_than_white(kind: str) -> None:
    white = np.ones((40, 40, 3), np.float32)
    assert all(draw(white, np.random.default_rng(seed), [kind])[0].max() <= 1 for seed in range(5))


@pytest.mark.parametrize("scale", [2.0, 8.0])
def test_as_many_marks_in_as_many_pixels_of_the_thumbnail(scale: float) -> None:
    assert scene(scale=scale, size=int(100 * scale)).count(1e-2) == scene(size=100).count(1e-2) > 10


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_leaves_a_visible_local_mark(kind: str) -> None:
    changed = []
    for seed in range(10):
        marked = scene(seed)
        KINDS[kind](marked)
        changed.append(np.abs(marked.photo - 0.5).max(2) > 0.02)
    assert sum(each.any() for each in changed) >= 9
    assert np.mean(changed) < 0.2
    assert np.mean([each[40:61, 40:61].mean() for each in changed]) > 2 * np.mean(changed)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_marks_grow_with_the_scale(kind: str) -> None:
    def size(scale: float) -> float:
        sizes = []
        for seed in range(12):
            # The same area in thumbnail pixels: as many marks.
            marked = scene(seed, scale=scale, size=int(60 * scale))
            KINDS[kind](marked)
            sizes.append((np.abs(marked.photo - 0.5).max(2) > 0.03).sum())
        return float(np.mean(sizes))

    assert size(4) > 6 * size(1) > 0


def test_every_kind_is_drawn() -> None:
    assert sum(blemishes._SHARES) == pytest.approx(1) and len(blemishes._SHARES) == len(KINDS)


@pytest.mark.parametrize("light", [0.0, 0.5 * np.pi, np.pi, 1.5 * np.pi])
def test_ridges_are_bright_towards_the_light(light: float) -> None:
    """A ridge across the light, and the light from the right, from below, from the left, from above."""
    lit = scene(light=light)
    towards = np.round(lit.to_light).astype(int)
    mark = stroke(lit, length=60, width=6, bend=0.0, turn=light + np.pi / 2)

    class Ridge:
        def random(self) -> float:
            return 1.0

        def uniform(self, low: float, high: float) -> float:
            return low

    lit.shade(blemishes._relief(mark, Ridge()), mark.top, mark.left)
    near, far = (50 + 5 * towards), (50 - 5 * towards)
    assert lit.photo[near[0], near[1], 0] > 0.6 and lit.photo[far[0], far[1], 0] < 0.4


@pytest.mark.parametrize("kind", ["bumps", "creases", "wrinkles"])
def test_relief_in_one_picture_has_one_light(kind: str) -> None:
    """Turning the light by half a turn swaps light and shade."""
    pictures = []
    for light in (0.3, 0.3 + np.pi):
        marked = scene(5, light=light)
        KINDS[kind](marked)
        pictures.append(marked.photo[..., 0] - 0.5)
    one, other = pictures
    flanks = np.abs(one - other) > 0.05
    assert flanks.sum() > 20
    assert np.corrcoef(one[flanks], other[flanks])[0, 1] < 0


def test_a_disc_is_cut_at_the_edge_of_the_photo() -> None:
    """The pixels are those of the whole disc, and nothing is kept for those outside."""
    whole, cut = disc(scene(3, size=201), 40, 0.2), disc(scene(3, size=61), 40, 0.2)
    assert (cut.top, cut.left, cut.alpha.shape) == (0, 0, (61, 61))
    inside = slice(100 - 30 - whole.top, 100 + 31 - whole.top)
    for name in ("alpha", "distance", "dy", "dx"):
        assert np.array_equal(getattr(cut, name), getattr(whole, name)[inside, inside]), name
    assert disc(scene(size=64), 2000, 0.2).alpha.nbytes < 1e5


def test_a_disc_is_where_and_as_large_as_it_is_told() -> None:
    mark = disc(scene(), radius=10, edge=0.2, roughness=0.0)
    assert mark.top + mark.alpha.shape[0] // 2 == 50 and mark.left + mark.alpha.shape[1] // 2 == 50
    assert (mark.alpha > 0.5).sum() == pytest.approx(np.pi * 100, rel=0.05)


def test_no_disc_is_sharper_than_a_pixel() -> None:
    for seed in range(20):
        alpha = disc(scene(seed), radius=4, edge=0.01).alpha
        assert ((alpha > 0.05) & (alpha < 0.95)).sum() > 15
