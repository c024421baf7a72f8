"""What pictures carry besides pixels, and the limits that are asked before these are decoded."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import ExifTags
from PIL import Image as Pillow

from compressnet.data import limits
from compressnet.data.images import Image, find_images, image_size, read_image, unread_pictures, write_image
from compressnet.errors import CompressnetError

SHADES = np.tile(np.arange(0, 240, 10, dtype=np.uint8)[:, None, None], (1, 16, 3))  # 24 rows, 16 columns


def exif_block(orientation: int = 6) -> Pillow.Exif:
    exif = Pillow.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Orientation] = orientation
    exif[700] = b"<x:xmpmeta/>"
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ISOSpeedRatings: 400, ExifTags.Base.ExifImageWidth: 16}
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (48.0, 8.0, 30.0)}
    return exif


def facts(path: Path) -> tuple[Any, ...]:
    with Pillow.open(path) as handle:
        exif = handle.getexif()
        camera, place = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
        iso, width = camera.get(ExifTags.Base.ISOSpeedRatings), camera.get(ExifTags.Base.ExifImageWidth)
        return exif.get(271), exif.get(274), iso, width, place.get(1), exif.get(700)


@pytest.mark.parametrize("source", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("bits", [8, 16])
def test_exif_travels_and_says_upright(tmp_path: Path, source: str, suffix: str, bits: int) -> None:
    Pillow.fromarray(SHADES).save(tmp_path / source, exif=exif_block().tobytes(), dpi=(300, 150))
    image = read_image(tmp_path / source)
    assert image.pixels.shape == (16, 24, 3)
    if source != "a.webp":
        assert image.dpi == pytest.approx((150, 300), abs=0.1)
    image.bits = bits
    lost = write_image(image, tmp_path / f"out{suffix}")
    # Pillow's own TIFF keeps the directories; WebP has no place for the resolution
    assert facts(tmp_path / f"out{suffix}") == ("Maker", 1, 400, 24, "N", None)
    assert any("resolution" in line for line in lost) == (suffix == ".webp" and source != "a.webp")
    back = read_image(tmp_path / f"out{suffix}")
    assert back.pixels.shape == (16, 24, 3)
    if suffix != ".webp" and source != "a.webp":
        assert back.dpi == pytest.approx((150, 300), abs=0.1)


def test_a_thumbnail_is_dropped(tmp_path: Path) -> None:
    block = exif_block(1).tobytes()[6:]
    count = struct.unpack_from("<H", block, 8)[0]
    link = 10 + 12 * count
    little = b"\xff\xd8 a picture in small \xff\xd9"
    entries = struct.pack("<HHHIIHHII", 2, 513, 4, 1, len(block) + 30, 514, 4, 1, len(little)) + bytes(4)
    block = block[:link] + struct.pack("<I", len(block)) + block[link + 4 :] + entries + little
    Pillow.fromarray(SHADES).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + block)
    image = read_image(tmp_path / "a.jpg")
    assert image.exif is not None
    assert b"in small" not in image.exif


@pytest.mark.parametrize("source", ["a.jpg", "a.png", "a.webp"])
@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 90])
def test_damaged_exif_spoils_no_picture(
    tmp_path: Path, source: str, exif: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    Pillow.fromarray(SHADES).save(tmp_path / source, exif=exif)
    image = read_image(tmp_path / source)
    assert image.pixels.shape == (24, 16, 3) == (*image_size(tmp_path / source)[::-1], 3)
    assert [line.partition(":")[0] for line in image.lost] == ["EXIF damaged"]
    assert capfd.readouterr().err == ""


def test_what_a_format_cannot_carry_is_said(tmp_path: Path) -> None:
    Pillow.fromarray(SHADES).save(tmp_path / "a.jpg", exif=exif_block(), xmp=b"<x:xmpmeta/>")
    image = read_image(tmp_path / "a.jpg")
    assert image.lost == ("XMP dropped",)
    assert write_image(image, tmp_path / "a.bmp") == ["XMP dropped", "BMP has no EXIF: EXIF dropped"]
    large = Image(image.pixels, exif=b"Exif\0\0" + bytes(70_000), dpi=(1e5, 1e5))
    lost = write_image(large, tmp_path / "b.jpg")
    assert len(lost) == 2
    assert "70006 dropped" in lost[0]
    assert "100000 x 100000 dropped" in lost[1]


def test_orientation_behind_the_pixels_of_a_png_counts(tmp_path: Path) -> None:
    Pillow.fromarray(SHADES).save(tmp_path / "a.png")
    block = exif_block().tobytes()[6:]
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:-12] + chunk + data[-12:])
    assert image_size(tmp_path / "a.png") == (24, 16)
    assert read_image(tmp_path / "a.png").pixels.shape == (16, 24, 3)


def lying_png(width: int, height: int) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    head = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    for name, body in ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")):
        parts += [struct.pack(">I", len(body)), name, body, struct.pack(">I", zlib.crc32(name + body))]
    return b"".join(parts)


@pytest.mark.parametrize("reader", [read_image, image_size])
def test_size_is_asked_before_anything_is_decoded(tmp_path: Path, reader: Any) -> None:
    (tmp_path / "a.png").write_bytes(lying_png(2**31 - 1, 2**31 - 1))
    with pytest.raises(CompressnetError, match=r"a\.png: 2147483647 x .*250 million"):
        reader(tmp_path / "a.png")


def test_need_and_free_memory_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(lying_png(10_000, 10_000))
    monkeypatch.setattr(limits, "free_memory", lambda: 4_000_000_000)
    with pytest.raises(CompressnetError, match=r"need about 3\.2 GB, 4\.0 GB are free, .*70%"):
        read_image(tmp_path / "a.png")
    monkeypatch.setattr(limits, "free_memory", lambda: None)
    (tmp_path / "b.png").write_bytes(lying_png(15_000, 15_000))
    with pytest.raises(CompressnetError, match=r"15000 x 15000 pixels in a file of \d+ bytes: a decomp"):
        read_image(tmp_path / "b.png")


def test_a_strip_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint16), compression="zlib", metadata=None)
    bomb = zlib.compress(bytes(300_000_000), 9)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        places = [file.pages.first.tags[code].valueoffset for code in (273, 279)]
    struct.pack_into("<I", data, places[0], len(data))
    struct.pack_into("<I", data, places[1], len(bomb))
    (tmp_path / "a.tif").write_bytes(bytes(data) + bomb)
    with pytest.raises(CompressnetError, match=r"a\.tif: a strip unpacks .*decompression bomb"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"planarconfig": "separate"}])
def test_strips_that_are_not_there_are_no_black(tmp_path: Path, options: dict[str, Any]) -> None:
    shape = (3, 40, 30) if "planarconfig" in options else (40, 30, 3)
    noise = np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", noise, photometric="rgb", metadata=None, **options)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: len(data) - 50])
    with pytest.raises(CompressnetError, match=r"a\.tif: damaged.*truncated"):
        read_image(tmp_path / "a.tif")


def test_pictures_of_other_kinds_are_counted(tmp_path: Path) -> None:
    for name in ("a.heic", "sub/b.HEIC", "c.cr2", "notes.txt", ".d.heic", "e.jfif", "f.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in find_images(tmp_path)] == ["e.jfif", "f.gif"]
    assert unread_pictures(tmp_path).startswith("3 pictures of other kinds left out: 2 .heic, 1 .cr2")
    assert unread_pictures(tmp_path / "sub").startswith("1 picture of")


def test_a_raw_photograph_is_not_taken_for_its_preview(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.cr2", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(CompressnetError, match=r"a\.cr2: \.cr2 is not read here; convert it"):
        read_image(tmp_path / "a.cr2")
