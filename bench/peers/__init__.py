"""The candidates. Each is a module of this package with two functions:

``why_not()``: in one sentence why it cannot run here, or None; imports what it needs, which is no memory of its own.
``prepare(model, image)``: from the reference network in eval mode and an image of (N, 3, H, W) in the dtype of the
candidate, a function without arguments that computes the result, a tensor of (N, 3, H, W).
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import NamedTuple


class Candidate(NamedTuple):
    """A line of the tables.

    Args:
        label: for readers.
        accuracy: a key of ``parity.TOLERANCES``.
        image: dtype of the image it is given and of its result.
        ours: whether it is this project.
    """

    label: str
    accuracy: str
    image: str
    ours: bool = False


CANDIDATES = {
    "ours": Candidate("abpn_fast", "float32", "float32", ours=True),
    "ours_uint8": Candidate("abpn_fast, uint8 in and out", "uint8", "uint8", ours=True),
    "ours_strips": Candidate("abpn_fast, uint8, strips", "uint8", "uint8", ours=True),
    "ours_bf16": Candidate("abpn_fast, bfloat16", "bfloat16", "bfloat16", ours=True),
    "eager": Candidate("PyTorch eager", "float32", "float32"),
    "eager_channels_last": Candidate("PyTorch eager, channels_last", "float32", "float32"),
    "compiled": Candidate("torch.compile", "float32", "float32"),
    "onnxruntime": Candidate("ONNX Runtime", "float32", "float32"),
    "openvino": Candidate("OpenVINO", "float32", "float32"),
    "openvino_bf16": Candidate("OpenVINO, bfloat16", "bfloat16", "float32"),
}


def module(name: str) -> ModuleType:
    """The module of a candidate."""
    return importlib.import_module(f"bench.peers.{name}")
