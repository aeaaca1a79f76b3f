"""One local attentive module with its batch norms folded, Sec. 4.2."""

from __future__ import annotations

from torch import Tensor

from abpn_fast.ops import arguments
from abpn_fast.ops.operator import Like, Operator
from abpn_fast.reference.arguments import number


def _result(
    features: Tensor,
    skip: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    skip_weight: Tensor | None,
    skip_bias: Tensor | None,
    negative_slope: float,
) -> Like:
    return Like(skip, (skip.shape[0], weight.shape[0] // 2, *skip.shape[2:]), skip.dtype)


_operator = Operator(
    "gated_conv",
    "Tensor features, Tensor skip, Tensor? mask, Tensor weight, Tensor bias, Tensor? skip_weight, Tensor? skip_bias, "
    "float negative_slope",
    _result,
)


def gated_conv(
    features: Tensor,
    skip: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    skip_weight: Tensor | None = None,
    skip_bias: Tensor | None = None,
    *,
    negative_slope: float = 0.2,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """``F * G + S * (1 - G)``, or ``F * G`` without ``skip_weight`` (Sec. 4.2, Fig. 4).

    With ``x = Cat(up(f), F_skip, M)``: ``F = act(conv_f(x))``, ``G = sigmoid(conv_g(x))``, ``S = act(conv_s(F_skip))``;
    3x3 convolutions, zero-padded; ``up`` is nearest, M is resized bilinearly; act is the leaky ReLU.

    Args:
        features: f, (N, C_f, ceil(H / 2), ceil(W / 2)), floating.
        skip: F_skip, (N, C_skip, H, W); the dtype of ``features``, as all that follow.
        mask: M, (N, 1, h, w) of any size, in [0, 1]; None leaves its channel out.
        weight, bias: (2 C_out, C_f + C_skip + 1, 3, 3) and (2 C_out,): the feature filters, then the gate filters; the
            last input channel is the mask's and is absent without a mask.
        skip_weight, skip_bias: (C_out, C_skip, 3, 3) and (C_out,); both or neither.
        negative_slope: of the leaky ReLU; 1 for no activation.
        out: written instead of a new tensor; no gradients then.
        backend: a name from ``compatible_backends``; None for the context's or the automatic choice.

    Returns:
        (N, C_out, H, W), dtype and memory format of ``skip``.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
        RuntimeError: the requested backend cannot run this, with the reason.
    """
    skip = arguments.tensor("skip", skip, (None, None, None, None))
    count, skip_channels, height, width = skip.shape
    if 0 in (height, width):
        raise ValueError(f"skip must be at least 1 x 1 pixel, got {tuple(skip.shape)}")
    low = (count, None, arguments.halved(height), arguments.halved(width))
    features = arguments.tensor("features", features, low, like=skip)
    inputs = features.shape[1] + skip_channels
    arguments.floating("skip", skip)
    arguments.floating("features", features, skip.dtype)
    if mask is not None:
        inputs += 1
        if isinstance(mask, Tensor) and 0 in mask.shape[2:]:
            raise ValueError(f"mask must be at least 1 x 1 pixel, got {tuple(mask.shape)}")
        arguments.floating("mask", arguments.tensor("mask", mask, (count, 1, None, None), like=skip), skip.dtype)
    weight = arguments.tensor("weight", weight, (None, inputs, 3, 3), like=skip)
    if weight.shape[0] % 2 or weight.shape[0] == 0:
        raise ValueError(f"weight must hold one or more feature and as many gate filters, got {weight.shape[0]} in all")
    half = weight.shape[0] // 2
    arguments.floating("weight", weight, skip.dtype)
    arguments.floating("bias", arguments.tensor("bias", bias, (2 * half,), like=skip), skip.dtype)
    if (skip_weight is None) != (skip_bias is None):
        raise ValueError("skip_weight and skip_bias go together; give both or neither")
    if skip_weight is not None:
        kept = arguments.tensor("skip_weight", skip_weight, (half, skip_channels, 3, 3), like=skip)
        arguments.floating("skip_weight", kept, skip.dtype)
        arguments.floating("skip_bias", arguments.tensor("skip_bias", skip_bias, (half,), like=skip), skip.dtype)
    result: Tensor = _operator(
        features,
        skip,
        mask,
        weight,
        bias,
        skip_weight,
        skip_bias,
        number("negative_slope", negative_slope),
        out=out,
        backend=backend,
    )
    return result
