"""One step of training, forward and backward, beside the reference's modules, in turn; its gradient compared first."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import abpn_fast
from abpn_fast import reference
from abpn_fast.training.objective import Objective
from bench import images, networks
from bench.peak import peak_bytes
from bench.recorded import RecordedClock, in_turn

_clock = RecordedClock()


class Candidate(NamedTuple):
    """``ours`` or the reference's modules; ``difference`` is what the gradient may differ by, relative to its norm."""

    label: str
    ours: bool
    bf16: bool
    difference: float


class Case(NamedTuple):
    """Crops of the photo, halved ``levels`` times before the retouching layer."""

    side: int
    levels: int
    batch: int


CANDIDATES = {
    "ours": Candidate("abpn_fast", True, False, 1e-3),
    "eager": Candidate("PyTorch eager", False, False, 1e-3),
    "ours_bfloat16": Candidate("abpn_fast, bfloat16 autocast", True, True, 0.1),
    "eager_bfloat16": Candidate("PyTorch eager, bfloat16 autocast", False, True, 0.1),
}
CASES = [Case(256, 0, 6), Case(384, 1, 6), Case(1024, 2, 1)]
ROUNDS = 5


class Found(NamedTuple):
    """``seconds`` of every round and the allocator's ``peak`` in bytes, by candidate."""

    seconds: dict[str, list[float]]
    peaks: dict[str, int]


@pytest.mark.benchmark(timer=_clock)
@pytest.mark.parametrize("candidate", CANDIDATES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_step(benchmark: Any, case: Case, candidate: str) -> None:
    found = _measured(case)
    benchmark.group = benchmark.extra_info["suite"] = "training step, small"
    benchmark.extra_info |= {
        "row": CANDIDATES[candidate].label,
        "column": f"{case.batch} x {case.side} x {case.side}, l = {case.levels}",
        "baseline": min(found.seconds["ours"]),
        "allocator_peak": found.peaks[candidate],
    }
    _clock.tell(benchmark, found.seconds[candidate])


@functools.cache
def _measured(case: Case) -> Found:
    steps = {name: _step(candidate, case) for name, candidate in CANDIDATES.items()}
    gradients = {name: step() for name, step in steps.items()}
    for name, candidate in CANDIDATES.items():
        difference = float((gradients[name] - gradients["eager"]).norm() / gradients["eager"].norm())
        assert difference <= candidate.difference, f"{name}: the gradient differs by {difference:.2g}"
    peaks = {name: peak_bytes(step, torch.device("cpu")) for name, step in steps.items()}
    return Found(in_turn(steps, ROUNDS), peaks)


def _step(candidate: Candidate, case: Case) -> Callable[[], Tensor]:
    """Forward and backward of all that training from pairs minimises; returns the gradient of all parameters."""
    model: reference.ABPN = networks.network("small").requires_grad_().train()
    if candidate.ours:
        model = abpn_fast.accelerate(model)
    image = torch.cat([images.photo(case.side, case.side, torch.float32).roll(97 * i, 3) for i in range(case.batch)])
    target, objective, parameters = image.flip(1), Objective(), list(model.parameters())

    @torch.enable_grad()
    def step() -> Tensor:
        with abpn_fast.use_backend("auto" if candidate.ours else "reference"):
            with torch.autocast("cpu", torch.bfloat16, enabled=candidate.bf16):
                output = model(image, levels=case.levels, return_intermediates=True)
            terms = objective.terms(output, target, model.blend, model.config.pyramid_filter)
            gradients = torch.autograd.grad(objective.total(terms), parameters, allow_unused=True)
        return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])

    return step
