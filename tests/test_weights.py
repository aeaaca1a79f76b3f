"""The bundled weights do what their card says, on a photo they were never trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import abpn_fast
from abpn_fast import ABPN
from abpn_fast.checkpoint import bundled
from abpn_fast.training.evaluate import evaluate, held_out
from abpn_fast.training.photos import load_photos

PORTRAIT = Path(__file__).parents[1] / "examples" / "portrait.jpg"


@pytest.fixture(scope="module", params=bundled())
def model(request: pytest.FixtureRequest) -> ABPN:
    return ABPN.from_pretrained(request.param)


def test_removes_drawn_blemishes_and_leaves_the_rest(model: ABPN) -> None:
    photos = load_photos([PORTRAIT])
    scores = evaluate(model, held_out(photos, seed=1) + held_out(photos, seed=2))
    assert scores["better"] == 1
    assert scores["psnr_inside"] > scores["identity_psnr_inside"] + 1.5
    assert scores["psnr_outside"] > 42


@torch.inference_mode()
def test_strength_zero_leaves_every_grey_level(model: ABPN) -> None:
    ramp = torch.arange(256, dtype=torch.uint8).repeat(3, 64, 1)[None]
    assert torch.equal(model(ramp, levels=1, strength=0.0), ramp)


def test_a_card_with_the_licence_lies_beside_them() -> None:
    assert bundled() == ["medium", "small"]
    for name in bundled():
        card = Path(abpn_fast.__file__).parent / "weights" / name / "README.md"
        assert "Apache-2.0" in card.read_text(encoding="utf-8")
