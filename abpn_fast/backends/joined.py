"""Convolutions over ``Cat(up(f), F_skip, M)`` on the CPU without the concatenation, for LAMs and the mask branch.

The convolution of a concatenation is the sum of the convolutions of its parts:

- one convolution over the skip gives its shares of features and gates, and the kept term;
- nearest x2 and a 3x3 convolution are, for each of the four phases of a fine pixel, a 2x2 convolution of the coarse
  features, whose filters are sums of the 3x3 ones: 16 multiplications instead of 36, and nothing upsampled;
- the mask's single channel, the sums, activations and the gate take one pass in C++.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from abpn_fast.backends.onednn import Convolution, computing_dtype

# Of what the convolutions write before the last pass reads it: few rows at a time stay in cache and bound the memory.
_BYTES_AT_ONCE = 8 << 20
# Channels per group are rounded up to the longest vector.
_LANES = 16


class Join(NamedTuple):
    """The filters of one level, laid out for one size of input, and any other as even or odd.

    Args:
        skip: C_skip to ``groups`` times ``width`` channels: features, gates and kept, those there are.
        coarse: C_f to the phases of features and gates, or to these themselves where the size is odd.
        mask: (9, 2 width), float32; None without a mask.
        width: C_out rounded up to whole vectors.
        gates: 1 where there are gates, else 0.
        even: whether ``coarse`` is of phases.
        dtype: what is computed in.
    """

    skip: Convolution
    coarse: Convolution
    mask: Tensor | None
    groups: int
    width: int
    gates: int
    even: bool
    dtype: torch.dtype


Filters = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


def is_even(skip: Tensor) -> bool:
    """Whether height and width of a level are, so that its pixels are whole sets of phases."""
    return skip.shape[2] % 2 == 0 and skip.shape[3] % 2 == 0


def run(
    library: Any, features: Tensor, skip: Tensor, mask: Tensor | None, join: Join, negative_slope: float, out: Tensor
) -> None:
    """Fill ``out`` with a LAM's result, or with ``leaky_relu(conv(Cat(up(f), F_skip)))`` without gates and mask.

    Args:
        library: the compiled operators.
        features, skip, mask, negative_slope, out: as in ``ops.gated_conv``.
        join: from ``arrange``, for a mask where there is one, and for even sizes where these are.
    """
    height, width = skip.shape[2:]
    even, gates = is_even(skip), join.gates
    assert (even, mask is None) == (join.even, join.mask is None)
    if mask is not None:
        mask = interpolate(mask.float(), size=(height, width), mode="bilinear", align_corners=False)
    features, skip = (x.to(join.dtype).contiguous(memory_format=torch.channels_last) for x in (features, skip))
    if not even:
        features = interpolate(features, scale_factor=2, mode="nearest")[..., :height, :width]
    image, rows = skip[:1], _rows(join, skip) if even else height
    if skip[:1].numel() and rows >= height * skip.shape[0]:
        image, rows = skip, height
    for n in range(0, skip.shape[0], image.shape[0]):
        some = slice(n, n + image.shape[0])
        for row in range(0, height, rows):
            end = min(row + rows, height)
            joined = _part(join.skip, skip[some], row, end)
            coarse = features[some]
            if even:
                low = _phases(join.coarse, coarse, row // 2, end // 2)
            else:
                joined[:, : (1 + gates) * join.width] += join.coarse(coarse)
                low = None
            library.gated_conv_finish(
                joined,
                low,
                None if mask is None else mask[some],
                join.mask,
                join.width,
                row,
                negative_slope,
                out[some, :, row:end],
            )


def _part(convolution: Convolution, x: Tensor, begin: int, end: int) -> Tensor:
    """Rows of a 3x3 convolution, from the rows they need."""
    first = max(begin - 1, 0)
    return convolution(x[:, :, first : end + 1])[:, :, begin - first : end - first]


def _phases(convolution: Convolution, x: Tensor, begin: int, end: int) -> Tensor:
    """The 2x2 convolution padded by one: row ``i`` of it lies between rows ``i - 1`` and ``i`` of ``x``."""
    first = max(begin - 1, 0)
    return convolution(x[:, :, first : end + 1])[:, :, begin - first : end - first + 1]


def _rows(join: Join, skip: Tensor) -> int:
    groups = join.groups + min(join.groups, 2)
    return max(_BYTES_AT_ONCE // (groups * join.width * skip.shape[3] * skip.element_size()) // 2 * 2, 16)


def arrange(features: Tensor, skip: Tensor, masked: bool, filters: Filters, gates: int) -> Join:
    """Lay out filters.

    Args:
        features, skip: of the first input.
        masked: whether there is a mask.
        filters: ``weight``, ``bias``, ``skip_weight``, ``skip_bias``, as in ``ops.gated_conv``.
        gates: 1 where the second half of ``weight`` is gates, else 0.
    """
    weight, bias, skip_weight, skip_bias = (None if x is None else x.detach().float() for x in filters)
    assert weight is not None
    assert bias is not None
    channels, dtype, even = features.shape[1], computing_dtype(skip.dtype), is_even(skip)
    coarse_size = features.shape if even else (*features.shape[:2], *skip.shape[2:])
    width = -(-weight.shape[0] // (1 + gates) // _LANES) * _LANES
    groups = list(weight.chunk(1 + gates))
    on_skip = [group[:, channels : channels + skip.shape[1]] for group in groups]
    biases = list(bias.chunk(1 + gates))
    if skip_weight is not None and skip_bias is not None:
        on_skip.append(skip_weight)
        biases.append(skip_bias)
    coarse = _grouped([group[:, :channels] for group in groups], width)
    taps = None
    if masked:
        taps = _grouped([group[:, -1:] for group in groups], width).flatten(1).t().contiguous()
    return Join(
        Convolution(_grouped(on_skip, width).to(dtype), _grouped(biases, width).to(dtype), skip.shape),
        Convolution((_of_phases(coarse) if even else coarse).to(dtype), None, coarse_size),
        taps,
        len(on_skip),
        width,
        gates,
        even,
        dtype,
    )


def _grouped(groups: list[Tensor], width: int) -> Tensor:
    """The groups one after the other, each filled up with zeros to ``width`` filters."""
    return torch.cat([pad(group, (0, 0) * (group.dim() - 1) + (0, width - group.shape[0])) for group in groups])


def _of_phases(weight: Tensor) -> Tensor:
    """(4 C, ., 2, 2) from (C, ., 3, 3): the filters of phases (0, 0), (0, 1), (1, 0), (1, 1)."""
    return torch.cat([part for rows in _halves(weight, 2) for part in _halves(rows, 3)])


def _halves(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    first, middle, last = weight.unbind(dim)
    return torch.stack([first, middle + last], dim), torch.stack([first + middle, last], dim)
