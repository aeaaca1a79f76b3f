from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from abpn_fast.photo import Photo, read_photo, tiff
from abpn_fast.photo.codecs import Samples
from abpn_fast.photo.files import check_fits, photo_writer
from tests.photo.tiff_files import Values, Written, directory, tiff_file

RNG = np.random.default_rng(0)
SIZES = [(1, 2), (2, 1), (1, 37), (37, 1), (17, 29)]


def picture(bits: int, channels: int, size: tuple[int, int] = (17, 29)) -> Samples:
    return RNG.integers(0, 1 << bits, (*size, channels), np.uint16 if bits == 16 else np.uint8)


def read(tmp_path: Path, data: bytes) -> Photo:
    (tmp_path / "in.tif").write_bytes(data)
    return read_photo(tmp_path / "in.tif")


def written(photo: Photo, pixels: Samples | None = None, name: str = "out.tif") -> bytes:
    stream = io.BytesIO()
    photo_writer(Path(name), photo, photo.pixels if pixels is None else pixels)(stream)
    return stream.getvalue()


def is_that_picture(photo: Photo, samples: Samples) -> bool:
    return photo.pixels.dtype == samples.dtype and np.array_equal(photo.samples(photo.pixels), samples)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_read_and_written_whole(
    tmp_path: Path, size: tuple[int, int], channels: int, bits: int, order: str
) -> None:
    samples = picture(bits, channels, size)
    photo = read(tmp_path, tiff_file(samples, order, tags={305: (2, b"software\0")}))
    assert is_that_picture(photo, samples)
    assert photo.grey == (channels < 3)
    assert photo.pixels.flags.writeable and photo.pixels.flags.c_contiguous
    file = Written(written(photo))
    assert (file.order, file.tags[274]) == (order, (1,))
    assert np.array_equal(file.samples(), samples)
    assert is_that_picture(read(tmp_path, file.data), samples)


LAYOUTS: list[dict[str, Any]] = [
    {"rows": 5},
    {"rows": 1},
    {"tile": (16, 16)},
    {"tile": (48, 64)},
    {"planar": True},
    {"planar": True, "rows": 4},
    {"planar": True, "tile": (16, 16)},
    {"big": True, "rows": 3},
]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("packed", [(1, 1), (5, 1), (5, 2), (8, 1), (8, 2), (32946, 2), (32773, 1)])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [2, 3])
def test_layouts(
    tmp_path: Path, channels: int, layout: dict[str, Any], packed: tuple[int, int], bits: int, order: str
) -> None:
    samples = picture(bits, channels)
    samples[3:6] = 200
    data = tiff_file(samples, order, compression=packed[0], predictor=packed[1], **layout)
    assert is_that_picture(read(tmp_path, data), samples)


@pytest.mark.parametrize("compression", [1, 32773])
def test_differences_are_only_where_there_is_lzw_or_deflate(tmp_path: Path, compression: int) -> None:
    samples = picture(8, 3)
    data = tiff_file(samples, compression=compression, tags={317: (3, [2])})
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(np.asarray(image), samples)
    assert is_that_picture(read(tmp_path, data), samples)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_what_pillow_writes_is_read(tmp_path: Path, mode: str, compression: str | None) -> None:
    shape = (300, 200) if mode == "L" else (300, 200, len(mode))
    # Smooth, so that LZW has codes of every length.
    image = Image.fromarray((np.arange(np.prod(shape)) // 7 % 251).astype(np.uint8).reshape(shape))
    image.save(tmp_path / "in.tif", compression=compression)
    samples = np.asarray(image).reshape(300, 200, -1)
    assert is_that_picture(read_photo(tmp_path / "in.tif"), samples)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("size", SIZES)
def test_pillow_reads_what_is_written_with_8_bits(tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    samples = picture(8, len(mode), size)
    with Image.open(io.BytesIO(written(read(tmp_path, tiff_file(samples))))) as image:
        assert image.mode == mode
        assert np.array_equal(np.asarray(image).reshape(samples.shape), samples)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_opencv_reads_what_is_written_with_16_bits(tmp_path: Path, channels: int) -> None:
    cv2 = pytest.importorskip("cv2")
    samples = picture(16, channels)
    data = written(read(tmp_path, tiff_file(samples, ">")))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED).reshape(samples.shape)
    assert np.array_equal(image[..., [2, 1, 0, 3][:channels] if channels > 1 else [0]], samples)


@pytest.mark.parametrize("size", [(700, 999), (3, 180_000)])
def test_many_strips_are_written(tmp_path: Path, size: tuple[int, int]) -> None:
    samples = picture(16, 3, size)
    file = Written(written(read(tmp_path, tiff_file(samples))))
    assert len(file.tags[273]) > 2
    assert np.array_equal(file.samples(), samples)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2])
def test_grey_with_white_at_0_is_turned_over(tmp_path: Path, channels: int, bits: int) -> None:
    samples = picture(bits, channels)
    expected = samples.copy()
    expected[..., 0] = (1 << bits) - 1 - samples[..., 0]
    photo = read(tmp_path, tiff_file(samples, tags={262: (3, [0])}))
    assert is_that_picture(photo, expected)
    assert Written(written(photo)).tags[262] == (1,)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_alpha_keeps_its_kind_and_pixels_lie_as_they_do(tmp_path: Path, kind: int, bits: int) -> None:
    samples = picture(bits, 4)
    samples[2, :, 3] = 0
    photo = read(tmp_path, tiff_file(samples, tags={338: (3, [kind])}))
    assert is_that_picture(photo, samples)
    file = Written(written(photo))
    assert file.tags[338] == (kind,)
    assert np.array_equal(file.samples(), samples)
    for name in ("out.png", "out.jpg"):
        reason = "which only a TIFF file can hold; let the result end in .tif" if kind < 2 else "has transparency"
        if kind < 2 or name == "out.jpg":
            with pytest.raises(ValueError, match=reason):
                check_fits(Path("in.tif"), photo, Path(name))
        else:
            check_fits(Path("in.tif"), photo, Path(name))
    check_fits(Path("in.tif"), photo, Path("out.TIFF"))


@pytest.mark.parametrize("kind", [None, [999]])
def test_a_channel_that_no_tag_explains_is_kept_as_such(tmp_path: Path, kind: list[int] | None) -> None:
    samples = picture(16, 4)
    photo = read(tmp_path, tiff_file(samples, tags={338: (3, kind)}))
    assert (is_that_picture(photo, samples), photo.alpha_kind) == (True, 0)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int, bits: int) -> None:
    samples = picture(bits, 4)
    turned = {
        1: samples,
        2: np.flip(samples, 1),
        3: np.rot90(samples, 2),
        4: np.flip(samples, 0),
        5: np.swapaxes(samples, 0, 1),
        6: np.rot90(samples, -1),
        7: np.rot90(np.swapaxes(samples, 0, 1), 2),
        8: np.rot90(samples, 1),
    }
    exif = {0xA002: (4, [29]), 0xA003: (4, [17])}
    tags: Values = {274: (3, [orientation]), 271: (2, b"Maker\0"), 0x8769: (4, exif), 700: (1, xmp(orientation))}
    photo = read(tmp_path, tiff_file(samples, tags=tags))
    assert is_that_picture(photo, turned[orientation])
    file = Written(written(photo))
    assert (file.tags[274], file.tags[271], bytes(file.tags[700])) == ((1,), b"Maker\0", xmp(1))
    sizes = file.directory(*file.tags[0x8769])
    assert (sizes[0xA003][0], sizes[0xA002][0]) == turned[orientation].shape[:2]


def xmp(orientation: int) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="{orientation}"/>'.encode()


RESOURCES = b"8BIM\x03\xed\0\0\0\0\0\x02hi"
IPTC = b"\x1c\x02\x78\0\x05hello"
GPS = {1: (2, b"N\0"), 2: (5, [48, 1, 8, 1, 13, 7])}
# Values that a reader which makes numbers and texts of them would change.
EXIF: Values = {
    0x829A: (5, [10, 1000]),
    0x9286: (7, b"UNICODE\0" + "日本".encode("utf-16-be")),
    0x927C: (7, b"notes of a maker"),
    0xA40C: (5, [0, 0]),
    0xA005: (4, {1: (2, b"R98\0")}),
}
DESCRIPTION: Values = {
    270: (2, "Grüße".encode() + b"\0"),
    271: (2, b"Maker\0"),
    305: (2, b"software\0"),
    315: (2, b"one\0two\0"),
    0x8769: (4, EXIF),
    0x8825: (4, GPS),
    50341: (7, b"PrintIM\0"),
}
RESOLUTION: Values = {282: (5, [2400000, 10000]), 283: (5, [240, 1]), 296: (3, [2])}
ELSEWHERE: Values = {
    **RESOLUTION,
    700: (1, xmp(1)),
    33723: (7, IPTC),
    34377: (1, RESOURCES),
    34675: (7, b"a profile" * 50),
}
# Of the pixels as they were, or of pictures that are not retouched.
STALE: Values = {
    254: (4, [2]),
    290: (3, [4]),
    330: (4, [8]),
    333: (2, b"inks\0"),
    513: (4, [8]),
    37724: (7, b"layers"),
    51000: (13, [8]),
}


def described(file: Written) -> dict[int, Any]:
    """The tags of the file that are above, and all of the directories they point to."""

    def tree(tags: dict[int, Any], values: Values) -> dict[int, Any]:
        inner = {number: value for number, (_, value) in values.items() if isinstance(value, dict) and number in tags}
        return tags | {number: tree(file.directory(*tags[number]), value) for number, value in inner.items()}

    tags = tree(file.tags, DESCRIPTION)
    return {number: tags[number] for number in DESCRIPTION | ELSEWHERE | STALE if number in tags}


def expected(values: Values) -> dict[int, Any]:
    return {
        number: expected(value) if isinstance(value, dict) else value if kind in (2, 7) else tuple(value)
        for number, (kind, value) in values.items()
    }


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_of_a_tiff_has_every_byte_of_its_metadata(tmp_path: Path, bits: int, big: bool, order: str) -> None:
    tags = DESCRIPTION | ELSEWHERE | STALE | {274: (3, [1])}
    data = tiff_file(picture(bits, 3), order, big=big, tags=tags)
    once = read(tmp_path, data)
    twice = read(tmp_path, written(once))
    for photo in (once, twice):
        file = Written(written(photo))
        assert described(file) == expected(DESCRIPTION | ELSEWHERE)
    assert once.exif == twice.exif
    assert once.dpi == (240, 240)


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_of_a_tiff_in_another_file_has_nothing_of_its_pixels(tmp_path: Path, order: str) -> None:
    data = tiff_file(picture(8, 3), order, tile=(16, 16), tags=DESCRIPTION | ELSEWHERE | STALE)
    exif = read(tmp_path, data).exif
    assert exif is not None and exif.startswith(b"Exif\0\0")
    block = ImageFileDirectory_v2(exif[6:14])
    stream = io.BytesIO(exif[6:])
    stream.seek(block.next)
    block.load(stream)
    assert set(block) == {*DESCRIPTION, 282, 283, 296}
    inner = Image.Exif()
    inner.load(exif)
    assert inner.get_ifd(0x8769)[0x927C] == b"notes of a maker"
    assert inner.get_ifd(0x8825)[1] == "N"


@pytest.mark.parametrize("order", ["<", ">"])
def test_camera_notes_of_a_jpeg_keep_their_offsets(tmp_path: Path, order: str) -> None:
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 48) + bytes(40)
    exif = b"Exif\0\0" + head + directory(DESCRIPTION | RESOLUTION, order, 48)
    Image.fromarray(picture(8, 3)).save(tmp_path / "in.jpg", exif=exif)
    data = written(read_photo(tmp_path / "in.jpg"))
    assert data.index(b"notes of a maker") == exif.index(b"notes of a maker") - 6
    file = Written(data)
    assert described(file) == expected(DESCRIPTION | RESOLUTION)


@pytest.mark.parametrize("offset", [6, 2_000, 2**32 - 1])
@pytest.mark.parametrize("pointer", [0x8769, 0x8825])
def test_what_exif_of_a_jpeg_only_promises_is_not_written(tmp_path: Path, pointer: int, offset: int) -> None:
    """An offset beyond the block would lie within the pixels of a TIFF file, and its header changes."""
    sound, outside = directory(DESCRIPTION | RESOLUTION, "<", 8), struct.pack("<I", offset)
    at = sound.index(struct.pack("<H", pointer)) + 8
    Image.fromarray(picture(8, 3, (99, 99))).save(
        tmp_path / "in.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0" + sound[:at] + outside + sound[at + 4 :]
    )
    photo = read(tmp_path, written(read_photo(tmp_path / "in.jpg")))
    kept = {number: value for number, value in (DESCRIPTION | RESOLUTION).items() if number != pointer}
    assert described(Written(written(photo))) == expected(kept)


def test_resolution_of_the_file_wins_over_that_in_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[282], exif[283], exif[296] = 72.0, 72.0, 2
    Image.fromarray(picture(8, 3)).save(tmp_path / "in.jpg", exif=exif, dpi=(300, 240))
    assert Written(written(read_photo(tmp_path / "in.jpg"))).tags[282][:1] == (3_000_000,)
    assert read(tmp_path, written(read_photo(tmp_path / "in.jpg"))).dpi == (300, 240)


@pytest.mark.parametrize(("unit", "dpi"), [(1, None), (2, (118, 118)), (3, (299.72, 299.72)), (None, (118, 118))])
def test_units_of_resolution(tmp_path: Path, unit: int | None, dpi: tuple[float, float] | None) -> None:
    tags: Values = {282: (5, [236, 2]), 283: (5, [118, 1]), 296: (3, unit and [unit])}
    photo = read(tmp_path, tiff_file(picture(8, 3), tags=tags))
    assert photo.dpi == (dpi if dpi is None else pytest.approx(dpi))
    file = Written(written(photo))
    assert (file.tags[282], file.tags[283], file.tags.get(296)) == ((236, 2), (118, 1), unit and (unit,))


def page(width: int = 5, following: int = 0, at: int = 8, **more: Any) -> bytes:
    values: Values = {254: (4, [more.get("kind", 0)]), 255: (3, [more.get("old_kind", 1)])}
    values |= {256: (4, [width]), 257: (4, [4]), 258: (3, [8]), 259: (3, [1])}
    values |= {262: (3, [1]), 273: (4, [8]), 277: (3, [1]), 278: (4, [4]), 279: (4, [4 * width])}
    return directory(values, "<", at, following=following)


def test_reduced_pages_are_ignored_and_others_are_refused(tmp_path: Path) -> None:
    head, length = b"II*\0\x08\0\0\0", len(page())
    small_first = head + page(3, 8 + length, kind=1) + page(5, at=8 + length)
    small_last = head + page(5, 8 + length) + page(3, kind=1, at=8 + length)
    small_as_of_old = head + page(3, 8 + length, old_kind=2) + page(5, at=8 + length)
    for data in (small_first, small_last, small_as_of_old, head + page(5, following=8)):
        assert read(tmp_path, data + bytes(99)).pixels.shape == (4, 5, 3)
    for kind in (0, 2, 4):
        with pytest.raises(ValueError, match=r"in\.tif has several pages; save the one"):
            read(tmp_path, head + page(5, 8 + length) + page(5, kind=kind, at=8 + length))
    with pytest.raises(ValueError, match=r"in\.tif has only reduced pictures"):
        read(tmp_path, head + page(5, kind=1))


REFUSED: list[tuple[Values, str]] = [
    ({262: (3, [5])}, "is a CMYK picture; convert it to RGB"),
    ({262: (3, [8])}, "is a Lab picture; convert it to RGB"),
    ({262: (3, [3])}, "is a palette picture"),
    ({262: (3, [6])}, "is a YCbCr picture"),
    ({339: (3, [3, 3, 3])}, "has floating-point numbers; save it with 8 or 16 bits"),
    ({339: (3, [2, 2, 2])}, "has signed numbers; save it with 8 or 16 bits"),
    ({258: (3, [32, 32, 32])}, "has 32 bits per channel; save it with 8 or 16"),
    ({258: (3, [8, 8, 16])}, "has 16 bits per channel"),
    ({258: (3, None)}, "has 1 bits per channel"),
    ({277: (3, [5])}, "has 5 channels"),
    ({277: (3, [2])}, "has 2 channels"),
    ({259: (3, [7])}, "is compressed by JPEG; save it with LZW, Deflate"),
    ({259: (3, [50000])}, "is compressed by Zstandard"),
    ({259: (3, [4])}, "is compressed by method 4"),
    ({266: (3, [2])}, "an order of bits that is not read"),
    ({317: (3, [3])}, "a predictor"),
    ({50706: (1, [1, 4, 0, 0])}, "a camera's raw file; develop it"),
    ({256: (4, [20_000]), 257: (4, [20_000])}, "has 400 megapixels, more than 200; scale it down"),
    ({256: (4, [2**32 - 1]), 257: (4, [2**32 - 1])}, "megapixels, more than 200"),
    ({256: (4, [1]), 257: (4, [1])}, "is a single pixel"),
    ({256: (4, [0])}, "is damaged: it has no pixels"),
    ({256: (4, None)}, "is damaged: it has no tag 256"),
    ({273: (4, None)}, "is damaged: "),
    ({262: (3, None)}, "is damaged: it has no tag 262"),
    ({256: (2, b"wide\0")}, "is damaged: a number has type 2"),
    ({273: (4, [2**32 - 1])}, "is damaged: "),
    ({278: (3, [3])}, "is damaged: "),
    ({278: (3, [0])}, "is damaged: "),
    ({256: (4, [9_000]), 257: (4, [9_000])}, "is damaged: "),
    ({32997: (4, [2])}, "is damaged: its pixels are .2, "),
    (
        {322: (4, [2**20]), 323: (4, [2**20]), 324: (4, [8]), 325: (4, [8])},
        "is damaged: it has tiles of 1099512 megapixels",
    ),
    ({322: (4, [0]), 323: (4, [16]), 324: (4, [8]), 325: (4, [8])}, "is damaged: it has tiles of 0 megapixels"),
]


def test_a_tile_may_be_as_large_as_the_picture() -> None:
    size = {256: (4, [8192]), 257: (4, [4096]), 322: (4, [8192]), 323: (4, [4096])}
    assert tiff.Page(tiff_file(picture(8, 3), tags=size)).width == 8192


@pytest.mark.parametrize(("tags", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_is_refused(tmp_path: Path, tags: Values, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"in\.tif .*{reason}") as caught:
        read(tmp_path, tiff_file(picture(8, 3), tags=tags))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
@pytest.mark.parametrize("layout", [{}, {"rows": 2}, {"tile": (16, 16), "planar": True}, {"big": True}])
def test_a_file_that_is_cut_off_is_refused(
    tmp_path: Path, layout: dict[str, Any], compression: int, capfd: pytest.CaptureFixture[str]
) -> None:
    tags: Values = {0x8769: (4, EXIF), 34675: (7, b"a profile")}
    data = tiff_file(picture(16, 3, (5, 4)), compression=compression, tags=tags, **layout)
    for end in (*range(4, len(data), 3 if len(data) < 999 else 11), *range(len(data) - 11, len(data))):
        with pytest.raises(ValueError, match=r"in\.tif is damaged: "):
            read(tmp_path, data[:end])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compression", [5, 8, 32773])
def test_a_strip_that_ends_too_early_is_refused(tmp_path: Path, compression: int) -> None:
    samples = picture(16, 3)
    whole = tiff_file(samples, compression=compression)
    short = tiff_file(samples[:-1], compression=compression, tags={257: (3, [17]), 278: (3, [17])})
    assert is_that_picture(read(tmp_path, whole), samples)
    with pytest.raises(ValueError, match=r"in\.tif is damaged: "):
        read(tmp_path, short)


@pytest.mark.parametrize("inks", [b"ink\0", None])
def test_what_a_library_says_in_several_lines_or_not_at_all_is_said_in_one(tmp_path: Path, inks: bytes | None) -> None:
    tags: Values = {324: (4, [2**31]), 333: (2, inks)}
    with pytest.raises(ValueError, match=r"in\.tif is damaged: .+") as caught:
        read(tmp_path, tiff_file(picture(16, 4), tile=(16, 32), tags=tags))
    assert "\n" not in str(caught.value)


def test_a_strip_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    data = tiff_file(picture(16, 3), compression=8)
    with pytest.raises(ValueError, match=r"in\.tif is damaged: "):
        read(tmp_path, data[:-1] + bytes([data[-1] ^ 1]))


def test_noise_instead_of_a_file_does_no_harm(tmp_path: Path) -> None:
    sound = bytearray(tiff_file(picture(16, 3, (5, 4)), rows=2, compression=8, tags={0x8769: (4, EXIF)}))
    refusals = []
    for _ in range(500):
        data = sound.copy()
        for at in RNG.integers(4, len(sound) - 100, 3):
            data[at] = RNG.integers(0, 256)
        try:
            photo = read(tmp_path, bytes(data))
        except ValueError as error:
            refusals.append(str(error))
        else:
            assert photo.pixels.dtype in (np.uint8, np.uint16)
    assert all("in.tif" in refusal for refusal in refusals)
    assert len(refusals) > 200


def test_tags_that_share_their_bytes_do_not_multiply_them(tmp_path: Path) -> None:
    data = bytearray(tiff_file(picture(8, 3, (200, 200)), tags={60000 + n: (7, b"12345") for n in range(1000)}))
    for n in range(1000):
        at = data.index(struct.pack("<HH", 60000 + n, 7))
        struct.pack_into("<II", data, at + 4, len(data) - 8, 8)
    with pytest.raises(ValueError, match=r"in\.tif is damaged: tag .* reaches beyond its end"):
        read(tmp_path, bytes(data))


def test_without_the_library_what_to_install_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(ValueError, match=r"in\.tif is a TIFF file or has 16 bits .*pip install 'abpn_fast\[deep\]'"):
        read(tmp_path, tiff_file(picture(8, 3)))
