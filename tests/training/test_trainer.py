from __future__ import annotations

import dataclasses
import itertools
import logging
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import abpn_fast
from abpn_fast import ABPN, ABPNConfig
from abpn_fast.training.objective import Objective
from abpn_fast.training.starting import first_model, start_at_identity
from abpn_fast.training.trainer import Options, train
from tests.reference.networks import WIDTHS, config, network, photo
from tests.training.runs import (
    STEPS,
    Killed,
    elsewhere,
    killed_at,
    log_of,
    measure_little,
    options,
    quiet,
    state_of,
    write_pairs,
)


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    measure_little(monkeypatch)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    return options(tmp_path)


@pytest.mark.parametrize("adversarial", [0.0, 0.1])
def test_a_continued_run_equals_an_uninterrupted_one(given: Options, adversarial: float) -> None:
    objective = Objective(adversarial=adversarial)
    whole = train(given, objective, report=quiet)
    broken = elsewhere(given, "broken")
    with pytest.raises(Killed):
        train(broken, objective, report=killed_at(4))
    assert [line["step"] for line in log_of(broken)] == ["2", "4"]
    reported: list[float] = []
    continued = train(broken, objective, report=lambda line: reported.append(line["step"]))
    assert reported == [4, 6]
    assert log_of(broken) == log_of(given)
    first, second = state_of(given), state_of(broken)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    kinds = {name.partition(".")[0] for name in first}
    assert kinds == {"model", "average", "optimiser"} | ({"adversary", "adversary_optimiser"} if adversarial else set())
    states = whole.state_dict(), continued.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_what_a_run_leaves(given: Options) -> None:
    reported: list[dict[str, float]] = []
    trained = train(given, report=reported.append)
    lines = log_of(given)
    assert [int(line["step"]) for line in lines] == [line["step"] for line in reported] == [2, 4, 6]
    assert {"loss", "mse", "dice", "seconds_per_step", "psnr_inside", "identity_psnr_inside"} <= set(lines[0])
    assert sorted(path.name for path in given.run.iterdir()) == ["checkpoint.safetensors", "log.csv", "model"]
    loaded = ABPN.from_pretrained(given.run / "model").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in trained.state_dict().items())
    again = train(given, report=lambda _: pytest.fail("a finished run has nothing left to do"))
    assert isinstance(again, ABPN) and log_of(given) == lines


def test_a_run_learns_and_its_seed_decides(given: Options) -> None:
    given = dataclasses.replace(given, every=STEPS)
    first = train(given, report=quiet).state_dict()
    again = train(elsewhere(given, "again"), report=quiet).state_dict()
    other = train(elsewhere(given, "other", seed=1), report=quiet).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    torch.manual_seed(given.seed)
    untrained = first_model(given).state_dict()
    moved = {name for name in first if not torch.equal(first[name], untrained[name])}
    assert {"refining.0.conv2.weight", "encoder.blocks.0.0.weight", "mask_branch.head.weight", "blend.j"} <= moved


@pytest.mark.parametrize("output", ["residual", "direct"])
def test_bf16(given: Options, output: str) -> None:
    given = dataclasses.replace(given, preset=config(output=output))
    trained = train(dataclasses.replace(given, bf16=True, every=STEPS), report=quiet)
    assert trained.dtype == torch.float32
    plain = train(elsewhere(given, "plain", every=STEPS), report=quiet)
    difference = max((a - b).abs().max() for a, b in zip(trained.parameters(), plain.parameters(), strict=True))
    assert 0 < difference < 0.05


def test_start_takes_weights_and_statistics(given: Options, tmp_path: Path) -> None:
    saved = abpn_fast.accelerate(network())
    saved.save_pretrained(tmp_path / "saved")
    started = first_model(dataclasses.replace(given, preset=None, start=tmp_path / "saved"))
    assert started.config.encoder_widths == WIDTHS
    assert all(torch.equal(value, saved.state_dict()[name]) for name, value in started.state_dict().items())
    assert first_model(dataclasses.replace(given, preset=None, start="small")).config == ABPNConfig.preset("small")
    with pytest.raises(ValueError, match="not that of the preset"):
        first_model(dataclasses.replace(given, start="small"))
    with pytest.raises(FileNotFoundError, match="bundled weights"):
        first_model(dataclasses.replace(given, preset=None, start=tmp_path / "absent"))


def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_its_batch(given: Options) -> None:
    with pytest.raises(Killed):
        train(given, report=killed_at(4))
    before = (given.run / "checkpoint.safetensors").read_bytes()
    with pytest.raises(FloatingPointError, match=r"became nan .* at step 3; its batch is in .*failed-batch-0"):
        train(given, Objective(absolute=float("nan")), report=quiet)
    assert (given.run / "checkpoint.safetensors").read_bytes() == before
    failed = given.run / "failed-batch-0.safetensors"
    batch = load_file(failed)
    assert batch["image"].dtype == torch.uint8 and batch["image"].shape == batch["target"].shape
    with safe_open(failed, "pt") as file:
        assert file.metadata()["step"] == "3"


def test_a_gradient_that_is_not_finite_ends_the_run(given: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finite loss does not hide it."""

    def steep(self: Objective, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        return (terms["mse"] * 0).sqrt() * 0 + 1

    monkeypatch.setattr(Objective, "total", steep)
    with pytest.raises(FloatingPointError, match=r"became 1\.0 and its gradient's norm nan"):
        train(given, report=quiet)


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "added"])
def test_a_damaged_checkpoint_is_refused(given: Options, damage: str) -> None:
    given = dataclasses.replace(given, steps=2)
    train(given, report=quiet)
    path = given.run / "checkpoint.safetensors"
    data, tensors = bytearray(path.read_bytes()), load_file(path)
    with safe_open(path, "pt") as file:
        header = file.metadata()
    if damage == "cut":
        path.write_bytes(data[:-100])
    elif damage == "flipped":
        data[-100] ^= 1
        path.write_bytes(data)
    else:
        name = "model.blend.j"
        changed = {**tensors, "model.more": tensors[name].clone()} if damage == "added" else tensors.copy()
        if damage == "missing":
            del changed[name]
        from abpn_fast.training.saving import _checksum

        save_file(changed, path, metadata={**header, "crc32": str(_checksum(changed))})
    reason = {"cut": "not a whole safetensors file", "flipped": "checksum", "missing": "blend.j is missing"}
    with pytest.raises(ValueError, match=rf"checkpoint.safetensors.* {reason.get(damage, 'more is unknown')}"):
        train(dataclasses.replace(given, steps=4), report=quiet)


def test_a_run_goes_on_as_it_began(given: Options) -> None:
    given = dataclasses.replace(given, steps=2)
    train(given, report=quiet)
    for change in ({"seed": 1}, {"batch": 16}, {"preset": ABPNConfig(encoder_widths=(4,) * 6)}):
        with pytest.raises(ValueError, match=f"begun with {next(iter(change)).replace('preset', 'config')}"):
            train(dataclasses.replace(given, steps=4, **change), report=quiet)
    with pytest.raises(ValueError, match=r"holds no adversary_optimiser|discriminator"):
        train(dataclasses.replace(given, steps=4), Objective(adversarial=0.1), report=quiet)


@pytest.mark.parametrize("folder", ["photos", "validation"])
def test_a_missing_folder_is_named(given: Options, folder: str) -> None:
    missing = dataclasses.replace(given, **{folder: [given.run / "absent"]})
    with pytest.raises(FileNotFoundError, match=r"no such folder of photos: .*absent"):
        train(missing, report=quiet)


def test_bad_photos_are_refused_or_skipped(given: Options, caplog: pytest.LogCaptureFixture) -> None:
    bad = given.photos[0] / "bad.png"
    whole = (given.photos[0] / "0.png").read_bytes()
    bad.write_bytes(whole[:-300])
    with pytest.raises(ValueError, match=r"bad.png cannot be read: .*truncated"):
        train(dataclasses.replace(given, workers=1, steps=20), report=quiet)
    with caplog.at_level(logging.WARNING):
        train(dataclasses.replace(given, bad="skip"), report=quiet)
    assert "files that cannot be read" in caplog.text


def test_pairs(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    changes = {"preset": ABPNConfig(encoder_widths=WIDTHS), "size": 64, "levels": 1, "batch": 2}
    given = Options.paper(write_pairs(tmp_path / "pairs"), tmp_path / "run", steps=4, workers=0, every=4, **changes)
    lines: list[dict[str, float]] = []
    train(given, Objective(), report=lines.append)
    assert [line["step"] for line in lines] == [4]
    assert 5 < lines[0]["identity_psnr_inside"] < 25
    assert "pip install 'abpn_fast[log]'" in caplog.text


@pytest.mark.parametrize("extra", [{}, {"attention": "gated"}, {"attention": "pcb"}, {"refining_levels": 2}], ids=str)
def test_start_at_identity(extra: dict[str, object]) -> None:
    model = abpn_fast.reference.ABPN(config(**extra))
    start_at_identity(model).eval()
    image = photo(40, 50)
    output = model(image, levels=2, return_intermediates=True)
    if extra.get("attention") != "pcb":
        assert torch.equal(output.low_res, output.pyramid[-1])
        assert (output.image - image).abs().max() < 1e-6
    assert all(not module.conv2.weight.any() for module in model.refining)


def test_rate_of_the_synthetic_recipe() -> None:
    given = Options([], [], Path(), warmup=100, learning_rate=1.0)
    rates = [given.rate(step, 1000, 7) for step in range(1, 1001)]
    assert rates[0] == pytest.approx(0.01) and rates[49] == pytest.approx(0.5) and rates[99] == pytest.approx(1)
    assert rates[549] == pytest.approx(0.505) and rates[-1] == pytest.approx(0.01)
    assert all(a > b for a, b in itertools.pairwise(rates[99:]))


def test_the_papers_recipe() -> None:
    """Adam 5e-4, a tenth of it after 100 epochs, batches of 8, 1024 pixels, l = 2."""
    given = Options.paper(Path(), Path())
    assert (given.batch, given.size, given.levels, given.crop) == (8, 1024, 2, False)
    pairs = 2522
    total = given.total(pairs)
    assert total == -(-150 * pairs // 8)
    rates = [given.rate(step, total, pairs) for step in range(1, total + 1)]
    assert set(rates) == {5e-4, 5e-5}
    assert rates.index(5e-5) == 100 * pairs // 8
