from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import ExifTags, Image
from typer.testing import CliRunner, Result

import abpn_fast
from abpn_fast.cli import app
from abpn_fast.cli.failures import wrong_use
from abpn_fast.cli.retouch import _progress
from abpn_fast.cli.stopping import stops_cleanly
from abpn_fast.photo import Report
from tests.photo.test_png16 import png

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
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


def coarse_noise() -> Image.Image:
    """Large enough for every crop that is measured."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    return Image.fromarray(noise).resize((768, 768))


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


def test_a_slash_makes_it_a_folder(model: str, photo: Path, tmp_path: Path) -> None:
    assert run("retouch", photo, "-o", f"{tmp_path}/2024.05/", "--model", model).exit_code == 0
    assert (tmp_path / "2024.05" / "in.png").exists()


def test_names_that_are_no_text(model: str, photo: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xfc.png")
    os.rename(photo, odd)
    command = [sys.executable, "-m", "abpn_fast", "retouch", odd, "-o", tmp_path / "out", "--model", model]
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, capture_output=True, text=True, env=strict, check=False)
    assert done.returncode == 0 and done.stderr == "" and "\\udcfc.png: " in done.stdout


def test_tiff_stays_tiff(model: str, tmp_path: Path) -> None:
    names = ["one.tif", "two.TIFF"]
    for name in names:
        Image.fromarray(RGB).save(tmp_path / name)
    out = tmp_path / "out"
    assert run("retouch", *(tmp_path / name for name in names), "-o", out, "--model", model, "--compare").exit_code == 0
    assert {path.name for path in out.iterdir()} == {*names, "one.compare.jpg", "two.compare.jpg"}
    for name in names:
        with Image.open(out / name) as picture:
            assert (picture.format, picture.size) == ("TIFF", (90, 66))


def test_odd_photos_are_no_matter_for_remarks(model: str, tmp_path: Path) -> None:
    (tmp_path / "interlaced.png").write_bytes(png(RGB[:9, :7].astype(np.uint16) * 257, interlaced=True))
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "a long description"
    Image.fromarray(RGB).save(tmp_path / "cut.jpg", exif=exif.tobytes()[:-9])
    command = [sys.executable, "-m", "abpn_fast", "retouch", "interlaced.png", "cut.jpg", "-o", "out", "--model", model]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stderr == ""


def test_self_ensemble(model: str, photo: Path, tmp_path: Path) -> None:
    for name, options in (("once.png", ()), ("four.png", ("--self-ensemble",))):
        assert run("retouch", photo, "-o", tmp_path / name, "--model", model, *options).exit_code == 0
    assert (tmp_path / "once.png").read_bytes() != (tmp_path / "four.png").read_bytes()


def test_sensitivity(model: str, photo: Path, tmp_path: Path) -> None:
    for sensitivity in (-9, 0, 9):
        options = ("-o", tmp_path / f"{sensitivity}.png", "--model", model, "--save-mask", "--sensitivity", sensitivity)
        assert run("retouch", photo, *options).exit_code == 0
    masks = [np.asarray(Image.open(tmp_path / f"{sensitivity}.mask.png")).mean() for sensitivity in (-9, 0, 9)]
    assert masks[0] < 1 < masks[1] < 254 < masks[2]


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
    assert first == f"error: {tmp_path / 'bad.jpg'} is neither a JPEG, a PNG nor a TIFF file; convert it to one of them"
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
        (("retouch", "in.png", "-o", "out.png", "--levels", "33"), "--levels"),
        (("retouch", "in.png", "-o", "out.png", "--strength", "nan"), "strength must be finite, got nan"),
        (("retouch", "in.png", "-o", "out.png", "--quality", "101"), "--quality"),
        (("retouch", "in.png", "-o", "out.png", "--quality", "0"), "--quality"),
        (("retouch", "in.png", "-o", "out.png", "--mask-threshold", "1.5"), "--mask-threshold"),
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


def test_a_backend_that_cannot_is_wrong_use(model: str, photo: Path, tmp_path: Path) -> None:
    result = run("retouch", photo, "-o", tmp_path / "out.png", "--model", model, "--backend", "quick")
    refused(result, 2, "quick")
    result = run("retouch", photo, "-o", tmp_path / "out.png", "--model", model, "--backend", "cuda")
    refused(result, 2, "backend cuda has no upsample_refine_blend")


def test_another_ending_is_no_folder(model: str, photo: Path, tmp_path: Path) -> None:
    result = run("retouch", photo, "-o", tmp_path / "2024.05", "--model", model)
    refused(result, 1, "the name of a result must end in .jpg, .jpeg, .png, .tif, .tiff, got '2024.05'")
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_interruption_leaves_nothing(model: str, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(image: Image.Image, stream: Any, *_: object, **__: object) -> None:
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    assert run("retouch", photo, "-o", tmp_path / "out.png", "--model", model).exit_code == 130
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


STOPPED = """
import os, signal, sys
from PIL import Image
from abpn_fast.cli import app
number = int(sys.argv.pop())
signal.signal(number, signal.SIG_DFL)
Image.Image.save = lambda image, stream, *_, **__: (stream.write(b"half"), os.kill(os.getpid(), number))
app()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(model: str, photo: Path, tmp_path: Path, number: signal.Signals) -> None:
    arguments = ["retouch", str(photo), "-o", str(tmp_path / "out.png"), "--model", model, str(number.value)]
    result = subprocess.run([sys.executable, "-c", STOPPED, *arguments], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (128 + number, "")
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_signals_are_given_back_and_ignored_ones_stay_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stops_cleanly():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(SystemExit, match="143"):
                os.kill(os.getpid(), signal.SIGTERM)
            # A second one does not break off the clean-up.
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    seen: list[object] = []

    def look() -> None:
        with stops_cleanly():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


@needs_full
def test_photos_are_written_where_stdout_cannot_be(model: str, photo: Path, tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "in2.png")
    arguments = ["retouch", str(photo), str(tmp_path / "in2.png"), "-o", str(tmp_path / "out"), "--model", model]
    command = [sys.executable, "-m", "abpn_fast", *arguments]
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: stdout cannot be written (No space left on device)")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"in.png", "in2.png"}


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-", pytest.param("2>/dev/full", marks=needs_full)])
def test_photos_are_written_where_streams_are_closed(closed: str, model: str, photo: Path, tmp_path: Path) -> None:
    arguments = ["retouch", "none.png", str(photo), "-o", str(tmp_path / "out"), "--model", model]
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "abpn_fast", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "Traceback" not in result.stderr and "error" not in result.stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["in.png"]


def test_retouch_passes_its_options_on(
    model: str, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    def retouch_file(photo: Path, out: Path, *, model: Any, **options: Any) -> Report:
        parameter = next(model.parameters())
        seen.append(options | {"out": out, "device": parameter.device.type, "dtype": parameter.dtype})
        if len(seen) == 2:
            raise ValueError("it is too dark")
        return Report((out,), (90, 66), 3, 0.16, "cpu")

    monkeypatch.setattr(abpn_fast.photo, "retouch_file", retouch_file)
    folder = tmp_path / "v1.5"
    result = run("retouch", photo, "other/b.jpg", "-o", folder, "--model", model)
    assert (result.exit_code, result.stdout) == (1, f"{folder / 'in.png'}: 90 x 66, levels 3, 0.2 s\n")
    assert result.stderr == "error: other/b.jpg: it is too dark\n"
    told: dict[str, Any] = {"levels": None, "strength": 1.0, "mask_threshold": None, "self_ensemble": False}
    told |= {"backend": None, "overwrite": False, "quality": 95, "make_folders": True}
    told |= dict.fromkeys(("save_mask", "save_blend", "compare"))
    told |= {"device": "cpu", "dtype": torch.float32}
    assert seen == [told | {"out": folder / "in.png"}, told | {"out": folder / "b.jpg"}]
    told |= {"levels": 0, "strength": 0.5, "mask_threshold": 0.25, "self_ensemble": True, "backend": "reference"}
    told |= {"overwrite": True, "quality": 7, "make_folders": False}
    told |= {"device": "meta", "dtype": torch.bfloat16, "compare": tmp_path / "out.compare.jpg"}
    options = ("--levels", 0, "--strength", 0.5, "--mask-threshold", 0.25, "--self-ensemble", "--backend", "reference")
    options += ("--overwrite", "--quality", 7, "--device", "meta", "--dtype", "bfloat16", "--compare")
    assert run("retouch", photo, "-o", tmp_path / "out.png", "--model", model, *options).exit_code == 0
    assert seen[2] == told | {"out": tmp_path / "out.png"}


def test_a_failure_leaves_no_folder(model: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(run("retouch", tmp_path / "no.jpg", "-o", tmp_path / "n9", "--model", model), 1, "no such photo")
    refused(run("retouch", "a.jpg", "b.jpg", "-o", tmp_path / "file", "--model", model), 2, "file is a file; name a")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FloatingPointError("the loss is nan"), "the loss is nan"),
        (MemoryError(), "MemoryError"),
        (TypeError("no such dtype"), "no such dtype"),
        (RuntimeError("one line\nand another"), "one line"),
        (FileNotFoundError(2, "No such file or directory", "x.png"), "No such file or directory: x.png"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("cannot identify it"), "cannot identify it"),
        (ModuleNotFoundError(name="cv2"), "cv2 is not installed; pip install 'abpn_fast[compare]'"),
        (ModuleNotFoundError(name="onnx.helper"), "onnx.helper is not installed; pip install 'abpn_fast[export]'"),
        (ModuleNotFoundError(name="platformdirs"), "platformdirs is not installed; pip install 'abpn_fast[train]'"),
    ],
    ids=repr,
)
def test_a_failure_is_told_in_one_line(error: Exception, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as stopped, wrong_use():
        raise error
    assert stopped.value.exit_code == 2
    assert capsys.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize(
    ("module", "arguments", "remedy"),
    [
        ("PIL", ("retouch", "in.png", "-o", "out.png"), "'abpn_fast[photo]'"),
        ("torchvision", ("fetch-vgg", "--torchvision"), "torchvision"),
        ("lightning_fabric", ("train", "a", "--validation", "b", "--run", "c"), "'abpn_fast[train]'"),
        ("typer", ("--help",), "'abpn_fast[photo]'"),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(module: str, arguments: tuple[str, ...], remedy: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from abpn_fast.cli import app; app()"
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"error: {module} is not installed; pip install {remedy}\n"


def test_progress_is_for_terminals(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        with _progress(3) as advance:
            advance("[first].jpg")
            advance("[second].jpg")
            print("a line")
        told = capsys.readouterr()
        assert told.out == "a line\n"
        assert ("[second].jpg" in told.err) == ("1/3" in told.err) == terminal


def test_version_and_help() -> None:
    assert run("--version").stdout == f"abpn-fast {abpn_fast.__version__}\n"
    assert run("--help").exit_code == 0
    help_text = " ".join(run("retouch", "--help").stdout.split())
    for option in ("--save-mask", "--compare", "NAME.blend.png", "--mask-threshold"):
        assert option in help_text
    assert "completion" not in run("--help").stdout
    assert app(["--version"], standalone_mode=False) == 0


def test_help_imports_neither_torch_nor_pillow() -> None:
    code = "import sys, abpn_fast.cli; print([name for name in ('torch', 'PIL', 'numpy') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_results_do_not_go_to_standard_output(photo: Path) -> None:
    refused(run("retouch", photo, "-o", "-"), 2, "not to standard output")
    assert not Path("-").exists()


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Options and objective of every run that was asked for; none is run."""
    trainer = pytest.importorskip("abpn_fast.training.trainer")
    seen: list[tuple[Any, Any]] = []

    def train(options: Any, objective: Any, report: Any) -> None:
        seen.append((options, objective))
        report({"step": 10250, "loss": 0.123456})

    monkeypatch.setattr(trainer, "train", train)
    return seen


def test_train_passes_its_options_on(tmp_path: Path, trainings: list[tuple[Any, Any]]) -> None:
    from abpn_fast.training.objective import Objective
    from abpn_fast.training.trainer import Options

    arguments = ("train", "a", "b", "--validation", "c", "--run", tmp_path, "--steps", 7, "--seed", 3, "--bf16")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    expected = Options([Path("a"), Path("b")], [Path("c")], tmp_path, steps=7, seed=3, bf16=True)
    assert trainings == [(expected, Objective())]
    assert result.stdout == f"step 10250, loss 0.1235\nmodel: {tmp_path / 'model'}\n"


def test_train_has_an_option_for_each_of_a_run(tmp_path: Path, trainings: list[tuple[Any, Any]]) -> None:
    from abpn_fast.training.trainer import Options

    told: dict[str, Any] = {"preset": "medium", "start": "small", "steps": 7, "batch": 16, "size": 128, "levels": 1}
    told |= {"optimizer": "muon", "learning_rate": 0.5, "warmup": 0, "seed": 3, "accelerator": "cuda", "every": 9}
    told |= {"workers": 3, "averaging": 0.25, "bad": "skip"}
    options = [part for name, value in told.items() for part in (f"--{name.replace('_', '-')}", value)]
    arguments = ("train", "a", "--validation", "b", "--run", tmp_path, "--crop", "--bf16", *options)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    told |= {"crop": True, "bf16": True}
    assert trainings[0][0] == Options([Path("a")], [Path("b")], tmp_path, **told)
    fields = {field.name for field in dataclasses.fields(Options)}
    assert fields == {*told, "photos", "validation", "run", "recipe", "schedule"}
    refused(run(*arguments, "--size", 63), 2, "--size")


def test_train_knows_a_folder_of_pairs(tmp_path: Path, trainings: list[tuple[Any, Any]]) -> None:
    from abpn_fast.training.objective import Objective
    from abpn_fast.training.trainer import Options

    for name in ("src", "gt"):
        (tmp_path / name).mkdir()
    extra = ("--objective", "plain", "--start", "small", "--workers", 0, "--bad", "skip", "--crop")
    result = run("train", tmp_path, "--run", tmp_path / "run", *extra)
    assert result.exit_code == 0, result.output
    expected = Options.paper(tmp_path, tmp_path / "run", start="small", workers=0, bad="skip", crop=True)
    assert trainings == [(expected, Objective())]
    for folders, recipe in (((tmp_path,), ("--recipe", "synthetic")), ((tmp_path, "clean"), ())):
        result = run("train", *folders, "--run", tmp_path / "run", "--validation", "b", *recipe)
        assert result.exit_code == 0, result.output
        expected = Options([Path(folder) for folder in folders], [Path("b")], tmp_path / "run")
        assert trainings[-1] == (expected, Objective())
    refused(run("train", tmp_path, tmp_path, "--run", "x"), 2, "pairs come from one folder")
    refused(run("train", tmp_path, "--run", "x", "--validation", tmp_path), 2, "no --validation")


def test_train_towards_psnr(tmp_path: Path, trainings: list[tuple[Any, Any]]) -> None:
    from abpn_fast.training.objective import Objective

    result = run("train", "a", "--validation", "b", "--run", tmp_path, "--objective", "psnr")
    assert result.exit_code == 0, result.output
    assert trainings[0][1] == Objective.psnr() != Objective()


def test_train_with_another_adversary(
    tmp_path: Path, trainings: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from abpn_fast.training import objective

    monkeypatch.setattr(objective, "load_features", lambda name: torch.nn.Identity())
    for extra in ((), ("--adversarial-loss", "least-squares")):
        result = run("train", tmp_path, "--recipe", "paper", "--run", tmp_path / "run", *extra)
        assert result.exit_code == 0, result.output
    assert [terms.adversarial_loss for _, terms in trainings] == ["hinge", "least_squares"]
    assert {terms.adversarial for _, terms in trainings} == {0.1}
    plain = ("--objective", "plain", "--adversarial-loss", "hinge")
    refused(run("train", tmp_path, "--run", tmp_path / "run", *plain), 2, "objective plain has no adversary")


def test_the_papers_objective_needs_its_features(
    tmp_path: Path, trainings: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ABPN_FAST_CACHE", str(tmp_path / "cache"))
    refused(run("train", tmp_path, "--recipe", "paper", "--run", tmp_path / "run"), 2, "abpn-fast fetch-vgg")
    assert trainings == []


def test_train_without_validation_is_wrong_use(tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    refused(run("train", tmp_path, "--run", tmp_path / "run"), 2, "--validation")


def test_train_without_photos_is_wrong_use(tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    refused(run("train", tmp_path / "no", "--validation", tmp_path, "--run", tmp_path / "run"), 2, "no photo in")


def test_evaluate_prints_the_identity_beside_the_model(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("abpn_fast.training.evaluate")
    coarse_noise().save(tmp_path / "a.png")
    monkeypatch.setenv("ABPN_FAST_CACHE", str(tmp_path / "cache"))
    result = run("evaluate", tmp_path, "--model", model)
    assert result.exit_code == 0, result.output
    assert run("evaluate", tmp_path, "--model", model, "--sensitivity", 3).stdout != result.stdout
    head, *rows = result.stdout.splitlines()
    assert head.split() == ["model", "identity"]
    assert {row.split()[0]: len(row.split()) for row in rows}["psnr_inside"] == 3


def test_evaluate_passes_its_options_on(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = pytest.importorskip("abpn_fast.training.evaluate")
    seen: list[Any] = []

    def named(folders: list[Path], **options: Any) -> tuple[list[Any], list[str]]:
        seen.append((folders, options))
        return [], ["one", "two", "three"]

    def measure(network: Any, pairs: list[Any], *, names: list[str], **options: Any) -> list[Any]:
        seen.append(options)
        return [
            evaluation.Row(image, method, {"psnr_inside": 1}) for image in names[:2] for method in ("model", "identity")
        ]

    monkeypatch.setattr(evaluation, "named", named)
    monkeypatch.setattr(evaluation, "measure", measure)
    monkeypatch.setattr("abpn_fast.training.lpips.available", lambda names: (dict.fromkeys(names), []))
    assert run("evaluate", "a", "b", "--model", model).exit_code == 0
    assert seen[0] == ([Path("a"), Path("b")], {"size": 1024, "levels": 2, "every": False, "bad": "refuse"})
    assert seen[1] == {"self_ensemble": False, "methods": None, "lpips": {"alex": None}}
    extra = ("--size", 128, "--levels", 3, "--all", "--bad", "skip", "--self-ensemble", "--vgg")
    result = run("evaluate", "a", "--model", model, *extra, "--json", tmp_path / "scores.json")
    assert result.stdout.splitlines()[-1] == "images              2 of 3, the rest unchanged or changed everywhere"
    assert seen[2] == ([Path("a")], {"size": 128, "levels": 3, "every": True, "bad": "skip"})
    assert seen[3] == {"self_ensemble": True, "methods": None, "lpips": {"alex": None, "vgg": None}}
    assert json.loads((tmp_path / "scores.json").read_text())["model"] == model
    for option in ("--json", "--csv"):
        refused(run("evaluate", "a", option, tmp_path / "none" / "file"), 2, "none; ")
    assert len(seen) == 4


def test_evaluate_compares_and_writes_files(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2")
    monkeypatch.setenv("ABPN_FAST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    coarse_noise().save(tmp_path / "photos" / "a.png")
    files = {name: tmp_path / f"scores.{name}" for name in ("json", "csv")}
    options = ("--model", model, "--compare", "--vgg", "--each", "--json", files["json"], "--csv", files["csv"])
    result = run("evaluate", tmp_path / "photos", *options)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("LPIPS is left out: no ") == 2
    methods = ["model", "identity", "median", "bilateral", "telea", "navier_stokes", "telea_told"]
    each, summary = result.stdout.split("\n\n")
    assert each.splitlines()[0].split() == ["psnr_inside", *methods]
    assert f"{tmp_path / 'photos' / 'a.png'}, l = 1" in each
    assert summary.splitlines()[0].split() == methods
    assert list(json.loads(files["json"].read_text())["summary"]) == methods
    assert files["csv"].read_text().count("\n") == 1 + len(methods) * (each.count("\n"))


def test_scores_are_told_where_they_cannot_be_written(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("abpn_fast.training.evaluate")
    coarse_noise().save(tmp_path / "a.png")
    monkeypatch.setenv("ABPN_FAST_CACHE", str(tmp_path / "cache"))
    result = run("evaluate", tmp_path, "--model", model, "--json", tmp_path)
    assert result.exit_code == 2 and "psnr_inside" in result.stdout and "Is a directory" in result.stderr


def test_fetch_vgg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("platformdirs")
    monkeypatch.setenv("ABPN_FAST_CACHE", str(tmp_path / "cache"))
    refused(run("fetch-vgg", "--archive", tmp_path / "none.tar.gz"), 2, "none.tar.gz")
    refused(run("fetch-vgg", "--archive", "a.tar.gz", "--torchvision"), 2, "--archive or --torchvision, not both")
    (tmp_path / "wrong.tar.gz").write_bytes(b"something else")
    refused(run("fetch-vgg", "--archive", tmp_path / "wrong.tar.gz"), 2, "is not what was expected")
    for name in ("vgg16", "alexnet"):
        (tmp_path / "cache").mkdir(exist_ok=True)
        (tmp_path / "cache" / f"{name}.safetensors").touch()
    assert run("fetch-vgg").stdout.splitlines() == [
        str(tmp_path / "cache" / f"{name}.safetensors") for name in ("vgg16", "alexnet")
    ]


def test_ablate_passes_its_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ablation = pytest.importorskip("abpn_fast.training.ablation")
    from abpn_fast.training.trainer import Options

    seen: list[Any] = []

    def ablate(options: Any, config: Any, **more: Any) -> dict[str, dict[str, float]]:
        seen.append((options, config.encoder_widths, more["names"], more["lpips"]))
        more["report"]("full", {"step": 7, "psnr_inside": 20.0})
        more["report"]("blend-rgb", {"step": 7})
        return {"identity": {"psnr": 30.0, "psnr_inside": 20.0, "psnr_outside": 40.0, "ssim": 0.9}}

    monkeypatch.setattr(ablation, "ablate", ablate)
    monkeypatch.setattr("abpn_fast.training.lpips.available", lambda names: (dict.fromkeys(names), []))
    common = ("ablate", "a", "--validation", "c", "--run", tmp_path)
    extra = ("--steps", 7, "--seed", 3, "--variant", "full", "--accelerator", "cuda", "--workers", 2)
    result = run(*common, *extra)
    assert result.exit_code == 0, result.output
    expected = Options([Path("a")], [Path("c")], tmp_path, schedule=ablation.SCHEDULE, averaging=0.99, workers=0)
    length = {"steps": 7, "warmup": 7, "every": 3}
    told = dataclasses.replace(expected, **length, seed=3, accelerator="cuda", workers=2)
    assert seen[0] == (told, (8, 16, 32, 64, 64, 64), ["full"], {"alex": None})
    assert result.stderr == "full: step 7, PSNR inside 20.00\nblend-rgb: step 7, PSNR inside nan\n"
    assert "| identity |" in result.stdout and not result.stdout.endswith("\n\n")
    assert run(*common, "--widths", "small").exit_code == 0
    length = {"steps": 1500, "warmup": 30, "every": 500}
    told = dataclasses.replace(expected, **length)
    assert seen[1] == (told, (16, 32, 64, 128, 128, 128), list(ablation.VARIANTS), {"alex": None})
    refused(run(*common, "--widths", "1,2,x"), 2, "widths must be six integers")
    refused(run(*common, "--widths", "1,2"), 2, "encoder_widths must be six positive integers")
    refused(run(*common, "--steps", 0), 2, "--steps")
