"""Recipes: TOML files that say what to train and how long."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Data:
    """Pictures, see :mod:`training.data`."""

    crop: int = 256  #: side of the square crops that are kept, in pixels
    crops: int = 1  #: of every picture: more for a folder of few and large ones
    photo_crops: int = 64  #: of every picture in ROOT/photos
    lossless_crops: int = 8  #: of every picture in ROOT/lossless that is not kept out
    synthetic: int = 0  #: pictures that are drawn: training/synthetic.py


@dataclass(frozen=True)
class Stage1:
    """Autoencoder training. Batches are shared by all processes."""

    steps: int
    batch: int = 16
    crop: int = 128  #: side of the training crops, cut at random from those of `Data`
    learning_rate: float = 4e-4
    #: Share of the distortion that is structure and colour (training/perceptual.py); the rest is squared error.
    perceptual: float = 0.0
    warmup: int = 200
    clip: float = 0.05
    average: float = 0.999  #: decay of the averaged weights that are shipped
    drop_maps: float = 0.1  #: how often the finer maps are left out
    quantize_from: float = 0.8  #: share of the steps after which planes and weights are rounded, below 1
    save_every: int = 500


@dataclass(frozen=True)
class Codes:
    """Code extraction: what stage 2 is trained on."""

    passes: int = 4  #: over all crops, each crop mirrored or not and at another rate in every pass
    batch: int = 8  #: crops encoded at a time, at one rate


@dataclass(frozen=True)
class Stage2:
    """Prior training, all maps side by side. ``steps`` and ``batch``: one number, or one for every map."""

    steps: int | list[int]
    batch: int | list[int] = 8
    micro_batch: int = 0  #: maps at a time per process; gradients add up to the batch (0: all at once)
    matrix_rate: float = 5e-3  #: learning rate of the convolutions (Muon)
    learning_rate: float = 2e-3  #: of logits, embeddings and biases (Adam)
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
    data: Data = field(default_factory=Data)
    codes: Codes = field(default_factory=Codes)
    card: dict[str, Any] = field(default_factory=dict)  #: goes into the model file: data, licences, notes


def of_map(value: int | list[int], m: int) -> int:
    """The number for map ``m``."""
    if isinstance(value, int):
        return value
    if m >= len(value):
        raise SystemExit(f"the recipe has numbers for {len(value)} maps, none for map {m}")
    return value[m]


def load(path: Path) -> Recipe:
    """Read a recipe; an unknown or missing key ends the program with its name."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    sections = {"stage1": Stage1, "stage2": Stage2, "data": Data, "codes": Codes}
    try:
        return Recipe(**{key: sections[key](**value) if key in sections else value for key, value in data.items()})
    except TypeError as error:
        raise SystemExit(f"{path}: {error}") from error
