"""The header chunk: what must be known before the first map (docs/FORMAT.md, "Header").

Reading, writing and checking all follow one declaration, the fields of ``Header``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from vqcodec.errors import CorruptChunk, InvalidArgument
from vqcodec.format.wire import Cursor, encode_varint
from vqcodec.tiling import UNIT, Tiling


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
    """A header field that is one bit of the flags."""

    def problem(self, value: object) -> str | None:
        return None if value in (0, 1) else "must be 0 or 1"


#: Maps of an image that is coded as samples, unless it is small.
SLICES = 6
#: Pixels of a tile at most: the time that attention takes grows with their square.
MOST_TILE = 1 << 22
#: By how much samples may differ at most.
MAX_BOUND = 64
_FLAGS = ("grey", "samples", "deep")  # bit 0, 1, 2


def _coded(kind: _Raw | _Number | _Flag, **options: Any) -> Any:
    return field(metadata={"kind": kind}, **options)


@dataclass(frozen=True)
class Header:
    """What must be known before the first map. Declares the header chunk, in file order.

    Reading, writing and checking all follow these declarations, so they cannot drift
    apart. A bad value raises ``InvalidArgument``.

    fingerprint: first 16 bytes of the model's SHA-256.
    width, height: pixels.
    tile: side of a tile in pixels; 0 means that the whole image is one tile.
    class_id: class of the image for the prior; 0 is "none".
    level: rate level for the prior, from 0.
    quality: as requested by the user, 0 to 100. For information only.
    maps: number of map chunks. The model's further maps are code 0 everywhere.
    grey: the image has one channel.
    samples: the maps are not code maps but the slices of the image's samples: SLICES, or 1 for a small image. No model is
        needed; its fingerprint, class and level are zero.
    deep: samples have 16 bits instead of 8.
    bound: by how much samples may differ from the original's; 0 for an exact copy.
    """

    fingerprint: bytes = _coded(_Raw(16))
    width: int = _coded(_Number(1, 1 << 30))
    height: int = _coded(_Number(1, 1 << 30))
    tile: int = _coded(_Number(0, 1 << 30, UNIT), default=0)
    class_id: int = _coded(_Number(0, (1 << 16) - 1), default=0)
    level: int = _coded(_Number(0, 255), default=0)
    quality: int = _coded(_Number(0, 100), default=50)
    maps: int = _coded(_Number(0, 255), default=0)
    grey: bool = _coded(_Flag(), default=False)
    samples: bool = _coded(_Flag(), default=False)
    deep: bool = _coded(_Flag(), default=False)
    bound: int = _coded(_Number(0, MAX_BOUND), default=0)

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if problem := f.metadata["kind"].problem(value):
                raise InvalidArgument(f"header: {f.name} {problem}, got {value!r}")
        if problem := self._contradiction():
            raise InvalidArgument(f"header: {problem}")

    def _contradiction(self) -> str | None:
        side = self.tile or max(self.width, self.height)
        if min(side, self.width) * min(side, self.height) > MOST_TILE:
            return (
                f"a tile must have at most {MOST_TILE} pixels, not {min(side, self.width)} x {min(side, self.height)}"
            )
        if not self.samples:
            return "deep and bound are for images coded as samples" if self.deep or self.bound else None
        if self.maps not in (1, SLICES):
            return f"an image coded as samples has 1 or {SLICES} maps, not {self.maps}"
        if any(self.fingerprint) or self.class_id or self.level:
            return "an image coded as samples has no model, class or level"
        return None

    @property
    def tiling(self) -> Tiling:
        """The tiles: every map chunk has a stream for each of them."""
        return Tiling(self.height, self.width, self.tile)

    @property
    def channels(self) -> int:
        """Channels that are coded: 1 for a grey image, else 3."""
        return 1 if self.grey else 3

    @property
    def streams(self) -> int:
        """Streams of every tile in a map: one, or one for each channel of samples."""
        return self.channels if self.samples else 1

    def to_bytes(self) -> bytes:
        """The payload of the header chunk."""
        flags = sum(getattr(self, name) << bit for bit, name in enumerate(_FLAGS))
        parts = [f.metadata["kind"].write(getattr(self, f.name)) for f in fields(self)[: -len(_FLAGS) - 1]]
        return b"".join([*parts, encode_varint(flags), encode_varint(self.bound) if self.samples else b""])

    @classmethod
    def from_bytes(cls, payload: memoryview) -> Header:
        """Inverse of ``to_bytes``. Raises ``CorruptChunk``."""
        cursor = Cursor(payload, "header")
        values: dict[str, Any] = {}
        for f in fields(cls):
            kind = f.metadata["kind"]
            if f.name == _FLAGS[0]:
                flags = cursor.varint()
                if flags >> len(_FLAGS):
                    raise CorruptChunk("header", f"flags above {2 ** len(_FLAGS) - 1} are reserved, found {flags}")
                values |= {name: bool(flags >> bit & 1) for bit, name in enumerate(_FLAGS)}
            if f.name in values or (f.name == "bound" and not values["samples"]):
                continue
            values[f.name] = value = kind.read(cursor)
            if problem := kind.problem(value):
                raise CorruptChunk("header", f"{f.name} {problem}, found {value!r}")
        cursor.finish()
        try:
            return cls(**values)
        except InvalidArgument as error:
            raise CorruptChunk("header", str(error).removeprefix("header: ")) from None
