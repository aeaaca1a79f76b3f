"""Adaptive Blend Pyramid Network: local retouching of ultra-high-resolution photos, fast and in little memory.

Importing the package queries no driver, compiles nothing and does not need triton.
"""

from abpn_fast import ops, reference
from abpn_fast.backends import compatible_backends, use_backend, why_not
from abpn_fast.config import ABPNConfig
from abpn_fast.model import ABPN, accelerate
from abpn_fast.reference import Retouched, default_levels
from abpn_fast.version import __version__


def __getattr__(name: str) -> object:
    # The photo command brings Pillow along; the model does without.
    if name == "retouch_file":
        from abpn_fast.photo import retouch_file

        return retouch_file
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "ABPN",
    "ABPNConfig",
    "Retouched",
    "__version__",
    "accelerate",
    "compatible_backends",
    "default_levels",
    "ops",
    "reference",
    "retouch_file",
    "use_backend",
    "why_not",
]
