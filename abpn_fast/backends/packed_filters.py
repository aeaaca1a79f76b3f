"""Filters in the order in which backend ``cpu`` reads them (``csrc/include/gated_conv.h``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

Filters = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
"""``weight``, ``bias``, ``skip_weight`` and ``skip_bias``, as in ``ops.gated_conv``."""

# F(2, 3): filters of the products m0 .. m3 from those of three taps, and the taps from them.
_WINOGRAD = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_FROM_WINOGRAD = ((1, 0, 0, 0), (0, 1, -1, 0), (0, 0, 0, 1))
# Nearest x2 and three taps: w0, w0 + w1 + w2 and w2 are enough.
_UPSAMPLING = ((1, 0, 0), (1, 1, 1), (0, 0, 1))
_FROM_UPSAMPLING = ((1, 0, 0), (-1, 1, -1), (0, 0, 1))
# The two taps on coarse pixels, of the first and of the second phase.
_PHASES = (((1, 0, 0), (0, 1, 1)), ((1, 1, 0), (0, 0, 1)))


class PackedFilters(NamedTuple):
    """The filters of the products of ``gated_conv``.

    Args:
        features: of the 9 over the features, float32 or pairs of inputs in bfloat16; None without features.
        skip: of the 16 over the skip and, last, the mask; likewise.
        bias: of each channel and group.
        groups: of channels: features, gates and kept, those there are.
        channels, skip_channels: those of the features, 0 without, and of the skip.
        masked: whether there is a mask.
    """

    features: Tensor | None
    skip: Tensor
    bias: Tensor
    groups: int
    channels: int
    skip_channels: int
    masked: bool


class DirectFilters(NamedTuple):
    """The filters of ``gated_conv_directly``, float32, tap by tap.

    Args:
        features: of each phase at even sizes, else of the upsampled features; None without features.
        mask: None without a mask.
        skip: of what is as fine as the result.
        bias: of each channel and group.
        groups: of channels: features, gates and kept, those there are.
    """

    features: Tensor | None
    mask: Tensor | None
    skip: Tensor
    bias: Tensor
    groups: int


def pack(filters: Filters, gates: int, channels: int, skip_channels: int, bf16: bool) -> PackedFilters:
    """For even sizes.

    Args:
        filters: of the convolution.
        gates: 1 where the second half of ``weight`` is gates, else 0.
        channels, skip_channels: those of the features, 0 without, and of the skip; any other is the mask's.
        bf16: for dot products of pairs of inputs.
    """
    groups, kept, biases = _grouped(filters, gates)
    masked = groups[0].shape[1] > channels + skip_channels
    fine = [group[:, channels:] for group in groups]
    # The mask has no share in what is kept.
    fine += [pad(group, (0, 0, 0, 0, 0, int(masked))) for group in kept]
    features = _packed([_transformed(group[:, :channels], _UPSAMPLING) for group in groups]) if channels else None
    skip = _packed([_transformed(group, _WINOGRAD) for group in fine])
    if bf16:
        features, skip = None if features is None else _paired(features), _paired(skip)
    return PackedFilters(features, skip, _packed(biases), len(fine), channels, skip_channels, masked)


def pack_directly(filters: Filters, gates: int, channels: int, skip_channels: int, even: bool) -> DirectFilters:
    """For any size, ``even`` or not; else as ``pack``."""
    groups, kept, biases = _grouped(filters, gates)
    inputs = channels + skip_channels
    features = mask = None
    if channels:
        coarse = [group[:, :channels] for group in groups]
        phases = [(down, across) for down in _PHASES for across in _PHASES] if even else [(_IDENTITY, _IDENTITY)]
        features = torch.cat([_packed([_transformed(group, *phase) for group in coarse]) for phase in phases])
    if groups[0].shape[1] > inputs:
        mask = _packed([group[:, inputs:].flatten(2) for group in groups])
    skip = [group[:, channels:inputs] for group in groups] + kept
    return DirectFilters(features, mask, _packed([group.flatten(2) for group in skip]), _packed(biases), len(skip))


def without_phases(direct: DirectFilters) -> DirectFilters:
    """The same for upsampled features at any size, up to rounding."""
    assert direct.features is not None
    _, _, inputs, groups, block = direct.features.shape
    phases = direct.features.view(2, 2, -1, 2, 2, inputs, groups, block)
    down = torch.stack([phases[0, :, :, 0], phases[0, :, :, 1] - phases[1, :, :, 1], phases[1, :, :, 1]], 2)
    first, second = down
    taps = torch.stack([first[:, :, 0], first[:, :, 1] - second[:, :, 1], second[:, :, 1]], 2)
    return direct._replace(features=taps.flatten(1, 2).contiguous())


def unpack(packed: PackedFilters) -> Filters:
    """The filters again, up to rounding, with channels out filled up by zeros."""
    gates = min(packed.groups, 2)
    skip = _unpacked(packed.skip, packed.skip_channels + packed.masked)
    fine = [_transformed(_square(group, 4), _FROM_WINOGRAD) for group in skip]
    groups = [_square(group, 3) for group in fine]
    biases = [bias.flatten() for bias in _unpacked(packed.bias, 1)]
    parts = [groups[:gates]]
    if packed.features is not None:
        features = _unpacked(packed.features, packed.channels)
        coarse = [_transformed(_square(group, 3), _FROM_UPSAMPLING) for group in features]
        parts.insert(0, [_square(group, 3) for group in coarse])
    weight = torch.cat([torch.cat(part) for part in parts], 1)
    kept = groups[2][:, : -1 if packed.masked else None] if packed.groups == 3 else None
    return weight, torch.cat(biases[:gates]), kept, biases[2] if packed.groups == 3 else None


_IDENTITY = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_Matrix = Sequence[Sequence[float]]


def _grouped(filters: Filters, gates: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """(C_out, C_in, 3, 3) of features and gates, the same of kept where there is one, and the biases of all."""
    weight, bias, skip_weight, skip_bias = (None if x is None else x.detach().float() for x in filters)
    assert weight is not None
    assert bias is not None
    groups, biases = list(weight.chunk(1 + gates)), list(bias.chunk(1 + gates))
    if skip_weight is None or skip_bias is None:
        kept = []
    else:
        kept, biases = [skip_weight], [*biases, skip_bias]
    return groups, kept, [bias[:, None, None] for bias in biases]


def _transformed(weight: Tensor, down: _Matrix, across: _Matrix | None = None) -> Tensor:
    """(C_out, C_in, products) from the taps, in float64 as long as there is something to round."""
    first, second = (weight.new_tensor(matrix, dtype=torch.float64) for matrix in (down, across or down))
    return (first @ weight.double() @ second.t()).float().flatten(2)


def _packed(groups: list[Tensor]) -> Tensor:
    """(blocks, taps, C_in, groups, block) from groups of (C_out, C_in, taps), C_out filled up with zeros."""
    # As many channels as there are registers for, with gates and kept as with gates alone.
    block = 8 if len(groups) == 1 else 4
    filters = torch.stack([pad(group, (0, 0, 0, 0, 0, -group.shape[0] % block)) for group in groups])
    count, _, inputs, taps = filters.shape
    return filters.view(count, -1, block, inputs, taps).permute(1, 4, 3, 0, 2).contiguous()


def _paired(packed: Tensor) -> Tensor:
    """(blocks, taps, C_in / 2, groups, block, 2), two inputs side by side, an odd one beside zeros."""
    whole = pad(packed, (0, 0, 0, 0, 0, packed.shape[2] % 2))
    return torch.stack([whole[:, :, ::2], whole[:, :, 1::2]], -1).bfloat16()


def _unpacked(packed: Tensor, inputs: int) -> list[Tensor]:
    if packed.dtype == torch.bfloat16:
        packed = packed.float().movedim(-1, 3).flatten(2, 3)[:, :, :inputs]
    return list(packed.permute(3, 0, 4, 2, 1).flatten(1, 2))


def _square(group: Tensor, side: int) -> Tensor:
    return group.reshape(*group.shape[:2], side, side)
