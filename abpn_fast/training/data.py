"""From the options of a run to its batches and to what it is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from abpn_fast.training.batches import Batches, Crops, Pair
from abpn_fast.training.evaluate import held_out
from abpn_fast.training.files import find_photos, load_photos
from abpn_fast.training.options import Options
from abpn_fast.training.pairs import HeldOutPairs, PairedPhotos, find_pairs
from abpn_fast.training.photos import BlemishedCrops

# Enough for a figure while training; `abpn-fast evaluate` takes all.
_MEASURED = 50


class Data(NamedTuple):
    """Batches, pairs to measure on, and how many photos or pairs an epoch has."""

    batches: Batches
    validation: Sequence[Pair]
    epoch: int


def prepare(options: Options, part: tuple[int, int] = (0, 1)) -> Data:
    """Find and check the files; ``part`` as for :class:`Batches`.

    Raises:
        FileNotFoundError, ValueError: a folder or a file cannot be used; the message names it.
    """
    return _pairs(options, part) if options.recipe == "paper" else _photos(options, part)


def _photos(options: Options, part: tuple[int, int]) -> Data:
    factor, rest = divmod(options.batch, 8)
    if rest or not factor:
        raise ValueError(f"batch must be a multiple of 8 for the synthetic recipe, got {options.batch}")
    if not options.validation:
        raise ValueError("the synthetic recipe needs photos to measure on; give --validation a folder of them")
    validation = held_out(load_photos(find_photos(options.validation), bad=options.bad))
    photos = load_photos(find_photos(options.photos), bad=options.bad)
    total = options.total(len(photos))
    more = {"factor": factor, "part": part, "bad": options.bad}
    return Data(BlemishedCrops(photos, total, options.seed, options.schedule, **more), validation, len(photos))


def _pairs(options: Options, part: tuple[int, int]) -> Data:
    if len(options.photos) != 1:
        raise ValueError(f"the paper's recipe takes one folder of pairs, got {len(options.photos)}")
    split = find_pairs(options.photos[0], bad=options.bad)
    if not split.train or not split.validation:
        found = f"{len(split.train)} pairs for training, {len(split.validation)} to measure on"
        raise ValueError(f"{options.photos[0]} has {found}; it takes one of each at least")
    kind = Crops(options.levels, options.size, options.batch)
    batches = PairedPhotos(
        split.train,
        options.total(len(split.train)),
        options.seed,
        kind,
        crop=options.crop,
        part=part,
        bad=options.bad,
    )
    return Data(batches, HeldOutPairs(split.validation, kind.levels, kind.size, _MEASURED), len(split.train))
