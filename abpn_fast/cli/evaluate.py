"""``abpn-fast evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from abpn_fast.cli.failures import wrong_use
from abpn_fast.cli.options import Model, SelfEnsemble, Sensitivity
from abpn_fast.cli.scores import lpips


def evaluate(
    photos: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="A folder of pairs, or clean photos not trained on.")
    ],
    model: Model = "small",
    size: Annotated[int, typer.Option(min=64, help="Pixels of a square that pairs are fitted into.")] = 1024,
    levels: Annotated[int, typer.Option(min=0, help="How often that square is halved.")] = 2,
    sensitivity: Sensitivity = 0.0,
    self_ensemble: SelfEnsemble = False,
    every: Annotated[bool, typer.Option("--all", help="Take all pairs, not only the part kept for the test.")] = False,
    bad: Annotated[
        Literal["refuse", "skip"], typer.Option(help="What to do with files that cannot be used.")
    ] = "refuse",
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Run median, bilateral filter and inpainting of OpenCV on the same images."),
    ] = False,
    vgg: Annotated[
        bool, typer.Option("--vgg", help="Measure LPIPS by VGG16 as well as by AlexNet; slow on a CPU.")
    ] = False,
    each: Annotated[bool, typer.Option("--each", help="Print a line for every image, too.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the summary and a row for every image and method.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a row for every image and method.")] = None,
) -> None:
    """Measure a model on pairs, or on photos with blemishes drawn onto them, beside leaving them as they are.

    LPIPS is measured as well once "fetch-vgg" has run.
    """
    with wrong_use():
        for path in (json, csv):
            if path and not path.parent.is_dir():
                raise FileNotFoundError(f"no such folder: {path.parent}; {path} is to be written there")
        from abpn_fast import ABPN
        from abpn_fast.training import classical, report
        from abpn_fast.training.evaluate import measure, named, summarise

        pairs, names = named(photos, size=size, levels=levels, every=every, bad=bad)
        methods = classical.methods() if compare else None
        nets = lpips("alex", *["vgg"] * vgg)
        network = ABPN.from_pretrained(model, sensitivity=sensitivity)
        rows = measure(network, pairs, names=names, self_ensemble=self_ensemble, methods=methods, lpips=nets)
        means = summarise(rows)
    if each:
        typer.echo(report.each(rows) + "\n")
    typer.echo(report.text(means))
    typer.echo(
        f"{'images':20}{len({row.image for row in rows})} of {len(names)}, the rest unchanged or changed everywhere"
    )
    # Last: what was measured is told even where it cannot be written.
    with wrong_use():
        if json:
            report.write_json(json, means, rows, model=model)
        if csv:
            report.write_csv(csv, rows)
