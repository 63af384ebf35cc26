"""Tiles of images that are coded sample by sample, without loss or with a bounded error (docs/FORMAT.md, "Samples")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vqcodec.errors import InvalidArgument
from vqcodec.ops import backend as backends

#: Streams of a tile: of every channel, of every slice.
Streams = list[list[bytes]]


@dataclass(frozen=True)
class TileShape:
    """A tile.

    height, width: samples. channels: 1 to 4. depth: bits of a sample, 8 or 16. slices: 6, or 1 for a small image.
    bound: by how much samples may differ, 0 to 64.
    """

    height: int
    width: int
    channels: int
    depth: int = 8
    slices: int = 6
    bound: int = 0


class SampleTile(Protocol):
    """A tile, known as far as it has been coded: slice after slice, and what was learned doing so."""

    @property
    def known(self) -> int:
        """How many slices have been coded."""

    def set_samples(self, samples: np.ndarray) -> None:
        """What is to be encoded: channels x height x width uint16."""

    def samples(self) -> np.ndarray:
        """All samples, the same shape. Those of slices that are not known mean nothing."""

    def fill(self) -> None:
        """Fill in those that are not known by means of their neighbours."""


def sample_tile(shape: TileShape, *, backend: str | None = None) -> SampleTile:
    """A tile of which nothing is known. Raises InvalidArgument for a shape that cannot be."""
    tile: SampleTile = backends.backend(backend).sample_tile(shape)
    return tile


def encode_samples(tiles: Sequence[SampleTile], end: int, *, backend: str | None = None) -> list[Streams]:
    """The streams of the next slices of tiles, up to slice ``end``.

    The tiles' samples become what a decoder will see, which differs by at most the bound.
    """
    return backends.backend(backend).encode_samples(tiles, end)


def decode_samples(
    tiles: Sequence[SampleTile], end: int, streams: Sequence[Streams], *, backend: str | None = None
) -> list[bool]:
    """Decode the next slices of tiles, up to slice ``end``. False where no encoder can have written the streams."""
    if len(streams) != len(tiles):
        raise InvalidArgument(f"expected streams for {len(tiles)} tiles, got {len(streams)}")
    return backends.backend(backend).decode_samples(tiles, end, streams)


def draw_samples(
    tiles: Sequence[SampleTile], end: int, seeds: Sequence[int | None], *, backend: str | None = None
) -> None:
    """Draw the next slices of tiles, up to slice ``end``, from what has been learned about the slices before.

    seeds: one for every tile, below 2^64; None takes predictions for samples.
    """
    if len(seeds) != len(tiles):
        raise InvalidArgument(f"expected seeds for {len(tiles)} tiles, got {len(seeds)}")
    backends.backend(backend).draw_samples(tiles, end, seeds)


def encode_indices(planes: Sequence[np.ndarray], bits: int, *, backend: str | None = None) -> list[bytes]:
    """The streams of tiles of indices into a palette: h x w uint16 each, below 2^bits, bits from 0 to 12."""
    return backends.backend(backend).encode_indices([np.ascontiguousarray(plane) for plane in planes], bits)


def decode_indices(
    sizes: Sequence[tuple[int, int]], bits: int, streams: Sequence[bytes], *, backend: str | None = None
) -> list[np.ndarray | None]:
    """The indices of tiles of these (height, width); None where no encoder can have written the stream."""
    if len(streams) != len(sizes):
        raise InvalidArgument(f"expected {len(sizes)} streams, got {len(streams)}")
    return backends.backend(backend).decode_indices(sizes, bits, streams)
