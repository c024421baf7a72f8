"""Pictures of every colour space, depth and layout against arithmetic of the test's own."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow
from PIL import ImageCms
from skimage import color

from compressnet.data.images import Image, image_size, read_image, to_uint8, write_image
from compressnet.errors import CompressnetError

RNG = np.random.default_rng(3)
HEIGHT, WIDTH = 5, 7
LAYOUTS: dict[str, dict[str, Any]] = {
    "chunky": {},
    "planar": {"planarconfig": "separate"},
    "planar deflate": {"planarconfig": "separate", "compression": "zlib"},
    "deflate": {"compression": "zlib", "predictor": True, "rowsperstrip": 2},
    "big-endian": {"byteorder": ">"},
    "tiles": {"tile": (16, 16), "compression": "zlib"},
    "BigTIFF": {"bigtiff": True},
}


def levels(channels: int, bits: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return RNG.integers(0, 2**bits, (height, width, channels)).astype(f"uint{max(8, bits)}")


def tiff(path: Path, samples: np.ndarray, layout: str = "chunky", **options: Any) -> Path:
    """(H, W, S) as a TIFF."""
    settings = LAYOUTS[layout] | options
    if samples.shape[2] == 1:
        settings.pop("planarconfig", None)
        stored = samples[..., 0]
    else:
        settings.setdefault("planarconfig", "contig")
        stored = np.moveaxis(samples, 2, 0) if settings["planarconfig"] == "separate" else samples
    tifffile.imwrite(path, stored, metadata=None, **settings)
    return path


def check(
    path: Path, colour: np.ndarray, alpha: np.ndarray | None = None, bits: int = 8, tolerance: float = 1e-6
) -> Image:
    """What is read is `colour` (H, W, 1 or 3) and `alpha`, both in [0, 1]."""
    image = read_image(path)
    assert image.pixels.dtype == np.float32
    assert image.bits == bits
    assert image_size(path) == image.pixels.shape[1::-1]
    assert image.pixels.shape == colour.shape
    np.testing.assert_allclose(image.pixels, colour, atol=tolerance)
    assert (image.alpha is None) == (alpha is None)
    if alpha is not None and image.alpha is not None:
        np.testing.assert_allclose(image.alpha, alpha, atol=1e-6)
    return image


# --- TIFF: colour spaces and extra samples in every layout -----------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("space", ["minisblack", "miniswhite", "rgb", "separated"])
@pytest.mark.parametrize("extra", ["none", "unspecified", "unassalpha", "assocalpha", "two"])
def test_tiff(tmp_path: Path, layout: str, bits: int, space: str, extra: str) -> None:
    colours = {"minisblack": 1, "miniswhite": 1, "rgb": 3, "separated": 4}[space]
    kinds = {"none": [], "two": ["unspecified", "unassalpha"]}.get(extra, [extra])
    samples = levels(colours + len(kinds), bits)
    top = 2**bits - 1
    if extra == "assocalpha":
        samples[..., -1] |= 1
        samples[..., :-1] = np.minimum(samples[..., :-1], samples[..., -1:])
    tiff(tmp_path / "a.tif", samples, layout, photometric=space, extrasamples=kinds or None)
    unit = samples / top
    colour, alpha = (
        unit[..., :colours],
        unit[..., -1] if extra in ("unassalpha", "assocalpha", "two") else None,
    )
    if extra == "assocalpha":
        colour = colour / unit[..., -1:]
    if space == "miniswhite":
        colour = 1 - colour
    if space == "separated":
        colour = (1 - colour[..., :3]) * (1 - colour[..., 3:])
    tolerance = 1e-6 if extra != "assocalpha" and space != "separated" else 1.6 / top
    image = check(tmp_path / "a.tif", colour, alpha, bits, tolerance)
    dropped = [line for line in image.lost if "1 extra channel of no stated meaning dropped" in line]
    assert len(dropped) == (extra in ("unspecified", "two"))
    assert len(image.lost) == len(dropped)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "tiff_deflate", "packbits"])
def test_tiff_as_libtiff_writes_it(tmp_path: Path, bits: int, compression: str) -> None:
    quality: dict[str, Any] = {"quality": 100} if compression == "jpeg" else {}
    for mode in ("L", "RGB", "RGBA", "CMYK", "LA", "P", "1") if bits == 8 else ("I;16",):
        if compression == "jpeg" and mode in ("P", "1", "I;16", "LA", "RGBA"):
            continue
        smooth = Pillow.fromarray(levels(3, 8, 2, 2)).resize((24, 16), Pillow.Resampling.BICUBIC)
        handle = smooth.convert(mode) if bits == 8 else Pillow.fromarray(levels(1, 16, 16, 24)[..., 0])
        handle.save(tmp_path / "a.tif", compression=compression, **quality)
        opened = Pillow.open(tmp_path / "a.tif")
        flat = opened.convert({"CMYK": "RGB", "P": "RGB", "1": "L"}.get(mode, mode)) if bits == 8 else opened
        expected = np.asarray(flat).reshape(16, 24, -1) / (255 if bits == 8 else 65535)
        alpha = expected[..., -1] if mode in ("RGBA", "LA") else None
        colour = expected[..., :-1] if alpha is not None else expected
        check(tmp_path / "a.tif", colour, alpha, bits)


def lzw_like(path: Path, samples: np.ndarray, **tags: Any) -> None:
    """A TIFF in LZW: tifffile cannot write it, so every byte goes out as a code of nine bits."""
    deflated = io.BytesIO()
    tifffile.imwrite(deflated, samples, metadata=None, rowsperstrip=samples.shape[0], **tags)
    raw = samples.astype("<u2" if samples.dtype == np.uint16 else "u1").tobytes()
    codes: list[int] = []
    for start in range(0, len(raw), 200):  # the table is cleared before codes grow to ten bits
        codes += [256, *raw[start : start + 200]]
    text = "".join(f"{code:09b}" for code in [*codes, 257])
    data = int(text.ljust(-len(text) % 8 + len(text), "0"), 2).to_bytes((len(text) + 7) // 8, "big")
    file = bytearray(deflated.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(file))) as opened:
        places = {code: opened.pages.first.tags[code].valueoffset for code in (259, 273, 279)}
    file += b"\0" * (len(file) % 2)
    struct.pack_into("<H", file, places[259], 5)
    for code, value in ((273, len(file)), (279, len(data))):
        struct.pack_into("<I", file, places[code], value)
    path.write_bytes(bytes(file) + data)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("space", "extra"),
    [
        ("rgb", None),
        ("rgb", 0),
        ("rgb", 1),
        ("rgb", 2),
        ("separated", None),
        ("minisblack", None),
        ("miniswhite", None),
    ],
)
def test_tiff_in_lzw(tmp_path: Path, bits: int, space: str, extra: int | None) -> None:
    colours = {"minisblack": 1, "miniswhite": 1, "rgb": 3, "separated": 4}[space]
    samples = levels(colours + (extra is not None), bits)
    if extra == 1:
        samples[..., -1] |= 1
        samples[..., :-1] = np.minimum(samples[..., :-1], samples[..., -1:])
    stored = samples[..., 0] if samples.shape[2] == 1 else samples
    planar = None if stored.ndim == 2 else "contig"
    lzw_like(
        tmp_path / "a.tif", stored, photometric=space, planarconfig=planar,
        extrasamples=None if extra is None else [extra],
    )  # fmt: skip
    unit = samples / (2**bits - 1)
    colour, alpha = unit[..., :colours], unit[..., -1] if extra in (1, 2) else None
    if extra == 1:
        colour = colour / unit[..., -1:]
    colour = 1 - colour if space == "miniswhite" else colour
    colour = (1 - colour[..., :3]) * (1 - colour[..., 3:]) if space == "separated" else colour
    exact = extra != 1 and space != "separated"
    image = check(tmp_path / "a.tif", colour, alpha, bits, 1e-6 if exact else 1.6 / (2**bits - 1))
    assert len(image.lost) == (extra == 0)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("space", "extra"),
    [("rgb", 1), ("rgb", 2), ("minisblack", 1), ("separated", None), ("cielab", None), ("icclab", None)],
)
def test_a_picture_is_the_same_in_every_compression(
    tmp_path: Path, bits: int, space: str, extra: int | None
) -> None:
    samples = levels({"minisblack": 1, "separated": 4}.get(space, 3) + (extra is not None), bits)
    if extra == 1:  # some pixels are wholly transparent, and shine nevertheless
        samples[0, :, -1] = 0
    options: dict[str, Any] = {"photometric": space, "extrasamples": None if extra is None else [extra]}
    tiff(tmp_path / "plain.tif", samples, "deflate", **options)
    lzw_like(tmp_path / "lzw.tif", samples, planarconfig="contig", **options)
    plain = read_image(tmp_path / "plain.tif")
    refused = {("icclab", 8), ("icclab", 16), ("cielab", 16), ("minisblack", 16)}  # by libtiff or Pillow
    if (space, bits) in refused:
        with pytest.raises(CompressnetError, match="is not read in compression LZW"):
            read_image(tmp_path / "lzw.tif")
        return
    lzw = read_image(tmp_path / "lzw.tif")
    np.testing.assert_array_equal(lzw.pixels, plain.pixels)
    if extra is not None:
        np.testing.assert_array_equal(lzw.alpha, plain.alpha)


@pytest.mark.parametrize("compression", [None, "packbits"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "I;16"])
def test_a_predictor_means_nothing_where_nothing_is_predicted(
    tmp_path: Path, compression: str | None, mode: str
) -> None:
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4, "I;16": 1}[mode]
    samples = levels(channels, 16 if mode == "I;16" else 8)
    stored = samples[..., 0] if channels == 1 else samples
    handle = (
        Pillow.fromarray(stored)
        if mode != "CMYK"
        else Pillow.frombytes(mode, (WIDTH, HEIGHT), stored.tobytes())
    )
    for name, tags in (("without", {}), ("with", {317: 2})):
        handle.save(tmp_path / f"{name}.tif", compression=compression, tiffinfo=tags)
    without, with_tag = (read_image(tmp_path / f"{name}.tif").pixels for name in ("without", "with"))
    np.testing.assert_array_equal(with_tag, without)


def test_tiff_without_the_tag_of_extra_samples(tmp_path: Path) -> None:
    for bits in (8, 16):
        samples = levels(4, bits)
        tiff(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=["unspecified"])
        data = (tmp_path / "a.tif").read_bytes()
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            place = file.pages.first.tags[338].offset
        (tmp_path / "a.tif").write_bytes(data[:place] + struct.pack("<H", 65000) + data[place + 2 :])
        image = check(tmp_path / "a.tif", samples[..., :3] / (2**bits - 1), None, bits)
        assert image.lost == ("1 extra channel of no stated meaning dropped",)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("space", [8, 9])
@pytest.mark.parametrize("layout", ["chunky", "planar", "deflate", "big-endian"])
def test_lab(tmp_path: Path, bits: int, space: int, layout: str) -> None:
    lab = np.stack([RNG.uniform(20, 90, (HEIGHT, WIDTH)), *RNG.uniform(-25, 25, (2, HEIGHT, WIDTH))], axis=2)
    unit = 2 ** (bits - 8)
    white = 2**bits - 1 if space == 8 or bits == 8 else 0xFF00
    stored = np.rint(np.concatenate([lab[..., :1] * white / 100, lab[..., 1:] * unit], axis=2)).astype(int)
    if space == 9:
        stored[..., 1:] += 128 * unit
    samples = (stored % 2**bits).astype(f"uint{bits}")
    tiff(tmp_path / "a.tif", samples, layout, photometric=space)
    # scikit-image: Lab under D50 to XYZ; then the matrix of the sRGB profile (Bradford), inverted.
    to_xyz = np.array(
        [
            [0.4360747, 0.3850649, 0.1430804],
            [0.2225045, 0.7168786, 0.0606169],
            [0.0139322, 0.0971045, 0.7141733],
        ]
    )
    linear = np.clip(color.lab2xyz(lab, illuminant="D50") @ np.linalg.inv(to_xyz).T, 0, 1)
    expected = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    check(tmp_path / "a.tif", expected, None, bits, 0.02 if bits == 8 else 0.002)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extra", [None, "unspecified", "unassalpha"])
def test_tiff_palette(tmp_path: Path, bits: int, extra: str | None) -> None:
    table = RNG.integers(0, 256, (3, 2**bits)).astype(np.uint16) * 257
    samples = levels(1 if extra is None else 2, bits)
    tags = [(320, 3, table.size, tuple(table.ravel().tolist()), True)]
    kinds = None if extra is None else [extra]
    tiff(tmp_path / "a.tif", samples, photometric="minisblack", extratags=tags, extrasamples=kinds)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        place = file.pages.first.tags[262].valueoffset
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:place] + struct.pack("<H", 3) + data[place + 2 :])
    expected = np.moveaxis(table[:, samples[..., 0]], 0, 2) / 65535
    alpha = samples[..., 1] / (2**bits - 1) if extra == "unassalpha" else None
    check(tmp_path / "a.tif", expected, alpha)


@pytest.mark.parametrize("luma", [(0.299, 0.587, 0.114), (0.2126, 0.7152, 0.0722)])
def test_tiff_of_ycbcr(tmp_path: Path, luma: tuple[float, float, float]) -> None:
    rgb = RNG.uniform(60, 200, (HEIGHT, WIDTH, 3))
    y = rgb @ luma
    cb = (rgb[..., 2] - y) / (2 - 2 * luma[2]) + 128
    cr = (rgb[..., 0] - y) / (2 - 2 * luma[0]) + 128
    samples = np.rint(np.stack([y, cb, cr], axis=2)).astype(np.uint8)
    shares = tuple(number for share in luma for number in (round(share * 10000), 10000))
    tags = [(530, 3, 2, (1, 1), True), (529, 5, 3, shares, True)]
    tiff(tmp_path / "a.tif", samples, photometric="ycbcr", extratags=tags)
    check(tmp_path / "a.tif", rgb / 255, None, 8, 0.01)


@pytest.mark.parametrize(
    ("bits", "white"), [(1, 0), (1, 1), (2, 1), (4, 0), (4, 1), (8, 0), (12, 1), (16, 0)]
)
def test_gray_tiff_of_every_depth(tmp_path: Path, bits: int, white: int) -> None:
    samples = RNG.integers(0, 2**bits, (3, 8)).astype(int)
    packed = "".join(f"{value:0{bits}b}" for value in samples.ravel())
    data = int(packed, 2).to_bytes(len(packed) // 8, "big")
    if bits == 16:
        data = samples.astype("<u2").tobytes()
    entries = [(256, 8), (257, 3), (258, bits), (259, 1), (262, white), (273, 122), (277, 1), (278, 3)]
    entries.append((279, len(data)))
    file = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, value in entries:
        file += struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value)
    (tmp_path / "a.tif").write_bytes(file + b"\0\0\0\0" + data)
    unit = samples[..., None] / (2**bits - 1)
    check(tmp_path / "a.tif", unit if white else 1 - unit, None, 16 if bits > 8 else 8)


@pytest.mark.parametrize(
    "kind", ["float16", "float32", "float64", "int8", "int16", "int32", "uint32", "complex64"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_numbers_of_no_stated_range_are_refused(tmp_path: Path, kind: str, channels: int) -> None:
    samples = np.ones((4, 4, channels), kind)
    tiff(tmp_path / "a.tif", samples, photometric="rgb" if channels == 3 else "minisblack")
    for reader in (read_image, image_size):
        with pytest.raises(CompressnetError, match=r"a\.tif: a TIFF of .*bit.*: use 8 or 16 bit") as caught:
            reader(tmp_path / "a.tif")
        assert "\n" not in str(caught.value)


def test_what_no_library_reads_says_how_to_save_it(tmp_path: Path) -> None:
    lzw_like(
        tmp_path / "a.tif", levels(2, 16), photometric="minisblack", planarconfig="contig", extrasamples=[2]
    )
    with pytest.raises(
        CompressnetError, match=r"a\.tif: a TIFF of .*2 samples of 16 bit.*LZW: save it .*deflate"
    ):
        read_image(tmp_path / "a.tif")


# --- PNG -------------------------------------------------------------------------------------------------


def png(samples: np.ndarray, depth: int, colour_type: int, chunks: bytes = b"", late: bytes = b"") -> bytes:
    height, width = samples.shape[:2]
    rows = b""
    for row in samples.reshape(height, -1):
        bits = "".join(f"{value:0{depth}b}" for value in row)
        bits += "0" * (-len(bits) % 8)
        rows += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    head = struct.pack(">2I5B", width, height, depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunks
        + chunk(b"IDAT", zlib.compress(rows)) + late + chunk(b"IEND", b"")
    )  # fmt: skip


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize(
    ("kind", "depth"),
    [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (4, 8), (4, 16), (6, 8), (6, 16)],
)
@pytest.mark.parametrize("keyed", [False, True])
def test_png(tmp_path: Path, kind: int, depth: int, keyed: bool) -> None:
    if keyed and kind > 2:
        pytest.skip("no key colour beside alpha")
    samples = levels({0: 1, 2: 3, 4: 2, 6: 4}[kind], depth, 4, 9)
    key = samples[2, 3]
    near = samples[2, 4]
    near[:] = key
    near[0] ^= 1  # the lowest bit tells them apart
    transparency = chunk(b"tRNS", struct.pack(f">{len(key)}H", *map(int, key)))
    (tmp_path / "a.png").write_bytes(png(samples, depth, kind, transparency if keyed else b""))
    unit = samples / (2**depth - 1)
    alpha = unit[..., -1] if kind > 2 else None
    if keyed:
        alpha = 1.0 - (samples == key).all(axis=2)
        assert alpha[2, 4] == 1
    check(tmp_path / "a.png", unit[..., :-1] if kind > 2 else unit, alpha, 16 if depth == 16 else 8)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("keyed", [False, True])
def test_png_palette(tmp_path: Path, depth: int, keyed: bool) -> None:
    table = levels(3, 8, 1, 2**depth)[0]
    opacity = levels(1, 8, 1, 2**depth)[0, : max(1, 2**depth - 1), 0]  # shorter than the palette: opaque
    samples = levels(1, depth, 4, 9)
    chunks = chunk(b"PLTE", table.tobytes()) + (chunk(b"tRNS", opacity.tobytes()) if keyed else b"")
    (tmp_path / "a.png").write_bytes(png(samples, depth, 3, chunks))
    alpha = np.append(opacity, 255)[np.minimum(samples[..., 0], len(opacity))] / 255 if keyed else None
    check(tmp_path / "a.png", table[samples[..., 0]] / 255, alpha)


# --- other formats ---------------------------------------------------------------------------------------


def jpeg_of_ink(path: Path, **options: Any) -> np.ndarray:
    ink = Pillow.fromarray(levels(4, 8, 2, 2)).convert("RGB").convert("CMYK").resize((16, 16))
    ink.save(path, quality=100, **options)
    return np.asarray(ink) / 255


def test_cmyk_jpeg(tmp_path: Path) -> None:
    ink = jpeg_of_ink(tmp_path / "a.jpg")
    image = check(tmp_path / "a.jpg", (1 - ink[..., :3]) * (1 - ink[..., 3:]), None, 8, 0.02)
    assert image.icc is None


def cmyk_profile() -> bytes:
    """A profile of four inks: a table of two nodes an axis, made by hand (ICC.1:2001, 6.5.7)."""
    corners = np.array([[c, m, y, k] for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)], float)
    rgb = (1 - corners[:, :3]) * (1 - corners[:, 3:])
    lab = color.rgb2lab(rgb[None])[0]
    coded = (
        np.rint(np.stack([lab[:, 0] * 2.55, lab[:, 1] + 128, lab[:, 2] + 128], 1))
        .clip(0, 255)
        .astype(np.uint8)
    )
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 if place % 4 == 0 else 0 for place in range(9)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + coded.tobytes() + ramp * 3
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"inks\0" + bytes(8 + 3 + 67)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags, body, place = b"", b"", 128 + 4 + 12 * 3
    for name, data in ((b"desc", text), (b"wtpt", white), (b"A2B0", table)):
        data += b"\0" * (-len(data) % 4)
        tags += name + struct.pack(">2I", place + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", place + len(body), b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", 3) + tags + body


@pytest.mark.parametrize("bits", [8, 16])
def test_a_cmyk_profile_is_applied(tmp_path: Path, bits: int) -> None:
    profile = cmyk_profile()
    samples = levels(4, bits)
    tiff(tmp_path / "a.tif", samples, photometric="separated", iccprofile=profile)
    ink = Pillow.frombytes(
        "CMYK", (WIDTH, HEIGHT), np.rint(samples / (2**bits - 1) * 255).astype(np.uint8).tobytes()
    )
    expected = ImageCms.profileToProfile(
        ink, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB",
    )  # fmt: skip
    image = check(tmp_path / "a.tif", np.asarray(expected) / 255, None, 8, 0.005)
    assert image.icc is None
    assert [line for line in image.lost if "16 bit reduced to 8" in line] == list(image.lost)
    assert len(image.lost) == (bits == 16)
    expected_jpeg = jpeg_of_ink(tmp_path / "a.jpg", icc_profile=profile)
    assert read_image(tmp_path / "a.jpg").pixels.shape == (*expected_jpeg.shape[:2], 3)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_animations_and_pages_the_first_is_kept_and_that_is_said(tmp_path: Path, suffix: str) -> None:
    frames = [Pillow.fromarray(np.full((8, 8, 3), shade, np.uint8)) for shade in (40, 90, 200)]
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    image = check(tmp_path / f"a.{suffix}", np.full((8, 8, 3), 40 / 255), None)
    assert len(image.lost) == 1
    assert "only the first of 3" in image.lost[0]
    assert write_image(image, tmp_path / "b.png") == list(image.lost)


def test_the_second_view_of_a_camera_is_no_page(tmp_path: Path) -> None:
    view = Pillow.fromarray(np.full((16, 16, 3), 90, np.uint8))
    view.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[view])
    assert Pillow.open(tmp_path / "a.jpg").n_frames == 2  # type: ignore[attr-defined]
    assert read_image(tmp_path / "a.jpg").lost == ()


@pytest.mark.parametrize("name", ["a.gif", "a.tga", "a.jp2", "a.avif", "a.jfif", "a.jpe", "a.ppm"])
def test_formats_that_are_only_read(tmp_path: Path, name: str) -> None:
    Pillow.fromarray(np.full((16, 16, 3), (200, 90, 40), np.uint8)).save(tmp_path / name)
    check(tmp_path / name, np.broadcast_to(np.array([200, 90, 40]) / 255, (16, 16, 3)), None, 8, 0.02)


def test_16_bit_jpeg_2000_is_reduced_and_that_is_said(tmp_path: Path) -> None:
    Pillow.fromarray(levels(1, 16)[..., 0]).save(tmp_path / "gray.jp2")
    assert read_image(tmp_path / "gray.jp2").bits == 16


def test_sgi_of_two_bytes_is_reduced_and_that_is_said(tmp_path: Path) -> None:
    gray = levels(1, 8, 8, 8)
    for size, said in ((1, ()), (2, ("16 bit reduced to 8 in reading SGI",))):
        head = struct.pack(">h2B4H2i4x80si404x", 474, 0, size, 2, 8, 8, 1, 0, 2 ** (8 * size) - 1, b"", 0)
        (tmp_path / "a.png").write_bytes(head + gray[::-1].astype(f">u{size}").tobytes())
        image = read_image(tmp_path / "a.png")
        assert image.lost == said
        if size == 1:
            np.testing.assert_array_equal(to_uint8(image.pixels), gray)


@pytest.mark.parametrize(
    ("chunks", "said"),
    [
        ([], ()),
        ([(b"gAMA", struct.pack(">I", 45455))], ()),
        ([(b"gAMA", struct.pack(">I", 100000))], ("gamma (1) ignored",)),
        ([(b"gAMA", struct.pack(">I", 100000)), (b"sRGB", b"\0")], ()),
        ([(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))], ()),
        ([(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000))], ("(cHRM)",)),
        ([(b"cICP", bytes([1, 13, 0, 1]))], ()),
        ([(b"cICP", bytes([9, 16, 0, 1]))], ("cICP 9, 16, 0, 1) ignored",)),
    ],
)
def test_colours_that_a_png_states_otherwise_than_by_a_profile(
    tmp_path: Path, chunks: list[tuple[bytes, bytes]], said: tuple[str, ...]
) -> None:
    Pillow.fromarray(levels(3, 8)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:33] + b"".join(chunk(*each) for each in chunks) + data[33:])
    lost = read_image(tmp_path / "a.png").lost
    assert len(lost) == len(said)
    assert all(phrase in line for phrase, line in zip(said, lost, strict=True))


@pytest.mark.parametrize(
    ("photometric", "channels", "tag", "said"),
    [
        ("rgb", 3, (301, "H", 768, tuple(range(768)), True), "transfer function ignored"),
        ("rgb", 3, (318, "2I", 2, (31270, 100000, 32900, 100000), True), "primaries"),
        ("separated", 4, (336, "H", 2, (10, 200), True), "range of ink (DotRange) ignored"),
    ],
)
def test_colours_that_a_tiff_states_otherwise_than_by_a_profile(
    tmp_path: Path, photometric: str, channels: int, tag: Any, said: str
) -> None:
    tiff(tmp_path / "a.tif", levels(channels, 8), photometric=photometric, extratags=[tag])
    assert any(said in phrase for phrase in read_image(tmp_path / "a.tif").lost)


@pytest.mark.parametrize("kind", ["B", "H"])
def test_the_orientation_of_a_tiff_in_a_byte_or_a_short(tmp_path: Path, kind: str) -> None:
    samples = levels(3, 8)
    tiff(tmp_path / "a.tif", samples, photometric="rgb", extratags=[(274, kind, 1, 6, True)])
    check(tmp_path / "a.tif", np.rot90(samples, -1) / 255)


def test_what_stores_the_pixels_is_no_description(tmp_path: Path) -> None:
    for text, kept in (('{"shape": [5, 7, 3]}', False), ("ImageJ=1.53", False), ("a cat", True)):
        tiff(tmp_path / "a.tif", levels(3, 8), photometric="rgb", description=text)
        assert (text.encode() in (read_image(tmp_path / "a.tif").exif or b"")) == kept


def test_libtiff_says_nothing_past_python(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Pillow.fromarray(levels(3, 8, 64, 64)).save(tmp_path / "a.tif", compression="tiff_lzw")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[200:4000] = bytes(3800)
    (tmp_path / "a.tif").write_bytes(bytes(data))
    with pytest.raises(CompressnetError, match=r"a\.tif: damaged or not supported"):
        read_image(tmp_path / "a.tif")
    assert capfd.readouterr().err == ""


def test_the_fourth_byte_of_tga_is_alpha_only_where_the_header_says_so(tmp_path: Path) -> None:
    samples = levels(4, 8)
    Pillow.fromarray(samples).save(tmp_path / "a.tga")
    check(tmp_path / "a.tga", samples[..., :3] / 255, samples[..., 3] / 255)
    data = bytearray((tmp_path / "a.tga").read_bytes())
    data[17] &= 0xF0
    (tmp_path / "a.tga").write_bytes(data)
    check(tmp_path / "a.tga", samples[..., :3] / 255, None)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp", "bmp"])
@pytest.mark.parametrize("bits", [8, 16])
def test_pictures_of_a_row_or_a_column(tmp_path: Path, size: tuple[int, int], suffix: str, bits: int) -> None:
    for alpha in (None, np.full(size, 0.5, np.float32)):
        image = Image(np.full((*size, 3), 0.25, np.float32), bits, alpha)
        write_image(image, tmp_path / f"a.{suffix}")
        back = read_image(tmp_path / f"a.{suffix}")
        np.testing.assert_allclose(back.pixels, image.pixels, atol=0.01)
        assert image_size(tmp_path / f"a.{suffix}") == size[::-1]


def test_what_was_read_is_written_alike_by_every_writer(tmp_path: Path) -> None:
    samples = levels(4, 16, 40, 30)
    image = Image(
        (samples[..., :3] / 65535).astype(np.float32), 16, (samples[..., 3] / 65535).astype(np.float32)
    )
    write_image(image, tmp_path / "a.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), samples)
    write_image(Image(image.pixels, 8, image.alpha), tmp_path / "b.tif")
    eight = np.concatenate([to_uint8(image.pixels), to_uint8(image.alpha)[..., None]], axis=2)  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.asarray(Pillow.open(tmp_path / "b.tif")), eight)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), eight)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", None])
def test_palettes_of_8_bit_values_in_every_compression(tmp_path: Path, compression: str | None) -> None:
    indices = np.array([[0, 1, 2], [3, 2, 1]], np.uint8)
    table = np.arange(10, 130, 10, dtype=np.uint8)
    handle, path = Pillow.fromarray(indices, "P"), tmp_path / "a.tif"
    handle.putpalette(table.tolist())
    handle.save(path, compression=compression)
    expected = table.reshape(-1, 3)[indices] / np.float32(255)
    np.testing.assert_array_equal(read_image(path).pixels, expected)
    with tifffile.TiffFile(path) as file:
        tag = file.pages[0].tags[320]  # type: ignore[union-attr]
        begin, values = tag.valueoffset, np.array(tag.value, np.uint16)
    data = bytearray(path.read_bytes())
    data[begin : begin + values.nbytes] = (values >> 8).astype("<u2").tobytes()
    path.write_bytes(bytes(data))
    np.testing.assert_array_equal(read_image(path).pixels, expected)
