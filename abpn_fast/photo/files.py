"""Photos into files: JPEG, PNG and TIFF, with everything their files held."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from abpn_fast.photo import jpeg_segments, png16, tiff, tiff_writer, xmp
from abpn_fast.photo.codecs import Samples
from abpn_fast.photo.photo import Photo
from abpn_fast.photo.tiff_tags import Tag

Format = Literal["JPEG", "PNG", "TIFF"]
Writer = Callable[[BinaryIO], None]

_ENDINGS: dict[str, Format] = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF"}
# Of libjpeg; the format itself could have 35 more.
_MAX_JPEG_SIDE = 65500


def result_format(path: Path) -> Format:
    """The format that the ending of a file name asks for.

    Raises:
        ValueError: the ending is none of .jpg, .jpeg, .png, .tif and .tiff.
    """
    if path.suffix.lower() not in _ENDINGS:
        raise ValueError(f"the name of a result must end in {', '.join(_ENDINGS)}, got {path.name!r}")
    return _ENDINGS[path.suffix.lower()]


def check_fits(name: Path, photo: Photo, out: Path) -> None:
    """See that the format of ``out`` can hold the photo with its metadata.

    Raises:
        ValueError: it cannot; the message names the photo as ``name``, the limit and what to do.
    """
    format = result_format(out)
    if format != "TIFF" and photo.alpha is not None and photo.alpha_kind != tiff.UNASSOCIATED:
        kind = "premultiplied transparency" if photo.alpha_kind == tiff.PREMULTIPLIED else "a channel of unknown kind"
        raise ValueError(f"{name} has {kind}, which only a TIFF file can hold; let the result end in .tif")
    if format != "JPEG":
        return
    reason = None
    if photo.alpha is not None:
        reason = "transparency, which a JPEG file cannot hold"
    if max(photo.pixels.shape[:2]) > _MAX_JPEG_SIDE:
        reason = f"a side of {max(photo.pixels.shape[:2])} pixels, and a JPEG file at most {_MAX_JPEG_SIDE}"
    # Of XMP 29 bytes less for its name; of an ICC profile 255 segments with 14 bytes less.
    segment = jpeg_segments.LONGEST
    blocks = {"EXIF": (photo.exif, segment), "XMP": (photo.xmp, segment - 29), "ICC": (photo.icc, 255 * (segment - 14))}
    for kind, (block, limit) in blocks.items():
        if block is not None and len(block) > limit:
            reason = f"{len(block)} bytes of {kind}, and a JPEG file at most {limit}"
    if reason:
        raise ValueError(f"{name} has {reason}; let the result end in .png")


def photo_writer(path: Path, photo: Photo, pixels: Samples, quality: int = 95) -> Writer:
    """What writes ``pixels`` with alpha and metadata of ``photo`` into an open file, as ``path`` asks for.

    A JPEG file gets them rounded to 8 bits, any other with the bits that they have.
    """
    format = result_format(path)
    if format == "TIFF":
        return lambda stream: tiff_writer.write(
            stream, photo.samples(pixels), photo.alpha_kind, **_tiff_metadata(photo)
        )
    if format == "PNG" and pixels.dtype == np.uint16:
        samples, model = photo.samples(pixels), io.BytesIO()
        picture_writer(path, Image.new("L", (1, 1)), photo)(model)
        return lambda stream: png16.write(stream, samples, model.getvalue())
    return picture_writer(path, photo.picture(pixels), photo, quality)


def picture_writer(path: Path, picture: Image.Image, photo: Photo | None = None, quality: int = 95) -> Writer:
    """What writes ``picture`` into an open JPEG or PNG file, as ``path`` asks for.

    Args:
        photo: whose metadata to write as well; None for none.
        quality: of a JPEG file, 1 to 100; its chroma is kept at full resolution.
    """
    format = result_format(path)
    options: dict[str, Any] = {} if photo is None else _metadata(photo, format)
    if format == "JPEG":
        options |= {"quality": quality, "subsampling": 0}
    return lambda stream: picture.save(stream, format, **options)


def _metadata(photo: Photo, format: Format) -> dict[str, Any]:
    options: dict[str, Any] = {"exif": photo.exif or b"", "icc_profile": photo.icc}
    if photo.dpi is not None:
        options["dpi"] = photo.dpi
    if format == "JPEG":
        return options | {"xmp": photo.xmp, "extra": photo.segments}
    return options | {"pnginfo": _png_info(photo)}


def _png_info(photo: Photo) -> PngInfo:
    info = PngInfo()
    for kind, content in photo.chunks:
        info.add(kind, content)
    if photo.xmp is not None:
        info.add_itxt("XML:com.adobe.xmp", xmp.without_extension(photo.xmp).decode("utf-8", "replace"))
    return info


def _tiff_metadata(photo: Photo) -> dict[str, Any]:
    packet = xmp.without_extension(photo.xmp or b"")
    contents = {Tag.XMP: packet, Tag.ICC: photo.icc or b"", **dict(photo.captions)}
    return {"exif": (photo.exif or b"").removeprefix(b"Exif\0\0"), "dpi": photo.dpi, "contents": contents}
