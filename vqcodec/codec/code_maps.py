"""Parts of code maps that belong to parts of an image."""

from __future__ import annotations

import numpy as np

from vqcodec.model.config import ModelConfig
from vqcodec.tiling import Box

Maps = list[np.ndarray]


def part(config: ModelConfig, codes: np.ndarray, number: int, box: Box) -> np.ndarray:
    """The view of map ``number`` (or of an array of its shape) that belongs to a box of pixels."""
    stride, unit = config.autoencoder.maps[number].stride, config.stride
    bottom, right = (-(-side // unit) * unit for side in (box.y1, box.x1))
    return codes[box.y0 // stride : bottom // stride, box.x0 // stride : right // stride]


def covered(config: ModelConfig, mask: np.ndarray) -> Maps:
    """For every map, which codes lie in a block of pixels that ``mask`` (bool, H x W) touches."""
    found: Maps = []
    for (height, width), m in zip(config.map_shapes(*mask.shape), config.autoencoder.maps):
        padded = np.zeros((height * m.stride, width * m.stride), bool)
        padded[: mask.shape[0], : mask.shape[1]] = mask
        found.append(np.any(padded.reshape(height, m.stride, width, m.stride), (1, 3)))
    return found


def used(config: ModelConfig, maps: Maps) -> int:
    """How many maps must be written: trailing ones that are all code 0, the zero vector, need not be."""
    if not config.autoencoder.null_code:
        return len(maps)
    return max((number for number, codes in enumerate(maps, 1) if codes.any()), default=1)
