from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import abpn_fast
from abpn_fast.cli import _progress, app

RGB = np.random.default_rng(0).integers(0, 256, (66, 90, 3), np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    return str(abpn_fast.ABPN("small").save_pretrained(tmp_path_factory.mktemp("model")))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "in.png"
    Image.fromarray(RGB).save(path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result, code: int, reason: str) -> None:
    """One line on stderr, which begins with ``error:`` and says ``reason``."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert reason in line


def test_one_photo(model: str, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    result = run(
        "retouch", photo, "-o", out, "--model", model, "--levels", 1, "--dtype", "float32", "--backend", "auto"
    )
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert result.stdout.startswith(f"{out}: 90 x 66, levels 1, ")
    with Image.open(out) as picture:
        assert (np.asarray(picture) != RGB).any()


def test_one_photo_into_a_folder(model: str, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "new.folder").mkdir()
    for folder in ("new.folder", "made/here"):
        assert run("retouch", photo, "-o", tmp_path / folder, "--model", model).exit_code == 0
        assert [path.name for path in (tmp_path / folder).iterdir()] == ["in.png"]


def test_strength_0(model: str, photo: Path, tmp_path: Path) -> None:
    assert run("retouch", photo, "-o", tmp_path / "out.png", "--model", model, "--strength", 0).exit_code == 0
    with Image.open(tmp_path / "out.png") as picture:
        assert np.array_equal(np.asarray(picture), RGB)


def test_mask_threshold_1_leaves_what_the_mask_does_not_cover(model: str, photo: Path, tmp_path: Path) -> None:
    assert run("retouch", photo, "-o", tmp_path / "out.png", "--model", model, "--mask-threshold", 1).exit_code == 0
    with Image.open(tmp_path / "out.png") as picture:
        assert np.array_equal(np.asarray(picture), RGB)


def test_several_photos_with_a_bad_one(model: str, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"text")
    Image.fromarray(RGB).save(tmp_path / "last.jpg")
    out = tmp_path / "out"
    photos = [photo, tmp_path / "bad.jpg", tmp_path / "none.jpg", tmp_path / "last.jpg"]
    result = run("retouch", *photos, "-o", out, "--model", model, "--save-mask", "--save-blend", "--compare")
    assert result.exit_code == 1
    assert [line.partition(": ")[0] for line in result.stdout.splitlines()] == [
        str(out / "in.png"),
        str(out / "last.jpg"),
    ]
    first, second = result.stderr.splitlines()
    assert first == f"error: {tmp_path / 'bad.jpg'} is neither a JPEG nor a PNG file; convert it to one of them"
    assert second == f"error: no such photo: {tmp_path / 'none.jpg'}"
    written = {"in.png", "in.mask.png", "in.blend.png", "in.compare.jpg"}
    written |= {"last.jpg", "last.mask.png", "last.blend.png", "last.compare.jpg"}
    assert {path.name for path in out.iterdir()} == written


def test_existing_results_are_kept(model: str, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    out.write_bytes(b"old")
    refused(run("retouch", photo, "-o", out, "--model", model), 1, "exists already")
    assert out.read_bytes() == b"old"
    assert run("retouch", photo, "-o", out, "--model", model, "--overwrite").exit_code == 0
    assert out.read_bytes() != b"old"


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xe0 cut off"])
def test_a_bad_photo_leaves_nothing(model: str, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "in.jpg").write_bytes(data)
    refused(run("retouch", tmp_path / "in.jpg", "-o", tmp_path / "out.jpg", "--model", model), 1, "in.jpg is")
    refused(run("retouch", tmp_path, "-o", tmp_path / "out.jpg", "--model", model), 1, "is a folder, not a photo")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jpg"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "Missing command"),
        (("retouch",), "PHOTO"),
        (("retouch", "in.png"), "--out"),
        (("retouch", "in.png", "-o", "out.png", "--dtype", "int8"), "--dtype"),
        (("retouch", "in.png", "-o", "out.png", "--levels", "-1"), "--levels"),
        (("retouch", "in.png", "-o", "out.png", "--quality", "101"), "--quality"),
        (("retouch", "in.png", "-o", "out.png", "--wrong"), "--wrong"),
        (("retouch", "in.png", "x/in.png", "-o", "out"), "several photos would be written to out/in.png"),
        (("retouch", "in.png", "in.jpg", "-o", "out", "--compare"), "out/in.compare.jpg"),
        (("retouch", "in.png", "-o", "out.png", "--model", "no such model"), "no such model"),
        (("retouch", "in.png", "-o", "out.png", "--device", "toaster"), "toaster"),
        (("evaluate", "no such folder"), "no such folder of photos"),
        (("repair",), "repair"),
    ],
)
def test_wrong_use(arguments: tuple[str, ...], reason: str) -> None:
    refused(run(*arguments), 2, reason)


def test_an_unknown_backend_is_wrong_use(model: str, photo: Path, tmp_path: Path) -> None:
    result = run("retouch", photo, "-o", tmp_path / "out.png", "--model", model, "--backend", "quick")
    refused(result, 2, "quick")


def test_interruption_leaves_nothing(model: str, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(image: Image.Image, stream: Any, *_: object, **__: object) -> None:
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    assert run("retouch", photo, "-o", tmp_path / "out.png", "--model", model).exit_code == 130
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_progress_is_for_terminals(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        with _progress(2) as advance:
            advance("[first].jpg")
        assert ("[first].jpg" in capsys.readouterr().err) == terminal


def test_version_and_help() -> None:
    assert run("--version").stdout == f"abpn-fast {abpn_fast.__version__}\n"
    assert run("--help").exit_code == 0
    help_text = " ".join(run("retouch", "--help").stdout.split())
    for option in ("--save-mask", "--compare", "NAME.blend.png", "--mask-threshold"):
        assert option in help_text


def test_help_imports_neither_torch_nor_pillow() -> None:
    code = "import sys, abpn_fast.cli; print([name for name in ('torch', 'PIL', 'numpy') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_train_passes_its_options_on_and_saves_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = pytest.importorskip("abpn_fast.training.trainer")
    seen = []

    def train(options: Any, report: Any) -> abpn_fast.reference.ABPN:
        seen.append(options)
        report({"step": 1, "loss": 0.25})
        return abpn_fast.reference.ABPN("small")

    monkeypatch.setattr(trainer, "train", train)
    arguments = ("train", "a", "b", "--validation", "c", "--run", tmp_path, "--steps", 7, "--seed", 3, "--bf16")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    expected = trainer.Options([Path("a"), Path("b")], [Path("c")], tmp_path, steps=7, seed=3, bf16=True)
    assert seen == [expected]
    assert "step 1, loss 0.25" in result.stdout
    assert abpn_fast.ABPN.from_pretrained(tmp_path / "model").config == abpn_fast.ABPNConfig.preset("small")


def test_train_without_photos_is_wrong_use(tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    refused(run("train", tmp_path / "no", "--validation", tmp_path, "--run", tmp_path / "run"), 2, "no photo in")


def test_evaluate_prints_the_identity_beside_the_model(model: str, tmp_path: Path) -> None:
    pytest.importorskip("abpn_fast.training.evaluate")
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    Image.fromarray(noise).resize((768, 768)).save(tmp_path / "a.png")
    result = run("evaluate", tmp_path, "--model", model)
    assert result.exit_code == 0, result.output
    head, *rows = result.stdout.splitlines()
    assert head.split() == ["model", "identity"]
    assert {row.split()[0]: len(row.split()) for row in rows}["psnr_inside"] == 3
