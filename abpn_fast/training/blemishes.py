"""Procedural blemishes on clean photos: what a retoucher learns to remove when no retouched pairs are at hand.

A blemish mixes the pixels of the photo towards a tinted or painted copy of themselves under a soft mask:
``x <- x + alpha * (x * tint + paint - x)``. Only the shape of ``alpha`` and the two colours differ between kinds.
Everything is drawn from one generator, so the same seed gives the same picture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Generator = np.random.Generator


def blemish(photo: Array, rng: Generator, *, scale: float = 1.0, clean: float = 0.1) -> Array:
    """A damaged copy of ``photo``: one random region with blemishes of one to three kinds in it.

    Args:
        photo: (H, W, 3) in [0, 1], left as it is.
        rng: where every choice comes from.
        scale: size of one pixel of the thumbnail in pixels of the photo; blemishes are drawn 0.7 to 14 thumbnail
            pixels large, below which no thumbnail shows them.
        clean: probability of no blemish at all, to teach what not to touch.

    Returns:
        (H, W, 3) in [0, 1].
    """
    damaged = photo.copy()
    if rng.random() < clean:
        return damaged
    kinds = rng.choice(len(_KINDS), size=rng.integers(1, 4), replace=False, p=_WEIGHTS)
    place = _region(photo.shape[:2], rng)
    for kind in kinds:
        _KINDS[kind](damaged, rng, scale, place)
    return np.clip(damaged, 0, 1, out=damaged)


def _region(size: tuple[int, int], rng: Generator) -> Callable[[], tuple[float, float]]:
    """Where blemishes may sit: a Gaussian cloud anywhere in the picture, as a sampler of (y, x)."""
    height, width = size
    centre = rng.uniform(0.15, 0.85, 2) * (height, width)
    spread = rng.uniform(0.1, 0.45, 2) * (height, width)

    def place() -> tuple[float, float]:
        y, x = centre + spread * rng.normal(size=2)
        return float(np.clip(y, 0, height - 1)), float(np.clip(x, 0, width - 1))

    return place


def _mix(photo: Array, alpha: Array, top: int, left: int, tint: Array | np.float32, paint: Array | np.float32) -> None:
    """``x <- x + alpha * (x * tint + paint - x)`` in place where the patch ``alpha`` overlaps ``photo``."""
    height, width = photo.shape[:2]
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + alpha.shape[0], height), min(left + alpha.shape[1], width)
    if y0 >= y1 or x0 >= x1:
        return
    part = photo[y0:y1, x0:x1]
    weight = alpha[y0 - top : y1 - top, x0 - left : x1 - left, None]
    part += weight * (part * (tint - 1) + paint)


def _blob(
    radius: float, rng: Generator, *, edge: float, roughness: float = 0.15, centre: tuple[float, float] = (0, 0)
) -> tuple[Array, Array, Array, Array]:
    """An irregular soft disc and the coordinates it was made from: ``(alpha, distance, dy, dx)``, in radii.

    ``edge`` is the width of the soft rim in radii; ``centre`` the fraction of a pixel that the centre is off the grid.
    """
    half = int(np.ceil(radius * (1.6 + edge) + 1))
    dy, dx = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    dy, dx = (dy - np.float32(centre[0])) / radius, (dx - np.float32(centre[1])) / radius
    turn, stretch = rng.uniform(0, np.pi), np.exp(rng.normal(0, 0.25))
    along = (np.cos(turn) * dx + np.sin(turn) * dy) * stretch
    across = (np.cos(turn) * dy - np.sin(turn) * dx) / stretch
    distance = np.hypot(along, across).astype(np.float32)
    if radius > 1.5:
        angle = np.arctan2(across, along)
        for harmonic in (2, 3, 5, 8):
            wave = roughness * rng.normal() / harmonic
            distance = distance * (1 + wave * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi)))
    # A pixel is an average over its area: nothing is sharper than about one of them.
    softness = max(edge, 0.7 / radius)
    alpha = 1 / (1 + np.exp(np.clip((distance - 1) / (0.25 * softness), -30, 30)))
    return alpha.astype(np.float32), distance.astype(np.float32), dy, dx


def _stamp(
    photo: Array, rng: Generator, place: Callable[[], tuple[float, float]], radius: float, edge: float
) -> tuple[Array, Array, Array, Array, int, int]:
    y, x = place()
    top, left = int(y), int(x)
    alpha, distance, dy, dx = _blob(radius, rng, edge=edge, centre=(y - top, x - left))
    half = alpha.shape[0] // 2
    return alpha, distance, dy, dx, top - half, left - half


def _radius(rng: Generator, low: float, high: float, scale: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high)))) * scale


def _count(photo: Array, rng: Generator, density: float, scale: float) -> int:
    """How many: Poisson, proportional to the area in thumbnail pixels, seldom none."""
    area = photo.shape[0] * photo.shape[1] / scale**2
    return int(rng.poisson(density * area * rng.uniform(0.2, 2.5))) + 1


_Place = Callable[[], tuple[float, float]]


def _spots(photo: Array, rng: Generator, scale: float, place: _Place) -> None:
    """Skin spots: red, soft, of mixed sizes, some with a pale head."""
    for _ in range(_count(photo, rng, 5e-4, scale)):
        alpha, distance, _, _, top, left = _stamp(photo, rng, place, _radius(rng, 0.8, 6, scale), rng.uniform(0.3, 1.5))
        redness = rng.uniform(0.08, 0.45)
        tint = np.array([1 - 0.35 * redness, 1 - redness, 1 - 0.85 * redness], np.float32)
        _mix(photo, alpha, top, left, tint, np.float32(0))
        if rng.random() < 0.2:
            head = np.exp(-4 * distance**2).astype(np.float32) * np.float32(rng.uniform(0.1, 0.4))
            _mix(photo, head, top, left, np.float32(1), np.array([0.35, 0.3, 0.22], np.float32))


def _moles(photo: Array, rng: Generator, scale: float, place: _Place) -> None:
    """Moles, freckles and blackheads: brown to black, with a firmer rim."""
    for _ in range(_count(photo, rng, 3e-4, scale)):
        alpha, _, _, _, top, left = _stamp(photo, rng, place, _radius(rng, 0.7, 5, scale), rng.uniform(0.15, 0.8))
        depth = rng.uniform(0.15, 0.8)
        tint = 1 - depth * np.array([rng.uniform(0.5, 0.95), rng.uniform(0.7, 1), rng.uniform(0.8, 1)], np.float32)
        _mix(photo, alpha, top, left, tint.astype(np.float32), np.float32(0))


def _bumps(photo: Array, rng: Generator, scale: float, place: _Place) -> None:
    """Bumps and dents: lit on one side, shaded on the other, the light the same for all."""
    light = rng.uniform(0, 2 * np.pi)
    for _ in range(_count(photo, rng, 3e-4, scale)):
        _, distance, dy, dx, top, left = _stamp(photo, rng, place, _radius(rng, 1.2, 7, scale), 0.5)
        slope = (np.cos(light) * dx + np.sin(light) * dy) * np.exp(-1.5 * distance**2)
        shade = rng.uniform(0.15, 0.55) * rng.choice((-1, 1))
        _mix(photo, (slope * np.float32(shade)).astype(np.float32), top, left, np.float32(2), np.float32(0))


def _stains(photo: Array, rng: Generator, scale: float, place: _Place) -> None:
    """Stains: larger, pale, ragged, often darker at the rim."""
    for _ in range(rng.integers(1, 4)):
        alpha, distance, _, _, top, left = _stamp(photo, rng, place, _radius(rng, 4, 14, scale), rng.uniform(0.1, 0.6))
        rim = rng.uniform(0, 1.5) * np.exp(-(((distance - 0.9) / 0.12) ** 2))
        alpha = (alpha * (1 + rim) * rng.uniform(0.3, 1)).astype(np.float32)
        tint = 1 - rng.uniform(0.1, 0.45) * rng.uniform(0.3, 1, 3)
        _mix(photo, np.minimum(alpha, 1.3), top, left, tint.astype(np.float32), np.float32(0))


def _dust(photo: Array, rng: Generator, scale: float, place: _Place) -> None:
    """Dust and lint: small specks of one pale or dark colour."""
    colour = _paint(rng)
    for _ in range(_count(photo, rng, 8e-4, scale)):
        alpha, _, _, _, top, left = _stamp(photo, rng, place, _radius(rng, 0.7, 2.2, scale), rng.uniform(0.2, 0.8))
        alpha *= np.float32(rng.uniform(0.25, 0.9))
        _mix(photo, alpha, top, left, np.float32(0), colour)


def _paint(rng: Generator) -> Array:
    level = rng.uniform(0.75, 1) if rng.random() < 0.6 else rng.uniform(0, 0.2)
    return np.clip(level + rng.normal(0, 0.04, 3), 0, 1).astype(np.float32)


def _curve(
    photo: Array, rng: Generator, place: _Place, *, length: float, width: float, bend: float
) -> tuple[Array, Array, int, int]:
    """A bent stroke: ``(fade, offset, top, left)``, with the offset from its middle line in widths."""
    half = int(np.ceil(length / 2 + 3 * width + 1))
    half = min(half, max(photo.shape[:2]))
    y, x = place()
    top, left = int(y) - half, int(x) - half
    height, breadth = photo.shape[:2]
    rows = np.arange(max(-half, -int(y)), min(half, height - int(y)), dtype=np.float32)
    columns = np.arange(max(-half, -int(x)), min(half, breadth - int(x)), dtype=np.float32)
    top, left = int(y) + int(rows[0]), int(x) + int(columns[0])
    dy, dx = rows[:, None], columns[None, :]
    turn = rng.uniform(0, np.pi)
    along = (np.cos(turn) * dx + np.sin(turn) * dy) * np.float32(2 / length)
    across = np.cos(turn) * dy - np.sin(turn) * dx
    wave = bend * length * (along**2 - 0.3) + 0.15 * bend * length * np.sin(5 * along + rng.uniform(0, 6))
    fade = 1 / (1 + np.exp(np.clip((np.abs(along) - 0.85) * 20, -30, 30)))
    return fade.astype(np.float32), ((across - wave) / width).astype(np.float32), top, left


def _scratches(photo: Array, rng: Generator, scale: float, place: _Place) -> None:
    """Scratches and hairs: thin strokes, pale or dark."""
    for _ in range(rng.integers(1, 7)):
        width = _radius(rng, 0.35, 1.0, scale)
        length = _radius(rng, 8, 60, scale)
        fade, offset, top, left = _curve(photo, rng, place, length=length, width=width, bend=rng.normal(0, 0.12))
        alpha = fade * np.exp(-(offset**2)) * np.float32(rng.uniform(0.25, 0.9))
        _mix(photo, alpha, top, left, np.float32(0), _paint(rng))


def _creases(photo: Array, rng: Generator, scale: float, place: _Place) -> None:
    """Creases and wrinkles: smooth ridges, lit on one flank and shaded on the other."""
    for _ in range(rng.integers(1, 6)):
        width = _radius(rng, 0.9, 5, scale)
        length = width * rng.uniform(8, 30)
        fade, offset, top, left = _curve(photo, rng, place, length=length, width=width, bend=rng.normal(0, 0.08))
        ridge = rng.uniform(0.4, 1) * offset * np.exp(-(offset**2)) - rng.uniform(0, 0.5) * np.exp(-(offset**2))
        alpha = fade * ridge * np.float32(rng.uniform(0.2, 0.6))
        _mix(photo, alpha.astype(np.float32), top, left, np.float32(2), np.float32(0))


_KINDS = (_spots, _moles, _bumps, _stains, _dust, _scratches, _creases)
_WEIGHTS = (0.24, 0.2, 0.12, 0.1, 0.12, 0.12, 0.1)
