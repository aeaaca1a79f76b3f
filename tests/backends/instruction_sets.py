from __future__ import annotations

from abpn_fast import native
from abpn_fast.backends import cpu


def available() -> list[str]:
    """Those that this machine has."""
    if native.why_missing() is not None:
        return []
    return cpu.available_instruction_sets()
