from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from abpn_fast import ABPNConfig, accelerate, low_res_training, native, reference, use_backend
from abpn_fast.reference.model import padded

needs_cpu_backend = pytest.mark.skipif(native.why_missing() is not None, reason=native.why_missing() or "")
WIDTHS = (8, 12, 16, 16, 16, 16)


def network(**options: Any) -> reference.ABPN:
    torch.manual_seed(0)
    model = reference.ABPN(ABPNConfig(encoder_widths=WIDTHS, **options))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.train()


def photo(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def learn(model: reference.ABPN, thumbnail: Tensor) -> dict[str, Tensor]:
    """Results, statistics and gradients of one step."""
    thumbnail = thumbnail.clone().requires_grad_()
    mask, result = model.retouch(thumbnail)
    weights = torch.linspace(-1, 1, result.numel()).reshape(result.shape).to(result.dtype)
    loss = (result * weights).sum() + (0 if mask is None else mask.square().sum())
    loss.backward()
    found = {name: parameter.grad for name, parameter in model.retouching_branch.named_parameters()}
    found |= {name: parameter.grad for name, parameter in model.encoder.named_parameters()}
    found |= dict(model.named_buffers()) | {"result": result.detach(), "thumbnail": thumbnail.grad}
    if model.mask_branch is not None and mask is not None:
        found |= {f"mask {name}": parameter.grad for name, parameter in model.mask_branch.named_parameters()}
        found["mask"] = mask.detach()
    return found


@needs_cpu_backend
@pytest.mark.parametrize("options", [{}, {"attention": "gated"}, {"mask_branch": False}, {"output": "direct"}], ids=str)
@pytest.mark.parametrize("size", [(64, 64), (130, 70)], ids=str)
def test_equals_the_modules(size: tuple[int, int], options: dict[str, Any]) -> None:
    model, image = network(**options), photo(*size)
    exact = learn(copy.deepcopy(model).double(), image.double())
    plain = learn(copy.deepcopy(model), image)
    fast = accelerate(model)
    assert runs(copy.deepcopy(fast), image)
    found = learn(fast, image)
    assert found.keys() == plain.keys()
    for name, value in found.items():
        truth = exact[name]
        assert value.shape == plain[name].shape and value.dtype == plain[name].dtype
        error, allowed = (float((x.double() - truth).abs().max()) for x in (value, plain[name]))
        assert error <= 3 * allowed + 1e-5 * float(truth.abs().max()), name


@needs_cpu_backend
def test_norms_that_are_fused_into_their_convolutions() -> None:
    model, image = network(), photo(130, 70)
    for block in model.mask_branch.blocks:
        block[0], block[1] = fuse_conv_bn_eval(block[0].eval(), block[1].eval()), torch.nn.Identity()
    plain, found = learn(copy.deepcopy(model), image), learn(accelerate(model), image)
    torch.testing.assert_close(found["mask"], plain["mask"])
    two = torch.nn.Sequential(model.mask_branch.blocks[0][0], model.mask_branch.blocks[0][2])
    model.mask_branch.blocks[0] = two
    assert not runs(model, image)


@needs_cpu_backend
def test_autocast() -> None:
    model, image = network(), photo(128, 128)
    exact = learn(copy.deepcopy(model), image)
    with torch.autocast("cpu", torch.bfloat16):
        plain, found = learn(copy.deepcopy(model), image), learn(accelerate(model), image)
    for name in ("result", "mask"):
        error, allowed = (float((x[name] - exact[name]).abs().max()) for x in (found, plain))
        assert error <= 2 * allowed and found[name].dtype == plain[name].dtype


def runs(model: reference.ABPN, image: Tensor) -> bool:
    fast = accelerate(model)
    return low_res_training.branches(fast, fast.encoder(2 * padded(image) - 1)) is not None


def test_where_the_modules_have_to_run() -> None:
    image = photo(64, 64)
    with use_backend("reference"):
        assert not runs(network(), image)
    with torch.no_grad():
        assert not runs(network(), image)
    assert not runs(network().double(), image.double())
    assert not runs(network(attention="pcb"), image)
    model = network()
    model.retouching_branch.blocks[2].__class__ = type("Another", (reference.attention.LocalAttentiveModule,), {})
    assert not runs(model, image)


@pytest.mark.parametrize(
    "register", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"]
)
@pytest.mark.parametrize(
    "name", ["retouching_branch.blocks.5", "retouching_branch.blocks.4.gate", "mask_branch.blocks.3.0"]
)
def test_hooks_are_called(name: str, register: str) -> None:
    model, calls = network(), []
    getattr(model.get_submodule(name), register)(lambda *_: calls.append(1))
    learn(accelerate(model), photo(64, 64))
    assert calls
