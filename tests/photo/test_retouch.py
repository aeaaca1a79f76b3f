from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import abpn_fast
from abpn_fast import native
from abpn_fast.photo import Photo, photo_levels, read_photo, retouch_file
from abpn_fast.photo.files import photo_writer
from abpn_fast.reference import upsample

RGBA = np.random.default_rng(0).integers(0, 256, (70, 101, 4), np.uint8)


@pytest.fixture(scope="module")
def model() -> abpn_fast.ABPN:
    torch.manual_seed(0)
    return abpn_fast.ABPN("small").eval()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(RGBA[..., :3]).save(tmp_path / "in.png")
    return tmp_path / "in.png"


def pixels(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(path) as image:
        return np.array(image)


def test_result_is_what_the_model_computes(model: abpn_fast.ABPN, photo: Path, tmp_path: Path) -> None:
    how = {"levels": 1, "strength": 0.7, "mask_threshold": 0.4, "self_ensemble": True}
    report = retouch_file(photo, tmp_path / "out.png", model=model, **how)  # type: ignore[arg-type]
    image = torch.from_numpy(RGBA[..., :3].copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = model(image, **how)
        assert not torch.equal(expected, model(image, **how | {"self_ensemble": False}))
    assert np.array_equal(pixels(tmp_path / "out.png"), expected[0].permute(1, 2, 0).numpy())
    assert (pixels(tmp_path / "out.png") != RGBA[..., :3]).any()
    assert (report.paths, report.size, report.levels) == ((tmp_path / "out.png",), (101, 70), 1)
    assert report.seconds > 0
    assert report.backend in abpn_fast.compatible_backends(image, operator="upsample_refine_blend")


def test_numbers_of_numpy(model: abpn_fast.ABPN, photo: Path, tmp_path: Path) -> None:
    for name, number, integer in (("own.jpg", float, int), ("numpy.jpg", np.float32, np.int8)):
        how: dict[str, Any] = {"strength": number(0.5), "mask_threshold": number(0.25)}
        retouch_file(photo, tmp_path / name, model=model, levels=integer(1), quality=integer(90), **how)
    assert (tmp_path / "own.jpg").read_bytes() == (tmp_path / "numpy.jpg").read_bytes()


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P"])
def test_strength_0_keeps_every_pixel(model: abpn_fast.ABPN, tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(RGBA[..., :3] if mode == "P" else RGBA).convert(mode)
    image.save(tmp_path / "in.png")
    retouch_file(tmp_path / "in.png", tmp_path / "out.png", model=model, levels=2, strength=0.0)
    with Image.open(tmp_path / "out.png") as result:
        assert result.mode == ("RGB" if mode == "P" else mode)
        assert np.array_equal(np.asarray(result), np.asarray(image.convert(result.mode)))


DEEP = np.random.default_rng(1).integers(0, 65536, (70, 101, 4), np.uint16)


def deep_photo(path: Path, samples: np.ndarray[Any, np.dtype[np.uint16]]) -> Path:
    alpha = None if samples.shape[2] % 2 else samples[..., -1]
    grey = samples.shape[2] < 3
    photo = Photo(np.repeat(samples[..., :1], 3, axis=2) if grey else samples[..., :3], alpha=alpha, grey=grey)
    with path.open("wb") as stream:
        photo_writer(path, photo, photo.pixels)(stream)
    return path


@pytest.mark.parametrize("source", ["in.png", "in.tif"])
@pytest.mark.parametrize("target", ["out.png", "out.tif"])
def test_16_bits_are_what_the_model_computes(model: abpn_fast.ABPN, tmp_path: Path, source: str, target: str) -> None:
    path = deep_photo(tmp_path / source, DEEP)
    retouch_file(path, tmp_path / target, model=model, levels=1)
    image = torch.from_numpy(DEEP[..., :3].copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = model(image, levels=1)
    result = read_photo(tmp_path / target)
    assert expected.dtype == torch.uint16
    assert np.array_equal(result.pixels, expected[0].permute(1, 2, 0).numpy())
    assert result.alpha is not None and np.array_equal(result.alpha, DEEP[..., 3])
    assert (result.pixels != DEEP[..., :3]).any() and (result.pixels % 257).any()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_strength_0_keeps_every_one_of_16_bits(
    model: abpn_fast.ABPN, tmp_path: Path, ending: str, channels: int
) -> None:
    samples = DEEP[..., :channels] if channels != 2 else DEEP[..., 2:]
    path = deep_photo(tmp_path / f"in.{ending}", samples)
    retouch_file(path, tmp_path / f"out.{ending}", model=model, levels=2, strength=0.0)
    result = read_photo(tmp_path / f"out.{ending}")
    assert result.grey == (channels < 3)
    assert np.array_equal(result.samples(result.pixels), samples)


def test_16_bits_with_side_pictures_in_a_jpeg(model: abpn_fast.ABPN, tmp_path: Path) -> None:
    path = deep_photo(tmp_path / "in.tif", DEEP[..., :3])
    names = ("out.jpg", "m.png", "b.png", "c.jpg")
    out, mask, blend, sheet = (tmp_path / name for name in names)
    retouch_file(path, out, model=model, levels=1, save_mask=mask, save_blend=blend, compare=sheet)
    for name in names:
        with Image.open(tmp_path / name) as image:
            assert image.mode in ("L", "RGB")
            assert image.size == (101, 70) or name == "c.jpg"
    assert read_photo(out).pixels.dtype == np.uint8


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_tiff_of_8_bits_has_what_a_png_has(model: abpn_fast.ABPN, tmp_path: Path, mode: str) -> None:
    for ending in ("png", "tif"):
        Image.fromarray(RGBA).convert(mode).save(tmp_path / f"in.{ending}")
        retouch_file(tmp_path / f"in.{ending}", tmp_path / f"out.{ending}", model=model, levels=1)
    with Image.open(tmp_path / "out.tif") as image:
        assert image.mode == mode
        assert np.array_equal(np.asarray(image), pixels(tmp_path / "out.png"))


def test_a_tiff_in_place(model: abpn_fast.ABPN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = deep_photo(tmp_path / "in.tif", DEEP)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(zlib, "compress", fail)
        with pytest.raises(OSError, match="disk full"):
            retouch_file(path, path, model=model, overwrite=True)
    assert path.read_bytes() == before
    retouch_file(path, path, model=model, overwrite=True)
    assert path.read_bytes() != before
    assert [file.name for file in tmp_path.iterdir()] == ["in.tif"]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_kept_and_grey_stays_grey(model: abpn_fast.ABPN, tmp_path: Path, mode: str) -> None:
    Image.fromarray(RGBA).convert(mode).save(tmp_path / "in.png")
    retouch_file(tmp_path / "in.png", tmp_path / "out.png", model=model)
    before, after = pixels(tmp_path / "in.png"), pixels(tmp_path / "out.png")
    assert np.array_equal(after[..., -1], before[..., -1])
    assert (after[..., 0] != before[..., 0]).any()


def test_side_pictures(model: abpn_fast.ABPN, photo: Path, tmp_path: Path) -> None:
    out, mask, blend, sheet = (tmp_path / name for name in ("out.png", "m.png", "b.png", "c.jpg"))
    report = retouch_file(photo, out, model=model, levels=2, save_mask=mask, save_blend=blend, compare=sheet)
    assert report.paths == (out, mask, blend, sheet)
    image = torch.from_numpy(RGBA[..., :3].copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = model(image, levels=2, return_intermediates=True)
    assert np.array_equal(pixels(out), expected.image[0].permute(1, 2, 0).numpy())
    at_full_size = upsample(expected.mask, (70, 101), 16)[0, 0].numpy()
    assert np.abs(pixels(mask) - 255 * at_full_size).max() <= 0.5 + 1e-4
    shown = (255 * (expected.blend_layers[0][0].permute(1, 2, 0).numpy() + 0.5)).clip(0, 255)
    assert np.abs(pixels(blend) - shown).max() <= 0.5 + 1e-3
    with Image.open(sheet) as picture:
        assert picture.height >= 3 * 70


def test_more_levels_than_the_photo_has(model: abpn_fast.ABPN, photo: Path, tmp_path: Path) -> None:
    retouch_file(photo, tmp_path / "out.png", model=model, levels=20, save_mask=tmp_path / "m.png")
    assert len(np.unique(pixels(tmp_path / "m.png"))) == 1


@pytest.mark.parametrize("wanted", [None, "save_mask", "save_blend", "compare"])
def test_intermediates_are_only_asked_for_when_saved(
    model: abpn_fast.ABPN, photo: Path, tmp_path: Path, wanted: str | None
) -> None:
    asked = []
    side: dict[str, Any] = {wanted: tmp_path / "x.png"} if wanted else {}
    hook = model.register_forward_pre_hook(lambda _, __, options: asked.append(options), with_kwargs=True)
    try:
        retouch_file(photo, tmp_path / "out.png", model=model, **side)
    finally:
        hook.remove()
    assert asked[0]["return_intermediates"] == (wanted in ("save_mask", "save_blend"))


def test_jpeg_in_place(model: abpn_fast.ABPN, tmp_path: Path) -> None:
    path = tmp_path / "in.jpg"
    Image.fromarray(RGBA[..., :3]).save(path)
    before = pixels(path)
    with pytest.raises(FileExistsError, match="exists already"):
        retouch_file(path, path, model=model)
    assert np.array_equal(pixels(path), before)
    retouch_file(path, path, model=model, overwrite=True)
    assert (pixels(path) != before).any()
    assert [file.name for file in tmp_path.iterdir()] == ["in.jpg"]


def test_quality(model: abpn_fast.ABPN, photo: Path, tmp_path: Path) -> None:
    for quality in (30, 95):
        retouch_file(photo, tmp_path / f"{quality}.jpg", model=model, quality=quality)
    assert (tmp_path / "30.jpg").stat().st_size * 2 < (tmp_path / "95.jpg").stat().st_size


def test_two_pixels(model: abpn_fast.ABPN, tmp_path: Path) -> None:
    Image.new("RGB", (2, 1), (10, 20, 30)).save(tmp_path / "in.png")
    report = retouch_file(
        tmp_path / "in.png",
        tmp_path / "out.png",
        model=model,
        save_mask=tmp_path / "m.png",
        save_blend=tmp_path / "b.png",
        compare=tmp_path / "c.png",
    )
    assert (report.size, report.levels) == ((2, 1), 0)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failing_write_leaves_all_as_it_was(
    model: abpn_fast.ABPN, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    save: Callable[..., None] = Image.Image.save

    def fail_on_jpeg(image: Image.Image, stream: Any, format: str, **options: Any) -> None:
        save(image, stream, format, **options)
        if format == "JPEG":
            raise error

    (tmp_path / "out.png").write_bytes(b"old")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(Image.Image, "save", fail_on_jpeg)
    with pytest.raises(type(error)):
        retouch_file(photo, tmp_path / "out.png", model=model, compare=tmp_path / "c.jpg", overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"strength": float("nan")}, "strength must be finite"),
        ({"mask_threshold": 1.5}, "mask_threshold must be None or between 0 and 1"),
        ({"strength": "2"}, "strength must be a number, got '2'"),
        ({"mask_threshold": "2"}, "mask_threshold must be a number, got '2'"),
        ({"quality": 0}, "quality must be an integer from 1 to 100"),
        ({"quality": 95.5}, r"quality must be an integer from 1 to 100, got 95\.5"),
        ({"levels": -1}, "levels must be"),
        ({"levels": "2"}, "levels must be None or an integer >= 0, got '2'"),
        ({"model": None}, "model must be an .* got NoneType"),
        ({"model": torch.nn.Conv2d(3, 3, 1)}, "model must be an .* got Conv2d"),
        ({"save_mask": "m.jpg"}, r"stored as \.png"),
        ({"save_mask": "m.tif"}, r"stored as \.png"),
        ({"compare": "c.tif"}, r"stored as \.png or \.jpg, got 'c\.tif'"),
        ({"backend": "quick"}, "must be one of"),
        ({"model": abpn_fast.ABPN("small")}, r"call model\.eval\(\)"),
        ({"model": "no such model"}, "no such model"),
        ({"model": "small", "device": "toaster"}, "device must be"),
        ({"model": "small", "sensitivity": float("nan")}, "sensitivity must be finite"),
        ({"sensitivity": 1.0}, "sensitivity is of a model that is given by name"),
    ],
)
def test_wrong_arguments(
    model: abpn_fast.ABPN, photo: Path, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises((ValueError, OSError, TypeError), match=reason):
        retouch_file(photo, tmp_path / "out.png", **{"model": model, **options})
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_transparency_does_not_fit_into_jpeg(model: abpn_fast.ABPN, tmp_path: Path) -> None:
    Image.fromarray(RGBA).save(tmp_path / "in.png")
    with pytest.raises(ValueError, match="has transparency"):
        retouch_file(tmp_path / "in.png", tmp_path / "out.jpg", model=model)
    assert not (tmp_path / "out.jpg").exists()


def test_a_result_that_exists_is_refused_before_the_network_runs(
    model: abpn_fast.ABPN, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "forward", lambda *_, **__: pytest.fail("the network ran"))
    with pytest.raises(FileExistsError, match=r"in\.png exists already"):
        retouch_file(photo, photo, model=model)


def test_a_comparison_has_no_profile_of_grey(model: abpn_fast.ABPN, tmp_path: Path) -> None:
    for mode in ("L", "RGB"):
        Image.fromarray(RGBA[..., :3]).convert(mode).save(tmp_path / "in.png", icc_profile=b"profile")
        retouch_file(tmp_path / "in.png", tmp_path / f"{mode}.png", model=model, compare=tmp_path / f"{mode}.c.png")
        with Image.open(tmp_path / f"{mode}.png") as result, Image.open(tmp_path / f"{mode}.c.png") as sheet:
            assert result.info["icc_profile"] == b"profile"
            assert ("icc_profile" in sheet.info) == (mode == "RGB")


def test_what_jpeg_cannot_hold_is_refused_before_the_network_runs(model: abpn_fast.ABPN, tmp_path: Path) -> None:
    exif, info = Image.Exif(), PngInfo()
    exif[0x010E] = "x" * 70_000
    info.add_itxt("XML:com.adobe.xmp", "x" * 70_000)
    Image.new("RGB", (70_000, 1)).save(tmp_path / "wide.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "exif.png", exif=exif)
    Image.new("RGB", (9, 9)).save(tmp_path / "xmp.png", pnginfo=info)
    hook = model.register_forward_pre_hook(lambda *_: pytest.fail("the network ran"))
    reasons = {"wide": "a side of 70000 pixels, .* 65500", "exif": "70.* bytes of EXIF, .* 65533", "xmp": "70000 .*XMP"}
    try:
        for name, reason in reasons.items():
            with pytest.raises(ValueError, match=rf"{name}\.png has {reason}.*; let the result end in \.png"):
                retouch_file(tmp_path / f"{name}.png", tmp_path / "out.jpg", model=model)
    finally:
        hook.remove()


@pytest.mark.skipif(native.why_missing() is not None, reason=native.why_missing() or "")
def test_the_backend_told_is_the_one_that_ran(model: abpn_fast.ABPN, photo: Path, tmp_path: Path) -> None:
    def told(network: Any, **options: Any) -> str:
        return retouch_file(photo, tmp_path / "out.png", model=network, overwrite=True, **options).backend

    plain = abpn_fast.ABPN(abpn_fast.ABPNConfig.preset("small", refining=False)).eval()
    slow = abpn_fast.reference.ABPN("small").eval()
    assert [told(network, levels=1) for network in (model, plain, slow)] == ["cpu", "reference", "reference"]
    assert told(model, levels=0) == "reference"
    assert told("small", levels=1, dtype=torch.float64) == "reference"
    with pytest.raises(RuntimeError, match="backend cpu computes in float32"):
        told("small", levels=1, dtype=torch.float64, backend="cpu")


def test_a_mask_needs_a_mask_branch(photo: Path, tmp_path: Path) -> None:
    plain = abpn_fast.ABPN(abpn_fast.ABPNConfig.preset("small", mask_branch=False)).eval()
    with pytest.raises(ValueError, match="mask_branch=True"):
        retouch_file(photo, tmp_path / "out.png", model=plain, save_mask=tmp_path / "m.png")


def test_levels_leave_a_thumbnail_of_about_1024_pixels() -> None:
    sizes = [(1, 1), (256, 256), (1024, 700), (1400, 1500), (3456, 2304), (4052, 3456), (8192, 100)]
    assert [photo_levels(*size) for size in sizes] == [0, 0, 0, 1, 2, 2, 3]
