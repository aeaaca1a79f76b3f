from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from abpn_fast.training.muon import Muon, orthogonalised


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.Conv2d(12, 8, 1))


def learn(net: nn.Module, optimiser: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        image = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        net(image).square().mean().backward()
        optimiser.step()


@pytest.mark.parametrize("shape", [(8, 72), (72, 8), (16, 16)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalised(1e-3 * matrix)
    assert found.shape == matrix.shape and found.dtype == matrix.dtype
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6 and values.max() < 1.3
    # The directions are the matrix's own.
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.linalg.vector_norm(found - u @ v) < 0.3 * torch.linalg.vector_norm(u @ v)
    assert not orthogonalised(torch.zeros(shape)).any()


def test_banks_step_by_the_published_rule() -> None:
    net = model()
    optimiser, before = Muon(net.parameters(), 0.01), net[1].weight.detach().clone()
    net[1].weight.grad = torch.randn(net[1].weight.shape, generator=torch.Generator().manual_seed(1))
    gradient = net[1].weight.grad.clone()
    optimiser.step()
    # Nesterov: 0.05 of the first gradient is the momentum, of which 0.95 and 0.05 of the gradient are taken.
    ahead = (0.95 * 0.05 + 0.05) * gradient
    wanted = before - 0.01 * 0.2 * 72**0.5 * orthogonalised(ahead.flatten(1)).view(before.shape)
    torch.testing.assert_close(net[1].weight, wanted)


def test_the_rest_steps_as_with_adam() -> None:
    net = model()
    optimiser = Muon(net.parameters(), 0.01)
    banks = [group["params"] for group in optimiser.param_groups if group["banks"]]
    assert [tuple(each.shape) for each in banks[0]] == [(12, 8, 3, 3), (8, 12, 1, 1)]
    rest = {id(each) for group in optimiser.param_groups if not group["banks"] for each in group["params"]}
    other = copy.deepcopy(net)
    adam = torch.optim.Adam(other.parameters(), 0.01)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        a.grad = torch.ones_like(a)
        b.grad = torch.ones_like(b)
    optimiser.step()
    adam.step()
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b) is (id(a) in rest)


def test_goes_on_from_its_state() -> None:
    stopped = model()
    first = Muon(stopped.parameters(), 0.01)
    learn(stopped, first, 3)
    again = copy.deepcopy(stopped)
    second = Muon(again.parameters(), 0.01)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    learn(stopped, first, 2)
    learn(again, second, 2)
    for a, b in zip(stopped.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_filters_without_a_gradient_stay() -> None:
    net = model()
    before = [each.detach().clone() for each in net.parameters()]
    Muon(net.parameters(), 0.01).step()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True))
