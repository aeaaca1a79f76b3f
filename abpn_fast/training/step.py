"""One step of training."""

from __future__ import annotations

from typing import cast

import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor

from abpn_fast.checkpoint import replace
from abpn_fast.reference import Retouched
from abpn_fast.reference.pixels import to_unit
from abpn_fast.training.batches import Pair
from abpn_fast.training.state import State


def optimise(fabric: Fabric, state: State, batch: Pair, rate: float) -> dict[str, float]:
    """Change the weights by one batch and return the terms of the loss.

    Raises:
        FloatingPointError: the loss or its gradient is not finite; the message names a file with the batch.
    """
    plain, dtype = state.plain, state.plain.dtype
    image, target = (to_unit(fabric.to_device(part), dtype) for part in (batch.image, batch.target))
    state.model.train()
    # Not Fabric's own mixed precision: it would round the image itself to bfloat16.
    with torch.autocast(fabric.device.type, torch.bfloat16, enabled=state.options.bf16):
        output: Retouched = state.model(image, levels=batch.levels, return_intermediates=True)
    terms = state.objective.terms(output, target, plain.blend, plain.config.pyramid_filter, state.adversary)
    loss = state.objective.total(terms)
    _set_rate(state.own_optimiser, rate)
    state.optimiser.zero_grad()
    fabric.backward(loss)
    norm = fabric.clip_gradients(state.model, state.optimiser, max_norm=1.0, error_if_nonfinite=False)
    _check_finite(fabric, state, batch, loss.detach(), cast(Tensor, norm))
    state.optimiser.step()
    found = {name: value.item() for name, value in terms.items()} | {"loss": loss.item()}
    if state.adversary is not None:
        found["discriminator"] = _oppose(fabric, state, target, output.image, rate)
    state.average.update_parameters(plain)
    return found


def _oppose(fabric: Fabric, state: State, target: Tensor, result: Tensor, rate: float) -> float:
    """The adversary's own step."""
    assert state.adversary is not None
    assert state.adversary_adam is not None
    _set_rate(state.adversary_adam, rate)
    state.adversary_adam.zero_grad()
    loss = state.adversary.discriminator_loss(target, result)
    loss.backward()  # type: ignore[no-untyped-call]
    if fabric.world_size > 1:
        for parameter in state.adversary.parameters():
            assert parameter.grad is not None
            parameter.grad = cast(Tensor, fabric.all_reduce(parameter.grad, reduce_op="mean"))
    state.adversary_adam.step()
    return loss.item()


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def _check_finite(fabric: Fabric, state: State, batch: Pair, loss: Tensor, norm: Tensor) -> None:
    finite = torch.isfinite(loss) & torch.isfinite(norm)
    # All processes end together: one alone would leave the others waiting for it.
    if fabric.world_size > 1:
        finite = cast(Tensor, fabric.all_reduce(finite.float(), reduce_op="mean")) == 1
    if finite:
        return
    path = state.options.run / f"failed-batch-{fabric.global_rank}.safetensors"
    facts = {"step": str(state.step), "levels": str(batch.levels)}
    replace(path, lambda partial: save_file({"image": batch.image, "target": batch.target}, partial, metadata=facts))
    raise FloatingPointError(
        f"the loss became {loss.item()} and its gradient's norm {norm.item()} at step {state.step}; "
        f"its batch is in {path}, the last checkpoint is unharmed"
    )
