"""Quality on held-out pairs, inside and outside the changed region, always beside doing nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from abpn_fast.reference import ABPN, Retouched
from abpn_fast.reference.pixels import to_unit
from abpn_fast.training.classical import Method
from abpn_fast.training.files import Bad, Photo, usable
from abpn_fast.training.losses import changed_region, mask_target, target_pyramid
from abpn_fast.training.lpips import LPIPS
from abpn_fast.training.metrics import absolute_error, intersection_over_union, psnr, ssim
from abpn_fast.training.pairs import HeldOutPairs, find_pairs, is_paired
from abpn_fast.training.photos import BlemishedCrops, Crops, Pair, find_photos, load_photos

_SCHEDULE = (Crops(0, 384, 1), Crops(1, 512, 1), Crops(2, 768, 1))
MODEL, IDENTITY = "model", "identity"


class Row(NamedTuple):
    """The scores of one method on one pair."""

    image: str
    method: str
    scores: dict[str, float]


def held_out(
    photos: Sequence[Sequence[NDArray[np.uint8]]],
    seed: int = 12345,
    schedule: Sequence[Crops] | None = None,
    bad: Bad = "refuse",
) -> list[Pair]:
    """Fixed crops of every photo, one of each kind; by default three, for l = 0, 1 and 2.

    Raises:
        BadFile, ValueError: as for :func:`usable`.
    """
    kinds = _SCHEDULE if schedule is None else schedule

    def crops(numbered: tuple[int, Sequence[NDArray[np.uint8]]]) -> list[Pair]:
        index, photo = numbered
        return [BlemishedCrops([photo], 1, seed + index, [kind])[0] for kind in kinds]

    return [pair for pairs in usable(enumerate(photos), crops, bad) for pair in pairs]


def named(
    folders: Sequence[Path], *, size: int = 1024, levels: int = 2, every: bool = False, bad: Bad = "refuse"
) -> tuple[Sequence[Pair], list[str]]:
    """What the folders hold to measure on, and a name for each: one folder of pairs, or crops of clean photos.

    Args:
        folders: one in a layout of ``pairs.py``, or any of clean photos, which get three crops each.
        size, levels: of pairs, as in training.
        every: all pairs; otherwise only the test part of the division that training uses.
        bad: ``"refuse"`` files that cannot be used, or ``"skip"`` and count them.

    Raises:
        FileNotFoundError, ValueError: a folder is missing, empty or not usable; the message names it.
    """
    if any(map(is_paired, folders)):
        if len(folders) > 1:
            raise ValueError(f"pairs come from one folder, got {len(folders)}; evaluate them one by one")
        split = find_pairs(folders[0], bad=bad)
        files = list(dict.fromkeys([*split.train, *split.validation, *split.test])) if every else split.test
        if not files:
            raise ValueError(f"none of the pairs in {folders[0]} is kept for the test; ask for all of them (--all)")
        held = HeldOutPairs(files, levels, size)
        if bad == "skip":
            held.check(bad)
        return held, [str(batches.pairs[0].image) for batches in held.batches]

    def crops(numbered: tuple[int, Photo]) -> list[tuple[Pair, str]]:
        index, photo = numbered
        return [(pair, f"{photo.path}, l = {pair.levels}") for pair in held_out([photo], 12345 + index)]

    found = usable(enumerate(load_photos(find_photos(folders), bad=bad)), crops, bad)
    return [pair for each in found for pair, _ in each], [name for each in found for _, name in each]


def measurable(pair: Pair) -> bool:
    """Whether the pair differs somewhere, and is the same somewhere."""
    image, target = (to_unit(part, torch.float32) for part in (pair.image, pair.target))
    return 0 < float(changed_region(image, target).mean()) < 1


def evaluate(model: ABPN, pairs: Iterable[Pair], lpips: Mapping[str, LPIPS] | None = None) -> dict[str, float]:
    """Means over the pairs; each metric of the model is followed by the same of the untouched image, ``identity_...``.

    The scores are those of :func:`measure` and :func:`summarise`.
    """
    means = summarise(measure(model, pairs, lpips=lpips))
    return means[MODEL] | {f"identity_{name}": value for name, value in means[IDENTITY].items()}


@torch.no_grad()
def measure(
    model: ABPN,
    pairs: Iterable[Pair],
    *,
    names: Sequence[str] | None = None,
    self_ensemble: bool = False,
    methods: Mapping[str, Method] | None = None,
    lpips: Mapping[str, LPIPS] | None = None,
) -> list[Row]:
    """A row for every pair and method: the model, identity, then ``methods``.

    PSNR in dB, MAE in units of white, SSIM, each over the whole picture; ``_inside`` is where the pair differs by more
    than 0.02, ``_outside`` the rest. ``mask_iou`` at 0.5 against the changed region of the thumbnail. Results are
    clamped to [0, 1]. A pair that is the same everywhere, or nowhere, has no inside or no outside and is left out.

    Args:
        names: of the pairs, in their order; None for their numbers.
        self_ensemble: as for ``ABPN.forward``.
        methods: what else to run on the same images; see ``classical.py``.
        lpips: by name; each gives a score ``lpips_<name>``, lower is better.

    Raises:
        ValueError: no pair is left.
    """
    model.eval()
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    rows = []
    for index, pair in enumerate(pairs):
        image, target = (to_unit(part.to(device)) for part in (pair.image, pair.target))
        region = changed_region(image, target)
        if not 0 < region.mean() < 1:
            continue
        output = model(image, levels=pair.levels, self_ensemble=self_ensemble, return_intermediates=True)
        assert isinstance(output, Retouched)
        results = {MODEL: output.image.clamp(0, 1), IDENTITY: image}
        masks = {None: torch.zeros_like(region), "model": output.mask, "truth": region}
        for name, method in (methods or {}).items():
            if (mask := masks[method.mask]) is not None:
                results[name] = method(image, mask, pair.levels)
        for name, result in results.items():
            scores = _scores(result, target, region, lpips or {})
            if name == MODEL and output.mask is not None:
                scores["mask_iou"] = _iou(output, target, pair.levels, model.config.pyramid_filter)
            rows.append(Row(names[index] if names else str(index), name, scores))
    if not rows:
        raise ValueError("no pair to evaluate: none has a changed region smaller than the image")
    return rows


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """The mean of every score of every method over the pairs it ran on.

    ``better`` is the share of pairs whose PSNR inside beats identity's by more than 0.001 dB; ``lpips_<name>_better``
    the share with an LPIPS below identity's by more than 1e-6: less may be rounding.
    """
    untouched = {row.image: row.scores for row in rows if row.method == IDENTITY}
    means = {}
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        means[method] = {name: float(np.mean([row.scores[name] for row in own])) for name in own[0].scores}
        if method == IDENTITY:
            continue
        for name, beaten, sign, least in _beating(own[0].scores):
            wins = [sign * (row.scores[name] - untouched[row.image][name]) > least for row in own]
            means[method][beaten] = float(np.mean(wins))
    return means


def _beating(scores: Mapping[str, float]) -> list[tuple[str, str, int, float]]:
    """Which score is compared with identity's, what its share is called, whether more is better, how much counts."""
    return [("psnr_inside", "better", 1, 1e-3)] + [
        (name, f"{name}_better", -1, 1e-6) for name in scores if name.startswith("lpips")
    ]


def _scores(result: Tensor, target: Tensor, region: Tensor, lpips: Mapping[str, LPIPS]) -> dict[str, float]:
    scores = {
        "psnr_inside": psnr(result, target, region),
        "psnr_outside": psnr(result, target, 1 - region),
        "psnr": psnr(result, target),
        "ssim": ssim(result, target),
        "mae_inside": absolute_error(result, target, region),
        "mae_outside": absolute_error(result, target, 1 - region),
        "mae": absolute_error(result, target),
    }
    return scores | {f"lpips_{name}": float(distance(result, target).mean()) for name, distance in lpips.items()}


def _iou(output: Retouched, target: Tensor, levels: int, filter: str) -> float:
    assert output.mask is not None
    thumbnail = target_pyramid(target, levels, filter=filter)[-1]
    return intersection_over_union(output.mask, mask_target(changed_region(output.pyramid[-1], thumbnail), output.mask))
