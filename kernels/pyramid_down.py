"""One REDUCE step of the image pyramid."""

from __future__ import annotations

from torch import Tensor

from abpn_fast.kernels import levels


def launch(image: Tensor, filter: str, out: Tensor) -> None:
    """Fill ``out`` with the next level in one pass."""
    levels.launch(image, filter, out)
