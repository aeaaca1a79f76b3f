"""The retouching layer alone, whose cost does not depend on the photo's size, against the peak of multiply-adds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import abpn_fast
from bench import images, networks
from bench.ceilings import against

CANDIDATES = {"ours": "abpn_fast", "eager": "PyTorch eager", "eager_channels_last": "PyTorch eager, channels_last"}


@pytest.mark.parametrize("candidate", CANDIDATES)
@pytest.mark.parametrize("network", ["base", "small"])
def test_retouching_layer(benchmark: Any, network: str, candidate: str) -> None:
    model, thumbnail = networks.network(network), images.photo(256, 256, torch.float32)
    with FlopCounterMode(display=False) as counter:
        expected = model.retouch(thumbnail)[1]
    if candidate == "ours":
        model = abpn_fast.accelerate(model)
    elif candidate == "eager_channels_last":
        model, thumbnail = (
            model.to(memory_format=torch.channels_last),
            thumbnail.contiguous(memory_format=torch.channels_last),
        )
    assert (model.retouch(thumbnail)[1] - expected).abs().max() < 1e-4
    benchmark.group = benchmark.extra_info["suite"] = "retouching layer, 256 x 256, float32"
    benchmark.extra_info["row"] = f'"{network}", {CANDIDATES[candidate]}'
    against(benchmark, lambda: model.retouch(thumbnail), 15, flops=counter.get_total_flops())
