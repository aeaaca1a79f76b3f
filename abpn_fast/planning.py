"""How much memory a photo will take, before it is opened."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.backends import mkldnn

from abpn_fast import native
from abpn_fast.backends import BACKENDS
from abpn_fast.config import ABPNConfig
from abpn_fast.reference.arguments import integer
from abpn_fast.reference.model import as_config, check_levels
from abpn_fast.spare import is_lent, worth_lending
from abpn_fast.strips import REACH, first_whole, held_pixels

# Of the plain pyramid at the finest level, per pixel: cat, both hidden layers, what they are made from; more where
# PyTorch's convolutions write out every filter's window. Measured.
_PLAIN_CHANNELS, _PLAIN_CHANNELS_16, _UNFOLDED_CHANNELS = 57, 60, 169
# What the threads work in, a few of them, in the retouching layer and in the pyramid.
_LAYER_SCRATCH, _PYRAMID_SCRATCH = 6 << 20, 1 << 20
# Of the plain retouching layer, in multiples of what its features take.
_PLAIN_LAYER, _UNFOLDED_LAYER = 8.5, 22
# Images that the blending of a model without a pyramid holds beside its result, of a floating and an integer one.
_WITHOUT_PYRAMID = {True: 5, False: 7}
_DTYPES = (torch.uint8, torch.uint16, torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Plan(NamedTuple):
    """Bytes beyond the image itself; the peak is the largest of several moments.

    Args:
        result: R_0, zero where ``out`` is given and there is a pyramid.
        pyramid: I_1 .. I_l, without those that lie in the memory of the result before it is written.
        blend_layers: B_1 and the B_2 it is made from, with the same exception.
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
    self_ensemble: bool = False,
    strip_rows: int | None = None,
    out: bool = False,
) -> Plan:
    """The memory that ``ABPN.forward`` takes on a CPU, without gradients and intermediates, by part.

    Args:
        height, width: of the image, in pixels.
        dtype: of the image: uint8 or uint16, computed in float32, or a floating dtype, that of the model.
        backend: ``"cpu"``, ``"reference"``, or ``"auto"`` for the first of them that takes ``dtype``.
        config: of the model, or the name of a preset; the ablations ``blend="conv"``, ``refining=False`` and
            ``attention="pcb"`` are not covered.
        levels, self_ensemble, strip_rows: as for ``ABPN.forward``.
        batch: N.
        out: the result goes into a tensor that is there already.

    Returns:
        Bytes, an upper estimate within a few percent and 12 MB; weights are not counted.

    Raises:
        ValueError, TypeError: an argument is none that ``ABPN.forward`` takes on a CPU, or not covered; the message
            names it.
    """
    config = as_config(config)
    levels = _checked(height, width, dtype, backend, config, levels, batch, strip_rows)
    height, width, batch = int(height), int(width), int(batch)  # NumPy's would overflow.
    if backend == "auto":
        backend = "cpu" if native.why_missing() is None and dtype != torch.float64 else "reference"
    item = dtype.itemsize if dtype.is_floating_point else 4
    plain, rows = backend == "reference", int(strip_rows or height)
    sizes = [(-(-height // (1 << i)), -(-width // (1 << i))) for i in range(levels + 1)]
    result = 0 if out else batch * 3 * dtype.itemsize * height * width
    multiple = (_UNFOLDED_LAYER if _unfolds(dtype) else _PLAIN_LAYER) if plain else None
    layer = _retouching_layer(config, batch, *sizes[-1], item, multiple, self_ensemble)
    strip = min(height, -(-rows // 2) * 2 + 2 * REACH)
    working = batch * _plain_channels(dtype) * item * strip * width if plain else _PYRAMID_SCRATCH
    if levels == 0:
        result = batch * 3 * dtype.itemsize * height * width  # Made anew also where it is copied to an ``out``.
        working = batch * 3 * item * height * width * _WITHOUT_PYRAMID[dtype.is_floating_point]
        return Plan(result, 0, 0, layer, working, max(layer, result + working))
    if strip_rows is None:
        held = [h * w for h, w in sizes[1:]]
        lent = not out and worth_lending(batch * 3 * height * width, levels)
    else:
        held = held_pixels(height, width, levels, rows, first_whole(height, width, levels, rows))
        # The reference's result of a strip is copied into the whole.
        working += batch * 3 * dtype.itemsize * strip * width if plain else 0
        lent = False
    image = [batch * 3 * item * pixels for pixels in held]
    blend = [min(batch * 3 * item * h * w, size) for (h, w), size in zip(sizes[1:3], image, strict=False)]
    finest = result + working + (image[0] + blend[0] if strip_rows is None else sum(image) + sum(blend))
    if lent:
        image, blend = ([size for i, size in enumerate(some) if i == 0 or not is_lent(size)] for some in (image, blend))
    early = result if lent else 0
    peak = max(early + sum(image) + layer, early + sum(image) + sum(blend), finest)
    return Plan(result, sum(image), sum(blend), layer, working, peak)


def _checked(
    height: int,
    width: int,
    dtype: torch.dtype,
    backend: str,
    config: ABPNConfig,
    levels: int | None,
    batch: int,
    strip_rows: int | None,
) -> int:
    """The number of levels, if all arguments fit."""
    for name, value in (("height", height), ("width", width), ("batch", batch)):
        integer(name, value, 1)
    if dtype not in _DTYPES:
        raise TypeError(f"dtype must be one of {', '.join(map(str, _DTYPES))}, got {dtype!r}")
    if backend not in ("auto", "cpu", "reference"):
        known = "one of another kind" if backend in BACKENDS else "no backend"
        raise ValueError(f"backend must be auto, cpu or reference, the ones that run on a CPU; {backend!r} is {known}")
    if backend == "cpu" and dtype == torch.float64:
        raise ValueError(
            "backend must be auto or reference for torch.float64, in which cpu does not compute, got 'cpu'"
        )
    if config.blend == "conv" or not config.refining or config.attention == "pcb":
        raise ValueError(
            "config must have another blend than 'conv', refining=True and another attention than 'pcb', which plan "
            f"does not cover, got {config}"
        )
    levels = check_levels(levels, height, width, config)
    if strip_rows is not None:
        integer("strip_rows", strip_rows, 1, optional=True)
    return levels


def _unfolds(dtype: torch.dtype) -> bool:
    """Whether PyTorch has no convolution of its own for ``dtype`` on this CPU, but a product of windows written out."""
    if dtype in (torch.float16, torch.bfloat16):
        name = "fp16" if dtype == torch.float16 else "bf16"
        built: bool = mkldnn.is_available()  # type: ignore[no-untyped-call]
        return not (built and getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported")())
    return dtype == torch.float64


def _plain_channels(dtype: torch.dtype) -> int:
    if _unfolds(dtype):
        return _UNFOLDED_CHANNELS
    return _PLAIN_CHANNELS_16 if dtype == torch.float16 else _PLAIN_CHANNELS


def _retouching_layer(
    config: ABPNConfig, batch: int, height: int, width: int, item: int, multiple: float | None, self_ensemble: bool
) -> int:
    """The encoder's features, which are the skips of the LAMs, and one LAM's result on top, or so many times them."""
    height, width = -(-height // 64) * 64, -(-width // 64) * 64
    features = [3 * height * width]
    features += [channels * (height >> i) * (width >> i) for i, channels in enumerate(config.encoder_widths, 1)]
    held = batch * item * sum(features)
    # Four results and I_l, which outlast the passes.
    kept = 5 * batch * item * features[0] if self_ensemble else 0
    if multiple is not None:
        return kept + round(multiple * held)
    return kept + held + batch * item * max(features) + _LAYER_SCRATCH
