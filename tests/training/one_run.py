"""``python -m tests.training.one_run FOLDER NAME``: a run in float64, alone or under ``torchrun``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from abpn_fast import ABPNConfig
from abpn_fast.training import trainer
from abpn_fast.training.objective import Objective
from abpn_fast.training.photos import Crops
from abpn_fast.training.trainer import Options, train
from tests.reference.networks import WIDTHS

if __name__ == "__main__":
    folder, name = Path(sys.argv[1]), sys.argv[2]
    # In float32 Adam turns the rounding of a gradient near zero into a step.
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    sys.modules["torch.utils.tensorboard"] = None  # type: ignore[assignment]
    # What it measures with computes in float32.
    trainer.evaluate = lambda model, pairs: {"weights": sum(float(each.sum()) for each in model.parameters())}
    options = Options(
        photos=[folder / "photos"],
        validation=[folder / "validation"],
        run=folder / name,
        preset=ABPNConfig(encoder_widths=WIDTHS),
        schedule=(Crops(0, 64, 2), Crops(1, 72, 2)),
        steps=4,
        warmup=2,
        every=4,
        workers=0,
    )
    train(options, Objective(adversarial=0.1), report=print)
