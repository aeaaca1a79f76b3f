"""What a run is told: data, recipe, length."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from abpn_fast.config import ABPNConfig
from abpn_fast.training.batches import Crops
from abpn_fast.training.files import Bad
from abpn_fast.training.photos import SCHEDULE

Recipe = Literal["synthetic", "paper"]
_PAPER = {"recipe": "paper", "steps": None, "learning_rate": 5e-4}
# The paper says when the rate falls, not when training ends.
_EPOCHS, _FALL = 150, 100


@dataclasses.dataclass(frozen=True)
class Options:
    """One run. The defaults are those of the synthetic recipe; :meth:`paper` has the paper's.

    Args:
        photos: synthetic: folders of clean photos to train on; paper: one folder of pairs (``pairs.py``).
        validation: synthetic: folders of clean photos to measure on, never trained on. Pairs are divided instead.
        run: folder for the checkpoint, the logs and the model; an existing checkpoint there is continued.
        recipe: ``"synthetic"`` draws blemishes onto photos, ``"paper"`` learns from pairs as Sec. 5.1 does.
        preset: of the model, or its config; None for that of ``start``, else ``"small"``.
        start: bundled weights by name or a folder with a saved model, to begin with, batch norm statistics included.
        steps: batches in all; None for 150 epochs.
        batch: pairs per batch, of all processes together. Synthetic: a multiple of 8; that many crops of 192 pixels, as
            much work in fewer of larger ones.
        size, levels: paper: pixels of the square that a pair is fitted into, and l.
        crop: paper: random crops instead of whole photos, resized and padded.
        schedule: synthetic: the kinds of batches.
        optimizer: ``"adam"``, the paper's, or ``"muon"``, see ``muon.py``: a little better after as many steps.
        learning_rate: of either. Synthetic: after ``warmup`` steps, falling along half a cosine; paper: a tenth after
            100 epochs.
        warmup: steps until the full learning rate; None for 200, paper: none, but a twentieth of all and at most 200
            with ``start``, whose weights a full step of a fresh Adam would upset.
        seed: of weights, crops and blemishes, 0 to 2^63 - 1.
        bf16: run convolutions in bfloat16; images, losses and weights stay float32.
        accelerator: of Lightning Fabric, ``"cpu"`` or ``"cuda"``.
        every: steps between two measurements and checkpoints; None for a tenth of all, at most 250, paper: 500.
        workers: processes that make batches.
        averaging: decay of the averaged weights that are measured and exported; less in the first steps, (1 + n) /
            (10 + n) after n of them.
        bad: ``"refuse"`` files that cannot be used, or ``"skip"`` and count them.

    Raises:
        ValueError: no such seed or optimizer.
    """

    photos: Sequence[Path]
    validation: Sequence[Path]
    run: Path
    recipe: Recipe = "synthetic"
    preset: ABPNConfig | str | None = None
    start: Path | str | None = None
    steps: int | None = 20_000
    batch: int = 8
    size: int = 1024
    levels: int = 2
    crop: bool = False
    schedule: Sequence[Crops] = SCHEDULE
    optimizer: Literal["adam", "muon"] = "adam"
    learning_rate: float = 2e-3
    warmup: int | None = None
    seed: int = 0
    bf16: bool = False
    accelerator: str = "cpu"
    every: int | None = None
    workers: int = 1
    averaging: float = 0.998
    bad: Bad = "refuse"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"seed must be from 0 to 2^63 - 1, got {self.seed}")
        if self.optimizer not in ("adam", "muon"):
            raise ValueError(f"optimizer must be 'adam' or 'muon', got {self.optimizer!r}")

    @classmethod
    def paper(cls, pairs: Path, run: Path, **changes: Any) -> Options:
        """Sec. 5.1: Adam 5e-4, a tenth of it after 100 epochs, batches of 8, 1024 pixels, l = 2.

        Args:
            pairs: one folder of pairs.
            run: as above.
            changes: any of the other options.
        """
        return cls([pairs], [], run, **{**_PAPER, **changes})

    def total(self, pairs: int) -> int:
        """The number of batches, given how many pairs there are."""
        return math.ceil(_EPOCHS * pairs / self.batch) if self.steps is None else self.steps

    def interval(self, total: int) -> int:
        """Steps between two checkpoints."""
        most = 500 if self.recipe == "paper" else 250
        return max(min(most, total // 10), 1) if self.every is None else self.every

    def rate(self, step: int, total: int, pairs: int) -> float:
        """The learning rate of a step, 1 to ``total``."""
        warmup = self._warmup(total)
        if step <= warmup:
            return self.learning_rate * step / warmup
        if self.recipe == "paper":
            return self.learning_rate / (10 if (step - 1) * self.batch >= _FALL * pairs else 1)
        done = (step - warmup) / max(total - warmup, 1)
        return self.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)

    def _warmup(self, total: int) -> int:
        if self.warmup is not None or self.recipe == "synthetic":
            return 200 if self.warmup is None else self.warmup
        return min(total // 20, 200) if self.start is not None else 0
