"""Muon (Jordan et al. 2024) for the filters of convolutions, Adam for all else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Of a filter bank, outputs and inputs: what is smaller, the first and the last layers, is Adam's.
_LEAST_CHANNELS = 8
_MOMENTUM = 0.95
# The published coefficients of the iteration: singular values come near 1, soon rather than closely.
_COEFFICIENTS, _ITERATIONS = (3.4445, -4.7750, 2.0315), 5
# Updates then have about the root mean square of Adam's, whose learning rates serve (Liu et al. 2025).
_ADAMS_SIZE = 0.2


class Muon(torch.optim.Adam):
    """Filter banks, as matrices of a row per output, step along their momentum with all singular values made 1.

    Args:
        parameters: of a model.
        lr: as for Adam.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        parameters = list(parameters)
        banks = [each for each in parameters if each.dim() == 4 and min(each.shape[:2]) >= _LEAST_CHANNELS]
        known = set(map(id, banks))
        others = [each for each in parameters if id(each) not in known]
        super().__init__([{"params": others, "banks": False}, {"params": banks, "banks": True}], lr)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, Adam's for what is not a filter bank."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["banks"]]
        try:
            result = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            for bank in group["params"] if group["banks"] else ():
                if bank.grad is not None:
                    self._move(bank, group["lr"])
        return result

    def _move(self, bank: Tensor, rate: float) -> None:
        assert bank.grad is not None
        state = self.state[bank]
        if not state:
            # Adam takes up no state without a step.
            state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(bank)}
        state["step"] += 1
        momentum = state["momentum"].lerp_(bank.grad, 1 - _MOMENTUM)
        ahead = bank.grad.lerp(momentum, _MOMENTUM).flatten(1)
        update = orthogonalised(ahead) * (_ADAMS_SIZE * math.sqrt(max(ahead.shape)))
        bank.sub_(update.view(bank.shape), alpha=rate)


def orthogonalised(matrix: Tensor) -> Tensor:
    """``U V`` of the singular value decomposition ``U S V``, roughly: singular values from about 0.7 to 1.2.

    Args:
        matrix: (rows, columns); one of zeros gives zeros.

    Returns:
        The same shape and dtype; computed in bfloat16.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).bfloat16()
    x = x / (x.norm() + 1e-7)
    first, second, third = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = first * x + (second * square + third * square @ square) @ x
    found: Tensor = x if wide else x.T
    return found.to(matrix.dtype)
