"""The local retouching layer (Sec. 4.2) for inference: batch norms folded into the filters, every LAM one operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.functional import conv2d, interpolate, leaky_relu
from torch.nn.modules.module import _has_any_global_hook

from abpn_fast import backends, ops, reference
from abpn_fast.prepared import Prepared
from abpn_fast.reference.attention import LocalAttentiveModule
from abpn_fast.reference.model import padded

_CHANNELS_LAST = torch.channels_last


class Filters(NamedTuple):
    """Filters and biases of one convolution with its batch norm folded in, and the slope of the leaky ReLU after it."""

    weight: Tensor
    bias: Tensor
    negative_slope: float = 1.0


class Attention(NamedTuple):
    """The arguments of ``ops.gated_conv`` for one LAM."""

    weight: Tensor
    bias: Tensor
    skip_weight: Tensor | None
    skip_bias: Tensor | None
    negative_slope: float


class Folded(NamedTuple):
    """The whole layer: the encoder's six blocks, the mask branch's four and its head, six attentive modules."""

    encoder: list[Filters]
    mask_blocks: list[Filters]
    mask_head: Filters | None
    attention: list[Attention]


class Layer(NamedTuple):
    """The steps of the folded layer, as functions that keep their filters in the order they are read in.

    Args:
        encoder: F_{i+1} from F_i.
        mask_blocks: the next features from features and skip.
        mask_head: None without a mask branch.
        attention: the next features from features, skip and mask.
    """

    encoder: list[Callable[[Tensor], Tensor]]
    mask_blocks: list[Callable[[Tensor, Tensor], Tensor]]
    mask_head: Callable[[Tensor], Tensor] | None
    attention: list[Callable[[Tensor, Tensor, Tensor | None], Tensor]]


def retouch(model: reference.ABPN, thumbnail: Tensor, kept: Prepared[Layer]) -> tuple[Tensor | None, Tensor] | None:
    """``(M, R_l)`` from I_l, (N, 3, h, w), or None where the modules themselves have to run.

    They run in training, while gradients are recorded, in forward mode too, in a compiled graph, under autocast, where
    a module has a hook or is not one of the reference's, with attention ``"pcb"``, for a model built in inference mode,
    whose changes nobody counts, and where ``gated_conv`` runs on backend ``reference``, which so equals the reference
    bit for bit.

    Args:
        model: the network; in eval mode.
        thumbnail: I_l in [0, 1], in the dtype of the parameters.
        kept: where the folded weights stay until a parameter or buffer changes. They take as much memory as the
            parameters of the layer, a third more on backend ``cpu``.
    """
    state = _state(model, thumbnail)
    if state is None:
        if not torch.compiler.is_compiling():
            # While it learns they would be memory for nothing.
            kept.clear()
        return None
    tensors, numbers = state
    name = backend(thumbnail, tensors[0])
    if name == "reference":
        return None
    first = False

    def make() -> Layer:
        nonlocal first
        first = True
        return steps(fold(model, thumbnail.dtype), name)

    arrangement = backends.helper(name, "arrangement", lambda _: ())(thumbnail)
    result = run(model, kept.get(tensors, make, thumbnail.dtype, name, *arrangement, *numbers), thumbnail)
    if first:
        # Folding and arranging leave several times as much free memory behind as a pass needs.
        backends.helper(name, "give_back", lambda: None)()
    return result


def fold(model: reference.ABPN, dtype: torch.dtype) -> Folded:
    """Fold every batch norm of the layer into its convolution, in float64; the result in ``dtype``, channels last."""
    # Outside inference mode: what it makes has no version counter, which those need who keep more made from it.
    with torch.inference_mode(False), torch.no_grad():
        branch = model.mask_branch
        head = None if branch is None else _folded(branch.head, None, dtype)
        return Folded(
            [_block(block, dtype) for block in model.encoder.blocks],
            [] if branch is None else [_block(block, dtype) for block in branch.blocks],
            head,
            [_attention(block, dtype) for block in model.retouching_branch.blocks],
        )


def steps(folded: Folded, backend: str) -> Layer:
    """The steps as ``backend`` runs them; PyTorch's operators where it has none of its own."""
    own = backends.helper(backend, "convolution", lambda *_: None)
    joined = backends.helper(backend, "joined_convolution", _joined_convolution)
    attention = backends.helper(backend, "attention", lambda *_: None)

    def convolution(filters: Filters, stride: int) -> Callable[[Tensor], Tensor]:
        arguments = filters.weight, filters.bias, stride, filters.negative_slope
        return own(*arguments) or _convolution(*arguments)

    return Layer(
        [convolution(filters, 2) for filters in folded.encoder],
        [joined(*filters) for filters in folded.mask_blocks],
        None if folded.mask_head is None else convolution(folded.mask_head, 1),
        [attention(*filters) or _gated_conv(filters, backend) for filters in folded.attention],
    )


def run(model: reference.ABPN, layer: Layer, thumbnail: Tensor) -> tuple[Tensor | None, Tensor]:
    """``(M, R_l)`` from I_l by the steps of ``layer``."""
    height, width = thumbnail.shape[-2:]
    features = [padded(thumbnail).mul(2).sub_(1)]
    for convolution in layer.encoder:
        features.append(convolution(features[-1]))
    mask = None if layer.mask_head is None else _mask(layer, features)
    x = features.pop()
    for attention in layer.attention:
        # Taken off the list, so that each skip is freed as soon as its level is done.
        x = attention(x, features.pop(), mask)
    delta = x[..., :height, :width].tanh()
    low_res = thumbnail + delta if model.config.output == "residual" else (delta.add_(1) / 2).contiguous()
    if mask is None:
        return None, low_res
    return mask[..., : -(-height // 4), : -(-width // 4)].contiguous(), low_res


def _mask(layer: Layer, features: list[Tensor]) -> Tensor:
    x = features[6]
    for joined, skip in zip(layer.mask_blocks, features[5:1:-1], strict=True):
        x = joined(x, skip)
    assert layer.mask_head is not None
    return layer.mask_head(x).sigmoid_()


def _convolution(weight: Tensor, bias: Tensor, stride: int, negative_slope: float) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=_CHANNELS_LAST)
        y = conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2)
        return y if negative_slope == 1 else leaky_relu(y, negative_slope, inplace=True)

    return run


def _joined_convolution(weight: Tensor, bias: Tensor, negative_slope: float) -> Callable[[Tensor, Tensor], Tensor]:
    convolution = _convolution(weight, bias, 1, negative_slope)

    def run(features: Tensor, skip: Tensor) -> Tensor:
        return convolution(torch.cat([interpolate(features, scale_factor=2, mode="nearest"), skip], 1))

    return run


def _gated_conv(filters: Attention, backend: str) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    def run(features: Tensor, skip: Tensor, mask: Tensor | None) -> Tensor:
        slope = filters.negative_slope
        return ops.gated_conv(features, skip, mask, *filters[:4], negative_slope=slope, backend=backend)

    return run


def is_plain_call(thumbnail: Tensor) -> bool:
    """Whether nothing looks on but autograd."""
    traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return not traced and type(thumbnail) is Tensor and not _has_any_global_hook()  # type: ignore[no-untyped-call]


def is_known(module: nn.Module) -> bool:
    """Whether ``module`` is one of the reference's, does what its class says, and nobody waits for it to be called."""
    if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__:
        return False
    if type(module) is nn.Conv2d and module.padding_mode != "zeros":
        return False
    if type(module) is nn.Sequential and tuple(map(type, module)) not in _BLOCKS:
        return False
    return type(module) in _KNOWN


def backend(thumbnail: Tensor, parameter: Tensor) -> str:
    """The backend of ``gated_conv``: the one asked for, or the automatic choice where that one has no such operator."""
    tensors, name = (thumbnail, parameter), backends.requested(None)
    if name != "auto" and backends.why_not(name, *tensors, operator="gated_conv") is not None:
        name = "auto"
    return backends.choose(name, "gated_conv", tensors)


def _state(model: reference.ABPN, thumbnail: Tensor) -> tuple[list[Tensor], list[float]] | None:
    """Every parameter, buffer and number of the layer, or None where it cannot be folded."""
    if not is_plain_call(thumbnail):
        return None
    # Folding would drop forward-mode derivatives of the weights without a word.
    if thumbnail.is_meta or torch.is_autocast_enabled(thumbnail.device.type) or forward_ad._current_level >= 0:
        return None
    found: list[Tensor | None] = []
    numbers: list[float] = []
    modules: list[nn.Module | None] = [model.encoder, model.mask_branch, model.retouching_branch]
    # Not `Module.modules`, which names them all: this runs before every pass.
    for module in modules:
        if module is not None:
            if not _plain(module):
                return None
            found.extend(module._parameters.values())
            found.extend(module._buffers.values())
            if type(module) in _NUMBERS:
                numbers.append(getattr(module, _NUMBERS[type(module)]))
            modules.extend(module._modules.values())
    tensors = [x for x in found if x is not None]
    if any(map(Tensor.is_inference, tensors)):
        return None
    if torch.is_grad_enabled() and any(x.requires_grad for x in (thumbnail, *tensors)):
        return None
    return tensors, numbers


def _plain(module: nn.Module) -> bool:
    """Whether folding knows all that ``module`` does."""
    if module.training or (type(module) is nn.BatchNorm2d and module._buffers["running_mean"] is None):
        return False
    return is_known(module)


_BLOCKS = {
    (nn.Conv2d, norm, activation) for norm in (nn.BatchNorm2d, nn.Identity) for activation in (nn.ReLU, nn.LeakyReLU)
}
_NUMBERS: dict[type[nn.Module], str] = {
    nn.BatchNorm2d: "eps",
    nn.LeakyReLU: "negative_slope",
    LocalAttentiveModule: "negative_slope",
}
_KNOWN = frozenset(
    {
        nn.Conv2d,
        nn.BatchNorm2d,
        reference.MutualEncoder,
        reference.MaskPredictionBranch,
        reference.LocalRetouchingBranch,
        LocalAttentiveModule,
        nn.Sequential,
        nn.ModuleList,
        nn.Identity,
        nn.ReLU,
        nn.LeakyReLU,
    }
)


def _block(block: nn.Module, dtype: torch.dtype) -> Filters:
    assert isinstance(block, nn.Sequential)
    convolution, norm, activation = block
    slope = activation.negative_slope if isinstance(activation, nn.LeakyReLU) else 0.0
    return _folded(convolution, norm, dtype)._replace(negative_slope=slope)


def _attention(block: nn.Module, dtype: torch.dtype) -> Attention:
    assert isinstance(block, LocalAttentiveModule)
    feature, gate = _folded(block.feature, block.feature_norm, dtype), _folded(block.gate, None, dtype)
    kept = None if block.skip is None else _folded(block.skip, block.skip_norm, dtype)
    return Attention(
        torch.cat([feature.weight, gate.weight]).contiguous(memory_format=_CHANNELS_LAST),
        torch.cat([feature.bias, gate.bias]),
        None if kept is None else kept.weight,
        None if kept is None else kept.bias,
        block.negative_slope,
    )


def _folded(convolution: nn.Module, norm: nn.Module | None, dtype: torch.dtype) -> Filters:
    assert isinstance(convolution, nn.Conv2d)
    weight = convolution.weight.double()
    bias = weight.new_zeros(weight.shape[0]) if convolution.bias is None else convolution.bias.double()
    if isinstance(norm, nn.BatchNorm2d):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.double()
        bias = (bias - norm.running_mean.double()) * scale
        if norm.bias is not None:
            bias = bias + norm.bias.double()
        weight = weight * scale[:, None, None, None]
    return Filters(weight.to(dtype).contiguous(memory_format=_CHANNELS_LAST), bias.to(dtype))
