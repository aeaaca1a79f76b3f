"""The rules that every launch follows.

Kernels run on the device and the current stream of their tensors. Multiplications and additions are never fused unless
the source says ``tl.fma``: whatever the compiler makes of a size or a layout, the same operations give the same bits.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CONFIGS = Path(__file__).parent.parent / "configs"
_DENSE = (torch.contiguous_format, torch.channels_last)


def start(kernel: Any, programs: int, like: Tensor, *arguments: Any, threads: int, **options: Any) -> None:
    """Run ``programs`` programs of ``kernel``, each of so many threads, on the device of ``like``."""
    if programs == 0:
        return
    with torch.cuda.device_of(like):
        kernel[(programs,)](*arguments, enable_fp_fusion=False, num_warps=-(-threads // warp(like)), **options)


def warp(like: Tensor) -> int:
    """Threads of a warp: 32, or 64 as AMD's GPUs for data centres have it."""
    return torch.cuda.get_device_properties(like.device).warp_size if like.is_cuda else 32


def from_ampere_on(like: Tensor) -> bool:
    """Whether the GPU of ``like`` is NVIDIA's and not older than Ampere; where there is none, it is thought to be."""
    return not torch.version.hip and (not like.is_cuda or torch.cuda.get_device_capability(like.device) >= (8, 0))


def alike(*pictures: Tensor) -> bool:
    """Whether the same pixels of ``pictures`` lie in the same order in dense memory: contiguous or channels_last."""
    return any(all(x.is_contiguous(memory_format=layout) for x in pictures) for layout in _DENSE)


def tuned(kernels: str, like: Tensor, **heuristic: int) -> dict[str, int]:
    """The block sizes of ``heuristic``, or what ``python -m abpn_fast.tune`` found better on the GPU of ``like``."""
    table = tables(torch.cuda.get_device_name(like.device)) if like.is_cuda else {}
    return heuristic | table.get(kernels, {})


@functools.cache
def tables(gpu: str) -> dict[str, dict[str, int]]:
    """What ``configs/<gpu>.json`` says, by module of kernels; nothing where there is none."""
    path = CONFIGS / f"{gpu}.json"
    found: dict[str, dict[str, int]] = json.loads(path.read_text()) if path.exists() else {}
    return found


def coefficients(c: Tensor) -> Tensor:
    """j or k as the kernels read them: contiguous float32."""
    return c.to(torch.float32).contiguous()
