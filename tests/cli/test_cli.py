"""The command line on a small model: what it writes, says and returns, and what it leaves behind."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vqcodec
from tests.conftest import scene
from vqcodec import cli, tiling
from vqcodec.cli import commands, completion, names
from vqcodec.cli.arguments import parser
from vqcodec.cli.screen import Failure, progress_line
from vqcodec.codec.options import DecodeOptions, EncodeOptions
from vqcodec.format import container
from vqcodec.format.limits import Limits
from vqcodec.model import file as model_file
from vqcodec.tools import demo, files

COMMAND = [sys.executable, "-m", "vqcodec"]


@pytest.fixture(scope="module")
def model(small_model, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("cli") / "model.safetensors"
    model_file.save(path, small_model.config, small_model.tensors)
    return str(path)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working folder with one image in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(vqcodec.__file__).parent.parent))  # for separate processes
    Image.fromarray(scene(40, 56)).save("photo.png")
    return tmp_path


@pytest.fixture
def run(model, capsys):
    """Runs the command with the small model; returns exit status, standard output and error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        takes_model = arguments[0] in ("compress", "decompress", "sample", "demo", "verify", "compare")
        status = cli.main([*arguments, *(["--model", model] if takes_model else [])])
        return status, *capsys.readouterr()

    return run


def files_in(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


# -- the main road -----------------------------------------------------------------------


def test_compress_and_decompress(run, folder, model):
    status, out, err = run("compress", "photo.png", "-q", "70")
    assert (status, out) == (0, "")
    data = Path("photo.vqc").read_bytes()
    assert data == vqcodec.compress("photo.png", quality=70, model=model)
    assert re.fullmatch(
        rf"photo\.vqc: 56 x 40, {len(data):,} bytes, {8 * len(data) / 2240:.3f} bits per pixel, \d+\.\d\d s\n", err
    )
    status, out, err = run("decompress", "photo.vqc", "back.png")
    assert (status, out) == (0, "")
    assert re.match(rf"back\.png: 56 x 40, from {len(data):,} bytes, ", err)
    assert np.array_equal(np.asarray(Image.open("back.png")), np.asarray(vqcodec.decompress(data, model=model)))
    assert files_in(folder) == {"photo.png", "photo.vqc", "back.png"}


def test_default_names_and_quiet(run, folder):
    assert run("compress", "photo.png", "--quiet") == (0, "", "")
    os.remove("photo.png")
    assert run("decompress", "photo.vqc", "--quiet") == (0, "", "")
    assert files_in(folder) == {"photo.png", "photo.vqc"}


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "avif", "bmp", "tiff", "PNG"])
def test_extension_chooses_the_format(run, folder, extension):
    run("compress", "photo.png")
    assert run("decompress", "photo.vqc", f"back.{extension}")[0] == 0
    image = Image.open(f"back.{extension}")
    assert image.size == (56, 40)
    assert image.format == {"jpg": "JPEG"}.get(extension, extension.upper())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("options, parts", [
    ([], {}), (["--region", "3,5,50,38"], {"region": (3, 5, 50, 38)}), (["--scale", "4"], {"scale": 4}), (["--maps", "1"], {"maps": 1}),
])  # fmt: skip
def test_strips_are_what_pillow_writes(run, folder, model, monkeypatch, kind, options, parts):
    """PPM and PGM, which are written as they are decoded; several strips here."""
    monkeypatch.setattr(tiling, "AREA", 16)
    Image.open("photo.png").convert(kind).save("given.png")
    run("compress", "given.png", "photo.vqc")
    status, _, err = run("decompress", "photo.vqc", "back.ppm", *options)
    assert status == 0 and ("PPM cannot store an alpha" in err) == (kind == "RGBA")
    expected = io.BytesIO()
    vqcodec.decompress("photo.vqc", model=model, **parts).convert("L" if kind == "L" else "RGB").save(expected, "PPM")
    assert Path("back.ppm").read_bytes() == expected.getvalue()


def test_strips_of_a_damaged_file(run, folder, monkeypatch):
    """Checked before anything is written; a later failure leaves nothing; --partial gives the coarser image."""
    run("compress", "photo.png", "-q", "90")
    data = bytearray(Path("photo.vqc").read_bytes())
    at = [c["offset"] for c in vqcodec.info(bytes(data))["chunks"] if c["tag"] == "M"][2] + 4
    data[at] ^= 1
    Path("bad.vqc").write_bytes(data)
    status, _, err = run("decompress", "bad.vqc", "back.ppm")
    assert status == 1 and one_line(err) and "map 2: CRC-32" in err
    status, _, err = run("decompress", "--maps", "3", "bad.vqc", "back.ppm")
    assert status == 1 and one_line(err) and "map 2: CRC-32" in err
    assert files_in(folder) == {"photo.png", "photo.vqc", "bad.vqc"}
    status, _, err = run("decompress", "--partial", "bad.vqc", "back.ppm")
    assert status == 0 and "not complete: map 2: " in err and Image.open("back.ppm").size == (56, 40)


def test_limits(run, folder):
    assert run("compress", "photo.png", "--max-pixels", "3072")[0] == 0  # of 64 x 48 with padding
    for arguments, message in [
        (["compress", "-f", "photo.png", "--max-pixels", "2239"], "at most 2239 pixels are allowed, found 56 x 40"),
        (["decompress", "photo.vqc", "x.png", "--max-pixels", "2k"], "at most 2000 pixels"),
        (["decompress", "photo.vqc", "x.png", "--max-memory", "1k"], "at most 1000 bytes of memory"),
        (["decompress", "photo.vqc", "x.ppm", "--max-memory", "1k"], "at most 1000 bytes of memory"),
        (["decompress", "photo.vqc", "x.png", "--max-chunks", "3"], "at most 3 chunks"),
        (["decompress", "photo.vqc", "x.png", "--max-map-bytes", "1"], "at most 1 bytes"),
        (["verify", "photo.vqc", "--max-memory", "100"], "at most 100 bytes of memory"),
        (["info", "photo.vqc", "--max-chunks", "3"], "at most 3 chunks"),
    ]:  # fmt: skip
        status, _, err = run(*arguments)
        assert status == 1 and one_line(err) and message in err
    assert run("decompress", "photo.vqc", "x.png", "--max-memory", "1G", "--max-metadata", "1")[0] == 0


@pytest.mark.slow
def test_our_limit_takes_the_place_of_pillows(run, folder, monkeypatch):
    """Also in separate processes."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    status, _, err = run("compress", "photo.png")
    assert status == 0 and "bomb" not in err
    Image.fromarray(scene(16, 16)).save("small.png")
    status, _, err = run("compress", "photo.png", "small.png", "-o", "out/", "-j", "2", "--max-pixels", "256")
    assert status == 1 and "at most 256 pixels" in err and os.listdir("out") == ["small.vqc"]


def test_metadata_and_alpha_reach_the_file(run, folder):
    picture = np.dstack([scene(30, 30), np.arange(900, dtype=np.uint8).reshape(30, 30)])
    Image.fromarray(picture).save("alpha.png", icc_profile=b"profile")
    run("compress", "alpha.png")
    run("decompress", "alpha.vqc", "back.png")
    back = Image.open("back.png")
    assert back.info["icc_profile"] == b"profile"
    assert np.array_equal(np.asarray(back)[..., 3], picture[..., 3])
    status, _, err = run("decompress", "alpha.vqc", "back.jpg")
    assert status == 0 and "warning: JPEG cannot store an alpha" in err
    assert Image.open("back.jpg").mode == "RGB"


def test_class_by_name_and_number(run, folder):
    assert run("compress", "photo.png", "a.vqc", "--class", "dog")[0] == 0
    assert run("compress", "photo.png", "b.vqc", "--class", "2")[0] == 0
    assert Path("a.vqc").read_bytes() == Path("b.vqc").read_bytes()
    status, _, err = run("compress", "photo.png", "c.vqc", "--class", "cow")
    assert status == 1 and "unknown class 'cow'" in err and "cat, dog, owl" in err


def test_threads_change_nothing(run, folder):
    for n in ("1", "2"):
        assert run("compress", "photo.png", f"{n}.vqc", "--threads", n)[0] == 0
    assert Path("1.vqc").read_bytes() == Path("2.vqc").read_bytes()


@pytest.mark.slow
def test_sample_on_a_grid(run, folder, model):
    status, out, err = run("sample", "owl", "-n", "3", "--seed", "1", "--size", "48x32", "-o", "s.png")
    assert (status, out) == (0, "")
    assert "s.png: 100 x 68" in err and "3 drawn in" in err
    expected = vqcodec.sample("owl", 3, size=(48, 32), seed=1, model=model)
    assert np.array_equal(np.asarray(Image.open("s.png"))[:32, :48], np.asarray(expected[0]))
    first = Path("s.png").read_bytes()
    run("sample", "owl", "-n", "3", "--seed", "1", "--size", "48x32", "-o", "s.png", "-f")
    assert Path("s.png").read_bytes() == first


def test_sample_into_numbered_files(run, folder):
    assert (
        run("sample", "0", "-n", "2", "--size", "32x32", "--temperature", "0.5", "--top-p", "0.9", "-o", "s%d.png")[0]
        == 0
    )
    assert files_in(folder) == {"photo.png", "s0.png", "s1.png"}
    assert Path("s0.png").read_bytes() != Path("s1.png").read_bytes()


def test_info(run, folder, model):
    run("compress", "photo.png")
    data = Path("photo.vqc").read_bytes()
    status, out, err = run("info", "photo.vqc")
    assert (status, err) == (0, "")
    for line in ("width +56", "height +40", "quality +50", "alpha +no", "metadata +none", r"  map 0 +\d+ bytes at"):
        assert re.search(f"^{line}", out, re.MULTILINE), line
    status, out, err = run("info", "photo.vqc", "--json")
    assert json.loads(out) == container.describe(data) == vqcodec.info(data)


@pytest.mark.slow
def test_demo(run, folder, monkeypatch):
    small = folder / "small.webp"
    Image.open(demo.PHOTO).resize((90, 60)).save(small, lossless=True)
    monkeypatch.setattr(demo, "PHOTO", small)
    status, out, err = run("demo", "-o", "pictures")
    assert (status, err) == (0, "")
    table = re.findall(r"^ +(\d+) +([\d,]+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", out, re.MULTILINE)
    assert [int(row[0]) for row in table] == list(demo.QUALITIES)
    for quality, size, *_ in table:
        assert int(size.replace(",", "")) == os.path.getsize(f"pictures/photo_q{quality}.vqc")
    assert {"sample_cat.png", "sample_dog.png", "contact_sheet.png"} <= files_in(folder / "pictures")
    sheet = Image.open("pictures/contact_sheet.png")
    assert sheet.width >= 3 * 90 and sheet.height >= 2 * 60 + 2 * 256


def test_demo_photograph_is_whole():
    image = Image.open(demo.PHOTO)
    image.load()
    assert image.size == (600, 400)
    assert os.path.getsize(demo.PHOTO) < 350_000


# -- many files --------------------------------------------------------------------------


@pytest.fixture
def tree(folder) -> Path:
    """a.png, b.jpg, deep/c.png and files that are not images."""
    Path("in/deep").mkdir(parents=True)
    for i, name in enumerate(["a.png", "b.jpg", "deep/c.png"]):
        Image.fromarray(scene(24 + i, 32, i)).save(f"in/{name}")
    Path("in/notes.txt").write_text("hello")
    return folder


def tree_of(folder: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def test_many_files_and_folders(run, tree):
    status, out, err = run("compress", "-r", "in", "photo.png", "-o", "out/", "--jobs", "1", "-q", "70")
    assert (status, out) == (0, "") and err.count("\n") == 4
    assert tree_of("out") == {"a.vqc", "b.vqc", "deep/c.vqc", "photo.vqc"}
    assert re.search(r"^out/deep/c\.vqc: 32 x 26, [\d,]+ bytes, [\d.]+ bits per pixel, [\d.]+ s$", err, re.MULTILINE)
    assert vqcodec.info(Path("out/a.vqc").read_bytes())["quality"] == 70
    assert run("decompress", "out", "--jobs", "1", "--quiet") == (0, "", "")  # next to the inputs, and not into folders
    assert tree_of("out") == {"a.vqc", "b.vqc", "deep/c.vqc", "photo.vqc", "a.png", "b.png", "photo.png"}


@pytest.mark.slow
def test_processes(run, tree):
    assert run("compress", "in", "photo.png", "-o", "out/", "--jobs", "2", "--quiet") == (0, "", "")
    for name in ("in/a.png", "in/b.jpg", "photo.png"):
        assert run("compress", name, "one.vqc", "--quiet", "-f")[0] == 0
        assert Path("out", Path(name).stem + ".vqc").read_bytes() == Path("one.vqc").read_bytes()


def test_templates(run, tree):
    assert run("compress", "in", "photo.png", "-j1", "-o", "z/{parent}/{stem}-{name}.vqc")[0] == 0
    assert tree_of("z") == {"in/a-a.png.vqc", "in/b-b.jpg.vqc", "photo-photo.png.vqc"}
    assert run("decompress", "z/in", "-j1", "-o", "{stem}.webp")[0] == 0
    assert Image.open("a-a.png.webp").format == "WEBP"


@pytest.mark.parametrize(
    ("command", "given", "output", "expected"),
    [
        ("compress", ["photo.png", "x.vqc"], None, [("photo.png", "x.vqc")]),
        ("compress", ["photo.png", "x.VQC"], None, [("photo.png", "x.VQC")]),
        ("compress", ["photo.png", "-"], None, [("photo.png", "-")]),
        ("compress", ["-"], None, [("-", "-")]),
        ("compress", ["-"], "x", [("-", "x")]),
        ("compress", ["photo.png", "x.png"], None, [("photo.png", "photo.vqc"), ("x.png", "x.vqc")]),
        (
            "compress",
            ["photo.png", "in"],
            None,
            [("photo.png", "photo.vqc"), ("in/a.png", "in/a.vqc"), ("in/b.jpg", "in/b.vqc")],
        ),
        ("compress", ["photo.png"], "new/", [("photo.png", "new/photo.vqc")]),
        ("compress", ["photo.png"], "in", [("photo.png", "in/photo.vqc")]),
        ("compress", ["photo.png"], "x", [("photo.png", "x")]),
        ("compress", ["in/a.png", "x.vqc"], "{stem}", [("in/a.png", "a"), ("x.vqc", "x")]),
        ("decompress", ["a.vqc", "x.png"], None, [("a.vqc", "x.png")]),
        ("decompress", ["a.vqc", "b.vqc"], None, [("a.vqc", "a.png"), ("b.vqc", "b.png")]),
        ("decompress", ["a.vqc", "b", "c"], None, [("a.vqc", "a.png"), ("b", "b.png"), ("c", "c.png")]),
        ("decompress", ["-", "-"], None, [("-", "-")]),
        ("decompress", ["a.vqc"], "new/", [("a.vqc", "new/a.png")]),
    ],
)
def test_which_names_are_outputs(tree, command, given, output, expected):
    assert names.pairs(given, output, {"compress": ".vqc", "decompress": ".png"}[command], recursive=False) == expected


@pytest.mark.parametrize(
    ("given", "output", "message"),
    [
        (["a.png", "b.png"], "x.vqc", "x.vqc is one file for 2 inputs"),
        (["in"], "x.vqc", "x.vqc is one file for 2 inputs"),
        (["-", "a.png"], None, "must be the only input"),
        (["-"], "new/", "standard input has no name"),
    ],
)
def test_outputs_that_make_no_sense(tree, given, output, message):
    with pytest.raises(Failure, match=message):
        names.pairs(given, output, ".vqc", recursive=False)


def test_one_bad_file_does_not_stop_the_others(run, tree):
    Path("in/a.png").write_text("no image")
    Path("in/photo.gif").write_bytes(Path("photo.png").read_bytes())
    status, out, err = run("compress", "in", "photo.png", "none.png", "-j1", "-o", "out/")
    assert status == 1 and tree_of("out") == {"b.vqc", "photo.vqc"}
    lines = [line for line in err.splitlines() if line.startswith("vqcodec: ")]
    assert len(lines) == 3
    assert "vqcodec: in/a.png: must be an image that Pillow can read, found something else" in lines
    assert "vqcodec: none.png: No such file or directory" in lines
    assert "vqcodec: photo.png: out/photo.vqc is already the output of in/photo.gif" in lines


def test_json(run, tree):
    status, out, err = run("compress", "in/a.png", "none.png", "-j1", "--json")
    found, missing = map(json.loads, out.splitlines())
    assert status == 1 and err == ""
    data = Path("in/a.vqc").read_bytes()
    assert found.pop("seconds") > 0
    assert found == {
        "input": "in/a.png",
        "output": "in/a.vqc",
        "bytes": len(data),
        "width": 32,
        "height": 24,
        "warnings": [],
        "error": None,
    }
    assert missing["input"] == "none.png" and missing["error"] == {
        "type": "FileNotFoundError",
        "message": "none.png: No such file or directory",
    }
    status, out, err = run("compress", "in/a.png", "--json")  # one file: the same
    assert (status, err) == (1, "") and "exists" in json.loads(out)["error"]["message"]
    status, out, err = run("decompress", "in/a.vqc", "-", "--json")
    assert status == 1 and out == "" and "--json and output to -" in err


def test_options_are_passed_on_as_given(folder, monkeypatch):
    """And only those that are given."""
    seen = []
    monkeypatch.setattr(commands, "_code", lambda _, coder, suffix: seen.append((suffix, coder.options)))
    for arguments in (
        ["compress", "a"],
        ["compress", "a", "-q", "7", "-e", "0", "--class", "x", "--tile", "0", "--strip"],
        ["compress", "a", "--target-size", "1.5M"],
        ["compress", "a", "--max-pixels", "1M", "--target-psnr", "31.5"],
        ["decompress", "a"],
        ["decompress", "a", "--partial", "--region", "0,8,16,24", "--scale", "2", "--maps", "3"],
    ):
        assert cli.main(arguments) == 0
    assert seen == [
        (".vqc", EncodeOptions()), (".vqc", EncodeOptions(quality=7, effort=0, class_id="x", tile=0, metadata=False)),
        (".vqc", EncodeOptions(target_bytes=1_500_000)),
        (".vqc", EncodeOptions(limits=Limits(pixels=1_000_000), target_psnr=31.5)),
        (".png", DecodeOptions()), (".png", DecodeOptions(partial=True, region=(0, 8, 16, 24), scale=2, maps=3)),
    ]  # fmt: skip


def test_progress_is_for_terminals(run, tree, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", screen)
        assert run("compress", "in", "photo.png", "-j1")[0] == 0
    shown = screen.getvalue()
    assert [text.strip() for text in re.findall(r"\d/3", shown)] == ["0/3", "1/3", "2/3", "3/3"]
    visible = re.sub(r"[^\n]*\r", "", shown)  # overwritten text disappears
    assert visible.count("bits per pixel") == 3 and "/3" not in visible
    assert progress_line(3, 4, 30, 50) == "[###############     ] 3/4  0:10 left"
    assert progress_line(5, 1000, 100, 30) == "[      ] 5/1000  5:31:40 left"
    assert all(len(progress_line(1, 2, 1, columns)) < columns for columns in range(1, 40))


@pytest.mark.slow
def test_interrupted_processes_leave_nothing_half(folder, model):
    for i in range(40):
        Image.fromarray(scene(120, 160, i)).save(f"{i}.png")
    process = subprocess.Popen(
        [*COMMAND, "compress", ".", "-o", "out/", "--jobs", "2", "--model", model, "-e", "9"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert "bits per pixel" in process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130 and err.endswith("vqcodec: interrupted\n") and "Traceback" not in err
    left = files_in(Path("out"))
    assert left and len(left) < 41 and all(name.endswith(".vqc") and name[0] != "." for name in left)


# -- verify and compare ------------------------------------------------------------------


def test_verify(run, tree):
    run("compress", "-r", "in", "-j1")
    status, out, err = run("verify", "-r", "in")
    assert (status, err) == (0, "")
    size = os.path.getsize("in/a.vqc")
    assert f"in/a.vqc: ok, 32 x 24, {size:,} bytes\n" in out and out.count(": ok, ") == 3
    data = bytearray(Path("in/a.vqc").read_bytes())
    data[-12] ^= 1
    Path("in/a.vqc").write_bytes(data)
    status, out, err = run("verify", "in", "--quick")
    assert status == 1 and out.startswith("in/b.vqc: ok") and one_line(err) and "in/a.vqc: " in err and "CRC-32" in err
    status, out, err = run("verify", "in", "--json")
    bad, good = map(json.loads, out.splitlines())
    assert (status, err) == (1, "") and bad["error"]["type"] == "CorruptChunk"
    assert good == {"input": "in/b.vqc", "bytes": os.path.getsize("in/b.vqc"), "width": 32, "height": 25, "error": None}
    assert run("verify", "in/b.vqc", "--quiet") == (0, "", "")


def test_verify_decodes_unless_quick(run, folder, small_model):
    """All checksums of this file are right, but it was made with another model."""
    run("compress", "photo.png")
    found = container.read(Path("photo.vqc").read_bytes())
    found.header = dataclasses.replace(found.header, fingerprint=bytes(16))
    Path("photo.vqc").write_bytes(container.write(found))
    assert run("verify", "photo.vqc", "--quick")[0] == 0
    status, _, err = run("verify", "photo.vqc")
    assert status == 1 and "photo.vqc: the file needs model 0000" in err


def test_compare(run, folder, model):
    run("compress", "photo.png")
    data = Path("photo.vqc").read_bytes()
    status, out, err = run("compare", "photo.png", "photo.vqc", "-o", "side.png", "--json")
    found = json.loads(out)
    assert status == 0 and "MS-SSIM needs 176 x 176 pixels, found 56 x 40" in err
    back = np.asarray(vqcodec.decompress(data, model=model)).astype(float)
    expected = 10 * np.log10(255**2 / np.mean((np.asarray(Image.open("photo.png")) - back) ** 2))
    assert found["psnr"] == pytest.approx(expected) and found["ms_ssim"] is None
    assert (found["bytes"], found["width"], found["height"]) == (len(data), 56, 40)
    assert found["bits_per_pixel"] == 8 * len(data) / 2240
    side = np.asarray(Image.open("side.png"))
    assert np.array_equal(side[-40:, :56], np.asarray(Image.open("photo.png"))) and np.array_equal(
        side[-40:, 60:], back
    )
    status, out, err = run("compare", "photo.png", "photo.png")  # any image; this one is equal
    assert status == 0 and "psnr" not in out and "bits per pixel" in out
    Image.fromarray(scene(40, 57)).save("wide.png")
    status, _, err = run("compare", "photo.png", "wide.png")
    assert status == 1 and "wide.png: must be of the original's size, 56 x 40, found 57 x 40" in err
    assert run("compare", "photo.png", "photo.vqc", "-o", "side.png")[0] == 1  # exists


def test_ms_ssim(run, folder):
    Image.fromarray(scene(180, 190)).save("large.png")
    Image.fromarray(scene(180, 190)).save("large.jpg", quality=20)
    out = run("compare", "large.png", "large.jpg")[1]
    measured = float(re.search(r"^ms ssim +([\d.]+)$", out, re.MULTILINE)[1])
    assert 0.5 < measured < 0.999


# -- made from the arguments -------------------------------------------------------------


def completed(line: str, script: str) -> list[str]:
    """The completions bash would offer for the last word of a command line."""
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    run = f'{script}\nCOMP_WORDS=({quoted}) COMP_CWORD={len(words) - 1}\n_vqcodec\nprintf "%s\\n" "${{COMPREPLY[@]}}"'
    return subprocess.run(["bash", "-uc", run], capture_output=True, text=True, check=True).stdout.split()


def test_completion_for_bash(capsys):
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert completed("vqcodec co", script) == ["compress", "compare", "completion"]
    assert completed("vqcodec --v", script) == ["--version"]
    assert completed("vqcodec compress --ta", script) == ["--target-size", "--target-psnr"]
    assert completed("vqcodec decompress a.vqc --p", script) == ["--partial"]
    assert completed("vqcodec decompress --ta", script) == []
    assert completed("vqcodec completion ", script) == ["bash", "zsh", "fish"]
    assert completed("vqcodec compress ", script) == []  # file names, by default
    declared = subprocess.run(
        ["bash", "-c", f"{script}\ncomplete -p vqcodec"], capture_output=True, text=True, check=True
    )
    assert declared.stdout == "complete -o bashdefault -o default -F _vqcodec vqcodec\n"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_for_other_shells(capsys, shell):
    """Every option of every command; read by the shell itself if it is installed."""
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for name, (sub, summary) in completion.commands(parser()).items():
        assert name in script and summary in script
        for option in completion.options(sub):
            flag = option.option_strings[-1]
            assert {"zsh": f"'{flag}[", "fish": f" -l {flag[2:]} " if flag[1] == "-" else f" -s {flag[1:]} "}[
                shell
            ] in script
    if shutil.which(shell):
        subprocess.run([shell, "-n", "/dev/stdin"], input=script, text=True, check=True)


def test_manual_page(capsys):
    assert cli.main(["man"]) == 0
    page = capsys.readouterr().out
    assert page.startswith(f'.TH VQCODEC 1 "" "vqcodec {vqcodec.__version__}"')
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "EXIT STATUS", "EXAMPLES"):
        assert f"\n.SH {section}\n" in page
    for name, (sub, _) in completion.commands(parser()).items():
        assert f"\n.SS {name}\n" in page
        for option in completion.options(sub):
            assert f"\\fB{option.option_strings[-1]}\\fR".replace("-", "\\-") in page
    if shutil.which("groff"):
        found = subprocess.run(["groff", "-man", "-Tascii", "-ww", "-z"], input=page, capture_output=True, text=True)
        assert (found.returncode, found.stderr) == (0, "")


def test_document_names_everything():
    text = (Path(__file__).parents[2] / "docs" / "CLI.md").read_text(encoding="utf-8")
    for name, (sub, _) in completion.commands(parser()).items():
        assert f"vqcodec {name}" in text
        for option in completion.options(sub):
            assert option.option_strings[-1] in text, f"{name} {option.option_strings[-1]}"


# -- pipes -------------------------------------------------------------------------------


def piped(arguments: list[str], data: bytes = b"", **options) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *arguments], input=data, capture_output=True, **options)


@pytest.mark.slow
def test_pipes(folder, model):
    picture = Path("photo.png").read_bytes()
    compressed = piped(["compress", "-", "-", "--model", model], picture, check=True)
    assert compressed.stdout == vqcodec.compress("photo.png", model=model)
    assert compressed.stderr.startswith(b"-: 56 x 40, ")
    back = piped(["decompress", "-", "--model", model, "--quiet"], compressed.stdout, check=True)
    assert Image.open(io.BytesIO(back.stdout)).format == "PNG" and back.stderr == b""
    assert b"map 0" in piped(["info", "-"], compressed.stdout, check=True).stdout
    assert files_in(folder) == {"photo.png"}


@pytest.mark.slow
def test_nobody_reads(folder, model):
    """A reader that closes early must not cause a traceback."""
    vqc = Path("photo.vqc")
    vqc.write_bytes(vqcodec.compress("photo.png", model=model))
    for arguments in (["info", "photo.vqc"], ["compress", "photo.png", "-", "--model", model, "--quiet"]):
        process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait() == 1


# -- failures ----------------------------------------------------------------------------


def one_line(err: str) -> bool:
    return err.startswith("vqcodec: ") and err.count("\n") == 1


def test_missing_and_wrong_inputs(run, folder):
    Path("text.txt").write_text("hello")
    Path("empty").mkdir()
    for arguments, message in [
        (["compress", "none.png"], "none.png: No such file or directory"),
        (["compress", "text.txt"], "text.txt: must be an image"),
        (["compress", "empty"], "empty: no images in this folder"),
        (["decompress", "."], ".: no .vqc files in this folder (-r includes its subfolders)"),
        (["verify", "none.vqc"], "none.vqc: No such file or directory"),
        (["compare", "photo.png", "text.txt"], "text.txt: must be an image"),
        (["decompress", "none.vqc"], "none.vqc: No such file or directory"),
        (["decompress", "text.txt"], "a vqcodec file begins with 8f 56 51 43, found 68 65 6c 6c"),
        (["info", "none.vqc"], "none.vqc: No such file or directory"),
        (["info", "photo.png"], "a vqcodec file begins with"),
        (["sample", "cow", "-o", "s.png"], "unknown class 'cow'"),
        (["sample", "1", "-o", "s.xyz"], "s.xyz: must have the extension of a format"),
        (["sample", "1", "-o", "s.png", "--temperature", "0"], "temperature"),
        (["sample", "1", "-o", "s.png", "--top-p", "0"], "top_p"),
        (["decompress", "photo.png", "back.xyz"], "back.xyz: must have the extension"),
        (["compress", "photo.png", "nowhere/a.vqc"], "nowhere/a.vqc: its folder does not exist"),
    ]:
        status, out, err = run(*arguments)
        assert status == 1 and out == "" and one_line(err) and message in err, (arguments, err)
    assert files_in(folder) == {"photo.png", "text.txt", "empty"}


def test_wrong_model_file(folder, capsys):
    Path("model.safetensors").write_bytes(b"not a model")
    for path in ("model.safetensors", "none.safetensors"):
        assert cli.main(["compress", "photo.png", "--model", path]) == 1
        assert one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["paint"], "invalid choice: 'paint'"),
        (["compress"], "required: IN"),
        (["compress", "a", "-q", "101"], "-q/--quality: must be a number from 0 to 100, got 101"),
        (["compress", "a", "-q", "best"], "must be a number from 0 to 100, got 'best'"),
        (["compress", "a", "--threads", "0"], "must be at least 1, got 0"),
        (["sample", "1"], "required: -o"),
        (["sample", "1", "-o", "s.png", "-n", "x"], "must be a whole number, got 'x'"),
        (["sample", "1", "-o", "s.png", "--seed", "-1"], "must be at least 0"),
        (["sample", "1", "-o", "s.png", "--size", "256"], "must be WxH such as 256x256, got 256"),
        (["sample", "1", "-o", "s.png", "--size", "0x4"], "must be WxH"),
        (["compress", "a", "-j", "0"], "must be at least 1, got 0"),
        (
            ["compress", "a", "--target-size", "big"],
            "must be a number of bytes such as 900, 20k, 1.5M or 8GiB, got 'big'",
        ),
        (["compress", "a", "--target-size", "5i"], "must be a number of bytes such as"),
        (["compress", "a", "-q", "5", "--target-size", "9k"], "not allowed with argument -q/--quality"),
        (["compress", "a", "--lossless", "--max-error", "1"], "not allowed with argument --lossless"),
        (["compress", "a", "--target-size", "0"], "must be a number of bytes from 1, got 0"),
        (["decompress", "a", "--region", "1,2,3"], "must be X0,Y0,X1,Y1 such as 0,0,256,256, got 1,2,3"),
        (["completion", "csh"], "invalid choice: 'csh'"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_never_overwrites_without_force(run, folder):
    Path("photo.vqc").write_bytes(b"precious")
    Path("s1.png").write_bytes(b"precious")
    for arguments in (["compress", "photo.png"], ["sample", "1", "-n", "2", "--size", "16x16", "-o", "s%d.png"]):
        status, _, err = run(*arguments)
        assert status == 1 and one_line(err) and "exists: use -f to overwrite it" in err
    assert Path("photo.vqc").read_bytes() == b"precious"
    assert files_in(folder) == {"photo.png", "photo.vqc", "s1.png"}
    assert run("compress", "photo.png", "-f")[0] == 0
    assert vqcodec.info(Path("photo.vqc").read_bytes())["width"] == 56


def test_damaged_files(run, folder, capsys):
    run("compress", "photo.png", "-q", "90")
    data = Path("photo.vqc").read_bytes()
    maps = [c["offset"] for c in vqcodec.info(data)["chunks"] if c["tag"] == "M"]
    Path("cut.vqc").write_bytes(data[: maps[2] + 3])
    status, _, err = run("decompress", "cut.vqc")
    assert status == 1 and one_line(err) and "map 2: " in err
    assert not Path("cut.png").exists()
    status, _, err = run("decompress", "cut.vqc", "--partial")
    assert status == 0 and "warning: the image is not complete: map 2: " in err
    assert Image.open("cut.png").size == (56, 40)
    Path("cut.vqc").write_bytes(data[: maps[0]])
    status, _, err = run("decompress", "cut.vqc", "--partial", "-f")
    assert status == 1 and one_line(err) and "map 0: " in err
    assert run("info", "cut.vqc")[0] == 1


def test_warnings_are_one_line(run, folder):
    Image.fromarray(scene(8, 8)).save("a.gif", save_all=True, append_images=[Image.fromarray(scene(8, 8, 1))])
    status, _, err = run("compress", "a.gif", "--quiet")
    assert (status, err) == (0, "vqcodec: warning: only one of the image's 2 frames is used\n")


def test_pictures_that_a_format_cannot_hold(run, folder, monkeypatch):
    run("compress", "photo.png")
    monkeypatch.setattr(Image.Image, "save", lambda *_, **__: (_ for _ in ()).throw(ValueError("too large")))
    status, _, err = run("decompress", "photo.vqc", "back.webp")
    assert status == 1 and err.endswith("vqcodec: WEBP cannot hold this image: too large\n")


# -- whole files or none -----------------------------------------------------------------


def test_full_disk_leaves_nothing(run, folder, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    Path("photo.vqc").write_bytes(b"precious")
    monkeypatch.setattr(os, "fsync", full)
    status, _, err = run("compress", "photo.png", "-f")
    assert status == 1 and err == "vqcodec: photo.vqc: No space left on device\n"
    assert Path("photo.vqc").read_bytes() == b"precious"
    assert files_in(folder) == {"photo.png", "photo.vqc"}


@pytest.mark.slow
@pytest.mark.parametrize("extension", ["ppm", "png", "tif"])
def test_files_that_may_not_grow_leave_nothing(folder, model, extension):
    """A real failure in the middle of writing, for each way of writing."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)).save("noise.png")
    Path("a.vqc").write_bytes(vqcodec.compress("noise.png", quality=100, effort=0, model=model))
    os.remove("noise.png")
    result = subprocess.run(
        [*COMMAND, "decompress", "a.vqc", f"b.{extension}", "--model", model], capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (1, f"vqcodec: b.{extension}: File too large\n")
    assert files_in(folder) == {"photo.png", "a.vqc"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_full_device(run, folder):
    status, _, err = run("compress", "photo.png", "/dev/full")
    assert status == 1 and err == "vqcodec: /dev/full: No space left on device\n"
    assert run("compress", "photo.png", "/dev/null")[0] == 0  # a device needs no -f


def test_interrupted_write_leaves_nothing(run, folder, monkeypatch):
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    status, _, err = run("compress", "photo.png")
    assert (status, err) == (130, "vqcodec: interrupted\n")
    assert files_in(folder) == {"photo.png"}


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signals(folder, sent):
    """A process waiting for input ends at once, without a traceback."""
    os.mkfifo("pipe")
    process = subprocess.Popen(
        [*COMMAND, "info", "pipe"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of a shell ignore it
    )
    writer = open_when_read("pipe", process)
    for _ in range(30):  # a signal just before a system call is only seen when that returns
        process.send_signal(sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            out, err = process.communicate(timeout=1)
            break
    os.close(writer)
    word = "interrupted" if sent == signal.SIGINT else "terminated"
    assert (process.returncode, out, err) == (128 + sent, b"", f"vqcodec: {word}\n".encode())


def open_when_read(pipe: str, process: subprocess.Popen) -> int:
    """The writing end of a named pipe, as soon as the process has opened the other."""
    while process.poll() is None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.01)
    raise AssertionError(process.communicate())


def test_a_file_that_appears_meanwhile_is_kept(folder):
    files.write("new.bin", b"ours")
    with pytest.raises(FileExistsError, match=r"new\.bin exists"):
        files.write("new.bin", b"theirs")
    assert Path("new.bin").read_bytes() == b"ours"
    assert files_in(folder) == {"photo.png", "new.bin"}


def test_file_systems_without_hard_links(folder, monkeypatch):
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    test_a_file_that_appears_meanwhile_is_kept(folder)
    files.write("new", b"content")
    assert Path("new").read_bytes() == b"content"


def test_written_files_have_ordinary_permissions(folder):
    files.write("ours", b"")
    Path("theirs").touch()
    assert os.stat("ours").st_mode == os.stat("theirs").st_mode


def test_links_are_written_through(folder):
    Path("real").write_bytes(b"old")
    os.symlink("real", "link")
    files.write("link", b"new", force=True)
    assert os.path.islink("link") and Path("real").read_bytes() == b"new"


def test_folders_with_more_than_pictures(run, folder):
    """Pipes are skipped, circular links are not followed, and broken ones fail without affecting others."""
    os.makedirs("in/named.png")
    shutil.copy("photo.png", "in/a.png")
    os.symlink(".", "in/loop")
    os.symlink("self.png", "in/self.png")
    os.symlink("nowhere", "in/dangling.png")
    os.mkfifo("in/pipe.png")
    status, _, err = run("compress", "-r", "in", "-o", "out/", "-j", "1")
    assert status == 1 and os.listdir("out") == ["a.vqc"]
    assert sorted(line.split(":")[0] for line in err.splitlines() if line.startswith("vqcodec: ")) == ["vqcodec"] * 2
    assert "in/dangling.png: No such file or directory" in err and "in/self.png: cannot be read" in err


def test_closed_folders_are_not_passed_over(run, folder, monkeypatch):
    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return unpatched(path)

    os.makedirs("in/closed")
    shutil.copy("photo.png", "in/a.png")
    unpatched = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    status, _, err = run("compress", "-r", "in", "-o", "out/", "-j", "1")
    assert status == 1 and os.listdir("out") == ["a.vqc"] and "in/closed: cannot be read" in err


def test_links_that_lead_round(run, folder):
    os.symlink("b.vqc", "a.vqc")
    os.symlink("a.vqc", "b.vqc")
    status, _, err = run("compress", "-f", "photo.png", "a.vqc")
    assert (status, err) == (1, "vqcodec: a.vqc: Too many levels of symbolic links\n")
    assert files_in(folder) == {"photo.png", "a.vqc", "b.vqc"}


@pytest.mark.slow
def test_any_name(folder, model):
    """A line break, bytes that are not text: each file has one line, and nothing fails where only UTF-8 can be printed."""
    for name in (b"new\nline.png", b"caf\xe9.png"):
        shutil.copy("photo.png", name)
    os.remove("photo.png")
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    for arguments, stream in ((["compress", ".", "-j", "1"], "stderr"), (["verify", "."], "stdout")):
        result = subprocess.run(
            [*COMMAND, *arguments, "--model", model], capture_output=True, text=True, env=environment
        )
        said = getattr(result, stream).splitlines()
        assert result.returncode == 0 and len(said) == 2
        assert {line.split(":")[0].removeprefix("./") for line in said} == {"new\\nline.vqc", "caf\\udce9.vqc"}
    assert sorted(os.listdir(b".")) == [b"caf\xe9.png", b"caf\xe9.vqc", b"new\nline.png", b"new\nline.vqc"]


# -- weight ------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [
    ["--help"], ["--version"], ["compress", "--help"], ["info", "photo.vqc"], ["verify", "--quick", "photo.vqc"], ["completion", "bash"],
    ["man"],
])  # fmt: skip
def test_light_commands_load_nothing_heavy(folder, model, arguments):
    Path("photo.vqc").write_bytes(vqcodec.compress("photo.png", model=model))
    script = f"""
import sys
from vqcodec import cli
try:
    status = cli.main({arguments})
except SystemExit as stop:
    status = stop.code
heavy = {{"torch", "numpy", "PIL", "constriction", "safetensors"}} & set(sys.modules)
sys.exit(f"loads {{heavy}}" if heavy else status)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"vqcodec {vqcodec.__version__}\n"


def test_one_input_goes_into_a_new_folder_like_many(run, folder):
    assert run("compress", "photo.png", "-o", "new/")[0] == 0 and files_in(Path("new")) == {"photo.vqc"}
    assert run("decompress", "new/photo.vqc", "-o", "back/")[0] == 0 and files_in(Path("back")) == {"photo.png"}
    assert run("compress", "photo.png", "-o", "by/{stem}/x.vqc")[0] == 0 and Path("by/photo/x.vqc").exists()
    Path("one/inner").mkdir(parents=True)
    shutil.copy("photo.png", "one/inner/a.png")
    assert run("compress", "-r", "one", "-o", "all/")[0] == 0 and Path("all/inner/a.vqc").exists()
    assert run("compress", "photo.png", "-o", "absent/x.vqc")[0] == 1 and not Path("absent").exists()


@pytest.mark.parametrize("name", ["photo.png", "out.webp", "out.JPG", "{stem}.pdf"])
def test_names_of_other_formats_are_refused(run, folder, name):
    before = Path("photo.png").read_bytes()
    status, _, err = run("compress", "-f", "photo.png", "-o", name)
    assert status != 0 and "name for another format" in err
    assert Path("photo.png").read_bytes() == before and files_in(folder) == {"photo.png"}


def test_replaced_files_keep_their_permissions(run, folder):
    assert run("compress", "photo.png")[0] == 0
    os.chmod("photo.vqc", 0o600)
    assert run("compress", "-f", "photo.png", "-q", "30")[0] == 0
    assert stat.S_IMODE(os.stat("photo.vqc").st_mode) == 0o600


def test_without_force_a_link_is_never_followed(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        files.write(str(tmp_path / "link"), b"x")
    assert not (tmp_path / "nowhere").exists() and sorted(os.listdir(tmp_path)) == ["link"]
    files.write(str(tmp_path / "link"), b"x", force=True)
    assert (tmp_path / "nowhere").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("900", 900),
        ("20k", 20_000),
        ("1.5M", 1_500_000),
        ("1kb", 1000),
        ("8GiB", 8 << 30),
        ("2 MiB", 2 << 20),
        (".5k", 500),
    ],
)
def test_numbers_of_bytes(text, value):
    parsed = parser().parse_args(["decompress", "a", "--max-memory", text])
    assert parsed.max_memory == value


def test_info_on_several_files(run, folder):
    assert run("compress", "photo.png", "a.vqc")[0] == 0
    shutil.copy("a.vqc", "b.vqc")
    status, out, _ = run("info", "a.vqc", "b.vqc")
    assert status == 0 and out.splitlines()[0] == "a.vqc" and "\n\nb.vqc\n" in out
    status, out, _ = run("info", "--json", "a.vqc", "b.vqc")
    assert [json.loads(line)["input"] for line in out.splitlines()] == ["a.vqc", "b.vqc"]
    status, _, err = run("info", "a.vqc", "photo.png")
    assert status == 1 and "photo.png: " in err


def test_classes(model, capsys):
    assert cli.main(["classes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 16 and lines[0].split()[0] == "1"
    assert cli.main(["classes", "--json"]) == 0
    assert [line.split(None, 1)[1] for line in lines] == json.loads(capsys.readouterr().out)


def test_unknown_fields_of_names_are_refused(run, folder):
    status, _, err = run("compress", "photo.png", "-o", "{steam}.vqc")
    assert status == 1 and "{steam}" in err and files_in(folder) == {"photo.png"}
