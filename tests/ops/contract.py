"""What holds for every operator; each test file says how to make its inputs and what they should give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import abpn_fast
from tests.accuracy import assert_near, assert_same_bits, assert_within_budget
from tests.layouts import LAYOUTS, Guarded, arrange_all

Inputs = dict[str, Any]
SIZES = [(1, 1), (1, 9), (9, 1), (7, 13), (15, 16), (16, 17), (17, 15), (63, 64), (64, 65), (65, 63)]
INTEGERS = [torch.uint8, torch.uint16]
CASES = [(size, dtype) for size in SIZES for dtype in (torch.float64, torch.float32)]
CASES += [(size, dtype) for size in ((1, 1), (17, 16), (64, 65)) for dtype in (torch.bfloat16, torch.float16)]


def draw(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu", scale: float = 0.3) -> Tensor:
    """Normal noise; without values on the meta device."""
    return (
        torch.empty(shape, dtype=dtype, device=device)
        if device == "meta"
        else scale * torch.randn(shape).to(device, dtype)
    )


def picture(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    """Pixels from black to white, some at either end."""
    if device == "meta":
        return torch.empty(shape, dtype=dtype, device=device)
    pixels = (1.2 * torch.rand(shape) - 0.1).clamp(0, 1)
    return (pixels if dtype.is_floating_point else (torch.iinfo(dtype).max * pixels).round()).to(device, dtype)


def halved(size: tuple[int, int]) -> tuple[int, int]:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def tensors(inputs: Inputs) -> dict[str, Tensor]:
    return {name: value for name, value in inputs.items() if isinstance(value, Tensor)}


def as_arrays(inputs: Inputs) -> Inputs:
    """Every tensor as float64 numpy, with white at 1."""
    return inputs | {name: _array(value) for name, value in tensors(inputs).items()}


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().double().numpy() / (1 if x.is_floating_point() else torch.iinfo(x.dtype).max)


def poisoned_pixel(x: Tensor, value: float) -> Tensor:
    """A copy with one pixel of one channel replaced, away from the edges."""
    x = x.clone()
    x[-1, 0, x.shape[2] // 2, x.shape[3] // 2] = value
    return x


class OperatorContract(ABC):
    """Subclassed once per operator; ``inputs`` are in the order of the schema."""

    name: ClassVar[str]
    reference_ulps: ClassVar[float] = 64
    not_differentiable: ClassVar[tuple[str, ...]] = ()
    bad_arguments: ClassVar[list[tuple[str, Callable[[Inputs], Any]]]]

    @abstractmethod
    def inputs(
        self, size: tuple[int, int], *, count: int = 2, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> Inputs:
        """One call's arguments."""

    @abstractmethod
    def formula(self, inputs: Inputs) -> list[np.ndarray]:
        """The equation on ``as_arrays(inputs)``."""

    def flat(self, result: Any) -> list[Tensor]:
        """What the operator computes, of what its function returns."""
        return [result]

    def unflat(self, results: list[Tensor]) -> Any:
        """The inverse of ``flat``, for ``out``."""
        return results[0]

    def run(self, inputs: Inputs, backend: str | None = None, **options: Any) -> list[Tensor]:
        if backend is not None:
            reason = abpn_fast.why_not(backend, *tensors(inputs).values(), operator=self.name)
            if reason is not None:
                pytest.skip(reason)
        return self.flat(getattr(abpn_fast.ops, self.name)(**inputs, backend=backend, **options))

    def reference(self, inputs: Inputs) -> list[Tensor]:
        return self.flat(getattr(abpn_fast.reference, self.name)(**inputs))

    def differentiable(self, inputs: Inputs) -> list[str]:
        floating = [name for name, value in tensors(inputs).items() if value.is_floating_point()]
        return [name for name in floating if name not in self.not_differentiable]

    def check(self, inputs: Inputs, backend: str) -> None:
        """The result is close to the formula, the reference too."""
        results, references, exact = self.run(inputs, backend), self.reference(inputs), self.formula(as_arrays(inputs))
        for result, reference, wanted in zip(results, references, exact, strict=True):
            assert_near(reference, wanted, ulps=self.reference_ulps)
            assert_within_budget(result, reference, wanted)

    def check_layout(self, inputs: Inputs, layout: str, backend: str) -> None:
        """The result does not depend on the layout, and nothing but the result is written."""
        inputs, guards = arrange_all(inputs, layout)
        before = {name: value.clone() for name, value in tensors(inputs).items()}
        self.check(inputs, backend)
        assert all(guard.intact for guard in guards)
        assert all(torch.equal(inputs[name], value) for name, value in before.items())

    @pytest.mark.parametrize(("size", "dtype"), CASES, ids=str)
    def test_formula(self, size: tuple[int, int], dtype: torch.dtype, device: str, backend: str) -> None:
        self.check(self.inputs(size, dtype=dtype, device=device), backend)

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_batch(self, count: int, device: str, backend: str) -> None:
        self.check(self.inputs((7, 6), count=count, device=device), backend)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_layout(self, layout: str, device: str, backend: str) -> None:
        self.check_layout(self.inputs((15, 18), device=device), layout, backend)

    def test_memory_format(self, device: str, backend: str) -> None:
        for memory_format in (torch.contiguous_format, torch.channels_last):
            inputs = self.inputs((6, 8), device=device)
            images = {name: value for name, value in tensors(inputs).items() if value.dim() == 4}
            inputs |= {name: value.contiguous(memory_format=memory_format) for name, value in images.items()}
            assert all(result.is_contiguous(memory_format=memory_format) for result in self.run(inputs, backend))

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_not_finite_stays_so(self, value: float, device: str, backend: str) -> None:
        # Far from the edges: there a bilinear weight of 0 may or may not meet the pixel.
        inputs = self.inputs((64, 60), device=device)
        for name in [name for name in self.differentiable(inputs) if inputs[name].dim() == 4 and "weight" not in name]:
            spoilt = inputs | {name: poisoned_pixel(inputs[name], value)}
            with np.errstate(all="ignore"):
                exact = self.formula(as_arrays(spoilt))
            for result, wanted in zip(self.run(spoilt, backend), exact, strict=True):
                assert (np.isfinite(_array(result)) == np.isfinite(wanted)).all(), name

    def test_out(self, device: str, backend: str) -> None:
        inputs = self.inputs((15, 18), device=device)
        plain = self.run(inputs, backend)
        guards = [Guarded(torch.zeros_like(result)) for result in plain]
        out = self.unflat([guard.view for guard in guards])
        results = self.run(inputs, backend, out=out)
        assert all(result is guard.view for result, guard in zip(results, guards, strict=True))
        assert_same_bits(results, plain)
        assert all(guard.intact for guard in guards)

    def test_out_refused(self, device: str, backend: str) -> None:
        inputs = self.inputs((6, 8), device=device)
        plain = self.run(inputs, backend)
        for problem, bad in {
            "shape": plain[-1][..., :-1],
            "dtype": plain[-1].to(torch.int32),
            "tensor": "nonsense",
            "gradient": plain[-1].clone().requires_grad_(),
        }.items():
            with pytest.raises((TypeError, ValueError), match=rf"\bout\b.*{problem}"):
                self.run(inputs, backend, out=self.unflat([*plain[:-1], bad]))

    def test_out_over_an_input_refused(self, device: str, backend: str) -> None:
        inputs = self.inputs((6, 8), device=device)
        plain = self.run(inputs, backend)
        for value in tensors(inputs).values():
            over = value.as_strided(plain[-1].shape, (0, 0, 0, 0), value.numel() - 1)
            with pytest.raises(ValueError, match=r"\bout\b.*shares memory"):
                self.run(inputs, backend, out=self.unflat([*plain[:-1], over]))

    def test_out_over_itself_refused(self, device: str, backend: str) -> None:
        inputs = self.inputs((6, 8), device=device)
        plain = self.run(inputs, backend)
        expanded = plain[-1][..., :1].clone().expand(plain[-1].shape)
        narrow = plain[-1].new_zeros(plain[-1].numel()).as_strided(plain[-1].shape, (1, 1, 1, 1))
        for over in (expanded, narrow):
            with pytest.raises(ValueError, match=r"\bout\b.*shares memory"):
                self.run(inputs, backend, out=self.unflat([*plain[:-1], over]))

    def test_out_beside_an_input(self, device: str, backend: str) -> None:
        inputs = self.inputs((6, 8), device=device)
        plain = self.run(inputs, backend)
        name = next(name for name, value in tensors(inputs).items() if value.dim() == 4)
        for dim in (1, 3):
            sizes = inputs[name].shape[dim], plain[-1].shape[dim]
            shape = [max(pair) for pair in zip(inputs[name].shape, plain[-1].shape, strict=True)]
            buffer = plain[-1].new_zeros([*shape[:dim], sum(sizes), *shape[dim + 1 :]])
            parts = buffer.split(sizes, dim)
            value, out = (
                part[tuple(map(slice, like.shape))] for part, like in zip(parts, (inputs[name], plain[-1]), strict=True)
            )
            given = inputs | {name: value.copy_(inputs[name])}
            (*_, last) = self.run(given, backend, out=self.unflat([*(each.clone() for each in plain[:-1]), out]))
            assert_same_bits(last, plain[-1])

    def test_a_write_into_out_is_counted(self, device: str, backend: str) -> None:
        inputs = self.inputs((6, 8), device=device)
        flat = [torch.zeros_like(result) for result in self.run(inputs, backend)]
        before = [each._version for each in flat]
        self.run(inputs, backend, out=self.unflat(flat))
        assert all(each._version > version for each, version in zip(flat, before, strict=True))

    def test_out_compiled_in_one_graph(self, device: str, backend: str) -> None:
        inputs = self.inputs((6, 8), device=device)
        flat = [torch.zeros_like(result) for result in self.run(inputs, backend)]
        torch._dynamo.reset()
        compiled = torch.compile(getattr(abpn_fast.ops, self.name), fullgraph=True, backend="aot_eager")
        compiled(**inputs, backend=backend, out=self.unflat(flat))
        assert_same_bits(flat, self.run(inputs, backend))

    def test_out_records_no_gradients(self, device: str, backend: str) -> None:
        inputs = self.inputs((6, 8), device=device)
        out = self.unflat([torch.zeros_like(result) for result in self.run(inputs, backend)])
        name = self.differentiable(inputs)[-1]
        wanting = inputs | {name: inputs[name].clone().requires_grad_()}
        with pytest.raises(ValueError, match="out cannot record gradients"):
            self.run(wanting, backend, out=out)
        with torch.no_grad():
            assert_same_bits(self.run(wanting, backend, out=out), self.run(inputs, backend))

    def test_unknown_backend(self) -> None:
        with pytest.raises(ValueError, match=r"backend must be one of auto, .*reference.*got 'abacus'"):
            getattr(abpn_fast.ops, self.name)(**self.inputs((4, 4)), backend="abacus")

    def test_bad_argument(self, bad: tuple[str, Callable[[Inputs], Any]]) -> None:
        name, make = bad
        inputs = self.inputs((6, 8))
        with pytest.raises((TypeError, ValueError), match=rf"\b{name}\b.*(\bgot\b|\bgo together\b)"):
            self.run(inputs | {name: make(inputs)})

    def test_every_tensor_is_checked(self) -> None:
        inputs = self.inputs((6, 8))
        for name in tensors(inputs):
            for wrong in ("nonsense", inputs[name].int(), inputs[name][None], inputs[name].to_sparse()):
                with pytest.raises((TypeError, ValueError), match=r"must .*got"):
                    self.run(inputs | {name: wrong})

    def test_one_device(self) -> None:
        inputs = self.inputs((6, 8))
        for name in list(tensors(inputs))[1:]:
            with pytest.raises(ValueError, match=r"must be on .*got"):
                self.run(inputs | {name: inputs[name].to("meta")})

    @pytest.mark.parametrize("grad", [False, True], ids=["plain", "grad"])
    def test_opcheck(self, grad: bool, device: str, backend: str) -> None:
        inputs = self.inputs((5, 6), device=device)
        for name in self.differentiable(inputs) if grad else ():
            inputs[name].requires_grad_()
        torch.library.opcheck(getattr(torch.ops.abpn_fast, self.name).default, (*inputs.values(), backend))

    def test_opcheck_of_variants(self, device: str, backend: str) -> None:
        inputs = self.inputs((5, 6), device=device)
        results, wanted = self.run(inputs, backend), self.differentiable(inputs)
        namespace, tests = torch.ops.abpn_fast, ("test_schema", "test_faketensor")
        out = results[0] if self.unflat(results) is results[0] else results
        variant = getattr(namespace, f"{self.name}_out").default
        torch.library.opcheck(variant, (*inputs.values(), out, backend), test_utils=tests)
        variant = getattr(namespace, f"{self.name}_backward").default
        torch.library.opcheck(variant, (results, *inputs.values(), wanted, backend), test_utils=tests)

    def test_gradcheck(self, device: str, backend: str) -> None:
        inputs = self.inputs((3, 4), count=1, dtype=torch.float64, device=device)
        self.gradcheck(inputs, backend)

    def gradcheck(self, inputs: Inputs, backend: str) -> None:
        names = self.differentiable(inputs)
        values = [inputs[name].requires_grad_() for name in names]

        def function(*values: Tensor) -> tuple[Tensor, ...]:
            return tuple(self.run(inputs | dict(zip(names, values, strict=True)), backend))

        assert torch.autograd.gradcheck(function, values, fast_mode=True)

    def test_gradient_of_each_input_alone(self, device: str, backend: str) -> None:
        inputs = self.inputs((9, 8), device=device)
        weights = [torch.randn_like(result) for result in self.run(inputs, backend)]
        double = inputs | {name: value.double() for name, value in tensors(inputs).items()}
        for name in self.differentiable(inputs):
            result, reference = (
                _gradient(run, inputs, name, weights) for run in (lambda i: self.run(i, backend), self.reference)
            )
            exact = _gradient(self.reference, double, name, [weight.double() for weight in weights])
            assert_within_budget(result, reference, _array(exact), ulps=16)

    def test_gradient_from_any_layout(self, device: str, backend: str) -> None:
        inputs = self.inputs((6, 8), device=device)
        name = self.differentiable(inputs)[0]
        results = self.run(inputs, backend)
        one = [torch.full((1, 1, 1, 1), 0.5, device=device).expand(result.shape) for result in results]
        last = [each.contiguous(memory_format=torch.channels_last) for each in one]
        plain = [each.contiguous() for each in one]
        wanted = _gradient(lambda i: self.run(i, backend), inputs, name, plain, weigh=False)
        for weights in (one, last):
            gradient = _gradient(lambda i: self.run(i, backend), inputs, name, weights, weigh=False)
            _assert_same_gradients(gradient, wanted)

    def test_second_derivative_is_refused(self, device: str, backend: str) -> None:
        inputs = self.inputs((6, 8), device=device)
        value = inputs[self.differentiable(inputs)[0]].requires_grad_()

        def differentiate_twice() -> None:
            total = sum(result.square().sum() for result in self.run(inputs, backend))
            (gradient,) = torch.autograd.grad(total, value, create_graph=True)
            torch.autograd.grad(gradient.square().sum(), value)

        with pytest.raises(RuntimeError, match="second derivative"):
            differentiate_twice()

    def test_transforms_are_refused(self, device: str, backend: str) -> None:
        inputs = self.inputs((6, 8), device=device)
        name = self.differentiable(inputs)[0]
        value, tangent = inputs[name], torch.ones_like(inputs[name])

        def total(value: Tensor) -> Tensor:
            return sum(result.square().sum() for result in self.run(inputs | {name: value}, backend))

        words = f"{self.name} has no forward-mode derivative; abpn_fast.reference"
        with forward_ad.dual_level(), pytest.raises(RuntimeError, match=words):
            total(forward_ad.make_dual(value, tangent))
        for forward in (total, torch.func.grad(total)):
            with pytest.raises(RuntimeError, match=words):
                torch.func.jvp(forward, (value,), (tangent,))
        for gradient in (torch.func.grad(total), torch.func.grad(lambda x: torch.func.vmap(total)(x[None]).sum())):
            with pytest.raises(RuntimeError, match=f"{self.name} has no gradient under torch.func"):
                gradient(value)

    def test_compiled(self, device: str, backend: str) -> None:
        inputs = self.inputs((6, 8), device=device)
        name = self.differentiable(inputs)[0]
        torch._dynamo.reset()
        compiled = torch.compile(getattr(abpn_fast.ops, self.name), fullgraph=True, backend="aot_eager")

        def run(inputs: Inputs) -> list[Tensor]:
            return self.flat(compiled(**inputs, backend=backend))

        assert_same_bits(run(inputs), self.run(inputs, backend))
        weights = [torch.randn_like(result) for result in run(inputs)]
        _assert_same_gradients(
            _gradient(run, inputs, name, weights), _gradient(lambda i: self.run(i, backend), inputs, name, weights)
        )

    def test_shapes_beyond_32_bits(self) -> None:
        inputs = self.inputs((40_000, 50_001), count=1, device="meta")
        small = self.inputs((400, 501), count=1)
        for huge, like in zip(self.run(inputs), self.run(small), strict=True):
            assert huge.device.type == "meta" and huge.dtype == like.dtype and huge.shape[:2] == like.shape[:2]
            factor = (huge.shape[2] / like.shape[2], huge.shape[3] / like.shape[3])
            assert factor == pytest.approx((100, 100), rel=0.02)


class PixelContract(OperatorContract):
    """For an operator whose ``image`` may be of integers."""

    def integer_inputs(self, size: tuple[int, int], stored: torch.dtype, device: str, **options: Any) -> Inputs:
        inputs = self.inputs(size, device=device, **options)
        return inputs | {"image": picture(*inputs["image"].shape, dtype=stored, device=device)}

    @pytest.mark.parametrize("stored", INTEGERS, ids=str)
    @pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 16), (64, 65)], ids=str)
    def test_integer_image(self, size: tuple[int, int], stored: torch.dtype, device: str, backend: str) -> None:
        self.check(self.integer_inputs(size, stored, device), backend)

    @pytest.mark.parametrize("stored", INTEGERS, ids=str)
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_integer_layout(self, layout: str, stored: torch.dtype, device: str, backend: str) -> None:
        self.check_layout(self.integer_inputs((15, 18), stored, device), layout, backend)

    @pytest.mark.parametrize("stored", INTEGERS, ids=str)
    def test_integer_opcheck(self, stored: torch.dtype, device: str, backend: str) -> None:
        inputs = self.integer_inputs((5, 6), stored, device)
        torch.library.opcheck(getattr(torch.ops.abpn_fast, self.name).default, (*inputs.values(), backend))


def _gradient(
    run: Callable[[Inputs], list[Tensor]], inputs: Inputs, name: str, weights: list[Tensor], *, weigh: bool = True
) -> Tensor:
    value = inputs[name].detach().clone().requires_grad_()
    results = run(inputs | {name: value})
    if weigh:
        results, weights = [sum((r * w).sum() for r, w in zip(results, weights, strict=True))], [None]
    return torch.autograd.grad(results, value, weights)[0]


def _assert_same_gradients(found: Tensor, wanted: Tensor) -> None:
    """Bit for bit, but on a GPU: there PyTorch's gradient of an interpolation adds in any order."""
    if found.device.type == "cpu":
        assert_same_bits(found, wanted)
    else:
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
