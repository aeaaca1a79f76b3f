"""The recorded network gives what the network gives."""

from __future__ import annotations

import pytest
import torch

import abpn_fast.model
from abpn_fast import accelerate
from abpn_fast.graphed import Graphed
from tests.test_model import random_model

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def test_a_cpu_and_training_are_refused() -> None:
    model = accelerate(random_model())
    with pytest.raises(ValueError, match="NVIDIA or AMD GPU, got an example on cpu"):
        model.graphed(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match="levels"):
        model.graphed(torch.rand(1, 3, 64, 64), levels=-1)
    with pytest.raises(ValueError, match="eval"):
        model.train().graphed(torch.rand(1, 3, 64, 64))


@torch.no_grad()
def test_what_is_recorded_has_weights_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph reads addresses: those of weights that change or go would be another's."""
    monkeypatch.setattr(abpn_fast.model, "Graphed", lambda run, example: run)
    model, image = accelerate(random_model()), torch.rand(1, 3, 64, 70)
    wanted, run = model(image), model.graphed(image)
    for parameter in model.parameters():
        parameter.add_(1)
    del model
    assert torch.equal(run(image), wanted)


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (torch.empty(1, 3, 64, 65), r"\(1, 3, 64, 65\) torch.float32 on cpu"),
        (torch.empty(1, 3, 64, 64, dtype=torch.float16), r"\(1, 3, 64, 64\) torch.float16 on cpu"),
        (torch.empty(1, 3, 64, 64, device="meta"), r"\(1, 3, 64, 64\) torch.float32 on meta"),
    ],
)
def test_an_image_unlike_the_example_is_refused(image: torch.Tensor, got: str) -> None:
    recorded = Graphed.__new__(Graphed)
    recorded.image = torch.empty(1, 3, 64, 64)
    told = rf"image must be like the example, \(1, 3, 64, 64\) torch.float32 on cpu, got {got}; record another"
    with pytest.raises(ValueError, match=told):
        recorded(image)


@needs_gpu
@torch.inference_mode()
def test_same_bits_from_any_stream() -> None:
    with torch.inference_mode(False):
        model = accelerate(random_model()).cuda().half()
    images = [torch.rand(1, 3, 200, 264, device="cuda").half() for _ in range(3)]
    wanted = [model(image, levels=2) for image in images]
    recorded = model.graphed(torch.zeros_like(images[0]), levels=2)
    for _ in range(2):
        found = []
        for image in images:
            with torch.cuda.stream(torch.cuda.Stream()):
                torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
                found.append(recorded(image).clone())
        torch.cuda.synchronize()
        for one, other in zip(found, wanted, strict=True):
            assert torch.equal(one, other)


@needs_gpu
def test_another_shape_is_refused() -> None:
    recorded = accelerate(random_model()).cuda().graphed(torch.rand(1, 3, 64, 64, device="cuda"))
    with pytest.raises(ValueError, match="like the example"):
        recorded(torch.rand(1, 3, 64, 65, device="cuda"))
