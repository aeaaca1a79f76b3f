"""ONNX Runtime, CPU execution provider, all graph optimisations."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from abpn_fast import reference
from bench.peers import export


def why_not() -> str | None:
    try:
        importlib.import_module("onnxruntime")
    except ImportError:
        return "onnxruntime not installed; see requirements-dev.txt"
    return export.why_not()


def prepare(model: reference.ABPN, image: Tensor) -> Callable[[], Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    file = export.onnx_file(model, image)
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: image.numpy()}
    return lambda: torch.from_numpy(session.run(["retouched"], inputs)[0])
