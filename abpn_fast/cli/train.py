"""``abpn-fast train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from abpn_fast.cli.failures import wrong_use


def train(
    photos: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="A folder of pairs, or of clean photos.")],
    run: Annotated[Path, typer.Option(help="Folder for checkpoint, logs and model; a run there goes on.")],
    validation: Annotated[
        list[Path] | None, typer.Option(help="Clean photos to measure on, for the synthetic recipe; may be repeated.")
    ] = None,
    recipe: Annotated[
        Literal["paper", "synthetic"] | None,
        typer.Option(help="Learn from pairs or draw blemishes onto clean photos; default: what the folder holds."),
    ] = None,
    preset: Annotated[
        Literal["base", "medium", "small"] | None,
        typer.Option(help="Of the model; default: that of --start, else small."),
    ] = None,
    start: Annotated[str | None, typer.Option(help="Bundled weights, or a folder with a model, to begin with.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Batches in all; default: 20000 synthetic, else 150 epochs.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Pairs per batch, of all processes together.")] = None,
    size: Annotated[int | None, typer.Option(min=64, help="Pixels of a square that pairs are fitted into.")] = None,
    levels: Annotated[int | None, typer.Option(min=0, help="How often that square is halved.")] = None,
    crop: Annotated[bool, typer.Option("--crop", help="Take random crops of pairs instead of whole photos.")] = False,
    optimizer: Annotated[
        Literal["adam", "muon"] | None,
        typer.Option(help="Adam, the paper's, or Muon for filters, Adam for the rest."),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of either, at its highest.")] = None,
    warmup: Annotated[
        int | None, typer.Option(min=0, help="Steps until the full learning rate; default: the recipe's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, crops and blemishes.")] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Run convolutions in bfloat16.")] = False,
    accelerator: Annotated[Literal["cpu", "cuda"] | None, typer.Option(help="What to train on; default: cpu.")] = None,
    every: Annotated[
        int | None,
        typer.Option(
            min=1, help="Steps between two measurements and checkpoints; default: a tenth, at most 250, of pairs 500."
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that make batches.")] = None,
    averaging: Annotated[float | None, typer.Option(min=0, max=1, help="Decay of the averaged weights.")] = None,
    bad: Annotated[
        Literal["refuse", "skip"] | None, typer.Option(help="What to do with files that cannot be used.")
    ] = None,
    objective: Annotated[
        Literal["paper", "plain", "psnr"] | None,
        typer.Option(help="Eq. 6, after fetch-vgg; terms that need no other network; PSNR. Default: the recipe's."),
    ] = None,
    adversarial_loss: Annotated[
        Literal["hinge", "least-squares"] | None, typer.Option(help="Of Eq. 6; default: hinge.")
    ] = None,
) -> None:
    """Train a model on pairs, or on clean photos with blemishes drawn onto them, or continue a run.

    The averaged model is written into the folder "model" of the run, where "retouch --model" finds it.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    for name in ("photos", "run", "validation", "recipe", "objective", "adversarial_loss"):
        given.pop(name, None)
    with wrong_use():
        from abpn_fast.training import trainer
        from abpn_fast.training.objective import Objective
        from abpn_fast.training.pairs import is_paired

        paired = recipe == "paper" or (recipe is None and all(map(is_paired, photos)))
        if paired and (len(photos) > 1 or validation):
            raise ValueError("pairs come from one folder, which is divided; give no second one and no --validation")
        options = (
            trainer.Options.paper(photos[0], run, **given)
            if paired
            else trainer.Options(photos, validation or [], run, **given)
        )
        chosen = objective or ("paper" if paired else "plain")
        if adversarial_loss and chosen != "paper":
            raise ValueError(f"--adversarial-loss is of Eq. 6, and objective {chosen} has no adversary; leave it out")
        if chosen == "paper":
            terms = Objective.paper(adversarial_loss=(adversarial_loss or "hinge").replace("-", "_"))
        else:
            terms = Objective.psnr() if chosen == "psnr" else Objective()
        trainer.train(options, terms, report=_print_scores)
        typer.echo(f"model: {run / 'model'}")


def _print_scores(line: dict[str, float]) -> None:
    from abpn_fast.training.logs import written

    typer.echo(", ".join(f"{name} {written(value, 4)}" for name, value in line.items()))
