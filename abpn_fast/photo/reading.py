"""Photo files: JPEG, PNG and TIFF to RGB pixels, with everything else they hold."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from abpn_fast.photo import exif, jpeg_segments, png16, png_chunks, resources, tiff, xmp
from abpn_fast.photo.codecs import Samples, Unsuitable
from abpn_fast.photo.photo import Photo
from abpn_fast.photo.tiff_tags import Tag

_MAX_MEGAPIXELS = 200
# What Pillow and struct raise on bytes that are no image.
_BROKEN = (
    *(OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, OverflowError, struct.error, zlib.error),
    Image.DecompressionBombError,
)


def read_photo(path: Path) -> Photo:
    """Read a JPEG, PNG or TIFF file of up to 200 megapixels, PNG and TIFF with 8 or 16 bits per channel.

    Grey and RGB pictures are read, with or without transparency, of PNG files palettes and 1-bit pictures as well; of a
    JPEG file with several pictures the first. The orientation that the file tells is applied. Premultiplied pixels of a
    TIFF file are taken as they lie.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: there is no file to read.
        ValueError: it is empty, damaged, none of the three, a single pixel, too large, animated, CMYK, or a TIFF file
            that has several pages, a palette, other than 8 or 16 bits, or a compression that is none of LZW, Deflate
            and PackBits.
    """
    data = _read(path)
    for start, decode in _DECODERS.items():
        if data.startswith(start):
            return _upright(decode(path, data))
    raise ValueError(f"{path} is neither a JPEG, a PNG nor a TIFF file; convert it to one of them")


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a photo; name the files in it")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"no such photo: {path}") from None
    if not data:
        raise ValueError(f"{path} is empty")
    return data


def _upright(photo: Photo) -> Photo:
    packet = photo.xmp or b""
    orientation, block = exif.upright(photo.exif or b"", xmp.orientation(packet))
    if orientation not in exif.TURNS:
        return dataclasses.replace(photo, exif=block)
    pixels, alpha = (
        None if samples is None else np.ascontiguousarray(exif.TURNS[orientation](samples))
        for samples in (photo.pixels, photo.alpha)
    )
    assert pixels is not None
    dpi = photo.dpi[::-1] if photo.dpi and orientation > 4 else photo.dpi
    packet = xmp.upright(packet)
    return dataclasses.replace(photo, pixels=pixels, alpha=alpha, exif=block, xmp=packet or None, dpi=dpi)


def _jpeg(path: Path, data: bytes) -> Photo:
    image = _opened(path, data, "JPEG", JpegImageFile)
    if image.mode == "CMYK":
        raise ValueError(f"{path} is a CMYK picture; convert it to RGB with its colour profile first")
    with _damage(path):
        image.load()
        applist = jpeg_segments.cut_thumbnails(image.applist)  # type: ignore[attr-defined]
        return _photo(
            _samples(image),
            **_blocks(image),
            segments=jpeg_segments.kept(applist),
            chunks=png_chunks.from_jpeg(applist),
            captions=_captions(jpeg_segments.resources_of(applist)),
        )


def _png(path: Path, data: bytes) -> Photo:
    readable = png_chunks.readable(data)
    image = _opened(path, readable, "PNG", PngImageFile)
    if getattr(image, "n_frames", 1) > 1:
        raise ValueError(f"{path} is an animation; only single pictures can be retouched")
    with _damage(path):
        deep = png16.read(readable) if png16.has_16_bits(readable) else None
        if deep is not None:
            image = PngImageFile(io.BytesIO(png16.without_pixels(readable)))
        image.load()
        chunks = png_chunks.kept(data)
        return _photo(
            _samples(image) if deep is None else deep,
            **_blocks(image),
            segments=png_chunks.as_segments(chunks),
            chunks=chunks,
            captions=_captions(png_chunks.resources_of(chunks)),
        )


def _tiff(path: Path, data: bytes) -> Photo:
    with _damage(path):
        page = tiff.Page(data)
    _check_size(path, page.width, page.height)
    with _damage(path):
        block, iptc = page.exif(), page.content(Tag.IPTC)
        own = resources.without_thumbnails(page.content(Tag.RESOURCES))
        captions = resources.with_iptc(own, iptc)
        return _photo(
            page.samples(),
            exif=b"Exif\0\0" + block if block else None,
            icc=page.content(Tag.ICC) or None,
            xmp=page.content(Tag.XMP).rstrip(b"\0") or None,
            dpi=_dpi(page.dpi()),
            segments=jpeg_segments.from_resources(captions),
            chunks=png_chunks.from_resources(captions),
            captions=((Tag.RESOURCES, own), (Tag.IPTC, iptc)),
            alpha_kind=page.alpha_kind,
        )


_DECODERS: dict[bytes, Callable[[Path, bytes], Photo]] = {b"\xff\xd8\xff": _jpeg, png16.SIGNATURE: _png}
_DECODERS |= dict.fromkeys(tiff.SIGNATURES, _tiff)


def _opened(path: Path, data: bytes, name: str, plugin: Callable[[BinaryIO], ImageFile]) -> ImageFile:
    """The picture, not yet decoded, by its plugin: Image.open refuses large photos unless a global is changed."""
    try:
        image = plugin(io.BytesIO(data))
    except _BROKEN as error:
        raise ValueError(f"{path} is not a {name} file that can be read: {error}") from error
    _check_size(path, image.width, image.height)
    return image


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > _MAX_MEGAPIXELS * 1_000_000:
        megapixels = width * height / 1e6
        raise ValueError(f"{path} has {megapixels:.0f} megapixels, more than {_MAX_MEGAPIXELS}; scale it down")
    if width * height == 1:
        raise ValueError(f"{path} is a single pixel, a placeholder rather than a photo; name the photo itself")


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except Unsuitable as error:
        raise ValueError(f"{path} {error}") from error
    except _BROKEN as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _samples(image: Image.Image) -> Samples:
    opaque, grey = not image.has_transparency_data, image.mode in ("1", "L", "LA")
    image = image.convert(("L" if opaque else "LA") if grey else ("RGB" if opaque else "RGBA"))
    return np.array(image).reshape(image.height, image.width, -1)


def _photo(samples: Samples, **details: Any) -> Photo:
    """The photo whose grey or RGB, then alpha if there is one, is ``samples``."""
    channels = samples.shape[2]
    return Photo(
        np.repeat(samples[..., :1], 3, axis=2) if channels < 3 else np.ascontiguousarray(samples[..., :3]),
        alpha=np.ascontiguousarray(samples[..., -1]) if channels % 2 == 0 else None,
        grey=channels < 3,
        **details,
    )


def _blocks(image: Image.Image) -> dict[str, Any]:
    info = image.info
    xmp = info.get("xmp") or None
    return {
        "exif": _exif(image),
        "icc": info.get("icc_profile"),
        "xmp": xmp.encode() if isinstance(xmp, str) else xmp,
        "dpi": _dpi(info.get("dpi")),
    }


def _exif(image: Image.Image) -> bytes:
    """The EXIF block, from where PNG files of old software have it as well; empty when there is none."""
    block: bytes = image.info.get("exif", b"")
    if block or "Raw profile type exif" not in image.info:
        return block
    try:
        return image.getexif().tobytes()
    except _BROKEN:
        return b""


def _dpi(dpi: tuple[float, float] | None) -> tuple[float, float] | None:
    return (float(dpi[0]), float(dpi[1])) if dpi and all(0 < value < 65536 for value in dpi) else None


def _captions(resources: bytes) -> tuple[tuple[int, bytes], ...]:
    return ((Tag.RESOURCES, resources),) if resources else ()
