"""Latency by device events, peak memory and ceilings of a GPU; for tests a CPU stands in for it."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import abpn_fast
from bench import gpu_candidates, images, networks, parity
from bench.gpu_candidates import Candidate, Operation, prepared
from bench.peak import peak_bytes
from bench.pyramid import Pyramid
from tests.accuracy import assert_within_budget


def timed(
    call: Callable[[], object], device: str, *, queued: bool = False, budget: float = 0.4, most: int = 50
) -> dict[str, float]:
    """``min``, ``median`` and ``rounds`` of calls, for at most ``budget`` seconds but three times, after two more.

    Args:
        call: what is timed.
        device: the GPU waits for nothing else when a round begins.
        queued: time the GPU's work alone: it is kept busy until the call is launched. Otherwise the launch by Python
            is a part of the time, as for a caller.
        budget, most: of seconds and of rounds.
    """
    call()
    first = _once(call, device, queued)
    rounds = max(3, min(most, int(budget / max(first, 1e-6))))
    seconds = [_once(call, device, queued) for _ in range(rounds)]
    return {"min": min(seconds), "median": statistics.median(seconds), "rounds": rounds}


# Of the GPU's clock, about two milliseconds.
_BUSY_CYCLES = 4_000_000


def _once(call: Callable[[], object], device: str, queued: bool) -> float:
    if device != "cuda":
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin
    begin_event, end_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    if queued:
        torch.cuda._sleep(_BUSY_CYCLES)
    begin_event.record()
    call()
    end_event.record()
    end_event.synchronize()
    return begin_event.elapsed_time(end_event) / 1e3


def ceilings(device: str, size: int = 2**30, side: int = 8192) -> dict[str, float]:
    """Bytes per second of a copy, read and written, and FLOP/s of matrix products."""
    source, target = torch.ones(2, size, dtype=torch.uint8, device=device)
    found = {"copy": 2 * size / timed(lambda: target.copy_(source), device, queued=True)["min"]}
    for dtype in (torch.float16, torch.float32):
        factor = torch.randn(side, side, device=device, dtype=dtype)
        product = torch.empty_like(factor)
        seconds = timed(lambda a=factor, c=product: torch.mm(a, a, out=c), device, queued=True)["min"]
        found[str(dtype).removeprefix("torch.")] = 2 * side**3 / seconds
    return found


def photos(height: int, width: int, batch: int, device: str) -> Tensor:
    """The photo, and mirrored and turned ones: float32."""
    one = images.photo(height, width, torch.float32).to(device)
    return torch.cat([one, one.flip(3), one.flip(2), one.flip(2, 3)][:batch])


def network_row(candidate: Candidate, network: str, image: Tensor, expected: Tensor) -> dict[str, Any]:
    """Parity, ``stats``, launches included, and ``extra_info`` of a network, or ``refusal``."""
    device = image.device.type
    call = prepared(candidate, networks.network(network).to(device), image)
    accuracy = str(candidate.dtype).removeprefix("torch.")
    found = parity.check(call().float() / (255 if candidate.image else 1), expected, image, accuracy)
    if found.refusal is not None:
        return {"refusal": found.refusal}
    extra = {"largest": found.largest, "mean": found.mean, "image": "uint8" if candidate.image else accuracy}
    stats = timed(call, device)
    if not candidate.graphed:
        extra["peak_beyond_input"] = peak_bytes(call, image.device)
    return {"stats": stats, "extra_info": extra}


def operators_that_differ(dtype: torch.dtype, device: str, side: int = 512) -> dict[str, str]:
    """Why not to time them: operations that fail or are further from float64 than the tests allow, on a photo."""
    p = Pyramid(side, side, dtype, device)
    blend = p.coarser()
    exact = gpu_candidates.operations(_doubled(p), blend.double())
    differing = {}
    for name, operation in gpu_candidates.operations(p, blend).items():
        try:
            found = [tensor.clone() for tensor in tree_leaves(operation.call())]
            with abpn_fast.use_backend("reference"):
                plain, wanted = (tree_leaves(each.call()) for each in (operation, exact[name]))
            for result, expected, double in zip(found, plain, wanted, strict=True):
                assert_within_budget(result, expected, double.cpu().numpy())
        except AssertionError as error:
            differing[name] = f"differs from the reference on a {side} x {side} photo: {error}"
        except Exception as error:
            differing[name] = first_line(error)
    return differing


def first_line(error: Exception) -> str:
    """What to say of it in a table."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"


def _doubled(p: Pyramid) -> Pyramid:
    """The same values in float64."""
    double = copy.copy(p)
    double.model = copy.deepcopy(p.model).double()
    double.gaussian = [level.double() for level in p.gaussian]
    double.image, double.layer = double.gaussian[0], p.layer.double()
    double.coefficients = tuple(each.double() for each in p.coefficients)
    return double


def operator_row(operation: Operation, dtype: torch.dtype, ceiling: dict[str, float], device: str) -> dict[str, Any]:
    """``stats`` of the GPU's work alone, and as ``extra_info`` what was achieved of which ceiling, if that is known."""
    stats = timed(operation.call, device, queued=True)
    key = ("float32" if dtype == torch.float32 else "float16") if operation.flops else "copy"
    unit = "gflops" if operation.flops else "gigabytes"
    rate = (operation.flops or operation.moved) / stats["min"]
    extra = {f"{unit}_per_second": rate / 1e9}
    if key in ceiling:
        extra |= {f"ceiling_{unit}_per_second": ceiling[key] / 1e9, "share": rate / ceiling[key]}
    return {"stats": stats, "extra_info": extra}
