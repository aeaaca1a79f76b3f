"""The reference in eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from abpn_fast import reference


def why_not() -> str | None:
    return None


def prepare(model: reference.ABPN, image: Tensor) -> Callable[[], Tensor]:
    return lambda: model(image)
