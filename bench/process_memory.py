"""What this process holds, by the account of the Linux kernel."""

from __future__ import annotations

from pathlib import Path


def resident() -> int:
    """Bytes in memory now."""
    return _field("VmRSS")


def peak() -> int:
    """The most bytes in memory since the process began or since ``forget_peak``."""
    return _field("VmHWM")


def forget_peak() -> None:
    """Begin the peak anew at what is in memory now."""
    Path("/proc/self/clear_refs").write_text("5")


def _field(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))
