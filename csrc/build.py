"""How the native library is compiled: one description for wheels and for builds in place."""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext

# Flags hold for every compiler that takes GCC's; torch's own class would add what its unstable interface needs.
BuildExtension = build_ext

_HERE = Path(__file__).parent
# The oldest LibTorch and Python whose stable interfaces are used; the library loads under every later one.
_TORCH_TARGET = "0x020a000000000000"
_PYTHON_LIMIT = "0x030a0000"

COMPILE_FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-fvisibility=hidden",
    # Fused multiply-adds are written out where they are meant, so that a result does not depend on what was inlined.
    "-ffp-contract=off",
    # Neither errno nor floating-point traps are looked at; both stand in the way of vectorised loops.
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wall",
    "-Wextra",
]


def extensions() -> list[Extension]:
    """``abpn_fast._C``, the CPU kernels; torch must be importable."""
    from torch.utils.cpp_extension import include_paths, library_paths

    return [
        Extension(
            "abpn_fast._C",
            _relative("cpu/*.cpp"),
            depends=_relative("include/*.h"),
            include_dirs=[_from_root(_HERE / "include")],
            library_dirs=library_paths(),
            libraries=["torch_cpu"],
            define_macros=[("TORCH_TARGET_VERSION", _TORCH_TARGET), ("Py_LIMITED_API", _PYTHON_LIMIT)],
            # As system headers, whose warnings are not ours.
            extra_compile_args=COMPILE_FLAGS + [f"-isystem{path}" for path in include_paths()],
            py_limited_api=True,
            language="c++",
        )
    ]


def _relative(pattern: str) -> list[str]:
    return [_from_root(path) for path in sorted(_HERE.glob(pattern))]


def _from_root(path: Path) -> str:
    return os.path.relpath(path, _HERE.parent)
