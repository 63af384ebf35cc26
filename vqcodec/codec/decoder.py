"""Files on their way back into pictures: only the code maps and tiles that are asked for are decoded.

    Reader -> streams of a tile -> fused loop (prior, range decoder) -> code maps -> windows -> pixels
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import PIL.Image

from vqcodec import ops
from vqcodec.codec import geometry
from vqcodec.codec.engine import Engine, memory_errors, torch
from vqcodec.codec.geometry import part
from vqcodec.codec.images import Picture
from vqcodec.codec.options import whole_number
from vqcodec.codec.sampler import uniform_words
from vqcodec.errors import CorruptChunk, FormatError, InvalidArgument, LimitExceeded, ModelMismatch
from vqcodec.format.container import Header, Limits
from vqcodec.format.header import Box, tile_grid, tiles_touching
from vqcodec.format.reader import Parser, Reader

if TYPE_CHECKING:
    from vqcodec.model.config import AutoencoderConfig
    from vqcodec.networks.windows import Windows

#: Tiles that are decoded at a time: enough for all cores, few enough for their working memory.
BATCH = 16
#: What :func:`vqcodec.decompress` may reduce pictures by.
SCALES = (1, 2, 4, 8, 16)
#: Working memory of the fused loop in bytes a code: its own copy of the maps, and the features that it looks back to.
LOOP = 16
#: What a file may ask for unless the caller says otherwise.
LIMITS = Limits(pixels=1 << 28)


class Canvas:
    """The code maps of a picture as far as they are known, and the pixels that they give.

    maps: of the whole picture; zero, and without memory behind them, where nothing is known.
    """

    def __init__(self, engine: Engine, header: Header) -> None:
        config = engine.model.config
        check(engine, header)
        self.engine, self.header = engine, header
        self.maps = [np.zeros(shape, np.int32) for shape in geometry.map_shapes(config, header.height, header.width)]
        self.boxes = list(tile_grid(header.width, header.height, header.tile))
        self.known = [0] * len(self.boxes)  # how many maps of each tile
        self._windows: Windows | None = None

    def decode(self, tiles: Sequence[int], streams: Sequence[Sequence[bytes]]) -> None:
        """Decode the next maps of some tiles, which are equally far: ``streams[m][i]`` is for ``tiles[i]``."""
        def job(index: int, given: list[np.ndarray], shapes: list[tuple[int, int]]) -> ops.DecodeJob:
            return ops.DecodeJob(shapes, [each[index] for each in streams], self.header.class_id, self.header.level, given)

        self._run(tiles, len(streams), job, lambda priors, jobs: ops.wavefront_decode_batch(
            priors, jobs, backend=self.engine.backend))

    def draw(self, tiles: Sequence[int], seed: int) -> None:
        """Draw the maps of the file that are not known in some tiles, which are equally far."""
        missing = self.header.maps - min((self.known[tile] for tile in tiles), default=self.header.maps)

        def job(index: int, given: list[np.ndarray], shapes: list[tuple[int, int]]) -> ops.SampleJob:
            words = uniform_words(seed, tiles[index], [*(codes.shape for codes in given), *shapes])
            return ops.SampleJob(shapes, words[len(given) :], self.header.class_id, self.header.level, given)

        self._run(tiles, missing, job, lambda priors, jobs: ops.wavefront_sample_batch(
            priors, jobs, backend=self.engine.backend))

    def _run(self, tiles: Sequence[int], count: int, job: Any, run: Any) -> None:
        """The next ``count`` maps of tiles, made by ``run`` from what ``job`` says of each."""
        model = self.engine.model
        for begin in range(0, len(tiles) if count else 0, BATCH):
            some = range(begin, min(begin + BATCH, len(tiles)))
            first = self.known[tiles[begin]]
            views = [[part(model.config, codes, number, self.boxes[tiles[i]])
                      for number, codes in enumerate(self.maps[: first + count])] for i in some]
            jobs = [job(i, [np.ascontiguousarray(codes) for codes in each[:first]], [codes.shape for codes in each[first:]])
                    for i, each in zip(some, views)]
            for i, each, made in zip(some, views, run(model.priors[first : first + count], jobs)):
                for view, codes in zip(each[first:], made):
                    view[...] = codes
                self.known[tiles[i]] = first + count

    def tiles(self, box: Box) -> list[int]:
        """The tiles that the pixels of a box depend on."""
        header = self.header
        return [number for number, _ in tiles_touching(header.width, header.height, header.tile, self.windows.around(box))]

    def memory(self, tiles: Sequence[int], strip: Box | None = None) -> int:
        """About how many bytes decoding these tiles, which are a rectangle, and then a strip of pixels works in at most.

            code maps     4 a code, of all tiles
            fused loop    LOOP a code, of BATCH tiles
            strip         9 a pixel: as it is decoded, as it is shown, and one copy
            window        as many values a pixel as the networks hold at their widest

        What the caller keeps, the file, the program and the model are not in it. Allocates nothing.
        """
        config, first, last = self.engine.model.config, self.boxes[tiles[0]], self.boxes[tiles[-1]]

        def codes(box: Box) -> int:
            return sum(rows * columns for rows, columns in geometry.map_shapes(config, box.y1 - box.y0, box.x1 - box.x0))

        needed = 4 * codes(Box(first.x0, first.y0, last.x1, last.y1)) + LOOP * min(BATCH, len(tiles)) * codes(first)
        if strip is not None:
            side = self.windows.side
            window = self.windows.around(strip._replace(x1=min(strip.x0 + side, strip.x1), y1=min(strip.y0 + side, strip.y1)))
            needed += 9 * strip.area + 4 * widest(config.autoencoder) * window.area
        return needed

    @property
    def windows(self) -> Windows:
        if self._windows is None:
            from vqcodec.networks.windows import Windows

            self._windows = Windows(self.engine.autoencoder, self.header.height, self.header.width)
        return self._windows

    def pixels(self, box: Box, maps: int) -> np.ndarray:
        """A box of the picture, h x w x 3 uint8, from the first ``maps`` maps."""
        count = len(self.maps) if maps >= self.header.maps else maps  # trailing maps that are not stored are zero
        with torch().inference_mode(), memory_errors():
            pixels = self.windows.pixels(self.maps[:count], box)
        if self.header.grey:
            mean = (2 * pixels.sum(2, keepdims=True, dtype=np.uint16) + 3) // 6
            pixels = np.repeat(mean.astype(np.uint8), 3, 2)
        return pixels


class CodedPicture:
    """A .vqc file whose picture is decoded as far as is asked for. A context manager.

    header: :class:`~vqcodec.format.container.Header`: size, class, quality. metadata: any of "icc", "exif", "xmp".
    error: with ``partial``, why the file is not whole, or None.
    """

    def __init__(self, engine: Engine, source: bytes | str | os.PathLike[str] | BinaryIO, *, partial: bool = False,
                 limits: Limits | None = None) -> None:
        self._limits, self._partial = limits or LIMITS, partial
        self._file: BinaryIO | None = None
        if isinstance(source, (str, os.PathLike)):
            source = self._file = open(source, "rb")  # noqa: SIM115  closed by close()
        try:
            self._reader = Reader(source, partial=partial, limits=self._limits)
            self.header = self._reader.header
            check_size(engine, self.header.height, self.header.width, self._limits)
            if partial:
                self._reader.verify()  # what is whole is known from now on
            self._whole = sum(chunk.tag == "M" for chunk in self._reader.chunks)
            self._canvas = Canvas(engine, self.header)
            self.metadata = self._reader.metadata()
        except BaseException:
            self.close()
            raise

    @property
    def error(self) -> FormatError | None:
        return self._reader.error

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.header.width, self.header.height

    @property
    def has_alpha(self) -> bool:
        """Whether the file has an alpha plane; with ``partial``, a whole one."""
        return any(chunk.tag == "A" for chunk in self._reader.chunks)

    def shape(self, *, region: Sequence[int] | None = None, scale: int = 1) -> tuple[int, int]:
        """Height and width of what :meth:`picture` and :meth:`rows` give."""
        box, scale = self._box(region), _scale(scale)
        return -(-(box.y1 - box.y0) // scale), -(-(box.x1 - box.x0) // scale)

    def verify(self) -> None:
        """Check the whole file, also what no picture needs. Raises :class:`FormatError`, unless ``partial`` says not to."""
        if not self._partial:
            self._reader.verify()

    def code_maps(self) -> list[np.ndarray]:
        """All code maps, int32, h x w each, coarse to fine; with ``partial``, those that are whole."""
        self.verify()
        tiles = range(len(self._canvas.boxes))
        self._check_memory(self._canvas.memory(tiles))
        known = self._need(self._canvas, tiles, self.header.maps)
        return self._canvas.maps if known == self.header.maps else self._canvas.maps[:known]

    def picture(self, *, region: Sequence[int] | None = None, scale: int = 1, maps: int | None = None,
                complete: str | None = None, seed: int = 0) -> Picture:
        """The picture or a part of it, see :func:`vqcodec.decompress`."""
        box, (height, width) = self._box(region), self.shape(region=region, scale=scale)
        if region is None and maps is None and scale == 1:
            self.verify()
        # The picture once more as Pillow has it; an alpha plane as it is inflated, as it is stored and as it is given.
        kept = 7 * height * width + 3 * self.header.height * self.header.width * self.has_alpha
        rows = self._rows(kept, region=region, scale=scale, maps=maps, complete=complete, seed=seed)
        pixels, y = np.empty((height, width, 3), np.uint8), 0
        for strip in rows:
            pixels[y : y + len(strip)] = strip
            y += len(strip)
        alpha = self._reader.alpha()
        if alpha is not None:
            alpha = reduced(alpha[box.y0 : box.y1, box.x0 : box.x1], scale)
        return Picture(pixels=pixels, grey=self.header.grey, alpha=alpha, metadata=self.metadata)

    def rows(self, *, region: Sequence[int] | None = None, scale: int = 1, maps: int | None = None,
             complete: str | None = None, seed: int = 0) -> Iterator[np.ndarray]:
        """The same pixels from the top down, a strip at a time, h x W x 3 uint8: memory for one strip is enough."""
        return self._rows(0, region=region, scale=scale, maps=maps, complete=complete, seed=seed)

    def _rows(self, kept: int, *, region: Sequence[int] | None, scale: int, maps: int | None, complete: str | None,
              seed: int) -> Iterator[np.ndarray]:
        """Strips for a caller that keeps so many bytes."""
        box, scale = self._box(region), _scale(scale)
        if complete not in (None, "sample"):
            raise InvalidArgument(f'complete must be None or "sample", got {complete!r}')
        count = len(self._canvas.maps) if maps is None else whole_number("maps", maps, 1, len(self._canvas.maps) + 1)
        count = min(count, self.header.maps, maps_for(self._canvas.engine, scale))
        seed = whole_number("seed", seed, 0, 1 << 64)
        strip = box._replace(y1=min(box.y0 + geometry.AREA, box.y1))
        self._check_memory(kept + self._canvas.memory(self._canvas.tiles(box), strip))
        return self._strips(box, scale, count, seed if complete else None)

    def _strips(self, box: Box, scale: int, count: int, seed: int | None) -> Iterator[np.ndarray]:
        # What is drawn must not be taken for what is known.
        canvas = self._canvas if seed is None else Canvas(self._canvas.engine, self.header)
        if self.header.maps and not self._whole:
            raise self.error or CorruptChunk("map 0", "no map is whole")
        for y in range(box.y0, box.y1, geometry.AREA):
            strip = Box(box.x0, y, box.x1, min(y + geometry.AREA, box.y1))
            tiles = canvas.tiles(strip)
            known = self._need(canvas, tiles, count)
            if seed is not None:
                canvas.draw([tile for tile in tiles if canvas.known[tile] < self.header.maps], seed)
                known = self.header.maps
            yield reduced(canvas.pixels(strip, known), scale)

    def _check_memory(self, needed: int) -> None:
        check_memory(self.header, needed, self._limits)

    def _need(self, canvas: Canvas, tiles: Sequence[int], count: int) -> int:
        """Decode the first ``count`` maps of tiles, or as many as are whole: returns how many."""
        count = min(count, self._whole)
        by_progress: dict[int, list[int]] = {}
        for tile in tiles:
            if canvas.known[tile] < count:
                by_progress.setdefault(canvas.known[tile], []).append(tile)
        for known, equal in by_progress.items():
            canvas.decode(equal, self._reader.streams(equal, count)[known:])
        return count

    def _box(self, region: Sequence[int] | None) -> Box:
        whole = Box(0, 0, self.header.width, self.header.height)
        if region is None:
            return whole
        try:
            x0, y0, x1, y1 = (whole_number("region", v, 0, 1 << 31) for v in region)
        except (TypeError, ValueError):
            raise InvalidArgument(f"region must be (x0, y0, x1, y1) in pixels, got {region!r}") from None
        box = Box(x0, y0, x1, y1)
        if not (x0 < x1 and y0 < y1 and geometry.within(box, whole)):
            raise InvalidArgument(f"region must lie in the picture of {whole.x1} x {whole.y1} and hold pixels, got {tuple(box)}")
        return box

    def close(self) -> None:
        if self._file:
            self._file.close()

    def __enter__(self) -> CodedPicture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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

    def feed(self, data: bytes) -> Picture | None:
        """The picture of the maps that are here, if ``data`` brought new ones."""
        self._parser.feed(data)
        header, maps = self._parser.header, self._parser.maps
        if header is None or len(maps) == self._shown and not self.finished:
            return None
        if self._canvas is None:
            check_size(self._engine, header.height, header.width, self._limits)
            canvas, whole = Canvas(self._engine, header), Box(0, 0, header.width, header.height)
            needed = canvas.memory(range(len(canvas.boxes)), whole) + 7 * header.width * header.height
            check_memory(header, needed, self._limits)
            self._canvas = canvas
        fresh, self._shown = maps[self._shown :], len(maps)
        if fresh:
            self._canvas.decode(range(len(self._canvas.boxes)), fresh)
        if not self._shown and header.maps:
            return None
        pixels = self._canvas.pixels(Box(0, 0, header.width, header.height), self._shown)
        return Picture(pixels=pixels, grey=header.grey, alpha=self._parser.alpha, metadata=self._parser.metadata)


def check(engine: Engine, header: Header) -> None:
    """Whether a header fits the model; raises :class:`FormatError` or :class:`ModelMismatch`."""
    model, config = engine.model, engine.model.config
    if header.fingerprint != model.fingerprint[:16]:
        raise ModelMismatch(header.fingerprint.hex(), model.fingerprint[:16].hex())
    for name, value, limit in (("level", header.level, config.autoencoder.levels), ("class", header.class_id, len(config.classes) + 1),
                               ("number of maps", header.maps, len(config.autoencoder.maps) + 1)):
        if value >= limit:
            raise CorruptChunk("header", f"{name} must be under {limit} for this model, found {value}")


def check_size(engine: Engine, height: int, width: int, limits: Limits) -> None:
    """Raise :class:`LimitExceeded` for a picture that is too large, padding included."""
    unit = engine.model.config.stride
    pixels = -(-height // unit) * unit * (-(-width // unit) * unit)
    if pixels > limits.pixels:
        raise LimitExceeded(f"at most {limits.pixels} pixels are allowed, {width} x {height} needs {pixels} with padding")


def check_memory(header: Header, needed: int, limits: Limits) -> None:
    """Raise :class:`LimitExceeded` for a picture that needs more memory than is allowed."""
    if needed > limits.memory:
        raise LimitExceeded(f"at most {limits.memory} bytes of memory are allowed, this needs about {needed} "
                            f"of a picture of {header.width} x {header.height}")


def widest(auto: AutoencoderConfig) -> int:
    """About how many values a pixel the decoder's networks hold at their widest: a few tensors of every resolution."""
    if auto.transform == "lapped":  # pixels, the filter at a quarter of the resolution, features at an eighth
        return 12 + 6 * auto.refine // 16 + 6 * auto.hidden // 64
    return 9 + 3 * auto.hidden // 4


def maps_for(engine: Engine, scale: int) -> int:
    """How many maps a reduced picture needs: those whose vectors have as many values as it has for a code's area."""
    auto = engine.model.config.autoencoder
    if scale == 1:
        return len(auto.maps)
    stride = auto.maps[-1].stride
    wanted, values = 3 * max(1, stride // scale) ** 2, 0
    for number, m in enumerate(auto.maps, 1):
        values += m.dim if m.stride == stride else 0
        if values >= wanted:
            return number
    return len(auto.maps)


def _scale(scale: int) -> int:
    if scale not in SCALES:
        raise InvalidArgument(f"scale must be one of {', '.join(map(str, SCALES))}, got {scale!r}")
    return scale


def reduced(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Means of squares of ``scale`` pixels; those at the right and the bottom may be smaller."""
    return pixels if scale == 1 else np.asarray(PIL.Image.fromarray(pixels).reduce(scale))
