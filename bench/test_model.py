"""Latency and peak memory of the whole model, reference and drop-in, on every backend that can run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from abpn_fast import ABPN, use_backend, why_not
from abpn_fast.backends import BACKENDS
from bench.peak import peak_bytes


@pytest.mark.parametrize("size", [512, 1024, 2048, 4096])
@pytest.mark.parametrize("backend", BACKENDS)
@torch.inference_mode()
def test_model(benchmark: Any, device: torch.device, backend: str, size: int) -> None:
    torch.manual_seed(0)
    model = ABPN("small").eval().to(device)
    image = torch.rand(1, 3, size, size, device=device)
    reason = why_not(backend, image, operator="upsample_refine_blend")
    if reason is not None:
        pytest.skip(reason)
    benchmark.group = f"small, {size} x {size}, float32, {device}"

    def call() -> torch.Tensor:
        with use_backend("auto" if backend != "reference" else backend):
            result: torch.Tensor = model(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return result

    benchmark.extra_info["peak_bytes"] = peak_bytes(call, device)
    benchmark.pedantic(call, rounds=5 if benchmark.enabled else 1, iterations=1)
