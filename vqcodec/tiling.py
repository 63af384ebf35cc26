"""Rectangles of pixels, and how an image is divided into tiles. Imports nothing, so that every layer may import it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

#: The side of a tile is a multiple of this many pixels.
UNIT = 64
#: By default, images with sides up to WHOLE are one tile; larger ones have tiles of side USUAL.
WHOLE, USUAL = 1024, 512
#: Encoder and decoder work on areas of about this side: as many tiles as fit, but at least one.
AREA = 1536


class Box(NamedTuple):
    """A rectangle of pixels: x0 <= x < x1, y0 <= y < y1."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    @property
    def area(self) -> int:
        return self.width * self.height

    def seen_from(self, origin: Box) -> Box:
        """The same box, relative to the corner of another."""
        return Box(self.x0 - origin.x0, self.y0 - origin.y0, self.x1 - origin.x0, self.y1 - origin.y0)

    def within(self, outer: Box) -> bool:
        return outer.x0 <= self.x0 and outer.y0 <= self.y0 and self.x1 <= outer.x1 and self.y1 <= outer.y1


@dataclass(frozen=True)
class Tiling:
    """The size of an image, and its tiles: squares in raster order; those at the right and bottom may be smaller.

    height, width: pixels. side: of a tile in pixels; 0 means that the image is one tile.
    """

    height: int
    width: int
    side: int = 0

    @classmethod
    def usual(cls, height: int, width: int, side: int | None = None) -> Tiling:
        """Tiles of ``side``, or of the default side for None; one tile if the image is no larger than that."""
        if side is None:
            side = USUAL if max(height, width) > WHOLE else 0
        return cls(height, width, side if side < max(height, width) else 0)

    @property
    def whole(self) -> Box:
        """All pixels."""
        return Box(0, 0, self.width, self.height)

    @property
    def count(self) -> int:
        """Number of tiles."""
        if self.side == 0:
            return 1
        return -(-self.width // self.side) * -(-self.height // self.side)

    def __iter__(self) -> Iterator[Box]:
        """The tiles. Lazy, because a hostile header may call for millions of them.

        >>> [tuple(box) for box in Tiling(height=64, width=100, side=64)]
        [(0, 0, 64, 64), (64, 0, 100, 64)]
        """
        return (box for _, box in self.touching(self.whole))

    def touching(self, box: Box) -> Iterator[tuple[int, Box]]:
        """The tiles that overlap a box, each with its number, without visiting the others.

        >>> [(number, tuple(tile)) for number, tile in Tiling(128, 100, 64).touching(Box(70, 60, 90, 65))]
        [(1, (64, 0, 100, 64)), (3, (64, 64, 100, 128))]
        """
        step_x, step_y = (self.side, self.side) if self.side else (self.width, self.height)
        columns = -(-self.width // step_x)
        x0, y0, x1, y1 = max(0, box.x0), max(0, box.y0), min(box.x1, self.width), min(box.y1, self.height)
        if x0 >= x1 or y0 >= y1:
            return
        for row in range(y0 // step_y, -(-y1 // step_y)):
            for column in range(x0 // step_x, -(-x1 // step_x)):
                x, y = column * step_x, row * step_y
                yield row * columns + column, Box(x, y, min(x + step_x, self.width), min(y + step_y, self.height))

    def areas(self) -> Iterator[Box]:
        """Groups of whole tiles that cover the image, each of about AREA x AREA pixels."""
        return iter(Tiling(self.height, self.width, max(self.side, AREA // self.side * self.side) if self.side else 0))
