"""Clips: read frame by frame, written with their times and their sound; what is broken or no clip."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressnet.data.video import Frame, open_clip, turn
from compressnet.errors import CompressnetError, CutShort
from compressnet.reporter import Silent

av = pytest.importorskip("av")

from compressnet.data.video_writing import Redrawn, padded, redraw  # noqa: E402
from tests.data.clips import film, picture, seen, sound_alone  # noqa: E402

SHARED = Path(__file__).parents[3] / "shared" / "data" / "video"
UNEVEN = [0, 1, 3, 7, 8, 15, 16, 17, 18, 30]
# Rows: where (x, y) is shown, x to the right and y down, 16.16.
MATRICES = {
    "as it is": (1, 0, 0, 1),
    "clockwise": (0, 1, -1, 0),
    "upside down": (-1, 0, 0, -1),
    "anticlockwise": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "transposed": (0, 1, 1, 0),
}


def matrix(a: int, b: int, c: int, d: int) -> list[int]:
    one = 1 << 16
    return [a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30]


def frames(path: Path) -> list[Frame]:
    with open(path, "rb") as file, open_clip(file, "film") as clip:
        return list(clip.pictures())


def copied(
    path: Path, output: Path, change: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels
) -> Redrawn:
    with open(path, "rb") as file, open_clip(file, "film") as clip:
        return redraw(clip, output, change, Silent())


def alike(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> bool:
    """But for what a codec loses."""
    return len(first) == len(second) and all(
        a.shape == b.shape and np.abs(a.astype(int) - b).mean() < 4
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov"])
def test_frames_come_in_order(tmp_path: Path, suffix: str) -> None:
    found = frames(film(tmp_path / f"film{suffix}"))
    assert alike([frame.pixels for frame in found], [picture(number) for number in range(10)])
    starts = [frame.start for frame in found]
    assert starts == sorted(set(starts))


@pytest.mark.parametrize("numbers", MATRICES.values(), ids=MATRICES)
def test_frames_are_turned_as_the_file_says(tmp_path: Path, numbers: tuple[int, int, int, int]) -> None:
    """Red is shown where the file says; as players do, `ffplay` and `frame.rotation` among them."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, :32] = (200, 0, 0)
    path = film(tmp_path / "film.mp4", [pixels] * 2, matrix=matrix(*numbers))
    shown = frames(path)[0].pixels
    a, b, c, d = numbers
    assert shown.shape == ((64, 48, 3) if b else (48, 64, 3))
    left, top = (a or c) > 0, (d or b) > 0
    red = np.argwhere(shown[..., 0] > 120).mean(0) / shown.shape[:2]
    assert bool(red[0] < 0.5) == top
    assert bool(red[1] < 0.5) == left


def test_a_turned_film_is_written_upright_with_its_pixels_shape(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", matrix=matrix(0, 1, -1, 0), shape=Fraction(4, 3))
    copied(path, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (48, 64)
        assert stream.sample_aspect_ratio == Fraction(3, 4)
        assert next(container.decode(stream)).rotation == 0


@given(st.lists(st.sampled_from([-65536, 0, 65536]), min_size=4, max_size=4))
def test_turning_keeps_every_pixel(numbers: list[int]) -> None:
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    turned, swaps = turn(np.array([[*numbers[:2], 0], [*numbers[2:], 0], [0, 0, 1]], np.int32))
    shown = turned(pixels)
    assert shown.shape == ((3, 2, 3) if swaps else (2, 3, 3))
    assert sorted(map(tuple, shown.reshape(-1, 3))) == sorted(map(tuple, pixels.reshape(-1, 3)))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".m4v"])
def test_times_and_sound_stay(tmp_path: Path, suffix: str) -> None:
    path = film(tmp_path / "film.mp4", starts=UNEVEN, sound="aac")
    output = tmp_path / f"out{suffix}"
    done = copied(path, output)
    before, after = seen(path), seen(output)
    assert alike(before.frames, after.frames)
    # Sound may begin before 0, which MKV cannot hold: there everything is later by the same time.
    later = after.starts[0] if suffix == ".mkv" else 0.0
    assert later < 0.1
    assert np.allclose(before.starts, np.subtract(after.starts, later), atol=2e-3)
    assert before.starts[5] - before.starts[4] == pytest.approx(0.7)
    assert after.ends - later == pytest.approx(before.ends, abs=2e-3)
    assert after.sound == before.sound != []
    assert (done.frames, done.lost, done.cut_short) == (10, [], None)
    assert done.seconds == pytest.approx(before.ends)


def test_sound_that_a_format_cannot_hold_is_one_note(tmp_path: Path) -> None:
    path = film(tmp_path / "film.avi", codec="mpeg4", sound="pcm_mulaw")
    done = copied(path, tmp_path / "out.mp4")
    assert done.lost == ["sound left out: mp4 cannot hold pcm_mulaw"]
    assert alike(seen(path).frames, seen(tmp_path / "out.mp4").frames)
    assert copied(path, tmp_path / "out.mov").lost == []
    assert seen(tmp_path / "out.mov").sound == seen(path).sound


def test_odd_sizes_are_padded_with_the_edge(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4")
    copied(path, tmp_path / "out.mp4", lambda pixels: np.full((33, 21, 3), (200, 30, 90), np.uint8))
    assert alike(seen(tmp_path / "out.mp4").frames, [np.full((34, 22, 3), (200, 30, 90), np.uint8)] * 10)


@given(st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_padding(height: int, width: int, gray: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, *([] if gray else [3])), np.uint8)
    even = padded(pixels)
    assert even.shape[:2] == (height + height % 2, width + width % 2)
    assert np.array_equal(even[:height, :width], pixels)
    assert np.array_equal(even[-1, -1], pixels[-1, -1])


def test_gray_frames_are_a_film_too(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4")
    copied(path, tmp_path / "out.mp4", lambda pixels: pixels[..., 0])
    assert alike(
        seen(tmp_path / "out.mp4").frames, [picture(number)[..., :1].repeat(3, 2) for number in range(10)]
    )


def test_frames_are_not_kept(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", [picture(number % 10) for number in range(40)])
    made: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []

    def change(pixels: np.ndarray) -> np.ndarray:
        alive.append(sum(reference() is not None for reference in made))
        made.append(weakref.ref(pixels))
        return pixels

    copied(path, tmp_path / "out.mp4", change)
    assert len(made) == 40
    assert max(alive) <= 1


@pytest.mark.parametrize("name", ["film.mkv", "film.avi", "film.mp4"])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.9])
def test_a_film_cut_off_gives_what_is_there(tmp_path: Path, name: str, share: float) -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (10, 48, 64, 3), np.uint8)
    whole = film(tmp_path / name, list(noisy), options={"movflags": "faststart"} if "mp4" in name else None)
    data = whole.read_bytes()
    (tmp_path / "cut").write_bytes(data[: int(len(data) * share)])
    done = copied(tmp_path / "cut", tmp_path / "out.mp4")
    assert done.cut_short is not None
    assert f"film: the clip breaks off after {done.frames} frames (" in str(done.cut_short)
    assert 2 <= done.frames <= 10 * share
    assert len(seen(tmp_path / "out.mp4").frames) == done.frames


def test_a_film_broken_in_the_middle_ends_there(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (10, 48, 64, 3), np.uint8)
    data = bytearray(film(tmp_path / "film.mp4", list(noisy)).read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 4] = bytes(len(data) // 4)
    (tmp_path / "broken.mp4").write_bytes(data)
    with open(tmp_path / "broken.mp4", "rb") as file, open_clip(file, "film") as clip:
        with pytest.raises(CutShort, match="breaks off after"):
            list(clip.pictures())
        assert 2 <= clip.frames <= 6


def test_a_file_that_only_mostly_fits_is_whole(tmp_path: Path) -> None:
    """A film whose sound lasts longer than its pictures has nothing missing."""
    path = film(tmp_path / "film.mkv", [picture(0)] * 3, [0, 1, 30], sound="aac")
    assert copied(path, tmp_path / "out.mkv").cut_short is None
    assert seen(tmp_path / "out.mkv").sound == seen(path).sound


def test_what_is_no_clip_is_one_line(tmp_path: Path) -> None:
    sound = sound_alone(tmp_path / "sound.mp4")
    empty = film(tmp_path / "empty.mkv", [], sound="aac")
    text = tmp_path / "text.mp4"
    text.write_text("no film")
    for path, message in (
        (sound, "film: no clip: there is only sound in it"),
        (empty, "film: no frame can be decoded: there is none in its stream"),
        (text, "film: no clip that can be read: invalid data .* [(]damaged, or cut off[)]"),
    ):
        with pytest.raises(CompressnetError, match=f"^{message}$"):
            copied(path, tmp_path / "out.mp4")


def test_a_list_of_other_files_is_not_followed(tmp_path: Path) -> None:
    film(tmp_path / "secret.mp4")
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:10", "#EXTINF:10,", f"file://{tmp_path}/secret.mp4"]
    (tmp_path / "list.mp4").write_text("\n".join([*lines, "#EXT-X-ENDLIST", ""]))
    (tmp_path / "other.mp4").write_text(f"ffconcat version 1.0\nfile {tmp_path}/secret.mp4\n")
    for name in ("list.mp4", "other.mp4"):
        with pytest.raises(CompressnetError, match="no clip that can be read"):
            frames(tmp_path / name)


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "film.mp4")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(
        CompressnetError, match=r"^film: clips need PyAV: .*pip install 'compressnet\[video\]'"
    ):
        frames(path)


def test_a_full_disk_is_the_systems_error(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4")
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    link = tmp_path / "out.mkv"
    link.symlink_to(full)
    with pytest.raises(OSError, match="No space left"):
        copied(path, link)


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressnetError, match="cannot write clips in this format; use one of .mp4"):
        copied(film(tmp_path / "film.mp4"), tmp_path / "out.avi")


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real clips here")
@pytest.mark.parametrize("name", ["misc/realshort.mp4", "ucf101/v_ApplyEyeMakeup_g01_c01.avi"])
def test_real_clips_keep_frames_length_and_sound(tmp_path: Path, name: str) -> None:
    """The second stores pictures in the order of decoding."""
    copied(SHARED / name, tmp_path / "out.mp4", lambda pixels: pixels[::4, ::4])
    before, after = seen(SHARED / name), seen(tmp_path / "out.mp4")
    assert len(after.frames) == len(before.frames)
    assert after.ends == pytest.approx(max(before.starts) + 0.04, abs=0.01)
    assert np.allclose(after.starts, sorted(before.starts), atol=2e-3)
    assert after.sound == before.sound != []


def test_titles_need_not_be_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    film(path)
    data = path.read_bytes()
    place = data.index(b"Lavf")  # the program that wrote it
    path.write_bytes(data[:place] + b"\xff\xfe" + data[place + 2 :])
    with path.open("rb") as file, open_clip(file, "a.mkv") as clip:
        assert len(list(clip.pictures())) > 0
