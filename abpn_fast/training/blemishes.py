"""Procedural blemishes on clean photos: what a retoucher learns to remove when no retouched pairs are at hand.

A blemish mixes the pixels of the photo towards a tinted or painted copy of themselves under a soft mask:
``x <- x + alpha * (x * tint + paint - x)``. Only the shape of ``alpha`` and the two colours differ between kinds; what
has a relief, bumps, creases and wrinkles, is lit from one direction in the whole picture. Sizes are in pixels of the
thumbnail. Everything is drawn from one generator, so the same seed gives the same picture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from abpn_fast.training.marks import Array, Generator, Scene, Stroke, disc, stroke


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
    if rng.random() < clean:
        return photo.copy()
    names = rng.choice(list(KINDS), size=rng.integers(1, 4), replace=False, p=_SHARES)
    return draw(photo, rng, [str(name) for name in names], scale=scale)[0]


def draw(photo: Array, rng: Generator, kinds: list[str], *, scale: float = 1.0) -> tuple[Array, NDArray[np.bool_]]:
    """Blemishes of the named kinds in one random region.

    Args:
        photo, rng, scale: as for :func:`blemish`.
        kinds: from :data:`KINDS`.

    Returns:
        The damaged photo, (H, W, 3) in [0, 1], and where it was drawn on, (H, W); elsewhere it is ``photo`` to the bit.
    """
    height, width = photo.shape[:2]
    centre = rng.uniform(0.15, 0.85, 2) * (height, width)
    spread = rng.uniform(0.1, 0.45, 2) * (height, width)
    light = float(rng.uniform(0, 2 * np.pi))
    scene = Scene(photo.copy(), rng, scale, light, (centre[0], centre[1]), (spread[0], spread[1]))
    for kind in kinds:
        KINDS[kind](scene)
    return np.clip(scene.photo, 0, 1, out=scene.photo), scene.region


def _spots(scene: Scene) -> None:
    """Skin spots: red, soft, of mixed sizes, some with a pale head."""
    rng = scene.rng
    for _ in range(scene.count(5e-4)):
        mark = disc(scene, scene.radius(0.8, 6), rng.uniform(0.3, 1.5))
        redness = rng.uniform(0.08, 0.45)
        scene.mix(mark.alpha, mark.top, mark.left, _colour(1 - 0.35 * redness, 1 - redness, 1 - 0.85 * redness))
        if rng.random() < 0.2:
            head = np.exp(-4 * mark.distance**2) * np.float32(rng.uniform(0.1, 0.4))
            scene.mix(head, mark.top, mark.left, 1.0, _colour(0.35, 0.3, 0.22))


def _moles(scene: Scene) -> None:
    """Moles, freckles and blackheads: brown to black, with a firmer rim."""
    rng = scene.rng
    for _ in range(scene.count(3e-4)):
        mark = disc(scene, scene.radius(0.7, 5), rng.uniform(0.15, 0.8))
        depth = rng.uniform(0.15, 0.8)
        tint = 1 - depth * np.array([rng.uniform(0.5, 0.95), rng.uniform(0.7, 1), rng.uniform(0.8, 1)])
        scene.mix(mark.alpha, mark.top, mark.left, _colour(*tint))


def _bumps(scene: Scene) -> None:
    """Bumps and dents: the side towards the light is lit or shaded."""
    rng = scene.rng
    for _ in range(scene.count(3e-4)):
        mark = disc(scene, scene.radius(1.2, 7), 0.5)
        towards = scene.to_light[0] * mark.dy + scene.to_light[1] * mark.dx
        shade = rng.uniform(0.15, 0.55) * rng.choice((-1, 1))
        scene.shade(towards * np.exp(-1.5 * mark.distance**2) * np.float32(shade), mark.top, mark.left)


def _stains(scene: Scene) -> None:
    """Stains: larger, pale, ragged, often darker at the rim."""
    rng = scene.rng
    for _ in range(rng.integers(1, 4)):
        mark = disc(scene, scene.radius(4, 14), rng.uniform(0.1, 0.6))
        rim = rng.uniform(0, 1.5) * np.exp(-(((mark.distance - 0.9) / 0.12) ** 2))
        alpha = mark.alpha * (1 + rim) * rng.uniform(0.3, 1)
        tint = 1 - rng.uniform(0.1, 0.45) * rng.uniform(0.3, 1, 3)
        scene.mix(np.minimum(alpha, 1.3), mark.top, mark.left, _colour(*tint))


def _dust(scene: Scene) -> None:
    """Dust and lint: small specks of one pale or dark colour."""
    rng = scene.rng
    colour = _paint(rng)
    for _ in range(scene.count(8e-4)):
        mark = disc(scene, scene.radius(0.7, 2.2), rng.uniform(0.2, 0.8))
        scene.mix(mark.alpha * np.float32(rng.uniform(0.25, 0.9)), mark.top, mark.left, 0.0, colour)


def _scratches(scene: Scene) -> None:
    """Scratches: thin, nearly straight strokes, pale or dark, here and there interrupted."""
    rng = scene.rng
    for _ in range(rng.integers(1, 7)):
        mark = stroke(scene, length=scene.radius(8, 60), width=scene.radius(0.35, 1), bend=rng.normal(0, 0.05))
        alpha = mark.fade * np.exp(-(mark.offset**2)) * np.float32(rng.uniform(0.25, 0.9))
        if rng.random() < 0.3:
            alpha = alpha * (np.sin(rng.uniform(4, 12) * mark.along + rng.uniform(0, 6)) > -0.5)
        scene.mix(alpha, mark.top, mark.left, 0.0, _paint(rng))


def _hair(scene: Scene) -> None:
    """Stray hairs: long, curved, thinner towards one end, all of one colour."""
    rng = scene.rng
    shade = rng.choice((0.05, 0.12, 0.3, 0.55, 0.75))
    colour = _colour(*np.clip(shade * np.array([1.15, 1.0, 0.8]) + rng.normal(0, 0.02, 3), 0, 1))
    for _ in range(rng.integers(1, 5)):
        width = scene.radius(0.35, 0.7)
        mark = stroke(scene, length=scene.radius(20, 90), width=width, bend=rng.normal(0, 0.2))
        taper = 1 - 0.3 * (mark.along + 1)
        alpha = mark.fade * np.exp(-((mark.offset / np.clip(taper, 0.4, 1)) ** 2)) * np.clip(taper + 0.2, 0.5, 1)
        scene.mix(alpha * np.float32(rng.uniform(0.5, 0.95)), mark.top, mark.left, 0.0, colour)


def _creases(scene: Scene) -> None:
    """Creases of cloth: broad ridges and folds, lit on the flank towards the light."""
    rng = scene.rng
    for _ in range(rng.integers(1, 6)):
        width = scene.radius(0.9, 5)
        mark = stroke(scene, length=width * rng.uniform(8, 30), width=width, bend=rng.normal(0, 0.08))
        scene.shade(_relief(mark, rng) * np.float32(rng.uniform(0.25, 0.7)), mark.top, mark.left)


def _wrinkles(scene: Scene) -> None:
    """Wrinkles of skin: a few fine, nearly parallel grooves, longest in the middle."""
    rng = scene.rng
    for _ in range(rng.integers(1, 3)):
        turn, bend, (y, x) = rng.uniform(0, np.pi), rng.normal(0, 0.08), scene.place()
        width, length = scene.radius(0.5, 1.4), scene.radius(12, 40)
        gap, many = width * rng.uniform(3, 7), int(rng.integers(2, 6))
        for index in range(many):
            across = (index - (many - 1) / 2 + rng.normal(0, 0.15)) * gap
            at = y + np.cos(turn) * across, x - np.sin(turn) * across
            shorter = rng.uniform(0.6, 1) * (1 - 0.4 * abs(2 * index / (many - 1) - 1))
            lean = turn + rng.normal(0, 0.06)
            mark = stroke(scene, length=length * shorter, width=width, bend=bend, turn=lean, at=at)
            scene.shade(_relief(mark, rng, groove=True) * np.float32(rng.uniform(0.2, 0.5)), mark.top, mark.left)


KINDS: dict[str, Callable[[Scene], None]] = {
    "spots": _spots,
    "moles": _moles,
    "bumps": _bumps,
    "stains": _stains,
    "dust": _dust,
    "scratches": _scratches,
    "hair": _hair,
    "creases": _creases,
    "wrinkles": _wrinkles,
}
"""Every kind of blemish by name."""
_SHARES = (0.24, 0.2, 0.1, 0.1, 0.1, 0.08, 0.06, 0.07, 0.05)


def _relief(mark: Stroke, rng: Generator, *, groove: bool = False) -> Array:
    """The brightness of a ridge, or of a groove, under the light: its flanks, and less light at the bottom."""
    up = -1 if groove or rng.random() < 0.3 else 1
    # Light along a ridge leaves its flanks equal; a little is left, for no light is that narrow.
    facing = mark.facing + 0.25 * (1 if mark.facing >= 0 else -1)
    bell = np.exp(-(mark.offset**2))
    bottom = rng.uniform(0.2, 0.6) if up < 0 else rng.uniform(0, 0.3)
    relief: Array = mark.fade * bell * (np.float32(1.2 * up * facing) * mark.offset - np.float32(bottom))
    return relief


def _colour(*channels: float) -> Array:
    return np.array(channels, np.float32)


def _paint(rng: Generator) -> Array:
    level = rng.uniform(0.75, 1) if rng.random() < 0.6 else rng.uniform(0, 0.2)
    return np.clip(level + rng.normal(0, 0.04, 3), 0, 1).astype(np.float32)
