"""The compiled libraries, one of CPU and one of CUDA kernels: found and loaded on first use, or why they are not."""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from abpn_fast import cuda_build

# The oldest LibTorch that has the interface the libraries are compiled against.
_OLDEST_TORCH = (2, 10)


@functools.cache
def why_missing(backend: str = "cpu") -> str | None:
    """Load the library of backend ``"cpu"`` or ``"cuda"``; None when its operators work, otherwise one sentence.

    They are ``torch.ops.abpn_fast_cpu`` and ``torch.ops.abpn_fast_cuda``. The second is compiled on first use where it
    is not installed and nvcc is at hand; a failure is remembered as long as the process lives.
    """
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < _OLDEST_TORCH:
        return f"backend {backend} needs torch 2.10 or newer, got {torch.__version__}"
    try:
        library = _installed(backend) or cuda_build.on_first_use()
    except RuntimeError as error:
        return str(error)
    try:
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except OSError as error:
        return f"backend {backend} does not load {library.name}: {error}"
    return None


def _installed(backend: str) -> Path | None:
    name = {"cpu": "_C", "cuda": "_C_cuda"}[backend]
    files = sorted(Path(__file__).parent.glob(f"{name}.*"))
    if not files and backend == "cpu":
        raise RuntimeError(
            "backend cpu is not compiled; with torch and a C++17 compiler at hand, run in the clone "
            "`pip install --no-build-isolation --no-deps --force-reinstall .`"
        )
    return files[0] if files else None
