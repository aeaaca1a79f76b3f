"""How the CUDA library is compiled: by ``setup.py``, or on first use where no compiled one was installed.

Only the standard library at import; ``TORCH_CUDA_ARCH_LIST`` names the architectures for ``setup.py``, e.g.
``"8.0;9.0a+PTX"``; what is compiled on first use is for the GPUs that are there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

# The oldest LibTorch and Python whose stable interfaces are used; the library loads under every later one.
TORCH_TARGET = "0x020a000000000000"
PYTHON_LIMIT = "0x030a0000"
# A link to the sources; in a wheel, a copy.
SOURCES = Path(__file__).parent / "_csrc"
NVCC_FLAGS = (
    "-std=c++17",
    "-O3",
    # As for the CPU: fused multiply-adds are written out where they are meant.
    "--fmad=false",
    "--expt-relaxed-constexpr",
    "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra",
)
# Without a list and without a GPU to ask.
_ARCHITECTURES = "8.0;9.0;10.0+PTX"
_LOCK_SECONDS = 900


def nvcc() -> str | None:
    """The CUDA compiler of ``CUDA_HOME``, or the first on the path, or where the toolkit is installed by default."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if home:
        return shutil.which("nvcc", path=str(Path(home) / "bin"))
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def why_not_buildable() -> str | None:
    """What is missing to compile, in a few words, or None."""
    if os.name != "posix":
        return "it is built on Linux only"
    if nvcc() is None:
        return "there is no nvcc (install the CUDA toolkit, or set CUDA_HOME to it)"
    if not (SOURCES / "cuda").exists():
        return f"its sources are not in {SOURCES}"
    return None


def architecture_flags(wanted: str | None = None) -> list[str]:
    """nvcc's flags for ``wanted``, else ``TORCH_CUDA_ARCH_LIST``, else the GPUs of this machine.

    Raises:
        ValueError: an architecture is not a number such as 8.0, 9.0a or 10.0+PTX.
    """
    flags = []
    for name in (wanted or os.environ.get("TORCH_CUDA_ARCH_LIST") or own_architectures()).replace(";", " ").split():
        if not re.fullmatch(r"\d+\.\d[af]?(\+PTX)?", name):
            raise ValueError(f"TORCH_CUDA_ARCH_LIST must hold numbers such as 8.0, 9.0a or 10.0+PTX, got {name!r}")
        number = name.removesuffix("+PTX").replace(".", "")
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if name.endswith("+PTX"):
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def compile_library(target: Path, folder: Path, architectures: str | None = None) -> None:
    """Compile ``_C_cuda`` to ``target``, with ``folder`` for what is in between; see ``architecture_flags``.

    Raises:
        RuntimeError: the compiler failed; the message ends with its own.
    """
    from torch.utils.cpp_extension import include_paths, library_paths

    folder.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    ours = [f"-I{SOURCES / 'include'}", f"-I{SOURCES / 'cuda'}"]
    # As system headers, whose warnings are not ours.
    theirs = [f"-isystem={path}" for path in (*include_paths(), sysconfig.get_path("include"))]
    defines = [f"-DTORCH_TARGET_VERSION={TORCH_TARGET}", f"-DPy_LIMITED_API={PYTHON_LIMIT}"]
    sources = sorted((SOURCES / "cuda").glob("*.c[pu]*"))
    sources = [source for source in sources if source.suffix in (".cu", ".cpp")]
    objects = [folder / f"{source.name}.o" for source in sources]
    commands = []
    for source, made in zip(sources, objects, strict=True):
        # The kernels know nothing of PyTorch, which keeps them quick to compile.
        extra = architecture_flags(architectures) if source.suffix == ".cu" else [*theirs, *defines]
        commands.append([str(nvcc()), *NVCC_FLAGS, *ours, *extra, "-c", str(source), "-o", str(made)])
    _run(commands)
    libraries = [f"-L{path}" for path in library_paths()] + ["-ltorch_cpu"]
    _run([[str(nvcc()), "-shared", "-cudart=static", *map(str, objects), *libraries, "-o", str(target)]])


def on_first_use() -> Path:
    """The library compiled for this machine in the user's cache, now or earlier; one process compiles, others wait.

    Raises:
        RuntimeError: it cannot be compiled; one sentence says why.
    """
    if os.environ.get("ABPN_FAST_DISABLE_JIT") == "1":
        raise RuntimeError("backend cuda is not compiled, and ABPN_FAST_DISABLE_JIT=1 forbids compiling it now")
    missing = why_not_buildable()
    if missing is not None:
        raise RuntimeError(f"backend cuda is not compiled and cannot be compiled here: {missing}")
    folder = _cache() / _key()
    target = folder / "_C_cuda.abi3.so"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / "lock"):
            if not target.exists():
                whole = folder / f"{os.getpid()}.so"
                compile_library(whole, folder / "objects", own_architectures())
                whole.replace(target)
    except OSError as error:
        raise RuntimeError(f"backend cuda is not compiled and {folder} cannot be written: {error}") from error
    return target


def own_architectures() -> str:
    """Those of the GPUs of this machine, or some where there is none."""
    import torch

    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    own = {torch.cuda.get_device_capability(device) for device in devices}
    return ";".join(f"{major}.{minor}" for major, minor in sorted(own)) or _ARCHITECTURES


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "abpn_fast"


def _key() -> str:
    """Changes with the sources, the flags and the compiler."""
    digest = hashlib.sha256()
    for path in sorted([*(SOURCES / "cuda").iterdir(), *(SOURCES / "include").iterdir()]):
        digest.update(path.name.encode() + path.read_bytes())
    version = subprocess.run([str(nvcc()), "--version"], capture_output=True, check=False).stdout
    digest.update(repr((NVCC_FLAGS, own_architectures())).encode() + version)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process at a time; the system frees it when that process dies."""
    import fcntl

    with path.open("w") as file:
        end = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise RuntimeError(
                        f"backend cuda waited {_LOCK_SECONDS} s for another process that compiles it, see {path}"
                    ) from None
                time.sleep(0.2)
        yield


def _run(commands: Sequence[Sequence[str]]) -> None:
    """All at once; there are as many as there are source files."""
    running = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for c in commands]
    outputs = [process.communicate()[0] for process in running]
    for process, output in zip(running, outputs, strict=True):
        if process.returncode:
            last = " ".join(output.strip().splitlines()[-3:])
            raise RuntimeError(f"backend cuda does not compile: {last or 'nvcc failed without a word'}")
