"""The cost model against what the kernels do in Triton's interpreter, load by load and operation by operation."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("triton")
from triton.runtime.interpreter import InterpreterBuilder

from abpn_fast.backends import triton as backend
from abpn_fast.kernels import cost, levels, tiles

pytestmark = pytest.mark.skipif(not backend.interpreted(), reason="counts in Triton's interpreter")
F32, F16, U8, U16 = torch.float32, torch.float16, torch.uint8, torch.uint16
DTYPES = [(F32, F32), (F16, F16), (U8, F32), (U8, F16), (U16, F32), (U16, F16)]
OPERATIONS = {"create_fadd": 1, "create_fsub": 1, "create_fmul": 1, "create_precise_divf": 1, "create_fma": 2}
J, K = torch.tensor([0.0, 2.0, -2.0]), torch.tensor([0.0, 1.0, 0.0])


class Counts:
    """Bytes between kernels and memory, those read twice counted once, and floating-point operations on pixels."""

    def __init__(self) -> None:
        self.read: dict[int, int] = {}
        self.written: defaultdict[int, int] = defaultdict(int)
        self.flops = 0

    @property
    def bytes(self) -> int:
        assert not self.read.keys() & self.written.keys() and set(self.written.values()) == {1}
        return sum(self.read.values()) + self.bytes_written

    bytes_written = 0


def _chosen(pointers: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return pointers[np.broadcast_to(mask.astype(bool), pointers.shape)]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    counts = Counts()
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store

    def counted_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        loaded = load(self, pointers, mask, *rest)
        if pointers.data.size > 1:
            for address in _chosen(pointers.data, mask.data):
                counts.read[int(address)] = loaded.data.itemsize
        return loaded

    def counted_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        for address in _chosen(pointers.data, mask.data):
            counts.written[int(address)] += 1
            counts.bytes_written += value.data.itemsize
        return store(self, pointers, value, mask, *rest)

    def counted(name: str, flops: int) -> Any:
        operation = getattr(InterpreterBuilder, name)

        def run(self: Any, *operands: Any) -> Any:
            result = operation(self, *operands)
            counts.flops += flops * result.data.size * (result.data.size > 1)
            return result

        return run

    monkeypatch.setattr(InterpreterBuilder, "create_masked_load", counted_load)
    monkeypatch.setattr(InterpreterBuilder, "create_masked_store", counted_store)
    for name, flops in OPERATIONS.items():
        monkeypatch.setattr(InterpreterBuilder, name, counted(name, flops))
    monkeypatch.setattr(tiles, "_THREADS", 16)
    monkeypatch.setattr(levels, "_THREADS", 4)
    return counts


def empty(dtype: torch.dtype, height: int = 32, width: int = 16) -> torch.Tensor:
    return torch.zeros(1, 3, height, width, dtype=dtype)


@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
def test_blends(dtypes: tuple[torch.dtype, torch.dtype], counts: Counts) -> None:
    image, other = dtypes
    backend.adaptive_blend(empty(image), empty(other), J, K, 0.5, empty(image))
    assert (counts.bytes / 512, counts.flops / 512) == cost.adaptive_blend(image, other)
    before = counts.bytes, counts.flops
    backend.reverse_adaptive_blend(empty(image), empty(other), J, K, 0.5, empty(other))
    found = ((counts.bytes - before[0]) / 512, (counts.flops - before[1]) / 512)
    assert found == cost.reverse_adaptive_blend(image, other, other)
    # The floor: every picture once.
    assert found[0] == 3 * (image.itemsize + 2 * other.itemsize)


@pytest.mark.parametrize("high", [False, True], ids=["pyramid_down", "laplacian_decompose"])
def test_levels(high: bool, counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = cost.laplacian_decompose(F32, F32, F32) if high else cost.pyramid_down(F32, F32)
    # The floor: I_i, a quarter as much for I_{i+1}, and H_i.
    assert expected.bytes == 3 * 4 * (2.25 if high else 1.25)
    flops = []
    for rows, height in ((4, 8), (16, 32)):
        monkeypatch.setattr(levels, "_LARGE", 0 if rows == 16 else 2**20)
        before, operations = counts.bytes if flops else 0, counts.flops
        pictures = empty(F32, height), empty(F32, height // 2, 8), empty(F32, height)
        levels.launch(pictures[0], "binomial", *pictures[1 : 3 if high else 2])
        assert (counts.bytes - before) / (height * 16) == expected.bytes
        flops.append(counts.flops - operations)
    # A strip begins with rows of its neighbour; what 12 more rows cost is without that.
    assert (flops[1] - flops[0]) / (12 * 2 * 16) == expected.flops
