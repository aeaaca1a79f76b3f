"""All that changes while a run goes on, and its checkpoint."""

from __future__ import annotations

import json
import logging
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from abpn_fast.model import ABPN
from abpn_fast.training import saving
from abpn_fast.training.adversarial import Adversary
from abpn_fast.training.muon import Muon
from abpn_fast.training.objective import Objective
from abpn_fast.training.options import Options
from abpn_fast.training.processes import share_statistics
from abpn_fast.training.starting import first_model

_log = logging.getLogger(__name__)


class State:
    """Model, averaged model, adversary and their optimisers, and how many steps are done.

    Args:
        fabric: of this process.
        options, objective: of the run.
    """

    def __init__(self, fabric: Fabric, options: Options, objective: Objective) -> None:
        self.options, self.objective, self.step = options, objective, 0
        self.plain: ABPN = share_statistics(first_model(options), fabric.device)
        self.plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(self.plain, multi_avg_fn=self._average, use_buffers=True).to(fabric.device)
        kind = Muon if options.optimizer == "muon" else torch.optim.Adam
        self.own_optimiser: torch.optim.Adam = kind(self.plain.parameters(), options.learning_rate)
        self.model, self.optimiser = fabric.setup(self.plain, self.own_optimiser)
        self.adversary = Adversary(objective.adversarial_loss).to(fabric.device) if objective.adversarial else None
        self.adversary_adam = self.adversary.optimiser(options.learning_rate) if self.adversary else None

    @property
    def parts(self) -> dict[str, nn.Module | Optimizer]:
        """What a checkpoint holds, by name."""
        parts: dict[str, nn.Module | Optimizer] = {"model": self.plain, "average": self.average}
        parts["optimiser"] = self.own_optimiser
        if self.adversary is not None and self.adversary_adam is not None:
            parts |= {"adversary": self.adversary, "adversary_optimiser": self.adversary_adam}
        return parts

    @property
    def _facts(self) -> dict[str, object]:
        """What a run must not change on the way."""
        config = json.loads(self.plain.config.to_json())
        options, adversarial = self.options, self.adversary is not None
        return {
            "config": config,
            "recipe": options.recipe,
            "seed": options.seed,
            "batch": options.batch,
            "adversarial": adversarial,
            "adversarial_loss": self.objective.adversarial_loss if adversarial else None,
            "optimizer": options.optimizer,
        }

    def _average(self, averages: Any, weights: Any, count: Tensor | int) -> None:
        # Warmed up: a full decay would keep the untrained weights for a thousand steps.
        decay = min(self.options.averaging, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(decay)(averages, weights, count)  # type: ignore[no-untyped-call]

    def save(self) -> None:
        """Write ``checkpoint.safetensors``."""
        saving.save(self.options.run / "checkpoint.safetensors", self.parts, {"step": self.step, **self._facts})

    def resume(self) -> None:
        """Take up the checkpoint of the run where there is one.

        Raises:
            ValueError: it is damaged or of a run with other options.
        """
        path = self.options.run / "checkpoint.safetensors"
        if not path.exists():
            return
        facts = saving.facts_of(path)
        for name, value in self._facts.items():
            if facts.get(name, value) != value:
                raise ValueError(f"{path} was begun with {name} {facts[name]}, not {value}; train in another folder")
        saving.load(path, self.parts)
        self.step = int(facts["step"])
        _log.info("continuing %s at step %d", path, self.step)
