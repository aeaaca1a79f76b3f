"""Pixels of 16 bits, and of TIFF files, by imagecodecs: Pillow rounds colours to 8 bits and divides by alpha."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.uint8 | np.uint16]


class Unsuitable(ValueError):
    """A file that is whole and cannot be retouched; the message continues after its name."""


def decode_png(data: bytes) -> Samples:
    """The pixels, (H, W, C), with alpha where a colour is declared transparent.

    Raises:
        Unsuitable: imagecodecs is not installed.
        ValueError: the file is damaged.
    """
    return _with_channels(_run("png_decode", data))


def encode_png(samples: Samples) -> bytes:
    """A PNG file of (H, W, C) uint16 without any metadata."""
    return bytes(_run("png_encode", np.ascontiguousarray(samples if samples.shape[2] > 1 else samples[..., 0])))


def decode_tiff(data: bytes, page: int, planar: bool) -> Samples:
    """The pixels of a page, (H, W, C), as they are stored.

    Raises:
        Unsuitable, ValueError: as above.
    """
    samples = _run("tiff_decode", data, index=page)
    return _with_channels(np.moveaxis(samples, 0, 2) if planar and samples.ndim == 3 else samples)


def _run(name: str, data: Any, **options: Any) -> Any:
    try:
        import imagecodecs
    except ImportError:
        raise Unsuitable("is a TIFF file or has 16 bits per channel; pip install 'abpn_fast[deep]' for those") from None
    try:
        return getattr(imagecodecs, name)(data, **options)
    except RuntimeError as error:
        # What libtiff says has several lines or none.
        raise ValueError(" ".join(str(error).split()) or "its pixels cannot be decoded") from error


def _with_channels(samples: Samples) -> Samples:
    return samples[..., None] if samples.ndim == 2 else samples
