from __future__ import annotations

import pytest
import torch
from torch import Tensor

from abpn_fast import backends, reference
from abpn_fast.backends import refining_gradients
from tests.accuracy import assert_same_bits, assert_within_budget
from tests.ops import test_upsample_refine, test_upsample_refine_blend
from tests.ops.contract import Inputs, OperatorContract, tensors

CONTRACTS = [test_upsample_refine.TestContract, test_upsample_refine_blend.TestContract]
CONTRACTS += [test_upsample_refine_blend.TestWithoutMask]


@pytest.fixture(params=CONTRACTS, ids=lambda contract: f"{contract.name}-{contract.__name__}")
def contract(request: pytest.FixtureRequest) -> OperatorContract:
    made: OperatorContract = request.param()
    return made


def found(backend: str, contract: OperatorContract, inputs: Inputs, grad: Tensor, wanted: list[str]) -> list[Tensor]:
    result: list[Tensor] = backends.backward(backend, contract.name)([grad], inputs, wanted, lambda result: [result])
    return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (8, 6), (21, 9)], ids=str)
def test_strips_give_the_gradient(
    contract: OperatorContract, size: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refining_gradients, "_ROWS", 4)
    inputs = contract.inputs(size, dtype=dtype)
    grad, wanted = torch.randn(2, 3, *size).to(dtype), contract.differentiable(inputs)
    double = inputs | {name: value.double() for name, value in tensors(inputs).items()}
    exact = found("reference", contract, double, grad.double(), wanted)
    results = found("triton", contract, inputs, grad, wanted)
    for result, plain, value in zip(results, found("reference", contract, inputs, grad, wanted), exact, strict=True):
        assert result.is_contiguous()
        assert_within_budget(result, plain, value.numpy(), ulps=16)


def test_each_alone(contract: OperatorContract) -> None:
    inputs = contract.inputs((6, 5))
    grad, wanted = torch.randn(2, 3, 6, 5), contract.differentiable(inputs)
    together = found("triton", contract, inputs, grad, wanted)
    for name, gradient in zip(wanted, together, strict=True):
        assert_same_bits(found("triton", contract, inputs, grad, [name])[0], gradient)


def test_the_hidden_layer_is_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    contract, sizes = CONTRACTS[0](), []
    inputs = contract.inputs((40, 6))
    monkeypatch.setattr(refining_gradients, "_ROWS", 4)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        found("triton", contract, inputs, torch.ones(2, 3, 40, 6), ["weight1"])
    assert 0 < max(sizes) <= 2 * 16 * (4 + 8) * 6


def test_without_tf32_and_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    contract, cudnn, seen = CONTRACTS[0](), torch.backends.cudnn, []
    inputs, plain, before = contract.inputs((6, 5)), reference.upsample_refine, cudnn.allow_tf32

    def noting(**given: Tensor) -> Tensor:
        seen.append((cudnn.allow_tf32, cudnn.deterministic))
        return plain(**given)

    monkeypatch.setattr(reference, "upsample_refine", noting)
    try:
        cudnn.allow_tf32 = True
        found("triton", contract, inputs, torch.ones(2, 3, 6, 5), ["weight1"])
        assert seen == [(False, True)] and cudnn.allow_tf32
    finally:
        cudnn.allow_tf32 = before


def test_the_mask_has_none() -> None:
    contract = CONTRACTS[1]()
    inputs = contract.inputs((6, 8))
    (gradient,) = found("triton", contract, inputs, torch.ones(2, 3, 6, 8), ["mask"])
    assert gradient.shape == inputs["mask"].shape and (gradient == 0).all()
