from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from compressnet.data.label_classes import LabelClasses, label_classes
from compressnet.data.label_maps import read_instances, read_labels
from compressnet.errors import CompressnetError

CLASSES = LabelClasses(
    names=("road", "car", "sky"),
    ids=(7, 2, 3),
    colours=((128, 64, 128), (0, 0, 142), (70, 130, 180)),
    ignored_ids=(0, 255),
    ignored_colours=((0, 0, 0),),
    source="mine.csv",
)
VALUES = np.array([[7, 2, 3, 3], [0, 0, 7, 2]], np.uint8)
OUTPUTS = [[0, 1, 2, 2], [255, 255, 0, 1]]


def colours(values: np.ndarray) -> np.ndarray:
    table = np.zeros((256, 3), np.uint8)
    table[list(CLASSES.ids)] = CLASSES.colours
    return table[values]


def saved(path: Path, picture: Pillow.Image) -> Path:
    picture.save(path)
    return path


def test_indices_palettes_and_colours_mean_the_same(tmp_path: Path) -> None:
    gray = Pillow.fromarray(VALUES)
    palette = Pillow.fromarray(VALUES, "P")
    palette.putpalette(list(np.random.default_rng(0).integers(0, 256, 768)))
    rgb = Pillow.fromarray(colours(VALUES))
    transparent = rgb.copy()
    transparent.putalpha(40)
    for number, picture in enumerate((gray, palette, rgb, transparent)):
        labels = read_labels(saved(tmp_path / f"{number}.png", picture), CLASSES)
        assert labels.dtype == np.uint8
        assert labels.tolist() == OUTPUTS


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_values_of_few_bits_are_not_spread(tmp_path: Path, bits: int) -> None:
    """Pillow shows them as 0 to 255, and cannot write gray of 2 and 4 bits."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    values = np.array([[1, 0, 1, 0]] if bits == 1 else [[3, 2, 1, 0]])
    row = np.packbits(np.unpackbits(values.astype(np.uint8)[..., None], axis=2)[..., -bits:].reshape(-1))
    header = struct.pack(">2I5B", 4, 1, bits, 0, 0, 0, 0)
    body = zlib.compress(b"\0" + row.tobytes())
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )
    classes = LabelClasses(tuple("abcd"), (0, 1, 2, 3), tuple((n, n, n) for n in range(4)))
    assert read_labels(path, classes).tolist() == values.tolist()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["camvid", "cityscapes", "voc"]))
def test_indices_and_colours_agree(tmp_path_factory: pytest.TempPathFactory, seed: int, name: str) -> None:
    classes = label_classes(name, Path())
    folder = tmp_path_factory.mktemp("labels")
    outputs = np.random.default_rng(seed).integers(0, len(classes), (3, 5))
    by_id = saved(folder / "a.png", Pillow.fromarray(np.array(classes.ids, np.uint8)[outputs]))
    by_colour = saved(folder / "b.png", Pillow.fromarray(np.array(classes.colours, np.uint8)[outputs]))
    assert read_labels(by_id, classes).tolist() == outputs.tolist()
    assert read_labels(by_colour, classes).tolist() == outputs.tolist()


def test_what_the_class_file_does_not_know(tmp_path: Path) -> None:
    values = VALUES.copy()
    values[0] = 9
    with pytest.raises(
        CompressnetError, match=r"a\.png: value 9 \(4 pixels\) is not in mine\.csv: add a row"
    ):
        read_labels(saved(tmp_path / "a.png", Pillow.fromarray(values)), CLASSES)
    values[1] = [8, 8, 10, 11]
    with pytest.raises(
        CompressnetError, match=r"values 9 \(4 pixels\), 8 \(2 pixels\), 10 \(1 pixel\) and 1 more are not"
    ):
        read_labels(saved(tmp_path / "a.png", Pillow.fromarray(values)), CLASSES)
    pixels = colours(VALUES)
    pixels[1, :3] = (1, 2, 255)
    with pytest.raises(CompressnetError, match=r"b\.png: colour #0102ff \(3 pixels\) is not in mine\.csv"):
        read_labels(saved(tmp_path / "b.png", Pillow.fromarray(pixels)), CLASSES)
    pixels[:] = 255  # above every colour there is
    with pytest.raises(CompressnetError, match=r"colour #ffffff \(8 pixels\)"):
        read_labels(saved(tmp_path / "b.png", Pillow.fromarray(pixels)), CLASSES)


def test_files_that_are_no_labels(tmp_path: Path) -> None:
    deep = saved(tmp_path / "deep.png", Pillow.fromarray(VALUES.astype(np.uint16)))
    with pytest.raises(CompressnetError, match=r"deep\.png: has 16 bits a pixel: labels have 8"):
        read_labels(deep, CLASSES)
    jpeg = saved(tmp_path / "a.jpg", Pillow.fromarray(VALUES))
    with pytest.raises(CompressnetError, match=r"a\.jpg: is JPEG: labels have to be PNG"):
        read_labels(jpeg, CLASSES)
    both = saved(tmp_path / "la.png", Pillow.fromarray(VALUES).convert("LA"))
    with pytest.raises(CompressnetError, match="mode LA: labels are gray, palette or RGB"):
        read_labels(both, CLASSES)
    noise = np.random.default_rng(0).choice(np.array(CLASSES.ids, np.uint8), (90, 90))
    cut = saved(tmp_path / "cut.png", Pillow.fromarray(noise))
    cut.write_bytes(cut.read_bytes()[:-600])
    with pytest.raises(CompressnetError, match=r"cut\.png: a damaged PNG: "):
        read_labels(cut, CLASSES)


def test_instances(tmp_path: Path) -> None:
    values = np.array([[7, 26001, 26002], [24000, 0, 65000]], np.uint16)
    path = saved(tmp_path / "a.png", Pillow.fromarray(values))
    objects = read_instances(path)
    assert objects.dtype == np.int32
    assert objects.tolist() == values.tolist()
    with pytest.raises(CompressnetError, match="instance ids have to be a gray PNG of 16 bits"):
        read_instances(saved(tmp_path / "b.png", Pillow.fromarray(colours(VALUES))))
