"""abpn_fast on the backend it chooses by itself, which must not be the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import abpn_fast
from abpn_fast import reference


def why_not() -> str | None:
    return abpn_fast.why_not("cpu", torch.empty(1, 3, 2, 2), operator="upsample_refine_blend")


def prepare(model: reference.ABPN, image: Tensor, **options: Any) -> Callable[[], Tensor]:
    fast = abpn_fast.accelerate(model)

    def call() -> Tensor:
        result: Tensor = fast(image, **options)
        return result

    return call
