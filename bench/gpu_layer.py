"""The retouching layer on a GPU, step by step and whole, beside PyTorch's operators on the same folded filters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from abpn_fast import low_res, reference
from bench import gpu_candidates, gpu_measure, images, networks, parity
from tests.accuracy import assert_within_budget

OURS, PLAIN = "abpn_fast", "PyTorch"
SIDE = 256
# Of the layer, in the order in which they run.
_PARTS = ("encoder", "mask_blocks", "attention")


class Step(NamedTuple):
    """One step, as PyTorch's operators, as our kernel, and in float64."""

    name: str
    plain: Callable[[], Tensor]
    ours: Callable[[], Tensor]
    exact: Callable[[], Tensor]


class Whole(NamedTuple):
    """The layer from the thumbnail to R_l."""

    model: reference.ABPN
    thumbnail: Tensor
    plain: low_res.Layer
    ours: low_res.Layer


def whole(network: str, dtype: torch.dtype, device: str, backend: str = "cuda", side: int = SIDE) -> Whole:
    """The layer of ``network``, folded, on a photo of ``side`` pixels."""
    model = networks.network(network).to(device)
    for module in model.modules():
        # Zeros are multiplied faster than what weights are like.
        if isinstance(module, torch.nn.Conv2d) and not module.weight.any():
            torch.nn.init.normal_(module.weight, std=0.01)
    folded = low_res.fold(model, dtype)
    thumbnail = images.photo(side, side, torch.float32).to(device, dtype)
    return Whole(model, thumbnail, low_res.steps(folded, "reference"), low_res.steps(folded, backend))


def steps(layer: Whole) -> Iterator[Step]:
    """Every convolution and attentive module, on what the steps before it make of the photo."""
    given: list[tuple[Tensor | None, ...]] = []

    def noting(step: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*arguments: Tensor | None) -> Tensor:
            given.append(arguments)
            return step(*arguments)

        return run

    noted = {part: [*map(noting, getattr(layer.plain, part))] for part in _PARTS}
    low_res.run(layer.model, layer.plain._replace(**noted), layer.thumbnail)
    doubles = low_res.steps(low_res.fold(copy.deepcopy(layer.model).double(), torch.float64), "reference")
    for part in _PARTS:
        for functions in zip(*(getattr(each, part) for each in (layer.plain, layer.ours, doubles)), strict=True):
            yield _step(part.replace("_", " "), functions, given.pop(0))


def _step(name: str, functions: tuple[Callable[..., Tensor], ...], arguments: tuple[Tensor | None, ...]) -> Step:
    plain, ours, double = functions
    doubled = [None if x is None else x.double() for x in arguments]
    channels = " + ".join(str(x.shape[1]) for x in arguments if x is not None)
    out, height, width = plain(*arguments).shape[1:]
    return Step(
        f"{name}, {channels} to {out} channels, {height} x {width}",
        lambda: plain(*arguments),
        lambda: ours(*arguments),
        lambda: double(*doubled),
    )


def step_rows(step: Step, device: str) -> dict[str, Any]:
    """``stats`` of both by column, the GPU's work alone, after parity with float64, or ``refusal``."""
    try:
        assert_within_budget(step.ours(), step.plain(), step.exact().cpu().numpy())
    except AssertionError as error:
        return {"refusal": f"differs from the reference: {error}"}
    return _timed(step.plain, step.ours, device)


def whole_rows(layer: Whole, device: str, *, graphed: bool) -> dict[str, Any]:
    """The same of the whole layer, which is compared with the float32 reference."""
    expected = layer.model.retouch(layer.thumbnail.float())[1]
    accuracy = str(layer.thumbnail.dtype).removeprefix("torch.")

    def runs(which: low_res.Layer) -> Callable[[], Tensor]:
        def run() -> Tensor:
            return low_res.run(layer.model, which, layer.thumbnail)[1]

        return gpu_candidates.recorded(run) if graphed else run

    plain, ours = runs(layer.plain), runs(layer.ours)
    found = parity.check(ours().float(), expected, layer.thumbnail.float(), accuracy)
    return {"refusal": found.refusal} if found.refusal is not None else _timed(plain, ours, device)


def _timed(plain: Callable[[], Any], ours: Callable[[], Any], device: str) -> dict[str, Any]:
    return {PLAIN: gpu_measure.timed(plain, device, queued=True), OURS: gpu_measure.timed(ours, device, queued=True)}
