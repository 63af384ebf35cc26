"""Model files with the float autoencoder that vqcodec.networks still computes with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.networks.prior import Prior
from vqcodec.model import file, fixed_point
from vqcodec.model.config import ModelConfig
from vqcodec.networks.autoencoder import Autoencoder


def export(path: Path, config: ModelConfig, autoencoder: Autoencoder, priors: Sequence[Prior], card: dict) -> None:
    """Write a model file."""
    found: dict[str, np.ndarray] = {
        "tables/tanh": fixed_point.tanh_table(),
        "tables/sigmoid": fixed_point.sigmoid_table(),
        "tables/exp": fixed_point.exp_table(),
    }
    for name, value in autoencoder.state_dict().items():
        if not file.training_only(name):
            parts = file.stored(name, value.detach().float().contiguous().numpy())
            found |= {f"autoencoder/{part}": array for part, array in parts.items()}
    for m, prior in enumerate(priors):
        found |= {f"prior.{m}/{name}": array for name, array in prior.export().items()}
    file.save(path, dataclasses.replace(config, card=card), found)
