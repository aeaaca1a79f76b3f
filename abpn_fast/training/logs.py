"""What a run leaves to read: a CSV file, TensorBoard with pictures, a progress bar."""

from __future__ import annotations

import csv
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from abpn_fast.checkpoint import replace
from abpn_fast.reference import ABPN, Retouched
from abpn_fast.reference.pixels import to_unit
from abpn_fast.training.batches import Pair

_log = logging.getLogger(__name__)
_PICTURES, _HEIGHT = 4, 256


class Logs:
    """The logs of one run, open from step ``first`` to ``last``; lines of a killed run beyond ``first`` are dropped.

    A run that goes on with another objective has other columns: its CSV file so far becomes ``log-until-<first>.csv``.

    Args:
        folder: for ``log.csv`` and ``tensorboard/``.
        first: how many steps are done.
        last: how many there will be.
    """

    def __init__(self, folder: Path, first: int, last: int) -> None:
        self.path, self.first, self.last = folder / "log.csv", first, last
        self.tensorboard = folder / "tensorboard"

    def __enter__(self) -> Logs:
        _cut(self.path, self.first)
        with ExitStack() as stack:
            self.file = stack.enter_context(self.path.open("a+", newline="", encoding="utf-8"))
            self.file.seek(0)
            self.columns = self.file.readline().strip().split(",")
            self.writer = self._writer(stack)
            self.bar = _Bar(stack, self.first, self.last)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def step(self, loss: float) -> None:
        """One more step is done."""
        self.bar.advance(f"loss {loss:.4g}")

    def measured(self, line: Mapping[str, float]) -> None:
        """Add a line with ``step`` and all that was measured there."""
        if self.columns != list(line):
            self._begin(list(line))
        csv.DictWriter(self.file, self.columns).writerow({name: written(value) for name, value in line.items()})
        self.file.flush()
        if self.writer is not None:
            for name, value in line.items():
                self.writer.add_scalar(name, value, int(line["step"]))

    def pictures(self, model: ABPN, pairs: Sequence[Pair], step: int) -> None:
        """Input, result, target, mask and blend layers of the first few pairs, side by side."""
        if self.writer is None:
            return
        for index in range(min(_PICTURES, len(pairs))):
            self.writer.add_image(f"pair {index}", sheet(model, pairs[index]), step)
        self.writer.flush()

    def _begin(self, columns: list[str]) -> None:
        if self.columns != [""]:
            self.path.with_name(f"log-until-{self.first}.csv").write_bytes(self.path.read_bytes())
            self.file.truncate(0)
        self.columns = columns
        csv.DictWriter(self.file, columns).writeheader()

    def _writer(self, stack: ExitStack) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            _log.warning("no TensorBoard log: tensorboard is not installed; pip install 'abpn_fast[log]'")
            return None
        writer = SummaryWriter(self.tensorboard, purge_step=self.first + 1)
        stack.callback(writer.close)
        return writer


@torch.no_grad()
def sheet(model: ABPN, pair: Pair) -> Tensor:
    """(3, 256, W) in [0, 1]: input, result, target, mask, then B_0 to B_l around mid grey, contrast doubled."""
    model.eval()
    device = next(model.parameters()).device
    image, target = (to_unit(part[:1].to(device), model.dtype) for part in (pair.image, pair.target))
    output = model(image, levels=pair.levels, return_intermediates=True)
    assert isinstance(output, Retouched)
    mask = [] if output.mask is None else [output.mask.expand(-1, 3, -1, -1)]
    parts = [image, output.image, target, *mask, *(layer * 2 + 0.5 for layer in output.blend_layers)]
    width = max(round(_HEIGHT * image.shape[3] / image.shape[2]), 1)
    scaled = [interpolate(part.float(), (_HEIGHT, width), mode="area") for part in parts]
    return torch.cat(scaled, 3)[0].clamp(0, 1).cpu()


def written(value: float, digits: int = 6) -> str:
    """``value`` with so many digits; an integer, such as a step, whole."""
    return str(value) if isinstance(value, int) else f"{value:.{digits}g}"


def _cut(path: Path, last: int) -> None:
    """Drop the lines after step ``last``, and one that was not written to its end."""
    if not path.exists():
        return
    head, *lines = path.read_bytes().decode().splitlines(keepends=True) or [""]
    column = head.strip().split(",").index("step") if "step" in head else 0
    kept = [line for line in lines if line.endswith("\n") and float(line.split(",")[column]) <= last]
    text = "".join([head, *kept]) if kept else ""
    replace(path, lambda partial: partial.write_text(text, encoding="utf-8", newline=""))


class _Bar:
    """A progress bar while stderr is a terminal."""

    def __init__(self, stack: ExitStack, first: int, last: int) -> None:
        self.bar: Any = None
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        bar = Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty())
        self.bar = stack.enter_context(bar)
        self.task = self.bar.add_task("", total=last, completed=first)

    def advance(self, text: str) -> None:
        if self.bar is not None:
            self.bar.update(self.task, advance=1, description=text)
