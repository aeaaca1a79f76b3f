"""Training pairs from folders of photos and their retouched versions.

Layouts, by the names of the two folders in the one that is given; files are paired by their path below them, whatever
their extension:

- ``src/``, ``gt/``: divided by a seed; or ``train/src/``, ``train/gt/``, ``test/src/``, ``test/gt/``: as they lie.
- ``CRHD-3K_src/``, ``CRHD-3K_gt/``: the two archives of CRHD-3K. Its authors divided it at random into 2 522 and 500
  and published no list; here a seed does.
- ``ffhq/``, ``ffhqr/``: FFHQ and FFHQR, ``00000.png`` to ``69999.png`` at any depth, paired by number and divided as
  FFHQR's authors do: below 56000 for training, below 63000 for validation, the rest for the test.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from abpn_fast.training.batches import Batches, Crops, Pair
from abpn_fast.training.files import Bad, BadFile, Pixels, decode, images_below, upright_size, usable

_FFHQR = ("ffhq", "ffhqr")
_LAYOUTS = (("src", "gt"), ("CRHD-3K_src", "CRHD-3K_gt"), _FFHQR)
_FFHQR_TRAIN, _FFHQR_VALIDATION = 56_000, 63_000
_JPEG = {".jpg", ".jpeg"}


class PairFiles(NamedTuple):
    """A photo and its retouched version: files, and their (width, height)."""

    image: Path
    target: Path
    size: tuple[int, int]


class Split(NamedTuple):
    """Pairs to train on, to measure on while training, and to report on in the end."""

    train: list[PairFiles]
    validation: list[PairFiles]
    test: list[PairFiles]


def is_paired(folder: Path) -> bool:
    """Whether ``folder`` has one of the layouts."""
    return any(_layout(each) is not None for each in (folder, folder / "train", folder / "test"))


def find_pairs(folder: Path, *, seed: int = 0, bad: Bad = "refuse") -> Split:
    """The pairs of a folder, divided.

    Args:
        folder: in one of the layouts above.
        seed: of the division where the layout has none of its own: 500 of 3 022, as in the paper, at least one, are for
            the test, and for validation too. They are those of the least hashes of seed and name: a pair more or less
            moves one other at most.
        bad: ``"refuse"``, or ``"skip"`` a photo without a target, a target without a photo, unequal sizes and files
            whose header cannot be read.

    Raises:
        FileNotFoundError: no such folder or layout, or no image in it.
        BadFile: a pair is bad and not to be skipped.
        ValueError: fewer than two pairs.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of pairs: {folder}")
    names = _layout(folder)
    if names == _FFHQR:
        return _by_number(_pairs(folder, names, bad))
    if names is not None:
        return _by_seed(_pairs(folder, names, bad), folder, seed)
    train, test = _layout(folder / "train"), _layout(folder / "test")
    if train is None and test is None:
        known = ", ".join(f"{image}/ and {target}/" for image, target in _LAYOUTS)
        raise FileNotFoundError(
            f"no pairs in {folder}: it needs {known}, or train/ and test/ with src/ and gt/ in each"
        )
    learned = [] if train is None else _pairs(folder / "train", train, bad)
    if test is None:
        return _by_seed(learned, folder, seed)
    held_out = _pairs(folder / "test", test, bad)
    return Split(learned, held_out, held_out)


class PairedPhotos(Batches):
    """Batches of pairs, every pair once before any comes again; image and target are cut and flipped alike.

    Args:
        pairs: from :func:`find_pairs`.
        steps, seed, more: as for :class:`Batches`.
        kind: of every batch.
        crop: take random crops of a random halving of the photo. Otherwise, as in the paper, photos are resized to the
            size along their longer side, and padded to the right or below with the target's last column or row.
        flip: mirror every other pair.
    """

    def __init__(
        self,
        pairs: Sequence[PairFiles],
        steps: int,
        seed: int,
        kind: Crops,
        *,
        crop: bool = False,
        flip: bool = True,
        **more: Any,
    ) -> None:
        self.pairs, self.only, self.crop, self.flip = pairs, kind, crop, flip
        self._order: tuple[int, NDArray[np.int64]] = -1, np.empty(0, np.int64)
        super().__init__(steps, seed, **more)

    def kinds(self) -> list[Crops]:
        """The only one."""
        return [self.only]

    def kind(self, rng: np.random.Generator) -> Crops:
        """The only one."""
        return self.only

    def item(self, rng: np.random.Generator, kind: Crops, position: int) -> tuple[Pixels, Pixels]:
        """A pair, cut or padded to ``kind.size``."""
        epoch, index = divmod(position, len(self.pairs))
        if epoch != self._order[0]:
            self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.pairs))
        pair = self.pairs[self._order[1][index]]
        image, target = _cut(pair, rng, kind.size) if self.crop else _whole(pair, kind.size)
        if self.flip and rng.random() < 0.5:
            image, target = image[:, ::-1], target[:, ::-1]
        return image, target


class HeldOutPairs(Sequence[Pair]):
    """Pairs to measure on, one at a time, resized and padded as in the paper; decoded when asked for.

    Args:
        pairs: from :func:`find_pairs`.
        levels, size: as in :class:`Crops`.
        most: how many of them, evenly spread; None for all.
    """

    def __init__(self, pairs: Sequence[PairFiles], levels: int, size: int, most: int | None = None) -> None:
        pairs = pairs if most is None else pairs[:: -(-len(pairs) // most)]
        kind = Crops(levels, size, 1)
        self.batches = [PairedPhotos([pair], 1, 0, kind, flip=False) for pair in pairs]

    def check(self, bad: Bad) -> None:
        """Decode each once, so that a bad one is named or left out now.

        Raises:
            BadFile, ValueError: as for :func:`usable`.
        """

        def decoded(batches: PairedPhotos) -> PairedPhotos:
            batches[0]
            return batches

        try:
            self.batches = usable(self.batches, decoded, bad)
        except BadFile:
            raise
        except ValueError as error:
            raise ValueError(f"of the pairs kept to measure on {error}; mend them or take them away") from None

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: Any) -> Any:
        return [batch[0] for batch in self.batches[index]] if isinstance(index, slice) else self.batches[index][0]


def _layout(folder: Path) -> tuple[str, str] | None:
    """The names of its two folders; one of them is enough, so that the other is missed by name."""
    return next((names for names in _LAYOUTS if any((folder / name).is_dir() for name in names)), None)


def _pairs(folder: Path, names: tuple[str, str], bad: Bad) -> list[PairFiles]:
    images, targets = (_by_name(folder / name, numbered=names == _FFHQR) for name in names)

    def check(name: Path) -> PairFiles:
        if name not in targets:
            raise BadFile(f"{images[name][0]} has no target in {folder / names[1]}")
        if name not in images:
            raise BadFile(f"{targets[name][0]} has no photo in {folder / names[0]}")
        for files in (images[name], targets[name]):
            if len(files) > 1:
                raise BadFile(f"{files[0]} and {files[1]} are named alike; keep one of them")
        (image,), (target,) = images[name], targets[name]
        size, other = upright_size(image), upright_size(target)
        if size != other:
            raise BadFile(f"{image} is {size[0]} x {size[1]} and its target {other[0]} x {other[1]}")
        return PairFiles(image, target, size)

    return usable(sorted(images.keys() | targets.keys()), check, bad)


def _by_name(folder: Path, *, numbered: bool) -> dict[Path, list[Path]]:
    """The files of each name; more than one is a mistake."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    named: dict[Path, list[Path]] = {}
    for path in images_below(folder):
        if not numbered or path.stem.isdigit():
            name = Path(path.stem) if numbered else path.relative_to(folder).with_suffix("")
            named.setdefault(name, []).append(path)
    if not named:
        raise FileNotFoundError(f"no photo in {folder}")
    return named


def _by_seed(pairs: list[PairFiles], folder: Path, seed: int) -> Split:
    if len(pairs) < 2:
        raise ValueError(f"{folder} has {len(pairs)} pair; it takes two, one of them to measure on")

    def hashed(pair: PairFiles) -> bytes:
        name = Path(os.path.relpath(pair.image, folder)).with_suffix("").as_posix()
        return hashlib.sha256(os.fsencode(f"{seed} {name}")).digest()

    held_out = set(sorted(pairs, key=hashed)[: max(len(pairs) * 500 // 3022, 1)])
    test = [pair for pair in pairs if pair in held_out]
    return Split([pair for pair in pairs if pair not in held_out], test, test)


def _by_number(pairs: list[PairFiles]) -> Split:
    def between(first: int, last: int) -> list[PairFiles]:
        return [pair for pair in pairs if first <= int(pair.image.stem) < last]

    return Split(between(0, _FFHQR_TRAIN), between(_FFHQR_TRAIN, _FFHQR_VALIDATION), between(_FFHQR_VALIDATION, 70_000))


def _both(pair: PairFiles, size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    # Halved by the decoder or not, but both alike: the difference of the two ways would look like retouching.
    draft = all(path.suffix.lower() in _JPEG for path in pair[:2])
    image, target = (decode(path, size, draft=draft) for path in pair[:2])
    return image, target


def _whole(pair: PairFiles, size: int) -> tuple[Pixels, Pixels]:
    width, height = pair.size
    fitted = (max(round(width * size / max(pair.size)), 1), max(round(height * size / max(pair.size)), 1))
    return _padded(*_both(pair, fitted), size, "edge")


def _cut(pair: PairFiles, rng: np.random.Generator, size: int) -> tuple[Pixels, Pixels]:
    halvings = int(np.log2(max(min(pair.size) / size, 1)))
    factor = 2 ** int(rng.integers(halvings + 1))
    width, height = (-(-side // factor) for side in pair.size)
    top, left = (int(rng.integers(max(side - size, 0) + 1)) for side in (height, width))
    image, target = (pixels[top : top + size, left : left + size] for pixels in _both(pair, (width, height)))
    return _padded(image, target, size, "symmetric")


def _padded(image: Pixels, target: Pixels, size: int, mode: Any) -> tuple[Pixels, Pixels]:
    """Both padded by the target's pixels: a blemish at the edge would be repeated all over the padding."""
    height, width = target.shape[:2]
    padded = np.pad(target, [(0, size - height), (0, size - width), (0, 0)], mode=mode)
    damaged = padded.copy()
    damaged[:height, :width] = image
    return damaged, padded
