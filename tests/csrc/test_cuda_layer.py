"""The folded retouching layer on backend cuda, whose kernels run on a CPU here."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from abpn_fast import low_res, reference
from abpn_fast.backends import cuda
from abpn_fast.config import ABPNConfig
from abpn_fast.prepared import Prepared
from tests.csrc import emulator

pytestmark = pytest.mark.skipif(emulator.why_not() is not None, reason=emulator.why_not() or "")


class Library:
    """``torch.ops.abpn_fast_cuda``, where packed weights are a number that stands for the weights."""

    def __init__(self) -> None:
        self.weights: list[tuple[Tensor, Tensor | None]] = []
        self.launches: list[str] = []

    def gated_conv_phased(self, count: int, height: int, width: int) -> bool:
        return height % 2 == width % 2 == 0 and count * height * width >= 1024

    def gated_conv_packed_size(self, *_: object) -> int:
        return 1

    def gated_conv_pack(self, weight: Tensor, skip_weight: Tensor | None, *rest: object) -> None:
        packed = rest[-1]
        assert isinstance(packed, Tensor)
        packed.fill_(len(self.weights))
        self.weights.append((weight, skip_weight))

    def gated_conv(
        self,
        features: Tensor,
        skip: Tensor,
        mask: Tensor,
        packed: Tensor,
        bias: Tensor,
        skip_bias: Tensor | None,
        slope: float,
        phased: bool,
        stream: int,
        out: Tensor,
    ) -> None:
        weight, skip_weight = self.weights[int(packed)]
        self.launches.append("gated_conv")
        arguments = features, skip, mask, weight, bias, skip_weight, skip_bias, slope, out
        emulator.gated_conv(*arguments, kernel="full", phased=phased, multiprocessors=4)

    def convolution(
        self,
        features: Tensor | None,
        skip: Tensor,
        packed: Tensor,
        bias: Tensor,
        slope: float,
        stride: int,
        phased: bool,
        stream: int,
        out: Tensor,
    ) -> None:
        self.launches.append("convolution")
        arguments = features, skip, None, self.weights[int(packed)][0], bias, None, None, slope, out
        options = {"phased": phased, "multiprocessors": 4, "stride": stride}
        emulator.gated_conv(*arguments, kernel="full", gated=False, **options)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    found = Library()
    stream = SimpleNamespace(cuda_stream=0, synchronize=lambda: None)
    monkeypatch.setattr(torch.ops, "abpn_fast_cuda", found, raising=False)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: None)
    monkeypatch.setattr(low_res, "backend", lambda *_: "cuda")
    monkeypatch.setattr(cuda, "why_not", lambda *_: None)
    cuda._phased.cache_clear()
    yield found
    cuda._phased.cache_clear()


@pytest.mark.parametrize("attention", ["lam", "gated"])
def test_it_is_the_references(library: Library, attention: str) -> None:
    torch.manual_seed(0)
    model = reference.ABPN(ABPNConfig(encoder_widths=(8, 16, 8, 12, 8, 8), attention=attention)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    thumbnail = torch.rand(1, 3, 70, 64)
    with torch.inference_mode():
        kept = Prepared[low_res.Layer]()
        for _ in range(2):
            found = low_res.retouch(model, thumbnail, kept)
        assert found is not None
        mask, result = found
        wanted = model.retouch(thumbnail)
    torch.testing.assert_close(result, wanted[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mask, wanted[0], rtol=1e-4, atol=1e-5)
    # Ten convolutions and six modules, and no weights packed twice.
    assert library.launches.count("convolution") == 20
    assert library.launches.count("gated_conv") == 12
    assert len(library.weights) == 16
