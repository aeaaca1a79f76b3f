"""A trained model as two files: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from abpn_fast.config import ABPNConfig

_BUNDLED = Path(__file__).parent / "weights"
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


def bundled() -> list[str]:
    """The names of the weights that come with the package."""
    return sorted(folder.name for folder in _BUNDLED.iterdir() if (folder / _WEIGHTS).is_file())


def read(name_or_path: str | os.PathLike[str]) -> tuple[ABPNConfig, dict[str, Tensor]]:
    """Options and tensors of a bundled or saved model.

    Raises:
        FileNotFoundError, ValueError: as for ``ABPN.from_pretrained``.
    """
    folder = _BUNDLED / name_or_path if str(name_or_path) in bundled() else Path(name_or_path)
    for file in (_CONFIG, _WEIGHTS):
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f"no model {str(name_or_path)!r}: it is none of the bundled weights ({', '.join(bundled()) or 'none'}) "
                f"and no folder with {_CONFIG} and {_WEIGHTS}"
            )
    try:
        config = ABPNConfig.from_json((folder / _CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / _CONFIG} is not an ABPN config: {error}") from error
    try:
        return config, load_file(folder / _WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / _WEIGHTS} is not a whole safetensors file: {error}") from error


def load_strictly(model: nn.Module, state: dict[str, Tensor], source: str | os.PathLike[str]) -> None:
    """Load every tensor, none missing, none left over, each of the right shape.

    Raises:
        ValueError: with the first few that do not fit.
    """
    own = model.state_dict()
    faults = [f"{name} is missing" for name in own.keys() - state.keys()]
    faults += [f"{name} is unknown" for name in state.keys() - own.keys()]
    faults += [
        f"{name} has shape {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own.keys() & state.keys()
        if own[name].shape != state[name].shape
    ]
    if faults:
        listed = "; ".join(sorted(faults)[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
        raise ValueError(f"the weights of {str(source)!r} do not fit its config: {listed}")
    model.load_state_dict(state)


def check_dtype(dtype: object) -> None:
    """Refuse ``dtype`` unless weights keep their values in it."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating torch.dtype, as torch.float16, got {dtype!r}")


def check_device(device: object) -> None:
    """Refuse ``device`` unless this machine and this PyTorch have it."""
    try:
        torch.empty(0, device=device)  # type: ignore[call-overload]
    except (AssertionError, RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device must be one that PyTorch has here, got {device!r}: {reason}") from error


def write(
    folder: str | os.PathLike[str], config: ABPNConfig, state: dict[str, Tensor], dtype: torch.dtype | None
) -> Path:
    """Write both files, the weights first, each whole or not at all.

    Raises:
        TypeError: ``dtype`` is not a floating one.
    """
    if dtype is not None:
        check_dtype(dtype)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    stored = {
        name: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous().clone()
        for name, value in state.items()
    }
    replace(target / _WEIGHTS, lambda partial: save_file(stored, partial, metadata={"format": "pt"}))
    replace(target / _CONFIG, lambda partial: partial.write_text(config.to_json(), encoding="utf-8"))
    return target


def replace(path: Path, write_to: Callable[[Path], object]) -> None:
    """Write ``path`` whole or not at all: ``write_to`` fills a file beside it, which then takes its name.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        partial.touch()
        # As any new file is readable: safetensors writes for the owner alone.
        mode = stat.S_IMODE((path if path.exists() else partial).stat().st_mode)
        write_to(partial)
        partial.chmod(mode)
        os.replace(partial, path)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
