"""Candidates that were not measured, and why: they stand in the JSON beside the results."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

REFUSED: list[dict[str, Any]] = []


def refuse(benchmark: Any, reason: str) -> NoReturn:
    """Skip the test and keep the reason."""
    REFUSED.append(benchmark.extra_info | {"reason": reason})
    pytest.skip(reason)
