"""The pyramid over horizontal strips of the image: the same result in memory proportional to the width.

A strip is computed from a slice of every level. Where a slice ends inside the image an operator sees a border that is
not there; the rows that it can reach are computed along and thrown away.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from abpn_fast import ops
from abpn_fast.spare import PAGE, Spare, is_lent

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
        image: of I_0 .. I_l, rows ``held[i]``.
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

    def write(self, finest: Callable[[Tensor], object], out: Tensor) -> None:
        """Let ``finest`` write rows ``needed[0]`` of ``out``, the strips above being there already, and stay there."""
        spoilt = Rows(self.needed[0].begin, self.rows.begin).of(out)
        finished = spoilt.clone()
        finest(self.needed[0].of(out))
        spoilt.copy_(finished)

    def masked(self, mask: Tensor, scale: int) -> Tensor:
        """The rows of ``mask`` under ``needed[0]``, each ``scale`` rows of the image."""
        return Rows(self.needed[0].begin // scale, -(-self.needed[0].end // scale)).of(mask)


def cut(height: int, strip_rows: int, multiple: int) -> Iterator[Rows]:
    """Rows 0 to ``height - 1`` in strips of at least ``strip_rows``, each begun at a multiple of ``multiple``."""
    step = -(-strip_rows // multiple) * multiple
    for begin in range(0, height, step):
        yield Rows(begin, min(begin + step, height))


def coarse(image: Tensor, levels: int, strip_rows: int, down: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """``[I_k, ..., I_l]``, whole, without the levels above them in memory at once; k is ``first_whole``.

    Args:
        image: I_0, (N, 3, H, W).
        levels: l >= 1.
        strip_rows: rows of the image at a time, at least.
        down: one step, ``pyramid_down`` with its options.
    """
    height, width = image.shape[-2:]
    heights, first = _heights(height, levels), first_whole(height, width, levels, strip_rows)
    whole: list[Tensor] = []
    for rows in cut(heights[first], -(-strip_rows // 2**first), 1):
        held = _held([None] * first + [rows], heights[: first + 1])
        part = rows.of(_slices(image, held, down)[first], held[first].begin)
        if not whole:
            whole.append(part.new_empty((*part.shape[:2], heights[first], part.shape[3])))
        rows.of(whole[0]).copy_(part)
        del part
    for _ in range(first, levels):
        whole.append(down(whole[-1]))
    return whole


def first_whole(height: int, width: int, levels: int, strip_rows: int) -> int:
    """The level k from which on keeping I_k .. I_l whole takes less memory than the rows of I_1 that lead to theirs.

    A row of level i is made from 2^i rows of the image: around a strip of a tall photo more of them than its own.
    """
    held = [sum(held_pixels(height, width, levels, strip_rows, k)) for k in range(1, levels + 1)]
    return 1 + held.index(min(held))


def held_pixels(height: int, width: int, levels: int, strip_rows: int, first: int) -> list[int]:
    """Of I_1 .. I_l, while a strip is computed, those from level ``first`` on being whole."""
    heights, widths = _heights(height, levels), _heights(width, levels)
    begin = 16 << levels
    far = [begin + side for side in heights]
    needed = _needed(Rows(begin, begin + -(-strip_rows // 2) * 2), REACH, far)
    held = _held([*needed[:first]], far[:first])
    rows = [min(part.end - part.begin, side) for part, side in zip(held, heights, strict=False)]
    return [count * side for count, side in zip([*rows, *heights[first:]], widths, strict=True)][1:]


def room(image: Tensor, levels: int, strip_rows: int, item: int) -> int:
    """Bytes of what is made for one strip and worth lending: rows of I_1 .. I_{k-1} and of B_1 .. B_{l-1}.

    Args:
        image, levels, strip_rows: as for ``coarse``.
        item: bytes of a value of I_i and B_i.
    """
    height, width = image.shape[-2:]
    first = first_whole(height, width, levels, strip_rows)
    # More rows than are needed: levels begin at even ones.
    pixels = held_pixels(height, width, levels, strip_rows + 2 * REACH, first)[: first - 1]
    rows = min(strip_rows + 4 * REACH, height)
    blend = [(rows // 2**i + 2 * REACH) * -(-width // 2**i) for i in range(1, levels)]
    picture = image.shape[0] * image.shape[1]
    sizes: list[int] = [picture * item * count for count in (*pixels, *blend)]
    return sum(size for size in sizes if is_lent(size)) + PAGE * len(sizes)


def strips(
    image: Tensor,
    whole: Sequence[Tensor],
    levels: int,
    strip_rows: int,
    down: Callable[[Tensor], Tensor],
    mask_scale: int | None,
) -> Iterator[Strip]:
    """The strips of the result, top to bottom.

    Args:
        image, levels, strip_rows, down: as for ``coarse``.
        whole: its result.
        mask_scale: where a mask is upsampled to the image, by how much; the slices then begin at its cells.
    """
    heights, first = _heights(image.shape[-2], levels), levels + 1 - len(whole)
    for rows in cut(heights[0], strip_rows, mask_scale or 2):
        needed = _needed(rows, mask_scale or REACH, heights)
        held = _held([*needed[:first]], heights[:first])
        entire = [Rows(0, side) for side in heights[first:]]
        yield Strip(rows, needed, [*_slices(image, held, down), *whole], [*held, *entire])


def expand(
    strip: Strip, blend: Tensor, weights: Callable[[int], tuple[Tensor, Tensor, Tensor, Tensor]], spare: Spare
) -> Tensor:
    """The rows of B_1 that the finest level of ``strip`` needs, from the whole B_l.

    Args:
        strip: from ``strips``.
        blend: B_l.
        weights: of the refining module of each level.
        spare: where there may be memory for it.
    """
    levels = len(strip.needed) - 1
    blend = strip.needed[levels].of(blend)
    for i in reversed(range(1, levels)):
        finer = strip.level(i)
        target = spare.take(finer, finer.shape, blend.dtype)
        blend = ops.upsample_refine(blend, finer, strip.below(i), *weights(i), out=target)
        blend = strip.needed[i - 1].halved().of(blend, strip.needed[i].begin)
    return blend


def _heights(height: int, levels: int) -> list[int]:
    heights = [height]
    for _ in range(levels):
        heights.append(-(-heights[-1] // 2))
    return heights


def _needed(rows: Rows, margin: int, heights: list[int]) -> list[Rows]:
    """Rows of B_0 .. B_l for ``rows`` of the result, ``margin`` more of B_0."""
    needed = [rows.grown(margin).within(heights[0])]
    for height in heights[1:-1]:
        needed.append(needed[-1].halved().grown(REACH).within(height))
    return [*needed, needed[-1].halved()]


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
