"""The network as one ONNX file, for phones, browsers and other runtimes."""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from abpn_fast import checkpoint, reference
from abpn_fast.reference.model import check_levels
from abpn_fast.reference.upsample import upsample

# A thumbnail whose sides are no multiples of 64, so that what pads it is part of the graph.
_THUMBNAIL = (9, 13)
_MOST_LEVELS = 16


def export_onnx(model: reference.ABPN, path: str | os.PathLike[str], *, levels: int) -> Path:
    """Write ``model`` as an ONNX file for photos of any size, in float32.

    Its input is ``image``, I_0, (N, 3, H, W), sRGB in [0, 1]. Its outputs are ``retouched``, R_0, of the same shape,
    to be clamped to [0, 1], and, where the model has a mask branch, ``mask``, M, as in
    :class:`abpn_fast.reference.Retouched`. The runtime computes as the reference does: none of this package's kernels
    are in it, and every layer of the pyramid is in its memory.

    Args:
        model: what to write; it is not changed.
        path: the file, which is replaced whole or not at all.
        levels: l, how often a photo is halved before the retouching layer; fixed in the file.

    Returns:
        ``path``.

    Raises:
        ModuleNotFoundError: a package that writes ONNX is missing.
        ValueError, TypeError: no such number of levels, or ``model`` is none.
        OSError: the file cannot be written, or its folder does not exist.
        RuntimeError: this PyTorch cannot; 2.11 does not know the sizes that refining has, 2.13 does.
    """
    path = Path(path)
    if not isinstance(model, reference.ABPN):
        raise TypeError(f"model must be an abpn_fast.ABPN or abpn_fast.reference.ABPN, got {type(model).__name__}")
    if missing := missing_packages():
        raise ModuleNotFoundError(f"{missing[0]} is not installed; pip install 'abpn_fast[export]'", name=missing[0])
    if levels is None:
        raise TypeError("levels must be an integer, got None; a file has one number of levels for photos of all sizes")
    check_levels(levels, *_THUMBNAIL, model.config)
    if levels > _MOST_LEVELS:
        raise ValueError(f"levels must be an integer up to {_MOST_LEVELS} in an ONNX file, got {levels}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {path.parent}; create it first")
    # Only its shape is looked at.
    example = torch.zeros(()).expand(2, 3, *(side << levels for side in _THUMBNAIL))
    any_size = {0: torch.export.Dim("N"), 2: torch.export.Dim("H"), 3: torch.export.Dim("W")}
    try:
        program = onnx_program(model, example, levels=levels, dynamic_shapes=(any_size,))
    except torch.onnx.OnnxExporterError as error:
        raise RuntimeError(f"PyTorch {torch.__version__} cannot write this network as ONNX; 2.13 can") from error
    program.model.metadata_props["levels"] = str(levels)
    checkpoint.replace(path, program.save)
    return path


def missing_packages() -> list[str]:
    """Those that write ONNX and are not installed."""
    return [package for package in ("onnx", "onnxscript") if importlib.util.find_spec(package) is None]


def onnx_program(model: reference.ABPN, image: Tensor, *, levels: int, **options: Any) -> torch.onnx.ONNXProgram:
    """``model`` for images as ``image``; ``options`` are those of ``torch.onnx.export``."""
    names = ["retouched", "mask"] if model.config.mask_branch else ["retouched"]
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            _Network(model, levels),
            (image,),
            input_names=["image"],
            output_names=names,
            dynamo=True,
            verbose=False,
            **options,
        )
    assert program is not None
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that are not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class _Network(nn.Module):
    """The reference's forward pass, with a reduction that ONNX has a fast operator for."""

    def __init__(self, model: reference.ABPN, levels: int) -> None:
        super().__init__()
        self.model = reference.ABPN(model.config).eval()
        self.model.load_state_dict(model.state_dict())
        self.levels = levels

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        pyramid = [image]
        for _ in range(self.levels):
            pyramid.append(_pyramid_down(pyramid[-1], self.model.config.pyramid_filter))
        mask, low_res = self.model.retouch(pyramid[-1])
        blend = self.model.blend.reverse(pyramid[-1], low_res)
        for i in reversed(range(self.levels)):
            size = (pyramid[i].shape[2], pyramid[i].shape[3])
            blend = upsample(blend, size)
            if self.model.config.refining:
                blend = self.model.refining_at(i)(blend, pyramid[i] - upsample(pyramid[i + 1], size))
        result = self.model.apply_blend(image, blend, 1.0)
        return (result,) if mask is None else (result, mask)


def _pyramid_down(image: Tensor, filter: str) -> Tensor:
    """``reference.pyramid_down`` as one convolution; its strided slices would become gathers, which are slow.

    The last column beyond an even width is not reached. Padding by ``1 + width % 2`` instead would nest remainders that
    the exporter takes minutes with from six levels on.
    """
    taps = image.new_tensor([1, 3, 3, 1] if filter == "binomial" else [0, 4, 4, 0]) / 8
    padded = pad(image, (1, 2, 1, 2), mode="replicate")
    return conv2d(padded, taps.outer(taps).expand(3, 1, 4, 4), stride=2, groups=3)
