"""The pyramid over horizontal strips of the image: the same result in memory proportional to the width.

A strip is computed from a slice of every level. Where a slice ends inside the image an operator sees a border that is
not there; the rows that it can reach are computed along and thrown away.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

from abpn_fast import ops

# Rows of B_i that a false border spoils: two by the convolutions, one more by the upsampling; even, to stay in phase.
REACH = 4


class Rows(NamedTuple):
    """Rows ``begin`` to ``end - 1`` of a level."""

    begin: int
    end: int

    def within(self, height: int) -> Rows:
        """Cut off at the edges of the level."""
        return Rows(max(self.begin, 0), min(self.end, height))

    def grown(self, step: int) -> Rows:
        """``step`` more on either side, begun at an even row."""
        return Rows((self.begin - step) // 2 * 2, self.end + step)

    def halved(self) -> Rows:
        """The rows of the next level that lie over these; ``begin`` is even."""
        return Rows(self.begin // 2, -(-self.end // 2))

    def doubled(self) -> Rows:
        """The rows of the finer level that ``pyramid_down`` needs for these, one more on either side for the phase."""
        return Rows(2 * self.begin - 2, 2 * self.end + 2)

    def of(self, level: Tensor, first: int = 0) -> Tensor:
        """These rows of ``level``, whose own first row is row ``first``."""
        return level[..., self.begin - first : self.end - first, :]


class Strip(NamedTuple):
    """What one strip is computed from: slices of the image and of I_1 .. I_l, and where they begin.

    Args:
        rows: of the result.
        needed: of B_0 .. B_l, with what the false borders spoil.
        image: the slices of I_0 .. I_l, rows ``held[i]``.
        held: at least ``needed``.
    """

    rows: Rows
    needed: list[Rows]
    image: list[Tensor]
    held: list[Rows]

    def level(self, i: int) -> Tensor:
        """I_i, exactly rows ``needed[i]``."""
        return self.needed[i].of(self.image[i], self.held[i].begin)

    def below(self, i: int) -> Tensor:
        """I_{i+1}, the rows under ``needed[i]``."""
        return self.needed[i].halved().of(self.image[i + 1], self.held[i + 1].begin)

    def masked(self, mask: Tensor, scale: int) -> Tensor:
        """The rows of ``mask`` under ``needed[0]``, each ``scale`` rows of the image."""
        return Rows(self.needed[0].begin // scale, -(-self.needed[0].end // scale)).of(mask)


def cut(height: int, strip_rows: int, multiple: int) -> Iterator[Rows]:
    """Rows 0 to ``height - 1`` in strips of at least ``strip_rows``, each begun at a multiple of ``multiple``."""
    step = -(-strip_rows // multiple) * multiple
    for begin in range(0, height, step):
        yield Rows(begin, min(begin + step, height))


def thumbnail(image: Tensor, levels: int, strip_rows: int, down: Callable[[Tensor], Tensor]) -> Tensor:
    """I_l, without the levels between in memory at once.

    Args:
        image: I_0, (N, 3, H, W).
        levels: l >= 1.
        strip_rows: rows of the image at a time, at least.
        down: one step, ``pyramid_down`` with its options.

    Returns:
        (N, 3, ceil(H / 2^l), ceil(W / 2^l)).
    """
    heights = _heights(image, levels)
    whole: Tensor | None = None
    for rows in cut(heights[levels], -(-strip_rows // 2**levels), 1):
        held = _held([None] * levels + [rows], heights)
        part = rows.of(_slices(image, held, down)[levels], held[levels].begin)
        if whole is None:
            whole = part.new_empty((*part.shape[:2], heights[levels], part.shape[3]))
        rows.of(whole).copy_(part)
    assert whole is not None
    return whole


def strips(
    image: Tensor, levels: int, strip_rows: int, down: Callable[[Tensor], Tensor], mask_scale: int | None
) -> Iterator[Strip]:
    """The strips of the result, top to bottom.

    Args:
        image, levels, strip_rows, down: as for ``thumbnail``.
        mask_scale: where a mask is upsampled to the image, by how much; the slices then begin at its cells.
    """
    heights = _heights(image, levels)
    for rows in cut(heights[0], strip_rows, mask_scale or 2):
        needed = [rows.grown(mask_scale or REACH).within(heights[0])]
        for i in range(1, levels):
            needed.append(needed[-1].halved().grown(REACH).within(heights[i]))
        needed.append(needed[-1].halved())
        held = _held([*needed], heights)
        yield Strip(rows, needed, _slices(image, held, down), held)


def expand(strip: Strip, blend: Tensor, weights: Callable[[int], tuple[Tensor, Tensor, Tensor, Tensor]]) -> Tensor:
    """The rows of B_1 that the finest level of ``strip`` needs, from the whole B_l.

    Args:
        strip: from ``strips``.
        blend: B_l.
        weights: of the refining module of each level.
    """
    levels = len(strip.needed) - 1
    blend = strip.needed[levels].of(blend)
    for i in reversed(range(1, levels)):
        blend = ops.upsample_refine(blend, strip.level(i), strip.below(i), *weights(i))
        blend = strip.needed[i - 1].halved().of(blend, strip.needed[i].begin)
    return blend


def _heights(image: Tensor, levels: int) -> list[int]:
    heights = [image.shape[-2]]
    for _ in range(levels):
        heights.append(-(-heights[-1] // 2))
    return heights


def _held(needed: list[Rows | None] | list[Rows], heights: list[int]) -> list[Rows]:
    """Rows of each level that are needed themselves or to compute those of the next level."""
    held: list[Rows] = []
    for rows, height in zip(reversed(needed), reversed(heights), strict=True):
        both = [part for part in (rows, held[0].doubled() if held else None) if part is not None]
        union = Rows(min(part.begin for part in both), max(part.end for part in both))
        held.insert(0, union.within(height))
    return held


def _slices(image: Tensor, held: list[Rows], down: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Rows ``held[i]`` of every level."""
    slices = [held[0].of(image)]
    for finer, coarser in itertools.pairwise(held):
        slices.append(coarser.of(down(slices[-1]), finer.begin // 2))
    return slices
