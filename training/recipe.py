"""Recipes: TOML files that say what to train and how long."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Stage1:
    """Autoencoder training."""

    steps: int
    batch: int = 16
    crop: int = 128
    learning_rate: float = 4e-4
    warmup: int = 200
    clip: float = 0.05
    average: float = 0.999  #: decay of the averaged weights that are shipped
    drop_maps: float = 0.1  #: how often the finer maps are left out
    save_every: int = 500


@dataclass(frozen=True)
class Stage2:
    """Prior training, all maps side by side."""

    steps: int
    batch: int = 8
    learning_rate: float = 2e-3
    warmup: int = 200
    clip: float = 1.0
    quantize_from: float = 0.5  #: share of the steps after which activations and weights are quantised
    average: float = 0.998  #: decay of the averaged weights that are shipped
    drop_class: float = 0.3  #: how often the class is withheld, so that one prior serves codec and sampler
    save_every: int = 500


@dataclass(frozen=True)
class Recipe:
    preset: str
    seed: int
    stage1: Stage1
    stage2: Stage2
    card: dict[str, Any]  #: goes into the model file: data, licences, notes


def load(path: Path) -> Recipe:
    """Read a recipe; an unknown or missing key ends the program with its name."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    try:
        return Recipe(preset=data["preset"], seed=data["seed"], stage1=Stage1(**data["stage1"]), stage2=Stage2(**data["stage2"]), card=data.get("card", {}))
    except (KeyError, TypeError) as error:
        raise SystemExit(f"{path}: {error}") from error
