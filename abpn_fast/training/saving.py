"""A run's state as one safetensors file: every tensor by name, the rest as JSON in its header."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from abpn_fast.checkpoint import load_strictly, replace

_FORMAT = "abpn_fast training 1"
_AS_BEGUN = "continue the run with the options it began with"


def save(path: Path, state: Mapping[str, nn.Module | Optimizer], facts: Mapping[str, Any]) -> None:
    """Write the modules, the optimisers and ``facts``, which JSON can hold, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    groups: dict[str, Any] = {}
    for name, part in state.items():
        if isinstance(part, nn.Module):
            values = part.state_dict()
        else:
            values, groups[name] = _flat(part)
        tensors |= {f"{name}.{key}": value.detach().cpu().contiguous().clone() for key, value in values.items()}
    header = {
        "format": _FORMAT,
        "facts": json.dumps(dict(facts)),
        "groups": json.dumps(groups),
        "crc32": str(_checksum(tensors)),
    }
    # Of runs that were killed while they wrote.
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink()
    replace(path, lambda partial: save_file(tensors, partial, metadata=header))


def load(path: Path, state: Mapping[str, nn.Module | Optimizer]) -> dict[str, Any]:
    """Fill the modules and optimisers, with no tensor missing or left over, and return the facts.

    Raises:
        ValueError: the file is damaged or belongs to another kind of run; nothing usable is in ``state`` then.
    """
    tensors, header = _read(path)
    groups = json.loads(header["groups"])
    unknown = {name.partition(".")[0] for name in tensors} - state.keys()
    if unknown:
        raise ValueError(f"{path} also holds {', '.join(sorted(unknown))}; {_AS_BEGUN}")
    for name, part in state.items():
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        if isinstance(part, nn.Module):
            load_strictly(part, own, path)
        elif name not in groups:
            raise ValueError(f"{path} holds no {name}; {_AS_BEGUN}")
        else:
            _fill(part, own, groups[name], path)
    facts: dict[str, Any] = json.loads(header["facts"])
    return facts


def facts_of(path: Path) -> dict[str, Any]:
    """The facts alone, without a look at the tensors.

    Raises:
        ValueError: the file is damaged.
    """
    facts: dict[str, Any] = json.loads(_header(path)["facts"])
    return facts


def _flat(optimiser: Optimizer) -> tuple[dict[str, Tensor], Any]:
    stored = optimiser.state_dict()
    tensors = {f"{index}.{key}": value for index, each in stored["state"].items() for key, value in each.items()}
    return tensors, stored["param_groups"]


def _fill(optimiser: Optimizer, tensors: dict[str, Tensor], groups: Any, path: Path) -> None:
    own = optimiser.state_dict()["param_groups"]
    if [group["params"] for group in own] != [group["params"] for group in groups]:
        raise ValueError(f"{path} optimises other parameters than this model has")
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = value
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for index, each in state.items():
        for key, value in each.items():
            if value.dim() and value.shape != parameters[index].shape:
                raise ValueError(f"{path} has {key} of shape {tuple(value.shape)} for parameter {index}")
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def _header(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            header: dict[str, str] | None = file.metadata()
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    if not header or header.get("format") != _FORMAT:
        raise ValueError(f"{path} is not the state of a run")
    return header


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    header = _header(path)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if str(_checksum(tensors)) != header["crc32"]:
        raise ValueError(f"{path} is damaged: its checksum is wrong; take an older copy or another folder")
    return tensors, header


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    value = 0
    for name in sorted(tensors):
        data: Any = tensors[name].reshape(-1).view(torch.uint8).numpy()
        value = zlib.crc32(data, zlib.crc32(name.encode(), value))
    return value
