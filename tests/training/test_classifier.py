"""Training of the classifier: float, folded into fixed point, exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import scene
from training import classifier as training
from training.networks.classifier import FixedClassifier, FloatClassifier, folded
from training.networks.fixed_point import calibrate
from vqcodec.codec.classifier import Classifier
from vqcodec.model.classifier import ClassifierConfig, IntegerClassifier, build, load

CONFIG = ClassifierConfig(("cat", "dog", "owl"), widths=(8, 12), side=32)


def pixels_of(count: int) -> torch.Tensor:
    return torch.stack([torch.from_numpy(scene(32, 32, seed)).permute(2, 0, 1) for seed in range(count)])


def folded_network() -> tuple[FloatClassifier, FixedClassifier]:
    """A random float network whose normalisations have seen pictures, and what is folded from it."""
    torch.manual_seed(0)
    network = FloatClassifier(CONFIG)
    for norm in (module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, std=0.2)
        norm.momentum = None
    network.train()
    for _ in range(3):
        network(pixels_of(16) / 255)
    network.eval()
    fixed = folded(network, CONFIG)
    calibrate(fixed, lambda: fixed(pixels_of(16), quantized=False))
    fixed.align()
    return network, fixed


@torch.no_grad()
def test_folding_changes_only_the_edges():
    network, fixed = folded_network()
    x = torch.full((1, 3, 32, 32), 77, dtype=torch.uint8)
    # The edge is repeated instead of padded by zeros; in the middle of a large enough picture both agree.
    wide = torch.full((1, 3, 256, 256), 77, dtype=torch.uint8)
    h = network.blocks(torch.relu(network.stem_norm(network.stem(2 * wide / 255 - 1))))
    middle = h[:, :, h.shape[2] // 2, h.shape[3] // 2]
    torch.testing.assert_close(fixed(x, quantized=False), network.head(middle), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_it_computes_what_it_exports():
    _, fixed = folded_network()
    exact = fixed.double()
    loaded = IntegerClassifier(CONFIG, build(CONFIG, fixed.export()), {})
    pictures = [scene(32, 32, seed) for seed in range(5)]
    assert np.array_equal(exact(pixels_of(5)).numpy(), Classifier(loaded).logits(pictures))
    near = fixed(pixels_of(5), quantized=False)
    assert (exact(pixels_of(5)) - near).abs().max() < 0.1 * near.abs().max()


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
@pytest.mark.parametrize("saves", [2, 4])  # in the float network's training, in the fixed-point one's
def test_training_is_deterministic_and_goes_on_from_its_checkpoint(
    saves, pictures, tmp_path, monkeypatch, capsys, one_thread
):
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
                "--fixed-steps",
                "4",
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
        interrupted.setattr(training.checkpoint, "save", stop_after(training.checkpoint.save, saves))
        train("resumed")
    capsys.readouterr()
    assert train("resumed").read_bytes() == straight.read_bytes()
    card = load(straight).card
    assert (
        card["steps"] == 6
        and card["fixed_steps"] == 4
        and card["pictures"] == 12
        and card["validation"]["pictures"] == 6
    )


def stop_after(function, calls):
    """``function``, which interrupts the program when it has been called so many times."""
    left = [calls]

    def wrapped(*arguments):
        function(*arguments)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    return wrapped
