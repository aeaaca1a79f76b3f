"""What is asked of numbers that are arguments, Python's or NumPy's, and the sentences that say so."""

from __future__ import annotations

import math
from numbers import Integral, Real


def integer(name: str, value: object, least: int, most: int | None = None, *, optional: bool = False) -> int:
    """``value`` as an int if it is an integer within the bounds; ``optional`` where None is handled before.

    Raises:
        ValueError: it is none, or outside.
    """
    if isinstance(value, Integral) and not isinstance(value, bool):
        found = int(value)
        if least <= found and (most is None or found <= most):
            return found
    bounds = f">= {least}" if most is None else f"from {least} to {most}"
    raise ValueError(f"{name} must be {'None or ' * optional}an integer {bounds}, got {value!r}")


def number(name: str, value: object, least: float = -math.inf) -> float:
    """``value`` as a float if it is a number, finite and not below ``least``.

    Raises:
        TypeError: it is no number.
        ValueError: it is not finite, or below.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    found = float(value)
    if not least <= found < math.inf or found == -math.inf:
        raise ValueError(f"{name} must be finite{'' if least == -math.inf else f' and >= {least:g}'}, got {value!r}")
    return found
