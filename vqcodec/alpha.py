"""The alpha plane, lossless (docs/FORMAT.md, "Alpha").

Method 0: one byte, the value of every pixel. Method 1: a zlib stream of the rows, each
pixel minus the pixel above it (modulo 256; the first row minus zero).
"""

from __future__ import annotations

import zlib

import numpy as np

from vqcodec.errors import CorruptChunk


def encode(plane: np.ndarray) -> bytes:
    """The chunk's payload for an H x W uint8 plane."""
    if (plane == plane.flat[0]).all():
        return bytes([0, int(plane.flat[0])])
    return b"\1" + zlib.compress(np.diff(plane, axis=0, prepend=np.uint8(0)).tobytes(), 9)


def decode(payload: bytes, width: int, height: int) -> np.ndarray:
    """The H x W uint8 plane; never inflates more than the plane holds."""
    if len(payload) == 2 and payload[0] == 0:
        return np.full((height, width), payload[1], np.uint8)
    if not payload or payload[0] != 1:
        raise CorruptChunk("alpha", f"expected method 0 or 1, found {payload[:2].hex() or 'nothing'}")
    inflater = zlib.decompressobj()
    try:
        rows = inflater.decompress(payload[1:], height * width + 1)
    except zlib.error as error:
        raise CorruptChunk("alpha", f"not a zlib stream ({error})") from error
    if len(rows) != height * width or not inflater.eof or inflater.unused_data:
        raise CorruptChunk("alpha", f"expected {height * width} bytes, found {'more' if len(rows) > height * width else len(rows)}")
    return np.cumsum(np.frombuffer(rows, np.uint8).reshape(height, width), axis=0, dtype=np.uint8)
