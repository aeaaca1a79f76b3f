"""How much memory a photo will take, before it is opened."""

from __future__ import annotations

from typing import NamedTuple

import torch

from abpn_fast import native
from abpn_fast.backends import BACKENDS
from abpn_fast.config import ABPNConfig
from abpn_fast.reference import default_levels
from abpn_fast.strips import REACH

# Of the plain pyramid at the finest level, per pixel: cat, both hidden layers, what they are made from. Measured.
_PLAIN_CHANNELS = 57
# What a fused convolution of the retouching layer works in at a time, and what all threads of the pyramid do.
_JOINED_SCRATCH, _PYRAMID_SCRATCH = 12 << 20, 1 << 20
# Of the plain retouching layer, in multiples of what its features take.
_PLAIN_LAYER = 8.5


class Plan(NamedTuple):
    """Bytes beyond the image itself; the peak is the larger of two moments.

    Args:
        result: R_0, zero where ``out`` is given.
        pyramid: I_1 .. I_l.
        blend_layers: B_1, and the B_2 it is made from.
        retouching_layer: what the LRL holds at its widest, on the thumbnail; gone before the blend layers come.
        working: what the finest level works in.
        peak: all that is held at once, at most.
    """

    result: int
    pyramid: int
    blend_layers: int
    retouching_layer: int
    working: int
    peak: int


def plan(
    height: int,
    width: int,
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
    *,
    config: ABPNConfig | str = "small",
    levels: int | None = None,
    batch: int = 1,
    strip_rows: int | None = None,
    out: bool = False,
) -> Plan:
    """The memory that ``ABPN.forward`` takes on a CPU, without gradients and intermediates, by part.

    Args:
        height, width: of the image, in pixels.
        dtype: of the image: uint8, computed in float32, or a floating dtype, that of the model.
        backend: ``"cpu"``, ``"reference"``, or ``"auto"`` for the first of them that is there.
        config: of the model, or the name of a preset.
        levels, strip_rows: as for ``ABPN.forward``.
        batch: N.
        out: the result goes into a tensor that is there already.

    Returns:
        Bytes, an upper estimate within a few percent and 12 MB; weights are not counted.

    Raises:
        ValueError: a size is not positive, or the backend is none of the three.
    """
    for name, value in (("height", height), ("width", width), ("batch", batch)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    if backend not in ("auto", "cpu", "reference"):
        known = "one of another kind" if backend in BACKENDS else "no backend"
        raise ValueError(f"backend must be auto, cpu or reference, the ones that run on a CPU; {backend!r} is {known}")
    if backend == "auto":
        backend = "cpu" if native.why_missing() is None and dtype != torch.float64 else "reference"
    config = ABPNConfig.preset(config) if isinstance(config, str) else config
    levels = default_levels(height, width) if levels is None else levels
    item = 4 if dtype == torch.uint8 else dtype.itemsize
    sizes = [(-(-height // (1 << i)), -(-width // (1 << i))) for i in range(levels + 1)]
    strips, step, plain = strip_rows is not None, 1 << levels, backend == "reference"
    rows = height if strip_rows is None else min(height, (-(-strip_rows // step) + 2 * REACH) * step)

    def level(i: int) -> int:
        """A picture of level i, or the part of it that a strip is made from."""
        return batch * 3 * item * min(sizes[i][0], -(-rows // (1 << i))) * sizes[i][1]

    result = 0 if out else batch * 3 * dtype.itemsize * height * width
    pyramid = sum(level(i) for i in range(1, levels + 1))
    blend = sum(level(i) for i in (1, 2) if i <= levels)
    layer = _retouching_layer(config, batch, *sizes[-1], item, plain=plain)
    working = batch * _PLAIN_CHANNELS * item * rows * width if plain else _PYRAMID_SCRATCH
    if strips:
        pyramid += batch * 3 * item * sizes[-1][0] * sizes[-1][1]
        working += level(0)
    peak = max(pyramid + layer + (result if strips else 0), pyramid + blend + result + working)
    return Plan(result, pyramid, blend, layer, working, peak)


def _retouching_layer(config: ABPNConfig, batch: int, height: int, width: int, item: int, *, plain: bool) -> int:
    """The features of the encoder, which are the skips of the LAMs, and one LAM's result on top."""
    height, width = -(-height // 64) * 64, -(-width // 64) * 64
    features = [3 * height * width]
    features += [channels * (height >> i) * (width >> i) for i, channels in enumerate(config.encoder_widths, 1)]
    held = batch * item * sum(features)
    return round(_PLAIN_LAYER * held) if plain else held + batch * item * max(features) + _JOINED_SCRATCH
