"""Durations measured elsewhere, told to pytest-benchmark: a clock that advances only by what was measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class RecordedClock:
    """A timer for ``pytest.mark.benchmark(timer=...)``."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def tell(self, benchmark: Any, seconds: Sequence[float]) -> None:
        """Make ``seconds`` the rounds of ``benchmark``."""
        left = iter(seconds)

        def advance() -> None:
            self._now += next(left)

        benchmark.pedantic(advance, rounds=len(seconds), iterations=1)


def in_turn(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each of ``rounds``, after one that does not count."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            begin = time.perf_counter()
            result = call()
            found[name].append(time.perf_counter() - begin)
            del result
    return {name: seconds[1:] for name, seconds in found.items()}
