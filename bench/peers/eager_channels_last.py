"""The reference in eager PyTorch, weights and image channels_last: one line of code, and the fastest it gets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from abpn_fast import reference


def why_not() -> str | None:
    return None


def prepare(model: reference.ABPN, image: Tensor) -> Callable[[], Tensor]:
    model, image = model.to(memory_format=torch.channels_last), image.contiguous(memory_format=torch.channels_last)
    return lambda: model(image)
