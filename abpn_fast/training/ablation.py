"""Table 2: what each part of the network is worth, every variant trained alike on the synthetic task."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abpn_fast.config import ABPNConfig
from abpn_fast.reference import ABPN
from abpn_fast.training import trainer
from abpn_fast.training.evaluate import IDENTITY, MODEL, held_out, measure, summarise
from abpn_fast.training.lpips import LPIPS
from abpn_fast.training.objective import Objective
from abpn_fast.training.photos import Crops, find_photos, load_photos

# Without a pyramid, blend and refining would not be seen at all.
SCHEDULE = (Crops(1, 128, 8), Crops(2, 192, 4))
_MEASURED = (Crops(1, 256, 1), Crops(2, 384, 1))
# The mask has to catch on within few steps.
_OBJECTIVE = Objective(dice=0.3, cross_entropy=0.3)

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "full": {},
    "no-mask-branch": {"mask_branch": False},
    "attention-pcb": {"attention": "pcb"},
    "attention-gated": {"attention": "gated"},
    "refining-off": {"refining": False},
    "blend-rgb": {"blend": "rgb"},
    "blend-addition": {"blend": "addition"},
    "blend-soft-light": {"blend": "soft_light"},
    "blend-conv": {"blend": "conv"},
}
PAPER = {
    "full": 37.35,
    "no-mask-branch": 33.02,
    "attention-pcb": 36.24,
    "refining-off": 34.78,
    "blend-rgb": 35.76,
    "blend-addition": 36.57,
    "blend-soft-light": 36.10,
    "blend-conv": 35.88,
}
"""PSNR on CRHD-3K, Table 2; the text's 4, 1, 2.5 and 1 to 1.5 % are these differences to the full model, in dB."""


def ablate(
    options: trainer.Options,
    config: ABPNConfig,
    *,
    names: Sequence[str] = tuple(VARIANTS),
    lpips: Mapping[str, LPIPS] | None = None,
    report: Callable[[str, dict[str, float]], None] = lambda name, line: None,
) -> dict[str, dict[str, float]]:
    """Train every variant in a folder of its own below ``options.run``, then measure them on the same crops.

    A variant that is stopped goes on from its last checkpoint, one that is finished is only measured. The results are
    written to ``ablation.json`` and ``ablation.md`` in ``options.run`` after each variant, beside those that are there.

    Args:
        options: of each run; preset and run are replaced, the rest is the same for all.
        config: of the full model; each variant changes one option of it.
        names: which variants.
        lpips: by name, to be measured as well.
        report: called with the name of the variant and each line of its log.

    Returns:
        Mean scores by variant, ``identity`` first, those of earlier calls included.

    Raises:
        ValueError: no such variant, or the folder was begun with other photos, steps, seed or model.
        FileNotFoundError: a folder is missing or empty.
    """
    unknown = sorted(set(names) - VARIANTS.keys())
    if unknown:
        raise ValueError(f"variants must be of {', '.join(VARIANTS)}, got {', '.join(unknown)}")
    photos = load_photos(find_photos(options.validation))
    find_photos(options.photos)
    _begin(options, config)
    path = options.run / "ablation.json"
    found: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in names:
        changed = dataclasses.replace(config, **VARIANTS[name])
        run = dataclasses.replace(options, preset=changed, run=options.run / name)
        model = trainer.train(run, _OBJECTIVE, report=functools.partial(report, name))
        found |= score(name, model, photos, lpips)
        found = {name: found[name] for name in (IDENTITY, *VARIANTS) if name in found}
        write(options.run, found)
    return found


def _begin(options: trainer.Options, config: ABPNConfig) -> None:
    """Note what all rows of a table must have in common, or compare it."""
    facts = {
        "steps": options.steps,
        "seed": options.seed,
        "config": json.loads(config.to_json()),
        "photos": [str(folder.resolve()) for folder in options.photos],
        "validation": [str(folder.resolve()) for folder in options.validation],
    }
    path = options.run / "options.json"
    if path.exists():
        begun = json.loads(path.read_text(encoding="utf-8"))
        for name, value in facts.items():
            if begun.get(name, value) != value:
                raise ValueError(f"{options.run} was begun with {name} {begun[name]}, not {value}; use another folder")
    options.run.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts) + "\n", encoding="utf-8")


def score(
    name: str, model: ABPN, photos: Sequence[Sequence[NDArray[np.uint8]]], lpips: Mapping[str, LPIPS] | None = None
) -> dict[str, dict[str, float]]:
    """Means of a trained variant, and of ``identity``, over fixed crops of the photos at l = 1 and 2."""
    means = summarise(measure(model, held_out(photos, schedule=_MEASURED), lpips=lpips))
    return {IDENTITY: means[IDENTITY], name: means[MODEL]}


def write(folder: Path, found: Mapping[str, Mapping[str, float]]) -> None:
    """``ablation.json`` and ``ablation.md``."""
    (folder / "ablation.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "ablation.md").write_text(table(found), encoding="utf-8")


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown in the form of Table 2, with PSNR inside and outside the region and the paper's PSNR beside it.

    Differences are to ``full``, in dB.
    """
    full = found.get("full", {})
    distances = [name for name in found[IDENTITY] if name.startswith("lpips")]
    head = ["variant", "MPB", "attention", "blend", "RM", "PSNR", "inside", "outside", "inside, against full", "SSIM"]
    lines = [
        [*head, "mask IoU", *(name.upper().replace("_", "-") for name in distances), "paper", "paper, against full"]
    ]
    for name, scores in found.items():
        known = name != IDENTITY
        config = dataclasses.replace(ABPNConfig(), **VARIANTS[name]) if known else None
        parts = [""] * 4
        if config is not None:
            yes = {True: "yes", False: "no"}
            parts = [yes[config.mask_branch], config.attention, config.blend, yes[config.refining]]
        row = [name, *parts, *(f"{scores[key]:.2f}" for key in ("psnr", "psnr_inside", "psnr_outside"))]
        row += [_difference(scores["psnr_inside"], full.get("psnr_inside")), f"{scores['ssim']:.4f}"]
        row += [
            f"{scores['mask_iou']:.3f}" if "mask_iou" in scores else "",
            *(f"{scores[d]:.4f}" if d in scores else "" for d in distances),
        ]
        paper = PAPER.get(name)
        row += ["", ""] if paper is None else [f"{paper:.2f}", _difference(paper, PAPER["full"])]
        lines.append(row)
    rule = ["---"] * len(lines[0])
    return "".join("| " + " | ".join(line) + " |\n" for line in [lines[0], rule, *lines[1:]])


def _difference(value: float, reference: float | None) -> str:
    return "" if reference is None else f"{value - reference:+.2f}"
