"""Several processes that train one model: what must be summed over all of them for the result to be that of one."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce

_Model = TypeVar("_Model", bound=nn.Module)


def count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def summed(values: Tensor) -> Tensor:
    """``values`` added up over the processes, with a gradient."""
    if count() == 1:
        return values
    total: Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
    return total


class BatchNorm(nn.BatchNorm2d):
    """Normalises with the statistics of the batches of all processes, which must be equally large.

    ``torch.nn.SyncBatchNorm`` does so on a GPU only.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``input``, (N, C, H, W), normalised as ``torch.nn.BatchNorm2d`` would, given every process's."""
        if not self.training or count() == 1:
            return super().forward(input)
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        mean = summed(input.mean((0, 2, 3))) / count()
        variance = summed((input - mean[:, None, None]).square().mean((0, 2, 3))) / count()
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            size = input.numel() // input.shape[1] * count()
            rate = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
            self.running_var.lerp_((variance * size / (size - 1)).to(self.running_var.dtype), rate)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return input * scale[:, None, None] + shift[:, None, None]


def share_statistics(model: _Model, device: torch.device) -> _Model:
    """Every batch norm in ``model`` over all processes; the same parameters, buffers and names."""
    if count() == 1:
        return model
    if device.type == "cuda":
        shared: _Model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return shared
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = BatchNorm
    return model
