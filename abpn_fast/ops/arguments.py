"""What the operators ask of their arguments, and the sentences that say so."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from abpn_fast.reference.pixels import WHITE

# None stands for any size.
Shape = Sequence[int | None]


def tensor(name: str, value: object, shape: Shape, *, like: Tensor | None = None) -> Tensor:
    """``value`` if it is a tensor of ``shape``, on the device of ``like``.

    Raises:
        TypeError: not a tensor, or not a dense one.
        ValueError: another shape or device.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got {value.layout}; convert it with .to_dense()")
    fits = value.dim() == len(shape)
    for want, got in zip(shape, value.shape, strict=False):
        # Not `want in (None, got)`: torch.compile takes a symbolic size for unequal there.
        if want is not None and want != got:
            fits = False
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} must have shape ({wanted}), got {tuple(value.shape)}")
    if like is not None and value.device != like.device:
        raise ValueError(
            f"{name} must be on {like.device} as the other arguments, got {value.device}; move it with .to()"
        )
    return value


def floating(name: str, value: Tensor, dtype: torch.dtype | None = None) -> None:
    """Refuse ``value`` unless it is floating, and of ``dtype`` where that is given."""
    if not value.is_floating_point():
        raise TypeError(f"{name} must have a floating dtype, got {value.dtype}")
    if dtype is not None and value.dtype != dtype:
        raise TypeError(f"{name} must be {dtype} as the other arguments, got {value.dtype}; convert it with .to()")


def picture(name: str, value: object, *, like: Tensor | None = None) -> Tensor:
    """An image: (N, 3, H, W), H, W >= 1, uint8, uint16 or floating; of the shape of ``like`` where that is given."""
    image = tensor(name, value, (None, 3, None, None) if like is None else like.shape, like=like)
    if 0 in image.shape[2:]:
        raise ValueError(f"{name} must be at least 1 x 1 pixel, got {tuple(image.shape)}")
    if image.dtype not in WHITE and not image.is_floating_point():
        raise TypeError(f"{name} must be uint8, uint16 or floating, got {image.dtype}")
    return image


def coefficients(j: object, k: object, like: Tensor) -> None:
    """j and k: three floating numbers each, on the device of ``like``."""
    for name, value in (("j", j), ("k", k)):
        floating(name, tensor(name, value, (3,), like=like))


def choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse ``value`` unless it is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def refining_weights(weight1: object, bias1: object, weight2: object, bias2: object, like: Tensor) -> None:
    """phi_1 and phi_2: (16, 6, 3, 3), (16,), (3, 16, 3, 3), (3,) in the dtype and on the device of ``like``."""
    shapes = {"weight1": (16, 6, 3, 3), "bias1": (16,), "weight2": (3, 16, 3, 3), "bias2": (3,)}
    for (name, shape), value in zip(shapes.items(), (weight1, bias1, weight2, bias2), strict=True):
        floating(name, tensor(name, value, shape, like=like), like.dtype)


def halved(size: int) -> int:
    """The size of the next level."""
    return -(-size // 2)
