"""Failures told in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import typer

FAILURES = (OSError, ValueError, TypeError, RuntimeError, ArithmeticError, MemoryError)
# The extras of the package that bring what is imported; all else has the name it is imported by.
_EXTRAS = {
    "PIL": "photo",
    "rich": "photo",
    "lightning_fabric": "train",
    "platformdirs": "train",
    "cv2": "compare",
    "onnx": "export",
    "onnxscript": "export",
}


@contextmanager
def wrong_use() -> Iterator[None]:
    """Tell a failure in one line and exit with 2."""
    try:
        yield
    except ModuleNotFoundError as error:
        complain(f"{error.name} is not installed; pip install {_source(error.name)}")
        raise typer.Exit(2) from None
    except FAILURES as error:
        complain(error)
        raise typer.Exit(2) from None


def _source(module: str | None) -> str:
    name = str(module).partition(".")[0]
    return f"'abpn_fast[{_EXTRAS[name]}]'" if name in _EXTRAS else name


def complain(error: Exception | str, subject: str = "") -> None:
    """One line on stderr; it begins with ``subject`` where the error does not mention it."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    else:
        text = str(error).strip().partition("\n")[0] or type(error).__name__
    # Not typer.echo, which writes across the progress bar; where stderr takes nothing the exit status has to say it.
    with suppress(OSError):
        print(f"error: {text}" if subject in text else f"error: {subject}: {text}", file=sys.stderr)
