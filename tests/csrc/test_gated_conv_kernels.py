"""The very source of the CUDA kernels, run on a CPU."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, leaky_relu

from abpn_fast import reference
from abpn_fast.ops.operator import Like
from tests import formulas
from tests.accuracy import assert_same_bits, assert_within_budget
from tests.csrc import emulator
from tests.layouts import Guarded
from tests.ops.contract import Inputs, as_arrays, draw, halved, picture

pytestmark = pytest.mark.skipif(emulator.why_not() is not None, reason=emulator.why_not() or "")

HALF = ("wide", "middle", "narrow")


def inputs(
    size: tuple[int, int],
    channels: tuple[int, int, int],
    *,
    count: int = 1,
    dtype: torch.dtype = torch.float16,
    mask: tuple[int, int] | None = (5, 4),
    kept: bool = True,
    last: bool = True,
) -> Inputs:
    """A module with (features, skip, out) channels; ``last``: in channels_last."""
    features, skip, out = channels
    joined = features + skip + (mask is not None)
    scale = 1 / math.sqrt(9 * joined)
    made = {
        "features": draw(count, features, *halved(size), scale=1, dtype=dtype),
        "skip": draw(count, skip, *size, scale=1, dtype=dtype),
        "mask": None if mask is None else picture(count, 1, *mask, dtype=dtype),
        "weight": draw(2 * out, joined, 3, 3, scale=scale, dtype=dtype),
        "bias": draw(2 * out, dtype=dtype),
        "skip_weight": draw(out, skip, 3, 3, scale=scale, dtype=dtype) if kept else None,
        "skip_bias": draw(out, dtype=dtype) if kept else None,
        "negative_slope": 0.2,
    }
    for name in ("features", "skip") if last else ():
        made[name] = made[name].contiguous(memory_format=torch.channels_last)
    return made


def run(given: Inputs, kernel: str, *, phased: bool = False, multiprocessors: int = 1, seed: int = 0) -> Tensor:
    skip = given["skip"]
    out = (
        Like(skip, (skip.shape[0], given["weight"].shape[0] // 2, *skip.shape[2:]), skip.dtype).empty().fill_(math.nan)
    )
    guard = Guarded(out)
    options = {"kernel": kernel, "phased": phased, "multiprocessors": multiprocessors, "seed": seed}
    emulator.gated_conv(**given, out=out, **options)
    emulator.gated_conv(**given, out=guard.view, **options)
    assert guard.intact
    assert_same_bits(guard.view, out)
    return out


def check(given: Inputs, kernel: str, **options: int) -> None:
    with np.errstate(over="ignore"):
        exact = formulas.gated_conv(*as_arrays(given).values())
    assert_within_budget(run(given, kernel, **options), reference.gated_conv(**given), exact)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kernel", HALF)
@pytest.mark.parametrize("phased", [False, True], ids=["whole", "phased"])
def test_half(kernel: str, dtype: torch.dtype, phased: bool) -> None:
    # More pixels and channels than a tile has, and not a whole number of tiles of either.
    channels = {"wide": (16, 8, 72), "middle": (24, 16, 40), "narrow": (8, 3, 3)}[kernel]
    check(inputs((12, 22 if phased else 23), channels, dtype=dtype), kernel, phased=phased)


@pytest.mark.parametrize("kernel", HALF)
@pytest.mark.parametrize("channels", [(64, 96, 6), (16, 48, 6), (24, 8, 6), (40, 3, 6), (7, 64, 6)], ids=str)
def test_runs_of_channels(kernel: str, channels: tuple[int, int, int]) -> None:
    # Blocks of 32, 16 and 8 channels, several of each, and numbers that are read by element.
    for phased in (False, True):
        check(inputs((6, 8), channels, count=2), kernel, phased=phased)


@pytest.mark.parametrize("phased", [False, True], ids=["whole", "phased"])
def test_float(phased: bool) -> None:
    check(inputs((10, 14 if phased else 13), (9, 8, 35), dtype=torch.float32), "full", phased=phased)


@pytest.mark.parametrize("kernel", ["middle", "full"])
@pytest.mark.parametrize("multiprocessors", [1, 2, 3, 100])
@pytest.mark.parametrize("kept", [True, False], ids=["lam", "gated"])
def test_split(kernel: str, multiprocessors: int, kept: bool) -> None:
    dtype = torch.float32 if kernel == "full" else torch.float16
    given = inputs((4, 4), (40, 72, 20), dtype=dtype, kept=kept)
    check(given, kernel, multiprocessors=multiprocessors)


@pytest.mark.parametrize(("kernel", "channels"), [("wide", (64, 8, 66)), ("narrow", (64, 16, 3))])
def test_split_of_every_tile(kernel: str, channels: tuple[int, int, int]) -> None:
    check(inputs((4, 6), channels, count=2), kernel, multiprocessors=8, phased=True)


@pytest.mark.parametrize("kernel", ["middle", "full"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 1), (3, 5), (2, 2)], ids=str)
def test_small_sizes(kernel: str, size: tuple[int, int]) -> None:
    dtype = torch.float32 if kernel == "full" else torch.float16
    for mask in (None, (1, 1), (7, 3)):
        given = inputs(size, (5, 8, 4), count=3, dtype=dtype, mask=mask)
        check(given, kernel, multiprocessors=4, phased=size == (2, 2))


@pytest.mark.parametrize("kernel", ["narrow", "full"])
def test_any_layout(kernel: str) -> None:
    dtype = torch.float32 if kernel == "full" else torch.bfloat16
    given = inputs((6, 7), (16, 8, 5), count=2, dtype=dtype)
    wanted = run(given, kernel, multiprocessors=2)
    plain = given | {name: given[name].contiguous() for name in ("features", "skip")}
    sliced = given | {name: Guarded(given[name]).view for name in ("features", "skip", "mask")}
    # Channels last, but not on 16 bytes.
    shifted = dict(given)
    for name in ("features", "skip"):
        wide = torch.cat([torch.full_like(given[name][:, :1], math.nan), given[name]], 1)
        shifted[name] = wide.contiguous(memory_format=torch.channels_last)[:, 1:]
    for other in (plain, sliced, shifted):
        assert_same_bits(run(other, kernel, multiprocessors=2), wanted)


@pytest.mark.parametrize("kernel", ["middle", "full"])
def test_the_order_of_threads_does_not_matter(kernel: str) -> None:
    dtype = torch.float32 if kernel == "full" else torch.float16
    given = inputs((6, 6), (48, 40, 20), dtype=dtype)
    first = run(given, kernel, multiprocessors=6)
    for seed in range(1, 6):
        assert_same_bits(run(given, kernel, multiprocessors=6, seed=1000 * seed), first)


def convolve(features: Tensor | None, skip: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """``leaky_relu(conv3x3(Cat(up(f), F_skip)))``."""
    joined = skip if features is None else torch.cat([interpolate(features, scale_factor=2, mode="nearest"), skip], 1)
    return leaky_relu(conv2d(joined, weight, bias, stride, padding=1), 0.2)


def check_alone(
    kernel: str,
    channels: tuple[int, int, int],
    size: tuple[int, int],
    *,
    stride: int = 1,
    dtype: torch.dtype = torch.float16,
    **options: int,
) -> None:
    """A convolution of (features, skip, out) channels, on a skip of ``size``."""
    given = inputs(size, (max(channels[0], 1), *channels[1:]), count=2, dtype=dtype, mask=None, kept=False)
    features = given["features"] if channels[0] else None
    weight, bias = given["weight"][: channels[2], : channels[0] + channels[1]], given["bias"][: channels[2]]
    arguments = features, given["skip"], weight, bias
    like = convolve(*(None if x is None else x.float() for x in arguments), stride).to(dtype)
    out = Like(like, like.shape, dtype).empty().fill_(math.nan)
    guard = Guarded(out)
    options = {"phased": False, "multiprocessors": 1} | options
    emulator.gated_conv(
        features, given["skip"], None, weight, bias, None, None, 0.2, guard.view,
        kernel=kernel, gated=False, stride=stride, **options,
    )  # fmt: skip
    assert guard.intact
    exact = convolve(*(None if x is None else x.double() for x in arguments), stride)
    assert_within_budget(guard.view, like, exact.numpy())


@pytest.mark.parametrize("kernel", [*HALF, "full"])
@pytest.mark.parametrize("phased", [False, True], ids=["whole", "phased"])
def test_a_convolution_alone(kernel: str, phased: bool) -> None:
    # More channels than a tile has, of which one takes three times as many as of a gated convolution.
    channels = {"wide": (16, 8, 204), "middle": (24, 32, 101), "narrow": (8, 3, 25), "full": (9, 8, 100)}[kernel]
    dtype = torch.float32 if kernel == "full" else torch.bfloat16
    check_alone(kernel, channels, (6, 14 if phased else 12), phased=phased, dtype=dtype)


@pytest.mark.parametrize("kernel", [*HALF, "full"])
@pytest.mark.parametrize("size", [(1, 1), (7, 6), (8, 10), (2, 13)], ids=str)
def test_a_convolution_of_stride_2(kernel: str, size: tuple[int, int]) -> None:
    dtype = torch.float32 if kernel == "full" else torch.float16
    for skip, splits in ((3, 1), (40, 1), (40, 3)):
        check_alone(kernel, (0, skip, 20), size, stride=2, dtype=dtype, multiprocessors=splits)


@pytest.mark.parametrize("kernel", [*HALF, "full"])
def test_a_convolution_alone_is_split(kernel: str) -> None:
    dtype = torch.float32 if kernel == "full" else torch.float16
    for multiprocessors in (2, 5, 40):
        check_alone(kernel, (64, 40, 30), (4, 6), dtype=dtype, multiprocessors=multiprocessors)
