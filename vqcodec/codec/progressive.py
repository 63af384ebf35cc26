"""A file that is still arriving: previews as its code maps come."""

from __future__ import annotations

from vqcodec.codec.decoder import Canvas, check_memory, check_size
from vqcodec.codec.engine import Engine
from vqcodec.codec.images import RasterImage
from vqcodec.codec.options import LIMITS
from vqcodec.format.limits import Limits
from vqcodec.format.parser import Parser


class Progressive:
    """A file that is still arriving."""

    def __init__(self, engine: Engine, limits: Limits | None = None) -> None:
        self._engine, self._limits = engine, limits or LIMITS
        self._parser = Parser(limits=self._limits)
        self._canvas: Canvas | None = None
        self._shown = 0

    @property
    def finished(self) -> bool:
        return self._parser.finished

    def feed(self, data: bytes) -> RasterImage | None:
        """The image of the maps that are here, if ``data`` brought new ones."""
        self._parser.feed(data)
        header, maps = self._parser.header, self._parser.maps
        if header is None or len(maps) == self._shown and not self.finished:
            return None
        if self._canvas is None:
            check_size(self._engine, header.height, header.width, self._limits)
            canvas, whole = Canvas(self._engine, header), header.tiling.whole
            needed = canvas.memory(range(len(canvas.boxes)), whole) + 7 * header.width * header.height
            check_memory(header, needed, self._limits)
            self._canvas = canvas
        fresh, self._shown = maps[self._shown :], len(maps)
        if fresh:
            self._canvas.decode(range(len(self._canvas.boxes)), fresh)
        if not self._shown and header.maps:
            return None
        pixels = self._canvas.pixels(header.tiling.whole, self._shown)
        return RasterImage(pixels=pixels, grey=header.grey, alpha=self._parser.alpha, metadata=self._parser.metadata)
