"""Training from a folder of clean photos: one seeded, resumable run that logs to a CSV file."""

from __future__ import annotations

import csv
import dataclasses
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset

from abpn_fast.reference import ABPN
from abpn_fast.reference.attention import LocalAttentiveModule
from abpn_fast.reference.pixels import to_unit
from abpn_fast.reference.refining import RefiningModule
from abpn_fast.training.evaluate import evaluate, held_out
from abpn_fast.training.objective import Objective
from abpn_fast.training.photos import BlemishedCrops, Pair, find_photos, load_photos

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Options:
    """One run.

    Args:
        photos: folders of clean photos to train on.
        validation: folders of clean photos to measure on, never trained on.
        run: folder for ``checkpoint.pt`` and ``log.csv``; an existing checkpoint there is continued.
        preset: of the model.
        steps: batches in all.
        learning_rate: of Adam, after ``warmup`` steps; it falls to nothing along a cosine.
        seed: of weights, crops and blemishes.
        bf16: run convolutions in bfloat16; images, losses and weights stay float32.
        accelerator: of Lightning Fabric, ``"cpu"`` or ``"cuda"``.
        every: steps between two measurements and checkpoints.
        workers: processes that make batches.
        averaging: decay of the averaged weights that are measured and exported.
    """

    photos: Sequence[Path]
    validation: Sequence[Path]
    run: Path
    preset: str = "small"
    steps: int = 20_000
    learning_rate: float = 2e-3
    warmup: int = 200
    seed: int = 0
    bf16: bool = False
    accelerator: str = "cpu"
    every: int = 250
    workers: int = 1
    averaging: float = 0.998


def train(
    options: Options, objective: Objective | None = None, report: Callable[[dict[str, float]], None] = print
) -> ABPN:
    """Run, or continue, and return the averaged model.

    Args:
        options: what to train on and how.
        objective: weights of the loss.
        report: called with each line of the log.

    Raises:
        FileNotFoundError: a folder is missing or empty.
        FloatingPointError: the loss is not finite; the last checkpoint stays.
    """
    objective = objective or Objective()
    fabric = Fabric(accelerator=options.accelerator, devices=1)
    torch.manual_seed(options.seed)
    plain = start_at_identity(ABPN(options.preset))
    plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaging = get_ema_multi_avg_fn(options.averaging)  # type: ignore[no-untyped-call]
    average = AveragedModel(plain, multi_avg_fn=averaging, use_buffers=True)
    model, optimiser = fabric.setup(plain, torch.optim.Adam(plain.parameters(), options.learning_rate))
    average.to(fabric.device)
    averaged = cast(ABPN, average.module)
    options.run.mkdir(parents=True, exist_ok=True)
    checkpoint = options.run / "checkpoint.pt"
    state = {"model": model, "average": average, "optimiser": optimiser, "step": 0}
    if checkpoint.exists():
        fabric.load(checkpoint, state)
        _log.info("continuing %s at step %d", checkpoint, state["step"])
    validation = held_out(load_photos(find_photos(options.validation)))
    crops = BlemishedCrops(load_photos(find_photos(options.photos)), options.steps, options.seed)
    first = int(state["step"])
    loader = DataLoader(
        Subset(crops, range(first, options.steps)),
        batch_size=None,
        num_workers=options.workers,
        prefetch_factor=8 if options.workers else None,
    )
    with _Log(options.run / "log.csv") as log:
        since, sums = time.perf_counter(), dict[str, float]()
        for step, batch in enumerate(loader, first + 1):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(options, step)
            terms = _step(fabric, model, optimiser, objective, batch, options.bf16, step)
            average.update_parameters(plain)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value
            if step % options.every and step != options.steps:
                continue
            passed = (step - first) % options.every or options.every
            scores = evaluate(averaged, validation)
            line = {"step": step, "seconds_per_step": (time.perf_counter() - since) / passed}
            line |= {name: value / passed for name, value in sums.items()} | scores
            log.write(line)
            report(line)
            state["step"] = step
            _save(fabric, checkpoint, state)
            since, sums = time.perf_counter(), {}
    return averaged


def start_at_identity(model: ABPN) -> ABPN:
    """Zero the last layer of the retouching branch and of the refining modules: the untrained model changes nothing."""
    last = model.retouching_branch.blocks[-1]
    silent = [module.conv2 for module in model.refining if isinstance(module, RefiningModule)]
    if isinstance(last, LocalAttentiveModule):
        silent += [conv for conv in (last.feature, last.skip) if conv is not None]
    for conv in silent:
        nn.init.zeros_(conv.weight)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    return model


def learning_rate(options: Options, step: int) -> float:
    """Linear warm-up, then half a cosine down to 1 % of the full rate at the last step."""
    if step <= options.warmup:
        return options.learning_rate * step / options.warmup
    done = (step - options.warmup) / max(options.steps - options.warmup, 1)
    return options.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


def _step(
    fabric: Fabric, model: Any, optimiser: Any, objective: Objective, batch: Pair, bf16: bool, step: int
) -> dict[str, float]:
    image, target = (to_unit(fabric.to_device(part)) for part in (batch.image, batch.target))
    model.train()
    # Not Fabric's own mixed precision: it would round the image itself to bfloat16.
    with torch.autocast(fabric.device.type, torch.bfloat16, enabled=bf16):
        output = model(image, levels=batch.levels, return_intermediates=True)
    terms = objective.terms(output, target, model.blend, model.config.pyramid_filter)
    loss = objective.total(terms)
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss became {loss.item()} at step {step}; the last checkpoint is unharmed")
    optimiser.zero_grad()
    fabric.backward(loss)
    fabric.clip_gradients(model, optimiser, max_norm=1.0)
    optimiser.step()
    return {name: value.item() for name, value in terms.items()} | {"loss": loss.item()}


def _save(fabric: Fabric, path: Path, state: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    fabric.save(partial, state)
    os.replace(partial, path)


class _Log:
    """Appends to a CSV file, one line at a time, with a header when new."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> _Log:
        self.file = self.path.open("a", newline="")
        return self

    def write(self, line: dict[str, float]) -> None:
        writer = csv.DictWriter(self.file, list(line))
        if self.file.tell() == 0:
            writer.writeheader()
        writer.writerow({name: f"{value:.6g}" for name, value in line.items()})
        self.file.flush()

    def __exit__(self, *_: object) -> None:
        self.file.close()
