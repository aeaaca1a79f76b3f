"""Memory handed out for a while: of a result that is not computed yet, or of one strip after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from abpn_fast.ops.operator import is_channels_last

# Smaller pieces are quicker from the allocator; pieces begin at a page. Bytes.
_LEAST, PAGE = 1 << 20, 4096
# Values of an image whose second level is about as large as the smallest piece.
_LARGE = 1 << 22


def worth_lending(values: int, levels: int) -> bool:
    """Whether a result of so many values, with so many levels below it, has anything to lend its memory to."""
    return levels >= 2 and values >= _LARGE


def is_lent(size: int) -> bool:
    """Whether a level of ``size`` bytes is put there."""
    return size >= _LEAST


class Spare:
    """Hands out the memory of ``lender`` front to back.

    The levels of a large photo from the second on would else stay behind in the heap as free memory, which the C
    library keeps, while the finest level takes new memory for its result; those of strips would leave holes there.

    Args:
        lender: uninitialised and dense, a result written after the last use of what is taken; None for nothing to lend.
    """

    def __init__(self, lender: Tensor | None) -> None:
        self._all: Tensor | None = None
        if lender is not None:
            self._all = lender.new_empty(0, dtype=torch.uint8).set_(lender.untyped_storage())
        self._free = self._all

    def reset(self) -> None:
        """Begin at the front again: what was taken is not in use any more."""
        self._free = self._all

    def take(self, like: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor | None:
        """An uninitialised tensor in the memory format of ``like``; None where it is small or does not fit."""
        size = math.prod(shape) * dtype.itemsize
        taken = -(-size // PAGE) * PAGE
        if self._free is None or not is_lent(size) or taken > len(self._free):
            return None
        piece, self._free = self._free[:size].view(dtype), self._free[taken:]
        if is_channels_last(like):
            count, channels, height, width = shape
            return piece.view(count, height, width, channels).permute(0, 3, 1, 2)
        return piece.view(tuple(shape))
