"""What was measured elsewhere arrives as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.recorded import RecordedClock, in_turn

clock = RecordedClock()


class Fixture:
    """As pytest-benchmark's, with ``clock`` for its timer."""

    def __init__(self) -> None:
        self.data: list[float] = []

    def pedantic(self, target: Callable[[], object], rounds: int, iterations: int) -> None:
        for _ in range(rounds):
            begin = clock()
            target()
            self.data.append(clock() - begin)


def test_told_seconds_are_the_rounds() -> None:
    benchmark = Fixture()
    clock.tell(benchmark, [0.5, 0.25, 4.0])
    assert benchmark.data == pytest.approx([0.5, 0.25, 4.0])


def test_calls_take_turns() -> None:
    order: list[str] = []
    found = in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 2, "b": 2}
