"""OpenVINO computing in bfloat16; image and result stay float32."""

from __future__ import annotations

import functools

from bench.peers import openvino

why_not = openvino.why_not
prepare = functools.partial(openvino.prepare, precision="bf16")
