"""The reference as an ONNX file of fixed size, for the runtimes that read one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor

from abpn_fast import export, reference

CACHE = Path(".cache/bench")


def why_not() -> str | None:
    """What is missing for the export, or None."""
    missing = export.missing_packages()
    return f"{' and '.join(missing)} not installed; see requirements-dev.txt" if missing else None


def onnx_file(model: reference.ABPN, image: Tensor) -> Path:
    """The file for images of this shape, made where it does not exist."""
    digest = hashlib.sha256(torch.__version__.encode() + Path(export.__file__).read_bytes())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    file = CACHE / f"{image.shape[2]}x{image.shape[3]}-{digest.hexdigest()[:16]}.onnx"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}.onnx")
        _export(model, image, part)
        part.replace(file)
    return file


def _export(model: reference.ABPN, image: Tensor, file: Path) -> None:
    levels = reference.default_levels(image.shape[2], image.shape[3])
    export.onnx_program(model, image, levels=levels).save(file)
