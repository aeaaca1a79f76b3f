"""Optional scores."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from abpn_fast.training.lpips import LPIPS


def lpips(*names: str) -> dict[str, LPIPS]:
    """What of it has been fetched; a word on stderr about the rest."""
    from abpn_fast.training.lpips import available

    found, reasons = available(names)
    for reason in reasons:
        print(f"LPIPS is left out: {reason}", file=sys.stderr)
    return found
