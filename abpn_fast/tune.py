"""``python -m abpn_fast.tune``: find the block sizes of the Triton kernels that are fastest on this GPU.

Writes ``abpn_fast/configs/<GPU name>.json``, which every later launch on a GPU of that name reads. One choice for all
image sizes: a new size never waits for a trial.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable

import torch

# By module of kernels: what is tried.
CANDIDATES: dict[str, dict[str, tuple[int, ...]]] = {
    "tiles": {"threads": (64, 128, 256), "parts": (1, 2, 4, 8)},
    "levels": {"threads": (32, 64, 128), "rows": (8, 16, 32)},
    "refine": {"programs": (2048, 4096, 8192, 16384)},
}
_SIZE = 4096


def main() -> int:
    """Tune every kernel and write the table; 1, with the reason, where there is no GPU."""
    if not torch.cuda.is_available():
        print("abpn_fast.tune needs an NVIDIA or AMD GPU that PyTorch can use; there is none here.", file=sys.stderr)
        return 1
    from abpn_fast.kernels.launching import CONFIGS, tables

    gpu = torch.cuda.get_device_name()
    runs = _runs()
    found = {kernels: _fastest(kernels, runs[kernels], tables(gpu)) for kernels in CANDIDATES}
    path = CONFIGS / f"{gpu}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")
    print(path)
    return 0


def fastest(kernels: str, seconds: Callable[[dict[str, int]], float]) -> dict[str, int]:
    """The sizes from ``CANDIDATES`` for which ``seconds`` is least."""
    names, values = zip(*CANDIDATES[kernels].items(), strict=True)
    return min((dict(zip(names, each, strict=True)) for each in itertools.product(*values)), key=seconds)


def _fastest(kernels: str, run: Callable[[], object], table: dict[str, dict[str, int]]) -> dict[str, int]:
    from triton.testing import do_bench_cudagraph

    def seconds(sizes: dict[str, int]) -> float:
        table[kernels] = sizes
        run()
        # In a graph: a launch takes longer than some of these kernels.
        return float(do_bench_cudagraph(run, return_mode="median"))

    table[kernels] = fastest(kernels, seconds)
    return table[kernels]


def _runs() -> dict[str, Callable[[], object]]:
    """What is timed: a float16 image of 4096 x 4096, as the model treats it."""
    from abpn_fast import ops, reference

    image = torch.rand(1, 3, _SIZE, _SIZE, device="cuda").half()
    j, k = (torch.tensor(c, device="cuda") for c in ((0.0, 2.0, -2.0), (0.0, 1.0, 0.0)))
    low = ops.pyramid_down(image, backend="triton")
    weights = (weight.detach() for weight in reference.RefiningModule().cuda().half().weights)
    refining = low, image, low, *weights, j, k
    return {
        "tiles": lambda: ops.adaptive_blend(image, image, j, k, backend="triton"),
        "levels": lambda: ops.pyramid_down(image, backend="triton"),
        "refine": lambda: ops.upsample_refine_blend(*refining, backend="triton"),
    }


if __name__ == "__main__":
    sys.exit(main())
