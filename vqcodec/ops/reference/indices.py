"""Indices into palettes, as docs/FORMAT.md ("Palettes") defines their coding: integers, one pixel at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vqcodec.errors import FormatError
from vqcodec.ops.reference.range_decoder import RangeDecoder
from vqcodec.ops.reference.samples import Counts, clamp, tables

#: Pixels around, the nearest first: (rows, columns).
TAPS = (
    (0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-2, 1), (-1, -2), (-1, 2), (0, -3), (-2, -1), (-2, -2),
    (-2, 2), (-3, 0), (-1, 3), (-1, -3), (0, -4), (-3, -1), (-3, 1),
)  # fmt: skip
#: How many of them the first five contexts see; the sixth sees these.
SEEN = 2, 4, 6, 11, 19
ABOVE = 1, 2, 3, 5, 8, 13
HASH_BITS = 15


class _Coder:
    def __init__(self, bits: int, decide: Callable[[int, bool | None], bool]) -> None:
        self.bits, self.decide_ = bits, decide
        self.counts: Counts = {}
        self.mixers: dict[tuple[int, ...], list[int]] = {}

    def decide(self, keys: list[int], node: int, pattern: int, yes: bool | None) -> bool:
        table = tables()
        places = [(k, key >> (32 - HASH_BITS), node) for k, key in enumerate(keys)]
        opinions = []
        for place in places:
            p, seen = self.counts.get(place, (1 << 21, 0))
            opinions.append(table.stretch[p >> 10] * min(8, seen + 1) >> 3)
        opinions.append(77)
        mixers = [self.mixers.setdefault(name, [21845] * 7) for name in ((node,), (node, pattern))]
        found = [clamp(sum((w >> 2) * o for w, o in zip(mixer, opinions)) >> 14, -2047, 2047) for mixer in mixers]
        yes = self.decide_(clamp(table.squash[(sum(found) >> 1) + 2048], 24, 65536 - 24), yes)
        for mixer, at in zip(mixers, found):
            off = (65536 if yes else 0) - table.squash[at + 2048]
            for i, opinion in enumerate(opinions):
                mixer[i] = clamp(mixer[i] + ((off * opinion + 8192) >> 14), 1 - (1 << 18), (1 << 18) - 1)
        for place in places:
            p, seen = self.counts.get(place, (1 << 21, 0))
            goal = (1 << 22) - 1 if yes else 0
            self.counts[place] = p + ((goal - p) * table.rate[seen] >> 16), min(seen + 1, 60)
        return yes

    def code(self, plane: np.ndarray, y: int, x: int, known: int | None) -> int:
        near = [int(plane[y + dy, x + dx]) if y + dy >= 0 and 0 <= x + dx < plane.shape[1] else 0 for dy, dx in TAPS]
        keys, hashed = [], 1
        for tap, value in enumerate(near, 1):
            hashed = (hashed + value + 1) * 0x9E3779B1 % 2**32
            if tap in SEEN:
                keys.append((hashed ^ hashed >> 15) * 0xC2B2AE35 % 2**32)
        hashed = 1
        for tap in ABOVE:
            hashed = (hashed + near[tap] + 1) * 0x85EBCA6B % 2**32
        keys.append((hashed ^ hashed >> 15) * 0xC2B2AE35 % 2**32)
        left, up, corner, right = near[:4]
        pattern = (up == left) + 2 * (corner == left) + 4 * (right == up) + 8 * (corner == up)
        for i, value in enumerate(near[:4]):
            if value not in near[:i] and self.decide(keys, i, pattern, None if known is None else known == value):
                return value
        found = 1
        contexts = 0, left, up, right, left * 65536 + up, keys[2]
        for bit in reversed(range(self.bits)):
            places = []
            for context in contexts:
                key = (context * 0x9E3779B1 + found) * 0x85EBCA6B % 2**32
                places.append((key ^ key >> 15) * 0xC2B2AE35 % 2**32)
            one = self.decide(places, 4, min(bit, 15), None if known is None else bool(known >> bit & 1))
            found = 2 * found + one
        return found - (1 << self.bits)


def encode(plane: np.ndarray, bits: int) -> bytes:
    """The stream of a tile's indices, h x w."""
    from vqcodec.ops.range_coder import encode_stream

    written: list[tuple[int, bool]] = []

    def decide(p: int, yes: bool | None) -> bool:
        written.append((p << 8, bool(yes)))
        return bool(yes)

    coder = _Coder(bits, decide)
    for y, x in np.ndindex(*plane.shape):
        coder.code(plane, y, x, int(plane[y, x]))
    starts = np.array([0 if yes else split for split, yes in written], np.int64)
    frequencies = np.array([split if yes else (1 << 24) - split for split, yes in written], np.int64)
    return encode_stream(starts, frequencies)


def decode(height: int, width: int, bits: int, stream: bytes) -> np.ndarray | None:
    """The indices of a tile, uint16; None if no encoder can have written the stream."""
    decoder = RangeDecoder(stream)
    coder = _Coder(bits, lambda p, _: bool(decoder.decode(np.array([[0, p << 8, 1 << 24]]))[0] == 0))
    plane = np.zeros((height, width), np.uint16)
    try:
        for y, x in np.ndindex(height, width):
            plane[y, x] = coder.code(plane, y, x, None)
    except FormatError:
        return None
    return plane
