"""Each operator on 4096 x 4096, into memory in use, against the bandwidth of a copy or the peak of multiply-adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from abpn_fast import ops, why_not
from bench.ceilings import CopyBandwidth, against
from bench.pyramid import FLOPS_PER_PIXEL, Pyramid, pyramid
from bench.refused import refuse

ROUNDS = 7
SIDE = 4096


class Case(NamedTuple):
    """``moved``: every tensor read or written once; ``flops``: 0 for an operator bound by memory."""

    call: Callable[[], object]
    moved: int
    flops: float = 0


def _reading(operator: Callable[..., Any], arguments: Sequence[Tensor], out: Tensor) -> Case:
    return Case(lambda: operator(*arguments, out=out), sum(tensor.nbytes for tensor in [*arguments, out]))


def _adaptive_blend(p: Pyramid) -> Case:
    return _reading(ops.adaptive_blend, [p.image, _full(p), *p.coefficients], torch.empty_like(p.image))


def _reverse_adaptive_blend(p: Pyramid) -> Case:
    other = p.image.flip(3).contiguous()
    return _reading(ops.reverse_adaptive_blend, [p.image, other, *p.coefficients], _full(p))


def _pyramid_down(p: Pyramid) -> Case:
    return _reading(ops.pyramid_down, [p.image], torch.empty_like(p.gaussian[1]))


def _laplacian_decompose(p: Pyramid) -> Case:
    gaussian, high = ops.laplacian_decompose(p.image, 1)
    out = gaussian[1:], high
    return Case(lambda: ops.laplacian_decompose(p.image, 1, out=out), sum(t.nbytes for t in (*gaussian, *high)))


def _upsample_refine(p: Pyramid) -> Case:
    arguments = [p.coarser(), p.image, p.gaussian[1], *p.weights]
    case = _reading(ops.upsample_refine, arguments, _full(p))
    return case._replace(flops=FLOPS_PER_PIXEL * SIDE * SIDE)


def _upsample_refine_blend(p: Pyramid) -> Case:
    arguments = [p.coarser(), p.image, p.gaussian[1], *p.weights, *p.coefficients]
    case = _reading(ops.upsample_refine_blend, arguments, torch.empty_like(p.image))
    return case._replace(flops=FLOPS_PER_PIXEL * SIDE * SIDE)


def _full(p: Pyramid) -> Tensor:
    return torch.zeros(p.image.shape, dtype=p.layer.dtype)


CASES = {
    "adaptive_blend": _adaptive_blend,
    "reverse_adaptive_blend": _reverse_adaptive_blend,
    "pyramid_down": _pyramid_down,
    "laplacian_decompose": _laplacian_decompose,
    "upsample_refine": _upsample_refine,
    "upsample_refine_blend": _upsample_refine_blend,
}


@pytest.mark.parametrize("operator", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
def test_operator(benchmark: Any, copy: CopyBandwidth, operator: str, dtype: torch.dtype) -> None:
    subject = pyramid(SIDE, SIDE, dtype)
    benchmark.group = benchmark.extra_info["suite"] = f"operators, {SIDE} x {SIDE}"
    benchmark.extra_info["row"] = f"{operator}, {str(dtype).removeprefix('torch.')} image"
    benchmark.extra_info["megapixels"] = SIDE * SIDE / 1e6
    reason = why_not("cpu", subject.image, operator=operator)
    if reason is not None:
        refuse(benchmark, reason)
    case = CASES[operator](subject)
    against(benchmark, case.call, ROUNDS, flops=case.flops, moved=case.moved, copy=copy)
