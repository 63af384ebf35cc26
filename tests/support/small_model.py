"""The small model of the tests: a transform codec of the tiny preset with random priors. To make it again:

python -m tests.support.small_model
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from tests.conftest import SMALL_MODEL, scene
from tests.support.networks import random_prior
from training.export import export
from training.networks.autoencoder import Autoencoder
from training.networks.quantizer import Rate
from vqcodec.model import file
from vqcodec.model.config import preset
from vqcodec.model.file import Model


def build_small_model(path: Path) -> Model:
    """A model file of the tiny preset: a transform codec with random priors."""
    config = dataclasses.replace(preset("tiny"), classes=("cat", "dog", "owl"))
    auto = config.autoencoder
    torch.manual_seed(0)
    autoencoder = Autoencoder(auto)
    pictures = torch.from_numpy(np.stack([scene(128, 128, s) for s in range(4)])).permute(0, 3, 1, 2).float() / 255
    autoencoder.start(pictures, Rate.at(auto, 0.6))
    priors = [
        random_prior(p, auto.maps[: m + 1], m, classes=3, levels=auto.levels) for m, p in enumerate(config.priors)
    ]
    export(path, config, autoencoder, priors, card={"data": "synthetic"})
    return file.load(path)


if __name__ == "__main__":
    build_small_model(SMALL_MODEL)
