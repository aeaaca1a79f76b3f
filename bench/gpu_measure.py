"""Latency by device events, peak memory and ceilings of a GPU; for tests a CPU stands in for it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench import images, networks, parity
from bench.gpu_candidates import Candidate, Operation, prepared
from bench.peak import peak_bytes


def timed(call: Callable[[], object], device: str, *, budget: float = 0.4, most: int = 50) -> dict[str, float]:
    """``min``, ``median`` and ``rounds`` of calls, for at most ``budget`` seconds but three times, after two more."""
    call()
    first = _once(call, device)
    rounds = max(3, min(most, int(budget / max(first, 1e-6))))
    seconds = [_once(call, device) for _ in range(rounds)]
    return {"min": min(seconds), "median": statistics.median(seconds), "rounds": rounds}


def _once(call: Callable[[], object], device: str) -> float:
    if device != "cuda":
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin
    begin_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin_event.record()
    call()
    end_event.record()
    end_event.synchronize()
    return begin_event.elapsed_time(end_event) / 1e3


def ceilings(device: str, size: int = 2**30, side: int = 8192) -> dict[str, float]:
    """Bytes per second of a copy, read and written, and FLOP/s of matrix products; float32 without TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    source, target = torch.ones(2, size, dtype=torch.uint8, device=device)
    found = {"copy": 2 * size / timed(lambda: target.copy_(source), device)["min"]}
    for dtype in (torch.float16, torch.float32):
        factor = torch.randn(side, side, device=device, dtype=dtype)
        product = torch.empty_like(factor)
        seconds = timed(lambda a=factor, c=product: torch.mm(a, a, out=c), device)["min"]
        found[str(dtype).removeprefix("torch.")] = 2 * side**3 / seconds
    return found


def photos(height: int, width: int, batch: int, device: str) -> Tensor:
    """The photo, and mirrored and turned ones: float32."""
    one = images.photo(height, width, torch.float32).to(device)
    return torch.cat([one, one.flip(3), one.flip(2), one.flip(2, 3)][:batch])


def network_row(candidate: Candidate, network: str, image: Tensor, expected: Tensor) -> dict[str, Any]:
    """Parity, ``stats`` and ``extra_info`` of a network, or ``refusal``."""
    device = image.device.type
    call = prepared(candidate, networks.network(network).to(device), image)
    accuracy = str(candidate.dtype).removeprefix("torch.")
    found = parity.check(call().float() / (255 if candidate.image else 1), expected, image, accuracy)
    if found.refusal is not None:
        return {"refusal": found.refusal}
    return {
        "stats": timed(call, device),
        "extra_info": {
            "peak_beyond_input": peak_bytes(call, image.device),
            "largest": found.largest,
            "mean": found.mean,
            "image": "uint8" if candidate.image else accuracy,
        },
    }


def operator_row(operation: Operation, dtype: torch.dtype, ceiling: dict[str, float], device: str) -> dict[str, Any]:
    """``stats``, and as ``extra_info`` what was achieved of which ceiling."""
    stats = timed(operation.call, device)
    key = ("float32" if dtype == torch.float32 else "float16") if operation.flops else "copy"
    unit = "gflops" if operation.flops else "gigabytes"
    rate = (operation.flops or operation.moved) / stats["min"]
    extra = {f"{unit}_per_second": rate / 1e9, f"ceiling_{unit}_per_second": ceiling[key] / 1e9}
    return {"stats": stats, "extra_info": {**extra, "share": rate / ceiling[key]}}
