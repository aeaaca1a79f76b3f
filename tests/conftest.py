"""What every test runs under: fixed seeds, full float32, poisoned memory, and the devices and backends at hand."""

from __future__ import annotations

import importlib.util
import os
import random
from typing import Any

import numpy as np
import pytest
import torch

from abpn_fast import compatible_backends
from abpn_fast.backends import triton
from abpn_fast.ops import operator

if not torch.cuda.is_available() and importlib.util.find_spec("triton") is not None:
    # Read when the kernels are imported, on their first use.
    os.environ.setdefault("TRITON_INTERPRET", "1")
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``device``: each there is; with ``backend``: each pair that can run the operator of the test class, or of the
    module's ``TestContract``, or all operators where there is neither.

    ``bad``: each of the test class's ``bad_arguments``, a name and a function from valid inputs to a bad value.
    """
    if "backend" in metafunc.fixturenames:
        name = getattr(metafunc.cls or getattr(metafunc.module, "TestContract", None), "name", None)
        pairs = [
            (device, backend)
            for device in DEVICES
            for backend in compatible_backends(torch.empty(1, 3, 1, 1, device=device), operator=name)
            # Triton's interpreter takes seconds where others take milliseconds: tests/kernels choose what it runs.
            if (device, backend) != ("cpu", "triton")
        ]
        metafunc.parametrize(("device", "backend"), pairs)
    elif "device" in metafunc.fixturenames:
        metafunc.parametrize("device", DEVICES)
    if "bad" in metafunc.fixturenames:
        metafunc.parametrize("bad", [pytest.param(bad, id=bad[0]) for bad in metafunc.cls.bad_arguments])


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _quick_interpreter() -> None:
    """Triton's interpreter prepares its language anew for every function called; for ours once is enough."""
    if triton.interpreted():
        from triton.runtime.interpreter import InterpretedFunction

        slow = InterpretedFunction.__call__

        def call(function: Any, *arguments: Any, **options: Any) -> Any:
            ours = function.fn.__module__.startswith("abpn_fast.")
            return function.rewrite()(*arguments, **options) if ours else slow(function, *arguments, **options)

        InterpretedFunction.__call__ = call


@pytest.fixture(autouse=True, scope="session")
def _truth_in_the_interpreter() -> None:
    """Spread over a block, a scalar's truth becomes an integer, and Triton 3.9 takes no integer for a mask."""
    if triton.interpreted():
        from triton.runtime.interpreter import InterpreterBuilder

        plain = InterpreterBuilder.create_splat

        def create_splat(builder: Any, kind: Any, scalar: Any) -> Any:
            block = plain(builder, kind, scalar)
            if scalar.data.dtype == bool:
                block.data = block.data.astype(bool)
            return block

        InterpreterBuilder.create_splat = create_splat


@pytest.fixture(autouse=True, scope="session")
def _no_tf32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


class _PoisonedTorch:
    """``torch``, but what is allocated uninitialised holds NaN (170 where there is none)."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def empty(self, *arguments: Any, **options: Any) -> torch.Tensor:
        return _poison(torch.empty(*arguments, **options))

    def empty_like(self, *arguments: Any, **options: Any) -> torch.Tensor:
        return _poison(torch.empty_like(*arguments, **options))


def _poison(x: torch.Tensor) -> torch.Tensor:
    return x.fill_(float("nan") if x.is_floating_point() else 170)


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator that leaves a part of its result unwritten fails, whatever the allocator hands out."""
    monkeypatch.setattr(operator, "torch", _PoisonedTorch())
