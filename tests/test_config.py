from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from abpn_fast import ABPNConfig

EVERY_OPTION = {
    "encoder_widths": (4, 5, 6, 7, 8, 9),
    "mask_branch": False,
    "attention": "gated",
    "blend": "soft_light",
    "refining": False,
    "refining_levels": 3,
    "output": "direct",
    "pyramid_filter": "box",
    "damping": 0,
}


@pytest.mark.parametrize("config", [ABPNConfig(), ABPNConfig.preset("small"), ABPNConfig(**EVERY_OPTION)])
def test_json_round_trip(config: ABPNConfig) -> None:
    again = ABPNConfig.from_json(config.to_json())
    assert again == config and hash(again) == hash(config)
    assert set(json.loads(config.to_json())) == set(EVERY_OPTION)


def test_every_option_differs_from_its_default() -> None:
    assert all(getattr(ABPNConfig(), name) != value for name, value in EVERY_OPTION.items())


def test_presets() -> None:
    assert ABPNConfig.preset("base") == ABPNConfig()
    assert ABPNConfig().encoder_widths == (64, 128, 256, 512, 512, 512)
    assert ABPNConfig.preset("small").encoder_widths == (16, 32, 64, 128, 128, 128)
    assert ABPNConfig.preset("medium").encoder_widths == (32, 64, 128, 128, 128, 128)
    assert ABPNConfig.preset("small", encoder_widths=[1, 2, 3, 4, 5, 6]).encoder_widths == (1, 2, 3, 4, 5, 6)
    assert ABPNConfig.preset("small", blend="rgb") == dataclasses.replace(ABPNConfig.preset("small"), blend="rgb")


def test_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ABPNConfig().damping = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("encoder_widths", (1, 2, 3, 4, 5)),
        ("encoder_widths", (1, 2, 3, 4, 5, 0)),
        ("encoder_widths", (1, 2, 3, 4, 5, 6.0)),
        ("encoder_widths", "abcdef"),
        ("encoder_widths", 64),
        ("mask_branch", 1),
        ("mask_branch", None),
        ("attention", "self"),
        ("attention", None),
        ("blend", "multiply"),
        ("refining", "yes"),
        ("refining_levels", 0),
        ("refining_levels", True),
        ("refining_levels", 1.0),
        ("output", "tanh"),
        ("pyramid_filter", "gaussian"),
        ("damping", -1e-9),
        ("damping", float("nan")),
        ("damping", float("inf")),
        ("damping", "little"),
        ("damping", True),
    ],
)
def test_invalid_option_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be .*got"):
        ABPNConfig(**{name: value})


def test_context_block_needs_a_mask() -> None:
    with pytest.raises(ValueError, match=r"attention='pcb' .* needs mask_branch=True"):
        ABPNConfig(attention="pcb", mask_branch=False)


def test_unknown_preset_and_option() -> None:
    with pytest.raises(ValueError, match="preset must be one of base, medium, small, got 'tiny'"):
        ABPNConfig.preset("tiny")
    with pytest.raises(TypeError, match="depth"):
        ABPNConfig.preset("small", depth=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "must be a JSON object, got list"),
        ("{", "Expecting"),
        ('{"depth": 3, "cost": 1, "age": 1, "ball": 1}', "no option age, ball, cost, depth"),
        ('{"blend": "multiply"}', "blend must be one of"),
    ],
)
def test_json_that_does_not_fit(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ABPNConfig.from_json(text)
