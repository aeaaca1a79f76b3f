"""Runs of a tiny network on tiny photos."""

from __future__ import annotations

import csv
import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from abpn_fast import ABPNConfig
from abpn_fast.training import evaluate
from abpn_fast.training.photos import Crops
from abpn_fast.training.trainer import Options
from tests.reference.networks import WIDTHS

STEPS, EVERY = 6, 2


class Killed(Exception):
    pass


def smooth(seed: int, height: int = 80, width: int = 96) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(60, 220, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def write_photos(folder: Path, seeds: range) -> Path:
    folder.mkdir(parents=True)
    for seed in seeds:
        Image.fromarray(smooth(seed)).save(folder / f"{seed}.png")
    return folder


def write_pairs(folder: Path, count: int = 4) -> Path:
    """Photos with a dark spot, and without."""
    for name in ("src", "gt"):
        (folder / name).mkdir(parents=True)
    for seed in range(count):
        clean = smooth(seed)
        spotted = clean.copy()
        spotted[20:40, 30:50] //= 2
        Image.fromarray(spotted).save(folder / "src" / f"{seed}.png")
        Image.fromarray(clean).save(folder / "gt" / f"{seed}.png")
    return folder


def options(folder: Path, **changes: Any) -> Options:
    """Six steps."""
    return Options(
        **{
            "photos": [write_photos(folder / "photos", range(2))],
            "validation": [write_photos(folder / "validation", range(2, 4))],
            "run": folder / "run",
            "preset": ABPNConfig(encoder_widths=WIDTHS),
            "schedule": (Crops(0, 64, 2), Crops(1, 72, 2)),
            "steps": STEPS,
            "warmup": 2,
            "every": EVERY,
            "workers": 0,
            **changes,
        }
    )


def measure_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "_SCHEDULE", (Crops(1, 64, 1),))


def elsewhere(given: Options, name: str, **changes: Any) -> Options:
    return dataclasses.replace(given, run=given.run.with_name(name), **changes)


def log_of(given: Options) -> list[dict[str, str]]:
    with (given.run / "log.csv").open() as file:
        return [{**line, "seconds_per_step": ""} for line in csv.DictReader(file)]


def state_of(given: Options) -> dict[str, torch.Tensor]:
    return load_file(given.run / "checkpoint.safetensors")


def quiet(line: dict[str, float]) -> None:
    pass


def killed_at(step: int) -> Any:
    def report(step: int, line: dict[str, float]) -> None:
        if line["step"] == step:
            raise Killed

    return functools.partial(report, step)
