"""What the whole network takes: a process at its peak, and the allocator where the process is too coarse a measure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from abpn_fast import native
from tests.test_planning import measured

pytestmark = [
    pytest.mark.skipif(native.why_missing() is not None, reason=native.why_missing() or ""),
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is Linux's account"),
]

# Two passes, since the first leaves its traces in the heap; a photo of one colour has the same shapes as any.
_SCRIPT = """
import sys, torch, abpn_fast
from bench import process_memory
torch.set_num_threads(2)
model, dtype = abpn_fast.ABPN.from_pretrained("small"), getattr(torch, sys.argv[1])
imported = process_memory.resident()
image = torch.full((1, 3, 4096, 4096), 100 if dtype == torch.uint8 else 0.4, dtype=dtype)
process_memory.forget_peak()
with torch.inference_mode():
    for _ in range(2):
        model(image)
print(process_memory.peak() - imported - image.nbytes)
"""


def process_peak(dtype: str) -> int:
    """Bytes of a fresh process beyond the imports and the photo, the result included."""
    run = [sys.executable, "-c", _SCRIPT, dtype]
    root = Path(__file__).parents[1]
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    return int(subprocess.run(run, cwd=root, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_process_peak(dtype: str) -> None:
    values = 3 * 4096**2
    result = values * getattr(torch, dtype).itemsize
    # Two thirds of an image in float32, and 32 MB for weights, code and what both networks work in.
    bound = result + 4 * values * 2 // 3 + 32_000_000
    found = process_peak(dtype)
    assert found <= bound, f"{found / 1e6:.0f} MB of {bound / 1e6:.0f}"


def test_strips_do_not_grow_with_the_height() -> None:
    short, tall = (
        measured((height, 1024), torch.uint8, "cpu", "small", 1, strip_rows=512) - 3 * height * 1024
        for height in (2048, 16384)
    )
    # The rows around a strip grow with the cube root of the height.
    assert tall < short + 1_500_000, f"{short / 1e6:.1f} and {tall / 1e6:.1f} MB beyond the result"
