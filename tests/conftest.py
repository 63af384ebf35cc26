"""Shared fixtures: a picture of our own making, and a small model built in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.networks import random_prior
from training.export import export
from vqcodec.models import file
from vqcodec.models.autoencoder import Autoencoder
from vqcodec.models.config import AutoencoderConfig, CodeMap, ModelConfig, PriorConfig
from vqcodec.models.file import Model
from vqcodec.models.quantizer import Rate


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A synthetic picture, H x W x 3 uint8: gradients, an edge, a disc, texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 64
    picture = np.stack([0.5 + 0.4 * np.sin(x * a + seed) * np.cos(y * b) for a, b in ((1, 2), (1.5, 1), (0.7, 2.5))], 2)
    picture[(x - 1.5) ** 2 + (y - 1) ** 2 < 0.5] = (0.9, 0.3, 0.1)
    picture[:, width // 3 : width // 3 + 3] *= 0.4
    picture += rng.normal(0, 0.02, picture.shape)
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


def build_small_model(path: Path) -> Model:
    """A model file with every feature: two strides, a residual map, attention, conditioning."""
    maps = (CodeMap(16, 4, 32), CodeMap(8, 2, 16), CodeMap(8, 4, 24), CodeMap(8, 4, 16, residual=True))
    auto = AutoencoderConfig(maps=maps, hidden=24, residual=8, encoder_blocks=1, decoder_blocks=1, refine=8, refine_blocks=1)
    top = PriorConfig(hidden=16, residual=8, layers=2, attention_layers=1, heads=2, output_layers=1, condition_blocks=0)
    fine = PriorConfig(hidden=16, residual=8, layers=2, embedding=4, condition_embedding=4, condition_residual=8)
    config = ModelConfig("small", auto, (top, fine, fine, fine), classes=("cat", "dog", "owl"))
    torch.manual_seed(0)
    autoencoder = Autoencoder(auto)
    pictures = torch.from_numpy(np.stack([scene(128, 128, s) for s in range(4)])).permute(0, 3, 1, 2).float() / 255
    autoencoder.start(pictures, Rate.at(auto, 0.6))
    priors = [random_prior(p, maps[: m + 1], m, classes=3, levels=auto.levels) for m, p in enumerate(config.priors)]
    for prior in priors:  # tables that favour some codes, as trained ones do
        with torch.no_grad():
            prior.logits.weight.mul_(0.5)
    export(path, config, autoencoder, priors, card={"data": "synthetic"})
    return file.load(path)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return build_small_model(tmp_path_factory.mktemp("model") / "small.safetensors")
