from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from bench import machine
from bench.ceilings import CopyBandwidth
from bench.contest import Contest
from bench.refused import REFUSED
from bench.worker import THREADS


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info.clear()
    machine_info.update(machine.information())


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    output_json["refused"] = REFUSED


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    torch.set_num_threads(THREADS)
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def copy() -> CopyBandwidth:
    return CopyBandwidth()


@pytest.fixture(scope="module")
def contest() -> Iterator[Contest]:
    contest = Contest()
    yield contest
    contest.close()
