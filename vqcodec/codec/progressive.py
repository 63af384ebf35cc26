"""A file that is still arriving: previews as its code maps come."""

from __future__ import annotations

from vqcodec.codec import work
from vqcodec.codec.decoder import Canvas, canvas_of, check_memory, check_size
from vqcodec.codec.engine import Engine
from vqcodec.codec.images import RasterImage
from vqcodec.codec.options import check_limits
from vqcodec.codec.samples import SampleCanvas
from vqcodec.format.header import Header
from vqcodec.format.limits import Limits
from vqcodec.format.once import FailsOnce
from vqcodec.format.parser import Parser


class Progressive:
    """A file that is still arriving."""

    def __init__(self, engine: Engine, limits: Limits | None = None) -> None:
        self._engine, self._limits = engine, check_limits("limits", limits)
        self._parser = Parser(limits=self._limits)
        self._canvas: Canvas | SampleCanvas | None = None
        self._shown = 0  # maps that the caller has seen
        self._size = 0  # bytes that have arrived
        self._complete = False  # and the end of the file
        self._fails = FailsOnce()

    @property
    def finished(self) -> bool:
        """Whether the whole file has arrived, and all of it was valid."""
        return self._parser.finished and not self._fails.failed

    def feed(self, data: bytes | memoryview) -> RasterImage | None:
        """The image of the maps that are here, if ``data`` brought new ones or the end of the file."""
        with self._fails:
            self._size += len(data)
            self._parser.feed(data)
            header, maps = self._parser.header, self._parser.maps
            if header is None:
                return None
            if self._canvas is None:
                self._canvas = self._begin(header)
            fresh, ended = maps[self._shown :], self._parser.finished and not self._complete
            if not fresh and not ended:
                return None
            if fresh:
                self._check_work(len(maps))
                self._canvas.decode(range(len(self._canvas.boxes)), fresh)
            self._shown, self._complete = len(maps), self._parser.finished
            if not self._shown and header.maps:
                return None
            pixels = self._canvas.pixels(header.tiling.whole, self._shown)
            return RasterImage(
                pixels=pixels, grey=header.grey, alpha=self._parser.alpha, metadata=self._parser.metadata
            )

    def _check_work(self, maps: int) -> None:
        """Bytes pay for what they ask for as they come."""
        assert self._canvas is not None
        whole, tiles = self._canvas.header.tiling.whole, range(len(self._canvas.boxes))
        work.check(self._canvas.work(tiles, maps, whole.area), self._size, self._limits)

    def _begin(self, header: Header) -> Canvas | SampleCanvas:
        """What the maps are decoded into; raises if header and model do not fit, or if the image is too large."""
        check_size(self._engine, header.height, header.width, self._limits)
        canvas = canvas_of(self._engine, header)
        # A second copy of the image for Pillow; the alpha plane as inflated, as stored and as returned.
        kept = 7 * header.width * header.height
        check_memory(header, canvas.memory(range(len(canvas.boxes)), header.tiling.whole) + kept, self._limits)
        return canvas
