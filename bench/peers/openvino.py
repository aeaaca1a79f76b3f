"""OpenVINO on the CPU, without a copy of the input or the result."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from abpn_fast import reference
from bench.peers import export


def why_not() -> str | None:
    try:
        importlib.import_module("openvino")
    except ImportError:
        return "openvino not installed; see requirements-bench.txt"
    return export.why_not()


def prepare(model: reference.ABPN, image: Tensor, precision: str = "f32") -> Callable[[], Tensor]:
    import openvino

    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(export.onnx_file(model, image), "CPU", options)
    request, inputs = compiled.create_infer_request(), [image.numpy()]
    return lambda: torch.from_numpy(request.infer(inputs, share_inputs=True, share_outputs=True)[0])
