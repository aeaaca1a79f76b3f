"""One seeded, resumable run, in one process or in those that ``torchrun`` starts."""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Callable
from typing import cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from abpn_fast.model import ABPN
from abpn_fast.training.batches import load
from abpn_fast.training.data import Data, prepare
from abpn_fast.training.evaluate import evaluate
from abpn_fast.training.logs import Logs
from abpn_fast.training.objective import Objective
from abpn_fast.training.options import Options
from abpn_fast.training.starting import start_at_identity
from abpn_fast.training.state import State
from abpn_fast.training.step import optimise

__all__ = ["Options", "start_at_identity", "train"]

_log = logging.getLogger(__name__)


def train(
    options: Options, objective: Objective | None = None, report: Callable[[dict[str, float]], None] = print
) -> ABPN:
    """Run, or continue, and return the averaged model; it is also in the folder ``model`` of the run.

    Args:
        options: what to train on and how.
        objective: what to minimise; None for the recipe's.
        report: called with each line of the log, in the first process.

    Raises:
        FileNotFoundError, ValueError: data, weights to start from or a checkpoint cannot be used; the message names it.
        FloatingPointError: the loss or its gradient is not finite; the last checkpoint stays, the batch is saved.
    """
    if objective is None:
        objective = Objective.paper() if options.recipe == "paper" else Objective()
    fabric = launch(options.accelerator)
    torch.manual_seed(options.seed)
    state = State(fabric, options, objective)
    data = prepare(options, (fabric.global_rank, fabric.world_size))
    options.run.mkdir(parents=True, exist_ok=True)
    state.resume()
    if state.step and not fabric.global_rank:
        # A run that was killed after its checkpoint may have left an older model, or none.
        _export(state)
    if state.step < len(data.batches):
        if fabric.global_rank:
            _steps(fabric, state, data, None, report)
        else:
            with Logs(options.run, state.step, len(data.batches)) as logs:
                _steps(fabric, state, data, logs, report)
    return cast(ABPN, state.average.module).eval()


def launch(accelerator: str) -> Fabric:
    """This process alone, or one of those that ``torchrun`` started, joined."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Fabric(accelerator=accelerator, devices=1)
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    nodes = int(os.environ["WORLD_SIZE"]) // local
    # A batch without pyramid leaves the refining module out.
    strategy = DDPStrategy(find_unused_parameters=True)
    fabric = Fabric(accelerator=accelerator, devices=local, num_nodes=nodes, strategy=strategy)
    fabric.launch()
    if fabric.world_size > 1:
        # Fabric does so for NCCL alone; a process that ends with gloo's threads running may be aborted.
        atexit.register(_leave)
    return fabric


def _steps(
    fabric: Fabric, state: State, data: Data, logs: Logs | None, report: Callable[[dict[str, float]], None]
) -> None:
    options, total = state.options, len(data.batches)
    every = options.interval(total)
    since, done, sums, skipped, told = time.perf_counter(), 0, dict[str, float](), 0, set[str]()
    for batch in load(data.batches, state.step, options.workers):
        state.step += 1
        terms = optimise(fabric, state, batch, options.rate(state.step, total, data.epoch))
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value
        done, skipped = done + 1, skipped + len(batch.skipped)
        for reason in dict.fromkeys(batch.skipped):
            if reason not in told:
                _log.warning("skipped: %s", reason)
        told.update(batch.skipped)
        if logs is not None:
            logs.step(terms["loss"])
        if state.step % every and state.step != total:
            continue
        line = {"step": state.step, "seconds_per_step": (time.perf_counter() - since) / done}
        line |= _mean(fabric, {name: value / done for name, value in sums.items()})
        if logs is not None:
            if skipped:
                _log.warning("met files that cannot be read %d times since the last line", skipped)
            _measure(state, data, line, logs, report)
        fabric.barrier()
        since, done, sums, skipped = time.perf_counter(), 0, {}, 0


def _measure(
    state: State, data: Data, line: dict[str, float], logs: Logs, report: Callable[[dict[str, float]], None]
) -> None:
    # First of all: what goes wrong below must not cost the steps.
    state.save()
    averaged = _export(state)
    if data.validation:
        line |= evaluate(averaged, data.validation)
    logs.measured(line)
    logs.pictures(averaged, data.validation, state.step)
    report(line)


def _export(state: State) -> ABPN:
    averaged = cast(ABPN, state.average.module).eval()
    averaged.save_pretrained(state.options.run / "model")
    return averaged


def _mean(fabric: Fabric, values: dict[str, float]) -> dict[str, float]:
    if fabric.world_size == 1:
        return values
    mean = fabric.all_reduce(torch.tensor(list(values.values()), dtype=torch.float64), reduce_op="mean")
    return dict(zip(values, cast(torch.Tensor, mean).tolist(), strict=True))


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
