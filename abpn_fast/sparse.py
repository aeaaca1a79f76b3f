"""The pyramid only where the mask is not below the threshold, so that its cost falls with the retouched area.

The finest level leaves out by itself what the mask keeps. The levels between it and the thumbnail are expanded here, in
rectangles of the mask's cells; what lies outside of them stays the neutral 0 and reaches no pixel of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from abpn_fast import ops
from abpn_fast.strips import REACH, Rows

# Cells beyond an active one: the upsampled mask reaches half of one further, and of a level, where a cell is 8 pixels
# or more, the finer levels need less than 4 around what they compute (n_1 = 2, n_{i+1} = n_i / 2 + 2).
_MARGIN = 1
# Beyond this share of the cells, or this many rectangles, the whole levels are quicker.
_MOST_CELLS, _MOST_RECTANGLES = 0.6, 256


class Rectangle(NamedTuple):
    """Cells of the mask."""

    rows: Rows
    columns: Rows

    def at(self, cell: int, level: Tensor) -> Rectangle:
        """The pixels of ``level`` in these cells, each ``cell`` pixels high and wide."""
        rows, columns = (Rows(side.begin * cell, side.end * cell) for side in self)
        return Rectangle(rows.within(level.shape[-2]), columns.within(level.shape[-1]))

    def grown(self, level: Tensor) -> Rectangle:
        """With the pixels around it that a false border would spoil."""
        rows, columns = (side.grown(REACH) for side in self)
        return Rectangle(rows.within(level.shape[-2]), columns.within(level.shape[-1]))

    def halved(self) -> Rectangle:
        """The pixels of the next level that lie over these."""
        return Rectangle(self.rows.halved(), self.columns.halved())

    def of(self, level: Tensor, first_row: int = 0, first_column: int = 0) -> Tensor:
        """These pixels of ``level``, whose own first row and column are given."""
        (top, bottom), (left, right) = self
        return level[..., top - first_row : bottom - first_row, left - first_column : right - first_column]


def rectangles(mask: Tensor, threshold: float) -> list[Rectangle] | None:
    """Around the cells of ``mask`` that some pixel at or above ``threshold`` depends on; None where all are as quick.

    Args:
        mask: M, (N, 1, h, w), floating.
        threshold: ``mask_threshold``; cells of NaN are active.
    """
    cells = mask.detach().float()
    active = ~(cells + 1e-6 * cells.abs() < threshold)
    needed = max_pool2d(active.any(0).float(), 2 * _MARGIN + 1, stride=1, padding=_MARGIN)[0] > 0
    if mask.numel() == 0 or needed.float().mean() > _MOST_CELLS:
        return None
    found: list[Rectangle] = []
    open_runs: dict[Rows, int] = {}
    for y, row in enumerate([*needed.tolist(), []]):
        runs = _runs(row)
        found += [Rectangle(Rows(begin, y), run) for run, begin in open_runs.items() if run not in runs]
        open_runs = {run: open_runs.get(run, y) for run in runs}
    return None if len(found) > _MOST_RECTANGLES else found


def expand(
    pyramid: Sequence[Tensor],
    blend: Tensor,
    parts: Sequence[Rectangle],
    weights: Callable[[int], tuple[Tensor, Tensor, Tensor, Tensor]],
) -> Tensor:
    """B_1, right where the finest level needs it and 0 elsewhere.

    Args:
        pyramid: ``[I_0, ..., I_l]``.
        blend: B_l.
        parts: from :func:`rectangles`.
        weights: of the refining module of each level.
    """
    levels = len(pyramid) - 1
    for i in reversed(range(1, levels)):
        finer = _zeros(pyramid[i].shape, blend.dtype)
        for part in parts:
            # A cell of the mask is 4 pixels of the thumbnail.
            wanted = part.at(4 * 2 ** (levels - i), finer)
            taken = wanted.grown(finer)
            low = taken.halved()
            piece = ops.upsample_refine(low.of(blend), taken.of(pyramid[i]), low.of(pyramid[i + 1]), *weights(i))
            wanted.of(finer).copy_(wanted.of(piece, taken.rows.begin, taken.columns.begin))
        blend = finer
    return blend


def _runs(row: list[bool]) -> list[Rows]:
    edges = [x for x in range(len(row) + 1) if (x > 0 and row[x - 1]) != (x < len(row) and row[x])]
    return [Rows(begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True)]


def _zeros(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Zeros whose memory is only taken where it is touched, which torch's own are not."""
    *outer, width = shape
    return torch.from_numpy(np.zeros((*outer, width * dtype.itemsize), np.uint8)).view(dtype)
