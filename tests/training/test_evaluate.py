"""The evaluation command end to end, with a tiny model and a stand-in for the feature network."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import scene
from tests.support.classifiers import random_classifier
from tests.support.small_model import build_small_model
from training import evaluate, metrics
from vqcodec import Codec, ops
from vqcodec.codec.classifier import Classifier
from vqcodec.model.classifier import load, save

pytestmark = pytest.mark.slow

CLASSES = ("cat", "dog", "owl")


class Averages:
    """A feature network: mean and deviation of the four quarters, and how bright the picture is."""

    name = "averages"

    def describe(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n, h, w, _ = pictures.shape
        parts = pictures.reshape(n, 2, h // 2, 2, w // 2, 3).astype(np.float32)
        features = np.concatenate([parts.mean((2, 4)).reshape(n, -1), parts.std((2, 4)).reshape(n, -1)], 1)
        bright = features.mean(1, keepdims=True) / 255
        return features, np.concatenate([bright, 1 - bright], 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a classifier for it, and pictures of its classes in three colours."""
    root = tmp_path_factory.mktemp("evaluate")
    build_small_model(root / "model.safetensors")
    torch.manual_seed(0)
    save(root / "classifier.safetensors", *random_classifier(CLASSES), {})
    save(root / "other.safetensors", *random_classifier(CLASSES[:2]), {})
    for split, count in (("train", 6), ("val", 4)):
        for c, name in enumerate(CLASSES):
            place = root / "data" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = scene(64, 70, seed=10 * c + i)
                pixels[..., c] //= 2
                Image.fromarray(pixels).save(place / f"{i}.png")
    return root


def run(folder: Path, *more: str) -> None:
    evaluate.main(
        [
            str(folder / "model.safetensors"),
            "--data",
            str(folder / "data"),
            "--size",
            "64",
            "--pictures",
            "6",
            "--samples",
            "9",
            "--features",
            "tests.training.test_evaluate:Averages",
            "--qualities",
            "20,80",
            *more,
        ]
    )


@pytest.fixture(scope="module")
def report(folder: Path) -> dict:
    run(
        folder,
        "--classifier",
        str(folder / "classifier.safetensors"),
        "--json",
        str(folder / "report.json"),
        "--grids",
        str(folder / "grids"),
    )
    return json.loads((folder / "report.json").read_text())


def test_likelihoods_are_the_sizes_of_files(folder, report):
    model = Codec(folder / "model.safetensors").model
    assert [(r["quality"], r["map"]) for r in report["nll"]] == [
        (q, m) for q in (20, 80) for m in ("0", "1", "2", "3", "all")
    ]
    for row in report["nll"]:
        assert row["val_nats"] == pytest.approx(row["val_bits"] * math.log(2))
        assert row["saved"] == pytest.approx(100 - 100 * row["val_bits"] / row["zero_order"])
        assert 0 <= row["zero_order"] <= row["uniform"] + 1e-9
    maps, total = report["nll"][:4], report["nll"][4]
    for m, row in zip(model.config.autoencoder.maps, maps):
        assert row["uniform"] == pytest.approx(math.log2(m.codes))
    assert total["val_bits"] == pytest.approx(
        sum(r["val_bits"] / m.stride**2 for m, r in zip(model.config.autoencoder.maps, maps))
    )


def test_one_likelihood_by_hand(folder, report):
    """Map 1 of one picture, against the frequencies themselves."""
    run(folder, "--only", "nll", "--pictures", "1", "--qualities", "20", "--json", str(folder / "one.json"))
    codec = Codec(folder / "model.safetensors")
    from training import data

    pixels = data.evenly(folder / "data", "val", 1, crop=64).pixels[0]
    maps = codec.encode_maps(pixels, 20)
    level = codec.model.config.autoencoder.level(codec.model.config.autoencoder.position(20))
    _, frequency = ops.prior_frequencies(codec.model.priors[1], maps[1], maps[:1], (1, level))
    found = json.loads((folder / "one.json").read_text())
    assert found["nll"][1]["val_bits"] == pytest.approx(float(np.mean(24 - np.log2(frequency))))
    assert set(found) == {"model", "fingerprint", "seed", "pictures", "nll"}


def test_reconstruction(report):
    rows = report["reconstruction"]
    assert [(r["quality"], r["split"]) for r in rows] == [(20, "train"), (20, "val"), (80, "train"), (80, "val")]
    assert all(r["bpp"] > 0 and r["ms_ssim"] is None for r in rows)  # 64 pixels are too few for MS-SSIM
    assert rows[3]["psnr"] > rows[1]["psnr"] and rows[3]["mse"] < rows[1]["mse"]


def test_samples(folder, report):
    assert report["samples"]["features"] == "averages"
    sets = report["samples"]["sets"]
    assert [r["set"] for r in sets] == ["training pictures", "their reconstructions", "samples", "samples, best 1 of 4"]
    assert {r["n"] for r in sets} == {9}
    for r in sets:
        assert (
            r["frechet"] >= 0
            and r["is_style"] >= 1
            and all(0 <= r[k] <= 1 for k in ("precision", "recall", "cas", "cas*"))
        )
    assert sets[0]["cas"] == 1  # colours tell these classes apart
    assert sets[0]["frechet"] < sets[2]["frechet"]
    before, after = (Image.open(folder / "grids" / f"{name}.png") for name in ("before", "after"))
    assert before.size == after.size == (160 + 3 * 130, 3 * 130)


def test_samples_are_those_of_the_api(folder):
    """What the table measures is what ``sample(..., candidates=...)`` returns."""
    codec = Codec(folder / "model.safetensors")
    seen = []

    class Spy(Averages):
        def describe(self, pictures):
            seen.append(pictures)
            return super().describe(pictures)

    args = evaluate.arguments(
        [
            str(folder / "model.safetensors"),
            "--data",
            str(folder / "data"),
            "--size",
            "64",
            "--samples",
            "9",
            "--seed",
            "5",
            "--classifier",
            str(folder / "classifier.safetensors"),
        ]
    )
    evaluate.samples(codec, Spy(), args)
    before, after = seen[-2:]
    ours = Classifier(load(folder / "classifier.safetensors"))
    for place, number in ((0, 1), (3, 2), (6, 3)):
        seed = 5 + (number << 32)
        drawn = codec.sample(number, 3, size=(64, 64), seed=seed)
        best = codec.sample(number, 3, candidates=12, size=(64, 64), seed=seed, classifier=ours)
        assert np.array_equal(before[place : place + 3], [p.pixels for p in drawn])
        assert np.array_equal(after[place : place + 3], [p.pixels for p in best])


def test_without_a_critic_for_the_classes(folder, capsys, tmp_path):
    run(folder, "--only", "samples", "--json", str(tmp_path / "r.json"), "--grids", str(tmp_path / "g"))
    printed = capsys.readouterr()
    assert "no rejection" in printed.err and "averages" in printed.out
    assert [r["set"] for r in json.loads((tmp_path / "r.json").read_text())["samples"]["sets"]][2:] == ["samples"]
    assert [f.name for f in (tmp_path / "g").iterdir()] == ["before.png"]
    with pytest.raises(SystemExit, match=r"other\.safetensors: its classes are not those of the model"):
        run(folder, "--only", "samples", "--classifier", str(folder / "other.safetensors"))


def test_same_seed_same_figures(folder, report):
    run(folder, "--classifier", str(folder / "classifier.safetensors"), "--json", str(folder / "again.json"))
    assert json.loads((folder / "again.json").read_text()) == report


def test_wrong_usage(folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(folder, "--only", "nll,beauty")
    assert "--only takes a list of nll, reconstruction, samples" in capsys.readouterr().err
    for option, value, complaint in (
        ("--samples", "3", "at least 4"),
        ("--qualities", "10,x", "qualities"),
        ("--qualities", "101", "qualities"),
    ):
        with pytest.raises(SystemExit, match="2"):
            run(folder, option, value)
        assert complaint in capsys.readouterr().err
    with pytest.raises(SystemExit, match="none.safetensors"):
        evaluate.main([str(folder / "none.safetensors"), "--data", str(folder / "data")])


def test_the_table_lines_up(capsys):
    evaluate.show("Title", [{"set": "a", "n": 10, "x": 0.01234}, {"set": "long name", "n": 9, "x": None}])
    assert (
        capsys.readouterr().out == "\nTitle\nset         n        x\na          10  0.01234\nlong name   9        -\n"
    )


def test_reconstruction_has_ms_ssim_from_176_pixels(folder):
    codec = Codec(folder / "model.safetensors")
    crops = evaluate.Crops(scene(176, 176)[None], np.array([1]), CLASSES)
    row = evaluate.reconstruction(codec, crops, "val", 50)
    maps = codec.encode_maps(crops.pixels[0], 50)
    assert row["ms_ssim"] == pytest.approx(metrics.ms_ssim(crops.pixels[0], codec.decode_pixels(maps, 176, 176)))
