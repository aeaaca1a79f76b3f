"""Backend ``cuda``: each convolution of the retouching layer one CUDA C++ kernel (csrc/cuda, docs/gated_conv.md)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from abpn_fast import native
from abpn_fast.backends import reference
from abpn_fast.backends.gated_conv_gradient import gated_conv_gradient

__all__ = ["convolution", "gated_conv", "gated_conv_backward", "joined_convolution", "why_not"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_OLDEST_GPU = (8, 0)
# (count, features, skip, out channels, height, width) at which PyTorch's own operators, with cuDNN's convolutions, were
# measured to be faster than the kernel. Nothing has been measured yet, so none is listed.
CUDNN_WINS: frozenset[tuple[int, ...]] = frozenset()


def why_not(operator: str, tensors: Sequence[Tensor]) -> str | None:
    """Why this backend cannot run ``operator`` on these tensors, in one sentence, or None."""
    if torch.version.hip:
        return "backend cuda is compiled by nvcc for NVIDIA GPUs, and this PyTorch is built for AMD's"
    for tensor in tensors:
        if tensor.device.type != "cuda":
            return f"backend cuda runs on tensors on an NVIDIA GPU, got one on {tensor.device}"
        if tensor.dtype not in _DTYPES:
            return f"backend cuda computes in float32, bfloat16 and float16, got {tensor.dtype}"
    if tensors and _capability(tensors[0].device) < _OLDEST_GPU:
        major, minor = _capability(tensors[0].device)
        return f"backend cuda needs a GPU of compute capability 8.0 or newer, got {major}.{minor}"
    if not tensors and not torch.cuda.is_available():
        return "backend cuda needs an NVIDIA GPU, and there is none"
    return native.why_missing("cuda")


def gated_conv(
    features: Tensor,
    skip: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    skip_weight: Tensor | None,
    skip_bias: Tensor | None,
    negative_slope: float,
    out: Tensor,
) -> None:
    if out.numel() == 0:
        return
    if (skip.shape[0], features.shape[1], skip.shape[1], *out.shape[1:]) in CUDNN_WINS:
        reference.gated_conv(features, skip, mask, weight, bias, skip_weight, skip_bias, negative_slope, out)
        return
    phased = _phased(skip.shape[0], skip.shape[2], skip.shape[3])
    packed = _packed(weight, skip_weight, _Way(features.shape[1], mask is not None, True, phased))
    torch.ops.abpn_fast_cuda.gated_conv(
        _readable(features),
        _readable(skip),
        mask,
        packed,
        bias.contiguous(),
        None if skip_bias is None else skip_bias.contiguous(),
        negative_slope,
        phased,
        torch.cuda.current_stream(skip.device).cuda_stream,
        out,
    )


def gated_conv_backward(
    grads: Sequence[Tensor],
    arguments: dict[str, Any],
    wanted: Sequence[str],
    results: Callable[[Any], list[Tensor]],
) -> list[Tensor]:
    return gated_conv_gradient(grads[0], arguments, wanted, _through_gate)


def _through_gate(both: Tensor, kept: Tensor | None, grad: Tensor, slope: float) -> tuple[Tensor, Tensor | None]:
    last = not both.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    both, grad = both.contiguous(memory_format=layout), grad.contiguous(memory_format=layout)
    kept = None if kept is None else kept.contiguous(memory_format=layout)
    stream = torch.cuda.current_stream(grad.device).cuda_stream
    torch.ops.abpn_fast_cuda.gated_conv_gradient(both, kept, grad, slope, last, stream)
    return both, kept


def convolution(weight: Tensor, bias: Tensor, stride: int, negative_slope: float) -> Callable[[Tensor], Tensor] | None:
    """``leaky_relu(conv(x))`` of 3x3 filters, which must not change from now on; None for others."""
    if weight.shape[2:] != (3, 3):
        return None
    return lambda x: _convolve(None, x, weight, bias, stride, negative_slope)


def joined_convolution(weight: Tensor, bias: Tensor, negative_slope: float) -> Callable[[Tensor, Tensor], Tensor]:
    """``leaky_relu(conv3x3(Cat(up(f), F_skip)))`` of even sizes; the filters must not change."""
    return lambda features, skip: _convolve(features, skip, weight, bias, 1, negative_slope)


def _convolve(
    features: Tensor | None, skip: Tensor, weight: Tensor, bias: Tensor, stride: int, negative_slope: float
) -> Tensor:
    count, height, width = skip.shape[0], -(-skip.shape[2] // stride), -(-skip.shape[3] // stride)
    out = skip.new_empty((count, height, width, len(bias))).permute(0, 3, 1, 2)
    if out.numel() == 0:
        return out
    phased = features is not None and _phased(count, height, width)
    channels = 0 if features is None else features.shape[1]
    torch.ops.abpn_fast_cuda.convolution(
        None if features is None else _readable(features),
        _readable(skip),
        _packed(weight, None, _Way(channels, False, False, phased)),
        bias,
        negative_slope,
        stride,
        phased,
        torch.cuda.current_stream(skip.device).cuda_stream,
        out,
    )
    return out


class _Way(NamedTuple):
    """How weights are packed: the channels of the features, whether a mask follows, whether half the filters gate."""

    features: int
    masked: bool
    gated: bool
    phased: bool


class _Weights:
    """What was packed of one weight tensor, for each way to pack it, and the tensors' state at that time."""

    def __init__(self, skip_weight: Tensor | None, state: list[tuple[int, int]]) -> None:
        # Held, so that no other tensor takes its place in memory.
        self.skip_weight, self.state = skip_weight, state
        self.packed: dict[_Way, Tensor] = {}


# Weights that need no gradient are packed once and kept as long as they live and stand unchanged.
_cache: Any = WeakIdKeyDictionary()


def _packed(weight: Tensor, skip_weight: Tensor | None, way: _Way) -> Tensor:
    tensors = [tensor for tensor in (weight, skip_weight) if tensor is not None]
    if any(tensor.requires_grad or tensor.is_inference() for tensor in tensors):
        return _pack(weight, skip_weight, way)
    capturing = torch.cuda.is_current_stream_capturing()
    state = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
    kept: _Weights | None = _cache.get(weight)
    if kept is None or kept.skip_weight is not skip_weight or kept.state != state:
        kept = _Weights(skip_weight, state)
    elif way in kept.packed:
        return _used(weight, kept.packed[way], capturing)
    packed = _pack(weight, skip_weight, way)
    # What a graph packs while it is captured is there only once the graph has run.
    if not capturing:
        # Once for these weights: from now on any stream may read them.
        torch.cuda.current_stream(weight.device).synchronize()
        kept.packed[way] = packed
        _cache[weight] = kept
    return packed


def _used(weight: Tensor, packed: Tensor, capturing: bool) -> Tensor:
    if capturing:
        _captured.setdefault(weight, {})[id(packed)] = packed
    else:
        packed.record_stream(torch.cuda.current_stream(packed.device))
    return packed


# By weights: what a captured graph reads again whenever it is replayed, also after the weights have changed.
_captured: Any = WeakIdKeyDictionary()


def _pack(weight: Tensor, skip_weight: Tensor | None, way: _Way) -> Tensor:
    ops, out = torch.ops.abpn_fast_cuda, weight.shape[0] // (1 + way.gated)
    skip = weight.shape[1] - way.features - way.masked
    kept = skip_weight is not None
    size = ops.gated_conv_packed_size(way.features, skip, out, way.masked, kept, way.gated, way.phased)
    packed = weight.new_empty(size)
    ops.gated_conv_pack(weight, skip_weight, *way, torch.cuda.current_stream(weight.device).cuda_stream, packed)
    return packed


def _readable(x: Tensor) -> Tensor:
    """``x``, or a channels_last copy where the tensor cores' kernel would else read channel by channel."""
    if x.dtype == torch.float32 or x.shape[1] % 8:
        return x
    strides = (x.stride(0), x.stride(2), x.stride(3))
    if x.stride(1) == 1 and x.data_ptr() % 16 == 0 and all(stride % 8 == 0 for stride in strides):
        return x
    return x.clone(memory_format=torch.channels_last)


@functools.lru_cache(maxsize=256)
def _phased(count: int, height: int, width: int) -> bool:
    phased: bool = torch.ops.abpn_fast_cuda.gated_conv_phased(count, height, width)
    return phased


@functools.cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
