"""A grown model: the same function, and new channels that learn."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import abpn_fast
from abpn_fast.config import ABPNConfig
from abpn_fast.reference import ABPN
from abpn_fast.training.growing import can_grow, grow
from abpn_fast.training.options import Options
from abpn_fast.training.starting import first_model
from tests.reference.networks import WIDTHS, config, network, photo

# Some grow, some stay; one of them between two that grow.
WIDER = (12, 5, 20, 7, 24, 13)


def wider(**extra: object) -> ABPNConfig:
    return dataclasses.replace(config(**extra), encoder_widths=WIDER)


def grown(**extra: object) -> tuple[ABPN, ABPN]:
    narrow = network(**extra).double()
    wide = ABPN(wider(**extra)).double()
    grow(narrow, wide)
    return narrow, wide


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"mask_branch": False},
        {"attention": "gated"},
        {"blend": "conv"},
        {"refining_levels": 2},
        {"output": "direct"},
    ],
    ids=str,
)
def test_the_function_stays(extra: dict[str, object], training: bool) -> None:
    narrow, wide = (model.train(training) for model in grown(**extra))
    image = photo(130, 70, dtype=torch.float64, count=2)
    for old, new in zip(narrow.retouch(image), wide.retouch(image), strict=True):
        if old is None:
            assert new is None
        else:
            torch.testing.assert_close(new, old, rtol=0, atol=1e-11)
    torch.testing.assert_close(wide(image, levels=1), narrow(image, levels=1), rtol=0, atol=1e-11)


def test_new_channels_are_unlike_and_learn() -> None:
    _, wide = grown()
    optimiser = torch.optim.Adam(wide.parameters(), 1e-3)
    before = {name: value.clone() for name, value in wide.named_parameters()}
    image = photo(64, 64, dtype=torch.float64).expand(2, -1, -1, -1)
    for _ in range(3):
        optimiser.zero_grad()
        mask, low_res = wide.train().retouch(image + torch.rand_like(image) / 10)
        (low_res.square().sum() + mask.square().sum()).backward()
        optimiser.step()
    for name, weight in wide.named_parameters():
        if weight.dim() == 4 and "refining" not in name:
            moved = (weight - before[name]).abs().amax((2, 3))
            assert moved.min() > 0, name
    first = before["encoder.blocks.0.0.weight"].flatten(1)
    assert torch.linalg.matrix_rank(first) == min(first.shape)


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        (wider(), config()),
        (config(blend="rgb"), wider()),
        (config(attention="pcb"), wider(attention="pcb")),
    ],
    ids=["narrower", "another blend", "pcb"],
)
def test_what_cannot_grow(narrow: ABPNConfig, wide: ABPNConfig) -> None:
    assert not can_grow(narrow, wide) and can_grow(config(), wider())


def test_a_run_starts_with_a_grown_model(tmp_path: Path) -> None:
    saved = abpn_fast.accelerate(network())
    saved.save_pretrained(tmp_path / "saved")
    options = Options([tmp_path], [tmp_path], tmp_path / "run", start=tmp_path / "saved")
    started = first_model(dataclasses.replace(options, preset=wider())).eval()
    assert started.config.encoder_widths == WIDER and saved.config.encoder_widths == WIDTHS
    image = photo(50, 60)
    torch.testing.assert_close(started(image, levels=1), saved(image, levels=1), rtol=0, atol=1e-5)
    assert first_model(dataclasses.replace(options, start="small", preset="base")).config == ABPNConfig.preset("base")
    with pytest.raises(ValueError, match="nor the same but narrower"):
        first_model(dataclasses.replace(options, start="small", preset=config()))
