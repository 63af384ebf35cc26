"""The classifier, its file, and sampling with rejection; tests/training/test_classifier.py has its training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import vqcodec
from tests.conftest import scene
from tests.support.classifiers import random_classifier
from vqcodec import cli
from vqcodec.codec import classifier
from vqcodec.errors import InvalidArgument, ModelError
from vqcodec.model import tensors
from vqcodec.model.classifier import DEFAULT, IntegerClassifier, build, load, save

SIZE = (32, 32)


def brightness(pictures: list[Image.Image], class_id: int) -> list[float]:
    return [float(np.mean(picture)) for picture in pictures]


def equal(a: list[Image.Image], b: list[Image.Image]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b))


# -- sampling with a classifier ----------------------------------------------------------------


class TestCandidates:
    @pytest.mark.slow
    def test_the_best_come_first(self, small_model):
        drawn = vqcodec.sample("dog", 6, size=SIZE, seed=3, model=small_model)
        best = vqcodec.sample("dog", 3, size=SIZE, seed=3, candidates=6, classifier=brightness, model=small_model)
        order = np.argsort([-b for b in brightness(drawn, 2)])
        assert equal(best, [drawn[i] for i in order[:3]])
        again = vqcodec.sample("dog", candidates=6, keep=3, size=SIZE, seed=3, classifier=brightness, model=small_model)
        assert equal(best, again)

    @pytest.mark.slow
    def test_what_the_classifier_is_given(self, small_model):
        calls = []

        def indifferent(pictures, class_id):
            calls.append((class_id, [p.size for p in pictures], {p.mode for p in pictures}))
            return np.zeros(len(pictures), np.float32)

        found = vqcodec.sample("owl", 2, size=(20, 30), candidates=4, classifier=indifferent, model=small_model)
        assert calls == [(3, [(20, 30)] * 4, {"RGB"})]
        assert equal(found, vqcodec.sample("owl", 2, size=(20, 30), model=small_model))  # equals stay in order
        vqcodec.sample(None, 1, size=SIZE, candidates=2, classifier=indifferent, model=small_model)
        assert calls[-1][0] == 0  # a classifier of one's own may score pictures of no class
        assert vqcodec.sample("owl", 0, size=SIZE, candidates=2, classifier=indifferent, model=small_model) == []

    @pytest.mark.parametrize(
        "arguments, complaint",
        [
            ({"keep": 1}, "number of candidates"),
            ({"classifier": brightness}, "number of candidates"),
            ({"n": 3, "candidates": 2, "classifier": brightness}, "cannot keep 3 of 2"),
            ({"keep": 3, "candidates": 2, "classifier": brightness}, "cannot keep 3 of 2"),
            ({"n": 2, "keep": 3, "candidates": 4, "classifier": brightness}, "n and keep both"),
            ({"keep": 1.5, "candidates": 2, "classifier": brightness}, "keep must be a whole number"),
            ({"candidates": 0, "classifier": brightness}, "candidates must be a whole number"),
            ({"candidates": True, "classifier": brightness}, "candidates must be a whole number"),
            ({"candidates": 2, "classifier": "classifier"}, "callable, got str"),
            ({"candidates": 2, "classifier": lambda p, c: [1.0]}, "2 finite scores, got 1"),
            ({"candidates": 2, "classifier": lambda p, c: [0.0, float("nan")]}, "2 finite scores"),
            ({"candidates": 2, "classifier": lambda p, c: ["good", "bad"]}, "must return numbers"),
            ({"candidates": 2}, "your own classifier"),  # the shipped one does not know cats, dogs and owls
        ],
    )
    def test_unusable_arguments(self, small_model, arguments, complaint):
        with pytest.raises(InvalidArgument, match=complaint):
            vqcodec.sample(**{"class_id": 1, "size": (16, 16), "model": small_model, **arguments})

    def test_an_error_of_the_classifier_passes_through(self, small_model):
        with pytest.raises(ZeroDivisionError):
            vqcodec.sample(1, candidates=2, size=(16, 16), classifier=lambda p, c: 1 / 0, model=small_model)

    @pytest.mark.slow
    def test_on_the_command_line(self, tmp_path, monkeypatch, capsys):
        assert (
            cli.main(
                [
                    "sample",
                    "flower-roses",
                    "-n",
                    "2",
                    "--candidates",
                    "3",
                    "--size",
                    "32x32",
                    "-o",
                    str(tmp_path / "%d.png"),
                ]
            )
            == 0
        )
        assert "2 chosen from 3" in capsys.readouterr().err
        best = vqcodec.sample("flower-roses", 2, candidates=3, size=SIZE)
        assert equal(best, [Image.open(tmp_path / f"{i}.png") for i in range(2)])
        assert (
            cli.main(["sample", "1", "-n", "4", "--candidates", "3", "--size", "16x16", "-o", str(tmp_path / "x.png")])
            == 1
        )
        assert "cannot keep 4 of 3" in capsys.readouterr().err
        assert cli.main(["sample", "0", "--candidates", "3", "--size", "16x16", "-o", str(tmp_path / "x.png")]) == 1
        assert "0 means no class" in capsys.readouterr().err


# -- the shipped classifier --------------------------------------------------------------------


class TestShipped:
    def test_it_is_small_and_says_how_good_it_is(self):
        found = classifier.shipped()
        assert DEFAULT.stat().st_size < 1.5e6
        validation = found.card["validation"]
        assert validation["pictures"] > 600 and validation["accuracy"] > 0.6
        assert set(validation["per_class"]) == set(found.classes)
        assert "CC0" in found.card["licence"]

    def test_its_classes_are_the_shipped_models(self):
        assert classifier.shipped().classes == vqcodec.Codec().model.config.classes

    @pytest.mark.slow
    def test_scores_are_probabilities_of_any_size_of_picture(self):
        pictures = [Image.fromarray(scene(h, w)) for h, w in ((256, 256), (40, 300), (1, 1), (128, 128))]
        pictures += [pictures[0].convert("L"), pictures[0].convert("RGBA")]
        found = classifier.shipped().probabilities(pictures)
        assert found.shape == (6, 16) and np.allclose(found.sum(1), 1) and (found >= 0).all()
        assert np.array_equal(classifier.shipped()(pictures, 3), found[:, 2])
        assert np.allclose(found[0], found[5])  # without alpha the same picture
        assert classifier.shipped().probabilities([]).shape == (0, 16)

    @pytest.mark.slow
    def test_batches_do_not_matter(self):
        pictures = [scene(64, 64, s) for s in range(18)]
        together = classifier.shipped()(pictures, 1)
        assert np.array_equal(together, [classifier.shipped()([p], 1)[0] for p in pictures])

    @pytest.mark.parametrize("class_id", [0, 17])
    def test_other_classes_are_refused(self, class_id):
        with pytest.raises(InvalidArgument, match="classes 1 to 16"):
            classifier.shipped()([], class_id)

    @pytest.mark.slow
    def test_it_raises_the_score_of_samples(self):
        drawn = vqcodec.sample("flower-sunflowers", 8, size=(128, 128), seed=5)
        best = vqcodec.sample("flower-sunflowers", 2, candidates=8, size=(128, 128), seed=5)
        number = classifier.shipped().classes.index("flower-sunflowers") + 1
        scores = classifier.shipped()(drawn, number)
        assert np.array_equal(classifier.shipped()(best, number), sorted(scores, reverse=True)[:2])


# -- scoring -------------------------------------------------------------------------------


def test_the_input_is_the_mean_of_areas():
    picture = scene(256, 300)
    expected = picture[:, 22:278].astype(float).reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.array_equal(classifier.prepared(picture, 128), np.floor(expected + 0.5))
    assert np.array_equal(classifier.prepared(picture[:3, :5], 6), picture[:3, 1:4].repeat(2, 0).repeat(2, 1))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_areas_of_any_size(height, width, side):
    picture = scene(height, width)
    length = min(height, width)
    y, x = (height - length) // 2, (width - length) // 2
    found = classifier.prepared(picture, side)
    for i, j in {(0, 0), (side - 1, side // 2), (side // 2, side - 1)}:
        rows, columns = (slice(k * length // side, -(-(k + 1) * length // side)) for k in (i, j))
        mean = picture[y : y + length, x : x + length][rows, columns].reshape(-1, 3).astype(float).mean(0)
        assert np.array_equal(found[i, j], np.floor(mean + 0.5))


@pytest.mark.parametrize("backend", ["reference", "scalar"])
def test_all_backends_give_the_same_scores(backend):
    config, tensors = random_classifier(("cat", "dog"))
    loaded = IntegerClassifier(config, build(config, tensors), {})
    pictures = [scene(50, 70, seed) for seed in range(3)]
    expected = classifier.Classifier(loaded).logits(pictures)
    assert np.array_equal(classifier.Classifier(loaded, backend=backend).logits(pictures), expected)
    assert len(np.unique(expected)) == 6


# -- files ---------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "classifier.safetensors"
    save(path, *random_classifier(("cat", "dog")), {"note": "random"})
    return path


def test_a_file_comes_back(stored):
    config, arrays = random_classifier(("cat", "dog"))
    found = load(stored)
    assert found.config == config and found.card == {"note": "random"}
    pictures = [scene(200, 128)]
    expected = classifier.Classifier(IntegerClassifier(config, build(config, arrays), {})).logits(pictures)
    assert np.array_equal(classifier.Classifier(found).logits(pictures), expected)
    before = stored.read_bytes()
    save(stored, config, arrays, {"note": "random"})
    assert stored.read_bytes() == before


def rewritten(path: Path, change=lambda arrays: None, **changes: object) -> Path:
    arrays, texts = tensors.read(path)
    change(arrays)
    config = json.loads(texts["config"]) | {k: v for k, v in changes.items() if k != "format"}
    tensors.write(path, arrays, {"format": str(changes.get("format", texts["format"])), "config": json.dumps(config)})
    return path


@pytest.mark.parametrize(
    "change, described, complaint",
    [
        (lambda t: t.pop("stem.weight"), {}, "stem.weight: expected"),
        (lambda t: t.update({"more": np.zeros(1, np.int8)}), {}, "unexpected tensors more"),
        (lambda t: t.update({"stem.weight": t["stem.weight"].astype(np.int16)}), {}, "stem.weight: expected"),
        (lambda t: t.update({"stem.weight": t["stem.weight"][..., :2]}), {}, "stem.weight: expected"),
        (lambda t: t["head.bias"].fill(2**31 - 1), {}, "head"),
        (lambda t: None, {"format": "vqcodec-classifier-9"}, "found 'vqcodec-classifier-9'"),
        (lambda t: None, {"classes": ["cat", "dog", "owl"]}, "head.weight: expected"),
        (lambda t: None, {"classes": []}, "list of class names"),
        (lambda t: None, {"classes": [1, 2]}, "list of class names"),
        (lambda t: None, {"classes": None}, "not a classifier"),
        (lambda t: None, {"widths": [8, 1 << 40]}, "widths"),
        (lambda t: None, {"widths": []}, "widths"),
        (lambda t: None, {"side": 33}, "side must be"),
        (lambda t: None, {"side": 1 << 40}, "side must be"),
        (lambda t: None, {"side": "32"}, "not a classifier|side must be"),
        (lambda t: None, {"card": 1}, "not a classifier"),
    ],
)
def test_damaged_files(stored, change, described, complaint):
    with pytest.raises(ModelError, match=complaint):
        load(rewritten(stored, change, **described))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 64])
def test_other_files(tmp_path, content):
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="classifier c.safetensors"):
        load(path)
    with pytest.raises(ModelError, match="classifier none"):
        load(tmp_path / "none")
    for texts in ({}, {"config": "{"}, {"format": "x", "config": "[]"}, {"format": "x", "config": "{}"}):
        tensors.write(path, {"head.bias": np.zeros(2, np.int8)}, texts)
        with pytest.raises(ModelError, match="not a classifier"):
            load(path)
    with pytest.raises(ModelError, match="not a classifier"):
        load(vqcodec.model.file.DEFAULT)
