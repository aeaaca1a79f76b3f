"""Training pairs from a folder of clean photos: random crops, flipped, with blemishes drawn on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abpn_fast.training.batches import Batches, Crops, Pair
from abpn_fast.training.blemishes import blemish
from abpn_fast.training.files import Photo, Pixels, find_photos, load_photos

__all__ = ["SCHEDULE", "BlemishedCrops", "Crops", "Pair", "find_photos", "load_photos"]

# The same work per batch at every level; one set of weights then serves any number of levels.
SCHEDULE = (Crops(0, 192, 8), Crops(0, 256, 6), Crops(1, 320, 8), Crops(1, 384, 6), Crops(2, 512, 4), Crops(3, 768, 2))
_SHARES = (0.25, 0.2, 0.25, 0.15, 0.12, 0.03)


class BlemishedCrops(Batches):
    """Crops of random halvings of the photos, damaged; the target is the crop as it was.

    Args:
        photos: from :func:`load_photos`, or each a list of (H, W, 3) arrays, halved from one to the next.
        steps, seed, more: as for :class:`Batches`.
        schedule: the kinds of batches to draw from, alike often where there are more than six.
    """

    def __init__(
        self,
        photos: Sequence[Sequence[Pixels]],
        steps: int,
        seed: int,
        schedule: Sequence[Crops] = SCHEDULE,
        **more: Any,
    ) -> None:
        self.photos, self.schedule = photos, schedule
        shares = _SHARES[: len(schedule)] if len(schedule) <= len(_SHARES) else (1.0,) * len(schedule)
        self.shares = np.array(shares) / sum(shares)
        super().__init__(steps, seed, **more)

    def kinds(self) -> list[Crops]:
        """The whole schedule."""
        return list(self.schedule)

    def kind(self, rng: np.random.Generator) -> Crops:
        """One of the schedule."""
        return self.schedule[rng.choice(len(self.schedule), p=self.shares)]

    def item(self, rng: np.random.Generator, kind: Crops, position: int) -> tuple[Pixels, Pixels]:
        """A crop with blemishes, and without."""
        clean = _crop(self.photos[int(rng.integers(len(self.photos)))], rng, kind.size)
        photo: NDArray[np.float32] = clean.astype(np.float32) / np.float32(255)
        if rng.random() < 0.5:  # exposure and white balance
            gain = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.04, 3)).astype(np.float32)
            photo = np.clip(photo * gain, 0, 1, dtype=np.float32)
            clean = _to_uint8(photo)
        return _to_uint8(blemish(photo, rng, scale=2**kind.levels)), clean


def _to_uint8(photo: NDArray[np.float32]) -> Pixels:
    return np.rint(photo * 255).astype(np.uint8)


def _crop(sizes: Sequence[Pixels], rng: np.random.Generator, size: int) -> Pixels:
    """A square crop from a random halving of the photo, turned and flipped; a smaller photo is mirrored outwards."""
    shapes = sizes.shapes if isinstance(sizes, Photo) else [photo.shape for photo in sizes]
    fitting = [index for index, shape in enumerate(shapes) if min(shape[:2]) >= size] or [0]
    photo = sizes[fitting[int(rng.integers(len(fitting)))]]
    top = rng.integers(max(photo.shape[0] - size, 0) + 1)
    left = rng.integers(max(photo.shape[1] - size, 0) + 1)
    crop = photo[top : top + size, left : left + size]
    missing = [(0, size - crop.shape[0]), (0, size - crop.shape[1]), (0, 0)]
    crop = np.pad(crop, missing, mode="symmetric")
    crop = np.rot90(crop, rng.choice((0, 0, 0, 1, 3)))
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)
