from __future__ import annotations

import csv
import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from abpn_fast import ABPNConfig
from abpn_fast.reference import ABPN
from abpn_fast.training import evaluate, trainer
from abpn_fast.training.objective import Objective
from abpn_fast.training.photos import BlemishedCrops, Crops
from abpn_fast.training.trainer import Options, learning_rate, start_at_identity, train
from tests.reference.networks import WIDTHS, config, photo

STEPS, EVERY = 6, 2


class Killed(Exception):
    pass


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Six steps of a tiny network on tiny crops."""
    monkeypatch.setattr("abpn_fast.config._WIDTHS", {"small": WIDTHS})
    schedule = (Crops(0, 64, 2), Crops(1, 72, 2))
    monkeypatch.setattr(trainer, "BlemishedCrops", functools.partial(BlemishedCrops, schedule=schedule))
    monkeypatch.setattr(evaluate, "_SCHEDULE", (Crops(1, 64, 1),))
    for folder, seeds in (("photos", (0, 1)), ("validation", (2, 3))):
        (tmp_path / folder).mkdir()
        for seed in seeds:
            coarse = np.random.default_rng(seed).integers(60, 220, (5, 6, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((96, 80), Image.Resampling.BICUBIC).save(tmp_path / folder / f"{seed}.png")
    return Options(
        photos=[tmp_path / "photos"],
        validation=[tmp_path / "validation"],
        run=tmp_path / "run",
        steps=STEPS,
        warmup=2,
        every=EVERY,
        workers=0,
    )


def log_of(options: Options) -> list[dict[str, str]]:
    with (options.run / "log.csv").open() as file:
        return list(csv.DictReader(file))


def quiet(line: dict[str, float]) -> None:
    pass


def killed_at(step: int, line: dict[str, float]) -> None:
    if line["step"] == step:
        raise Killed


def test_a_continued_run_equals_an_uninterrupted_one(options: Options) -> None:
    whole = train(options, report=quiet)
    broken = dataclasses.replace(options, run=options.run.with_name("broken"))
    with pytest.raises(Killed):
        train(broken, report=functools.partial(killed_at, 4))
    assert torch.load(broken.run / "checkpoint.pt", weights_only=False)["step"] == 2
    reported: list[float] = []
    continued = train(broken, report=lambda line: reported.append(line["step"]))
    assert reported == [4, 6]
    states = [whole.state_dict(), continued.state_dict()]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    files = [torch.load(run.run / "checkpoint.pt", weights_only=False) for run in (options, broken)]
    assert files[0]["step"] == files[1]["step"] == STEPS
    for key in ("model", "average"):
        assert all(torch.equal(files[0][key][name], files[1][key][name]) for name in files[0][key])
    last = [dict(log_of(run)[-1], seconds_per_step="") for run in (options, broken)]
    assert last[0] == last[1]


def test_log_and_checkpoint(options: Options) -> None:
    reported: list[dict[str, float]] = []
    train(options, report=reported.append)
    lines = log_of(options)
    assert [int(line["step"]) for line in lines] == [line["step"] for line in reported] == [2, 4, 6]
    assert {"loss", "mse", "dice", "seconds_per_step", "psnr_inside", "identity_psnr_inside"} <= set(lines[0])
    assert sorted(path.name for path in options.run.iterdir()) == ["checkpoint.pt", "log.csv"]
    again = train(options, report=lambda _: pytest.fail("a finished run has nothing left to do"))
    assert isinstance(again, ABPN)


def test_a_run_learns_and_its_seed_decides(options: Options) -> None:
    options = dataclasses.replace(options, every=STEPS)
    first = train(options, report=quiet).state_dict()
    again = train(dataclasses.replace(options, run=options.run.with_name("again")), report=quiet).state_dict()
    other = train(dataclasses.replace(options, run=options.run.with_name("other"), seed=1), report=quiet).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    torch.manual_seed(options.seed)
    untrained = start_at_identity(ABPN(options.preset)).state_dict()
    moved = {name for name in first if not torch.equal(first[name], untrained[name])}
    assert {"refining.0.conv2.weight", "encoder.blocks.0.0.weight", "mask_branch.head.weight", "blend.j"} <= moved


def test_the_seed_decides_the_first_weights(options: Options) -> None:
    for seed in (0, 1):
        start = train(dataclasses.replace(options, steps=0, seed=seed), report=quiet).state_dict()
        torch.manual_seed(seed)
        wanted = start_at_identity(ABPN(options.preset)).state_dict()
        assert all(torch.equal(start[name], wanted[name]) for name in wanted)


def test_a_loss_that_is_not_finite_ends_the_run(options: Options) -> None:
    with pytest.raises(Killed):
        train(options, report=functools.partial(killed_at, 4))
    before = (options.run / "checkpoint.pt").read_bytes()
    with pytest.raises(FloatingPointError, match="loss became nan at step 3"):
        train(options, Objective(absolute=float("nan")), report=quiet)
    assert (options.run / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("folder", ["photos", "validation"])
def test_a_missing_folder_is_named(options: Options, folder: str) -> None:
    missing = dataclasses.replace(options, **{folder: [options.run / "absent"]})
    with pytest.raises(FileNotFoundError, match=r"no such folder of photos: .*absent"):
        train(missing, report=quiet)


@pytest.mark.parametrize("extra", [{}, {"attention": "gated"}, {"attention": "pcb"}, {"refining_levels": 2}], ids=str)
def test_start_at_identity(extra: dict[str, object]) -> None:
    model = start_at_identity(ABPN(config(**extra))).eval()
    image = photo(40, 50)
    output = model(image, levels=2, return_intermediates=True)
    if extra.get("attention") != "pcb":
        assert torch.equal(output.low_res, output.pyramid[-1])
        assert (output.image - image).abs().max() < 1e-6
    assert all(not module.conv2.weight.any() for module in model.refining)


def test_learning_rate() -> None:
    options = Options([], [], Path(), steps=1000, warmup=100, learning_rate=1.0)
    rates = [learning_rate(options, step) for step in range(1, 1001)]
    assert rates[0] == pytest.approx(0.01) and rates[49] == pytest.approx(0.5) and rates[99] == pytest.approx(1)
    assert rates[549] == pytest.approx(0.505) and rates[-1] == pytest.approx(0.01)
    assert all(a > b for a, b in itertools.pairwise(rates[99:]))


def test_presets_of_the_options_exist() -> None:
    assert ABPNConfig.preset(Options([], [], Path()).preset).encoder_widths == (16, 32, 64, 128, 128, 128)
