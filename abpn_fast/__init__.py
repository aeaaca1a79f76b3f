"""Adaptive Blend Pyramid Network: local retouching of ultra-high-resolution photos, fast and in little memory.

Importing the package loads nothing: torch comes with the first name used, a compiler, a driver or triton never.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from abpn_fast.version import __version__

if TYPE_CHECKING:
    from abpn_fast import ops, reference
    from abpn_fast.backends import compatible_backends, use_backend, why_not
    from abpn_fast.config import ABPNConfig
    from abpn_fast.export import export_onnx
    from abpn_fast.model import ABPN, accelerate
    from abpn_fast.photo import retouch_file
    from abpn_fast.planning import Plan, plan
    from abpn_fast.reference import Retouched, default_levels

_HOME = {
    "ABPN": "model",
    "ABPNConfig": "config",
    "Plan": "planning",
    "Retouched": "reference",
    "accelerate": "model",
    "compatible_backends": "backends",
    "default_levels": "reference",
    "export_onnx": "export",
    "ops": "ops",
    "plan": "planning",
    "reference": "reference",
    "retouch_file": "photo",
    "use_backend": "backends",
    "why_not": "backends",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_HOME[name]}")
    except ModuleNotFoundError as error:
        if _HOME[name] == "photo" and error.name == "PIL":
            message = f"{name} needs Pillow, which is not installed; pip install 'abpn_fast[photo]'"
            raise ModuleNotFoundError(message, name=error.name) from None
        raise
    value = module if name == _HOME[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "ABPN",
    "ABPNConfig",
    "Plan",
    "Retouched",
    "__version__",
    "accelerate",
    "compatible_backends",
    "default_levels",
    "export_onnx",
    "ops",
    "plan",
    "reference",
    "retouch_file",
    "use_backend",
    "why_not",
]
