"""The reference under ``torch.compile`` with its defaults, for the one shape."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable

import torch
from torch import Tensor

from abpn_fast import reference


def why_not() -> str | None:
    importlib.import_module("torch._inductor.compile_fx")
    return None if shutil.which("c++") or shutil.which("g++") else "torch.compile needs a C++ compiler"


def prepare(model: reference.ABPN, image: Tensor) -> Callable[[], Tensor]:
    compiled = torch.compile(model, dynamic=False)
    return lambda: compiled(image)
