"""Small networks of every kind, with weights that make every part of them count."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from abpn_fast import ABPNConfig
from abpn_fast.reference import ABPN, ProbabilisticContextBlock

# All different, so that no width can stand in for another.
WIDTHS = (4, 5, 6, 7, 8, 9)


def config(**options: Any) -> ABPNConfig:
    return ABPNConfig(encoder_widths=WIDTHS, **options)


def network(**options: Any) -> ABPN:
    """In evaluation mode, with batch norms that are not the identity and no dead unit in a context block."""
    model = ABPN(config(**options))
    unsettle(model)
    for module in model.modules():
        if isinstance(module, ProbabilisticContextBlock):
            nn.init.ones_(module.balance[1].bias)
    return model.eval()


def unsettle(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)


def photo(*size: int, dtype: torch.dtype = torch.float32, count: int = 1) -> torch.Tensor:
    """From black to white."""
    pixels = (1.2 * torch.rand(count, 3, *size) - 0.1).clamp(0, 1)
    return pixels.to(dtype) if dtype.is_floating_point else (torch.iinfo(dtype).max * pixels).round().to(dtype)
