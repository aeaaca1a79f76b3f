"""What the machine can do at most, measured between the rounds of what is compared with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from abpn_fast import native


def fma_peak(seconds: float = 0.02) -> float:
    """FLOP/s of float32 multiply-adds on all of PyTorch's threads, in the instruction set that the kernels use."""
    reason = native.why_missing()
    if reason is not None:
        raise RuntimeError(reason)
    rate: float = torch.ops.abpn_fast_cpu.fma_peak(seconds)
    return rate


class CopyBandwidth:
    """Bytes per second, read and written, of a copy between two buffers of ``size`` bytes."""

    def __init__(self, size: int = 512 * 2**20) -> None:
        self._source, self._target = torch.ones(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)

    def __call__(self) -> float:
        begin = time.perf_counter()
        self._target.copy_(self._source)
        return 2 * self._source.nbytes / (time.perf_counter() - begin)


def against(
    benchmark: Any, call: Callable[[], object], rounds: int, *, flops: float = 0, moved: float = 0, copy: Any = None
) -> None:
    """Time ``call`` and note what it achieved and as what share of the ceiling: the best against the best.

    Args:
        benchmark: the fixture.
        call: to be measured.
        rounds: as many, each after its own look at the ceiling.
        flops: of one call, to be compared with ``fma_peak``.
        moved: bytes of one call, to be compared with ``copy``, a ``CopyBandwidth``.
    """
    peaks: list[float] = []

    def look() -> None:
        peaks.append(fma_peak() if flops else copy())

    if not benchmark.enabled:
        look()
        call()
        return
    benchmark.pedantic(call, setup=look, rounds=rounds, warmup_rounds=1, iterations=1)
    rate, best = (flops or moved) / benchmark.stats.stats.min, max(peaks)
    unit = "gflops" if flops else "gigabytes"
    benchmark.extra_info |= {f"{unit}_per_second": rate / 1e9, f"ceiling_{unit}_per_second": best / 1e9}
    benchmark.extra_info["share"] = rate / best
