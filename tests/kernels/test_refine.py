"""Both plans of the refining kernels against the reference.

Triton's interpreter takes half a second for two rows of a program of plan fma, so images are as small as what they are
for allows, and blocks so narrow that these have several.
"""

from __future__ import annotations

import math
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from abpn_fast.backends import triton as backend
from tests.accuracy import assert_same_bits, assert_within_budget, chosen
from tests.conftest import DEVICES
from tests.layouts import LAYOUTS, Guarded, arrange, arrange_all, far_apart
from tests.ops import test_upsample_refine, test_upsample_refine_blend
from tests.ops.contract import INTEGERS, Inputs, OperatorContract, as_arrays, picture
from tests.ops.test_upsample_refine_blend import NO_MASK, THRESHOLD, mask_of

pytest.importorskip("triton")
DEVICE = DEVICES[-1]
if DEVICE == "cpu" and not backend.interpreted():
    pytest.skip("no GPU, and TRITON_INTERPRET is not 1", allow_module_level=True)

PLAIN, BLEND = test_upsample_refine.TestContract, test_upsample_refine_blend.TestContract
HALVES = [torch.bfloat16, torch.float16]


@pytest.fixture(params=["dot", "fma"])
def plan(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ABPN_FAST_REFINE_PLAN", request.param)
    return request.param


@pytest.fixture
def _dot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan that the interpreter is quicker with, for what both plans share."""
    monkeypatch.setenv("ABPN_FAST_REFINE_PLAN", "dot")


@pytest.fixture
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    from abpn_fast.kernels import refine

    if DEVICE == "cpu":
        monkeypatch.setattr(refine, "group_of", lambda plan, threads: 4)
        monkeypatch.setattr(refine, "_SHORTEST", 2)


def small(contract: OperatorContract, size: tuple[int, int], dtype: torch.dtype = torch.float32) -> Inputs:
    inputs = contract.inputs(size, count=1, dtype=dtype if dtype.is_floating_point else torch.float32, device=DEVICE)
    if not dtype.is_floating_point:
        inputs["image"] = picture(*inputs["image"].shape, dtype=dtype, device=DEVICE)
    return inputs | (NO_MASK if "mask" in inputs else {})


class TestParity:
    def test_one_pixel(self, plan: str) -> None:
        PLAIN().check(small(PLAIN(), (1, 1)), "triton")

    @pytest.mark.usefixtures("_dot")
    @pytest.mark.parametrize("size", [(7, 1), (2, 33), (17, 6)], ids=str)
    def test_float32(self, size: tuple[int, int]) -> None:
        BLEND().check(small(BLEND(), size), "triton")

    @pytest.mark.usefixtures("_dot")
    @pytest.mark.parametrize("stored", INTEGERS, ids=str)
    def test_integers(self, stored: torch.dtype) -> None:
        BLEND().check(small(BLEND(), (2, 5), stored), "triton")

    @pytest.mark.parametrize("dtype", HALVES, ids=str)
    def test_half(self, dtype: torch.dtype, plan: str) -> None:
        BLEND().check(small(BLEND(), (6, 7) if plan == "dot" else (3, 4), dtype), "triton")

    @pytest.mark.usefixtures("_dot")
    @pytest.mark.parametrize("count", [0, 2])
    def test_batch(self, count: int) -> None:
        PLAIN().check(PLAIN().inputs((3, 4), count=count, device=DEVICE), "triton")

    @pytest.mark.usefixtures("_dot")
    @pytest.mark.parametrize("layout", LAYOUTS[1:])
    def test_layout(self, layout: str) -> None:
        inputs = BLEND().inputs((2, 6), device=DEVICE)
        inputs["mask"] = torch.ones_like(inputs["mask"])
        BLEND().check_layout(inputs, layout, "triton")

    @pytest.mark.usefixtures("_dot")
    @pytest.mark.parametrize("name", ["blend_low", "image", "image_low", "out"])
    def test_mixed_layouts(self, name: str) -> None:
        inputs = small(BLEND(), (2, 6))
        given = inputs | {"out": torch.zeros_like(inputs["image"])}
        (plain,) = BLEND().run(inputs, "triton")
        assert_same_bits(BLEND().run(given | {name: arrange(given[name], "channels_last")}, "triton"), [plain])

    @pytest.mark.usefixtures("_dot")
    @pytest.mark.parametrize("layout", LAYOUTS[1:3])
    @pytest.mark.parametrize("stored", INTEGERS, ids=str)
    def test_integers_in_layout(self, stored: torch.dtype, layout: str) -> None:
        inputs, _ = arrange_all(small(BLEND(), (2, 6), stored), layout)
        BLEND().check(inputs, "triton")

    def test_blocks(self, plan: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        """However the image is cut into blocks and strips: the same bits, and nothing else is written."""
        inputs = small(BLEND(), (5, 18) if plan == "dot" else (3, 8))
        (whole,) = BLEND().run(inputs, "triton")
        assert_within_budget(whole, BLEND().reference(inputs)[0], BLEND().formula(as_arrays(inputs))[0])
        request.getfixturevalue("_narrow")
        guard = Guarded(torch.full_like(whole, math.nan))
        BLEND().run(inputs, "triton", out=guard.view)
        assert_same_bits(guard.view, whole)
        assert guard.intact

    def test_warps_of_64_threads(self, plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from abpn_fast.kernels import refine

        inputs = small(BLEND(), (3, 70))
        usual = BLEND().run(inputs, "triton")
        if DEVICE == "cpu":
            monkeypatch.setattr(refine, "warp", lambda like: 64)
        assert_same_bits(BLEND().run(inputs, "triton"), usual)

    def test_far_apart(self, plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """With addresses of 64 bits throughout: the same bits."""
        from abpn_fast.kernels import refine

        inputs = small(BLEND(), (5, 40) if plan == "dot" else (2, 5))
        near = BLEND().run(inputs, "triton")
        monkeypatch.setattr(refine, "_FAR", 0)
        assert_same_bits(BLEND().run(inputs, "triton"), near)


@pytest.mark.skipif(DEVICE != "cpu", reason="gigabytes that only a CPU need not have")
@pytest.mark.usefixtures("_dot")
@pytest.mark.parametrize("dim", range(4), ids=list("nchw"))
def test_offsets_beyond_32_bits(dim: int) -> None:
    inputs = BLEND().inputs((5, 5), count=1 if dim else 3, dtype=torch.float16)
    inputs["image"] = picture(*inputs["image"].shape, dtype=torch.uint8)
    inputs["mask"] = mask_of((5, 5), len(inputs["image"]), 2, dtype=torch.float16)
    near, far = (torch.zeros_like(inputs["image"]) for _ in range(2))
    names = [name for name in ("image", "blend_low", "image_low", "mask") if inputs[name].shape[dim] > 1]
    BLEND().run(inputs, "triton", out=near)
    far = far_apart(far, dim)
    BLEND().run(inputs | {name: far_apart(inputs[name], dim) for name in names}, "triton", out=far)
    assert_same_bits(far.contiguous(), near)


@pytest.mark.parametrize("name", ["blend_low", "image", "image_low", "out"])
def test_one_picture_that_reaches_far_is_enough_for_long_addresses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from abpn_fast.kernels import refine

    launched: list[int] = []
    monkeypatch.setattr(refine, "start", lambda *_, WIDE, **__: launched.append(WIDE))
    sizes = {"blend_low": 2, "image": 4, "image_low": 2, "out": 4}
    pictures = {each: torch.empty(1, 3, size, size, device="meta") for each, size in sizes.items()}
    weights = tuple(torch.empty(shape) for shape in ((16, 6, 3, 3), (16,), (3, 16, 3, 3), (3,)))
    for step in (1, 2**30):
        size = sizes[name]
        pictures[name] = torch.empty(1, 3, size, size * step, device="meta")[..., ::step]
        refine.launch(pictures["blend_low"], pictures["image"], pictures["image_low"], weights, pictures["out"])
    assert launched == [0, 1]


def test_reach() -> None:
    """Of small planes that lie far apart, too: twice the step between channels would not fit 32 bits."""
    from abpn_fast.kernels import refine

    assert refine.reach(torch.empty(1, 3, 2**15, 2**15, device="meta")) == refine._FAR
    assert refine.reach(torch.empty(1, 3, 9, 7, device="meta").to(memory_format=torch.channels_last)) == 8 * 21 + 6 * 3
    apart = torch.empty(1, 3 * 2**15, 2**15, 8, device="meta")[:, :: 2**15, :2, :2]
    assert apart.stride(1) == 2**33 and refine.reach(apart) == 2**33


@pytest.mark.parametrize(
    ("plan", "name", "value"),
    [("fma", "image", math.nan), *product(["dot"], ["blend_low", "image", "image_low"], [math.nan, math.inf])],
    indirect=["plan"],
)
def test_not_finite_spreads_no_further(plan: str, name: str, value: float) -> None:
    inputs = small(PLAIN(), (10, 12) if plan == "dot" else (4, 8))
    inputs[name] = inputs[name].clone()
    height, width = inputs[name].shape[2:]
    inputs[name][0, 1, height // 2, width // 2] = value
    (result,), (wanted,) = PLAIN().run(inputs, "triton"), PLAIN().reference(inputs)
    assert torch.equal(result.isfinite(), wanted.isfinite())
    assert wanted.isfinite().any() and not wanted.isfinite().all()


@pytest.mark.usefixtures("_dot")
class TestMask:
    def check(self, inputs: Inputs, narrow: pytest.FixtureRequest | None = None) -> Tensor:
        """Masked pixels have the image's bits, the others those of the result without a mask."""
        (free,) = BLEND().run(inputs | NO_MASK, "triton")
        if narrow:
            narrow.getfixturevalue("_narrow")
        (result,) = BLEND().run(inputs, "triton")
        scale = round(inputs["image"].shape[2] / inputs["mask"].shape[2])
        up = torch.nn.functional.interpolate(inputs["mask"], scale_factor=scale, mode="bilinear")
        below = up[..., : free.shape[2], : free.shape[3]] < inputs["mask_threshold"]
        assert_same_bits(result, chosen(below, inputs["image"], free))
        return below

    @pytest.mark.parametrize(("scale", "dtype"), [(1, torch.uint8), (2, torch.float32), (8, torch.uint16)], ids=str)
    def test_bits(self, scale: int, dtype: torch.dtype) -> None:
        inputs = small(BLEND(), (8, 28), dtype)
        inputs |= {"mask_threshold": THRESHOLD, "mask": mask_of((8, 28), 1, scale, device=DEVICE)}
        below = self.check(inputs)
        assert below.any() and not below.all()

    @pytest.mark.parametrize("cell", [0.0, THRESHOLD, 1.0, math.nan])
    def test_one_cell(self, cell: float, request: pytest.FixtureRequest) -> None:
        """Whole blocks are below the threshold, and what one cell makes of its surroundings."""
        inputs = small(BLEND(), (4, 12))
        inputs |= {"mask_threshold": THRESHOLD, "mask": torch.zeros(1, 1, 2, 6, device=DEVICE)}
        inputs["mask"][0, 0, 1, 4] = cell
        assert self.check(inputs, request).any()

    def test_cells_below_the_threshold_whose_mean_rounds_up_to_it(self) -> None:
        """Whether a strip is looked at pixel by pixel or passed over as a whole: the same pixels are kept."""
        threshold = torch.tensor(0.87)
        mask = torch.full((1, 1, 1, 4), torch.nextafter(threshold, torch.tensor(0.0)).item(), device=DEVICE)
        inputs = small(BLEND(), (8, 28)) | {"mask": mask, "mask_threshold": threshold.item()}
        (whole,) = BLEND().run(inputs, "triton")
        mask[..., 3] = 1
        (partly,) = BLEND().run(inputs, "triton")
        assert_same_bits(whole[..., :20], partly[..., :20])
        assert not torch.equal(whole, inputs["image"])

    def test_nan_in_a_mask_of_the_same_size_stays_where_it_is(self) -> None:
        inputs = small(BLEND(), (2, 6)) | {"mask_threshold": THRESHOLD, "mask": torch.zeros(1, 1, 2, 6, device=DEVICE)}
        inputs["mask"][0, 0, 0, 3] = math.nan
        assert (~self.check(inputs)).sum() == 1


def test_choice_of_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    from abpn_fast.kernels.refine import plan_for

    def plans() -> list[str]:
        dtypes = (torch.float32, *HALVES)
        return [plan_for(SimpleNamespace(dtype=dtype, is_cuda=True, device="cuda")) for dtype in dtypes]

    monkeypatch.delenv("ABPN_FAST_REFINE_PLAN", raising=False)
    assert [plan_for(torch.zeros(1, dtype=dtype)) for dtype in HALVES] == ["dot", "dot"]
    for capability, half in (((7, 5), "fma"), ((8, 0), "dot"), ((8, 9), "dot"), ((12, 0), "dot")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, capability=capability: capability)
        assert plans() == ["fma", half, half]
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert plans() == ["fma", "fma", "fma"]
    monkeypatch.setenv("ABPN_FAST_REFINE_PLAN", "dot")
    assert plans() == ["dot", "dot", "dot"]
    monkeypatch.setenv("ABPN_FAST_REFINE_PLAN", "abacus")
    with pytest.raises(ValueError, match="ABPN_FAST_REFINE_PLAN must be one of fma, dot, got 'abacus'"):
        plans()


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_pairs_of_weights_are_aligned_and_copied_only_then(offset: int) -> None:
    from abpn_fast.kernels.refine import in_pairs

    weight = torch.rand(866)[offset : offset + 864].view(16, 6, 3, 3)
    found = in_pairs(weight)
    assert found.dtype == torch.int64 and found.data_ptr() % 8 == 0
    assert torch.equal(found.view(torch.float32), weight.flatten())
    assert (found.data_ptr() == weight.data_ptr()) == (offset % 2 == 0)
