from __future__ import annotations

import gc
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, leaky_relu

import abpn_fast
from abpn_fast import backends, native, reference
from abpn_fast.backends import cuda
from tests.accuracy import assert_same_bits
from tests.ops import test_gated_conv
from tests.ops.contract import Inputs, tensors

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
# (features, skip, out, size) of every attentive module at a thumbnail of 256.
BASE = [(512, 512, 512, 8), (512, 512, 512, 16), (512, 256, 256, 32), (256, 128, 128, 64), (128, 64, 64, 128)]
SMALL = [(128, 128, 128, 8), (128, 128, 128, 16), (128, 64, 64, 32), (64, 32, 32, 64), (32, 16, 16, 128)]
MODULES = [*BASE, (64, 3, 3, 256), *SMALL, (16, 3, 3, 256)]
# (features, skip, out, size, stride) of the mask branch and the encoder of "base", and odd ones.
CONVOLUTIONS = [
    *((512, 512, 512, 8, 1), (512, 512, 512, 16, 1), (512, 256, 256, 32, 1), (256, 128, 128, 64, 1)),
    *((0, 3, 64, 256, 2), (0, 64, 128, 128, 2), (0, 128, 256, 64, 2), (0, 256, 512, 32, 2), (0, 512, 512, 8, 2)),
    *((9, 7, 5, 6, 1), (0, 40, 25, 7, 2), (0, 5, 100, 9, 1)),
]


def inputs(
    features: int, skip: int, out: int, size: tuple[int, int], *, count: int = 1, dtype: torch.dtype = torch.float16
) -> Inputs:
    def draw(*shape: int, scale: float = 1) -> Tensor:
        return (scale * torch.randn(shape, device="cuda")).to(dtype)

    joined = features + skip + 1
    height, width = size
    return {
        "features": draw(count, features, -(-height // 2), -(-width // 2)).contiguous(
            memory_format=torch.channels_last
        ),
        "skip": draw(count, skip, height, width).contiguous(memory_format=torch.channels_last),
        "mask": torch.rand(count, 1, 64, 64, device="cuda").to(dtype),
        "weight": draw(2 * out, joined, 3, 3, scale=(9 * joined) ** -0.5),
        "bias": draw(2 * out, scale=0.1),
        "skip_weight": draw(out, skip, 3, 3, scale=(9 * skip) ** -0.5),
        "skip_bias": draw(out, scale=0.1),
        "negative_slope": 0.2,
    }


def check(given: Inputs) -> Tensor:
    """Within twice the error of the reference in the same dtype, against float64."""
    result = abpn_fast.ops.gated_conv(**given, backend="cuda")
    exact = reference.gated_conv(**{k: v.double() if isinstance(v, Tensor) else v for k, v in given.items()})
    within_budget(result, reference.gated_conv(**given), exact)
    return result


def check_gradient(given: Inputs) -> None:
    """Of every tensor, within twice the error of the reference's in the same dtype."""
    names = list(tensors(given))
    grad = torch.randn_like(reference.gated_conv(**given))

    def found(dtype: torch.dtype, function: Callable[..., Tensor], **how: Any) -> tuple[Tensor, ...]:
        leaves = {name: given[name].detach().to(dtype).requires_grad_() for name in names}
        return torch.autograd.grad(function(**given | leaves, **how), list(leaves.values()), grad.to(dtype))

    results = found(grad.dtype, abpn_fast.ops.gated_conv, backend="cuda")
    plain, exact = found(grad.dtype, reference.gated_conv), found(torch.float64, reference.gated_conv)
    for each in zip(results, plain, exact, strict=True):
        within_budget(*each)


def within_budget(result: Tensor, plain: Tensor, exact: Tensor) -> None:
    found, allowed = ((each.double() - exact).abs().max().item() for each in (result, plain))
    ulps = 4 * torch.finfo(result.dtype).eps * exact.abs().max().item()
    assert found <= 2 * allowed + ulps, f"off by {found:.3g} where {2 * allowed + ulps:.3g} is allowed"


@needs_gpu
class TestOnTheGPU:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
    @pytest.mark.parametrize("module", MODULES, ids=str)
    def test_the_network(self, module: tuple[int, int, int, int], dtype: torch.dtype) -> None:
        for count in (1, 2):
            check(inputs(*module[:3], (module[3], module[3]), count=count, dtype=dtype))

    @pytest.mark.parametrize("seed", range(30))
    def test_random_shapes(self, seed: int) -> None:
        draw = random.Random(seed)
        channels = (draw.randint(1, 160), draw.randint(1, 160), draw.randint(1, 140))
        if seed % 2:
            channels = tuple(8 * -(-channel // 8) for channel in channels)
        size, count = (draw.randint(1, 70), draw.randint(1, 70)), draw.randint(1, 3)
        dtype = draw.choice([torch.float16, torch.bfloat16, torch.float32])
        given = inputs(*channels, size, count=count, dtype=dtype)
        if draw.random() < 0.3:
            given = test_gated_conv.without_mask(given)
        if draw.random() < 0.3:
            given |= {"skip_weight": None, "skip_bias": None}
        result = check(given)
        assert_same_bits(abpn_fast.ops.gated_conv(**given, backend="cuda"), result)
        plain = {k: v.contiguous() if isinstance(v, Tensor) else v for k, v in given.items()}
        assert_same_bits(abpn_fast.ops.gated_conv(**plain, backend="cuda"), result)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
    @pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
    def test_convolutions(self, shape: tuple[int, int, int, int, int], dtype: torch.dtype) -> None:
        features, skip, out, size, stride = shape
        for count in (1, 2):
            given = inputs(max(features, 1), skip, out, (size, size), count=count, dtype=dtype)
            weight, bias = given["weight"][:out, : features + skip].contiguous(), given["bias"][:out].contiguous()

            def run(dtype: torch.dtype, given: Inputs = given, weight: Tensor = weight, bias: Tensor = bias) -> Tensor:
                joined = given["skip"]
                if features:
                    doubled = interpolate(given["features"], scale_factor=2, mode="nearest")
                    joined = torch.cat([doubled, joined], 1)
                return leaky_relu(conv2d(*(x.to(dtype) for x in (joined, weight, bias)), stride, padding=1), 0.2)

            if features:
                result = cuda.joined_convolution(weight, bias, 0.2)(given["features"], given["skip"])
            else:
                convolution = cuda.convolution(weight, bias, stride, 0.2)
                assert convolution is not None
                result = convolution(given["skip"])
            assert result.dtype == dtype
            within_budget(result, run(dtype), run(torch.float64))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
    @pytest.mark.parametrize("kept", [False, True], ids=["gated", "lam"])
    def test_gradient(self, dtype: torch.dtype, kept: bool) -> None:
        for channels in ((16, 24, 32), (9, 7, 5)):
            given = inputs(*channels, (13, 22), count=2, dtype=dtype)
            given |= {} if kept else {"skip_weight": None, "skip_bias": None}
            for each in (given, {k: v.contiguous() if isinstance(v, Tensor) else v for k, v in given.items()}):
                check_gradient(each)

    def test_changed_weights_are_seen(self) -> None:
        given = inputs(16, 8, 24, (10, 12))
        for _ in range(3):
            check(given)
            given["weight"].mul_(-1.5)
            given["skip_weight"].add_(0.1)
        check(given | {"skip_weight": given["skip_weight"].flip(0)})

    def test_weights_are_packed_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given, packings = inputs(16, 8, 24, (10, 12)), []
        pack = cuda._pack
        monkeypatch.setattr(cuda, "_pack", lambda *arguments: packings.append(1) or pack(*arguments))
        for _ in range(3):
            check(given)
        assert len(packings) == 1
        before = len(cuda._cache)
        del given
        gc.collect()
        assert len(cuda._cache) == before - 1

    def test_graph(self) -> None:
        given = inputs(64, 64, 64, (16, 16))
        wanted = abpn_fast.ops.gated_conv(**given, backend="cuda")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = abpn_fast.ops.gated_conv(**given, backend="cuda")
        for scale in (1, -2):
            given["features"].mul_(scale)
            graph.replay()
            torch.cuda.synchronize()
            wanted = abpn_fast.ops.gated_conv(**given, backend="cuda")
            assert_same_bits(result, wanted)

    def test_graph_from_the_first_call_on(self) -> None:
        given = inputs(64, 64, 64, (16, 16))
        check(inputs(8, 8, 8, (4, 4)))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = abpn_fast.ops.gated_conv(**given, backend="cuda")
        check(given)
        graph.replay()
        torch.cuda.synchronize()
        assert_same_bits(result, abpn_fast.ops.gated_conv(**given, backend="cuda"))

    def test_another_stream(self) -> None:
        given = inputs(64, 64, 64, (32, 32))
        wanted = check(given)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = abpn_fast.ops.gated_conv(**given, backend="cuda")
        stream.synchronize()
        assert_same_bits(result, wanted)

    def test_what_the_library_refuses(self) -> None:
        given = inputs(8, 8, 8, (4, 4))
        out = torch.empty_like(given["skip"])
        with pytest.raises(RuntimeError, match="packed does not have the shape"):
            torch.ops.abpn_fast_cuda.gated_conv(
                *(given[name] for name in ("features", "skip", "mask")),
                out.flatten(),
                given["bias"],
                None,
                0.2,
                False,
                0,
                out,
            )


def through_gate(both: Tensor, kept: Tensor | None, grad: Tensor, slope: float) -> tuple[Tensor, Tensor | None]:
    """What the library's kernel computes, in any dtype on any device."""
    feature, gate = both.chunk(2, 1)
    gate = gate.sigmoid()
    f, s = (grad.new_zeros(()) if x is None else torch.where(x > 0, 1, slope).to(grad) for x in (feature, kept))
    difference = f * feature if kept is None else f * feature - s * kept
    found = torch.cat([grad * gate * f, grad * difference * gate * (1 - gate)], 1)
    return found, None if kept is None else grad * (1 - gate) * s


class TestGradient:
    """Of all around the gate, whose kernel tests/csrc/test_gated_gradient.py has; needs no GPU."""

    @pytest.fixture(autouse=True)
    def gate(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cuda, "_through_gate", through_gate)

    @pytest.mark.parametrize("size", [(1, 1), (3, 4), (6, 5)], ids=str)
    @pytest.mark.parametrize(
        "contract", [test_gated_conv.TestContract, test_gated_conv.TestPlain], ids=["lam", "plain"]
    )
    def test_against_finite_differences(
        self, contract: type[test_gated_conv.TestContract], size: tuple[int, int]
    ) -> None:
        given = contract().inputs(size, count=2, dtype=torch.float64)
        names = list(tensors(given))

        class Function(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *values: Tensor) -> Tensor:
                ctx.save_for_backward(*values)
                return reference.gated_conv(**given | dict(zip(names, values, strict=True)))

            @staticmethod
            @torch.autograd.function.once_differentiable
            def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
                arguments = given | dict(zip(names, ctx.saved_tensors, strict=True))
                return tuple(cuda.gated_conv_backward([grad], arguments, names, lambda result: [result]))

        values = [given[name].requires_grad_() for name in names]
        assert torch.autograd.gradcheck(Function.apply, values)

    @pytest.mark.parametrize(
        "contract", [test_gated_conv.TestContract, test_gated_conv.TestPlain], ids=["lam", "plain"]
    )
    def test_each_alone_and_in_any_order(self, contract: type[test_gated_conv.TestContract]) -> None:
        given = contract().inputs((5, 6), dtype=torch.float64)
        grad = torch.randn_like(reference.gated_conv(**given))
        names = list(tensors(given))
        wanted = backends.backward("reference", "gated_conv")([grad], given, names, lambda result: [result])
        for order in (names, names[::-1], *([name] for name in names)):
            found = cuda.gated_conv_backward([grad], given, order, lambda result: [result])
            for name, gradient in zip(order, found, strict=True):
                assert gradient.is_contiguous()
                torch.testing.assert_close(gradient, wanted[names.index(name)])


class Library:
    """Stands in for ``torch.ops.abpn_fast_cuda`` and for CUDA's streams, and writes down what it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.capturing, self.packed, self.launched = False, 0, []
        self.waited = self.recorded = 0
        monkeypatch.setattr(torch.ops, "abpn_fast_cuda", self, raising=False)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: self.capturing)
        monkeypatch.setattr(torch.cuda, "current_stream", self.stream)
        monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: self.record())
        monkeypatch.setattr(cuda, "_phased", lambda *_: False)

    def stream(self, device: torch.device | None = None) -> SimpleNamespace:
        return SimpleNamespace(synchronize=self.wait, cuda_stream=None if device is None else 7)

    def wait(self) -> None:
        self.waited += 1

    def record(self) -> None:
        self.recorded += 1

    def gated_conv_packed_size(self, *_: object) -> int:
        return 1

    def gated_conv_pack(self, *_: object) -> None:
        self.packed += 1

    def gated_conv(self, *arguments: object) -> None:
        self.launched.append(arguments)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    return Library(monkeypatch)


class TestPackedWeights:
    """Needs no GPU: what is packed, and when again."""

    def pack(self, weight: Tensor, skip_weight: Tensor | None = None, *, phased: bool = False) -> Tensor:
        return cuda._packed(weight, skip_weight, cuda._Way(2, False, True, phased))

    def test_once_for_every_stream(self, library: Library) -> None:
        weight = torch.rand(4, 3, 3, 3)
        packed = self.pack(weight)
        assert (library.packed, library.waited, library.recorded) == (1, 1, 0)
        assert self.pack(weight) is packed
        assert (library.packed, library.waited, library.recorded) == (1, 1, 1)
        assert self.pack(weight, phased=True) is not packed and self.pack(weight) is packed

    def test_again_when_they_changed(self, library: Library) -> None:
        weight, skip_weight = torch.rand(4, 3, 3, 3), torch.rand(2, 1, 3, 3)
        for change in (lambda: weight.mul_(2), lambda: skip_weight.mul_(2), lambda: None):
            self.pack(weight, skip_weight)
            change()
        assert library.packed == 3
        self.pack(weight, skip_weight.clone())
        assert library.packed == 4

    def test_every_time_while_they_learn_or_cannot_be_watched(self, library: Library) -> None:
        with torch.inference_mode():
            unwatched = torch.rand(4, 3, 3, 3)
        for weight in (torch.rand(4, 3, 3, 3, requires_grad=True), unwatched):
            before = library.packed
            for _ in range(2):
                self.pack(weight)
            assert library.packed == before + 2 and weight not in cuda._cache

    def test_a_graph_keeps_what_it_reads_and_leaves_nothing(self, library: Library) -> None:
        weight = torch.rand(4, 3, 3, 3)
        library.capturing = True
        self.pack(weight)
        assert weight not in cuda._cache and library.waited == 0
        library.capturing = False
        packed = self.pack(weight)
        library.capturing = True
        assert self.pack(weight) is packed and library.recorded == 0
        weight.add_(1)
        assert any(each is packed for each in cuda._captured[weight].values())


class TestArguments:
    """Needs no GPU: what the library is handed."""

    def test_streams_and_layouts(self, library: Library) -> None:
        given = test_gated_conv.TestContract().inputs((6, 8))
        given |= {name: given[name].repeat_interleave(2)[::2] for name in ("bias", "skip_bias")}
        cuda.gated_conv(*given.values(), out=torch.empty(2, 3, 6, 8))
        (arguments,) = library.launched
        assert arguments[4].is_contiguous() and arguments[5].is_contiguous() and arguments[-2] == 7

    def test_nothing_to_do(self) -> None:
        given = test_gated_conv.TestContract().inputs((6, 8), count=0)
        cuda.gated_conv(*given.values(), out=torch.empty(0, 3, 6, 8))
        convolution = cuda.convolution(torch.rand(4, 3, 3, 3), torch.rand(4), 2, 0.2)
        assert convolution is not None and convolution(torch.rand(0, 3, 5, 6)).shape == (0, 4, 3, 3)

    def test_what_tensor_cores_cannot_read_is_copied(self) -> None:
        pixels = torch.zeros(1, 5, 6, 32, dtype=torch.float16)
        for channels, copied in ((slice(8), False), (slice(8, 24), False), (slice(4, 12), True)):
            x = pixels[..., channels].permute(0, 3, 1, 2)
            found = cuda._readable(x)
            assert (found is not x) == copied and found.stride(1) == 1 and found.data_ptr() % 16 == 0
        twelve = torch.zeros(1, 5, 6, 12, dtype=torch.float16)[..., :8].permute(0, 3, 1, 2)
        assert cuda._readable(twelve).stride(3) == 8
        for x in (torch.zeros(1, 8, 5, 6), torch.zeros(1, 7, 5, 6).half()):
            assert cuda._readable(x) is x
        assert cuda._readable(torch.zeros(1, 8, 5, 6).half()).is_contiguous(memory_format=torch.channels_last)


class TestChoice:
    def test_without_tensors(self) -> None:
        if not torch.cuda.is_available():
            assert cuda.why_not("gated_conv", []) == "backend cuda needs an NVIDIA GPU, and there is none"

    def test_for_amd(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "hip", "6.4")
        assert cuda.why_not("gated_conv", []) == (
            "backend cuda is compiled by nvcc for NVIDIA GPUs, and this PyTorch is built for AMD's"
        )

    def test_shapes_that_are_left_to_cudnn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given = test_gated_conv.TestContract().inputs((6, 8))
        wanted = reference.gated_conv(**given)
        monkeypatch.setattr(cuda, "CUDNN_WINS", {(2, 5, 4, 3, 6, 8)})
        out = torch.full_like(wanted, torch.nan)
        cuda.gated_conv(*given.values(), out=out)
        assert_same_bits(out, wanted)

    def test_reasons(self) -> None:
        image = torch.rand(1, 3, 6, 6)
        assert abpn_fast.why_not("cuda", image, operator="pyramid_down") == "backend cuda has no pyramid_down"
        assert "got one on cpu" in str(cuda.why_not("gated_conv", [image]))
        gpu = SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.float64)
        assert "got torch.float64" in str(cuda.why_not("gated_conv", [gpu]))
        half = SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.float16)
        assert "got torch.float64" in str(cuda.why_not("gated_conv", [half, gpu]))

    def test_an_old_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gpu = SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.float16)
        monkeypatch.setattr(native, "why_missing", lambda backend: None)
        monkeypatch.setattr(cuda, "_capability", lambda device: (7, 5))
        assert "8.0 or newer, got 7.5" in str(cuda.why_not("gated_conv", [gpu]))
        monkeypatch.setattr(cuda, "_capability", lambda device: (8, 0))
        assert cuda.why_not("gated_conv", [gpu]) is None

    def test_automatic_choice_falls_back_with_the_reason(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(native, "why_missing", lambda backend: f"backend {backend} is not compiled")
        monkeypatch.setattr(cuda, "_capability", lambda device: (9, 0))
        gpu: Any = SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.float16, layout=torch.strided)
        assert backends.choose("auto", "gated_conv", [gpu]) == "reference"
        with pytest.raises(RuntimeError, match="backend cuda is not compiled"):
            backends.choose("cuda", "gated_conv", [gpu])
