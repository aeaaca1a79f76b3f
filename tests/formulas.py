"""The equations once more, in float64 numpy and without a line shared with the package: what the tests hold it to."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def unit(image: np.ndarray) -> Array:
    """Pixels with white at 1."""
    return image.astype(np.float64) / (np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1)


def store(image: Array, dtype: type[np.unsignedinteger] = np.uint8) -> NDArray[np.unsignedinteger]:
    """Integers: NaN is 0, the rest clamped, rounded half to even."""
    return np.rint(np.iinfo(dtype).max * np.clip(np.where(np.isnan(image), 0, image), 0, 1)).astype(dtype)


def _gather(x: Array, axis: int, taps: list[tuple[NDArray[np.int64], Array | float]]) -> Array:
    """The weighted sum of samples of ``x`` along ``axis``, indices past an edge replaced by the edge."""
    shape = [1] * x.ndim
    shape[axis] = -1
    last = x.shape[axis] - 1
    parts = [
        np.take(x, np.clip(index, 0, last), axis) * np.broadcast_to(weight, index.shape).reshape(shape)
        for index, weight in taps
    ]
    return np.sum(parts, axis=0)


def _both_axes(x: Array, along: Callable[[Array, int], Array]) -> Array:
    return along(along(x, 2), 3)


def down(image: Array, filter: str = "binomial") -> Array:
    """Output i is centred between the inputs 2i and 2i + 1."""
    weights = {"binomial": {-1: 1 / 8, 0: 3 / 8, 1: 3 / 8, 2: 1 / 8}, "box": {0: 1 / 2, 1: 1 / 2}}[filter]

    def along(x: Array, axis: int) -> Array:
        first = 2 * np.arange((x.shape[axis] + 1) // 2)
        return _gather(x, axis, [(first + offset, weight) for offset, weight in weights.items()])

    return _both_axes(image, along)


def _interpolate(x: Array, axis: int, position: Array) -> Array:
    below = np.floor(position).astype(np.int64)
    fraction = position - below
    return _gather(x, axis, [(below, 1 - fraction), (below + 1, fraction)])


def up(low: Array, size: tuple[int, int], scale: int = 2) -> Array:
    """Bilinear by exactly ``scale`` with half-pixel centres, cropped to ``size``."""

    def along(x: Array, axis: int) -> Array:
        return _interpolate(x, axis, (np.arange(size[axis - 2]) + 0.5) / scale - 0.5)

    return _both_axes(low, along)


def resize(x: Array, size: tuple[int, int]) -> Array:
    """Bilinear to any size: the ratio of the sizes is the scale, half-pixel centres."""

    def along(x: Array, axis: int) -> Array:
        ratio = x.shape[axis] / size[axis - 2]
        return _interpolate(x, axis, (np.arange(size[axis - 2]) + 0.5) * ratio - 0.5)

    return _both_axes(x, along)


def laplacian(image: Array, levels: int, filter: str = "binomial") -> tuple[list[Array], list[Array]]:
    gaussian = [image]
    for _ in range(levels):
        gaussian.append(down(gaussian[-1], filter))
    high = [fine - up(coarse, fine.shape[2:]) for fine, coarse in itertools.pairwise(gaussian)]
    return gaussian, high


def abm(image: Array, blend: Array, j: Array, k: Array, strength: float = 1.0) -> Array:
    return np.sum([(j[i] * strength * blend + k[i]) * image**i for i in range(3)], axis=0)


def rabm(image: Array, retouched: Array, j: Array, k: Array, damping: float = 1e-4) -> Array:
    d = j[0] + j[1] * image + j[2] * image**2
    difference = retouched - (k[0] + k[1] * image + k[2] * image**2)
    if damping:
        return difference * d / (d**2 + damping)
    return np.divide(difference, d, out=np.zeros_like(difference), where=d != 0)


def conv3x3(x: Array, weight: Array, bias: Array) -> Array:
    """Zero-padded correlation, one tap at a time."""
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    result = np.zeros((x.shape[0], weight.shape[0], height, width)) + bias[:, None, None]
    for dy in range(3):
        for dx in range(3):
            result += np.einsum("oc,nchw->nohw", weight[:, :, dy, dx], padded[:, :, dy : dy + height, dx : dx + width])
    return result


def leaky_relu(x: Array, slope: float) -> Array:
    return np.where(x > 0, x, slope * x)


def refine(
    blend_low: Array, image: Array, image_low: Array, weight1: Array, bias1: Array, weight2: Array, bias2: Array
) -> Array:
    size = image.shape[2:]
    blend_up = up(blend_low, size)
    x = np.concatenate([blend_up, image - up(image_low, size)], axis=1)
    return conv3x3(leaky_relu(conv3x3(x, weight1, bias1), 0.2), weight2, bias2) + blend_up


def keep_below(image: np.ndarray, result: np.ndarray, mask: Array, scale: int, threshold: float) -> np.ndarray:
    return np.where(up(mask, image.shape[2:], scale) < threshold, image, result)


def gated_conv(
    features: Array,
    skip: Array,
    mask: Array | None,
    weight: Array,
    bias: Array,
    skip_weight: Array | None = None,
    skip_bias: Array | None = None,
    slope: float = 0.2,
) -> Array:
    height, width = skip.shape[2:]
    rows, columns = np.arange(height) // 2, np.arange(width) // 2
    parts = [features[:, :, rows][:, :, :, columns], skip]
    if mask is not None:
        parts.append(resize(mask, (height, width)))
    both = conv3x3(np.concatenate(parts, axis=1), weight, bias)
    half = len(bias) // 2
    feature, gate = leaky_relu(both[:, :half], slope), 1 / (1 + np.exp(-both[:, half:]))
    if skip_weight is None or skip_bias is None:
        return feature * gate
    return feature * gate + leaky_relu(conv3x3(skip, skip_weight, skip_bias), slope) * (1 - gate)
