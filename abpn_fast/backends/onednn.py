"""Convolutions of backend ``cpu``: oneDNN's, on channels-last tensors, with filters put into its own order once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu

_CHANNELS_LAST = torch.channels_last


def available() -> bool:
    """Whether this build of PyTorch has oneDNN."""
    has: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that convolutions of ``dtype`` run in on this machine: itself, or float32."""
    asked = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}.get(dtype)
    supported = asked is None or (available() and getattr(torch.ops.mkldnn, asked)())
    return dtype if supported else torch.float32


class Convolution:
    """A convolution with fixed filters, and a leaky ReLU where it has a slope.

    Args:
        weight, bias: (C_out, C_in, k, k) and (C_out,) or None, in a ``computing_dtype``.
        size: (N, C_in, H, W) of the first input: the filters are put into the order that oneDNN prefers there. It takes
            them at any other size too.
        stride, padding: in both directions.
        negative_slope: of the leaky ReLU; 1 for none.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        size: Sequence[int],
        *,
        stride: int = 1,
        padding: int = 1,
        negative_slope: float = 1.0,
    ) -> None:
        self.bias, self.negative_slope = bias, negative_slope
        self.where = [padding, padding], [stride, stride], [1, 1], 1
        if available():
            prepare: Callable[..., Tensor] = torch._C._nn.mkldnn_reorder_conv2d_weight
            weight = prepare(weight.to_mkldnn(), *self.where, list(size))
        self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        """(N, C_out, h, w), channels last, from (N, C_in, H, W) of the filters' dtype."""
        x = x.contiguous(memory_format=_CHANNELS_LAST)
        if self.weight.is_mkldnn:
            activation, slopes = _ACTIVATIONS.get(self.negative_slope, ("leaky_relu", [self.negative_slope]))
            y = torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *self.where, activation, slopes, "")
        else:
            padding, stride, *_ = self.where
            y = conv2d(x, self.weight, self.bias, stride, padding)
            y = y if self.negative_slope == 1 else leaky_relu(y, self.negative_slope, inplace=True)
        result: Tensor = y.contiguous(memory_format=_CHANNELS_LAST)
        return result


_ACTIVATIONS: dict[float, tuple[str, list[float]]] = {1.0: ("none", []), 0.0: ("relu", [])}
