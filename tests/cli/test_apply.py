"""`apply` on the files that people have: every mode comes back as it was; names as the writer promises."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageCms

from compressnet.data.images import Image, read_image, write_image
from tests.cli.conftest import Cli, save
from tests.conftest import ROOT

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(params=["operator:rof:weight=0.1,max_iterations=20", "run"])
def subject(request: pytest.FixtureRequest, smoke_run: Path) -> str:
    """A classical operator and a network."""
    return str(smoke_run) if request.param == "run" else str(request.param)


def test_every_mode_comes_back_as_it_was(cli: Cli, place: Path, subject: str) -> None:
    rng = np.random.default_rng(1)
    ramp = np.linspace(0, 1, 12 * 10, dtype=np.float32).reshape(12, 10, 1)
    alpha = rng.random((12, 10)).astype(np.float32)
    colour = ramp.repeat(3, axis=2)
    pictures = {
        "rgb.png": Image(colour, icc=PROFILE),
        "gray.png": Image(ramp),
        "rgba.png": Image(colour, alpha=alpha),
        "gray_alpha.png": Image(ramp, alpha=alpha),
        "deep.png": Image(colour, bits=16, icc=PROFILE),
        "deep_gray.tif": Image(ramp, bits=16),
        "one.png": Image(colour[:1, :1]),
        "photo.jpg": Image(colour, icc=PROFILE),
        "photo.webp": Image(colour, alpha=alpha),
        "photo.bmp": Image(colour),
    }
    (place / "in").mkdir()
    for name, picture in pictures.items():
        write_image(picture, place / "in" / name)
    cli("apply", subject, "in", "-o", "out")
    for name in pictures:
        before, after = read_image(place / "in" / name), read_image(place / "out" / name)
        assert after.pixels.shape == before.pixels.shape, name
        assert (after.bits, after.icc) == (before.bits, before.icc), name
        assert (after.alpha is None) == (before.alpha is None), name
        if before.alpha is not None and after.alpha is not None:
            assert np.array_equal(after.alpha, before.alpha), name
    if subject.startswith("operator"):
        from compressnet.operators.rof import ROF

        source = read_image(place / "in" / "deep.png").pixels
        made = read_image(place / "out" / "deep.png").pixels
        assert np.abs(made - ROF(weight=0.1, max_iterations=20)(source)).max() < 1 / 65535
        assert np.abs(made - source).max() > 1e-3


def test_a_photograph_of_a_camera_is_turned_upright_once(cli: Cli, place: Path) -> None:
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255  # white on the left; orientation 6 turns that to the top
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.fromarray(pixels).save(place / "camera.jpg", exif=exif, icc_profile=PROFILE, quality=95)
    cli("apply", "operator:l0", "camera.jpg", "-o", "out.jpg")
    with Pillow.open(place / "out.jpg") as out:
        assert out.size == (16, 32)
        assert out.getexif().get(0x0112, 1) == 1
        assert out.info["icc_profile"] == PROFILE
        upper, lower = np.asarray(out.convert("L"))[4].mean(), np.asarray(out.convert("L"))[28].mean()
    assert upper > 250
    assert lower < 5


def test_cmyk_becomes_rgb(cli: Cli, place: Path) -> None:
    Pillow.new("CMYK", (8, 8), (0, 255, 255, 0)).save(place / "print.jpg")
    cli("apply", "operator:rof", "print.jpg", "-o", "out.png")
    out = read_image(place / "out.png")
    assert out.pixels.shape == (8, 8, 3)
    assert out.pixels[4, 4, 0] > 0.9
    assert out.pixels[4, 4, 1] < 0.3


def test_names_and_folders(cli: Cli, photo: Path) -> None:
    save(photo.parent / "album" / "a.png")
    save(photo.parent / "album" / "deep" / "b.jpg")
    (photo.parent / "album" / "notes.txt").write_text("no picture")
    done = cli("apply", "operator:rof", photo, "album", "-o", "out")
    files = {str(path.relative_to("out")) for path in Path("out").rglob("*") if path.is_file()}
    assert files == {"photo.png", "a.png", "deep/b.jpg"}
    assert sorted(done.stdout.split()) == sorted(f"out/{name}" for name in files)
    assert not done.errors
    cli("apply", "operator:rof", photo, "-o", "new/folder/out.webp")
    assert Path("new/folder/out.webp").is_file()
    cli("apply", "operator:rof", photo, "-o", "out", code=1)
    cli("apply", "operator:rof", photo, "-o", "out", "--force")


def test_json_and_what_a_format_cannot_hold(cli: Cli, place: Path) -> None:
    shade = np.full((4, 4, 3), 0.5, np.float32)
    write_image(Image(shade, bits=16, alpha=shade[..., 0]), place / "deep.png")
    done = cli("apply", "operator:rof", "deep.png", "-o", "flat.jpg", "--json")
    report = json.loads(done.stdout)
    assert report["files"][0]["output"] == "flat.jpg"
    assert report["smoke"] is False
    assert len(report["files"][0]["lost"]) == 2  # depth and transparency
    assert done.stderr.count("warning: flat.jpg: ") == 2


def test_options_of_the_subject(cli: Cli, photo: Path, smoke_run: Path) -> None:
    listed = json.loads(cli("apply", smoke_run, "--options", "--json").stdout)
    assert {"dtype", "max_memory"} <= set(listed)
    assert "bfloat16" in cli("apply", smoke_run, "--options").stdout
    cli("apply", smoke_run, photo, "-o", "plain.png", "--set", "dtype=float32")
    cli("apply", smoke_run, photo, "-o", "small.png", "--max-memory", "1")
    plain, small = (read_image(path).pixels for path in ("plain.png", "small.png"))
    assert np.abs(plain - small).max() <= 1 / 255


def test_a_smoke_run_and_its_bare_weights_say_so(cli: Cli, photo: Path, smoke_run: Path) -> None:
    shutil.copy(smoke_run / "checkpoints" / "step-8" / "model.safetensors", "bare.safetensors")
    for index, subject in enumerate([f"{smoke_run}@step-8", "bare.safetensors"]):
        assert "smoke run" in cli("apply", subject, photo, "-o", f"{index}.png").stderr
    assert Path("0.png").read_bytes() == Path("1.png").read_bytes()


def test_what_is_not_applicable_is_refused(cli: Cli, photo: Path) -> None:
    for subject in ("fip_sample", "can24"):
        assert "give a run, weights" in cli("apply", subject, photo, "-o", "out.png", code=2).error


def test_a_bad_picture_does_not_stop_the_others(cli: Cli, place: Path) -> None:
    folder = place / "mixed"
    folder.mkdir()
    for name in ("a.png", "c.png"):
        Pillow.new("RGB", (20, 20), "gray").save(folder / name)
    (folder / "b.png").write_text("no picture")
    done = cli("apply", "operator:rof", folder, "-o", "mixed_out", code=1)
    assert "b.png" in done.error
    assert sorted(path.name for path in Path("mixed_out").iterdir()) == ["a.png", "c.png"]
    (folder / "b.png").unlink()
    Pillow.new("RGB", (20, 20), "gray").save(folder / "b.png")
    Path("mixed_out/a.png").write_bytes(b"mine")
    again = cli("apply", "operator:rof", folder, "-o", "mixed_out", "--skip-existing")
    assert again.stdout == "mixed_out/b.png\n"
    assert Path("mixed_out/a.png").read_bytes() == b"mine"


def test_an_input_that_is_missing_does_not_stop_the_others(cli: Cli, photo: Path) -> None:
    (photo.parent / "empty").mkdir()
    done = cli("apply", "operator:rof", "none.png", photo, "empty", "-o", "out", "--json", code=1)
    assert done.errors == ["none.png: no such file or folder", "empty: no images or clips in this folder"]
    report = json.loads(done.stdout)
    assert [row["output"] for row in report["files"]] == ["out/photo.png"]
    assert [row["input"] for row in report["failed"]] == ["none.png", "empty"]


def test_what_is_written_as_png_keeps_its_own_name_beside_one(cli: Cli, place: Path) -> None:
    for name in ("cat.gif", "cat.png", "dog.gif", "dog.tga"):
        save(place / "album" / name)
    cli("apply", "operator:rof", "album", "-o", "out")
    written = sorted(path.name for path in Path("out").iterdir())
    assert written == ["cat.gif.png", "cat.png", "dog.png", "dog.tga.png"]


def test_all_results_that_exist_are_counted(cli: Cli, place: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        save(place / "album" / name)
    for name in ("a.png", "b.png"):
        save(place / "out" / name)
    error = cli("apply", "operator:rof", "album", "-o", "out", code=1).error
    assert error.startswith("out/a.png exists: add --force to overwrite it (and 1 more)")
    assert "--skip-existing" in error
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png"]


def test_a_picture_of_a_kind_that_is_not_read_says_what_to_do(cli: Cli, place: Path) -> None:
    (place / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    error = cli("apply", "operator:rof", "a.heic", "-o", "out.png", code=1).error
    assert error == "a.heic: .heic is not read here; convert it to TIFF (or, raw, to DNG)"


def test_a_missing_output_is_answered_by_the_line_to_type(cli: Cli, place: Path) -> None:
    one = cli("apply", "zoo:rof", "my photo.jpg", code=2).error
    assert one.endswith("as in: compressnet apply zoo:rof 'my photo.jpg' -o 'my photo_out.jpg'")
    two = cli("apply", "zoo:rof", "a.jpg", "b.jpg", code=2).error
    assert two.endswith("as in: compressnet apply zoo:rof a.jpg b.jpg -o out")


def test_shards_share_a_folder(cli: Cli, place: Path) -> None:
    for name in "abcdefg":
        save(place / "album" / f"{name}.png")
    done = [
        json.loads(cli("apply", "operator:rof", "album", "-o", "out", "--shard", f"{k}/3", "--json").stdout)
        for k in (1, 2, 3)
    ]  # none minds what the others have written
    names = [[Path(row["input"]).stem for row in report["files"]] for report in done]
    assert names == [["a", "d", "g"], ["b", "e"], ["c", "f"]]
    Path("out/e.png").unlink()
    words = ["album", "-o", "out", "--shard", "2/3"]
    assert "out/b.png exists" in cli("apply", "operator:rof", *words, code=1).error
    again = cli("apply", "operator:rof", *words, "--skip-existing")
    assert again.stdout == "out/e.png\n"  # counted before what exists is left out
    assert json.loads(cli("apply", "operator:rof", *words[:-1], "9/9", "--json").stdout)["files"] == []
    one = cli("apply", "operator:rof", "album/a.png", "-o", "one.png", "--shard", "2/3")
    assert "no input falls to shard 2/3" in one.stderr
    both = cli("apply", "operator:rof", "album", "-o", "out", "--force", "--skip-existing", code=2).error
    assert both == "--force and --skip-existing: choose one"
    for wrong in ("0/3", "4/3", "3", "a/b", "1/", "-1/3"):
        assert (
            f"--shard {wrong}: write it as K/N"
            in cli("apply", "operator:rof", *words[:-2], f"--shard={wrong}", code=2).error
        )


def test_shards_of_texts(cli: Cli, place: Path) -> None:
    network = ROOT / "tests" / "fixtures" / "v0.1.0" / "text.safetensors"
    for name in ("c.txt", "a.txt", "b.txt"):
        (place / name).write_text("the cat sat on the mat\n")
    report = cli("apply", network, "c.txt", "a.txt", "b.txt", "--shard", "1/2", "--json")
    assert [row["input"] for row in json.loads(report.stdout)["files"]] == ["c.txt", "a.txt"]
    wrong = cli("apply", network, "--prompt", "the", "--shard", "1/2", code=2).error
    assert wrong == "--shard: it is for files, each of which has a result of its own"


def test_a_pipe_in_and_a_pipe_out(photo: Path, environment: dict[str, str], forked: Path) -> None:
    def run(words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [str(forked), "apply", "operator:rof", *words.split()]
        return subprocess.run(
            command, cwd=photo.parent, env=environment, input=data, capture_output=True, check=False
        )

    Pillow.open(photo).save(photo.parent / "photo.jpg", quality=95)
    assert run("photo.jpg -o file.png").returncode == 0
    made = (photo.parent / "file.png").read_bytes()
    jpeg = (photo.parent / "photo.jpg").read_bytes()
    for words, data in (("photo.jpg -o -", b""), ("- -o -", jpeg)):
        done = run(words, data)
        assert (done.returncode, done.stdout) == (0, made), done.stderr
    assert run("- -o piped", jpeg).stdout == b"piped/stdin.png\n"
    assert (photo.parent / "piped" / "stdin.png").read_bytes() == made
    for words, data, code, message in (
        ("- -o -", b"", 1, b"-: nothing was piped in"),
        ("- -o out.png", b"no picture", 1, b"-: not an image in any format known here"),
        ("photo.jpg photo.png -o -", b"", 2, b"-o -: it takes one result, and there are 2 inputs"),
        ("- - -o out", jpeg, 2, b"- is named twice"),
        ("- -o - --json", jpeg, 2, b"both are written to stdout; choose one"),
        ("-", jpeg, 2, b"name the output, as in: compressnet apply operator:rof - -o -"),
    ):
        done = run(words, data)
        assert (done.returncode, done.stdout) == (code, b""), done.stderr
        assert message in done.stderr
    assert sorted(path.name for path in photo.parent.iterdir()) == [
        *("file.png", "photo.jpg", "photo.png", "piped"),
    ]


def test_several_inputs_need_a_folder(cli: Cli, photo: Path) -> None:
    for inputs in ([photo, photo.parent], [photo.parent]):
        error = cli("apply", "operator:rof", *inputs, "-o", "out.png", code=2).error
        assert error == "out.png: several inputs need an output folder: -o out"


def test_json_and_a_picture_do_not_share_stdout(
    photo: Path, environment: dict[str, str], forked: Path
) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[bytes]:
        command = [str(forked), "apply", "operator:rof", str(photo), "-o", "/dev/stdout", *words]
        return subprocess.run(command, cwd=photo.parent, env=environment, capture_output=True, check=False)

    picture = run()
    assert picture.stdout.startswith(b"\x89PNG")
    refused = run("--json")
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert b"--json and -o /dev/stdout: both are written to stdout" in refused.stderr


@pytest.mark.parametrize(
    "words", [["apply", "operator:rof", "", "-o", "out"], ["apply", "operator:rof", ".", "-o", ""]]
)
def test_an_empty_argument_is_no_folder(cli: Cli, photo: Path, words: list[str]) -> None:
    assert cli(*words, code=2).error == "an argument is empty: a variable of the shell that is not set?"
    assert sorted(path.name for path in photo.parent.iterdir()) == ["photo.png"]


def test_a_pipe_is_no_picture(cli: Cli, place: Path) -> None:
    os.mkfifo(place / "a.png")
    error = cli("apply", "operator:rof", "a.png", "-o", "out.png", code=1).error
    assert error == "a.png: is no plain file: write its content to one first"


def test_a_file_whose_name_is_a_hyphen(cli: Cli, photo: Path) -> None:
    photo.rename(photo.parent / "-")
    assert cli("apply", "operator:rof", "./-", "-o", "y.png").stdout == "y.png\n"
    Path("./-").unlink()
    save(photo.parent / "a.png")
    assert cli("apply", "operator:rof", "a.png", "-o", "./-").stdout == "-/a.png\n"


def test_a_result_whose_name_is_too_long_stops_no_other(cli: Cli, place: Path) -> None:
    long = "x" * 251
    for name in ("a.png", f"{long}.gif", f"{long}.png", "z.png"):
        save(place / "album" / name)
    done = cli("apply", "operator:rof", "album", "-o", "out", "--json", code=1)
    assert "File name too long" in done.error
    assert [Path(row["output"]).name for row in json.loads(done.stdout)["files"]] == [
        *("a.png", f"{long}.png", "z.png"),
    ]


def test_private_results_stay_private_while_they_are_written(
    cli: Cli, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(photo.parent / "mine.png").chmod(0o600)
    modes = []

    def seen(self: Image, path: Path) -> list[str]:
        modes.append(path.parent.stat().st_mode & 0o777)
        path.write_bytes(b"made")
        return []

    monkeypatch.setattr(Image, "write", seen)
    cli("apply", "operator:rof", photo, "-o", "mine.png", "--force")
    assert modes == [0o700]
    assert Path("mine.png").stat().st_mode & 0o777 == 0o600
