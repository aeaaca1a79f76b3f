from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from abpn_fast.training import evaluate, files, pairs
from abpn_fast.training.batches import Crops, load
from abpn_fast.training.files import BadFile
from abpn_fast.training.pairs import HeldOutPairs, PairedPhotos, PairFiles, find_pairs, is_paired
from tests.training.runs import smooth, write_pairs


def save(path: Path, seed: int = 0, height: int = 8, width: int = 12, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(smooth(seed, height, width)).save(path, **options)
    return path


def names(split: list[PairFiles]) -> list[str]:
    for pair in split:
        assert pair.image.stem == pair.target.stem
    return [pair.image.stem for pair in split]


def test_plain_folders_are_divided_by_a_seed(tmp_path: Path) -> None:
    write_pairs(tmp_path, 20)
    first, again, other = find_pairs(tmp_path), find_pairs(tmp_path), find_pairs(tmp_path, seed=1)
    assert first == again != other
    assert first.validation == first.test and (len(first.train), len(first.test)) == (17, 3)
    assert sorted(names(first.train) + names(first.test), key=int) == [str(n) for n in range(20)]


def test_the_share_of_the_paper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """2 522 and 500 of CRHD-3K's 3 022."""
    for name in ("CRHD-3K_src", "CRHD-3K_gt"):
        (tmp_path / name).mkdir()
    found = [PairFiles(Path(f"{n}.jpg"), Path(f"{n}.jpg"), (9, 9)) for n in range(3022)]
    monkeypatch.setattr(pairs, "_pairs", lambda *_: found)
    split = find_pairs(tmp_path)
    assert is_paired(tmp_path) and (len(split.train), len(split.test)) == (2522, 500)
    assert not {*split.train} & {*split.test}


def test_a_pair_more_moves_one_other_at_most(tmp_path: Path) -> None:
    write_pairs(tmp_path, 24)
    before = {*names(find_pairs(tmp_path).test)}
    for folder in ("src", "gt"):
        save(tmp_path / folder / "-1.png")
    after = {*names(find_pairs(tmp_path).test)}
    assert len((before ^ after) - {"-1"}) <= 1


def test_files_that_are_named_alike_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_pairs(tmp_path)
    save(tmp_path / "src" / "1.jpg")
    with pytest.raises(BadFile, match=r"src/1.jpg and .*src/1.png are named alike"):
        find_pairs(tmp_path)
    split = find_pairs(tmp_path, bad="skip")
    assert sorted(names(split.train) + names(split.test)) == ["0", "2", "3"] and "named alike" in caplog.text


def test_folders_that_are_divided_already(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("test", 2)):
        for name in ("src", "gt"):
            for seed in range(count):
                save(tmp_path / part / name / f"{part}{seed}.png")
    split = find_pairs(tmp_path)
    assert is_paired(tmp_path)
    assert (names(split.train), names(split.test)) == (["train0", "train1", "train2"], ["test0", "test1"])


def test_a_test_part_alone_is_to_be_measured_on(tmp_path: Path) -> None:
    write_pairs(tmp_path / "test", 3)
    split = find_pairs(tmp_path)
    assert is_paired(tmp_path) and (len(split.train), len(split.test)) == (0, 3)
    assert len(evaluate.named([tmp_path], size=64, levels=1)[1]) == 3


def test_no_test_part_is_said(tmp_path: Path) -> None:
    for folder in ("ffhq", "ffhqr"):
        for number in range(3):
            save(tmp_path / folder / f"{number:05}.png", number)
    with pytest.raises(
        ValueError, match=r"none of the pairs in .* is kept for the test; ask for all of them \(--all\)"
    ):
        evaluate.named([tmp_path])
    assert len(evaluate.named([tmp_path], every=True, size=64, levels=1)[1]) == 3


def test_names_need_not_be_utf_8(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    for folder in ("src", "gt"):
        (tmp_path / folder / "0.png").rename(tmp_path / folder / os.fsdecode(b"\xfc.png"))
    split = find_pairs(tmp_path)
    assert len(split.train) + len(split.test) == 4


def test_kept_pairs_that_are_all_bad(tmp_path: Path) -> None:
    (kept,) = find_pairs(write_pairs(tmp_path)).test
    kept.image.write_bytes(kept.image.read_bytes()[:-300])
    held = HeldOutPairs([kept], 1, 64)
    with pytest.raises(ValueError, match="of the pairs kept to measure on nothing is left: all 1 are bad; mend them"):
        held.check("skip")
    with pytest.raises(BadFile, match="cannot be read"):
        held.check("refuse")


def test_ffhqr_is_divided_by_number(tmp_path: Path) -> None:
    """By folders: train 00000 to 55000, validation 56000 to 62000, test 63000 to 69000."""
    for number in (0, 55999, 56000, 62999, 63000, 69999):
        name = f"{number - number % 1000:05}/{number:05}.png"
        save(tmp_path / "ffhq" / "images1024x1024" / name)
        save(tmp_path / "ffhqr" / name)
    split = find_pairs(tmp_path)
    assert names(split.train) == ["00000", "55999"]
    assert names(split.validation) == ["56000", "62999"] and names(split.test) == ["63000", "69999"]


def test_extensions_may_differ_and_subfolders_count(tmp_path: Path) -> None:
    for name, extension in (("src", "jpg"), ("gt", "png")):
        for place in ("a/1", "b/1"):
            save(tmp_path / name / f"{place}.{extension}")
    split = find_pairs(tmp_path)
    assert {pair.image.parent.name for pair in split.train + split.test} == {"a", "b"}


def cut_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:10])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "size": (lambda folder: save(folder / "gt" / "1.png", 1, 80, 95), r"src/1.png is 96 x 80 and its target 95 x 80"),
    "turned": (lambda folder: save(folder / "gt" / "1.png", 1, 96, 80), "target 80 x 96"),
    "target": (lambda folder: (folder / "gt" / "1.png").unlink(), r"src/1.png has no target in .*gt"),
    "photo": (lambda folder: (folder / "src" / "1.png").unlink(), r"gt/1.png has no photo in .*src"),
    "corrupt": (lambda folder: cut_header(folder / "gt" / "1.png"), r"gt/1.png cannot be read"),
    "text": (lambda folder: (folder / "src" / "1.png").write_text("x"), r"src/1.png cannot be read"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_pair_is_named_and_refused_or_skipped(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_pairs(tmp_path)
    spoil, reason = BAD[fault]
    spoil(tmp_path)
    with pytest.raises(BadFile, match=reason):
        find_pairs(tmp_path)
    with caplog.at_level(logging.WARNING):
        split = find_pairs(tmp_path, bad="skip")
    assert sorted(names(split.train) + names(split.test)) == ["0", "2", "3"]
    assert "1.png" in caplog.text and "skipped 1 of 4" in caplog.text


def test_empty_and_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder of pairs: .*absent"):
        find_pairs(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"no pairs in .*: it needs src/ and gt/"):
        find_pairs(tmp_path)
    (tmp_path / "src").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no photo in .*src"):
        find_pairs(tmp_path)
    save(tmp_path / "src" / "1.png")
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*gt"):
        find_pairs(tmp_path)
    save(tmp_path / "gt" / "1.png")
    with pytest.raises(ValueError, match="1 pair; it takes two"):
        find_pairs(tmp_path)


def test_a_file_that_ends_early_is_met_while_training(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    broken = tmp_path / "src" / "2.png"
    broken.write_bytes(broken.read_bytes()[:-300])
    found = [*find_pairs(tmp_path).train, *find_pairs(tmp_path).test]
    refusing = PairedPhotos(found, 3, 0, Crops(1, 32, 4))
    with pytest.raises(BadFile, match=r"2.png cannot be read: .*truncated"):
        list(load(refusing, 0, workers=1))
    skipping = PairedPhotos(found, 3, 0, Crops(1, 32, 4), bad="skip")
    batches = list(load(skipping, 0, workers=0))
    # Once in every batch of four, and now and then in its place.
    assert len(batches) == 3 and all(batch.skipped for batch in batches)
    assert "2.png" in batches[0].skipped[0]


def found_in(folder: Path, count: int = 5) -> list[PairFiles]:
    split = find_pairs(write_pairs(folder, count))
    return [*split.train, *split.test]


def test_every_pair_comes_once_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = found_in(tmp_path)
    seen: list[str] = []
    blank = np.zeros((32, 32, 3), np.uint8)
    monkeypatch.setattr(pairs, "_whole", lambda pair, size: (seen.append(pair.image.stem), (blank, blank))[1])
    data = PairedPhotos(found, 10, 3, Crops(1, 32, 2))
    for step in range(10):
        data[step]
    epochs = [seen[5 * epoch : 5 * epoch + 5] for epoch in range(4)]
    assert all(sorted(epoch) == ["0", "1", "2", "3", "4"] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    fresh = PairedPhotos(found, 10, 3, Crops(1, 32, 2))
    seen.clear()
    fresh[4]
    assert seen == epochs[1][3:]
    seen.clear()
    for which in (0, 1):
        PairedPhotos(found, 10, 3, Crops(1, 32, 2), part=(which, 2))[4]
    assert seen == epochs[1][3:]


@pytest.mark.parametrize("crop", [False, True])
def test_image_and_target_stay_aligned(tmp_path: Path, crop: bool) -> None:
    """Only the drawn spot tells them apart, in a batch that is a function of its number."""
    data = PairedPhotos(found_in(tmp_path), 12, 0, Crops(1, 64, 2), crop=crop)
    flipped = []
    for step in range(12):
        batch = data[step]
        assert batch.image.shape == batch.target.shape == (2, 3, 64, 64) and batch.levels == 1
        assert torch.equal(data[step].image, batch.image)
        changed = (batch.image.int() - batch.target.int()).abs().amax(1) > 8
        assert changed.float().mean() < 0.3
        # Nothing becomes brighter, but for the ringing of the resize.
        assert (batch.image.int() <= batch.target.int() + 25).all()
        flipped += [float(each.float().mean(0) @ torch.arange(64.0) / each.float().mean(0).sum()) for each in changed]
    assert len({round(centre) for centre in flipped}) > 1


def test_whole_photos_are_fitted_and_padded(tmp_path: Path) -> None:
    """96 x 80: resized to 48 x 40, the rest repeats the last row."""
    found = found_in(tmp_path, 2)
    (batch,) = HeldOutPairs(found[:1], 1, 48)
    assert batch.image.shape == (1, 3, 48, 48)
    assert (batch.target[:, :, 40:] == batch.target[:, :, 39:40]).all()
    with Image.open(found[0].target) as picture:
        small = np.asarray(picture.resize((48, 40), Image.Resampling.LANCZOS))
    assert np.abs(batch.target[0, :, :40].permute(1, 2, 0).numpy().astype(int) - small).max() <= 3


@pytest.mark.parametrize("crop", [False, True])
def test_a_blemish_at_the_edge_stays_out_of_the_padding(tmp_path: Path, crop: bool) -> None:
    for name, level in (("src", 0), ("gt", 200)):
        pixels = smooth(0, 40, 80).copy()
        pixels[-8:, 20:40] = level
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "a.png")
    pair = PairFiles(tmp_path / "src" / "a.png", tmp_path / "gt" / "a.png", (80, 40))
    batch = PairedPhotos([pair], 1, 0, Crops(0, 80, 1), crop=crop, flip=False)[0]
    assert torch.equal(batch.image[:, :, 40:], batch.target[:, :, 40:])
    assert not torch.equal(batch.image[:, :, 32:40], batch.target[:, :, 32:40])


def test_held_out_pairs_are_spread_and_fixed(tmp_path: Path) -> None:
    found = found_in(tmp_path, 9)
    held = HeldOutPairs(found, 1, 32, most=4)
    assert len(held) == 3
    assert torch.equal(held[1].image, HeldOutPairs(found[3:4], 1, 32)[0].image)


@pytest.mark.parametrize(("extension", "drafted"), [("jpg", 2), ("png", 0)])
def test_both_are_halved_by_the_decoder_or_neither(
    tmp_path: Path, extension: str, drafted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = PairFiles(save(tmp_path / "a.jpg", 0, 80, 96), save(tmp_path / f"b.{extension}", 0, 80, 96), (96, 80))
    calls = []
    monkeypatch.setattr(Image.Image, "draft", lambda *_: calls.append(1))
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.draft", lambda *_: calls.append(1))
    pairs._both(pair, (24, 20))
    assert len(calls) == drafted


def test_an_orientation_behind_the_pixels_is_refused(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    exif = turned.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    path = save(tmp_path / "a.png", 0, 80, 96)
    data = path.read_bytes()
    path.write_bytes(data[:-12] + chunk + data[-12:])
    with pytest.raises(
        BadFile, match=r"a.png cannot be read: its pixels are \(80, 96\) and its header says \(96, 80\)"
    ):
        files.decode(path, files.upright_size(path))


@pytest.mark.parametrize(("extension", "kind"), [("png", np.uint16), ("tif", np.uint16), ("tif", np.int32)])
def test_sixteen_bits_are_scaled(tmp_path: Path, extension: str, kind: type) -> None:
    grey = np.arange(0, 65536, 64).reshape(32, 32)
    path = tmp_path / f"a.{extension}"
    Image.fromarray(grey.astype(kind)).save(path)
    assert np.array_equal(files.decode(path), np.rint(grey / 257).astype(np.uint8)[..., None].repeat(3, 2))


@pytest.mark.parametrize(("value", "reason"), [(0.5, "floating-point"), (70_000, "not within 0 and 65535")])
def test_other_grey_levels_are_refused(tmp_path: Path, value: float, reason: str) -> None:
    kind = np.float32 if value < 1 else np.int32
    Image.fromarray(np.full((8, 8), value, kind)).save(tmp_path / "a.tif")
    with pytest.raises(BadFile, match=rf"a.tif cannot be read: .*{reason}"):
        files.decode(tmp_path / "a.tif")


@pytest.mark.parametrize("extension", ["jpg", "tif", "png", "webp"])
def test_orientation_counts(tmp_path: Path, extension: str) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    path = save(tmp_path / f"a.{extension}", 0, 80, 96, exif=turned, quality=95)
    assert files.upright_size(path) == (80, 96)
    assert files.decode(path).shape == (96, 80, 3)
    half = files.decode(path, (20, 24))
    assert half.shape == (24, 20, 3)
    upright = np.rot90(smooth(0, 80, 96), -1)
    small = np.asarray(Image.fromarray(upright).resize((20, 24), Image.Resampling.LANCZOS))
    assert np.abs(half.astype(int) - small).mean() < 4


def test_the_cache_holds_what_was_asked_for_last(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{n}.png", n, 10, 10) for n in range(4)]
    cache = files._Cache(3 * 300)
    first = [cache.get(path, (10, 10)) for path in paths[:3]]
    assert cache.get(paths[0], (10, 10)) is first[0]
    cache.get(paths[3], (10, 10))
    assert cache.held == 900 and cache.get(paths[0], (10, 10)) is first[0]
    assert cache.get(paths[1], (10, 10)) is not first[1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_that_cannot_be_written_anew(tmp_path: Path, orientation: int) -> None:
    """A width that is a fraction, which Pillow reads and does not write."""
    size = struct.pack("<HHII", 0x0100, 5, 1, 38)
    turn = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + size + turn + struct.pack("<III", 0, 12, 1)
    path = save(tmp_path / "a.png", exif=exif)
    plain = save(tmp_path / "b.png")
    wanted = np.asarray(Image.open(plain).convert("RGB"))
    turned = [wanted, wanted[:, ::-1], wanted[::-1, ::-1], wanted[::-1], wanted.transpose(1, 0, 2)]
    turned += [np.rot90(wanted, -1), wanted[::-1, ::-1].transpose(1, 0, 2), np.rot90(wanted)]
    assert np.array_equal(files.decode(path), turned[orientation - 1])
    assert files.upright_size(path) == turned[orientation - 1].shape[1::-1]
