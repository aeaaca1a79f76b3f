from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from abpn_fast.training import photos
from abpn_fast.training.files import BadFile
from abpn_fast.training.photos import BlemishedCrops, Crops, Pair, find_photos, load_photos

SCHEDULE = (Crops(0, 24, 3), Crops(1, 32, 2), Crops(2, 48, 1))


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 200, (height, width, 3), dtype=np.uint8)


def crops(steps: int = 50, seed: int = 0) -> BlemishedCrops:
    return BlemishedCrops([[noise(70, 90)], [noise(64, 50, 1)]], steps, seed, SCHEDULE)


def same(a: Pair, b: Pair) -> bool:
    return a.levels == b.levels and torch.equal(a.image, b.image) and torch.equal(a.target, b.target)


def test_find_photos(tmp_path: Path) -> None:
    for name in ("b.JPG", "deep/er/a.png", "notes.txt", "c.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in find_photos([tmp_path])] == ["b.JPG", "c.webp", "a.png"]
    found = find_photos([tmp_path / "deep", tmp_path, tmp_path / "deep"])
    assert [path.name for path in found] == ["a.png", "b.JPG", "c.webp"]


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "round").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "gone.png").symlink_to(tmp_path / "nowhere")
    assert find_photos([tmp_path / "photos"]) == [tmp_path / "photos" / "more" / "a.png"]
    assert len(find_photos([tmp_path / "photos", tmp_path / "elsewhere"])) == 1


def test_a_folder_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder of photos: .*absent"):
        find_photos([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no photo in .*empty"):
        find_photos([tmp_path / "empty"])


def test_load_photos(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(noise(900, 1600)).save(tmp_path / "large.png")
    Image.fromarray(noise(50, 40)).convert("L").save(tmp_path / "grey.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(noise(30, 60)).save(tmp_path / "turned.jpg", exif=turned)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(BadFile, match=r"broken.png cannot be read"):
        load_photos(find_photos([tmp_path]))
    with caplog.at_level(logging.WARNING):
        loaded = load_photos(find_photos([tmp_path]), longest=1600, bad="skip")
    assert [photo.shapes for photo in loaded] == [[size.shape for size in photo] for photo in loaded]
    assert [[size.shape for size in photo] for photo in loaded] == [
        [(50, 40, 3)],
        [(900, 1600, 3), (450, 800, 3)],
        [(60, 30, 3)],
    ]
    assert all(size.dtype == np.uint8 for photo in loaded for size in photo)
    assert "broken.png" in caplog.text and "skipped 1 of 4" in caplog.text


def test_a_photo_is_reduced_to_the_longest_side(tmp_path: Path) -> None:
    Image.fromarray(noise(100, 200)).save(tmp_path / "photo.png")
    assert load_photos([tmp_path / "photo.png"], longest=80)[0][0].shape == (40, 80, 3)


def test_a_batch_is_a_function_of_its_number() -> None:
    in_order, out_of_order = crops(), crops()
    batches = [in_order[n] for n in range(6)]
    assert all(same(out_of_order[n], batches[n]) for n in (5, 0, 3))
    assert same(crops(steps=1000)[4], batches[4])
    assert not any(same(batches[n], batches[n + 1]) for n in range(5))
    assert not same(crops(seed=1)[0], batches[0])


def test_the_first_crop_is_as_free_as_the_others() -> None:
    photo = [noise(400 >> halvings, 400 >> halvings, halvings) for halvings in range(3)]
    found: list[set[tuple[int, int]]] = [set(), set()]
    for seed in range(3):
        crops = BlemishedCrops([photo, photo], 60, seed, (Crops(0, 24, 2), Crops(1, 32, 2)))
        for step in range(60):
            kind = crops.kind(np.random.default_rng([seed, step, 1 << 31]))
            for index in range(2):
                rng = np.random.default_rng([seed, step, index])
                rng.integers(2)
                found[index].add((kind.levels, int(rng.integers(3))))
            assert crops[step].levels == kind.levels
    assert found == [{(levels, halvings) for levels in range(2) for halvings in range(3)}] * 2


def test_batches() -> None:
    kinds = {(levels, size, count) for levels, size, count in SCHEDULE}
    data = crops()
    seen = set()
    for n in range(len(data)):
        pair = data[n]
        assert pair.image.dtype == pair.target.dtype == torch.uint8
        assert pair.image.shape == pair.target.shape and pair.image.is_contiguous()
        count, channels, height, width = pair.image.shape
        assert channels == 3 and height == width
        seen.add((pair.levels, height, count))
    assert seen == kinds and len(data) == 50


@pytest.mark.parametrize("kinds", [1, 3, 7])
def test_any_number_of_kinds(kinds: int) -> None:
    data = BlemishedCrops([[noise(70, 90)]], 2, 0, SCHEDULE[:1] * kinds)
    assert len(data.shares) == kinds and data.shares.sum() == pytest.approx(1) and data[0].levels == 0


def test_only_blemishes_tell_image_and_target_apart() -> None:
    parts = []
    for n in range(len(data := crops())):
        difference = (data[n].image.int() - data[n].target.int()).abs().amax(1)
        parts += (difference > 5).float().mean((1, 2)).tolist()
    assert 0 < np.mean(parts) < 0.35
    assert np.mean(np.array(parts) == 0) < 0.4


def test_blemishes_are_as_large_as_a_pixel_of_the_thumbnail(monkeypatch: pytest.MonkeyPatch) -> None:
    scales: list[float] = []

    def record(photo: np.ndarray, rng: np.random.Generator, *, scale: float) -> np.ndarray:
        scales.append(scale)
        return photo

    monkeypatch.setattr(photos, "blemish", record)
    data = crops()
    for n in range(10):
        scales.clear()
        pair = data[n]
        assert scales == [2**pair.levels] * len(pair.image)


def test_a_photo_smaller_than_the_crop_is_mirrored() -> None:
    photo = noise(20, 30)
    data = BlemishedCrops([[photo]], 20, 0, (Crops(0, 48, 1),))
    known = {tuple(pixel) for pixel in photo.reshape(-1, 3)}
    kept = 0
    for n in range(len(data)):
        target = data[n].target
        assert target.shape == (1, 3, 48, 48)
        kept += {tuple(pixel) for pixel in target[0].permute(1, 2, 0).reshape(-1, 3).tolist()} <= known
    # Half of the crops change exposure and white balance.
    assert 3 <= kept <= 17


def test_a_mirrored_photo_has_each_of_its_pixels_alike_often() -> None:
    photo = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    found = photos._crop([photo], np.random.default_rng(0), 8)
    assert np.unique(found.reshape(-1, 3), axis=0, return_counts=True)[1].tolist() == [4] * 16
