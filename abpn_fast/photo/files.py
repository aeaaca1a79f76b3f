"""Photo files: JPEG and PNG to 8-bit RGB pixels and back, with everything else they hold."""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo

from abpn_fast.photo import metadata

Format = Literal["JPEG", "PNG"]
Writer = Callable[[BinaryIO], None]

_ENDINGS: dict[str, Format] = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
_MAX_MEGAPIXELS = 200
# Of libjpeg; the format itself could have 35 more.
_MAX_JPEG_SIDE = 65500
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow raises on bytes that are no image.
_BROKEN = (OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, OverflowError, struct.error, zlib.error)


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo, upright, in its own colour space.

    Args:
        pixels: (H, W, 3) uint8, sRGB-encoded; a grey photo has three equal channels.
        alpha: (H, W) uint8, or None.
        grey: whether the file has one colour channel, and the result shall.
        exif, icc, xmp: the blocks of the file, for an upright photo, or None.
        dpi: horizontal and vertical, or None.
        segments: comments, captions and extended XMP, ready to write into a JPEG file.
        chunks: texts, captions and colour description, for a PNG file.
    """

    pixels: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None = None
    grey: bool = False
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    segments: bytes = b""
    chunks: tuple[tuple[bytes, bytes], ...] = ()

    def picture(self, pixels: NDArray[np.uint8]) -> Image.Image:
        """``pixels``, (H, W, 3) uint8, in the mode of this photo: L, LA, RGB or RGBA, with its alpha."""
        image = Image.fromarray(pixels)
        if self.grey:
            image = image.convert("L")
        if self.alpha is not None:
            image.putalpha(Image.fromarray(self.alpha))
        return image


def read_photo(path: Path) -> Photo:
    """Read a JPEG or PNG file of up to 200 megapixels.

    Grey, RGB, palette and 1-bit pictures are read, with or without transparency; of a JPEG file with several pictures
    the first. The EXIF orientation is applied.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: there is no file to read.
        ValueError: it is empty, damaged, neither JPEG nor PNG, a single pixel, too large, animated, CMYK or has 16 bits
            per channel.
    """
    data = _read(path)
    image = _decode(path, data)
    xmp = _bytes(image.info.get("xmp") or b"")
    orientation, exif = metadata.upright_exif(_exif(image), metadata.xmp_orientation(xmp))
    if orientation in _TURNS:
        image, xmp = image.transpose(_TURNS[orientation]), metadata.upright_xmp(xmp)
    info, opaque, grey = image.info, not image.has_transparency_data, image.mode in ("1", "L", "LA")
    image = image.convert(("L" if opaque else "LA") if grey else ("RGB" if opaque else "RGBA"))
    return Photo(
        pixels=np.array(image.convert("RGB")),
        alpha=None if opaque else np.array(image.getchannel("A")),
        grey=grey,
        exif=exif,
        icc=info.get("icc_profile"),
        xmp=xmp or None,
        dpi=_dpi(info),
        segments=info["segments"],
        chunks=info["chunks"],
    )


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


def _decode(path: Path, data: bytes) -> Image.Image:
    """The loaded picture; its ``info`` also holds the ``segments`` and ``chunks`` to keep."""
    # The plugins themselves: Image.open refuses photos above 179 megapixels unless a global is changed.
    plugin: Callable[[BinaryIO], ImageFile]
    if data.startswith(b"\xff\xd8\xff"):
        name, plugin = "JPEG", JpegImageFile
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        name, plugin = "PNG", PngImageFile
    else:
        raise ValueError(f"{path} is neither a JPEG nor a PNG file; convert it to one of them")
    try:
        image = plugin(io.BytesIO(metadata.readable_png(data) if name == "PNG" else data))
    except _BROKEN as error:
        raise ValueError(f"{path} is not a {name} file that can be read: {error}") from error
    _check_kind(path, image, data)
    try:
        image.load()
        if isinstance(image, JpegImageFile):
            image.info["segments"] = metadata.kept_jpeg_segments(image.applist)
            image.info["chunks"] = metadata.chunks_from_jpeg(image.applist)
        else:
            image.info["segments"] = metadata.segments_from_png(data)
            image.info["chunks"] = metadata.kept_png_chunks(data)
    except _BROKEN as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return image


def _check_kind(path: Path, image: ImageFile, data: bytes) -> None:
    if image.width * image.height > _MAX_MEGAPIXELS * 1_000_000:
        megapixels = image.width * image.height / 1e6
        raise ValueError(f"{path} has {megapixels:.0f} megapixels, more than {_MAX_MEGAPIXELS}; scale it down")
    if image.width * image.height == 1:
        raise ValueError(f"{path} is a single pixel, a placeholder rather than a photo; name the photo itself")
    if image.mode == "CMYK":
        raise ValueError(f"{path} is a CMYK picture; convert it to RGB with its colour profile first")
    if isinstance(image, PngImageFile):
        if next(metadata.png_chunks(data))[1][8] == 16:
            raise ValueError(f"{path} has 16 bits per channel, of which 8 would be lost; convert it to 8 bits first")
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError(f"{path} is an animation; only single pictures can be retouched")


def _exif(image: Image.Image) -> bytes:
    """The EXIF block, from where PNG files of old software have it as well; empty when there is none."""
    block: bytes = image.info.get("exif", b"")
    if block or "Raw profile type exif" not in image.info:
        return block
    try:
        return image.getexif().tobytes()
    except _BROKEN:
        return b""


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _dpi(info: dict[str | tuple[int, int], Any]) -> tuple[float, float] | None:
    dpi = info.get("dpi")
    return (float(dpi[0]), float(dpi[1])) if dpi and all(0 < value < 65536 for value in dpi) else None


def result_format(path: Path) -> Format:
    """The format that the ending of a file name asks for.

    Raises:
        ValueError: the ending is none of .jpg, .jpeg and .png.
    """
    if path.suffix.lower() not in _ENDINGS:
        raise ValueError(f"the name of a result must end in {', '.join(_ENDINGS)}, got {path.name!r}")
    return _ENDINGS[path.suffix.lower()]


def check_fits(name: Path, photo: Photo, out: Path) -> None:
    """See that the format of ``out`` can hold the photo with its metadata.

    Raises:
        ValueError: it cannot; the message names the photo as ``name``, the limit and what to do.
    """
    if result_format(out) == "PNG":
        return
    reason = None
    if photo.alpha is not None:
        reason = "transparency, which a JPEG file cannot hold"
    if max(photo.pixels.shape[:2]) > _MAX_JPEG_SIDE:
        reason = f"a side of {max(photo.pixels.shape[:2])} pixels, and a JPEG file at most {_MAX_JPEG_SIDE}"
    # Of XMP 29 bytes less for its name; of an ICC profile 255 segments with 14 bytes less.
    segment = metadata.JPEG_SEGMENT
    blocks = {"EXIF": (photo.exif, segment), "XMP": (photo.xmp, segment - 29), "ICC": (photo.icc, 255 * (segment - 14))}
    for kind, (block, limit) in blocks.items():
        if block is not None and len(block) > limit:
            reason = f"{len(block)} bytes of {kind}, and a JPEG file at most {limit}"
    if reason:
        raise ValueError(f"{name} has {reason}; let the result end in .png")


def picture_writer(path: Path, picture: Image.Image, photo: Photo | None = None, quality: int = 95) -> Writer:
    """What writes ``picture`` into an open file, in the format that ``path`` asks for.

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
        info.add_itxt("XML:com.adobe.xmp", metadata.without_extension(photo.xmp).decode("utf-8", "replace"))
    return info
