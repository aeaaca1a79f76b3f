"""How far a result may be from float64: twice as far as the plain float32 reference, and a few roundings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def assert_within_budget(result: Tensor, reference: Tensor, exact: np.ndarray, *, ulps: float = 4) -> None:
    """The error of ``result`` is at most twice that of ``reference`` plus ``ulps`` of the largest value.

    An integer result stands for its value / 255 or 65535 and may be half a grey level further off.
    """
    assert result.dtype == reference.dtype and result.shape == reference.shape == exact.shape
    if exact.size == 0:
        return
    largest, found, allowed = np.abs(exact).max(), _error(result, exact), 2 * _error(reference, exact)
    allowed += ulps * _eps(result) * max(largest, 1e-30)
    assert found <= allowed, f"off by {found:.3g} where {allowed:.3g} is allowed"


def assert_near(result: Tensor, exact: np.ndarray, *, ulps: float = 64) -> None:
    """The error of ``result`` is at most ``ulps`` of the largest value or of 1."""
    assert result.shape == exact.shape
    if exact.size == 0:
        return
    found, allowed = _error(result, exact), ulps * _eps(result) * max(np.abs(exact).max(), 1)
    assert found <= allowed, f"off by {found:.3g} where {allowed:.3g} is allowed"


def assert_same_bits(results: Tensor | Sequence[Tensor], others: Tensor | Sequence[Tensor]) -> None:
    torch.testing.assert_close(results, others, rtol=0, atol=0, equal_nan=True)


def chosen(below: Tensor, image: Tensor, result: Tensor) -> Tensor:
    """``image`` where ``below``, else ``result``: ``torch.where``, which takes no uint16 before PyTorch 2.12."""
    return torch.where(below, *(x.int() if x.dtype == torch.uint16 else x for x in (image, result))).to(image.dtype)


def _eps(x: Tensor) -> float:
    return torch.finfo(x.dtype if x.is_floating_point() else torch.float32).eps


def _error(x: Tensor, exact: np.ndarray) -> float:
    value = x.detach().cpu().double().numpy()
    if x.is_floating_point():
        return float(np.abs(value - exact).max())
    white = torch.iinfo(x.dtype).max
    return float(max(np.abs(value / white - np.clip(exact, 0, 1)).max() - 0.5 / white, 0))
