from __future__ import annotations

import torch

from abpn_fast import accelerate, reference
from abpn_fast.training.objective import Objective
from bench.peak import peak_bytes


def test_a_step_of_the_drop_in_takes_half_the_memory() -> None:
    """1024 pixels, l = 2, "small": forward, loss and backward."""
    plain = reference.ABPN("small").train()
    image, target = torch.rand(1, 3, 1024, 1024), torch.rand(1, 3, 1024, 1024)
    objective = Objective()

    def step(model: reference.ABPN) -> None:
        output = model(image, levels=2, return_intermediates=True)
        plain.zero_grad()
        objective.total(objective.terms(output, target, model.blend, "binomial")).backward()

    ours, theirs = (peak_bytes(lambda model=model: step(model), image.device) for model in (accelerate(plain), plain))
    assert ours < theirs / 2
