"""Stage 3: trained networks -> one model file (integer priors, autoencoder in int8 and float16)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.networks.prior import Prior
from vqcodec.model import file, fixed_point
from vqcodec.model.config import ModelConfig
from vqcodec.networks.autoencoder import Autoencoder


def tensors(autoencoder: Autoencoder, priors: Sequence[Prior]) -> dict[str, np.ndarray]:
    """All tensors of a model file by name."""
    found = {
        "tables/tanh": fixed_point.tanh_table(),
        "tables/sigmoid": fixed_point.sigmoid_table(),
        "tables/exp": fixed_point.exp_table(),
    }
    for name, value in autoencoder.state_dict().items():
        if not file.training_only(name):
            parts = file.stored(name, value.detach().float().contiguous().numpy())
            found.update({f"autoencoder/{part}": array for part, array in parts.items()})
    for m, prior in enumerate(priors):
        found.update({f"prior.{m}/{name}": array for name, array in prior.export().items()})
    return found


def export(path: Path, config: ModelConfig, autoencoder: Autoencoder, priors: Sequence[Prior], card: dict) -> None:
    """Write a model file; refuses priors whose accumulators could overflow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save(path, dataclasses.replace(config, card=card), tensors(autoencoder, priors))
