"""The classifier of samples: an integer network that says how well a picture shows its class (VQ-VAE-2, section 3.3).

NumPy only. Its input is the plane of side x side pixels, minus 128; its output has a channel for each class. The mean
of a channel over all positions is the class's logit: the sum, divided by their number and by 2**SCORE.

    pixels -> stem -> block 0 (stride 1) -> block 1 (stride 2) -> ... -> head
    block:  relu(merge(shortcut(x) + second(relu(first(x)))))
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vqcodec.errors import ModelError
from vqcodec.model import tensors as tensor_file
from vqcodec.model.integer_network import (
    Add,
    Convolution,
    IntegerNetwork,
    Kernel,
    Layer,
    PlaneShape,
    square_offsets,
)

FORMAT = "vqcodec-classifier-1"
DEFAULT = Path(__file__).parent / "weights" / "classifier.safetensors"
#: Fraction of the output: integers stand for integer / 2**SCORE.
SCORE = 9
STEM_KERNEL, STEM_STRIDE = 8, 4


def block_kernel(stride: int) -> int:
    """The size of a block's first window, which is centred on stride x stride positions."""
    return 2 + stride


@dataclass(frozen=True)
class ClassifierConfig:
    """``classes``: the names of classes 1, 2, ...; ``widths``: channels of each block; ``side`` of the input in pixels."""

    classes: tuple[str, ...]
    widths: tuple[int, ...] = (32, 64, 96, 144)
    side: int = 128

    def __post_init__(self) -> None:
        if not self.classes or not all(isinstance(name, str) for name in self.classes):
            raise ModelError("a classifier needs a list of class names")
        if not self.widths or not all(type(n) is int and 1 <= n <= 1024 for n in (*self.widths, len(self.classes))):
            raise ModelError(f"a classifier's widths must be 1 to 1024, got {self.widths!r:.80}")
        coarsest = STEM_STRIDE << len(self.widths) - 1
        if type(self.side) is not int or self.side > 1024 or self.side < 1 or self.side % coarsest:
            raise ModelError(
                f"a classifier's side must be a multiple of {coarsest}, at most 1024, got {self.side!r:.20}"
            )


@dataclass(frozen=True)
class IntegerClassifier:
    """A loaded classifier. Built by :func:`load`, which checks everything."""

    config: ClassifierConfig
    network: IntegerNetwork
    card: Mapping[str, Any]  #: what it was trained on and how often it is right


def build(config: ClassifierConfig, tensors: Mapping[str, np.ndarray]) -> IntegerNetwork:
    """The network of a description from its named arrays.

    Raises :class:`ModelError` if one is missing, superfluous or of another type or shape, or if a sum could leave int32.
    """
    left = dict(tensors)
    layers: list[Layer] = []
    channels = [3]

    def convolution(name: str, source: int, outputs: int, kernel: int, stride: int, *, relu: bool) -> int:
        shapes = {
            "weight": (np.int8, (1, outputs, kernel**2, channels[source])),
            "bias": (np.int32, (1, outputs)),
            "shift": (np.uint8, (1, outputs)),
        }
        arrays: dict[str, np.ndarray] = {}
        for part, (dtype, shape) in shapes.items():
            array = left.pop(f"{name}.{part}", None)
            if array is None or array.dtype != dtype or array.shape != shape:
                found = "none" if array is None else f"{array.dtype} {array.shape}"
                raise ModelError(f"classifier: {name}.{part}: expected {np.dtype(dtype)} {shape}, found {found}")
            arrays[part] = np.ascontiguousarray(array)
        made = Kernel(**arrays, offsets=square_offsets(kernel, stride))
        made.check(f"classifier: {name}")
        return add(Convolution(source, made, stride, activation="relu" if relu else "none"), outputs)

    def add(layer: Layer, outputs: int) -> int:
        layers.append(layer)
        channels.append(outputs)
        return len(channels) - 1

    x = convolution("stem", 0, config.widths[0], STEM_KERNEL, STEM_STRIDE, relu=True)
    for number, width in enumerate(config.widths):
        stride = 2 if number else 1
        first = convolution(f"blocks.{number}.first", x, width, block_kernel(stride), stride, relu=True)
        second = convolution(f"blocks.{number}.second", first, width, 3, 1, relu=False)
        shortcut = convolution(f"blocks.{number}.shortcut", x, width, stride, stride, relu=False)
        x = convolution(f"blocks.{number}.merge", add(Add(shortcut, second), width), width, 1, 1, relu=True)
    head = convolution("head", x, len(config.classes), 1, 1, relu=False)
    if left:
        raise ModelError(f"classifier: unexpected tensors {', '.join(sorted(left))[:200]}")
    return IntegerNetwork((PlaneShape(3, 1),), tuple(layers), (head,))


def save(
    path: str | os.PathLike[str], config: ClassifierConfig, tensors: Mapping[str, np.ndarray], card: Mapping[str, Any]
) -> None:
    """Write a classifier; refuses what could not be loaded."""
    build(config, tensors)
    described = {"classes": config.classes, "widths": config.widths, "side": config.side, "card": dict(card)}
    tensor_file.write(path, tensors, {"format": FORMAT, "config": json.dumps(described)})


def load(path: str | os.PathLike[str]) -> IntegerClassifier:
    """The classifier in a file. Raises :class:`~vqcodec.errors.ModelError` if it is not sound."""
    name = Path(path).name
    try:
        tensors, texts = tensor_file.read(path)
        version, found = texts["format"], json.loads(texts["config"])
        config = ClassifierConfig(tuple(found["classes"]), tuple(found["widths"]), found["side"])
        card = dict(found["card"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"classifier {name}: not a classifier ({error!r:.200})") from error
    if version != FORMAT:
        raise ModelError(f"classifier {name}: expected format {FORMAT}, found {version!r:.40}")
    return IntegerClassifier(config, build(config, tensors), card)


@cache
def shipped() -> IntegerClassifier:
    """The classifier that comes with the shipped model, loaded once."""
    return load(DEFAULT)
