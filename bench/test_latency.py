"""Latency of the whole network, every candidate in turn on the same photo, after its result was compared."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from bench.contest import Contest
from bench.peers import CANDIDATES
from bench.recorded import RecordedClock
from bench.refused import refuse


class Case(NamedTuple):
    """A network on a photo; ``passes`` in a row in each of ``rounds`` turns.

    The first of them find caches cold and, on a virtual machine, memory that the host took back meanwhile.
    """

    network: str
    width: int
    height: int
    rounds: int
    passes: int = 1

    def __str__(self) -> str:
        return f"{self.network}-{self.width}x{self.height}"


CASES = [
    Case("small", 512, 512, rounds=5, passes=6),
    Case("small", 1024, 1024, rounds=5, passes=3),
    Case("small", 2048, 2048, rounds=3, passes=2),
    Case("small", 3840, 2160, rounds=3, passes=2),
    Case("small", 4096, 4096, rounds=2, passes=4),
    Case("base", 1024, 1024, rounds=5, passes=2),
    Case("base", 4096, 4096, rounds=1, passes=4),
]
_clock = RecordedClock()


@pytest.mark.benchmark(timer=_clock)
@pytest.mark.parametrize("candidate", CANDIDATES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_latency(benchmark: Any, contest: Contest, case: Case, candidate: str) -> None:
    if not benchmark.enabled:
        case = case._replace(rounds=1, passes=1)
    found = contest.measure(*case)[candidate]
    benchmark.group = f"latency, {case.network}"
    benchmark.extra_info |= {
        "suite": f"latency, {case.network}",
        "row": CANDIDATES[candidate].label,
        "column": f"{case.width} x {case.height}",
        "megapixels": case.width * case.height / 1e6,
        "image": CANDIDATES[candidate].image,
        "ours": CANDIDATES[candidate].ours,
    }
    if "refusal" in found:
        refuse(benchmark, found["refusal"])
    benchmark.extra_info |= {key: found[key] for key in ("baseline", "largest", "mean")}
    _clock.tell(benchmark, found["seconds"])
