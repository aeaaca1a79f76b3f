"""Memory of a result that is not computed yet, lent to what is gone by then."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from abpn_fast.ops.operator import image_like

# Smaller ones are quicker from the allocator; pieces begin at a page.
_WORTH_IT, _PAGE = 1 << 20, 4096


class Spare:
    """Hands out the memory of ``result`` front to back, each byte once.

    The levels of a large photo from the second on would else stay behind in the heap as free memory, which the C
    library keeps, while the finest level takes new memory for its result.

    Args:
        result: uninitialised and dense, written after the last use of what is taken; None for nothing to lend.
    """

    def __init__(self, result: Tensor | None) -> None:
        self._free = None if result is None else torch.empty(0, dtype=torch.uint8).set_(result.untyped_storage())

    def take(self, like: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
        """An uninitialised tensor in the memory format of ``like``; None where it is small or does not fit."""
        size = math.prod(shape) * dtype.itemsize
        taken = -(-size // _PAGE) * _PAGE
        if self._free is None or size < _WORTH_IT or taken > len(self._free):
            return None
        piece, self._free = self._free[:size].view(dtype), self._free[taken:]
        return piece.as_strided(tuple(shape), image_like(like.to("meta"), shape, dtype).stride())
