"""The gradients that backend ``cpu`` has kernels of its own for, on every instruction set."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from abpn_fast import backends, native, ops, reference
from abpn_fast.backends import cpu, fused_refining_gradients
from bench.peak import peak_bytes
from tests.accuracy import assert_same_bits, assert_within_budget
from tests.layouts import Guarded, arrange

pytestmark = pytest.mark.skipif(native.why_missing() is not None, reason=native.why_missing() or "")

Inputs = dict[str, Any]
# Blocks have 238 columns at most, strips 128 rows.
SIZES = [(1, 1), (1, 9), (7, 1), (15, 16), (17, 33), (128, 2), (129, 5), (131, 241), (3, 477), (257, 12)]
COEFFICIENTS = {"j": torch.tensor([0.1, 1.9, -2.1]), "k": torch.tensor([0.02, 1.1, -0.1])}


@pytest.mark.parametrize(
    "name", ["adaptive_blend", "reverse_adaptive_blend", "upsample_refine", "upsample_refine_blend"]
)
def test_they_are_chosen(name: str) -> None:
    assert backends.backward("cpu", name) is getattr(cpu, f"{name}_backward")


def inputs(size: tuple[int, int], count: int = 2, *, blended: bool = False) -> Inputs:
    """Every hidden channel is far on one side of the leaky ReLU's edge, where a rounding changes the gradient."""
    torch.manual_seed(0)
    height, width = size
    low = (count, 3, -(-height // 2), -(-width // 2))
    refining = {
        "blend_low": torch.randn(low) * 0.1,
        "image": torch.rand(count, 3, height, width),
        "image_low": torch.rand(low),
        "weight1": torch.randn(16, 6, 3, 3) * 0.05,
        "bias1": torch.tensor([1.5, -1.5]).repeat(8),
        "weight2": torch.randn(3, 16, 3, 3) * 0.1,
        "bias2": torch.randn(3) * 0.1,
    }
    return refining | (COEFFICIENTS if blended else {})


def blending(size: tuple[int, int], other: str, count: int = 2) -> Inputs:
    torch.manual_seed(0)
    image, picture = torch.rand(2, count, 3, *size)
    return {"image": image * 0.8 + 0.1, other: picture, **COEFFICIENTS}


def name_of(given: Inputs) -> str:
    if "blend_low" in given:
        return "upsample_refine_blend" if "j" in given else "upsample_refine"
    return "adaptive_blend" if "blend" in given else "reverse_adaptive_blend"


def gradients(given: Inputs, weights: Tensor, backend: str | None, only: list[str] | None = None) -> dict[str, Tensor]:
    names = only or [name for name, value in given.items() if isinstance(value, Tensor) and value.is_floating_point()]
    asked = {name: given[name].detach().requires_grad_() for name in names}
    module, extra = (reference, {}) if backend is None else (ops, {"backend": backend})
    result = getattr(module, name_of(given))(**{**given, **asked}, **extra)
    found = torch.autograd.grad(result, list(asked.values()), weights.to(result.dtype), materialize_grads=True)
    return dict(zip(names, found, strict=True))


def check(given: Inputs, *, ulps: float = 16) -> None:
    weights = torch.randn(given["image"].shape)
    double = {k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in given.items()}
    found, plain, exact = (
        gradients(*each) for each in ((given, weights, "cpu"), (given, weights, None), (double, weights, None))
    )
    for name, gradient in found.items():
        assert gradient.is_contiguous() and gradient.dtype == given[name].dtype
        assert_within_budget(gradient, plain[name], exact[name].numpy(), ulps=ulps)


def check_any_number_of_threads(given: Inputs) -> None:
    weights = torch.randn(given["image"].shape)
    torch.set_num_threads(1)
    wanted = list(gradients(given, weights, "cpu").values())
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        assert_same_bits(list(gradients(given, weights, "cpu").values()), wanted)


@pytest.mark.parametrize("blended", [False, True], ids=["refine", "blend"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_parity(size: tuple[int, int], blended: bool, instruction_set: str) -> None:
    check(inputs(size, blended=blended))


@pytest.mark.parametrize("blended", [False, True], ids=["refine", "blend"])
@pytest.mark.parametrize("layout", ["channels_last", "sliced", "expanded"])
def test_layouts(layout: str, blended: bool) -> None:
    given = inputs((17, 33), blended=blended)
    if layout != "sliced":
        return check(given | {name: arrange(value, layout) for name, value in given.items()})
    guards = {name: Guarded(value) for name, value in given.items()}
    check({name: guard.view for name, guard in guards.items()})
    assert all(guard.intact for guard in guards.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("blended", [False, True], ids=["refine", "blend"])
def test_half(dtype: torch.dtype, blended: bool) -> None:
    check({name: value.to(dtype) for name, value in inputs((33, 20), blended=blended).items()})


@pytest.mark.parametrize("stored", [torch.uint8, torch.uint16], ids=str)
def test_integer_image(stored: torch.dtype) -> None:
    given = inputs((33, 20))
    check(given | {"image": (given["image"] * torch.iinfo(stored).max).to(stored)})


@pytest.mark.parametrize("blended", [False, True], ids=["refine", "blend"])
def test_each_alone(blended: bool) -> None:
    given = inputs((21, 18), blended=blended)
    weights = torch.randn(given["image"].shape)
    for name, gradient in gradients(given, weights, "cpu").items():
        assert_same_bits(gradients(given, weights, "cpu", [name])[name], gradient)


@pytest.mark.usefixtures("any_threads")
@pytest.mark.parametrize("blended", [False, True], ids=["refine", "blend"])
def test_any_number_of_threads(blended: bool, instruction_set: str) -> None:
    given = inputs((300, 250), count=1, blended=blended)
    check_any_number_of_threads(given)


@pytest.mark.parametrize("name", ["_PIXELS", "_PIXELS_BLENDED"])
def test_strips(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_refining_gradients, name, 1)
    for size in ((41, 16), (40, 17)):
        # Those of j of several strips cancel each other; each has its own rounding.
        check(inputs(size, blended=name == "_PIXELS_BLENDED"), ulps=64)


@pytest.mark.parametrize("threshold", [0.0, 0.4, 1.1])
def test_mask(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_refining_gradients, "_PIXELS_BLENDED", 1)
    given = inputs((40, 36), blended=True)
    check(given | {"mask": torch.rand(2, 1, 10, 9), "mask_threshold": threshold})


@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=str)
def test_what_is_not_finite_spreads_no_further_than_its_filters(value: float, instruction_set: str) -> None:
    given = inputs((40, 300), count=1)
    weights = torch.randn(given["image"].shape)
    weights[:, :, 20, 237] = value
    found, wanted = (gradients(given, weights, backend) for backend in ("cpu", None))
    for name in found:
        torch.testing.assert_close(found[name].isfinite(), wanted[name].isfinite())


def test_nothing_is_left_of_what_ran_before() -> None:
    """Rings and sums of a unit are those of the unit before."""
    spoilt = inputs((140, 300), count=1)
    spoilt["image"][:] = torch.nan
    weights = torch.randn(spoilt["image"].shape)
    given = inputs((140, 300), count=1)
    wanted = gradients(given, weights, "cpu")
    both = {
        name: torch.cat([spoilt[name], given[name]]) if given[name].dim() == 4 and name[:6] != "weight" else given[name]
        for name in given
    }
    found = gradients(both, torch.cat([weights, weights]), "cpu", ["blend_low", "image", "image_low"])
    for name, gradient in found.items():
        assert_same_bits(gradient[1:], wanted[name])


@pytest.mark.parametrize("other", ["blend", "retouched"])
class TestBlending:
    # Rows are read 512 pixels at a time.
    @pytest.mark.parametrize("size", [(1, 1), (7, 1), (15, 16), (17, 33), (3, 512), (2, 1031)], ids=str)
    def test_parity(self, size: tuple[int, int], other: str, instruction_set: str) -> None:
        check(blending(size, other))

    @pytest.mark.parametrize(
        "options", [{"damping": 0.0}, {"damping": 0.3}, {"strength": 0.0}, {"strength": -1.5}], ids=str
    )
    def test_numbers(self, options: dict[str, float], other: str) -> None:
        if ("strength" in options) == (other == "blend"):
            check(blending((9, 21), other) | options)

    @pytest.mark.parametrize("layout", ["channels_last", "expanded"])
    def test_layouts(self, layout: str, other: str) -> None:
        check({name: arrange(value, layout) for name, value in blending((9, 21), other).items()})

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_half(self, dtype: torch.dtype, other: str) -> None:
        check({name: value.to(dtype) for name, value in blending((9, 21), other).items()})

    @pytest.mark.usefixtures("any_threads")
    def test_any_number_of_threads(self, other: str, instruction_set: str) -> None:
        given = blending((300, 250), other)
        check_any_number_of_threads(given)

    @pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=str)
    def test_what_is_not_finite_stays_in_its_pixel_and_the_sums(
        self, value: float, other: str, instruction_set: str
    ) -> None:
        given = blending((5, 37), other, count=1)
        given[other][0, 1, 2, 36] = value
        weights = torch.randn(given["image"].shape)
        found, wanted = (gradients(given, weights, backend) for backend in ("cpu", None))
        for name in found:
            torch.testing.assert_close(found[name].isfinite(), wanted[name].isfinite())
        # What is left in the buffers of a row does not reach the next call's sums.
        given[other][0, 1, 2, 36] = 0.5
        assert all(gradient.isfinite().all() for gradient in gradients(given, weights, "cpu").values())

    def test_empty(self, other: str) -> None:
        given = blending((6, 4), other, count=0)
        assert not any(gradient.any() for gradient in gradients(given, given["image"], "cpu").values())


@pytest.mark.parametrize("blended", [False, True], ids=["refine", "blend"])
def test_empty(blended: bool) -> None:
    given = inputs((6, 4), count=0, blended=blended)
    assert not any(gradient.any() for gradient in gradients(given, given["image"], "cpu").values())


def test_memory() -> None:
    """Some tensors of three channels, where the hidden layer alone has sixteen."""
    given = inputs((512, 512), count=1)
    weights = torch.randn(given["image"].shape)
    names = ["blend_low", "weight1", "bias1", "weight2", "bias2"]
    peak = peak_bytes(lambda: gradients(given, weights, "cpu", names), torch.device("cpu"))
    assert peak < 4 * weights.nbytes
