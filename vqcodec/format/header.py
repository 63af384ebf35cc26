"""The header chunk: what must be known of a file before its first map (docs/FORMAT.md, "Header").

Reading, writing and checking follow one declaration, the fields of ``Header``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from vqcodec.errors import CorruptChunk, InvalidArgument
from vqcodec.format.wire import Cursor, encode_varint

TILE_UNIT = 64
"""The side of a tile is a multiple of this many pixels."""


class _Raw(NamedTuple):
    """A header field of ``size`` bytes."""

    size: int

    def problem(self, value: object) -> str | None:
        whole = isinstance(value, bytes) and len(value) == self.size
        return None if whole else f"must be {self.size} bytes"

    def write(self, value: bytes) -> bytes:
        return value

    def read(self, cursor: Cursor) -> bytes:
        return bytes(cursor.take(self.size))


class _Number(NamedTuple):
    """A header field that is an integer in [low, high] and a multiple of ``unit``."""

    low: int
    high: int
    unit: int = 1

    def problem(self, value: object) -> str | None:
        if isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high:
            return None if value % self.unit == 0 else f"must be a multiple of {self.unit}"
        return f"must be an integer from {self.low} to {self.high}"

    def write(self, value: int) -> bytes:
        return encode_varint(value)

    def read(self, cursor: Cursor) -> int:
        return cursor.varint()


class _Flag(NamedTuple):
    """The header's flags: bit 0 is this field, all others are reserved and must be zero."""

    def problem(self, value: object) -> str | None:
        return None if value in (0, 1) else "must be 0 or 1, other flags are reserved"

    def write(self, value: bool) -> bytes:
        return encode_varint(int(value))

    def read(self, cursor: Cursor) -> int:
        return cursor.varint()


def _coded(kind: _Raw | _Number | _Flag, **options: Any) -> Any:
    return field(metadata={"kind": kind}, **options)


@dataclass(frozen=True)
class Header:
    """What must be known before the first map. Declares the header chunk, in file order.

    Reading, writing and checking all follow these declarations, so that they cannot drift
    apart. A bad value raises ``InvalidArgument``.

    fingerprint: first 16 bytes of the model's SHA-256.
    width, height: pixels.
    tile: side of a tile in pixels; 0 means that the whole image is one tile.
    class_id: class of the image for the prior; 0 is "none".
    level: rate level for the prior, from 0.
    quality: what the user asked for, 0 to 100. Only informs.
    maps: number of map chunks. The model's maps past these are code 0 everywhere.
    grey: the picture has one channel.
    """

    fingerprint: bytes = _coded(_Raw(16))
    width: int = _coded(_Number(1, 1 << 30))
    height: int = _coded(_Number(1, 1 << 30))
    tile: int = _coded(_Number(0, 1 << 30, TILE_UNIT), default=0)
    class_id: int = _coded(_Number(0, (1 << 16) - 1), default=0)
    level: int = _coded(_Number(0, 255), default=0)
    quality: int = _coded(_Number(0, 100), default=50)
    maps: int = _coded(_Number(0, 255), default=0)
    grey: bool = _coded(_Flag(), default=False)

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if problem := f.metadata["kind"].problem(value):
                raise InvalidArgument(f"header: {f.name} {problem}, got {value!r}")

    @property
    def tile_count(self) -> int:
        """Number of tiles, and so of streams in every map chunk."""
        if self.tile == 0:
            return 1
        return -(-self.width // self.tile) * -(-self.height // self.tile)

    def to_bytes(self) -> bytes:
        """The payload of the header chunk."""
        return b"".join(f.metadata["kind"].write(getattr(self, f.name)) for f in fields(self))

    @classmethod
    def from_bytes(cls, payload: memoryview) -> Header:
        """Inverse of ``to_bytes``. Raises ``CorruptChunk``."""
        cursor = Cursor(payload, "header")
        values = {}
        for f in fields(cls):
            value = f.metadata["kind"].read(cursor)
            if problem := f.metadata["kind"].problem(value):
                raise CorruptChunk("header", f"{f.name} {problem}, found {value!r}")
            values[f.name] = value
        cursor.finish()
        return cls(**values | {"grey": bool(values["grey"])})


class Box(NamedTuple):
    """A rectangle of pixels: x0 <= x < x1, y0 <= y < y1."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def area(self) -> int:
        return (self.x1 - self.x0) * (self.y1 - self.y0)


def tile_grid(width: int, height: int, tile: int) -> Iterator[Box]:
    """The tiles of an image in raster order; those at the right and bottom may be smaller.

    Lazy, because a hostile header may ask for millions of them.

        >>> [tuple(box) for box in tile_grid(100, 64, 64)]
        [(0, 0, 64, 64), (64, 0, 100, 64)]
    """
    step_x, step_y = (tile, tile) if tile else (width, height)
    for y in range(0, height, step_y):
        for x in range(0, width, step_x):
            yield Box(x, y, min(x + step_x, width), min(y + step_y, height))


def tiles_touching(width: int, height: int, tile: int, box: Box) -> Iterator[tuple[int, Box]]:
    """The tiles that share pixels with a box, each with its number: those of :func:`tile_grid`, without a look at the others.

        >>> [(number, tuple(tile)) for number, tile in tiles_touching(100, 128, 64, Box(70, 60, 90, 65))]
        [(1, (64, 0, 100, 64)), (3, (64, 64, 100, 128))]
    """
    step_x, step_y = (tile, tile) if tile else (width, height)
    columns = -(-width // step_x)
    x0, y0, x1, y1 = max(0, box.x0), max(0, box.y0), min(box.x1, width), min(box.y1, height)
    if x0 >= x1 or y0 >= y1:
        return
    for row in range(y0 // step_y, -(-y1 // step_y)):
        for column in range(x0 // step_x, -(-x1 // step_x)):
            x, y = column * step_x, row * step_y
            yield row * columns + column, Box(x, y, min(x + step_x, width), min(y + step_y, height))
