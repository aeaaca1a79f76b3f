"""From photo file to photo file."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from abpn_fast import backends, reference
from abpn_fast.model import ABPN
from abpn_fast.photo.compare import compare as compare_pictures
from abpn_fast.photo.files import Writer, check_fits, photo_writer, picture_writer, result_format
from abpn_fast.photo.photo import Photo
from abpn_fast.photo.pictures import blend_picture, mask_picture
from abpn_fast.photo.reading import read_photo
from abpn_fast.photo.writing import check_targets, write_files
from abpn_fast.reference import PolynomialBlend, Retouched
from abpn_fast.reference.arguments import integer, number

_Name = str | os.PathLike[str]

# The thumbnail that the retouching layer sees, in pixels of the longer side: a spot of 20 pixels in a photo of 4096 is
# 5 pixels there, where the 256 of ``default_levels`` would leave it one.
PHOTO_THUMBNAIL = 1024


@dataclasses.dataclass(frozen=True)
class Report:
    """What :func:`retouch_file` did.

    Args:
        paths: the files written, the result first.
        size: width and height of the photo, upright.
        levels: how often the photo was halved.
        seconds: from opening the photo to the last file, without loading the model.
        backend: what ran the finest level; ``"reference"`` where that takes no operator, as with 0 levels.
    """

    paths: tuple[Path, ...]
    size: tuple[int, int]
    levels: int
    seconds: float
    backend: str


def photo_levels(height: int, width: int) -> int:
    """``max(0, round(log2(max(H, W) / 1024)))``, for a thumbnail of about 1024 pixels, where small spots still show."""
    return max(0, round(math.log2(max(height, width) / PHOTO_THUMBNAIL)))


def retouch_file(
    photo: _Name,
    out: _Name,
    *,
    model: reference.ABPN | _Name = "small",
    levels: int | None = None,
    strength: float = 1.0,
    mask_threshold: float | None = None,
    self_ensemble: bool = False,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    sensitivity: float = 0.0,
    backend: str | None = None,
    save_mask: _Name | None = None,
    save_blend: _Name | None = None,
    compare: _Name | None = None,
    overwrite: bool = False,
    quality: int = 95,
    make_folders: bool = False,
) -> Report:
    """Retouch a JPEG, PNG or TIFF photo into another file.

    The result has the photo's size, channels, transparency, colour profile, EXIF, XMP and captions; it is written
    upright. PNG and TIFF results have the photo's 8 or 16 bits per channel, JPEG results 8. A PNG file becomes a JPEG
    with its texts as comments, without those above 64 KB; a JPEG becomes a PNG without its extended XMP; neither's
    texts and comments come into a TIFF. Pixels are processed as they are stored, which is meant for sRGB and similar
    encodings.
    All files appear together at the end, or none does, unless the process is killed outright at that moment.

    Args:
        photo: a file that :func:`abpn_fast.photo.read_photo` reads.
        out: the result; its ending, .jpg, .jpeg, .png, .tif or .tiff, chooses the format.
        model: a model in eval mode, which is used as it is, or what ``ABPN.from_pretrained`` takes.
        levels: how often the photo is halved before the retouching layer; None for :func:`photo_levels`.
        strength: 0 leaves the photo, 1 is the full retouch; finite.
        mask_threshold: in [0, 1]; where the predicted mask is below it, the pixels of the photo stay.
        self_ensemble: judge the photo's mirror images as well; slower, a little better.
        device, dtype: of a model that is given by name.
        sensitivity: likewise; above 0 finds more blemishes, and more that are none, below 0 fewer; 0 is as trained.
        backend: None for the automatic choice.
        save_mask: a .png for the predicted mask at the size of the photo, white where it is 1.
        save_blend: a .png for the finest blend layer B before ``strength``, stored as ``255 (B + 1/2)``: 0 is mid grey.
        compare: a .png or .jpg for before, after and what changed beside each other.
        overwrite: replace files that exist.
        quality: of a JPEG result, 1 to 100.
        make_folders: create the folders of the files where they are missing, just before the first is written.

    Raises:
        OSError: a file cannot be read or written, or exists already.
        ValueError: the photo cannot be retouched, or an argument is out of range; the message says which.
        TypeError: ``model`` is none of these, or a number is none.
        RuntimeError: ``backend`` cannot run on this device.
    """
    started = time.perf_counter()
    check_options(model, levels, sensitivity, strength, mask_threshold, quality)
    original = read_photo(Path(photo))
    targets = _Targets.of(out, save_mask, save_blend, compare)
    check_targets(targets.paths, overwrite, make_folders)
    check_fits(Path(photo), original, targets.result)
    network = model
    if not isinstance(network, reference.ABPN):
        network = ABPN.from_pretrained(network, device=device, dtype=dtype, sensitivity=sensitivity)
    height, width = original.pixels.shape[:2]
    levels = photo_levels(height, width) if levels is None else int(levels)
    image = torch.from_numpy(original.pixels).permute(2, 0, 1)[None].to(next(network.parameters()).device)
    with torch.inference_mode(), backends.use_backend(backend) if backend else contextlib.nullcontext():
        used = _backend(network, image, levels)
        output = network(
            image,
            levels=levels,
            strength=strength,
            mask_threshold=mask_threshold,
            self_ensemble=self_ensemble,
            # Not asked for them, the network need not hold the intermediates.
            return_intermediates=targets.mask is not None or targets.blend is not None,
        )
    write_files(_writers(targets, original, output, int(quality)), overwrite, make_folders)
    return Report(targets.paths, (width, height), levels, time.perf_counter() - started, used)


def _backend(network: reference.ABPN, image: Tensor, levels: int) -> str:
    """What will run the finest level; the one asked for must be able to, even where no operator is used."""
    tensors = (image, next(network.parameters()))
    name = backends.choose(backends.requested(None), "upsample_refine_blend", tensors)
    operators = isinstance(network, ABPN) and network.config.refining and isinstance(network.blend, PolynomialBlend)
    return name if operators and levels > 0 else "reference"


class _Targets(NamedTuple):
    """The files to write."""

    result: Path
    mask: Path | None
    blend: Path | None
    compare: Path | None

    @classmethod
    def of(cls, result: _Name, mask: _Name | None, blend: _Name | None, compare: _Name | None) -> _Targets:
        targets = cls(Path(result), *(None if name is None else Path(name) for name in (mask, blend, compare)))
        for path in targets.paths:
            format = result_format(path)
            if format != "PNG" and path in (targets.mask, targets.blend):
                raise ValueError(f"a mask and a blend layer are stored as .png, got {path.name!r}")
            if format == "TIFF" and path == targets.compare:
                raise ValueError(f"a comparison is stored as .png or .jpg, got {path.name!r}")
        return targets

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(path for path in self if path is not None)


def check_options(
    model: object, levels: Any, sensitivity: Any, strength: Any, mask_threshold: Any, quality: Any
) -> None:
    """Refuse what :func:`retouch_file` takes for no photo.

    Raises:
        TypeError, ValueError: an argument does not fit; the message names it.
    """
    if not isinstance(model, (str, os.PathLike, reference.ABPN)):
        raise TypeError(
            f"model must be an abpn_fast.ABPN, the name of bundled weights or a folder, got {type(model).__name__}"
        )
    if isinstance(model, reference.ABPN) and model.training:
        raise ValueError("model must be in eval mode; call model.eval() first")
    if isinstance(model, reference.ABPN) and sensitivity:
        raise ValueError("sensitivity is of a model that is given by name; give this one's name, or leave it at 0")
    if levels is not None:
        integer("levels", levels, 0, optional=True)
    number("strength", strength)
    if mask_threshold is not None and not 0 <= number("mask_threshold", mask_threshold) <= 1:
        raise ValueError(f"mask_threshold must be None or between 0 and 1, got {mask_threshold!r}")
    integer("quality", quality, 1, 100)


def _writers(targets: _Targets, original: Photo, output: Tensor | Retouched, quality: int) -> dict[Path, Writer]:
    retouched = output.image if isinstance(output, Retouched) else output
    pixels = retouched[0].permute(1, 2, 0).contiguous().cpu().numpy()
    writers = {targets.result: photo_writer(targets.result, original, pixels, quality)}
    if targets.mask is not None and isinstance(output, Retouched):
        writers[targets.mask] = picture_writer(targets.mask, mask_picture(output))
    if targets.blend is not None and isinstance(output, Retouched):
        writers[targets.blend] = picture_writer(targets.blend, blend_picture(output))
    if targets.compare is not None:
        sheet = compare_pictures(original.picture(original.pixels), original.picture(pixels))
        # A grey profile does not fit the coloured sheet.
        colours = Photo(original.pixels, icc=None if original.grey else original.icc)
        writers[targets.compare] = picture_writer(targets.compare, sheet, colours)
    return writers
