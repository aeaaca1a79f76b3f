"""ONNX files, run by ONNX Runtime beside the reference."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import abpn_fast
from abpn_fast import reference
from abpn_fast.cli import app

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

SIZES = [(1, 1, 1), (1, 7, 9), (2, 64, 64), (3, 131, 70), (1, 1, 600), (1, 256, 512)]
# In turn all that a file can have, and all that it can be without.
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "whole": (2, {"refining_levels": 2}),
    "bare": (1, {"mask_branch": False, "refining": False, "attention": "gated", "pyramid_filter": "box"}),
}


@pytest.fixture(scope="module", params=KINDS)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[reference.ABPN, int, Any]:
    torch.manual_seed(0)
    levels, options = KINDS[request.param]
    model = reference.ABPN(abpn_fast.ABPNConfig((4, 8, 8, 8, 8, 8), **options))
    with torch.no_grad():
        model(torch.rand(4, 3, 64, 64), levels=1)  # running statistics
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    try:
        assert abpn_fast.export_onnx(model, path, levels=levels) == path
    except RuntimeError as error:
        if torch.__version__ >= (2, 13):
            raise
        pytest.skip(str(error))
    assert [each.name for each in path.parent.iterdir()] == ["model.onnx"]
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return model.eval(), levels, session


def run(session: Any, image: Tensor) -> list[Tensor]:
    return [torch.from_numpy(each) for each in session.run(None, {"image": image.numpy()})]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_size(exported: tuple[reference.ABPN, int, Any], size: tuple[int, int, int]) -> None:
    model, levels, session = exported
    image = torch.rand(size[0], 3, *size[1:])
    with torch.no_grad():
        expected = model(image, levels=levels, return_intermediates=True)
    assert not torch.allclose(expected.image, image, atol=1e-3)
    found = run(session, image)
    wanted = [expected.image] if expected.mask is None else [expected.image, expected.mask]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_what_the_file_says(exported: tuple[reference.ABPN, int, Any]) -> None:
    model, levels, session = exported
    (image,), outputs = session.get_inputs(), session.get_outputs()
    assert (image.name, image.shape) == ("image", ["N", 3, "H", "W"])
    assert (outputs[0].name, outputs[0].shape) == ("retouched", ["N", 3, "H", "W"])
    assert [each.name for each in outputs[1:]] == ["mask"] * (model.mask_branch is not None)
    assert session.get_modelmeta().custom_metadata_map == {"levels": str(levels)}


def test_refused(tmp_path: Path) -> None:
    model = abpn_fast.ABPN("small")
    for levels in (-1, None, 1.5, 17):
        with pytest.raises((ValueError, TypeError), match=f"levels must be .*integer.*, got {levels}"):
            abpn_fast.export_onnx(model, tmp_path / "x.onnx", levels=levels)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"model must be an abpn_fast.*, got str"):
        abpn_fast.export_onnx("small", tmp_path / "x.onnx", levels=1)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*none; create it first"):
        abpn_fast.export_onnx(model, str(tmp_path / "none" / "x.onnx"), levels=1)
    command = CliRunner().invoke(app, ["export", str(tmp_path), "--levels", "1", "--overwrite"])
    assert command.exit_code == 2 and "is a folder; name a file in it" in command.stderr
    assert [*tmp_path.iterdir()] == []


def test_what_pytorch_cannot_write_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    disabled: list[int] = []

    def fail(*_: object, **__: object) -> None:
        disabled.append(logging.root.manager.disable)
        warnings.warn("a page of text", stacklevel=1)
        raise torch.onnx.OnnxExporterError("a page of text")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(RuntimeError, match=r"PyTorch .* cannot write this network as ONNX; 2\.13 can"):
        abpn_fast.export_onnx(abpn_fast.ABPN("small"), tmp_path / "x.onnx", levels=1)
    assert (disabled, logging.root.manager.disable, recwarn.list) == ([logging.WARNING], 0, [])


def test_a_file_that_cannot_be_written_stays_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Program:
        model = SimpleNamespace(metadata_props={})

        def save(self, path: Path) -> None:
            path.write_bytes(b"half of it")
            raise OSError("the disk is full")

    monkeypatch.setattr("abpn_fast.export.onnx_program", lambda *_, **__: Program())
    (tmp_path / "x.onnx").write_bytes(b"old")
    with pytest.raises(OSError, match="the disk is full"):
        abpn_fast.export_onnx(abpn_fast.ABPN("small"), tmp_path / "x.onnx", levels=16)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x.onnx", b"old")]


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else name)
    told = rf"^{package} is not installed; pip install 'abpn_fast\[export\]'"
    with pytest.raises(ModuleNotFoundError, match=told) as refusal:
        abpn_fast.export_onnx(abpn_fast.ABPN("small"), tmp_path / "x.onnx", levels=1)
    assert refusal.value.name == package


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    saved = reference.ABPN(abpn_fast.ABPNConfig((4, 8, 8, 8, 8, 8)))
    abpn_fast.accelerate(saved).save_pretrained(tmp_path / "saved")
    moved = saved.mask_branch.head.bias + 1.5

    def write(model: abpn_fast.ABPN, path: Path, *, levels: int) -> None:
        assert levels == 2 and isinstance(model, abpn_fast.ABPN)
        assert torch.equal(model.mask_branch.head.bias, moved)
        path.write_bytes(b"x" * 3_600_000)

    monkeypatch.setattr(abpn_fast, "export_onnx", write)
    model = ["--model", str(tmp_path / "saved"), "--sensitivity", "1.5"]
    command = ["export", str(tmp_path / "small.onnx"), "--levels", "2", *model]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'small.onnx'}: levels 2, 4 MB\n")
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2 and "exists already" in again.stderr
    assert CliRunner().invoke(app, [*command, "--overwrite"]).exit_code == 0
