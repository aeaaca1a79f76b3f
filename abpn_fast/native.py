"""The compiled library with the CPU kernels: found and loaded on first use, or the reason why it is not there."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

# The oldest LibTorch that has the interface the library is compiled against.
_OLDEST_TORCH = (2, 10)


@functools.cache
def why_missing() -> str | None:
    """Load ``abpn_fast._C``; None when ``torch.ops.abpn_fast_cpu`` works, otherwise one sentence."""
    files = sorted(Path(__file__).parent.glob("_C.*"))
    if not files:
        return "backend cpu is not compiled; run `python setup.py build_ext --inplace` with a C++17 compiler"
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < _OLDEST_TORCH:
        return f"backend cpu needs torch 2.10 or newer, got {torch.__version__}"
    try:
        torch.ops.load_library(files[0])  # type: ignore[no-untyped-call]
    except OSError as error:
        return f"backend cpu does not load {files[0].name}: {error}"
    return None
