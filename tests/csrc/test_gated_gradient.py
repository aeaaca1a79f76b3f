"""The kernel of the gate's gradient, run on a CPU."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from abpn_fast import backends
from abpn_fast.backends import cuda
from abpn_fast.reference import gated_conv
from tests.accuracy import assert_same_bits, assert_within_budget
from tests.csrc import emulator
from tests.ops.contract import draw, tensors
from tests.ops.test_gated_conv import TestContract as Lam
from tests.ops.test_gated_conv import TestPlain as Plain

pytestmark = pytest.mark.skipif(emulator.why_not() is not None, reason=emulator.why_not() or "")

MARGIN = 16
SENTINEL = 16384


def gradients(both: Tensor, kept: Tensor | None, grad: Tensor) -> list[Tensor]:
    """Of the module's last line, by PyTorch."""
    leaves = [x.detach().clone().requires_grad_() for x in (both, kept) if x is not None]
    feature, gate = leaves[0].chunk(2, 1)
    feature, gate = leaky_relu(feature, 0.2), gate.sigmoid()
    result = feature * gate if kept is None else feature * gate + leaky_relu(leaves[1], 0.2) * (1 - gate)
    return list(torch.autograd.grad(result, leaves, grad))


def fenced(x: Tensor, last: bool, shift: int) -> tuple[Tensor, Tensor]:
    """A copy of x, dense and ``shift`` elements off 16 bytes, and the buffer around it."""
    buffer = torch.full((x.numel() + 2 * MARGIN,), SENTINEL, dtype=x.dtype)
    shift += -(buffer.data_ptr() // x.element_size()) % (16 // x.element_size())
    order = (0, 2, 3, 1) if last else (0, 1, 2, 3)
    inside = buffer[shift : shift + x.numel()].view([x.shape[axis] for axis in order])
    view = inside.permute(0, 3, 1, 2) if last else inside
    return view.copy_(x), buffer


def check(channels: int, size: tuple[int, int], dtype: torch.dtype, last: bool, *, kept: bool, shift: int = 0) -> bool:
    """Whether it went by groups."""
    both, skip = draw(2, 2 * channels, *size, scale=3, dtype=dtype), draw(2, channels, *size, scale=3, dtype=dtype)
    grad = draw(2, channels, *size, dtype=dtype)
    given = (both, skip if kept else None, grad)
    made = [None if x is None else fenced(x, last, shift) for x in given]
    views = [None if each is None else each[0] for each in made]
    assert views[0] is not None and views[2] is not None
    groups = emulator.gated_gradient(views[0], views[1], views[2], 0.2, last=last)
    exact = gradients(*(None if x is None else x.double() for x in given))  # type: ignore[arg-type]
    for found, plain, wanted in zip([x for x in views[:2] if x is not None], gradients(*given), exact, strict=True):
        assert_within_budget(found.contiguous(), plain.contiguous(), wanted.numpy())
    assert_same_bits(views[2], grad)
    for each in made:
        if each is not None:
            assert (each[1] == SENTINEL).sum() >= 2 * MARGIN
    return groups


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["planes", "channels_last"])
@pytest.mark.parametrize("kept", [False, True], ids=["gated", "lam"])
def test_against_autograd(dtype: torch.dtype, last: bool, kept: bool) -> None:
    assert check(16, (3, 5), dtype, last, kept=kept) == (last or dtype == torch.float32 or 16 * 15 % 8 == 0)
    assert check(8, (4, 6), dtype, last, kept=kept)
    assert not check(3, (5, 3), dtype, last, kept=kept)
    assert not check(8, (4, 6), dtype, last, kept=kept, shift=1)
    check(1, (1, 1), dtype, last, kept=kept)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_where_it_is(value: float) -> None:
    # An infinite gradient has a difference of infinities in PyTorch's.
    for place in range(3 if math.isnan(value) else 2):
        given = [draw(1, 16, 2, 2), draw(1, 8, 2, 2), draw(1, 8, 2, 2)]
        given[place][0, 5, 1, 0] = value
        wanted = gradients(*given)
        emulator.gated_gradient(given[0], given[1], given[2], 0.2, last=False)
        for found, exact in zip(given, wanted, strict=False):
            torch.testing.assert_close(found, exact, equal_nan=True)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(both: Tensor, kept: Tensor | None, grad: Tensor, slope: float, last: bool, stream: int) -> None:
        assert stream == 7
        for x in (both, kept, grad):
            assert x is None or x.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        emulator.gated_gradient(both, kept, grad, slope, last=last)

    monkeypatch.setattr(torch.ops, "abpn_fast_cuda", SimpleNamespace(gated_conv_gradient=run), raising=False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=7))


@pytest.mark.parametrize("contract", [Lam, Plain], ids=["lam", "gated"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["planes", "channels_last"])
def test_around_it(library: None, contract: type[Lam], layout: torch.memory_format) -> None:
    given = contract().inputs((9, 6))
    given |= {name: given[name].contiguous(memory_format=layout) for name in ("features", "skip")}
    grad = torch.randn_like(gated_conv(**given))[:, :1].expand(-1, 3, -1, -1)
    names = list(tensors(given))
    wanted = backends.backward("reference", "gated_conv")([grad], given, names, lambda result: [result])
    found = cuda.gated_conv_backward([grad], given, names, lambda result: [result])
    torch.testing.assert_close(found, wanted)
