"""Kept values: made once, and again after every way a tensor can change."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from abpn_fast.prepared import Arranged, Prepared, from_tensors


def test_made_once_while_nothing_changes() -> None:
    x, kept, made = torch.ones(3), Prepared[Tensor](), []
    for _ in range(3):
        kept.get([x], lambda: made.append(1) or x.clone())
    assert len(made) == 1


def cast_and_back(layer: nn.Linear) -> None:
    # The allocator likes to hand the same address out again; try until it does.
    for _ in range(20):
        layer.half().float()


def swap(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(torch.full_like(layer.weight, 2))


def step(layer: nn.Linear) -> None:
    layer(torch.ones(2, 3)).sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()


def fused_step(layer: nn.Linear) -> None:
    layer.weight.grad = torch.ones_like(layer.weight)
    torch.optim.Adam([layer.weight], fused=True).step()


CHANGES: list[Callable[[nn.Linear], object]] = [
    lambda layer: nn.init.zeros_(layer.weight),
    lambda layer: layer.load_state_dict({name: x + 1 for name, x in layer.state_dict().items()}),
    lambda layer: layer.load_state_dict({name: x + 1 for name, x in layer.state_dict().items()}, assign=True),
    lambda layer: layer.double(),
    cast_and_back,
    swap,
    step,
    fused_step,
]


@pytest.mark.parametrize(
    "change", CHANGES, ids=["write", "load", "assign", "cast", "cast and back", "swap", "step", "fused step"]
)
def test_made_again_after_a_change(change: Callable[[nn.Linear], object]) -> None:
    layer, kept = nn.Linear(3, 3), Prepared[Tensor]()
    with torch.no_grad():
        layer.weight += 1e-5 * torch.rand(3, 3)

    def value() -> Tensor:
        return kept.get([layer.weight], lambda: layer.weight.detach().clone())

    before = value()
    change(layer)
    assert torch.equal(value(), layer.weight)
    assert value().dtype == layer.weight.dtype
    assert not torch.equal(value().double(), before.double()) or value().dtype != before.dtype


def test_options_are_part_of_what_it_is_made_from() -> None:
    x, kept = torch.ones(1), Prepared[int]()
    assert [kept.get([x], lambda n=n: n, option) for n, option in enumerate("aab")] == [0, 0, 2]


def test_nothing_is_kept_of_tensors_without_a_version() -> None:
    with torch.inference_mode():
        x, kept = torch.zeros(1), Prepared[float]()
        assert kept.get([x], x.item) == 0
        x += 1
        assert kept.get([x], x.item) == 1


@pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, lambda kept: pickle.loads(pickle.dumps(kept))])
def test_copies_start_empty(again: Callable[[Prepared[int]], Prepared[int]]) -> None:
    x, kept = torch.zeros(1), Prepared[int]()
    kept.get([x], lambda: 1)
    assert again(kept).get([x], lambda: 2) == 2
    assert kept.get([x], lambda: 3) == 1


def test_what_is_made_of_a_tensor_goes_with_it() -> None:
    tensors = [torch.zeros(4)]
    (x,), bias = tensors, torch.ones(4)
    value = from_tensors("sum", (x, None, bias), lambda: tensors[0] + bias)
    assert from_tensors("sum", (x, None, bias), lambda: tensors[0]) is value
    assert from_tensors("other", (x, None, bias), lambda: tensors[0]) is not value
    bias += 1
    assert from_tensors("sum", (x, None, bias), lambda: tensors[0] + bias) is not value
    gone = weakref.ref(value)
    tensors.clear()
    del x, value
    gc.collect()
    assert gone() is None


def test_another_view_of_the_same_numbers_is_another() -> None:
    x, kept = torch.rand(3, 3), Prepared[Tensor]()
    for view in (x, x.t(), x[::2], x[:2], x, x[:, :2]):
        assert torch.equal(kept.get([view], view.clone), view)


def test_what_a_fused_optimizer_writes_is_not_missed() -> None:
    x = nn.Parameter(torch.ones(4))
    x.grad = torch.ones(4)
    for _ in range(2):
        assert torch.equal(from_tensors("sum", (x,), lambda: x.detach().clone()), x)
        torch.optim.Adam([x], fused=True).step()


def test_nothing_is_kept_of_what_an_optimizer_may_write_unseen() -> None:
    x = nn.Parameter(torch.ones(4))
    for _ in range(2):
        assert torch.equal(from_tensors("sum", (x,), lambda: x.detach().clone()), x)
        x.data += 1


def test_another_storage_at_the_same_address() -> None:
    memory, kept = bytearray(4), Prepared[float]()
    for value in (1.0, 2.0):
        x = torch.frombuffer(memory, dtype=torch.float32)
        x.numpy()[:] = value
        assert kept.get([x], x.item) == value
        del x


def test_cleared() -> None:
    x, kept = torch.ones(3), Prepared[int]()
    kept.get([x], lambda: 1)
    kept.clear()
    assert kept.get([x], lambda: 2) == 2


def test_arranged_lets_its_source_go() -> None:
    source = torch.ones(3)
    kept, alive = Arranged[Tensor, Tensor](source), weakref.ref(source)
    del source
    value = kept.get(lambda x: 2 * x)
    assert alive() is None
    assert kept.get(lambda x: x) is value


def test_shared_memory_may_be_written_by_others() -> None:
    x, kept, made = torch.ones(3), Prepared[Tensor](), []

    def make() -> Tensor:
        made.append(1)
        return x.clone()

    kept.get([x], make)
    x.share_memory_()
    for _ in range(2):
        kept.get([x], make)
    assert len(made) == 3
