"""Peak memory of a process of its own for every candidate: beyond what the imports hold and beyond the photo."""

from __future__ import annotations

from typing import Any

import pytest

from bench.peers import CANDIDATES
from bench.recorded import RecordedClock
from bench.refused import refuse
from bench.worker import Worker

# Whose memory is all PyTorch's, so that its allocator can be asked too.
_TORCH = ("eager", "eager_channels_last")
_clock = RecordedClock()


@pytest.mark.benchmark(timer=_clock)
@pytest.mark.parametrize("candidate", CANDIDATES)
@pytest.mark.parametrize("side", [1024, 2048, 4096])
def test_peak(benchmark: Any, side: int, candidate: str) -> None:
    _measure(benchmark, "memory", candidate, side, side)
    benchmark.extra_info["column"] = f"{side} x {side}"


@pytest.mark.benchmark(timer=_clock)
@pytest.mark.parametrize("height", [2048, 4096, 8192, 16384, 32768])
def test_strips_against_height(benchmark: Any, height: int) -> None:
    _measure(benchmark, "memory of strips", "ours_strips", height, 2048)
    benchmark.extra_info |= {"row": "abpn_fast, uint8, strips of 512 rows", "column": f"2048 x {height}"}


def _measure(benchmark: Any, suite: str, candidate: str, height: int, width: int) -> None:
    entry = CANDIDATES[candidate]
    benchmark.group = suite
    benchmark.extra_info |= {"suite": suite, "row": entry.label, "ours": entry.ours, "image": entry.image}
    benchmark.extra_info |= {"column": f"{width} x {height}", "megapixels": height * width / 1e6}
    worker = Worker(candidate)
    try:
        refusal = worker.ask("why_not")
        if refusal is None:
            worker.ask("prepare", "small", height, width)
            found = worker.ask("memory")
            benchmark.extra_info |= found
            benchmark.extra_info["peak_beyond_input"] = found["peak"] - found["imported"] - found["input"]
            benchmark.extra_info["first_peak_beyond_input"] = found["first_peak"] - found["imported"] - found["input"]
            if entry.ours or candidate in _TORCH:
                benchmark.extra_info["allocator_peak"] = worker.ask("allocator_peak")
    except RuntimeError as error:
        refusal = str(error)
    finally:
        worker.close()
    if refusal is not None:
        refuse(benchmark, refusal)
    _clock.tell(benchmark, [found["seconds"]])
