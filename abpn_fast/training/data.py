"""From the options of a run to its batches and to what it is measured on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from abpn_fast.training.batches import Batches, Crops, Pair
from abpn_fast.training.evaluate import held_out, measurable
from abpn_fast.training.files import find_photos, load_photos
from abpn_fast.training.options import Options
from abpn_fast.training.pairs import HeldOutPairs, PairedPhotos, find_pairs
from abpn_fast.training.photos import BlemishedCrops

_log = logging.getLogger(__name__)
# Photos or pairs: enough for a figure while training; `abpn-fast evaluate` takes all.
_MEASURED = 50


class Data(NamedTuple):
    """Batches, pairs to measure on, and how many photos or pairs an epoch has."""

    batches: Batches
    validation: Sequence[Pair]
    epoch: int


def prepare(options: Options, part: tuple[int, int] = (0, 1)) -> Data:
    """Find and check the files; ``part`` as for :class:`Batches`.

    Where nothing can be measured, ``validation`` is empty, with a warning.

    Raises:
        FileNotFoundError, ValueError: a folder or a file cannot be used; the message names it.
    """
    data = _pairs(options, part) if options.recipe == "paper" else _photos(options, part)
    if any(map(measurable, data.validation)):
        return data
    _log.warning("nothing is measured while training: no kept pair has a changed region smaller than the photo")
    return data._replace(validation=[])


def _photos(options: Options, part: tuple[int, int]) -> Data:
    factor, rest = divmod(options.batch, 8)
    if not options.validation:
        # A mistyped folder of pairs is taken for one of photos.
        missing = next((folder for folder in options.photos if not folder.is_dir()), None)
        if missing is not None:
            raise FileNotFoundError(f"no such folder: {missing}")
        raise ValueError("the synthetic recipe needs photos to measure on; give --validation a folder of them")
    if rest or not factor:
        raise ValueError(f"batch must be a multiple of 8 for the synthetic recipe, got {options.batch}")
    measured, learned = find_photos(options.validation), find_photos(options.photos)
    shared = {path.resolve() for path in measured} & {path.resolve() for path in learned}
    if shared:
        _log.warning("%d photos are trained on and measured on as well, %s for one", len(shared), min(shared))
    kept = load_photos(measured[:: -(-len(measured) // _MEASURED)], bad=options.bad)
    validation = held_out(kept, bad=options.bad)
    photos = load_photos(learned, bad=options.bad)
    total = options.total(len(photos))
    more = {"factor": factor, "part": part, "bad": options.bad}
    return Data(BlemishedCrops(photos, total, options.seed, options.schedule, **more), validation, len(photos))


def _pairs(options: Options, part: tuple[int, int]) -> Data:
    if len(options.photos) != 1:
        raise ValueError(f"the paper's recipe takes one folder of pairs, got {len(options.photos)}")
    thumbnail = -(-options.size // 2**options.levels)
    if options.batch == 1 and thumbnail <= 64:
        raise ValueError(
            f"a batch of 1 with a thumbnail of {thumbnail} pixels leaves batch norm a single value of each channel; "
            "give a larger batch or size, or fewer levels"
        )
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
    kept = HeldOutPairs(split.validation, kind.levels, kind.size, _MEASURED)
    kept.check(options.bad)
    return Data(batches, kept, len(split.train))
