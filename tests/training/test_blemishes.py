from __future__ import annotations

import numpy as np
import pytest

from abpn_fast.training import blemishes
from abpn_fast.training.blemishes import blemish

KINDS = list(enumerate(kind.__name__.strip("_") for kind in blemishes._KINDS))


def photo(height: int = 96, width: int = 128) -> np.ndarray:
    """Skin-coloured, with a gentle slope."""
    slope = np.linspace(0, 0.2, width, dtype=np.float32)[None, :, None]
    return np.broadcast_to(np.float32([0.7, 0.55, 0.45]) + slope, (height, width, 3)).copy()


def draw(seed: int, **options: float) -> np.ndarray:
    return blemish(photo(), np.random.default_rng(seed), **{"clean": 0.0, **options})


def test_the_seed_decides() -> None:
    assert all(np.array_equal(draw(seed), draw(seed)) for seed in range(5))
    assert len({draw(seed).tobytes() for seed in range(5)}) == 5


@pytest.mark.parametrize("dark", [0.0, 1.0])
def test_range_and_dtype(dark: float) -> None:
    for seed in range(20):
        damaged = blemish(np.full((50, 70, 3), 1 - dark, np.float32), np.random.default_rng(seed), clean=0.0)
        assert damaged.dtype == np.float32 and damaged.shape == (50, 70, 3)
        assert damaged.min() >= 0 and damaged.max() <= 1


def test_the_photo_is_left_as_it_is() -> None:
    clean = photo()
    damaged = blemish(clean, np.random.default_rng(1), clean=0.0)
    assert np.array_equal(clean, photo())
    assert not np.shares_memory(clean, damaged)


def test_the_region_is_local() -> None:
    """Something visible changes in nearly every picture, and on average a small part of it."""
    parts = np.array([(np.abs(draw(seed) - photo()).max(2) > 0.02).mean() for seed in range(100)])
    assert (parts > 0).mean() > 0.95
    assert 0.005 < parts.mean() < 0.25
    assert np.median(parts) < 0.15 and (parts < 0.9).all()


def test_clean_pictures() -> None:
    untouched = [np.array_equal(draw(seed, clean=0.5), photo()) for seed in range(100)]
    assert 30 < sum(untouched) < 70
    assert all(np.array_equal(draw(seed, clean=1.0), photo()) for seed in range(5))


@pytest.mark.parametrize(("index", "kind"), KINDS, ids=[name for _, name in KINDS])
def test_every_kind_leaves_a_local_mark(index: int, kind: str) -> None:
    changed = []
    for seed in range(10):
        damaged = photo()
        blemishes._KINDS[index](damaged, np.random.default_rng(seed), 1.0, lambda: (48.3, 60.6))
        assert np.isfinite(damaged).all()
        changed.append(np.abs(damaged - photo()).max(2) > 0.02)
    assert sum(each.any() for each in changed) >= 9, kind
    assert np.mean(changed) < 0.2
    assert np.mean([each[38:58, 50:70].mean() for each in changed]) > 2 * np.mean(changed)


def test_marks_grow_with_the_scale() -> None:
    def size(scale: float) -> float:
        damaged = np.full((256, 256, 3), 0.5, np.float32)
        blemishes._moles(damaged, np.random.default_rng(3), scale, lambda: (128.0, 128.0))
        return float((damaged < 0.48).any(2).sum())

    assert size(4) > 3 * size(1) > 0


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (5, 3)], ids=str)
def test_tiny_photos(size: tuple[int, int]) -> None:
    for seed in range(10):
        assert np.isfinite(blemish(photo(*size), np.random.default_rng(seed), scale=4.0, clean=0.0)).all()
