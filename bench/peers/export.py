"""The reference as an ONNX file of fixed size, for the runtimes that read one."""

from __future__ import annotations

import hashlib
import importlib
import os
import warnings
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from abpn_fast import reference

CACHE = Path(".cache/bench")


def why_not() -> str | None:
    """What is missing for the export, or None."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} not installed; see requirements-bench.txt" if missing else None


def onnx_file(model: reference.ABPN, image: Tensor) -> Path:
    """The file for images of this shape, made where it does not exist."""
    digest = hashlib.sha256(torch.__version__.encode() + Path(__file__).read_bytes())
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
    # The package's attribute of that name is the function.
    module = importlib.import_module("abpn_fast.reference.laplacian_decompose")
    with mock.patch.object(module, "pyramid_down", _pyramid_down), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(model, (image,), dynamo=True, verbose=False)
    assert program is not None
    program.save(file)


def _pyramid_down(image: Tensor, *, filter: str = "binomial") -> Tensor:
    """``reference.pyramid_down`` as one convolution; its strided slices would become gathers, which are slow."""
    taps = image.new_tensor([1, 3, 3, 1] if filter == "binomial" else [0, 4, 4, 0]) / 8
    padded = pad(image, (1, 1 + image.shape[3] % 2, 1, 1 + image.shape[2] % 2), mode="replicate")
    return conv2d(padded, taps.outer(taps).expand(3, 1, 4, 4), stride=2, groups=3)
