"""Random integer classifiers, made without PyTorch."""

from __future__ import annotations

import numpy as np

from vqcodec.model.classifier import STEM_KERNEL, ClassifierConfig, block_kernel


def random_classifier(classes: tuple[str, ...], seed: int = 0) -> tuple[ClassifierConfig, dict[str, np.ndarray]]:
    """A small one of a sound structure, and its arrays."""
    config = ClassifierConfig(classes, widths=(8, 12), side=32)
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}

    def convolution(name: str, inputs: int, outputs: int, kernel: int) -> None:
        tensors[f"{name}.weight"] = rng.integers(-40, 41, (1, outputs, kernel**2, inputs), np.int8)
        tensors[f"{name}.bias"] = rng.integers(-2000, 2001, (1, outputs), np.int32)
        tensors[f"{name}.shift"] = np.full((1, outputs), 7, np.uint8)

    convolution("stem", 3, config.widths[0], STEM_KERNEL)
    inputs = config.widths[0]
    for number, width in enumerate(config.widths):
        stride = 2 if number else 1
        convolution(f"blocks.{number}.first", inputs, width, block_kernel(stride))
        convolution(f"blocks.{number}.second", width, width, 3)
        convolution(f"blocks.{number}.shortcut", inputs, width, stride)
        convolution(f"blocks.{number}.merge", width, width, 1)
        inputs = width
    convolution("head", inputs, len(classes), 1)
    return config, tensors
