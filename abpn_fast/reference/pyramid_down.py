"""One REDUCE step of the image pyramid (Burt and Adelson; the paper's [4])."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad

from abpn_fast.reference.pixels import to_unit


def pyramid_down(image: Tensor, *, filter: str = "binomial") -> Tensor:
    """Half the size, rounded up: low-pass and keep every second sample, centred between two pixels.

    ``"binomial"`` is the separable [1 3 3 1] / 8, the adjoint of the half-pixel bilinear ``upsample``, so no level
    of the pyramid drifts against another; ``"box"`` is the 2x2 mean. Edges are replicated.

    Args:
        image: (N, C, H, W), floating, or uint8 or uint16 (white at 255, 65535; in float32).

    Returns:
        (N, C, ceil(H / 2), ceil(W / 2)).
    """
    x = to_unit(image)
    height, width = x.shape[-2:]
    x = pad(x, (1, 1 + width % 2, 1, 1 + height % 2), mode="replicate")
    return _halve(_halve(x, -2, filter), -1, filter)


def _halve(x: Tensor, dim: int, filter: str) -> Tensor:
    """``x`` carries one replicated sample before its first and one or two after its last along ``dim``."""
    count = x.shape[dim] // 2 - 1
    before, left, right, after = (x.narrow(dim, first, 2 * count - 1).unfold(dim, 1, 2)[..., 0] for first in range(4))
    if filter == "box":
        return (left + right) / 2
    return (before + 3 * left + 3 * right + after) / 8
