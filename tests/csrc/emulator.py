"""The CUDA kernels of the gated convolution compiled for the CPU, where every thread is a fiber (emulated_device.h)."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

CSRC = Path(__file__).parents[2] / "csrc"
KERNELS = ("wide", "middle", "narrow", "full")
_TYPES = (torch.float16, torch.bfloat16, torch.float32)


def cuda_headers() -> Path | None:
    """Where nvcc's own headers are, whose half types also work on a CPU."""
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), nvcc and Path(os.path.realpath(nvcc)).parents[1], "/usr/local/cuda"]
    found = [Path(home) / "include" for home in homes if home]
    return next((path for path in found if (path / "cuda_fp16.h").exists()), None)


def why_not() -> str | None:
    return "there are no CUDA headers or no C++ compiler" if not (cuda_headers() and shutil.which("g++")) else None


@functools.cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "emulated.so"
        command = [
            "g++",
            "-std=c++17",
            "-O2",
            "-fPIC",
            "-shared",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unknown-pragmas",
        ]
        command += ["-ffp-contract=off", f"-isystem{cuda_headers()}", f"-I{CSRC / 'include'}", f"-I{CSRC / 'cuda'}"]
        command += [str(Path(__file__).with_name("emulated_gated_conv.cpp")), "-o", str(built)]
        subprocess.run(command, check=True)
        library = ctypes.CDLL(str(built))
    library.emulate.restype = ctypes.c_char_p
    return library


def gated_conv(
    features: Tensor | None,
    skip: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    skip_weight: Tensor | None,
    skip_bias: Tensor | None,
    negative_slope: float,
    out: Tensor,
    *,
    kernel: str,
    phased: bool,
    multiprocessors: int,
    seed: int = 0,
    gated: bool = True,
    stride: int = 1,
) -> None:
    """As backend cuda's, with the kernel named and, by the number of multiprocessors, the splits; or a convolution."""
    weight, bias = weight.contiguous(), bias.contiguous()
    skip_weight = None if skip_weight is None else skip_weight.contiguous()
    skip_bias = None if skip_bias is None else skip_bias.contiguous()
    count, channels, height, width = out.shape
    shape = [count, height, width, 0 if features is None else features.shape[1], skip.shape[1], channels]
    shape += [*(mask.shape[2:] if mask is not None else (0, 0)), skip_weight is not None, phased, gated, stride]
    sources = (features, skip, mask)
    layouts = [(out if source is None else source) for source in (*sources, out)]
    error = _library().emulate(
        (ctypes.c_int64 * 12)(*map(int, shape)),
        KERNELS.index(kernel),
        _TYPES.index(skip.dtype),
        multiprocessors,
        ctypes.c_uint(seed),
        (ctypes.c_void_p * 3)(*map(_address, sources)),
        (ctypes.c_int64 * 16)(*(size for layout in layouts for size in layout.shape)),
        (ctypes.c_int64 * 16)(*(stride for layout in layouts for stride in layout.stride())),
        *(ctypes.c_void_p(_address(tensor)) for tensor in (weight, skip_weight, bias, skip_bias)),
        ctypes.c_float(negative_slope),
        ctypes.c_void_p(_address(out)),
    )
    if error is not None:
        raise RuntimeError(error.decode())


def gated_gradient(both: Tensor, kept: Tensor | None, grad: Tensor, negative_slope: float, *, last: bool) -> bool:
    """As the library's ``gated_conv_gradient``; whether numbers went by groups of 16 bytes."""
    count, channels, height, width = grad.shape
    runs = (count * height * width, channels) if last else (count, channels * height * width)
    groups = _library().emulate_gradient(
        *(ctypes.c_void_p(_address(tensor)) for tensor in (both, kept, grad)),
        *map(ctypes.c_int64, runs),
        _TYPES.index(grad.dtype),
        ctypes.c_float(negative_slope),
    )
    return bool(groups)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
