"""``vqcodec bench`` on a few generated images: the numbers against independent ones, and the page in a browser."""

from __future__ import annotations

import base64
import importlib
import io
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import benchmarks.__main__
import vqcodec
from benchmarks import model_card, rows
from benchmarks.__main__ import from_bench
from benchmarks.rows import Row
from tests.conftest import scene
from vqcodec import cli
from vqcodec.model import file as model_file
from vqcodec.tools.bench import codecs, cost, curves, figure, gallery, measure, page, report

pytestmark = pytest.mark.slow

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def opaque(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"), float)


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    return -10 * math.log10(((a - b) ** 2).mean() / 255**2)


@pytest.fixture(scope="module")
def found(small_model, tmp_path_factory) -> SimpleNamespace:
    """One quick run over several kinds of images, and one file that is not an image."""
    folder = tmp_path_factory.mktemp("bench")
    pictures = folder / "images & <b>"
    pictures.mkdir()
    Image.fromarray(scene(180, 200)).save(pictures / "a.png")
    Image.fromarray(scene(40, 56)).convert("L").save(pictures / "grey.png")
    alpha = Image.fromarray(scene(192, 176, seed=1))
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    alpha.save(pictures / "z<i>.png")
    (pictures / "broken.png").write_bytes(b"no image")
    (pictures / "notes.txt").write_text("passed over")
    model = folder / "model.safetensors"
    model_file.save(model, small_model.config, small_model.tensors)
    outputs = [str(folder / name) for name in ("bench.html", "bench.json", "bench.png")]
    options = ["--quick", "--shown", "2", "--model", str(model), "-o", outputs[0], "--json", outputs[1], "--quiet"]
    if not missing("matplotlib"):
        options += ["--png", outputs[2]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "RANGE", (0.15, 3.0))  # small images take many bits for each pixel
        assert cli.main(["bench", str(pictures), *options]) == 0
    html, numbers = (Path(name).read_text(encoding="utf-8") for name in outputs[:2])
    return SimpleNamespace(
        folder=pictures, model=str(model), html=html, report=json.loads(numbers), png=Path(outputs[2])
    )


def missing(package: str) -> bool:
    """Or broken."""
    try:
        importlib.import_module(package)
    except Exception:
        return True
    return False


# -- numbers -----------------------------------------------------------------------------


def test_pictures_are_measured_or_named(found):
    assert [(p["name"], p["width"], p["height"]) for p in found.report["pictures"]] == [
        ("a.png", 200, 180),
        ("grey.png", 56, 40),
        ("z<i>.png", 176, 192),
    ]
    assert [s["name"] for s in found.report["skipped"]] == ["broken.png"]
    assert "must be an image that Pillow can read" in found.report["skipped"][0]["reason"]


def test_codecs_and_metrics_are_measured_or_named(found):
    here = {c["name"] for c in found.report["codecs"] if not c["missing"]}
    assert {c["name"] for c in found.report["codecs"]} == {"vqcodec", "JPEG", "JPEG 2000", "WebP", "AVIF", "JPEG XL"}
    assert {"vqcodec", "JPEG"} <= here
    assert ("JPEG XL" in here) != missing("imagecodecs")
    for picture in found.report["pictures"]:
        assert set(picture["rows"]) == here
    assert set(found.report["curves"]) == {m["name"] for m in found.report["metrics"] if not m["missing"]}
    assert {m["name"]: bool(m["missing"]) for m in found.report["metrics"]} == {
        "psnr": False,
        "ms_ssim": False,
        "ssimulacra2": missing("ssimulacra2"),
    }
    for name in {c["name"] for c in found.report["codecs"]} - here:
        assert f"<dt>{name}</dt><dd><b>not here</b>" in found.html


def test_sizes_and_psnr_agree_with_a_computation_of_our_own(found):
    picture = Image.open(found.folder / "z<i>.png").convert("RGB")
    rows = found.report["pictures"][2]["rows"]
    for setting, size, value, *_ in rows["vqcodec"]:
        data = vqcodec.compress(picture, quality=setting, model=found.model)
        assert size == len(data)
        assert value == pytest.approx(
            decibels(opaque(picture), opaque(vqcodec.decompress(data, model=found.model))), abs=1e-3
        )
    for setting, size, value, *_ in rows["JPEG"]:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=setting, optimize=True, progressive=True)
        assert size == len(stream.getvalue())
        assert value == pytest.approx(decibels(opaque(picture), opaque(Image.open(stream))), abs=1e-3)
    settings = [row[0] for row in rows["vqcodec"]]
    assert settings[0] == 0 and settings[-1] == 95


def test_curves_are_means_and_rates_follow_from_them(found):
    for name, curve in found.report["curves"]["psnr"].items():
        for i, point in enumerate(curve):
            rows = [(p["rows"][name][i], p["width"] * p["height"]) for p in found.report["pictures"]]
            assert point["bpp"] == pytest.approx(np.mean([8 * row[1] / area for row, area in rows]))
            assert point["value"] == pytest.approx(np.mean([row[2] for row, _ in rows]))
    means = found.report["curves"]["psnr"]
    for entry in found.report["bd_rates"]:
        expected = slow_bd_rate(means["vqcodec"], means[entry["codec"]])
        assert entry["psnr"]["all"] == (expected if expected is None else pytest.approx(expected, abs=0.5))
        assert len(entry["each"]) == 3


def slow_bd_rate(ours: list[dict], theirs: list[dict]) -> float | None:
    """The integral of the difference, over many thin slices of quality."""
    low, high = (
        pick(edge(p["value"] for p in curve) for curve in (ours, theirs)) for pick, edge in ((max, min), (min, max))
    )
    if low >= high:
        return None

    def log_rate(curve: list[dict], value: float) -> float:
        ordered = sorted(curve, key=lambda p: p["value"])
        for a, b in zip(ordered, ordered[1:]):
            if a["value"] <= value <= b["value"]:
                part = (value - a["value"]) / (b["value"] - a["value"])
                return (1 - part) * math.log(a["bpp"]) + part * math.log(b["bpp"])
        raise AssertionError(value)

    values = [low + (high - low) * (i + 0.5) / 3000 for i in range(3000)]
    return 100 * (math.exp(sum(log_rate(ours, v) - log_rate(theirs, v) for v in values) / 3000) - 1)


def test_metrics_leave_out_what_is_too_small_for_them(found):
    column = 3
    assert all(row[column] is None for row in found.report["pictures"][1]["rows"]["JPEG"])  # 56 x 40
    large = [found.report["pictures"][i] for i in (0, 2)]
    for i, point in enumerate(found.report["curves"]["ms_ssim"]["JPEG"]):
        assert point["value"] == pytest.approx(np.mean([p["rows"]["JPEG"][i][column] for p in large]))
        assert point["bpp"] == pytest.approx(
            np.mean([8 * p["rows"]["JPEG"][i][1] / (p["width"] * p["height"]) for p in large])
        )


def test_bits_of_maps(found):
    """Zero-order entropies and chunks of all three images, counted again."""
    entry = found.report["maps"][-1]
    files = [
        vqcodec.compress(
            Image.open(found.folder / p["name"]).convert("RGB"), quality=entry["quality"], model=found.model
        )
        for p in found.report["pictures"]
    ]
    stored = sum(c["bytes"] for data in files for c in vqcodec.info(data)["chunks"] if c["tag"] == "M")
    assert sum(m["file"] for m in entry["maps"]) == 8 * stored
    sizes = [m.codes for m in vqcodec.Codec(found.model).model.config.autoencoder.maps]
    for number, m in enumerate(entry["maps"]):
        codes = np.concatenate(
            [vqcodec.decode_maps(data, model=found.model)[number].ravel() for data in files]
        ).tolist()
        assert m["codes"] == len(codes)
        assert m["uniform"] == pytest.approx(len(codes) * math.log2(sizes[number]))
        assert m["zero_order"] == pytest.approx(
            -sum(codes.count(c) * math.log2(codes.count(c) / len(codes)) for c in set(codes))
        )


def test_times_and_memory(found):
    timed = {(t["codec"], t["threads"]) for t in found.report["times"]}
    assert {("vqcodec", 1), ("JPEG", 1)} <= timed
    assert ("JPEG", 2) not in timed  # it has no threads
    for t in found.report["times"]:
        for what in ("encode", "decode"):
            assert 0 < t[what]["low"] <= t[what]["median"] <= t[what]["high"]
    if Path("/proc/self/status").exists():
        memory = {m["codec"]: m for m in found.report["memory"]}
        assert set(memory) == set(found.report["pictures"][0]["rows"])
        assert memory["vqcodec"]["decode"] > memory["JPEG"]["decode"]  # PyTorch
        assert 5e6 < found.report["memory_of_nothing"] <= memory["JPEG"]["encode"] * 1.2


@pytest.mark.parametrize(("ours", "theirs", "rates", "expected"), [
    ([(0.5, 30), (1, 40)], [(1, 30), (2, 40)], (0, np.inf), -50),
    ([(0.5, 30), (1, 40)], [(1, 35), (2, 45)], (0, np.inf), 100 * (2**-0.5 - 1)),  # half an octave less on a shifted curve
    ([(1, 30), (2, 40)], [(1, 30), (1, 40)], (1, 2**0.5), 100 * (2**0.25 - 1)),  # only where ours takes up to sqrt 2
    ([(1, 30), (2, 40)], [(1, 41), (2, 50)], (0, np.inf), None),
    ([(1, 30), (2, 40)], [(1, 30), (2, 40)], (3, 4), None),
    ([], [(1, 30), (2, 40)], (0, np.inf), None),
])  # fmt: skip
def test_bd_rate(ours, theirs, rates, expected):
    found = curves.bd_rate(ours, theirs, rates)
    assert found == (expected if expected is None else pytest.approx(expected, abs=0.2))


def test_quartiles():
    assert cost.quartiles([5.0]) == {"median": 5, "low": 5, "high": 5}
    assert cost.quartiles([1.0, 2.0, 3.0, 4.0, 9.0]) == {"median": 3, "low": 2, "high": 4}


def test_largest_within():
    picture = Image.fromarray(scene(96, 96))
    (jpeg,) = codecs.every(only="JPEG")
    setting, data = gallery.largest_within(jpeg, picture, 1500)
    sizes = {q: len(jpeg.encode(picture, q)) for q in range(2, 81)}
    assert len(data) == sizes[setting] <= 1500
    assert sizes[setting + 1] > 1500
    assert gallery.largest_within(jpeg, picture, 10)[0] == 2  # its lowest, although the file is larger


def test_a_codec_that_does_not_work_is_missing():
    def broken(*_: object) -> bytes:
        raise RuntimeError("out of order")

    codec = codecs.Codec("X", "quality", (1, 2), lambda: ("", broken, broken, broken))
    codec.try_out()
    assert codec.missing == "does not work here: out of order"


def test_a_picture_that_one_codec_cannot_code_is_left_out_by_name(tmp_path):
    def broken(*_: object) -> bytes:
        raise RuntimeError("too odd")

    Image.fromarray(scene(8, 8)).save(tmp_path / "a.png")
    codec = codecs.Codec("X", "quality", (1, 2), lambda: ("", broken, broken, broken))
    with pytest.raises(vqcodec.VqcodecError, match="X cannot code it: too odd"):
        measure.Measurement(("X",), ("psnr",), True).measure(str(tmp_path / "a.png"), [codec])


def test_unusable_folders(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", "nothing"]) == 1
    assert "nothing: No such file or directory" in capsys.readouterr().err
    Path("there.html").write_text("mine")
    assert cli.main(["bench", ".", "-o", "there.html"]) == 1
    assert "there.html exists: use -f" in capsys.readouterr().err
    assert Path("there.html").read_text() == "mine"


def test_quick_takes_six_pictures_evenly(tmp_path):
    for i in range(12):
        (tmp_path / f"{i:02}.png").touch()
    assert [Path(p).stem for p in report.chosen(report.Plan(str(tmp_path), quick=True))] == [
        "00",
        "02",
        "04",
        "06",
        "08",
        "10",
    ]
    assert len(report.chosen(report.Plan(str(tmp_path)))) == 12


# -- python -m benchmarks ------------------------------------------------------------------


def test_rows():
    row = Row.timed("sing", "a bird", [0.001, 0.002, 0.003], [4.0, 8.0, 6.0])
    assert row.ratio == pytest.approx(3000)
    assert rows.table([row])[1] == ["sing", "a bird", "2.00 ms (1.50 to 2.50)", "6.00 s (5.00 to 7.00)", "3,000x", "``"]
    absent = Row.timed("sing", "a fish", [0.5], None, "mute")
    assert rows.table([absent])[1][2:5] == ["500 ms", "mute", "absent"]
    assert rows.markdown([row]).count("\n") == 2


def test_rows_survive_a_file(tmp_path):
    row = Row.timed("sing", "a bird", [0.1, 0.2], None, "asleep")
    rows.dump(tmp_path / "rows.json", [row])
    assert rows.load(tmp_path / "rows.json", "") == [row]


def test_rows_from_a_report(found):
    made = {(row.job.partition(",")[0], row.peer): row for row in from_bench(found.report, "command")}
    for entry in found.report["bd_rates"]:
        rate = entry["psnr"]["range"]
        if rate is not None:
            assert made["bytes at equal PSNR", entry["codec"]].ratio == pytest.approx(1 / (1 + rate / 100))
    assert made["decode 176 x 192", "JPEG"].theirs == next(
        t["decode"] for t in found.report["times"] if t["codec"] == "JPEG"
    )


@pytest.mark.parametrize("made", [benchmarks.__main__, model_card])
def test_generated_section(made):
    text = rows.replaced(f"before {made.BEGIN} old {rows.END} after", made.BEGIN, "new")
    assert text == f"before {made.BEGIN}\n\nnew\n{rows.END} after"
    with pytest.raises(ValueError, match="markers"):
        rows.replaced("nothing", made.BEGIN, "new")
    assert rows.replaced(made.DOCUMENT.read_text(encoding="utf-8"), made.BEGIN, "new")


def test_model_card(found):
    text = model_card.tables(found.report)
    for point in found.report["curves"]["psnr"]["vqcodec"]:
        assert f"| {point['setting']:g} | {point['bpp']:.3f} | {point['value']:.2f} |" in text
    for entry in found.report["bd_rates"]:
        assert f"{entry['psnr']['range'] or 0:+.1f} %" in text or entry["psnr"]["range"] is None
    columns = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert set(columns) == {3, 4 + len(found.report["curves"]) - 1, 6, len(found.report["bd_rates"]) + 2}


# -- page --------------------------------------------------------------------------------


class Sources(HTMLParser):
    """Whatever a page would load, its ids, and the text of its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.loaded += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action", "poster")
        ]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in ("meta", "link", "img", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_needs_nothing_but_itself(found):
    parsed = Sources(found.html)
    assert not parsed.open  # every element is closed
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert parsed.loaded and all(source.startswith("data:") for source in parsed.loaded)
    assert not re.findall(r"@import|url\((?!#)|https?://(?!www\.w3\.org/2000/svg)", found.html)
    assert "{{" not in found.html.split("<script")[0]
    assert "<i>.png" not in found.html and "& <b>" not in found.html  # file names are not markup


def test_page_says_what_the_numbers_say(found):
    entry = next(e for e in found.report["bd_rates"] if e["psnr"]["range"] is not None)
    rate = entry["psnr"]["range"]
    assert (
        f"{abs(rate):.{0 if abs(rate) >= 9.95 else 1}f} % {'smaller' if rate < 0 else 'larger'}</em> than {entry['codec']}"
        in found.html
    )
    for entry in found.report["bd_rates"]:
        for metric in found.report["curves"]:
            rate = entry[metric]["range"]
            assert rate is None or f"{'−' if rate < 0 else '+'}{abs(rate):.1f} %" in found.html
    assert found.report["processor"] in found.html
    assert "vqcodec bench" in found.report["command"] and "--quick" in found.report["command"]


def test_claim_follows_the_data():
    def claim(rate: float, other: float) -> tuple[str, str]:
        known = [{"codec": name, "psnr": {"range": value}} for name, value in (("A", rate), ("B", other))]
        return page.claims({"pictures": [1, 2], "bd_rates": known})

    assert claim(-42.4, -3)[0] == "<em>42 % smaller</em> than A"
    assert "B, vqcodec’s files are 3.0 % smaller" in claim(-42.4, -3)[1]
    assert claim(7.25, -3)[0] == "<em>7.2 % larger</em> than A"
    assert page.claims({"pictures": [], "bd_rates": []})[0] == "Nothing to compare with"


def test_pictures_in_the_page_are_lossless(found):
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', found.html, re.DOTALL)[1])
    assert len(data["pictures"]) == 2
    picture = data["pictures"][0]

    def image(uri: str) -> np.ndarray:
        return opaque(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))

    original = opaque(Image.open(found.folder / picture["name"]))
    assert np.array_equal(image(picture["original"]), original)
    for rate in picture["rates"]:
        ours = rate["versions"][0]
        coded = vqcodec.compress(original.astype(np.uint8), quality=rate["quality"], model=found.model)
        assert np.array_equal(image(ours["image"]), opaque(vqcodec.decompress(coded, model=found.model)))
        for version in rate["versions"]:
            assert version["bytes"] <= ours["bytes"] or version["larger"]
            assert version["psnr"] == pytest.approx(decibels(image(version["image"]), original), abs=1e-3)


def test_figure(found):
    if missing("matplotlib"):
        with pytest.raises(ImportError):
            figure.figure(found.report)
    else:
        assert Image.open(found.png).width >= 800  # a panel for every metric


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on PATH: the page's script is not run")
def test_page_in_a_browser(found, tmp_path):
    """The script runs to the end without an error, draws every curve, and the slider follows its value."""
    probe = """<script>
    addEventListener("load", () => setTimeout(() => {
      const get = (id) => document.getElementById(id), split = get("split");
      split.value = 20; split.dispatchEvent(new Event("input"));
      get("metrics").children[get("metrics").children.length - 1].click();
      const seen = {errors: window.errors, curves: document.querySelectorAll("#chart path").length,
        at: get("compare").style.getPropertyValue("--at"), look: !get("look").hidden, left: get("image-left").naturalWidth,
        wide: document.documentElement.scrollWidth > innerWidth};
      document.body.dataset.seen = JSON.stringify(seen);
    }, 300));</script></body>"""
    early = (
        '<head><script>window.errors = []; addEventListener("error", (e) => window.errors.push(e.message));</script>'
    )
    path = tmp_path / "page.html"
    path.write_text(found.html.replace("<head>", early, 1).replace("</body>", probe), encoding="utf-8")
    for width in (1280, 500):
        done = subprocess.run(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
             f"--window-size={width},900", "--virtual-time-budget=5000", "--dump-dom", path.as_uri()],
            capture_output=True, text=True, timeout=120)  # fmt: skip
        shown = re.search(r'data-seen="(.*?)"', done.stdout)
        assert shown, done.stderr[-2000:]
        seen = json.loads(shown[1].replace("&quot;", '"'))
        drawn = len(found.report["curves"]["psnr"])
        assert seen == {"errors": [], "curves": drawn, "at": "20", "look": True, "left": seen["left"], "wide": False}
        assert seen["left"] > 0
