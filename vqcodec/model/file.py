"""Model files: safetensors with a JSON description (docs/FORMAT.md, "Model file").

No pickle, no download. Loading checks every tensor.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vqcodec.errors import ModelError
from vqcodec.locks import Lock
from vqcodec.model import tensors as tensor_file
from vqcodec.model.autoencoder import load_autoencoder
from vqcodec.model.config import ModelConfig
from vqcodec.model.prior import IntegerPrior, Tables, load_prior

FORMAT = "vqcodec-model-1"
DEFAULT = Path(__file__).parent / "weights" / "default.safetensors"


class Model:
    """A loaded model: description, integer priors, integer autoencoder.

    ``fingerprint`` is the SHA-256 of everything that decoding depends on; files carry its
    first 16 bytes.
    """

    def __init__(self, config: ModelConfig, tensors: Mapping[str, np.ndarray]) -> None:
        self.config = config
        self.tensors = dict(tensors)
        self.fingerprint = fingerprint(config, tensors)
        groups: dict[str, dict[str, np.ndarray]] = {}
        for name, array in tensors.items():
            group, _, rest = name.partition("/")
            groups.setdefault(group, {})[rest] = array
        try:
            tables = Tables(**groups.pop("tables", {}))
        except TypeError as error:
            raise ModelError(f"tables: {error}") from error
        auto = config.autoencoder
        self.priors: tuple[IntegerPrior, ...] = tuple(
            load_prior(
                prior, auto.maps[: m + 1], len(config.classes), auto.levels, groups.pop(f"prior.{m}", {}), tables
            )
            for m, prior in enumerate(config.priors)
        )
        self.autoencoder = load_autoencoder(auto, groups.pop("autoencoder", {}))
        if groups:
            raise ModelError(f"unexpected tensors: {', '.join(sorted(groups))}")

    def __repr__(self) -> str:
        return f"<Model {self.name}, {self.fingerprint.hex()[:16]}>"

    @property
    def name(self) -> str:
        return self.config.name


def fingerprint(config: ModelConfig, tensors: Mapping[str, np.ndarray]) -> bytes:
    """SHA-256 (32 bytes) over the description (without the card and what only encoders read) and all tensors in name order."""
    description = config.to_json()
    del description["card"], description["autoencoder"]["distortion_weights"]
    digest = hashlib.sha256(json.dumps(description, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name], tensors[name].dtype.newbyteorder("<"))
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.digest()


def save(path: str | os.PathLike[str], config: ModelConfig, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a model file (a temporary file beside ``path``, then a rename)."""
    Model(config, tensors)  # refuses what could not be loaded
    tensor_file.write(path, tensors, {"format": FORMAT, "config": json.dumps(config.to_json())})


def load(path: str | os.PathLike[str] | None = None) -> Model:
    """The model in a file, or the shipped one. Loaded once per process and file version.

    Raises :class:`~vqcodec.errors.ModelError` if the file is not a sound model.
    """
    file = DEFAULT if path is None else Path(path)
    try:
        stat = file.stat()
    except OSError as error:
        raise ModelError(f"model file {file.name}: {error.strerror}") from error
    name, version = str(file.resolve()), (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    with _LOCK:
        if name not in _LOADED or _LOADED[name][0] != version:
            _LOADED[name] = version, _read(file)
        return _LOADED[name][1]


def read_config(path: str | os.PathLike[str] | None = None) -> ModelConfig:
    """Only the description of a model file."""
    return _read_config(DEFAULT if path is None else Path(path))


#: By path: which version of the file, and what was in it.
_LOADED: dict[str, tuple[tuple[int, ...], Model]] = {}
_LOCK = Lock()


def _read(file: Path) -> Model:
    try:
        tensors, texts = tensor_file.read(file)
    except (OSError, ValueError) as error:
        raise ModelError(f"model file {file.name}: not a vqcodec model ({error})") from error
    config = _described(file, texts)
    try:
        return Model(config, tensors)
    except RecursionError as error:
        raise ModelError(f"model file {file.name}: its card is nested too deeply") from error


def _read_config(file: Path) -> ModelConfig:
    try:
        texts = tensor_file.read_metadata(file)
    except (OSError, ValueError) as error:
        raise ModelError(f"model file {file.name}: not a vqcodec model ({error})") from error
    return _described(file, texts)


def _described(file: Path, texts: Mapping[str, str]) -> ModelConfig:
    """The configuration in a model file's metadata."""
    try:
        version, config = texts["format"], json.loads(texts["config"])
    except (ValueError, KeyError, RecursionError) as error:
        raise ModelError(f"model file {file.name}: not a vqcodec model ({error!r:.200})") from error
    if version != FORMAT:
        raise ModelError(f"model file {file.name}: expected format {FORMAT}, found {version}")
    found = ModelConfig.from_json(config)
    for part in (found.autoencoder, *found.autoencoder.maps, *found.priors):
        _check_numbers(part)
    return found


def _check_numbers(part: Any) -> None:
    """Raise :class:`ModelError` unless all numbers of a part of the description are of their types, and of sane sizes.

    A file may say anything, and nothing may be built or waited for on its word alone.
    """
    for field in dataclasses.fields(part):
        value, wanted = getattr(part, field.name), field.type
        if wanted == "int":
            low, high = _bounds(field.name)
            sound, wanted = type(value) is int and low <= value <= high, f"an integer from {low} to {high}"
        elif wanted == "int | None":
            sound = value is None or (type(value) is int and 0 <= value <= 1 << 16)
            wanted = f"an integer from 0 to {1 << 16}, or null"
        elif wanted == "bool":
            sound = type(value) is bool
        elif wanted == "float":
            sound = _is_number(value)
        elif wanted == "tuple[float, float, float]":
            sound = len(value) == 3 and all(map(_is_number, value))
        else:
            continue  # checked by the part itself
        if not sound:
            raise ModelError(f"model description: {field.name} must be {wanted}, found {value!r:.40}")


def _bounds(name: str) -> tuple[int, int]:
    """The least and the largest value of an integer of the description."""
    if name.endswith("kernel"):
        return 1, 15
    if name.endswith(("layers", "blocks", "heads")):
        return 0, 256
    return 1, 1 << 16


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e9 < value < 1e9
