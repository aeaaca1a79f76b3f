"""``abpn-fast export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from abpn_fast.cli.failures import wrong_use
from abpn_fast.cli.options import Model, Sensitivity


def export(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The ONNX file to write.")],
    levels: Annotated[
        int,
        typer.Option(
            min=0, max=16, help="How often a photo is halved before it is judged; 2 for one of about 4096 pixels."
        ),
    ],
    model: Model = "small",
    sensitivity: Sensitivity = 0.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Write a model as one ONNX file for photos of any size, for runtimes other than PyTorch."""
    with wrong_use():
        if out.is_dir():
            raise IsADirectoryError(f"{out} is a folder; name a file in it")
        if out.exists() and not overwrite:
            raise FileExistsError(f"{out} exists already; choose another name, or ask to overwrite it")
        from abpn_fast import ABPN, export_onnx

        export_onnx(ABPN.from_pretrained(model, sensitivity=sensitivity), out, levels=levels)
    typer.echo(f"{out}: levels {levels}, {out.stat().st_size / 1e6:.0f} MB")
