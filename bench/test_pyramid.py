"""The fused pyramid alone against the peak of multiply-adds, and where a mask leaves most of the photo alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.ceilings import against
from bench.pyramid import THRESHOLD, pyramid, region_mask
from bench.recorded import RecordedClock, in_turn

ROUNDS = 5
COVERAGES = (1.0, 0.2, 0.05, 0.0)
PARTS = ("finest level", "all levels", "image pyramid and all levels")
_clock = RecordedClock()


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8], ids=str)
@pytest.mark.parametrize("side", [1024, 4096])
def test_pyramid(benchmark: Any, side: int, dtype: torch.dtype, fresh: bool) -> None:
    subject = pyramid(side, side, dtype)
    out = None if fresh else subject.results()
    benchmark.group = benchmark.extra_info["suite"] = "fused pyramid"
    name, into = str(dtype).removeprefix("torch."), "into fresh memory" if fresh else "into memory in use"
    benchmark.extra_info |= {"row": f"{side} x {side}, {name} image, {into}", "megapixels": side * side / 1e6}
    against(benchmark, lambda: subject.expand(out), ROUNDS, flops=subject.flops)


@pytest.fixture(scope="module")
def sparse() -> dict[str, list[float]]:
    """Seconds by ``part, coverage``; every coverage in turn."""
    with torch.inference_mode():
        subject = pyramid(4096, 4096, torch.float32)
        layer, out = subject.coarser(), subject.results()
        calls: dict[str, Any] = {}
        for coverage in (None, *COVERAGES):
            mask = None if coverage is None else region_mask(subject.mask, coverage)
            threshold = None if mask is None else THRESHOLD
            calls[f"{PARTS[0]}, {coverage}"] = lambda m=mask, t=threshold: subject.finest(
                layer, mask=m, mask_threshold=t, out=out[0]
            )
            calls[f"{PARTS[1]}, {coverage}"] = lambda m=mask: (
                subject.expand(out) if m is None else subject.expand_masked(m, out)
            )
            calls[f"{PARTS[2]}, {coverage}"] = lambda m=mask: subject.masked(m)
        return in_turn(calls, ROUNDS)


@pytest.mark.benchmark(timer=_clock)
@pytest.mark.parametrize("coverage", [None, *COVERAGES])
@pytest.mark.parametrize("part", PARTS)
def test_sparse(benchmark: Any, sparse: dict[str, list[float]], part: str, coverage: float | None) -> None:
    benchmark.group = benchmark.extra_info["suite"] = "mask in compact regions, 4096 x 4096, float32"
    benchmark.extra_info["row"] = part
    benchmark.extra_info["column"] = "no mask" if coverage is None else f"{coverage:.0%} in the mask"
    _clock.tell(benchmark, sparse[f"{part}, {coverage}"])
