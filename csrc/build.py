"""How the native libraries are compiled: one description for wheels and for builds in place."""

from __future__ import annotations

import importlib.util
import os
import platform
from pathlib import Path
from types import ModuleType

from setuptools import Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError

_HERE = Path(__file__).parent


def _cuda_build() -> ModuleType:
    """``abpn_fast/cuda_build.py``, without the package around it."""
    path = _HERE.parent / "abpn_fast" / "cuda_build.py"
    spec = importlib.util.spec_from_file_location("abpn_fast_cuda_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cuda_build = _cuda_build()


class BuildExtension(build_ext):
    """Compiles the CPU library as any extension and the CUDA library with nvcc."""

    def build_extension(self, ext: Extension) -> None:
        """Torch's own class would add what its unstable interface needs."""
        if ext.name == "abpn_fast._C_cuda":
            cuda_build.compile_library(Path(self.get_ext_fullpath(ext.name)).resolve(), Path(self.build_temp) / "cuda")
            return
        try:
            super().build_extension(ext)
        except CCompilerError as error:
            hint = "see above for why, or set ABPN_FAST_BUILD_CPU=0 to do without the fast CPU backend"
            raise type(error)(f"{error}; {hint}") from error


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
# GCC moves loads up, on ARM by default, until the sums of a tile no longer fit in the registers; clang does not.
ARM_FLAGS = ["-fno-schedule-insns"]
if platform.machine() == "aarch64":
    COMPILE_FLAGS += ARM_FLAGS
# ``ABPN_FAST_SANITIZE=1``, for `make test-sanitize`: what is undefined or out of bounds ends the program.
SANITIZE_FLAGS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1", "-g1"]


def cpu_extension() -> Extension:
    """``abpn_fast._C``, the CPU kernels; torch must be importable."""
    from torch.utils.cpp_extension import include_paths, library_paths

    sanitize = SANITIZE_FLAGS if os.environ.get("ABPN_FAST_SANITIZE") == "1" else []
    targets = [("TORCH_TARGET_VERSION", cuda_build.TORCH_TARGET), ("Py_LIMITED_API", cuda_build.PYTHON_LIMIT)]
    return Extension(
        "abpn_fast._C",
        _relative("cpu/*.cpp"),
        depends=_relative("include/*.h"),
        include_dirs=[_from_root(_HERE / "include")],
        library_dirs=library_paths(),
        libraries=["torch_cpu"],
        define_macros=targets,
        # As system headers, whose warnings are not ours.
        extra_compile_args=COMPILE_FLAGS + [f"-isystem{path}" for path in include_paths()] + sanitize,
        extra_link_args=sanitize[:1],
        py_limited_api=True,
        language="c++",
    )


def cuda_extension() -> Extension:
    """``abpn_fast._C_cuda``, the CUDA kernels; torch must be importable and nvcc at hand."""
    sources = [*_relative("cuda/*.cu"), *_relative("cuda/*.cpp")]
    depends = [*_relative("cuda/*.cuh"), *_relative("cuda/*.h"), *_relative("include/*.h")]
    return Extension("abpn_fast._C_cuda", sources, depends=depends, py_limited_api=True)


def why_no_cuda(asked: bool) -> str | None:
    """Why the CUDA library is left out, or None; unless ``asked`` for, also where there is nothing to run it."""
    import torch

    missing: str | None = cuda_build.why_not_buildable()
    if missing is None and not asked and not torch.cuda.is_available() and not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return "there is no GPU (set TORCH_CUDA_ARCH_LIST to build for others)"
    return missing


def _relative(pattern: str) -> list[str]:
    return [_from_root(path) for path in sorted(_HERE.glob(pattern))]


def _from_root(path: Path) -> str:
    return os.path.relpath(path, _HERE.parent)
