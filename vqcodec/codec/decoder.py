"""From files back to images: only the code maps and tiles that are needed are decoded.

Reader -> streams of a tile -> fused loop (prior, range decoder) -> code maps -> windows -> pixels
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import PIL.Image

from vqcodec import ops, tiling
from vqcodec.codec import images, work
from vqcodec.codec.code_maps import Maps, part
from vqcodec.codec.engine import Engine
from vqcodec.codec.images import RasterImage
from vqcodec.codec.options import DecodeOptions, check_limits, whole_number
from vqcodec.codec.sampler import uniform_words
from vqcodec.codec.samples import Digest, SampleCanvas, digest, slices_for
from vqcodec.codec.windows import Windows
from vqcodec.errors import CorruptChunk, FormatError, InvalidArgument, LimitExceeded, ModelMismatch
from vqcodec.format.header import Header
from vqcodec.format.limits import Limits
from vqcodec.format.reader import Reader
from vqcodec.locks import Lock
from vqcodec.model.config import AutoencoderConfig
from vqcodec.model.prior import Condition, IntegerPrior
from vqcodec.tiling import Box

#: Tiles decoded at a time: enough for all cores, few enough to limit working memory.
BATCH = 16
#: Working memory of the fused loop in bytes per code: its own copy of the maps, and the features it looks back at.
LOOP = 16


class Canvas:
    """The code maps of an image as far as they are known, and the pixels they give.

    maps: of the whole image; zero, and taking no memory, where nothing is known.
    """

    def __init__(self, engine: Engine, header: Header) -> None:
        check(engine, header)
        self.engine, self.header = engine, header
        self.count = len(engine.config.autoencoder.maps)
        self.windows: Windows = engine.windows(header.height, header.width)
        self.maps = [np.zeros(shape, np.int32) for shape in engine.config.map_shapes(header.height, header.width)]
        self.boxes = list(header.tiling)
        self.known = [0] * len(self.boxes)  # number of maps known, per tile
        self._condition = Condition(header.class_id, header.level)

    def decode(self, tiles: Sequence[int], streams: Sequence[Sequence[bytes]]) -> None:
        """Decode the next maps of some tiles, all at the same map: ``streams[m][i]`` is for ``tiles[i]``."""

        def run(priors: Sequence[IntegerPrior], some: range, given: list[Maps], shapes: list[Any]) -> list[Maps]:
            jobs = [
                ops.DecodeJob(shape, [each[i] for each in streams], self._condition, given=known)
                for i, shape, known in zip(some, shapes, given)
            ]
            return ops.wavefront_decode_batch(priors, jobs, backend=self.engine.backend)

        self._make(tiles, len(streams), run)

    def draw(self, tiles: Sequence[int], seed: int) -> None:
        """Draw the missing maps of some tiles, all at the same map."""

        def run(priors: Sequence[IntegerPrior], some: range, given: list[Maps], shapes: list[Any]) -> list[Maps]:
            jobs = []
            for i, shape, known in zip(some, shapes, given):
                words = uniform_words(seed, tiles[i], [*(codes.shape for codes in known), *shape])[len(known) :]
                jobs.append(ops.SampleJob(shape, words, self._condition, given=known))
            return ops.wavefront_sample_batch(priors, jobs, backend=self.engine.backend)

        self._make(tiles, self.header.maps - min((self.known[tile] for tile in tiles), default=self.header.maps), run)

    def _make(self, tiles: Sequence[int], count: int, run: Callable[..., list[Maps]]) -> None:
        """The next ``count`` maps of tiles: ``run`` makes them, several tiles at a time, from the preceding maps and their shapes."""
        for begin in range(0, len(tiles) if count else 0, BATCH):
            some = range(begin, min(begin + BATCH, len(tiles)))
            first = self.known[tiles[begin]]
            views = [
                [
                    part(self.engine.config, codes, number, self.boxes[tiles[i]])
                    for number, codes in enumerate(self.maps[: first + count])
                ]
                for i in some
            ]
            given = [[np.ascontiguousarray(codes) for codes in each[:first]] for each in views]
            shapes = [[codes.shape for codes in each[first:]] for each in views]
            made = run(self.engine.model.priors[first : first + count], some, given, shapes)
            for i, each, maps in zip(some, views, made):
                for view, codes in zip(each[first:], maps):
                    view[...] = codes
                self.known[tiles[i]] = first + count

    def forget(self, wanted: Sequence[int]) -> None:
        """Code maps are small: all are kept."""

    def tiles(self, box: Box) -> list[int]:
        """The tiles that the pixels of a box depend on."""
        return [number for number, _ in self.header.tiling.touching(self.windows.around(box))]

    def memory(self, tiles: Sequence[int], strip: Box | None = None) -> int:
        """About how many bytes of working memory it takes at most to decode these tiles (a rectangle) and then a strip of pixels.

            code maps     4 per code, of all tiles
            fused loop    LOOP per code, of BATCH tiles
            strip         9 per pixel: as decoded, as returned, and one copy
            window        the largest number of values per pixel that the networks hold

        Does not include what the caller keeps, the file, the program and the model. Allocates nothing.
        """
        config, first, last = self.engine.config, self.boxes[tiles[0]], self.boxes[tiles[-1]]

        def codes(box: Box) -> int:
            return sum(rows * columns for rows, columns in config.map_shapes(box.height, box.width))

        needed = 4 * codes(Box(first.x0, first.y0, last.x1, last.y1)) + LOOP * min(BATCH, len(tiles)) * codes(first)
        if strip is not None:
            side = self.windows.side
            window = self.windows.around(
                strip._replace(x1=min(strip.x0 + side, strip.x1), y1=min(strip.y0 + side, strip.y1))
            )
            needed += 9 * strip.area + 4 * widest(config.autoencoder) * window.area
        return needed

    def work(self, tiles: Sequence[int], maps: int, area: int) -> int:
        """About how many multiply-adds it takes to decode the first maps of tiles, and to make that many pixels."""
        coded = work.of_maps(self.engine.model, self.boxes[0], len(tiles), maps)  # the first tile is the largest
        return coded + (work.of_pixels(self.engine.model, area) if maps else 0)

    def pixels(self, box: Box, maps: int) -> np.ndarray:
        """A box of the image, h x w x 3 uint8, from the first ``maps`` maps."""
        count = len(self.maps) if maps >= self.header.maps else maps  # trailing maps that are not stored are zero
        pixels = self.windows.pixels(self.maps[:count], box) if maps else self._blank(box)
        if self.header.grey:
            mean = (2 * pixels.sum(2, keepdims=True, dtype=np.uint16) + 3) // 6
            pixels = np.repeat(mean.astype(np.uint8), 3, 2)
        return pixels

    def _blank(self, box: Box) -> np.ndarray:
        """Pixels of no maps: away from the edges, the same square again and again; so only a small image is computed."""
        unit, config = self.engine.config.stride, self.engine.config
        reach = -(-self.engine.model.autoencoder.decoder_reach // unit) * unit

        def small(begin: int, end: int, whole: int) -> tuple[int, np.ndarray]:
            """The side of the small image, and where in it the pixels from begin to end are found."""
            padded, at = -(-whole // unit) * unit, np.arange(begin, end)
            side = 2 * reach + unit
            if padded <= side:
                return padded, at
            inner = reach + (at - reach) % unit
            return side, np.where(at < reach, at, np.where(at >= padded - reach, at - padded + side, inner))

        height, rows = small(box.y0, box.y1, self.header.height)
        width, columns = small(box.x0, box.x1, self.header.width)
        maps = [np.zeros(shape, np.int32) for shape in config.map_shapes(height, width)]
        square: np.ndarray = self.engine.windows(height, width).pixels(maps, Box(0, 0, width, height))
        return np.asarray(square[rows][:, columns])


def canvas_of(engine: Engine, header: Header) -> Canvas | SampleCanvas:
    """What the maps of a file are decoded into. Raises :class:`FormatError` if header and model do not fit."""
    return SampleCanvas(header) if header.samples else Canvas(engine, header)


class CodedImage:
    """A .vqc file whose image is decoded on demand. A context manager. Threads may share it, as a server of tiles would.

    header: :class:`~vqcodec.format.container.Header`: size, class, quality. metadata: any of "icc", "exif", "xmp".
    error: with ``partial``, why the file is incomplete, or None.
    """

    def __init__(
        self,
        engine: Engine,
        source: bytes | str | os.PathLike[str] | BinaryIO,
        *,
        partial: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self._limits, self._partial = check_limits("limits", limits), partial
        self._file: BinaryIO | None = None
        if isinstance(source, (str, os.PathLike)):
            source = self._file = open(source, "rb")  # noqa: SIM115  closed by close()
        try:
            self._reader = Reader(source, partial=partial, limits=self._limits)
            self.header = self._reader.header
            check_size(engine, self.header.height, self.header.width, self._limits)
            if partial:
                self._reader.verify()  # from now on the intact parts are known
            self._whole = self._reader.maps
            self._engine, self._canvas = engine, canvas_of(engine, self.header)
            self._lock = Lock()  # while code maps of the canvas are decoded
            self.metadata = self._reader.metadata()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        height, width = self.header.height, self.header.width
        return f"<CodedImage {width} x {height}, {self._whole} of {self._canvas.count} maps>"

    @property
    def error(self) -> FormatError | None:
        return self._reader.error

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.header.width, self.header.height

    @property
    def has_alpha(self) -> bool:
        """Whether the file has an alpha plane; with ``partial``, an intact one."""
        return self._reader.has_alpha

    def shape(self, *, region: Sequence[int] | None = None, scale: int = 1) -> tuple[int, int]:
        """Height and width of what :meth:`decode` and :meth:`rows` return."""
        return self._shape(DecodeOptions(region=region, scale=scale))

    def _shape(self, options: DecodeOptions) -> tuple[int, int]:
        box = options.box(self.header.tiling.whole)
        return -(-box.height // options.scale), -(-box.width // options.scale)

    def verify(self) -> None:
        """Check the whole file, even parts not needed for the image. Raises :class:`FormatError` unless ``partial`` is set."""
        if not self._partial:
            self._reader.verify()

    def check(self) -> None:
        """Decode all code maps, or all samples and compare their digest. Raises :class:`FormatError`."""
        if self.header.samples:
            self.decode()
        else:
            self.code_maps()

    def code_maps(self) -> list[np.ndarray]:
        """All code maps, int32, h x w each, coarse to fine; with ``partial``, the intact ones.

        Raises :class:`InvalidArgument` for an image that is coded as samples.
        """
        if self.header.samples:
            raise InvalidArgument("the image is coded as samples: it has no code maps")
        self.verify()
        tiles = range(len(self._canvas.boxes))
        self._check_memory(self._canvas.memory(tiles))
        self._check_work(tiles, self.header.maps, 0)
        with self._lock:
            known = self._need(self._canvas, tiles, self.header.maps)
        return self._canvas.maps if known == self.header.maps else self._canvas.maps[:known]

    def decode(
        self,
        *,
        region: Sequence[int] | None = None,
        scale: int = 1,
        maps: int | None = None,
        complete: str | None = None,
        seed: int = 0,
    ) -> RasterImage:
        """The image, or part of it, see :func:`vqcodec.decompress`."""
        return self.decoded(DecodeOptions(region=region, scale=scale, maps=maps, complete=complete, seed=seed))

    def rows(
        self,
        *,
        region: Sequence[int] | None = None,
        scale: int = 1,
        maps: int | None = None,
        complete: str | None = None,
        seed: int = 0,
    ) -> Iterator[np.ndarray]:
        """The same pixels from top to bottom, a strip at a time, h x W x 3 uint8, in memory for one strip."""
        return self.strips(DecodeOptions(region=region, scale=scale, maps=maps, complete=complete, seed=seed))

    def decoded(self, options: DecodeOptions) -> RasterImage:
        """:meth:`decode`, with checked options."""
        box, (height, width) = options.box(self.header.tiling.whole), self._shape(options)
        if options.whole:
            self.verify()
        # A second copy of the image for Pillow; the alpha plane as inflated, as stored and as returned.
        kept = 7 * height * width + 3 * self.header.height * self.header.width * self.has_alpha
        pixels, y = np.empty((height, width, 3), np.uint16 if self.header.deep else np.uint8), 0
        for strip in self.strips(options, kept):
            pixels[y : y + len(strip)] = strip
            y += len(strip)
        if options.whole and options.complete is None and not self.error:
            self._check_digest(digest(pixels, self.header.grey))
        alpha = self._reader.alpha()
        if alpha is not None:
            alpha = reduced(alpha[box.y0 : box.y1, box.x0 : box.x1], options.scale)
        return RasterImage(pixels=pixels, grey=self.header.grey, alpha=alpha, metadata=self.metadata)

    def picture(self, options: DecodeOptions) -> PIL.Image.Image:
        """:meth:`decoded`, as a PIL image, without a second copy of the pixels."""
        if self.header.deep:
            return images.to_pil(self.decoded(options))
        box, (height, width) = options.box(self.header.tiling.whole), self._shape(options)
        if options.whole:
            self.verify()
        # Pillow holds four bytes of a pixel; the alpha plane as inflated, as stored and as returned.
        kept = 4 * height * width + 3 * self.header.height * self.header.width * self.has_alpha
        image = PIL.Image.new("L" if self.header.grey else "RGB", (width, height))
        hashed, y = Digest(self.header.grey), 0
        for strip in self.strips(options, kept):
            hashed.add(strip)
            image.paste(images.to_pil(RasterImage(strip, grey=self.header.grey)), (0, y))
            y += len(strip)
        if options.whole and options.complete is None and not self.error:
            self._check_digest(hashed.value)
        alpha = self._reader.alpha()
        if alpha is not None:
            image.putalpha(PIL.Image.fromarray(reduced(alpha[box.y0 : box.y1, box.x0 : box.x1], options.scale)))
        images.describe(image, self.metadata)
        return image

    def _check_digest(self, found: bytes) -> None:
        expected = self._reader.digest() if self.header.samples else None
        if expected is not None and expected != found:
            raise CorruptChunk("digest", f"the pixels' must be {expected.hex()}, computed {found.hex()}")

    def strips(self, options: DecodeOptions, kept: int = 0) -> Iterator[np.ndarray]:
        """:meth:`rows`, with checked options, for a caller that keeps this many bytes."""
        box = options.box(self.header.tiling.whole)
        count = self._canvas.count
        if options.maps is not None:
            count = whole_number("maps", options.maps, 1, count + 1)
        needed = (
            slices_for(self.header, options.scale) if self.header.samples else maps_for(self._engine, options.scale)
        )
        count = min(count, self.header.maps, needed)
        strip = box._replace(y1=min(box.y0 + tiling.AREA, box.y1))
        tiles = self._canvas.tiles(box)
        self._check_memory(kept + self._canvas.memory(tiles, strip))
        self._check_work(tiles, self.header.maps if options.complete else count, box.area)
        return self._strips(box, options.scale, count, options.seed if options.complete else None)

    def _strips(self, box: Box, scale: int, count: int, seed: int | None) -> Iterator[np.ndarray]:
        # Drawn codes must not be mistaken for known ones, nor fine samples for coarse ones.
        fresh = seed is not None or (self.header.samples and any(known > count for known in self._canvas.known))
        canvas = canvas_of(self._engine, self.header) if fresh else self._canvas
        if self.header.maps and not self._whole:
            raise self.error or CorruptChunk("map 0", "no map is whole")
        for y in range(box.y0, box.y1, tiling.AREA):
            strip = Box(box.x0, y, box.x1, min(y + tiling.AREA, box.y1))
            with self._lock:
                tiles = canvas.tiles(strip)
                canvas.forget(tiles)
                known = self._need(canvas, tiles, count)
                if seed is not None:
                    canvas.draw([tile for tile in tiles if canvas.known[tile] < self.header.maps], seed)
                    known = self.header.maps
                pixels = canvas.pixels(strip, known) if self.header.samples else None
            if pixels is None:  # code maps stay: threads may make pixels of them side by side
                pixels = canvas.pixels(strip, known)
            yield reduced(pixels, scale)

    def _check_work(self, tiles: Sequence[int], maps: int, area: int) -> None:
        work.check(self._canvas.work(tiles, min(maps, self._whole), area), self._reader.size, self._limits)

    def _check_memory(self, needed: int) -> None:
        check_memory(self.header, needed, self._limits)

    def _need(self, canvas: Canvas | SampleCanvas, tiles: Sequence[int], count: int) -> int:
        """Decode the first ``count`` maps of tiles, or as many as are intact; returns how many. Holds the lock."""
        count = min(count, self._whole)
        by_progress: dict[int, list[int]] = {}
        for tile in tiles:
            if canvas.known[tile] < count:
                by_progress.setdefault(canvas.known[tile], []).append(tile)
        for known, equal in by_progress.items():
            canvas.decode(equal, self._reader.streams(equal, count)[known:])
        return count

    def close(self) -> None:
        if self._file:
            self._file.close()

    def __enter__(self) -> CodedImage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check(engine: Engine, header: Header) -> None:
    """Check that a header fits the model; raises :class:`FormatError` or :class:`ModelMismatch`."""
    model, config = engine.model, engine.config
    if header.fingerprint != model.fingerprint[:16]:
        raise ModelMismatch(header.fingerprint.hex(), model.fingerprint[:16].hex())
    for name, value, limit in (
        ("level", header.level, config.autoencoder.levels),
        ("class", header.class_id, len(config.classes) + 1),
        ("number of maps", header.maps, len(config.autoencoder.maps) + 1),
    ):
        if value >= limit:
            raise CorruptChunk("header", f"{name} must be under {limit} for this model, found {value}")


def check_size(engine: Engine, height: int, width: int, limits: Limits) -> None:
    """Raise :class:`LimitExceeded` for an image that is too large, padding included."""
    unit = engine.config.stride
    pixels = -(-height // unit) * unit * (-(-width // unit) * unit)
    if pixels > limits.pixels:
        raise LimitExceeded(
            f"at most {limits.pixels} pixels are allowed, {width} x {height} needs {pixels} with padding"
        )


def check_memory(header: Header, needed: int, limits: Limits) -> None:
    """Raise :class:`LimitExceeded` for an image that needs more memory than is allowed."""
    if needed > limits.memory:
        raise LimitExceeded(
            f"at most {limits.memory} bytes of memory are allowed, this needs about {needed} "
            f"of an image of {header.width} x {header.height}"
        )


def widest(auto: AutoencoderConfig) -> int:
    """About how many values per pixel the decoder's networks hold at most: a few tensors of every resolution."""
    if auto.transform == "lapped":  # pixels, the filter at a quarter of the resolution, features at an eighth
        return 12 + 6 * auto.refine // 16 + 6 * auto.hidden // 64
    return 9 + 3 * auto.hidden // 4


def maps_for(engine: Engine, scale: int) -> int:
    """How many maps a reduced image needs: enough that their vectors have as many values as its pixels in a code's area."""
    auto = engine.config.autoencoder
    if scale == 1:
        return len(auto.maps)
    stride = auto.maps[-1].stride
    wanted, values = 3 * max(1, stride // scale) ** 2, 0
    for number, m in enumerate(auto.maps, 1):
        values += m.dim if m.stride == stride else 0
        if values >= wanted:
            return number
    return len(auto.maps)


def reduced(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Means of squares of side ``scale``; those at the right and bottom may be smaller."""
    if scale == 1:
        return pixels
    if pixels.dtype == np.uint8:
        return np.asarray(PIL.Image.fromarray(pixels).reduce(scale))
    rows, columns = (np.arange(0, side, scale) for side in pixels.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(pixels, rows, axis=0, dtype=np.uint32), columns, axis=1)
    sizes = np.outer(*(np.diff(np.append(at, side)) for at, side in zip((rows, columns), pixels.shape)))
    return np.asarray((sums + sizes[..., None] // 2) // sizes[..., None], np.uint16)
