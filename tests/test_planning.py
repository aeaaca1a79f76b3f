"""The plan against what the allocator hands out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import abpn_fast
from abpn_fast import ABPN, ABPNConfig, native, use_backend
from bench.peak import peak_bytes

NATIVE = native.why_missing() is None
CPU = pytest.mark.skipif(not NATIVE, reason=native.why_missing() or "")


def measured(size: tuple[int, int], dtype: torch.dtype, backend: str, preset: str, batch: int, **options: Any) -> int:
    with torch.no_grad():
        model = ABPN(preset).eval().to(dtype if dtype.is_floating_point else torch.float32)
        image = torch.rand(batch, 3, *size)
        image = (image * (1 if dtype.is_floating_point else torch.iinfo(dtype).max)).to(dtype)
        with use_backend(backend):
            return peak_bytes(lambda: model(image, **options), torch.device("cpu"))


def test_small_integers_of_numpy_do_not_overflow() -> None:
    sizes = {"levels": 4, "batch": 2, "strip_rows": 128}
    small = {name: np.uint8(size) for name, size in sizes.items()}
    assert abpn_fast.plan(np.int16(8192), np.int16(4096), **small) == abpn_fast.plan(8192, 4096, **sizes)


@pytest.mark.parametrize(
    ("size", "dtype", "on", "preset", "batch", "options"),
    [
        pytest.param((1536, 1100), torch.float32, "cpu", "small", 1, {}, marks=CPU),
        pytest.param((1100, 1536), torch.uint8, "cpu", "small", 1, {}, marks=CPU),
        pytest.param((1100, 1536), torch.uint16, "cpu", "small", 1, {}, marks=CPU),
        pytest.param((2560, 512), torch.uint16, "cpu", "small", 1, {"levels": 3, "strip_rows": 256}, marks=CPU),
        pytest.param((2048, 2048), torch.float32, "cpu", "small", 1, {}, marks=CPU),
        pytest.param((2500, 2000), torch.uint8, "cpu", "small", 1, {}, marks=CPU),
        pytest.param((2500, 2000), torch.bfloat16, "cpu", "small", 1, {"levels": 2}, marks=CPU),
        pytest.param((900, 700), torch.bfloat16, "cpu", "small", 2, {}, marks=CPU),
        pytest.param((1024, 1024), torch.float32, "cpu", "small", 1, {"levels": 1}, marks=CPU),
        pytest.param((512, 640), torch.float32, "cpu", "base", 1, {"levels": 1}, marks=CPU),
        pytest.param((2560, 512), torch.float32, "cpu", "small", 1, {"levels": 2, "strip_rows": 128}, marks=CPU),
        pytest.param((2560, 512), torch.uint8, "cpu", "small", 1, {"levels": 3, "strip_rows": 256}, marks=CPU),
        pytest.param((8192, 1024), torch.uint8, "cpu", "small", 1, {"strip_rows": 512}, marks=CPU),
        pytest.param((1024, 960), torch.float32, "cpu", "small", 1, {"levels": 1, "self_ensemble": True}, marks=CPU),
        pytest.param((512, 520), torch.uint8, "cpu", "small", 2, {"levels": 0, "self_ensemble": True}, marks=CPU),
        ((768, 700), torch.float32, "reference", "small", 1, {}),
        ((640, 700), torch.uint8, "reference", "small", 1, {}),
        ((640, 700), torch.uint16, "reference", "small", 1, {}),
        ((256, 300), torch.float32, "reference", "base", 1, {"levels": 1}),
        ((500, 600), torch.float16, "reference", "small", 1, {}),
        ((500, 600), torch.float64, "auto", "small", 1, {}),
        ((900, 600), torch.float64, "auto", "small", 1, {"strip_rows": 128}),
        ((256, 300), torch.float64, "auto", "base", 1, {"levels": 1}),
        pytest.param((1000, 1200), torch.float32, "auto", "small", 1, {"levels": 0}, marks=CPU),
        pytest.param((1000, 1200), torch.uint8, "auto", "small", 1, {"levels": 0, "strip_rows": 64}, marks=CPU),
        ((300, 250), torch.float32, "reference", "small", 1, {"levels": 0}),
    ],
)
def test_predicts_the_peak(
    size: tuple[int, int], dtype: torch.dtype, on: str, preset: str, batch: int, options: dict[str, int]
) -> None:
    predicted = abpn_fast.plan(*size, dtype, on, config=preset, batch=batch, **options).peak
    found = measured(size, dtype, on, preset, batch, **options)
    assert 0.97 * found <= predicted <= 1.15 * found + (13 << 20), f"{predicted / 1e6:.1f} for {found / 1e6:.1f} MB"


def test_strips_do_not_grow_with_the_height() -> None:
    short, tall = (abpn_fast.plan(h, 4096, torch.uint8, "cpu", strip_rows=256, out=True) for h in (8192, 32768))
    assert tall.peak - short.peak < 0.02 * 3 * (32768 - 8192) * 4096


def test_parts() -> None:
    plan = abpn_fast.plan(4096, 4096, torch.float32, "cpu")
    image = 3 * 4 * 4096**2
    assert plan.result == image
    assert plan.pyramid + plan.blend_layers < image * 2 / 3
    assert plan.peak <= image * 5 / 3 + (32 << 20)
    assert plan == abpn_fast.plan(4096, 4096, backend="cpu", config="small", levels=4)
    mirrored = abpn_fast.plan(4096, 4096, backend="cpu", self_ensemble=True)
    assert mirrored.retouching_layer - plan.retouching_layer == 5 * 3 * 4 * 256**2


def test_a_given_out_lends_nothing() -> None:
    size = 3 * 4 * 4096**2
    plan = abpn_fast.plan(4096, 4096, torch.float32, "cpu", out=True)
    assert (plan.result, plan.pyramid) == (0, size // 4 + size // 16 + size // 64 + size // 256)
    assert abpn_fast.plan(4096, 4096, levels=0, out=True) == abpn_fast.plan(4096, 4096, levels=0)


def test_without_the_compiled_backend_the_reference_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "why_missing", lambda: "backend cpu is not compiled")
    assert (
        abpn_fast.plan(64, 64) == abpn_fast.plan(64, 64, backend="reference") != abpn_fast.plan(64, 64, backend="cpu")
    )


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 5), {}, "height must be an integer >= 1, got 0"),
        ((5, -1), {}, "width must be an integer >= 1, got -1"),
        ((5, 2.5), {}, "width"),
        ((5, True), {}, "width"),
        ((5, 5), {"batch": 0}, "batch must be an integer >= 1, got 0"),
        ((5, 5), {"batch": True}, "batch"),
        ((5, 5, torch.float32, "tritn"), {}, "backend must be .*'tritn' is no backend"),
        ((5, 5, torch.float32, "cuda"), {}, "backend must be .*'cuda' is one of another kind"),
        ((5, 5, torch.float64, "cpu"), {}, "backend"),
        ((5, 5, torch.int32), {}, "dtype"),
        ((5, 5, "uint8"), {}, "dtype"),
        ((5, 5), {"strip_rows": 0}, "strip_rows"),
        ((5, 5), {"strip_rows": 1.5}, "strip_rows"),
        ((5, 5), {"levels": -1}, "levels"),
        ((5, 5), {"levels": 2.5}, "levels"),
        ((5, 5), {"levels": 33}, "levels must be None or an integer from 0 to 32, got 33"),
        ((64, 64), {"levels": 2, "config": ABPNConfig(refining_levels=1)}, "levels must be at most 1"),
        ((5, 5), {"config": None}, "config"),
        ((5, 5), {"config": ABPNConfig(blend="conv")}, "plan does not cover"),
        ((5, 5), {"config": ABPNConfig(refining=False)}, "plan does not cover"),
        ((5, 5), {"config": ABPNConfig(attention="pcb")}, "plan does not cover"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        abpn_fast.plan(*arguments, **options)
