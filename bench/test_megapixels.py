"""Cost per megapixel from 4 to 105 megapixels, uint8 to uint8, two passes of every size in turn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bench.peers import CANDIDATES
from bench.recorded import RecordedClock
from bench.worker import Worker

SIDES = (2048, 4096, 6144, 8192, 10240)
ROUNDS = 3
_clock = RecordedClock()


@pytest.fixture(scope="module", params=["ours_strips", "ours_uint8"])
def seconds(request: pytest.FixtureRequest) -> Iterator[dict[int, list[float]]]:
    workers = {side: Worker(request.param) for side in SIDES}
    try:
        for side, worker in workers.items():
            worker.ask("prepare", "small", side, side)
        found: dict[int, list[float]] = {side: [] for side in SIDES}
        for _ in range(ROUNDS):
            for side, worker in workers.items():
                found[side] += worker.ask("seconds", 2)
        yield {"candidate": request.param, **found}  # type: ignore[dict-item]
    finally:
        for worker in workers.values():
            worker.close()


@pytest.mark.benchmark(timer=_clock)
@pytest.mark.parametrize("side", SIDES)
def test_cost_per_megapixel(benchmark: Any, seconds: dict[Any, Any], side: int) -> None:
    benchmark.group = benchmark.extra_info["suite"] = "cost per megapixel"
    benchmark.extra_info |= {
        "row": CANDIDATES[seconds["candidate"]].label,
        "column": f"{side} x {side}",
        "megapixels": side * side / 1e6,
        "ours": True,
    }
    _clock.tell(benchmark, seconds[side])
