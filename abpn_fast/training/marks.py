"""How one mark gets into a photo: patches of opacity, irregular discs and bent strokes."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Generator = np.random.Generator
# Below half a step of 8 bits nothing would be stored; cut, so that a mark ends somewhere.
_INVISIBLE = 1 / 512


@dataclasses.dataclass
class Scene:
    """A photo that is being damaged, and what all its marks share.

    Args:
        photo: (H, W, 3) in [0, 1], changed in place.
        rng: where every choice comes from.
        scale: pixels of the photo per pixel of the thumbnail.
        light: the direction the light comes from, in radians from the x axis towards the y axis, which points down.
        centre, spread: of the Gaussian cloud in which marks sit, (y, x) in pixels.
    """

    photo: Array
    rng: Generator
    scale: float
    light: float
    centre: tuple[float, float]
    spread: tuple[float, float]

    def __post_init__(self) -> None:
        self.region = np.zeros(self.photo.shape[:2], bool)
        self.to_light = np.array([np.sin(self.light), np.cos(self.light)], np.float32)

    def place(self) -> tuple[float, float]:
        """(y, x) of the next mark, inside the photo."""
        height, width = self.photo.shape[:2]
        y, x = np.array(self.centre) + np.array(self.spread) * self.rng.normal(size=2)
        return float(np.clip(y, 0, height - 1)), float(np.clip(x, 0, width - 1))

    def radius(self, low: float, high: float) -> float:
        """Log-uniform between two sizes in thumbnail pixels; in pixels of the photo."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high)))) * self.scale

    def count(self, density: float) -> int:
        """How many marks: Poisson, proportional to the area in thumbnail pixels, at least one."""
        area = self.photo.shape[0] * self.photo.shape[1] / self.scale**2
        return int(self.rng.poisson(density * area * self.rng.uniform(0.2, 2.5))) + 1

    def mix(self, alpha: Array, top: int, left: int, tint: Array | float, paint: Array | float = 0.0) -> None:
        """``x <- x + alpha * (x * tint + paint - x)`` where the patch ``alpha`` overlaps the photo."""
        height, width = self.photo.shape[:2]
        y0, x0 = max(top, 0), max(left, 0)
        y1, x1 = min(top + alpha.shape[0], height), min(left + alpha.shape[1], width)
        if y0 >= y1 or x0 >= x1:
            return
        weight = alpha[y0 - top : y1 - top, x0 - left : x1 - left]
        seen = np.abs(weight) >= _INVISIBLE
        part = self.photo[y0:y1, x0:x1]
        part += (weight * seen).astype(np.float32)[..., None] * (
            part * (np.float32(tint) - np.float32(1)) + np.float32(paint)
        )
        self.region[y0:y1, x0:x1] |= seen

    def shade(self, slope: Array, top: int, left: int) -> None:
        """Lighten where ``slope``, that of a surface towards the light, is positive, darken where it is negative."""
        self.mix(slope, top, left, 2.0)


class Disc(NamedTuple):
    """A patch: opacity, distance from the centre and its (y, x) parts in radii, and where its corner lies."""

    alpha: Array
    distance: Array
    dy: Array
    dx: Array
    top: int
    left: int


def disc(scene: Scene, radius: float, edge: float, roughness: float = 0.15) -> Disc:
    """An irregular soft disc somewhere in the scene, cut at its edge; ``edge`` is the width of its rim in radii."""
    rng = scene.rng
    y, x = scene.place()
    half = int(np.ceil(radius * (1.6 + edge) + 1))
    height, width = scene.photo.shape[:2]
    top, left = max(int(y) - half, 0), max(int(x) - half, 0)
    bottom, right = min(int(y) + half + 1, height), min(int(x) + half + 1, width)
    dy, dx = np.mgrid[top - int(y) : bottom - int(y), left - int(x) : right - int(x)].astype(np.float32)
    dy, dx = (dy - np.float32(y - int(y))) / radius, (dx - np.float32(x - int(x))) / radius
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
    return Disc(alpha.astype(np.float32), distance.astype(np.float32), dy, dx, top, left)


class Stroke(NamedTuple):
    """A patch: where along itself a bent stroke is (-1 to 1), how far across in widths, and where its corner lies.

    ``facing`` is the cosine between the light and the direction in which ``offset`` grows.
    """

    along: Array
    offset: Array
    facing: float
    top: int
    left: int

    @property
    def fade(self) -> Array:
        """1 inside its length, soft ends."""
        return (1 / (1 + np.exp(np.clip((np.abs(self.along) - 0.85) * 20, -30, 30)))).astype(np.float32)


def stroke(
    scene: Scene,
    *,
    length: float,
    width: float,
    bend: float,
    turn: float | None = None,
    at: tuple[float, float] | None = None,
) -> Stroke:
    """A bent stroke; ``bend`` is its sag in lengths, ``turn`` its direction and ``at`` its middle unless drawn."""
    rng = scene.rng
    y, x = scene.place() if at is None else at
    turn = rng.uniform(0, np.pi) if turn is None else turn
    sine, cosine = float(np.sin(turn)), float(np.cos(turn))
    sway = 0.85 * abs(bend) * length + 3 * width + 1
    reach_y, reach_x = (
        int(np.ceil(along * length / 2 + across * sway))
        for along, across in ((abs(sine), abs(cosine)), (abs(cosine), abs(sine)))
    )
    height, breadth = scene.photo.shape[:2]
    top, left = max(int(y) - reach_y, 0), max(int(x) - reach_x, 0)
    dy = np.arange(top, min(int(y) + reach_y + 1, height), dtype=np.float32)[:, None] - np.float32(int(y))
    dx = np.arange(left, min(int(x) + reach_x + 1, breadth), dtype=np.float32)[None, :] - np.float32(int(x))
    along = (cosine * dx + sine * dy) * np.float32(2 / length)
    across = np.float32(cosine) * dy - np.float32(sine) * dx
    wave = bend * length * (along**2 - 0.3) + 0.15 * bend * length * np.sin(5 * along + rng.uniform(0, 6))
    offset = ((across - wave) / width).astype(np.float32)
    facing = float(scene.to_light @ np.array([cosine, -sine], np.float32))
    return Stroke(along.astype(np.float32), offset, facing, top, left)
