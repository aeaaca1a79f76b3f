"""Training pairs from a folder of clean photos: random crops, flipped, with blemishes drawn on them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from abpn_fast.training.blemishes import blemish

_log = logging.getLogger(__name__)
_EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}


class Crops(NamedTuple):
    """One batch: how often the crop is halved before the retouching layer, its pixels, how many crops."""

    levels: int
    size: int
    batch: int


# The same work per batch at every level; one set of weights then serves any number of levels.
SCHEDULE = (Crops(0, 192, 8), Crops(0, 256, 6), Crops(1, 320, 8), Crops(1, 384, 6), Crops(2, 512, 4), Crops(3, 768, 2))
_SHARES = (0.25, 0.2, 0.25, 0.15, 0.12, 0.03)


class Pair(NamedTuple):
    """A batch: ``image`` with blemishes and ``target`` without, (N, 3, H, W) uint8; the levels to train it with."""

    image: Tensor
    target: Tensor
    levels: int


def find_photos(folders: Sequence[Path]) -> list[Path]:
    """Every image file below ``folders``, sorted.

    Raises:
        FileNotFoundError: a folder does not exist, or holds no image.
    """
    photos: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"no such folder of photos: {folder}")
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _EXTENSIONS)
        if not found:
            raise FileNotFoundError(f"no photo in {folder}; looked for {', '.join(sorted(_EXTENSIONS))}")
        photos += found
    return photos


def load_photos(paths: Iterable[Path], longest: int = 3072) -> list[list[NDArray[np.uint8]]]:
    """Each photo as a list of (H, W, 3) arrays, halved until 384 pixels would no longer fit; about 4 MB a megapixel.

    A file that cannot be read is named in a warning and left out.
    """
    loaded = []
    for path in paths:
        try:
            with Image.open(path) as file:
                photo = ImageOps.exif_transpose(file).convert("RGB")
        except OSError as error:
            _log.warning("left out %s: %s", path, error)
            continue
        photo.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        sizes = [photo]
        while min(sizes[-1].size) >= 768:
            sizes.append(sizes[-1].reduce(2))
        loaded.append([np.asarray(size) for size in sizes])
    return loaded


class BlemishedCrops(Dataset[Pair]):
    """Batch ``n`` is a function of ``(seed, n)`` alone, so a resumed run sees what an uninterrupted one would.

    Args:
        photos: from :func:`load_photos`.
        steps: how many batches there are.
        seed: of everything random.
        schedule: the kinds of batches to draw from.
    """

    def __init__(
        self, photos: list[list[NDArray[np.uint8]]], steps: int, seed: int, schedule: Sequence[Crops] = SCHEDULE
    ) -> None:
        self.photos, self.steps, self.seed, self.schedule = photos, steps, seed, schedule
        self.shares = np.array(_SHARES[: len(schedule)]) / sum(_SHARES[: len(schedule)])

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Pair:
        rng = np.random.default_rng([self.seed, step])
        levels, size, batch = self.schedule[rng.choice(len(self.schedule), p=self.shares)]
        pairs = [self._pair(rng, levels, size) for _ in range(batch)]
        image, target = (
            torch.from_numpy(np.stack(part)).permute(0, 3, 1, 2).contiguous() for part in zip(*pairs, strict=True)
        )
        return Pair(image, target, levels)

    def _pair(self, rng: np.random.Generator, levels: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        clean = _crop(self.photos[rng.integers(len(self.photos))], rng, size)
        photo: NDArray[np.float32] = clean.astype(np.float32) / np.float32(255)
        if rng.random() < 0.5:  # exposure and white balance
            gain = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.04, 3)).astype(np.float32)
            photo = np.clip(photo * gain, 0, 1, dtype=np.float32)
            clean = _to_uint8(photo)
        return _to_uint8(blemish(photo, rng, scale=2**levels)), clean


def _to_uint8(photo: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.rint(photo * 255).astype(np.uint8)


def _crop(sizes: list[NDArray[np.uint8]], rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """A square crop from a random halving of the photo, turned and flipped; a smaller photo is mirrored outwards."""
    fitting = [photo for photo in sizes if min(photo.shape[:2]) >= size] or sizes[:1]
    photo = fitting[rng.integers(len(fitting))]
    top = rng.integers(max(photo.shape[0] - size, 0) + 1)
    left = rng.integers(max(photo.shape[1] - size, 0) + 1)
    crop = photo[top : top + size, left : left + size]
    missing = [(0, size - crop.shape[0]), (0, size - crop.shape[1]), (0, 0)]
    crop = np.pad(crop, missing, mode="symmetric")
    crop = np.rot90(crop, rng.choice((0, 0, 0, 1, 3)))
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)
