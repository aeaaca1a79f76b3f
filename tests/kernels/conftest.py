"""What a GPU would not forgive, in Triton's interpreter: addresses outside the arguments, and what no lane has read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from abpn_fast.backends import triton
from tests.kernels.codegen import Compiler


class Memory:
    """Where the tensors of a launch begin and end."""

    def __init__(self) -> None:
        self.extents: list[tuple[int, int]] = []

    def is_of(self, arguments: Iterable[Any]) -> None:
        tensors = [each for each in arguments if isinstance(each, Tensor) and each.numel()]
        self.extents = [(each.data_ptr(), each.data_ptr() + _bytes(each)) for each in tensors]

    def check(self, pointers: np.ndarray, mask: np.ndarray, size: int) -> None:
        used = pointers[np.broadcast_to(mask.astype(bool), pointers.shape)]
        if used.size and not any(begin <= used.min() and used.max() + size <= end for begin, end in self.extents):
            outside = np.ones(used.shape, dtype=bool)
            for begin, end in self.extents:
                outside &= (used < begin) | (used + np.uint64(size) > end)
            assert not outside.any(), f"{outside.sum()} of {used.size} addresses lie outside every argument"


def _bytes(x: Tensor) -> int:
    """From the first to behind the last of ``x``, as it lies in memory."""
    return (sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True)) + 1) * x.element_size()


@pytest.fixture(scope="session")
def compiler() -> Iterator[Compiler]:
    compiler = Compiler()
    yield compiler
    compiler.close()


@pytest.fixture(autouse=True, scope="session")
def _sound_memory() -> Iterator[None]:
    if not triton.interpreted():
        yield
        return
    from triton.runtime.interpreter import GridExecutor, InterpreterBuilder

    memory, call = Memory(), GridExecutor.__call__
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store

    def watched_call(executor: Any, *arguments: Any, **options: Any) -> Any:
        memory.is_of([*arguments, *options.values()])
        return call(executor, *arguments, **options)

    def watched_load(builder: Any, pointers: Any, mask: Any, other: Any, *rest: Any) -> Any:
        memory.check(pointers.data, mask.data, pointers.get_element_ty().primitive_bitwidth // 8)
        loaded = load(builder, pointers, mask, other, *rest)
        if other is None:
            # Whatever the register held; NaN where there is one.
            unread = ~np.broadcast_to(mask.data.astype(bool), loaded.data.shape)
            loaded.data[unread] = np.frombuffer(b"\xff" * loaded.data.itemsize, loaded.data.dtype)[0]
        return loaded

    def watched_store(builder: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        memory.check(pointers.data, mask.data, value.data.itemsize)
        return store(builder, pointers, value, mask, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GridExecutor, "__call__", watched_call)
        patch.setattr(InterpreterBuilder, "create_masked_load", watched_load)
        patch.setattr(InterpreterBuilder, "create_masked_store", watched_store)
        yield
