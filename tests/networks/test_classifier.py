"""The classifier, its file, its training, and sampling with rejection."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import vqcodec
from tests.conftest import scene
from training import classifier as training
from vqcodec import cli
from vqcodec.errors import InvalidArgument, ModelError
from vqcodec.networks import classifier

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
        assert classifier.DEFAULT.stat().st_size < 1.5e6
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
        together = classifier.shipped().score(pictures, 1)
        assert np.allclose(together, [classifier.shipped().score([p], 1)[0] for p in pictures], atol=1e-6)

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
        assert np.allclose(classifier.shipped()(best, number), sorted(scores, reverse=True)[:2], atol=1e-6)


# -- files ---------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "classifier.safetensors"
    classifier.save(path, classifier.Network(2), ["cat", "dog"], {"note": "random"})
    return path


def test_a_file_comes_back(stored):
    torch.manual_seed(0)
    network = classifier.Network(2).half().float()
    found = classifier.load(stored)
    assert found.classes == ("cat", "dog") and found.card == {"note": "random"}
    pictures = [scene(200, 128)]
    assert np.allclose(
        found.probabilities(pictures), classifier.Classifier(network, ("cat", "dog"), {}).probabilities(pictures)
    )


def test_the_input_is_the_mean_of_areas():
    picture = scene(256, 300)
    expected = picture[:, 22:278].astype(float).reshape(128, 2, 128, 2, 3).mean((1, 3)) / 255
    assert np.allclose(classifier.prepared(picture)[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def rewritten(path: Path, change=lambda tensors: None, **metadata: object) -> Path:
    tensors = load_file(path)
    change(tensors)
    description = {"format": classifier.FORMAT, "classes": ["cat", "dog"], "card": {}, **metadata}
    save_file(tensors, path, {"description": json.dumps(description)})
    return path


@pytest.mark.parametrize(
    "change, metadata, complaint",
    [
        (lambda t: t.pop("stem.weight"), {}, "stem.weight does not fit"),
        (lambda t: t.update({"more": torch.zeros(1)}), {}, "more does not fit"),
        (lambda t: t.update({"stem.weight": t["stem.weight"].float()}), {}, "stem.weight does not fit"),
        (lambda t: t.update({"stem.weight": t["stem.weight"][:, :2].contiguous()}), {}, "stem.weight does not fit"),
        (lambda t: t["head.bias"].fill_(float("nan")), {}, "not finite"),
        (lambda t: None, {"format": "vqcodec-classifier-9"}, "found vqcodec-classifier-9"),
        (lambda t: None, {"classes": ["cat", "dog", "owl"]}, "3 classes do not fit"),
        (lambda t: None, {"classes": []}, "list of class names"),
        (lambda t: None, {"classes": {"cat": 1}}, "list of class names"),
        (lambda t: None, {"card": 1}, "list of class names"),
    ],
)
def test_damaged_files(stored, change, metadata, complaint):
    with pytest.raises(ModelError, match=complaint):
        classifier.load(rewritten(stored, change, **metadata))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 64])
def test_other_files(tmp_path, content):
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="classifier c.safetensors"):
        classifier.load(path)
    with pytest.raises(ModelError, match="classifier none"):
        classifier.load(tmp_path / "none")
    for metadata in ({}, {"description": "{"}, {"description": "[]"}, {"description": "{}"}):
        save_file({"head.bias": torch.zeros(2)}, path, metadata)
        with pytest.raises(ModelError, match="not a classifier"):
            classifier.load(path)
    with pytest.raises(ModelError, match="not a classifier"):
        classifier.load(vqcodec.model.file.DEFAULT)


# -- training ------------------------------------------------------------------------------


@pytest.fixture
def one_thread():
    """What ``--threads 1`` sets, undone."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright cats and dark dogs: a class is a matter of brightness."""
    root = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 6), ("val", 3)):
        for name, low, high in (("cats", 0.5, 1.0), ("dogs", 0.0, 0.5)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = 255 * low + scene(256, 256, seed=i) * (high - low)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.mark.slow
def test_training_is_deterministic_and_goes_on_from_its_checkpoint(pictures, tmp_path, monkeypatch, capsys, one_thread):
    def train(name: str) -> Path:
        out = tmp_path / f"{name}.safetensors"
        training.main(
            [
                "--data",
                str(pictures),
                "--work",
                str(tmp_path / name),
                "--cache",
                str(tmp_path),
                "--out",
                str(out),
                "--steps",
                "6",
                "--threads",
                "1",
            ]
        )
        return out

    monkeypatch.setattr(training, "BATCH", 8)
    monkeypatch.setattr(training, "SAVE_EVERY", 2)
    straight = train("straight")
    printed = capsys.readouterr().out
    assert "step 6" in printed and "accuracy" in printed
    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupted.setattr(training.checkpoint, "save", stop_after(training.checkpoint.save, 2))
        train("resumed")
    capsys.readouterr()
    assert train("resumed").read_bytes() == straight.read_bytes()
    assert "step 4" not in (printed := capsys.readouterr().out) and "step 6" in printed
    card = classifier.load(straight).card
    assert card["steps"] == 6 and card["pictures"] == 12 and card["validation"]["pictures"] == 6


def stop_after(function, calls):
    """``function``, which interrupts the program when it has been called so many times."""
    left = [calls]

    def wrapped(*arguments):
        function(*arguments)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    return wrapped
