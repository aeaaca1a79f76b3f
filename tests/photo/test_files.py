from __future__ import annotations

import dataclasses
import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from abpn_fast.photo import Photo, read_photo
from abpn_fast.photo.files import check_fits, photo_writer, result_format
from tests.photo.tiff_files import Values, tiff_file

RNG = np.random.default_rng(0)
RGBA = RNG.integers(0, 256, (37, 53, 4), np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'


def write(photo: Photo, path: Path) -> Image.Image:
    stream = io.BytesIO()
    photo_writer(path, photo, photo.pixels)(stream)
    path.write_bytes(stream.getvalue())
    image: Image.Image = Image.open(path)
    image.load()
    return image


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA"])
def test_png_goes_through_unchanged(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(RGBA).convert(mode)
    if mode == "LA":
        image.putalpha(Image.fromarray(RGBA[..., 3]))
    image.save(tmp_path / "in.png")
    photo = read_photo(tmp_path / "in.png")
    assert photo.pixels.shape == (37, 53, 3)
    assert photo.pixels.flags.writeable
    assert photo.grey == (mode in ("L", "LA"))
    written = write(photo, tmp_path / "out.png")
    assert written.mode == mode
    assert np.array_equal(np.asarray(written), np.asarray(image))


def test_palettes_and_transparent_colours_become_channels(tmp_path: Path) -> None:
    palette = Image.fromarray(RGBA[..., :3]).quantize(16)
    palette.save(tmp_path / "p.png")
    palette.save(tmp_path / "pt.png", transparency=3)
    Image.fromarray(RGBA[..., 0]).save(tmp_path / "lt.png", transparency=7)
    Image.fromarray(RGBA[..., 0]).convert("1").save(tmp_path / "1.png")
    for name, mode in (("p", "RGB"), ("pt", "RGBA"), ("lt", "LA"), ("1", "L")):
        photo = read_photo(tmp_path / f"{name}.png")
        written = write(photo, tmp_path / f"{name}.out.png")
        assert written.mode == mode
        with Image.open(tmp_path / f"{name}.png") as image:
            assert np.array_equal(np.asarray(written), np.asarray(image.convert(mode)))
    assert np.array_equal(read_photo(tmp_path / "pt.png").alpha == 0, np.asarray(palette) == 3)


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    source = Image.fromarray(RGBA if ending == "png" else RGBA[..., :3])
    source.save(tmp_path / f"in.{ending}", exif=exif)
    with Image.open(tmp_path / f"in.{ending}") as image:
        expected = ImageOps.exif_transpose(image)
    photo = read_photo(tmp_path / f"in.{ending}")
    assert np.array_equal(photo.pixels, np.asarray(expected)[..., :3])
    if photo.alpha is not None:
        assert np.array_equal(photo.alpha, np.asarray(expected)[..., 3])
    written = write(photo, tmp_path / f"out.{ending}")
    assert written.size == expected.size
    assert (written.getexif()[0x0112], written.getexif()[0x010F]) == (1, "Maker")


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
@pytest.mark.parametrize(("orientation", "turned"), [(3, 1), (6, -1)])
def test_resolutions_turn_with_the_photo(tmp_path: Path, orientation: int, turned: int, ending: str) -> None:
    path, exif = tmp_path / f"in.{ending}", Image.Exif()
    exif[0x0112], exif[0x8769] = orientation, {0xA20E: 100.0, 0xA20F: 50.0}
    if ending == "tif":
        inner: Values = {0xA20E: (5, [100, 1]), 0xA20F: (5, [50, 1])}
        tags: Values = {274: (3, [orientation]), 282: (5, [300, 1]), 283: (5, [240, 1]), 0x8769: (4, inner)}
        path.write_bytes(tiff_file(RGBA[..., :3], tags=tags))
    else:
        exif[282], exif[283] = 300.0, 240.0
        Image.fromarray(RGBA[..., :3]).save(path, exif=exif, dpi=(300, 240))
    written = write(read_photo(path), tmp_path / f"out.{ending}")
    assert written.info["dpi"] == pytest.approx((300, 240)[::turned], abs=0.01)
    found = written.getexif()
    assert (found[282], found[283]) == (300, 240)[::turned]
    assert tuple(found.get_ifd(0x8769)[tag] for tag in (0xA20E, 0xA20F)) == (100, 50)[::turned]


AS_TIFF: Values = {
    **{0x010F: (2, b"Maker\0"), 0x8769: (4, {0x829A: (5, [1, 100])}), 700: (1, XMP), 34675: (7, PROFILE)},
    **{282: (5, [300, 1]), 283: (5, [240, 1])},
}


@pytest.mark.parametrize("source", ["jpg", "png", "tif"])
@pytest.mark.parametrize("target", ["jpg", "png", "tif"])
def test_metadata_is_kept(tmp_path: Path, source: str, target: str) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x8769] = "Maker", {0x829A: 0.01}
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    options = {"xmp": XMP, "comment": b"hello"} if source == "jpg" else {"pnginfo": info}
    image = Image.fromarray(RGBA[..., :3])
    if source == "tif":
        (tmp_path / "in.tif").write_bytes(tiff_file(RGBA[..., :3], tags=AS_TIFF))
    else:
        image.save(tmp_path / f"in.{source}", exif=exif, icc_profile=PROFILE, dpi=(300, 240), **options)
    written = write(read_photo(tmp_path / f"in.{source}"), tmp_path / f"out.{target}")
    assert written.info["icc_profile"] == PROFILE
    assert written.getexif()[0x010F] == "Maker"
    assert float(written.getexif().get_ifd(0x8769)[0x829A]) == pytest.approx(0.01)
    # The XMP has it turned.
    assert written.info["dpi"] == pytest.approx((240, 300), abs=0.01)
    packet = written.info["xmp"]
    assert (packet if isinstance(packet, bytes) else packet.encode()) == XMP.replace(b'"6"', b'"1"')
    if source == "jpg" and target != "tif":
        assert written.info["comment" if target == "jpg" else "Comment"] in (b"hello", "hello")


@pytest.mark.parametrize("source", ["jpg", "png"])
@pytest.mark.parametrize("in_exif", [None, 1])
def test_orientation_that_only_xmp_has_is_applied(tmp_path: Path, source: str, in_exif: int | None) -> None:
    info, exif = PngInfo(), Image.Exif()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    exif[0x0100], exif[0x0101] = 53, 37
    if in_exif is not None:
        exif[0x0112] = in_exif
    options = {"xmp": XMP} if source == "jpg" else {"pnginfo": info}
    Image.fromarray(RGBA[..., :3]).save(tmp_path / f"in.{source}", exif=exif, **options)
    with Image.open(tmp_path / f"in.{source}") as image:
        # Orientation 6. Not by Pillow's exif_transpose, which in 11.0 does not look into a JPEG's XMP.
        expected = image.copy() if in_exif else image.transpose(Image.Transpose.ROTATE_270)
    photo = read_photo(tmp_path / f"in.{source}")
    assert np.array_equal(photo.pixels, np.asarray(expected))
    assert photo.xmp == (XMP if in_exif else XMP.replace(b'"6"', b'"1"'))
    written = write(photo, tmp_path / f"out.{source}")
    assert (written.getexif()[0x0100], written.getexif()[0x0101]) == written.size == expected.size


CAPTION = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x0a\x1c\x02\x78\0\x05hello"


def test_comments_and_captions_survive_a_change_of_format(tmp_path: Path) -> None:
    texts = ["plain", "Grüße, 日本", b"\xff latin"]
    for index, text in enumerate(texts):
        comment = text if isinstance(text, bytes) else text.encode()
        extra = b"\xff\xed" + struct.pack(">H", len(CAPTION) + 2) + CAPTION
        Image.fromarray(RGBA[..., :3]).save(tmp_path / "in.jpg", comment=comment, extra=extra)
        as_png = write(read_photo(tmp_path / "in.jpg"), tmp_path / "out.png")
        assert as_png.info["Comment"] == (text if isinstance(text, str) else text.decode("latin-1")), index
        assert as_png.info["Raw profile type iptc"].startswith("\niptc\n")
        back = write(read_photo(tmp_path / "out.png"), tmp_path / "back.jpg")
        assert back.info["comment"].decode() == as_png.info["Comment"]
        assert back.info["photoshop"] == {0x0404: CAPTION[-10:]}


def test_captions_survive_changes_to_tiff_and_back(tmp_path: Path) -> None:
    extra = b"\xff\xed" + struct.pack(">H", len(CAPTION) + 2) + CAPTION
    Image.fromarray(RGBA[..., :3]).save(tmp_path / "in.jpg", extra=extra)
    write(read_photo(tmp_path / "in.jpg"), tmp_path / "in.png")
    for source in ("in.jpg", "in.png"):
        as_tiff = write(read_photo(tmp_path / source), tmp_path / "out.tif")
        assert as_tiff.tag_v2[34377] == CAPTION[14:]  # type: ignore[attr-defined]
        for name in ("back.jpg", "back.png"):
            write(read_photo(tmp_path / "out.tif"), tmp_path / name)
        with Image.open(write_path := tmp_path / "back.jpg") as image:
            assert image.info["photoshop"] == {0x0404: CAPTION[-10:]}
        assert read_photo(tmp_path / "back.png").segments == read_photo(write_path).segments


@pytest.mark.parametrize("source", ["jpg", "png", "tif"])
@pytest.mark.parametrize("target", ["jpg", "png", "tif"])
def test_a_thumbnail_of_the_photo_as_it_was_is_not_kept(tmp_path: Path, source: str, target: str) -> None:
    small = b"8BIM\x04\x0c\0\0" + struct.pack(">I", 90_000) + b"a small picture".ljust(90_000)
    resources, pixels, path = small + CAPTION[14:], RGBA[..., :3], tmp_path / f"in.{source}"
    if source == "jpg":
        parts = [CAPTION[:14] + resources[at : at + 60_000] for at in (0, 60_000)]
        extra = b"".join(b"\xff\xed" + struct.pack(">H", len(part) + 2) + part for part in parts)
        Image.fromarray(pixels).save(path, extra=extra)
    elif source == "png":
        info = PngInfo()
        info.add_text("Raw profile type 8bim", f"\n8bim\n{len(resources):8}\n{resources.hex()}\n", zip=True)
        Image.fromarray(pixels).save(path, pnginfo=info)
    else:
        path.write_bytes(tiff_file(pixels, tags={34377: (1, resources)}))
    out = tmp_path / f"out.{target}"
    write(read_photo(path), out)
    again = read_photo(out)
    assert dict(again.captions)[34377] == CAPTION[14:]
    assert b"a small picture" not in out.read_bytes() and b"a small picture".hex().encode() not in b"".join(
        zlib.decompress(content.split(b"\0\0", 1)[1]) for kind, content in again.chunks if kind == b"zTXt"
    )


@pytest.mark.parametrize("length", [7, 70_000, 600_000])
def test_captions_that_only_a_tiff_has_outside_of_resources(tmp_path: Path, length: int) -> None:
    """Several segments of a JPEG file hold what one does not; a PNG file is readable without what it cannot."""
    iptc = b"\x1c\x02\x78" + bytes(range(256)) * (length // 256) + bytes(length % 256)
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info.tagtype[33723], info[33723] = 7, iptc
    Image.fromarray(RGBA[..., :3]).save(tmp_path / "in.tif", tiffinfo=info)
    photo = read_photo(tmp_path / "in.tif")
    assert write(photo, tmp_path / "out.tif").tag_v2[33723] == iptc  # type: ignore[attr-defined]
    resources = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc + bytes(len(iptc) % 2)
    segments = write(photo, tmp_path / "out.jpg").applist  # type: ignore[attr-defined]
    assert b"".join(content[14:] for name, content in segments if name == "APP13") == resources
    as_png = write(photo, tmp_path / "out.png").info
    kept = "".join(as_png.get("Raw profile type iptc", "\n\n\n").split("\n")[3:])
    assert bytes.fromhex(kept) == (resources if length < 500_000 else b"")


def test_a_caption_that_a_tiff_has_twice_is_written_once(tmp_path: Path) -> None:
    resources = CAPTION[14:]
    tags: Values = {34377: (1, resources), 33723: (7, resources[12:])}
    (tmp_path / "in.tif").write_bytes(tiff_file(RGBA[..., :3], tags=tags))
    segments = write(read_photo(tmp_path / "in.tif"), tmp_path / "out.jpg").applist  # type: ignore[attr-defined]
    assert [content for name, content in segments if name == "APP13"] == [CAPTION]


def test_texts_of_a_photo_do_not_come_into_a_tiff(tmp_path: Path) -> None:
    Image.fromarray(RGBA[..., :3]).save(tmp_path / "in.jpg", comment=b"hello")
    write(read_photo(tmp_path / "in.jpg"), tmp_path / "out.tif")
    assert b"hello" not in (tmp_path / "out.tif").read_bytes()


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_become_8_in_a_jpeg_by_rounding(tmp_path: Path, channels: int) -> None:
    values = np.array([0, 128, 129, 385, 386, 32767, 32768, 65406, 65407, 65535], np.uint16)
    pixels = np.broadcast_to(values[:, None, None], (10, 9, 3))
    photo = Photo(pixels, grey=channels == 1)
    expected = np.rint(values / 257)
    assert np.array_equal(np.asarray(photo.picture(pixels)).reshape(10, 9, channels)[:, 0, 0], expected)
    assert write(photo, tmp_path / "out.jpg").mode == ("L" if channels == 1 else "RGB")


def test_grey_is_what_pillow_makes_of_colours() -> None:
    pixels = RGBA[..., :3]
    grey = Photo(pixels, grey=True).samples(pixels)
    assert np.array_equal(grey[..., 0], np.asarray(Image.fromarray(pixels).convert("L")))
    deep = Photo(pixels, grey=True).samples(pixels.astype(np.uint16) * 257)
    assert np.abs(deep[..., 0] / 257 - pixels @ [0.299, 0.587, 0.114]).max() < 0.01
    same = np.repeat(np.arange(65536, dtype=np.uint16).reshape(256, 256, 1), 3, axis=2)
    assert np.array_equal(Photo(same, grey=True).samples(same)[..., 0], same[..., 0])


def test_texts_of_a_png_become_comments_of_a_jpeg(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("Description", "a face")
    info.add_text("Author", "Grüße", zip=True)
    info.add_itxt("Title", "日本", zip=True)
    info.add_text("Warning", "x" * 70_000)
    info.add_text("Raw profile type xmp", "\nxmp\n 2\n0000\n")
    info.add(b"zTXt", b"Odd\0")
    Image.fromarray(RGBA[..., :3]).save(tmp_path / "in.png", pnginfo=info)
    written = write(read_photo(tmp_path / "in.png"), tmp_path / "out.jpg")
    comments = [content.decode() for name, content in written.applist if name == "COM"]  # type: ignore[attr-defined]
    assert comments == ["Description: a face", "Author: Grüße", "Title: 日本"]


def test_extended_xmp_is_kept_in_a_jpeg_and_not_promised_elsewhere(tmp_path: Path) -> None:
    extension = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", 4, 0) + b"<x/>"
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmpNote:HasExtendedXMP="' + b"0" * 32 + b'"/>'
    extra = b"\xff\xe1" + struct.pack(">H", len(extension) + 2) + extension
    Image.fromarray(RGBA[..., :3]).save(tmp_path / "in.jpg", xmp=packet, extra=extra)
    photo = read_photo(tmp_path / "in.jpg")
    written = write(photo, tmp_path / "out.jpg")
    assert ("APP1", extension) in written.applist  # type: ignore[attr-defined]
    assert written.info["xmp"] == packet
    for name in ("out.png", "out.tif"):
        assert b"HasExtendedXMP" not in write(photo, tmp_path / name).info["xmp"]


@pytest.mark.parametrize(("kind", "most"), [("exif", 65533), ("xmp", 65504), ("icc", 255 * 65519)])
def test_a_block_that_just_fits_into_a_jpeg_is_kept(tmp_path: Path, kind: str, most: int) -> None:
    block = b"Exif\0\0".ljust(most, b"x")
    photo, larger = (Photo(RGBA[..., :3], **{kind: each}) for each in (block, block + b"x"))
    check_fits(tmp_path / "in.png", photo, tmp_path / "out.jpg")
    assert write(photo, tmp_path / "out.jpg").info["icc_profile" if kind == "icc" else kind] == block
    with pytest.raises(ValueError, match=f"{most + 1} bytes of {kind.upper()}"):
        check_fits(tmp_path / "in.png", larger, tmp_path / "out.jpg")


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_a_resolution_that_no_file_can_hold_is_left_out(tmp_path: Path, ending: str) -> None:
    Image.fromarray(RGBA[..., :3]).save(tmp_path / "in.png", dpi=(70_000, 300))
    (tmp_path / "in.tif").write_bytes(tiff_file(RGBA[..., :3], tags={282: (5, [72, 0]), 283: (5, [72, 1])}))
    for name in ("in.png", "in.tif"):
        photo = read_photo(tmp_path / name)
        assert photo.dpi is None
        write(dataclasses.replace(photo, exif=None), tmp_path / f"out.{ending}")


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_a_long_compressed_text_does_not_make_a_png_unreadable(tmp_path: Path, kind: bytes) -> None:
    content = b"Log\0" + (b"\0" if kind == b"zTXt" else b"\1\0\0\0") + zlib.compress(bytes(b"x" * 3_000_000))
    info = PngInfo()
    info.add(kind, content)
    info.add_text("Author", "someone")
    Image.fromarray(RGBA).save(tmp_path / "in.png", pnginfo=info)
    photo = read_photo(tmp_path / "in.png")
    assert np.array_equal(photo.pixels, RGBA[..., :3])
    assert photo.chunks == ((kind, content), (b"tEXt", b"Author\0someone"))


@pytest.mark.parametrize(
    ("kind", "head"), [(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"), (b"zTXt", b"Raw profile type exif\0\0")]
)
def test_a_profile_that_is_too_long_is_refused_and_not_lost(tmp_path: Path, kind: bytes, head: bytes) -> None:
    info = PngInfo()
    info.add(kind, head + zlib.compress(bytes(3_000_000)))
    Image.fromarray(RGBA).save(tmp_path / "in.png", pnginfo=info)
    with pytest.raises(ValueError, match=r"in\.png is not a PNG file that can be read"):
        read_photo(tmp_path / "in.png")


def test_exif_of_old_png_software_is_found(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data, info = exif.tobytes(), PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(data):8}\n{data.hex()}\n")
    Image.fromarray(RGBA).save(tmp_path / "in.png", pnginfo=info)
    photo = read_photo(tmp_path / "in.png")
    assert photo.pixels.shape == (53, 37, 3)
    assert write(photo, tmp_path / "out.png").getexif()[0x0112] == 1


def test_of_several_pictures_in_a_jpeg_the_first_is_read(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (40, 30), (200, 50, 50)), Image.new("RGB", (20, 15))
    first.save(tmp_path / "in.jpg", "MPO", save_all=True, append_images=[second])
    photo = read_photo(tmp_path / "in.jpg")
    assert photo.pixels.shape == (30, 40, 3)
    assert write(photo, tmp_path / "out.jpg").format == "JPEG"


def test_jpeg_is_written_with_full_chroma(tmp_path: Path) -> None:
    photo = Photo(RGBA[..., :3])
    written = write(photo, tmp_path / "out.jpg")
    assert [layer[1:3] for layer in written.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]


def test_photos_beyond_pillows_limit_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RGBA).save(tmp_path / "in.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "in.png")
    assert read_photo(tmp_path / "in.png").pixels.shape == (37, 53, 3)


def png_header(width: int, height: int) -> bytes:
    content = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + content + struct.pack(">I", zlib.crc32(content))
    return head + struct.pack(">I4sI", 0, b"IDAT", zlib.crc32(b"IDAT"))


def jpeg(mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(RGBA[..., :3]).convert(mode).save(stream, "JPEG")
    return stream.getvalue()


def png(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


FRAMES = [Image.new("L", (9, 9), value) for value in (0, 255)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"a text\n", "neither a JPEG, a PNG nor a TIFF file"),
        (jpeg()[:-200], "is damaged: .*truncated"),
        (jpeg()[:30], "not a JPEG file that can be read"),
        (png(Image.fromarray(RGBA))[:-500], "is damaged"),
        (png(Image.fromarray(RGBA))[:20], "not a PNG file that can be read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "not a PNG file that can be read"),
        (jpeg("CMYK"), "CMYK"),
        (png(FRAMES[0], save_all=True, append_images=FRAMES[1:]), "animation"),
        (png_header(20_000, 20_000), "400 megapixels, more than 200"),
        (png(Image.new("RGB", (1, 1))), "single pixel"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}.*{reason}") as caught:
        read_photo(path)
    assert "\n" not in str(caught.value)


def test_folders_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder, not a photo"):
        read_photo(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such photo"):
        read_photo(tmp_path / "none.jpg")


def test_result_format() -> None:
    assert [result_format(Path(name)) for name in ("a.jpg", "a.JPEG", "a.b.Png")] == ["JPEG", "JPEG", "PNG"]
    assert [result_format(Path(name)) for name in ("a.tif", "a.TIFF")] == ["TIFF", "TIFF"]
    for name in ("a", "a.gif", ".png/a"):
        with pytest.raises(ValueError, match=r"must end in \.jpg, \.jpeg, \.png, \.tif, \.tiff"):
            result_format(Path(name))
