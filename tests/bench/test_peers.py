"""Every candidate computes what the reference does, on a small photo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from abpn_fast import reference
from bench import images, networks, parity, peers
from bench.peers import export

SIZE = 66, 50
# Compiles for half a minute.
QUICK = [name for name in peers.CANDIDATES if name != "compiled"]


def random_network() -> reference.ABPN:
    """It changes every pixel, as the trained one does not."""
    torch.manual_seed(0)
    return reference.ABPN("small").eval().requires_grad_(False)


def test_one_module_each() -> None:
    found = {file.stem for file in Path(peers.__file__).parent.glob("*.py")} - {"__init__", "export"}
    assert found == set(peers.CANDIDATES)
    for name in found:
        reason = peers.module(name).why_not()
        assert reason is None or isinstance(reason, str)


@pytest.mark.parametrize("name", QUICK)
@torch.inference_mode()
def test_parity(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = peers.module(name).why_not()
    if reason is not None:
        pytest.skip(reason)
    monkeypatch.setattr(export, "CACHE", tmp_path)
    candidate, photo = peers.CANDIDATES[name], images.photo(*SIZE)
    image = images.photo(*SIZE, getattr(torch, candidate.image))
    result = peers.module(name).prepare(random_network(), image)()
    assert result.dtype == image.dtype
    expected = random_network()(photo / 255)
    found = parity.check(result, expected, photo / 255, candidate.accuracy)
    assert found.refusal is None, found


def test_a_file_is_exported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "CACHE", tmp_path)
    monkeypatch.setattr(export, "_export", lambda model, image, file: file.write_bytes(b"x"))
    model, image = networks.network("small"), torch.zeros(1, 3, 8, 6)
    file = export.onnx_file(model, image)
    assert file.name.startswith("8x6-") and [*tmp_path.iterdir()] == [file]
    assert export.onnx_file(model, image) == file
    assert export.onnx_file(model, torch.zeros(1, 3, 6, 8)) != file
    model.blend.j = torch.nn.Parameter(model.blend.j + 1)
    assert export.onnx_file(model, image) != file
