from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from abpn_fast.reference.arguments import integer, number


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3)])
def test_integers_become_pythons(value: Any) -> None:
    found = integer("n", value, 3, 3)
    assert type(found) is int and found == 3


@pytest.mark.parametrize(
    ("value", "limits", "reason"),
    [
        (True, (0,), "n must be an integer >= 0, got True"),
        (1.0, (0,), "n must be an integer >= 0, got 1.0"),
        ("1", (0,), "n must be an integer >= 0, got '1'"),
        (None, (0,), "n must be an integer >= 0, got None"),
        (0, (1,), "n must be an integer >= 1, got 0"),
        (np.int8(-1), (0, 5), r"n must be an integer from 0 to 5, got np.int8\(-1\)"),
        (6, (0, 5), "n must be an integer from 0 to 5, got 6"),
    ],
)
def test_no_such_integer(value: object, limits: tuple[int, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        integer("n", value, *limits)
    with pytest.raises(ValueError, match=r"^n must be None or an integer"):
        integer("n", value, *limits, optional=True)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float16(0.5), Fraction(1, 2)])
def test_numbers_become_pythons(value: Any) -> None:
    found = number("x", value, 0.5)
    assert type(found) is float and found == 0.5
    assert number("x", np.int8(-2)) == -2


@pytest.mark.parametrize("value", [True, None, "1", 1j, np.zeros(1)])
def test_no_number(value: object) -> None:
    with pytest.raises(TypeError, match=r"^x must be a number, got "):
        number("x", value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match=r"^x must be finite, got "):
        number("x", value)
    with pytest.raises(ValueError, match=r"^x must be finite and >= 0, got "):
        number("x", value, 0)


def test_below() -> None:
    with pytest.raises(ValueError, match=r"^x must be finite and >= 0, got -0\.5$"):
        number("x", -0.5, 0)
