from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from abpn_fast.backends import cpu
from tests.backends.instruction_sets import available


@pytest.fixture(params=available())
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each that this machine has, in turn."""
    before = cpu.instruction_set()
    cpu.use_instruction_set(request.param)
    yield request.param
    cpu.use_instruction_set(before)


@pytest.fixture
def any_threads() -> Iterator[None]:
    """Sets the number of threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
