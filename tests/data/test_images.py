from __future__ import annotations

import errno
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow
from PIL import ImageCms

from compressnet.data.images import (
    Image,
    find_images,
    image_size,
    read_image,
    resize_short_side,
    to_uint8,
    write_image,
)
from compressnet.errors import CompressnetError, UsageError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)


def saved(array: np.ndarray, path: Path, **options: Any) -> Path:
    Pillow.fromarray(array).save(path, **options)
    return path


def picture(channels: int = 3, bits: int = 8, alpha: bool = False, icc: bytes | None = None) -> Image:
    scale = 255 if bits == 8 else 65535
    levels = RNG.integers(0, scale + 1, (5, 7, channels + 1))
    values = (levels / scale).astype(np.float32)
    return Image(values[..., :-1], bits, values[..., -1] if alpha else None, icc)


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def adobe_like() -> bytes:
    """An RGB profile that is not sRGB: the same with red and green exchanged, and another name."""
    data = profile().replace(b"rXYZ", b"tmpp").replace(b"gXYZ", b"rXYZ").replace(b"tmpp", b"gXYZ")
    return data.replace("sRGB".encode("utf-16-be"), "xyzw".encode("utf-16-be")).replace(b"sRGB", b"xyzw")


# --- modes -----------------------------------------------------------------------------------------------


def test_rgb_8_bit(tmp_path: Path) -> None:
    image = read_image(saved(RGB, tmp_path / "a.png"))
    assert image.bits == 8
    assert image.alpha is None
    assert image.pixels.dtype == np.float32
    np.testing.assert_array_equal(to_uint8(image.pixels), RGB)


def test_gray_stays_gray(tmp_path: Path) -> None:
    image = read_image(saved(RGB[..., 0], tmp_path / "a.png"))
    assert image.gray
    np.testing.assert_array_equal(to_uint8(image.pixels)[..., 0], RGB[..., 0])


def test_gray_with_alpha(tmp_path: Path) -> None:
    image = read_image(saved(RGB[..., :2].copy(), tmp_path / "a.png"))
    assert image.gray
    assert image.alpha is not None
    np.testing.assert_array_equal(to_uint8(image.alpha), RGB[..., 1])


def test_one_bit_becomes_gray(tmp_path: Path) -> None:
    Pillow.fromarray(RGB[..., 0] > 128).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.pixels[..., 0], (RGB[..., 0] > 128).astype(np.float32))


@pytest.mark.parametrize("transparent", [False, True])
def test_palette(tmp_path: Path, transparent: bool) -> None:
    indexed = Pillow.fromarray(np.array([[0, 1], [2, 0]], np.uint8), "P")
    indexed.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    options: dict[str, Any] = {"transparency": 1} if transparent else {}
    indexed.save(tmp_path / "a.png", **options)
    image = read_image(tmp_path / "a.png")
    assert to_uint8(image.pixels)[1, 0].tolist() == [70, 80, 90]
    if transparent:
        assert image.alpha is not None
        np.testing.assert_array_equal(image.alpha, [[1, 0], [1, 1]])
    else:
        assert image.alpha is None


def test_rgb_with_a_transparent_colour(tmp_path: Path) -> None:
    saved(RGB, tmp_path / "a.png", transparency=tuple(int(v) for v in RGB[2, 3]))
    image = read_image(tmp_path / "a.png")
    assert image.alpha is not None
    assert image.alpha[2, 3] == 0
    np.testing.assert_array_equal(to_uint8(image.pixels), RGB)


def test_cmyk_becomes_rgb_without_its_profile(tmp_path: Path) -> None:
    Pillow.new("CMYK", (4, 3), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    image = read_image(tmp_path / "a.jpg")
    assert image.icc is None
    np.testing.assert_allclose(image.pixels, np.broadcast_to([1.0, 0, 0], (3, 4, 3)), atol=0.02)


def test_float_tiff_is_refused_by_name(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.float32))
    with pytest.raises(CompressnetError, match=r"a\.tif.*32 bit.*use 8 or 16"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_orientation_is_applied_and_not_written_again(tmp_path: Path, orientation: int, name: str) -> None:
    # A quarter of the picture is bright: its corner tells where "up" went (EXIF 2.3, tag 274).
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8] = 255
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    saved(stored, tmp_path / name, exif=exif)
    image = read_image(tmp_path / name)
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    assert image.pixels.shape[:2] == ((32, 16) if orientation > 4 else (16, 32))
    assert image_size(tmp_path / name) == image.pixels.shape[1::-1]
    row, column = corner[orientation]
    assert image.pixels[row, column, 0] > 0.9
    assert (image.pixels > 0.5).mean() == pytest.approx(64 / 512)
    write_image(image, tmp_path / "out.jpg")
    assert 0x0112 not in Pillow.open(tmp_path / "out.jpg").getexif()


def test_orientation_of_16_bit_colour(tmp_path: Path) -> None:
    data = RNG.integers(0, 65536, (4, 6, 3)).astype(np.uint16)
    for name, path in (("png", tmp_path / "a.png"), ("tif", tmp_path / "a.tif")):
        write_image(Image((data / 65535).astype(np.float32), 16), path)
        if name == "png":  # an eXIf chunk before IEND: little-endian TIFF header, one entry
            exif = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + b"\0\0\0\0"
            raw = path.read_bytes()
            chunk = (
                struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
            )
            path.write_bytes(raw[:33] + chunk + raw[33:])
        else:
            tifffile.imwrite(path, data, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
        turned = read_image(path)
        assert turned.bits == 16
        np.testing.assert_array_equal(np.rint(turned.pixels * 65535), np.rot90(data, -1))
        assert image_size(path) == (4, 6)


# --- 16 bit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_round_trip_is_exact(tmp_path: Path, suffix: str, channels: int, alpha: bool, bits: int) -> None:
    image = picture(channels, bits, alpha, profile())
    lost = write_image(image, tmp_path / f"a.{suffix}")
    back = read_image(tmp_path / f"a.{suffix}")
    if suffix == "tif" and bits == 16 and channels == 1 and alpha:
        assert lost == ["TIFF of 16 bit gray with transparency: stored as RGB"]
        image.pixels = image.pixels.repeat(3, axis=2)
    else:
        assert lost == []
    assert back.bits == bits
    assert back.icc == image.icc
    np.testing.assert_array_equal(back.pixels, image.pixels)
    if alpha:
        assert back.alpha is not None
        np.testing.assert_array_equal(back.alpha, image.alpha)
    else:
        assert back.alpha is None


def png_with_filter(samples: np.ndarray, kind: int) -> bytes:
    """16-bit RGB PNG with one of the five row filters of the PNG specification, written naively."""
    height, width, channels = samples.shape
    size = 2 * channels
    rows = samples.astype(">u2").tobytes()
    stride = width * size
    out = bytearray()
    for y in range(height):
        out.append(kind)
        for x in range(stride):
            here = rows[y * stride + x]
            left = rows[y * stride + x - size] if x >= size else 0
            up = rows[(y - 1) * stride + x] if y else 0
            corner = rows[(y - 1) * stride + x - size] if y and x >= size else 0
            guess = left + up - corner
            paeth = min((left, up, corner), key=lambda value: abs(guess - value))
            out.append((here - (0, left, up, (left + up) // 2, paeth)[kind]) % 256)
    body = {b"IHDR": struct.pack(">2I5B", width, height, 16, 2, 0, 0, 0), b"IDAT": zlib.compress(bytes(out))}
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in {**body, b"IEND": b""}.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("kind", range(5))
def test_16_bit_png_with_every_filter(tmp_path: Path, kind: int) -> None:
    samples = RNG.integers(0, 65536, (6, 5, 3)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(png_with_filter(samples, kind))
    np.testing.assert_array_equal(np.rint(read_image(tmp_path / "a.png").pixels * 65535), samples)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"compression": "zlib", "byteorder": ">"},
        {"tile": (16, 16)},
        {"planarconfig": "separate"},
        {"planarconfig": "separate", "compression": "zlib"},
    ],
    ids=str,
)
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_tiff_layouts(tmp_path: Path, options: dict[str, Any], channels: int) -> None:
    samples = RNG.integers(0, 65536, (20, 18, channels)).astype(np.uint16)
    stored = np.moveaxis(samples, 2, 0) if "planarconfig" in options else samples
    extra = ["unassalpha"] if channels == 4 else None
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=extra, **options)
    image = read_image(tmp_path / "a.tif")
    assert image.bits == 16
    np.testing.assert_array_equal(np.rint(image.pixels * 65535), samples[..., :3])
    if channels == 4:
        assert image.alpha is not None
        np.testing.assert_array_equal(np.rint(image.alpha * 65535), samples[..., 3])


def test_16_bit_premultiplied_tiff_is_divided_by_alpha(tmp_path: Path) -> None:
    samples = np.full((3, 4, 4), 32768, np.uint16)
    samples[..., 0] = 16384
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=["assocalpha"])
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_allclose(image.pixels[0, 0], [0.5, 1, 1], atol=1e-4)


def test_16_bit_gray_where_white_is_zero(tmp_path: Path) -> None:
    samples = RNG.integers(0, 65536, (3, 4)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="miniswhite")
    np.testing.assert_array_equal(
        np.rint(read_image(tmp_path / "a.tif").pixels[..., 0] * 65535), 65535 - samples
    )


# --- profiles --------------------------------------------------------------------------------------------


def test_profile_is_passed_through_unless_srgb_is_asked_for(tmp_path: Path) -> None:
    saved(RGB, tmp_path / "a.png", icc_profile=adobe_like())
    assert read_image(tmp_path / "a.png").icc == adobe_like()
    np.testing.assert_array_equal(to_uint8(read_image(tmp_path / "a.png").pixels), RGB)
    converted = read_image(tmp_path / "a.png", srgb=True)
    assert converted.icc is None
    np.testing.assert_allclose(to_uint8(converted.pixels), RGB[..., [1, 0, 2]], atol=3)


def test_srgb_profile_changes_nothing(tmp_path: Path) -> None:
    saved(RGB, tmp_path / "a.png", icc_profile=profile())
    np.testing.assert_array_equal(to_uint8(read_image(tmp_path / "a.png", srgb=True).pixels), RGB)


def test_16_bit_with_profile_is_converted(tmp_path: Path) -> None:
    write_image(Image((RGB / 255).astype(np.float32), 16, icc=adobe_like()), tmp_path / "a.png")
    converted = read_image(tmp_path / "a.png", srgb=True)
    np.testing.assert_allclose(to_uint8(converted.pixels), RGB[..., [1, 0, 2]], atol=3)


def test_damaged_profile_is_named_where_it_matters(tmp_path: Path) -> None:
    saved(RGB, tmp_path / "a.png", icc_profile=b"nonsense" * 30)
    assert read_image(tmp_path / "a.png").icc == b"nonsense" * 30
    with pytest.raises(CompressnetError, match=r"a\.png: its colour profile is damaged"):
        read_image(tmp_path / "a.png", srgb=True)


# --- bad inputs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", [read_image, image_size])
def test_missing_folder_empty_and_text(tmp_path: Path, reader: Any) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello, I am not an image\n" * 10)
    for name, reason in (
        ("none.png", "no such file"),
        ("empty.png", "0 bytes"),
        ("text.png", "not an image"),
    ):
        with pytest.raises(CompressnetError, match=f"{name}: .*{reason}") as caught:
            reader(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(CompressnetError, match="is a folder"):
        reader(tmp_path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp", "a.bmp"])
@pytest.mark.parametrize("kept", [0.4, 0.9])
def test_truncated_file_is_an_error_and_not_half_a_picture(tmp_path: Path, name: str, kept: float) -> None:
    path = saved(RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8), tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(CompressnetError, match=name) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_truncated_16_bit(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write_image(Image(RNG.random((64, 64, 3), np.float32), 16), path)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(CompressnetError, match=r"a\."):
        read_image(path)


def test_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    row = zlib.compress(b"\0" * 100)
    header = struct.pack(">2I5B", 50_000, 50_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", header), (b"IDAT", row), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(CompressnetError, match=r"bomb\.png: 50000 x 50000 .*250 million"):
        read_image(tmp_path / "bomb.png")


def test_limit_is_ours_and_pillows_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 10)
    for name in ("a.png", "a.tif"):
        saved(RGB, tmp_path / "plain.png")
        buffer = io.BytesIO()
        Pillow.fromarray(RGB).save(buffer, "PNG" if name == "a.png" else "TIFF")
        (tmp_path / name).write_bytes(buffer.getvalue())
        np.testing.assert_array_equal(to_uint8(read_image(tmp_path / name).pixels), RGB)
        with pytest.raises(CompressnetError, match="more than the limit"):
            read_image(tmp_path / name, max_pixels=34)
        assert Pillow.MAX_IMAGE_PIXELS == 10


def test_raw_without_rawpy_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rawpy", None)
    (tmp_path / "a0001-x.DNG").write_bytes(b"II*\0")
    with pytest.raises(CompressnetError, match=r"a0001-x\.DNG: .*compressnet\[raw\]"):
        read_image(tmp_path / "a0001-x.DNG")


def write_dng(path: Path, mosaic: np.ndarray, orientation: int) -> None:
    """The least that LibRaw takes for a DNG: a Bayer mosaic RGGB, neutral white, linear XYZ."""
    identity = tuple(value for i in range(9) for value in (int(i % 4 == 0), 1))
    tags: list[tuple[int, int, int, Any, bool]] = [
        (274, 3, 1, orientation, True),
        (33421, 3, 2, (2, 2), True),  # CFARepeatPatternDim
        (33422, 1, 4, (0, 1, 1, 2), True),  # CFAPattern
        (50706, 1, 4, (1, 4, 0, 0), True),  # DNGVersion
        (50708, 2, 0, "Test Camera", True),  # UniqueCameraModel
        (50714, 4, 1, 0, True),  # BlackLevel
        (50717, 4, 1, 65535, True),  # WhiteLevel
        (50721, 10, 9, identity, True),  # ColorMatrix1
        (50728, 5, 3, (1, 1, 1, 1, 1, 1), True),  # AsShotNeutral
        (50778, 3, 1, 21, True),  # CalibrationIlluminant1: D65
    ]
    tifffile.imwrite(path, mosaic, photometric=32803, extratags=tags, metadata=None)


def test_raw_is_developed_upright_at_16_bit(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    mosaic = np.full((64, 96), 8000, np.uint16)
    mosaic[:32] = 30000  # the upper half is bright; orientation 6 turns it to the right
    write_dng(tmp_path / "a.DNG", mosaic, orientation=6)
    image = read_image(tmp_path / "a.DNG")
    assert image.bits == 16
    assert image.pixels.shape == (96, 64, 3)
    assert image_size(tmp_path / "a.DNG") == (64, 96)
    assert image.pixels[:, 40:].mean() > image.pixels[:, :24].mean() + 0.2
    # no automatic brightness: the gamma curve of spec 10 and nothing else
    assert image.pixels[:, 40:].mean() == pytest.approx(1.099 * (30000 / 65535) ** 0.45 - 0.099, abs=0.03)
    with pytest.raises(CompressnetError, match="more than the limit"):
        read_image(tmp_path / "a.DNG", max_pixels=100)


def test_damaged_raw_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    (tmp_path / "a.dng").write_bytes(b"not raw at all" * 100)
    with pytest.raises(CompressnetError, match=r"a\.dng: cannot be read as a raw photograph") as caught:
        read_image(tmp_path / "a.dng")
    assert "\n" not in str(caught.value)


# --- writing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jpg", "bmp"])
def test_what_a_format_cannot_hold_is_reported(tmp_path: Path, suffix: str) -> None:
    lost = write_image(picture(bits=16, alpha=True, icc=profile()), tmp_path / f"a.{suffix}")
    assert any("alpha dropped" in note for note in lost)
    assert any("16 bit reduced" in note for note in lost)
    assert any("profile dropped" in note for note in lost) == (suffix == "bmp")
    assert read_image(tmp_path / f"a.{suffix}").pixels.shape == (5, 7, 3)


def test_webp_is_lossless_unless_a_quality_is_given(tmp_path: Path) -> None:
    image = picture(alpha=False)
    assert write_image(image, tmp_path / "a.webp") == []
    np.testing.assert_array_equal(read_image(tmp_path / "a.webp").pixels, image.pixels)
    write_image(image, tmp_path / "b.webp", quality=10)
    assert not np.array_equal(read_image(tmp_path / "b.webp").pixels, image.pixels)


def test_values_are_rounded_and_clipped(tmp_path: Path) -> None:
    values = np.array([[[-0.2, 0.5 / 255, 1.7]], [[1.4 / 255, 1.6 / 255, 0.5]]], np.float32)
    write_image(Image(values), tmp_path / "a.png")
    stored = np.asarray(Pillow.open(tmp_path / "a.png"))
    assert stored[0, 0].tolist() == [0, 0, 255]
    assert stored[1, 0].tolist() == [1, 2, 128]


def test_unknown_suffix_lists_the_formats(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.gif.*\.png"):
        write_image(picture(), tmp_path / "a.gif")
    with pytest.raises(UsageError, match=r"\.tiff"):
        write_image(picture(), tmp_path / "noformat")


def test_too_large_for_the_format(tmp_path: Path) -> None:
    with pytest.raises(CompressnetError, match=r"a\.webp: WEBP cannot hold 17000 x 1"):
        write_image(Image(np.zeros((1, 17000, 3), np.float32)), tmp_path / "a.webp")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("where", "number"), [("fsync", errno.ENOSPC), ("replace", errno.EROFS), ("replace", errno.ENOSPC)]
)
def test_failed_write_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, number: int
) -> None:
    target = tmp_path / "a.png"
    saved(RGB, target)
    before = target.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(f"compressnet.files.os.{where}", fail)
    with pytest.raises(CompressnetError, match=r"a\.png: .*GB free"):
        write_image(picture(), target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CompressnetError, match=r"none.a\.png"):
        write_image(picture(), tmp_path / "none" / "a.png")


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_image(picture(), tmp_path / "a.png")
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640


# --- finding and resizing --------------------------------------------------------------------------------


def test_find_images(tmp_path: Path) -> None:
    for name in ("b.PNG", "sub/a.Jpeg", "sub/deep/c.NEF", "a.tif", "notes.txt", "._a.tif", ".hidden/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a.tif", "b.PNG", "sub/a.Jpeg", "sub/deep/c.NEF"]


def test_find_images_needs_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(CompressnetError, match="no such folder"):
        find_images(tmp_path / "none")
    with pytest.raises(CompressnetError, match="a file, not a folder"):
        find_images(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(40, 60, (20, 30)), (60, 40, (30, 20)), (41, 60, (20, 29))]
)
def test_resize_by_the_short_side(height: int, width: int, expected: tuple[int, int]) -> None:
    assert resize_short_side(np.zeros((height, width, 3), np.float32), 20).shape == (*expected, 3)


def test_resize_never_enlarges() -> None:
    pixels = RNG.random((10, 12, 3), np.float32)
    assert resize_short_side(pixels, 11) is pixels
    assert resize_short_side(pixels, 10) is pixels


def test_resize_antialiases_and_stays_in_range() -> None:
    checker = np.indices((64, 64)).sum(0)[..., None] % 2
    small = resize_short_side(checker.astype(np.float32), 16)
    np.testing.assert_allclose(small[2:-2, 2:-2], 0.5, atol=0.02)  # the finest pattern averages out
    step = np.zeros((64, 64, 1), np.float32)
    step[:, 32:] = 1
    small = resize_short_side(step, 20)
    assert small.min() == 0  # bicubic overshoots: clipped
    assert small.max() == 1


def test_a_linear_profile_is_not_srgb_whatever_its_name(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.full((2, 2, 3), 55, np.uint8)
    Pillow.fromarray(pixels).save(tmp_path / "srgb.png", icc_profile=srgb)
    assert read_image(tmp_path / "srgb.png", srgb=True).pixels[0, 0, 0] == np.float32(55 / 255)
    # The curves of a profile stand as `para` of type 3 with a gamma of 2.4: made linear, of the same name.
    at = srgb.index(b"para\0\0\0\0\0\3")
    linear = srgb[: at + 12] + (1 << 16).to_bytes(4, "big") * 2 + bytes(12) + srgb[at + 32 :]
    Pillow.fromarray(pixels).save(tmp_path / "linear.png", icc_profile=linear)
    assert read_image(tmp_path / "linear.png", srgb=True).pixels[0, 0, 0] > 0.4


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp"])
def test_a_colour_that_its_palette_does_not_have_is_an_error(tmp_path: Path, suffix: str) -> None:
    handle = Pillow.fromarray(np.array([[0, 1, 2, 3]] * 2, np.uint8), "P")
    handle.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    path = tmp_path / f"p.{suffix}"
    handle.save(path)
    assert read_image(path).pixels.shape == (2, 4, 3)
    if suffix == "png":
        data = path.read_bytes()
        at = data.index(b"PLTE")
        short = b"PLTE" + data[at + 4 : at + 10]
        chunk = (6).to_bytes(4, "big") + short + zlib.crc32(short).to_bytes(4, "big")
        size = int.from_bytes(data[at - 4 : at], "big")
        path.write_bytes(data[: at - 4] + chunk + data[at + 8 + size :])
        with pytest.raises(CompressnetError, match="colour 3 of a palette that has 2"):
            read_image(path)
