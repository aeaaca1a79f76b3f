"""``abpn-fast retouch``."""

from __future__ import annotations

import itertools
import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from abpn_fast.cli.failures import FAILURES, complain, wrong_use
from abpn_fast.cli.options import Model, SelfEnsemble, Sensitivity
from abpn_fast.cli.stopping import stops_cleanly

if TYPE_CHECKING:
    from collections.abc import Callable

    from abpn_fast import ABPN

_SIDE_FILES = {"save_mask": ".mask.png", "save_blend": ".blend.png", "compare": ".compare.jpg"}


def retouch(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="JPEG, PNG or TIFF files.")],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="A file for one photo, .jpg, .png or .tif; without an ending, or with a slash behind, a folder.",
        ),
    ],
    model: Model = "small",
    levels: Annotated[
        int | None,
        typer.Option(
            min=0, max=32, help="How often the photo is halved before it is judged; default: to about 1024 pixels."
        ),
    ] = None,
    sensitivity: Sensitivity = 0.0,
    strength: Annotated[float, typer.Option(help="0 leaves the photo, 1 is the full retouch.")] = 1.0,
    mask_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave pixels alone where the predicted mask is below this.")
    ] = None,
    self_ensemble: SelfEnsemble = False,
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
    target = Path(out)
    wanted = [name for name, on in zip(_SIDE_FILES, (save_mask, save_blend, compare), strict=True) if on]
    side_files = [{name: result.with_suffix(_SIDE_FILES[name]) for name in wanted} for result in results]
    _refuse_shared([*results, *(path for files in side_files for path in files.values())])
    # Remarks on odd metadata and interlacing are no concern of the user's.
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("imagecodecs").setLevel(logging.ERROR)
    with wrong_use():
        if out == "-":
            raise ValueError("results go to files, not to standard output; name one, or a folder")
        if results[0] != target and target.exists() and not target.is_dir():
            raise NotADirectoryError(f"{target} is a file; name a folder for the results")
        from abpn_fast.photo import retouch_file
        from abpn_fast.photo.retouch import check_options

        # Once, not for every photo.
        check_options(model, levels, sensitivity, strength, mask_threshold, quality)
        network = _load(model, device, dtype, sensitivity, backend)
    failed = 0
    with stops_cleanly(), _progress(len(photos)) as advance:
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
                    self_ensemble=self_ensemble,
                    backend=backend,
                    overwrite=overwrite,
                    quality=quality,
                    make_folders=result != target,
                    save_mask=files.get("save_mask"),
                    save_blend=files.get("save_blend"),
                    compare=files.get("compare"),
                )
            except FAILURES as error:
                complain(error, str(photo))
                failed += 1
            else:
                width, height = report.size
                failed += not _tell(f"{result}: {width} x {height}, levels {report.levels}, {report.seconds:.1f} s")
    raise typer.Exit(1 if failed else 0)


def _tell(line: str) -> bool:
    """Print ``line``; where stdout takes none, say so, and print nothing from then on."""
    try:
        print(line, flush=True)
    except OSError as error:
        complain(f"stdout cannot be written ({error.strerror or error}); the photos are retouched all the same")
        # What is buffered would fail again when the program ends.
        with open(os.devnull, "w") as nowhere, suppress(OSError):
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return False
    return True


def _results(photos: list[Path], out: str) -> list[Path]:
    """Where each photo goes; ``[out]`` itself where it names a file."""
    target = Path(out)
    if len(photos) == 1 and target.suffix and not target.is_dir() and not out.endswith(("/", os.sep)):
        return [target]
    return [target / photo.name for photo in photos]


def _refuse_shared(paths: list[Path]) -> None:
    shared = [str(path) for path, count in Counter(paths).items() if count > 1]
    if shared:
        raise typer.BadParameter(f"several photos would be written to {', '.join(shared)}; retouch them one by one")


def _load(model: str, device: str, dtype: str, sensitivity: float, backend: str | None) -> ABPN:
    import torch

    from abpn_fast import ABPN, backends

    network = ABPN.from_pretrained(model, device=device, dtype=getattr(torch, dtype), sensitivity=sensitivity)
    reason = (
        None
        if backend in (None, "auto")
        else backends.why_not(backend, next(network.parameters()), operator="upsample_refine_blend")
    )
    if reason is not None:
        raise ValueError(reason)
    return network


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
