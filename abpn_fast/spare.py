"""Memory of a result that is not computed yet, lent to what is gone by then."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from abpn_fast.ops.operator import image_like

# Smaller pieces are quicker from the allocator; pieces begin at a page. Bytes.
_LEAST, _PAGE = 1 << 20, 4096
# Values of an image whose second level is about as large as the smallest piece.
_LARGE = 1 << 22


def worth_lending(values: int, levels: int) -> bool:
    """Whether a result of so many values, with so many levels below it, has anything to lend its memory to."""
    return levels >= 2 and values >= _LARGE


def is_lent(size: int) -> bool:
    """Whether a level of ``size`` bytes is put there."""
    return size >= _LEAST


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
        if self._free is None or not is_lent(size) or taken > len(self._free):
            return None
        piece, self._free = self._free[:size].view(dtype), self._free[taken:]
        return piece.as_strided(tuple(shape), image_like(like.to("meta"), shape, dtype).stride())
