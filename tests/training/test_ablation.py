from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from abpn_fast.training import ablation, evaluate, trainer
from abpn_fast.training.ablation import PAPER, VARIANTS, ablate, table
from abpn_fast.training.photos import Crops
from abpn_fast.training.trainer import Options
from tests.reference.networks import config


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Two steps on tiny crops."""
    monkeypatch.setattr(evaluate, "_SCHEDULE", (Crops(1, 64, 1),))
    monkeypatch.setattr(ablation, "_MEASURED", (Crops(1, 64, 1), Crops(2, 64, 1)))
    for seed in range(3):
        coarse = np.random.default_rng(seed).integers(60, 220, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((96, 80), Image.Resampling.BICUBIC).save(tmp_path / f"{seed}.png")
    return Options(
        photos=[tmp_path],
        validation=[tmp_path],
        run=tmp_path / "run",
        schedule=(Crops(1, 48, 2), Crops(2, 48, 2)),
        steps=2,
        warmup=1,
        every=2,
        workers=0,
    )


def test_every_variant_is_trained_measured_and_written(options: Options) -> None:
    seen: list[str] = []
    found = ablate(options, config(), report=lambda name, line: seen.append(f"{name} {line['step']:.0f}"))
    assert seen == [f"{name} 2" for name in VARIANTS]
    assert list(found) == ["identity", *VARIANTS]
    assert ("mask_iou" in found["full"]) and ("mask_iou" not in found["no-mask-branch"])
    # Same crops for all, and no two variants alike.
    assert len({scores["psnr"] for scores in found.values()}) == len(found)
    assert json.loads((options.run / "ablation.json").read_text()) == found
    assert (options.run / "ablation.md").read_text() == table(found)


def test_a_finished_variant_is_only_measured(options: Options) -> None:
    first = ablate(options, config(), names=["full", "blend-rgb"])
    again = ablate(options, config(), names=["full", "blend-rgb"], report=lambda *_: pytest.fail("trained again"))
    assert again == first


def test_rows_of_other_variants_are_kept(options: Options) -> None:
    first = ablate(options, config(), names=["blend-rgb"])
    both = ablate(options, config(), names=["full"])
    assert list(both) == ["identity", "full", "blend-rgb"] and both["blend-rgb"] == first["blend-rgb"]
    assert json.loads((options.run / "ablation.json").read_text()) == both


@pytest.mark.parametrize(("name", "value"), [("steps", 3), ("seed", 1)])
def test_other_options_are_refused(options: Options, monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    def stop(*_: object, **__: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(trainer, "train", stop)
    with pytest.raises(InterruptedError):
        ablate(options, config(), names=["full"])
    with pytest.raises(ValueError, match=rf"run was begun with {name} \d, not {value}; use another folder"):
        ablate(dataclasses.replace(options, **{name: value}), config(), names=["blend-rgb"])


def test_other_photos_are_refused(options: Options, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder of photos"):
        ablate(dataclasses.replace(options, photos=[tmp_path / "absent"], steps=3), config(), names=["full"])
    ablate(options, config(), names=["full"])
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "0.png").rename(other / "0.png")
    for name in ("photos", "validation"):
        with pytest.raises(ValueError, match=rf"was begun with {name} \[.*\], not \[.*other.*\]; use another folder"):
            ablate(dataclasses.replace(options, **{name: [other]}), config(), names=["blend-rgb"])


def test_each_variant_differs_in_one_option_and_all_else_is_equal(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def stop(run: Options, *_: object, **__: object) -> None:
        seen.append(run)
        raise InterruptedError

    monkeypatch.setattr(trainer, "train", stop)
    for name, changes in VARIANTS.items():
        with pytest.raises(InterruptedError):
            ablate(options, config(), names=[name])
        assert seen[-1].preset == config(**changes) and len(changes) == (name != "full")
        assert seen[-1].run == options.run / name
        assert (seen[-1].seed, seen[-1].steps, seen[-1].schedule) == (options.seed, options.steps, options.schedule)


def test_table() -> None:
    scores = {"psnr": 30.0, "psnr_inside": 20.0, "psnr_outside": 40.0, "ssim": 0.9, "lpips_vgg": 0.1}
    found = {"identity": scores, "full": {**scores, "psnr_inside": 22.0, "mask_iou": 0.5}, "blend-rgb": scores}
    head, rule, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table(found).splitlines())
    assert all(len(row) == len(head) == len(rule) for row in rows)
    assert head[-3:] == ["LPIPS-VGG", "paper", "paper, against full"]
    identity, full, rgb = (dict(zip(head, row, strict=True)) for row in rows)
    assert identity["variant"] == "identity" and identity["MPB"] == identity["paper"] == ""
    assert full["inside, against full"] == "+0.00" and full["mask IoU"] == "0.500" and full["paper"] == "37.35"
    assert rgb["inside, against full"] == "-2.00" and rgb["blend"] == "rgb" and rgb["mask IoU"] == ""
    assert rgb["paper, against full"] == "-1.59" and rgb["attention"] == "lam" and rgb["RM"] == "yes"


def test_the_papers_figures_are_of_known_variants() -> None:
    assert PAPER.keys() <= VARIANTS.keys() and max(PAPER, key=PAPER.get) == "full"


def test_an_unknown_variant_is_named(options: Options) -> None:
    with pytest.raises(ValueError, match=r"variants must be of full, .*, got half"):
        ablate(options, config(), names=["half"])
