"""``abpn-fast ablate``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from abpn_fast.cli.failures import wrong_use
from abpn_fast.cli.scores import lpips


def ablate(
    photos: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Clean photos to train on.")],
    validation: Annotated[list[Path], typer.Option(help="A folder of clean photos to measure on; may be repeated.")],
    run: Annotated[Path, typer.Option(help="Folder for every variant and the table; what is there goes on.")],
    steps: Annotated[int, typer.Option(min=1, help="Batches for each variant.")] = 1500,
    widths: Annotated[
        str, typer.Option(help='Six channel counts of the encoder, or a preset: "small", "medium", "base".')
    ] = "8,16,32,64,64,64",
    variant: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, crops and blemishes.")] = 0,
    accelerator: Annotated[Literal["cpu", "cuda"], typer.Option(help="What to train on.")] = "cpu",
    workers: Annotated[int, typer.Option(min=0, help="Processes that make batches.")] = 0,
) -> None:
    """Train the full model and the variants of the paper's Table 2, and one more, all alike, and print the table."""
    with wrong_use():
        from abpn_fast import ABPNConfig
        from abpn_fast.training import ablation, trainer

        config = ABPNConfig.preset(widths) if widths.isalpha() else ABPNConfig(_counts(widths))
        options = trainer.Options(
            photos=photos,
            validation=validation,
            run=run,
            steps=steps,
            schedule=ablation.SCHEDULE,
            warmup=min(30, steps),
            every=-(-steps // 3),
            seed=seed,
            accelerator=accelerator,
            workers=workers,
            averaging=0.99,
        )
        names = variant or list(ablation.VARIANTS)
        found = ablation.ablate(options, config, names=names, lpips=lpips("alex"), report=_print_variant)
    typer.echo(ablation.table(found), nl=False)


def _counts(widths: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in widths.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"widths must be six integers like 8,16,32,64,64,64, or a preset, got {widths}"
        ) from None


def _print_variant(name: str, line: dict[str, float]) -> None:
    typer.echo(f"{name}: step {line['step']:.0f}, PSNR inside {line.get('psnr_inside', math.nan):.2f}", err=True)
