"""Where tiles lie in pictures and in code maps. Pictures count as padded to whole codes of the coarsest map."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqcodec.format.header import Box, tile_grid
from vqcodec.model.config import ModelConfig

#: Pictures up to this side are one tile unless the caller says otherwise; larger ones have tiles of TILE.
WHOLE, TILE = 1024, 512
#: Encoders work on areas of about this side: as many tiles as fit, at least one.
AREA = 1536


def tile_side(height: int, width: int, tile: int | None) -> int:
    """What a header says: ``tile``, or the usual for None; 0 if the picture is one tile."""
    if tile is None:
        tile = TILE if max(height, width) > WHOLE else 0
    return tile if tile < max(height, width) else 0


def areas(height: int, width: int, tile: int) -> Iterator[Box]:
    """Groups of whole tiles that cover the picture."""
    return tile_grid(width, height, max(tile, AREA // tile * tile) if tile else 0)


def map_shapes(config: ModelConfig, height: int, width: int) -> list[tuple[int, int]]:
    """Height and width in codes of every map of a picture."""
    height, width = (-(-side // config.stride) * config.stride for side in (height, width))
    return [(height // m.stride, width // m.stride) for m in config.autoencoder.maps]


def part(config: ModelConfig, codes: np.ndarray, number: int, box: Box) -> np.ndarray:
    """The view of map ``number`` (or of an array of its shape) that belongs to a box of pixels."""
    stride, unit = config.autoencoder.maps[number].stride, config.stride
    bottom, right = (-(-side // unit) * unit for side in (box.y1, box.x1))
    return codes[box.y0 // stride : bottom // stride, box.x0 // stride : right // stride]


def shifted(box: Box, origin: Box) -> Box:
    """A box as seen from the corner of another."""
    return Box(box.x0 - origin.x0, box.y0 - origin.y0, box.x1 - origin.x0, box.y1 - origin.y0)


def within(box: Box, outer: Box) -> bool:
    return outer.x0 <= box.x0 and outer.y0 <= box.y0 and box.x1 <= outer.x1 and box.y1 <= outer.y1

