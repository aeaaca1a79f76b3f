from __future__ import annotations

import dataclasses
import itertools
import logging
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

import abpn_fast
from abpn_fast import ABPN, ABPNConfig
from abpn_fast.training import data, evaluate, saving, trainer
from abpn_fast.training.data import prepare
from abpn_fast.training.files import BadFile
from abpn_fast.training.objective import Objective
from abpn_fast.training.pairs import find_pairs
from abpn_fast.training.starting import first_model, start_at_identity
from abpn_fast.training.state import State
from abpn_fast.training.step import optimise
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


@pytest.mark.parametrize(("adversarial", "optimizer"), [(0.0, "adam"), (0.1, "adam"), (0.0, "muon")])
def test_a_continued_run_equals_an_uninterrupted_one(
    given: Options, adversarial: float, optimizer: Literal["adam", "muon"]
) -> None:
    given = dataclasses.replace(given, optimizer=optimizer)
    objective = Objective(adversarial=adversarial)
    whole = train(given, objective, report=quiet)
    broken = elsewhere(given, "broken")
    with pytest.raises(Killed):
        train(broken, objective, report=killed_at(4))
    assert [line["step"] for line in log_of(broken)] == ["2", "4"]
    reported: list[float] = []
    continued = train(broken, objective, report=lambda line: reported.append(line["step"]))
    assert reported == [6]
    assert log_of(broken) == log_of(given)
    first, second = state_of(given), state_of(broken)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    kinds = {name.partition(".")[0] for name in first}
    assert kinds == {"model", "average", "optimiser"} | ({"adversary", "adversary_optimiser"} if adversarial else set())
    states = whole.state_dict(), continued.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_another_optimizer_is_refused(given: Options) -> None:
    train(dataclasses.replace(given, steps=2), report=quiet)
    with pytest.raises(ValueError, match="was begun with optimizer adam, not muon; train in another folder"):
        train(dataclasses.replace(given, optimizer="muon"), report=quiet)
    with pytest.raises(ValueError, match="optimizer must be 'adam' or 'muon', got 'sgd'"):
        dataclasses.replace(given, optimizer="sgd")  # type: ignore[arg-type]


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
    with pytest.raises(ValueError, match="neither that of the preset"):
        first_model(dataclasses.replace(given, start="small"))
    with pytest.raises(FileNotFoundError, match="bundled weights"):
        first_model(dataclasses.replace(given, preset=None, start=tmp_path / "absent"))


def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_its_batch(given: Options) -> None:
    with pytest.raises(Killed):
        train(given, report=killed_at(4))
    before = (given.run / "checkpoint.safetensors").read_bytes()
    with pytest.raises(FloatingPointError, match=r"became nan .* at step 5; its batch is in .*failed-batch-0"):
        train(given, Objective(absolute=float("nan")), report=quiet)
    assert (given.run / "checkpoint.safetensors").read_bytes() == before
    failed = given.run / "failed-batch-0.safetensors"
    batch = load_file(failed)
    assert batch["image"].dtype == torch.uint8 and batch["image"].shape == batch["target"].shape
    with safe_open(failed, "pt") as file:
        assert file.metadata()["step"] == "5"


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


def test_a_state_with_more_parts_is_refused(tmp_path: Path) -> None:
    part = torch.nn.Linear(2, 2)
    saving.save(tmp_path / "state", {"model": part, "adversary": part}, {})
    with pytest.raises(ValueError, match="state also holds adversary; continue the run with the options"):
        saving.load(tmp_path / "state", {"model": part})


def test_gradients_are_clipped(given: Options) -> None:
    state = State(Fabric(accelerator="cpu", devices=1), given, Objective(mse=1e5))
    optimise(Fabric(accelerator="cpu", devices=1), state, prepare(given).batches[0], 1e-3)
    norms = [parameter.grad.norm() for parameter in state.plain.parameters() if parameter.grad is not None]
    assert torch.stack(norms).norm() == pytest.approx(1, rel=1e-3)


def test_a_run_goes_on_as_it_began(given: Options) -> None:
    given = dataclasses.replace(given, steps=2)
    train(given, report=quiet)
    for change in ({"seed": 1}, {"batch": 16}, {"preset": ABPNConfig(encoder_widths=(4,) * 6)}):
        with pytest.raises(ValueError, match=f"begun with {next(iter(change)).replace('preset', 'config')}"):
            train(dataclasses.replace(given, steps=4, **change), report=quiet)
    with pytest.raises(ValueError, match="was begun with adversarial False, not True"):
        train(dataclasses.replace(given, steps=4), Objective(adversarial=0.1), report=quiet)


def test_the_adversary_plays_the_game_it_is_told(given: Options) -> None:
    given = dataclasses.replace(given, steps=2)
    hinge = Objective(adversarial=0.1)
    squares = dataclasses.replace(hinge, adversarial_loss="least_squares")
    train(given, hinge, report=quiet)
    train(elsewhere(given, "squares"), squares, report=quiet)
    assert log_of(given) != log_of(elsewhere(given, "squares"))
    with pytest.raises(ValueError, match="begun with adversarial_loss hinge, not least_squares"):
        train(dataclasses.replace(given, steps=4), squares, report=quiet)


@pytest.mark.parametrize("folder", ["photos", "validation"])
def test_a_missing_folder_is_named(given: Options, folder: str) -> None:
    missing = dataclasses.replace(given, **{folder: [given.run / "absent"]})
    with pytest.raises(FileNotFoundError, match=r"no such folder of photos: .*absent"):
        train(missing, report=quiet)


def test_photos_on_both_sides_are_told_and_few_are_measured(
    given: Options, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    both = dataclasses.replace(given, validation=[*given.validation, *given.photos])
    monkeypatch.setattr(data, "_MEASURED", 2)
    with caplog.at_level(logging.WARNING):
        prepared = data.prepare(both)
    assert len(prepared.validation) == 2 * len(evaluate._SCHEDULE)
    (told,) = [record.message for record in caplog.records if "trained on and measured on" in record.message]
    assert told.startswith("2 photos are") and str(given.photos[0].resolve()) in told


def test_bad_photos_are_refused_or_skipped(given: Options, caplog: pytest.LogCaptureFixture) -> None:
    bad = given.photos[0] / "bad.png"
    whole = (given.photos[0] / "0.png").read_bytes()
    bad.write_bytes(whole[:-300])
    with pytest.raises(ValueError, match=r"bad.png cannot be read: .*truncated"):
        train(dataclasses.replace(given, workers=1, steps=20), report=quiet)
    with caplog.at_level(logging.WARNING):
        train(dataclasses.replace(given, bad="skip"), report=quiet)
    assert "files that cannot be read" in caplog.text
    assert caplog.text.count("bad.png cannot be read") == 1


def test_a_save_names_its_file_and_sweeps_up(given: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    given.run.mkdir()
    path, left = given.run / "checkpoint.safetensors", given.run / ".checkpoint.safetensors.abc"
    left.touch()
    saving.save(path, {}, {})
    assert path.exists() and not left.exists()

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(saving, "save_file", full)
    with pytest.raises(OSError, match=r"checkpoint.safetensors cannot be written: No space left"):
        saving.save(path, {}, {})
    assert [each.name for each in given.run.iterdir()] == [path.name]


def test_wrong_use_of_pairs_and_photos_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a batch of 1 with a thumbnail of 64 pixels .* give a larger batch"):
        prepare(plain_pairs(tmp_path, batch=1, levels=0))
    with pytest.raises(FileNotFoundError, match=r"no such folder: mistyped"):
        prepare(Options([Path("mistyped")], [], tmp_path, batch=2))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def plain_pairs(folder: Path, **changes: Any) -> Options:
    tiny = {"preset": ABPNConfig(encoder_widths=WIDTHS), "size": 64, "levels": 1, "batch": 2, "workers": 0}
    pairs = folder / "pairs"
    return Options.paper(pairs if pairs.is_dir() else write_pairs(pairs, 12), folder / "run", **{**tiny, **changes})


def test_the_exported_model_is_trained_after_few_steps(given: Options) -> None:
    """With a full decay from the first step on, 0.998^29 of the average would be the weights after step 1."""
    torch.manual_seed(given.seed)
    first = first_model(given).mask_branch.head.weight
    trained = train(dataclasses.replace(given, steps=30, every=30, warmup=0), report=quiet).mask_branch.head.weight
    last = state_of(given)["model.mask_branch.head.weight"]
    assert (trained - last).norm() < 0.5 * (first - last).norm()


@pytest.mark.parametrize("name", ["blend.j", "encoder.blocks.0.1.running_mean"])
def test_the_decay_warms_up(given: Options, name: str) -> None:
    state = State(Fabric(accelerator="cpu", devices=1), given, Objective())
    value = state.plain.state_dict()[name]
    expected = value.clone()
    for count in range(5):
        value += 1
        state.average.update_parameters(state.plain)
        decay = (1 + count) / (10 + count) if count else 0
        expected = decay * expected + (1 - decay) * value
        assert torch.allclose(state.average.module.state_dict()[name], expected)


def test_a_bad_validation_photo_is_refused_or_skipped(given: Options, caplog: pytest.LogCaptureFixture) -> None:
    (given.validation[0] / "bad.png").write_bytes((given.validation[0] / "2.png").read_bytes())
    cut(given.validation[0] / "bad.png")
    with pytest.raises(ValueError, match=r"bad.png cannot be read"):
        train(given, report=quiet)
    train(dataclasses.replace(given, bad="skip", steps=1), report=quiet)
    assert "bad.png cannot be read" in caplog.text and "skipped 1 of 3" in caplog.text


def test_a_bad_kept_pair_is_refused_at_the_start_or_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    given = plain_pairs(tmp_path, steps=2)
    path = write_pairs(tmp_path / "more", 12)
    given = dataclasses.replace(given, photos=[path])
    kept = find_pairs(path, seed=0).test
    cut(kept[0].image)
    with pytest.raises(ValueError, match=rf"{kept[0].image.name} cannot be read"):
        train(given, Objective(), report=quiet)
    with pytest.raises(ValueError, match="all 1 are bad"):
        train(dataclasses.replace(given, bad="skip"), Objective(), report=quiet)
    assert f"{kept[0].image.name} cannot be read" in caplog.text


@pytest.mark.parametrize("what", ["evaluate", "_export"])
def test_what_goes_bad_later_costs_no_steps(given: Options, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BadFile("gone")

    monkeypatch.setattr(trainer, what, fail)
    with pytest.raises(BadFile):
        train(given, report=quiet)
    left = {"checkpoint.safetensors", "model"} if what == "evaluate" else {"checkpoint.safetensors"}
    assert left <= {path.name for path in given.run.iterdir()}


def test_where_nothing_differs_the_losses_are_logged_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    given = plain_pairs(tmp_path, steps=4, every=2)
    for pair in find_pairs(given.photos[0]).test:
        pair.image.write_bytes(pair.target.read_bytes())
    lines: list[dict[str, float]] = []
    train(given, Objective(), report=lines.append)
    assert len(lines) == 2 and "loss" in lines[0] and "psnr" not in lines[0]
    assert caplog.text.count("nothing is measured") == 1


@pytest.mark.parametrize("left", ["stale", "none"])
def test_a_rerun_repairs_the_exported_model(given: Options, left: str) -> None:
    trained = train(given, report=quiet).state_dict()
    weights = given.run / "model" / "model.safetensors"
    if left == "none":
        shutil.rmtree(given.run / "model")
    else:
        save_file({name: value + 1 for name, value in load_file(weights).items()}, weights)
    train(given, report=lambda _: pytest.fail("nothing left to do"))
    loaded = ABPN.from_pretrained(given.run / "model").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in trained.items())


def test_weights_that_give_nan_end_the_run_and_leave_the_batch(given: Options, tmp_path: Path) -> None:
    broken = abpn_fast.accelerate(network())
    with torch.no_grad():
        broken.encoder.blocks[0][0].weight[0, 0, 0, 0] = float("nan")
    broken.save_pretrained(tmp_path / "broken")
    with pytest.raises(FloatingPointError, match=r"became nan"):
        train(dataclasses.replace(given, preset=None, start=tmp_path / "broken"), report=quiet)
    assert (given.run / "failed-batch-0.safetensors").exists()


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


def test_pairs_that_continue_weights_warm_up() -> None:
    given = Options.paper(Path(), Path(), start="small", learning_rate=1.0)
    assert [given.rate(step, 100, 99) for step in (1, 5, 6)] == pytest.approx([0.2, 1, 1])
    assert given.rate(100, 10_000, 99_999) == 0.5
    assert dataclasses.replace(given, warmup=0).rate(1, 100, 99) == 1


def test_checkpoints_come_ten_times_a_run() -> None:
    given = Options.paper(Path(), Path())
    assert [given.interval(total) for total in (3, 207, 9000)] == [1, 20, 500]
    assert Options([], [], Path()).interval(20_000) == 250
    assert dataclasses.replace(given, every=7).interval(3) == 7


@pytest.mark.parametrize("seed", [-1, 10**20])
def test_a_seed_out_of_range_is_named(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"seed must be from 0 to 2\^63 - 1, got {seed}"):
        Options([], [], Path(), seed=seed)


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
