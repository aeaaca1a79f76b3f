from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from abpn_fast.photo import Photo, png_chunks, read_photo
from abpn_fast.photo.files import photo_writer

RNG = np.random.default_rng(0)
SIZES = [(1, 2), (2, 1), (1, 37), (37, 1), (17, 29)]
PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
Samples = NDArray[np.uint16]


def picture(channels: int, size: tuple[int, int] = (17, 29)) -> Samples:
    samples = RNG.integers(0, 65536, (*size, channels), np.uint16)
    # Neighbours whose bytes carry into each other, and equal ones.
    samples[: size[0] // 2] = np.arange(samples[: size[0] // 2].size).reshape(samples[: size[0] // 2].shape) // 5 + 250
    return samples


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))


def filtered(samples: Samples, first_filter: int) -> bytes:
    """Lines with the five filters in turn, by the specification, byte by byte."""
    pixel, lines = 2 * samples.shape[2], b""
    stored = samples.astype(">u2").view(np.uint8).reshape(len(samples), -1).astype(int)
    for y, line in enumerate(stored):
        kind = (first_filter + y) % 5
        lines += bytes([kind])
        for x, value in enumerate(line):
            left = stored[y, x - pixel] if x >= pixel else 0
            up = stored[y - 1, x] if y else 0
            corner = stored[y - 1, x - pixel] if y and x >= pixel else 0
            guess = (0, left, up, (left + up) // 2, paeth(left, up, corner))[kind]
            lines += bytes([(value - guess) % 256])
    return lines


def png(
    samples: Samples, *, interlaced: bool = False, first_filter: int = 0, before: bytes = b"", after: bytes = b""
) -> bytes:
    height, width, channels = samples.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, interlaced)
    passes = [samples[y::down, x::right] for y, x, down, right in PASSES] if interlaced else [samples]
    lines = b"".join(filtered(part, first_filter) for part in passes if part.size)
    packed = zlib.compress(lines)
    body = b"".join(chunk(b"IDAT", packed[start : start + 300]) for start in range(0, len(packed), 300))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + body + after + chunk(b"IEND", b"")


def pixels(data: bytes) -> Samples:
    """By the specification, of a file that is not interlaced."""
    chunks = list(png_chunks.each(data))
    width, height, bits, colour_type, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert (bits, rest) == (16, [0, 0, 0])
    channels = {0: 1, 4: 2, 2: 3, 6: 4}[colour_type]
    raw = zlib.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT"))
    stored = np.frombuffer(raw, np.uint8).reshape(height, 1 + width * channels * 2)
    kinds, pixel = stored[:, 0], 2 * channels
    lines = np.pad(stored[:, 1:].astype(int), ((1, 0), (pixel, 0)))
    for y in range(1, height + 1):
        for x in range(pixel, lines.shape[1]):
            left, up, corner = int(lines[y, x - pixel]), int(lines[y - 1, x]), int(lines[y - 1, x - pixel])
            guess = (0, left, up, (left + up) // 2, paeth(left, up, corner))[kinds[y - 1]]
            lines[y, x] = (lines[y, x] + guess) % 256
    return lines[1:, pixel:].astype(np.uint8).view(">u2").astype(np.uint16).reshape(height, width, channels)


def read(tmp_path: Path, data: bytes) -> Photo:
    (tmp_path / "in.png").write_bytes(data)
    return read_photo(tmp_path / "in.png")


def written(photo: Photo) -> bytes:
    stream = io.BytesIO()
    photo_writer(Path("out.png"), photo, photo.pixels)(stream)
    return stream.getvalue()


def is_that_picture(photo: Photo, samples: Samples) -> bool:
    return photo.pixels.dtype == np.uint16 and np.array_equal(photo.samples(photo.pixels), samples)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", SIZES)
def test_every_size_filter_and_pass_is_read(
    tmp_path: Path, size: tuple[int, int], channels: int, interlaced: bool
) -> None:
    samples = picture(channels, size)
    for first_filter in range(5):
        data = png(samples, interlaced=interlaced, first_filter=first_filter)
        photo = read(tmp_path, data)
        assert is_that_picture(photo, samples)
        assert photo.pixels.flags.writeable and photo.pixels.flags.c_contiguous


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [*SIZES, (70, 99)])
def test_every_size_is_written(tmp_path: Path, size: tuple[int, int], channels: int) -> None:
    samples = picture(channels, size)
    (tmp_path / "in.png").write_bytes(b"")
    grey, alpha = channels < 3, None if channels % 2 else samples[..., -1]
    colours = np.repeat(samples[..., :1], 3, axis=2) if grey else samples[..., :3]
    data = written(Photo(colours, alpha=alpha, grey=grey))
    assert np.array_equal(pixels(data), samples)
    assert is_that_picture(read(tmp_path, data), samples)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.size == size[::-1]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_opencv_agrees(tmp_path: Path, channels: int) -> None:
    cv2 = pytest.importorskip("cv2")
    order = [2, 1, 0, 3][:channels] if channels > 1 else [0]
    samples = picture(channels)
    theirs = cv2.imencode(".png", samples[..., order])[1].tobytes()
    assert is_that_picture(read(tmp_path, theirs), samples)
    ours = cv2.imdecode(np.frombuffer(written(read(tmp_path, theirs)), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(ours.reshape(samples.shape)[..., order], samples)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_becomes_alpha(tmp_path: Path, channels: int) -> None:
    samples = picture(channels)
    samples[3, 4:6] = samples[0, 0]
    samples[3, 6] = samples[0, 0] ^ 1
    key = samples[0, 0].astype(">u2").tobytes()
    photo = read(tmp_path, png(samples, before=chunk(b"tRNS", key)))
    transparent = (samples == samples[0, 0]).all(2)
    assert transparent.sum() >= 3
    assert np.array_equal(photo.pixels[..., :channels], samples)
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha, np.where(transparent, 0, 65535))
    assert np.array_equal(pixels(written(photo))[..., -1], photo.alpha)


@pytest.mark.parametrize("place", ["before", "after"])
def test_metadata_is_what_an_8_bit_file_has(tmp_path: Path, place: str) -> None:
    """What Pillow writes for 8 bits, which the tests of photo files look into, and as it orders it."""
    exif, info, stream = Image.Exif(), PngInfo(), io.BytesIO()
    exif[0x0112], exif[0x010F] = 3, "Maker"
    info.add_text("Author", "someone")
    info.add(b"gAMA", struct.pack(">I", 45455))
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>')
    Image.new("RGB", (2, 2)).save(stream, "PNG", exif=exif, pnginfo=info, icc_profile=b"a profile", dpi=(300, 240))
    extra = [(kind, content) for kind, content in png_chunks.each(stream.getvalue())][1:-2]
    assert {kind for kind, _ in extra} == {b"iCCP", b"pHYs", b"gAMA", b"tEXt", b"iTXt", b"eXIf"}
    packed: dict[str, Any] = {place: b"".join(chunk(kind, content) for kind, content in extra)}
    photo = read(tmp_path, png(picture(3, (2, 2)), **packed))
    (tmp_path / "8.png").write_bytes(stream.getvalue())
    shallow = read_photo(tmp_path / "8.png")
    for name in ("exif", "icc", "xmp", "dpi", "segments", "captions"):
        assert getattr(photo, name) == getattr(shallow, name)
    assert photo.exif is not None and photo.icc == b"a profile" and photo.dpi is not None
    kinds = [kind for kind, _ in png_chunks.each(written(photo)) if kind != b"IHDR"]
    assert [chunk for chunk in png_chunks.each(written(photo)) if chunk[0] not in (b"IHDR", b"IDAT")] == [
        chunk for chunk in png_chunks.each(written(shallow)) if chunk[0] not in (b"IHDR", b"IDAT")
    ]
    assert kinds.index(b"iCCP") < kinds.index(b"IDAT") and kinds[-1] == b"IEND"
    with PngImageFile(io.BytesIO(written(photo))) as image:
        image.load()
        assert (image.getexif()[0x0112], image.info["Author"]) == (1, "someone")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, channels: int, capfd: pytest.CaptureFixture[str]) -> None:
    data = png(picture(channels, (5, 4)), before=chunk(b"gAMA", struct.pack(">I", 45455)))
    # Behind these there is nothing but a checksum of no bytes.
    for end in range(8, len(data) - 4):
        with pytest.raises(ValueError, match=r"in\.png is (damaged|not a PNG file)"):
            read(tmp_path, data[:end])
    assert capfd.readouterr() == ("", "")


def test_pixels_that_are_missing_or_wrong_are_refused(tmp_path: Path) -> None:
    samples = picture(3)
    whole = png(samples)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 29, 18, 16, 2, 0, 0, 0))
    with pytest.raises(ValueError, match=r"in\.png is damaged: "):
        read(tmp_path, whole[:8] + head + whole[8 + len(head) :])
    wrong_sum = whole.replace(whole[-20:-16], bytes([whole[-20] ^ 1]) + whole[-19:-16])
    with pytest.raises(ValueError, match=r"in\.png is damaged: "):
        read(tmp_path, wrong_sum)


def test_too_many_pixels_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    data = png(picture(3))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 16, 2, 0, 0, 0))
    with pytest.raises(ValueError, match="400 megapixels, more than 200"):
        read(tmp_path, data[:8] + head + data[8 + len(head) :])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    with pytest.raises(ValueError, match="single pixel"):
        read(tmp_path, data[:8] + head + data[8 + len(head) :])


def test_an_animation_is_refused(tmp_path: Path) -> None:
    control = chunk(b"acTL", struct.pack(">II", 2, 0))
    control += chunk(b"fcTL", struct.pack(">5I2H2B", 0, 29, 17, 0, 0, 1, 9, 0, 0))
    with pytest.raises(ValueError, match="animation"):
        read(tmp_path, png(picture(3), before=control))


def test_noise_instead_of_a_file_does_no_harm(tmp_path: Path) -> None:
    sound = png(picture(3, (5, 4)), interlaced=True)
    refusals = []
    for _ in range(300):
        data = bytearray(sound)
        for at in RNG.integers(8, len(sound), 3):
            data[at] = RNG.integers(0, 256)
        try:
            read(tmp_path, bytes(data))
        except ValueError as error:
            refusals.append(str(error))
    assert all("in.png" in refusal for refusal in refusals)
    assert len(refusals) > 270
