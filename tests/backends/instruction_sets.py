from __future__ import annotations

import torch

from abpn_fast import native
from abpn_fast.backends import cpu


def available() -> list[str]:
    """Those that this machine has."""
    if native.why_missing() is not None:
        return []
    return list(cpu.INSTRUCTION_SETS[: torch.ops.abpn_fast_cpu.best_isa() + 1])
