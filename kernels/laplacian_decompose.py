"""The image pyramid and the high-frequency pyramid."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from abpn_fast.kernels import levels


def launch(image: Tensor, count: int, filter: str, out: Sequence[Tensor]) -> None:
    """Fill ``out`` with I_1 ... I_l and H_0 ... H_{l-1}, one pass per level."""
    for i in range(count):
        levels.launch(image, filter, out[i], out[count + i])
        image = out[i]
