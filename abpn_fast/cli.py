"""The ``abpn-fast`` command; torch is only imported by a command that computes."""

from __future__ import annotations

import itertools
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Callable

    from abpn_fast import ABPN

_SIDE_FILES = {"save_mask": ".mask.png", "save_blend": ".blend.png", "compare": ".compare.jpg"}
_FAILURES = (OSError, ValueError, TypeError, RuntimeError, ArithmeticError, MemoryError)


class _Commands(TyperGroup):
    """Commands whose wrong use is told in one line."""

    def main(self, *args: Any, **extra: Any) -> Any:
        standalone = extra.get("standalone_mode", True)
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except typer.TyperException as error:
            _complain(" ".join(error.format_message().split()))
            code = error.exit_code
        except typer.Abort:
            code = 130
        if standalone:
            sys.exit(code)
        return code


app = typer.Typer(cls=_Commands, add_completion=False, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:
    if wanted:
        from abpn_fast import __version__

        typer.echo(f"abpn-fast {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Retouch photos of any size locally: skin blemishes and wrinkles go, everything else stays."""


@app.command()
def retouch(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="JPEG or PNG files.")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="A file name that ends in .jpg or .png, for one photo; else a folder."),
    ],
    model: Annotated[str, typer.Option(help="Bundled weights by name, or a folder with a saved model.")] = "small",
    levels: Annotated[
        int | None,
        typer.Option(min=0, help="How often the photo is halved before it is judged; default: to about 1024 pixels."),
    ] = None,
    strength: Annotated[float, typer.Option(help="0 leaves the photo, 1 is the full retouch.")] = 1.0,
    mask_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave pixels alone where the predicted mask is below this.")
    ] = None,
    save_mask: Annotated[bool, typer.Option("--save-mask", help="Write NAME.mask.png beside the result.")] = False,
    save_blend: Annotated[
        bool, typer.Option("--save-blend", help="Write NAME.blend.png, the blend layer around mid grey.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Write NAME.compare.jpg: before, after and what changed.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="What the network computes in.")
    ] = "float32",
    backend: Annotated[str | None, typer.Option(help="What runs the operators; default: the fastest that can.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of JPEG results.")] = 95,
) -> None:
    """Retouch photos, each into a new file with the photo's size, colour profile, EXIF and transparency.

    The exit code is 0 when all is well, 1 when a photo failed, 2 for wrong use.
    """
    results = _results(photos, out)
    wanted = [name for name, on in zip(_SIDE_FILES, (save_mask, save_blend, compare), strict=True) if on]
    side_files = [{name: result.with_suffix(_SIDE_FILES[name]) for name in wanted} for result in results]
    _refuse_shared([*results, *(path for files in side_files for path in files.values())])
    # Pillow's remarks on odd metadata are no concern of the user's.
    warnings.filterwarnings("ignore", module="PIL")
    with _wrong_use():
        network = _load(model, device, dtype, backend)
        if results[0] != out:
            out.mkdir(parents=True, exist_ok=True)
    from abpn_fast.photo import retouch_file

    failed = 0
    with _progress(len(photos)) as advance:
        for photo, result, files in zip(photos, results, side_files, strict=True):
            advance(photo.name)
            try:
                report = retouch_file(
                    photo,
                    result,
                    model=network,
                    levels=levels,
                    strength=strength,
                    mask_threshold=mask_threshold,
                    backend=backend,
                    overwrite=overwrite,
                    quality=quality,
                    save_mask=files.get("save_mask"),
                    save_blend=files.get("save_blend"),
                    compare=files.get("compare"),
                )
            except _FAILURES as error:
                _complain(error, str(photo))
                failed += 1
            else:
                width, height = report.size
                print(f"{result}: {width} x {height}, levels {report.levels}, {report.seconds:.1f} s")
    raise typer.Exit(1 if failed else 0)


@app.command()
def train(
    photos: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Clean photos to train on.")],
    validation: Annotated[list[Path], typer.Option(help="A folder of clean photos to measure on; may be repeated.")],
    run: Annotated[Path, typer.Option(help="Folder for the checkpoint, the log and the model; a run there goes on.")],
    preset: Annotated[Literal["base", "small"], typer.Option(help="Of the model.")] = "small",
    steps: Annotated[int, typer.Option(min=1, help="Batches in all.")] = 20_000,
    learning_rate: Annotated[float, typer.Option(help="Of Adam, after the warm-up.")] = 2e-3,
    warmup: Annotated[int, typer.Option(min=0, help="Steps until the full learning rate.")] = 200,
    seed: Annotated[int, typer.Option(help="Of weights, crops and blemishes.")] = 0,
    bf16: Annotated[bool, typer.Option("--bf16", help="Run convolutions in bfloat16.")] = False,
    accelerator: Annotated[Literal["cpu", "cuda"], typer.Option(help="What to train on.")] = "cpu",
    every: Annotated[int, typer.Option(min=1, help="Steps between two measurements and checkpoints.")] = 250,
    workers: Annotated[int, typer.Option(min=0, help="Processes that make batches.")] = 1,
    averaging: Annotated[float, typer.Option(min=0, max=1, help="Decay of the averaged weights.")] = 0.998,
) -> None:
    """Train a model on clean photos with blemishes drawn onto them, or continue a run.

    The averaged model is written into the folder "model" of the run, where "retouch --model" finds it.
    """
    given = {name: value for name, value in locals().items() if name != "photos"}
    with _wrong_use():
        from abpn_fast import accelerate
        from abpn_fast.training import trainer

        trained = trainer.train(trainer.Options(photos=photos, **given), report=_print_scores)
        typer.echo(f"model: {accelerate(trained).save_pretrained(run / 'model')}")


@app.command()
def evaluate(
    photos: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Clean photos that were not trained on.")],
    model: Annotated[str, typer.Option(help="Bundled weights by name, or a folder with a saved model.")] = "small",
) -> None:
    """Measure a model on photos with blemishes drawn onto them, beside leaving them as they are."""
    with _wrong_use():
        from abpn_fast.photo import load_model
        from abpn_fast.training.evaluate import evaluate as measure
        from abpn_fast.training.evaluate import held_out
        from abpn_fast.training.photos import find_photos, load_photos

        pairs = held_out(load_photos(find_photos(photos)))
        scores = measure(load_model(model), pairs)
    typer.echo(f"{'':14}{'model':>10}{'identity':>10}")
    for name, value in scores.items():
        if not name.startswith("identity_"):
            beside = scores.get(f"identity_{name}")
            typer.echo(f"{name:14}{value:10.4f}" + ("" if beside is None else f"{beside:10.4f}"))


def _results(photos: list[Path], out: Path) -> list[Path]:
    """Where each photo goes; ``[out]`` itself where it names a file."""
    if len(photos) == 1 and out.suffix and not out.is_dir():
        return [out]
    return [out / photo.name for photo in photos]


def _refuse_shared(paths: list[Path]) -> None:
    shared = [str(path) for path, count in Counter(paths).items() if count > 1]
    if shared:
        raise typer.BadParameter(f"several photos would be written to {', '.join(shared)}; retouch them one by one")


def _load(model: str, device: str, dtype: str, backend: str | None) -> ABPN:
    import torch

    from abpn_fast import backends
    from abpn_fast.photo import load_model

    network = load_model(model, device, getattr(torch, dtype))
    reason = None if backend in (None, "auto") else backends.why_not(backend, next(network.parameters()))
    if reason is not None:
        raise ValueError(reason)
    return network


@contextmanager
def _wrong_use() -> Iterator[None]:
    """Tell a failure in one line and exit with 2."""
    try:
        yield
    except ModuleNotFoundError as error:
        _complain(f"{error.name} is not installed; pip install 'abpn-fast[train]'")
        raise typer.Exit(2) from None
    except _FAILURES as error:
        _complain(error)
        raise typer.Exit(2) from None


def _complain(error: Exception | str, subject: str = "") -> None:
    """One line on stderr; it begins with ``subject`` where the error does not mention it."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    else:
        text = str(error).strip().partition("\n")[0] or type(error).__name__
    # Not typer.echo, which writes across the progress bar.
    print(f"error: {text}" if subject in text else f"error: {subject}: {text}", file=sys.stderr)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show how many of ``total`` are done while stderr is a terminal; call with the name of each as it begins."""
    if not sys.stderr.isatty():
        yield lambda name: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    name_column = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), name_column, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Lines for a pipe must not be drawn on the terminal instead.
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("", total=total)
        done = itertools.count()
        yield lambda name: bar.update(task, description=name, completed=next(done))


def _print_scores(line: dict[str, float]) -> None:
    typer.echo(", ".join(f"{name} {value:.4g}" for name, value in line.items()))
