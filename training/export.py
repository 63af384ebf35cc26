"""Stage 3: trained networks -> one model file of integer tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.networks.autoencoder import Autoencoder
from training.networks.prior import Prior
from vqcodec.model import file, fixed_point
from vqcodec.model.autoencoder import load_autoencoder
from vqcodec.model.config import ModelConfig


def tensors(autoencoder: Autoencoder, priors: Sequence[Prior]) -> dict[str, np.ndarray]:
    """All tensors of a model file by name.

    Raises :class:`~vqcodec.errors.ModelError` if a sum of the autoencoder could leave int32.
    """
    exported = autoencoder.export()
    load_autoencoder(autoencoder.config, exported)
    found = {
        "tables/tanh": fixed_point.tanh_table(),
        "tables/sigmoid": fixed_point.sigmoid_table(),
        "tables/exp": fixed_point.exp_table(),
        **{f"autoencoder/{name}": array for name, array in exported.items()},
    }
    for m, prior in enumerate(priors):
        found.update({f"prior.{m}/{name}": array for name, array in prior.export().items()})
    return found


def export(path: Path, config: ModelConfig, autoencoder: Autoencoder, priors: Sequence[Prior], card: dict) -> None:
    """Write a model file; refuses networks whose sums could overflow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save(path, dataclasses.replace(config, card=card), tensors(autoencoder, priors))
