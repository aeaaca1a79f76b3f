"""Signals that end a program, as exceptions, so that what it was writing is cleaned up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Windows has no SIGHUP.
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def stops_cleanly() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise ``SystemExit(128 + number)`` inside, where they would kill the process."""
    taken = []
    if threading.current_thread() is threading.main_thread():
        # One that is ignored, as under nohup, stays so.
        taken = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]

    def stop(number: int, frame: FrameType | None) -> None:
        # A second one shall not break off the clean-up.
        for each in taken:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    try:
        for number in taken:
            signal.signal(number, stop)
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
