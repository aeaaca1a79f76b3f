"""Image files to train on: found by folder, checked by their headers, decoded one at a time, named when bad."""

from __future__ import annotations

import logging
import os
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from abpn_fast.photo import exif

_log = logging.getLogger(__name__)
EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}
# What Pillow raises for a file that it cannot read, or whose EXIF it cannot.
_BROKEN = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)
_CACHE = 1 << 30

Bad = Literal["refuse", "skip"]
Pixels = NDArray[np.uint8]
_In = TypeVar("_In")
_Out = TypeVar("_Out")


class BadFile(ValueError):
    """A file that cannot be trained on; the message names it and says why."""


def find_photos(folders: Sequence[Path]) -> list[Path]:
    """Every image file below ``folders``, sorted, once each.

    Raises:
        FileNotFoundError: a folder does not exist, or holds no image.
    """
    photos: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"no such folder of photos: {folder}")
        found = images_below(folder)
        if not found:
            raise FileNotFoundError(f"no photo in {folder}; looked for {', '.join(sorted(EXTENSIONS))}")
        for path in found:
            photos.setdefault(path.resolve(), path)
    return list(photos.values())


def images_below(folder: Path) -> list[Path]:
    """The image files in ``folder`` and its subfolders, those that are links included, sorted."""
    found, seen = [], set[str]()
    for here, subfolders, names in os.walk(folder, followlinks=True):
        if (place := os.path.realpath(here)) in seen:
            subfolders.clear()
            continue
        seen.add(place)
        found += [Path(here, name) for name in names if Path(name).suffix.lower() in EXTENSIONS]
    return sorted(path for path in found if path.is_file())


def usable(candidates: Iterable[_In], check: Callable[[_In], _Out], bad: Bad) -> list[_Out]:
    """What ``check`` returns for each candidate.

    Raises:
        BadFile: from the first bad candidate if ``bad`` is ``"refuse"``; else each is named in a warning, and the
            last one counts them.
        ValueError: no candidate is usable.
    """
    kept: list[_Out] = []
    skipped = 0
    for candidate in candidates:
        try:
            kept.append(check(candidate))
        except BadFile as error:
            if bad == "refuse":
                raise
            skipped += 1
            _log.warning("skipped: %s", error)
    if skipped:
        _log.warning("skipped %d of %d", skipped, skipped + len(kept))
        if not kept:
            raise ValueError(f"nothing is left: all {skipped} are bad")
    return kept


def upright_size(path: Path) -> tuple[int, int]:
    """``(width, height)`` of the photo as it is looked at, from its header alone.

    Raises:
        BadFile: it cannot be read.
    """
    try:
        with Image.open(path) as file:
            return file.size[::-1] if _turned(file) else file.size
    except _BROKEN as error:
        raise BadFile(_named(path, error)) from error


def decode(path: Path, size: tuple[int, int] | None = None, *, draft: bool = True) -> Pixels:
    """The photo upright, (H, W, 3), resized to ``size`` (width, height) where it is given.

    ``draft`` lets a JPEG decoder halve on its own, which is quick and differs a little from resizing.

    Raises:
        BadFile: it cannot be read to its end.
    """
    # Opened apart: Pillow keeps what a look at the orientation finds before the pixels, and finds no later one.
    upright = upright_size(path)
    try:
        with Image.open(path) as file:
            turned = file.size != upright
            if draft and size is not None:
                file.draft("RGB", size[::-1] if turned else size)
            promised = file.size[::-1] if turned else file.size
            photo = _upright(file)
        if photo.size != promised:
            raise ValueError(f"its pixels are {photo.size} and its header says {promised}; save it anew, upright")
    except _BROKEN as error:
        raise BadFile(_named(path, error)) from error
    if size is not None and photo.size != size:
        photo = photo.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(photo)


class Photo(Sequence[Pixels]):
    """One photo at a number of sizes, each half as large as the one before, decoded when asked for.

    Args:
        path: of the file.
        longest: the first size is at most this long.
        smallest: the last size is the last whose halves would be shorter than this.

    Raises:
        BadFile: the header cannot be read.
    """

    def __init__(self, path: Path, longest: int = 3072, smallest: int = 384) -> None:
        self.path = path
        width, height = upright_size(path)
        scale = min(longest / max(width, height), 1)
        sizes = [(max(round(width * scale), 1), max(round(height * scale), 1))]
        while min(sizes[-1]) >= 2 * smallest:
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
        self.shapes = [(height, width, 3) for width, height in sizes]

    def __len__(self) -> int:
        return len(self.shapes)

    @overload
    def __getitem__(self, index: int) -> Pixels: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pixels]: ...
    def __getitem__(self, index: int | slice) -> Pixels | list[Pixels]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        height, width, _ = self.shapes[index]
        return _cache.get(self.path, (width, height))


def load_photos(paths: Iterable[Path], longest: int = 3072, bad: Bad = "refuse") -> list[Photo]:
    """Each photo, its header checked; pixels are decoded when a crop needs them, the last gigabyte of them is kept.

    Raises:
        BadFile, ValueError: as for :func:`usable`.
    """
    return usable(paths, lambda path: Photo(path, longest), bad)


class _Cache:
    """What was decoded last, so that a small folder is decoded once."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self.photos: OrderedDict[tuple[Path, tuple[int, int]], Pixels] = OrderedDict()

    def get(self, path: Path, size: tuple[int, int]) -> Pixels:
        key = path, size
        if key in self.photos:
            self.photos.move_to_end(key)
            return self.photos[key]
        pixels = self.photos[key] = decode(path, size)
        self.held += pixels.nbytes
        while self.held > self.limit:
            self.held -= self.photos.popitem(last=False)[1].nbytes
        return pixels


_cache = _Cache(_CACHE)


def _rgb(photo: Image.Image) -> Image.Image:
    """Pillow's own conversion cuts grey levels above 255 off."""
    if photo.mode == "F":
        raise ValueError("its grey levels are floating-point numbers; save it with 8 or 16 bits")
    if photo.mode.startswith("I"):
        levels = np.asarray(photo).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("its grey levels are not within 0 and 65535; save it with 8 or 16 bits")
        photo = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    return photo.convert("RGB")


def _upright(file: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose, which writes EXIF anew and fails where a value has an unusual type.
    photo = _rgb(file)
    turn = exif.TURNS.get(file.getexif().get(exif.ORIENTATION, 1))
    return photo if turn is None else Image.fromarray(np.ascontiguousarray(turn(np.asarray(photo))))


def _turned(file: Image.Image) -> bool:
    # Pillow turns a TIFF on its own, size and pixels.
    if file.format == "TIFF":
        return False
    # Not PNG's own getexif, which decodes the whole file to look behind the pixels.
    return Image.Image.getexif(file).get(exif.ORIENTATION, 1) in (5, 6, 7, 8)


def _named(path: Path, error: Exception) -> str:
    reason = str(error).replace(str(path), "").strip(" :'\"") or type(error).__name__
    return f"{path} cannot be read: {reason}"
