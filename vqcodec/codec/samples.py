"""Images coded sample by sample: without loss, or with a bounded error.

compress:   RasterImage -> tiles -> planes of samples -> streams of slices and channels -> Container
                                 -> palette and indices -> one stream
decompress: streams -> tiles -> RasterImage
"""

from __future__ import annotations

import hashlib
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vqcodec import ops
from vqcodec.codec import work
from vqcodec.codec.images import RasterImage
from vqcodec.errors import CorruptChunk, InvalidArgument
from vqcodec.format.chunks import DIGEST_SIZE, Container
from vqcodec.format.header import SLICES, Header
from vqcodec.format.wire import Cursor, encode_varint, inflate
from vqcodec.ops.samples import SampleTile, Streams, TileShape
from vqcodec.tiling import Box, Tiling

#: What the first stream of a tile begins with.
SAMPLES, PALETTE = b"\0", b"\1"
#: Colours of a palette at most, and how many pixels show whether a tile may have so few.
COLOURS, PROBED = 4096, 1 << 14
#: A tile that takes fewer bytes than this for each pixel, with a palette, is not coded as samples to compare.
FEW = 1 / 16
#: Side of the tiles of a picture of several kinds, which is known by the share of equal pixels in rows of BLOCK.
MIXED, BLOCK, DRAWN = 256, 64, 0.7
#: Images with fewer pixels are one slice: each takes some bytes.
SMALL = 1 << 14
#: Tiles coded at a time: each takes memory of its own.
BATCH = 4
#: Bytes of what is learned about a channel, while its tile is coded.
MODEL = 4 << 20
#: Tiles that miss slices and are not learned anew for the next one.
LEARNED = 16
#: Bytes of decoded tiles that are kept for later strips and regions.
KEPT = 64 << 20
#: Slices that know every second row and column.
UPSCALED = 3
#: The order in which colours are coded: green, red, blue.
ORDER = (1, 0, 2)


def content(image: RasterImage, bound: int, *, quality: int, tile: int | None = None) -> Container:
    """What a file of an image holds if no sample may differ by more than ``bound``."""
    height, width = image.pixels.shape[:2]
    usual = _content(image, bound, quality, Tiling.usual(height, width, tile))
    if tile is not None or not mixed(image.pixels):
        return usual
    return min(usual, _content(image, bound, quality, Tiling.usual(height, width, MIXED)), key=_bytes)


def _content(image: RasterImage, bound: int, quality: int, tiling: Tiling) -> Container:
    work.check_tiles(tiling)
    header = Header(
        fingerprint=bytes(16),
        width=tiling.width,
        height=tiling.height,
        tile=tiling.side,
        quality=quality,
        maps=1 if tiling.height * tiling.width < SMALL else SLICES,
        grey=image.grey,
        samples=True,
        deep=image.pixels.dtype == np.uint16,
        bound=bound,
    )
    maps: list[list[bytes]] = [[] for _ in range(header.maps)]
    decoded = image.pixels if bound == 0 else np.empty_like(image.pixels)
    boxes = list(tiling)
    for begin in range(0, len(boxes), BATCH):
        some = boxes[begin : begin + BATCH]
        parts = [image.pixels[box.y0 : box.y1, box.x0 : box.x1] for box in some]
        for box, (streams, seen) in zip(some, _coded(header, some, parts)):
            for number, stored in enumerate(maps):
                stored += [channel[number] for channel in streams]
            if bound:
                decoded[box.y0 : box.y1, box.x0 : box.x1] = seen
    if not any(any(streams) for streams in maps[1:]):  # palettes only
        header, maps = replace(header, maps=1), maps[:1]
    return Container(header, image.metadata, maps, image.alpha, digest(decoded, image.grey))


def _bytes(made: Container) -> int:
    return sum(len(stream) for streams in made.maps for stream in streams)


def mixed(pixels: np.ndarray) -> bool:
    """Whether a picture has drawn parts, such as text, and others, such as photographs: small tiles may suit each.

    Most pixels of a drawn part equal the one to their left.
    """
    rows = pixels[::8, : pixels.shape[1] // BLOCK * BLOCK]
    if not rows.size:
        return False
    same = np.zeros(rows.shape[:2], bool)
    same[:, 1:] = (rows[:, 1:] == rows[:, :-1]).all(2)
    drawn = same.reshape(len(rows), -1, BLOCK).mean(2) > DRAWN
    return bool(0.1 < drawn.mean() < 0.95)


def _coded(header: Header, boxes: Sequence[Box], parts: Sequence[np.ndarray]) -> list[tuple[Streams, np.ndarray]]:
    """The streams of some tiles, and what a decoder will see: with a palette or as samples, whichever takes fewer bytes."""
    found = [_with_palette(header, part) for part in parts]
    shorter = [FEW * box.area for box in boxes]
    left = [i for i, streams in enumerate(found) if streams is None or _size(streams) > shorter[i]]
    tiles = [ops.sample_tile(shape_of(header, boxes[i])) for i in left]
    for tile, i in zip(tiles, left):
        tile.set_samples(planes_of(parts[i], header.grey))
    seen = list(parts)
    for tile, i, streams in zip(tiles, left, ops.encode_samples(tiles, header.maps) if tiles else []):
        streams[0][0] = SAMPLES + streams[0][0]
        other = found[i]
        if other is None or _size(streams) <= _size(other):
            found[i] = streams
            if header.bound:
                seen[i] = pixels_of(tile.samples(), header.deep)
    return [(streams, part) for streams, part in zip(found, seen) if streams is not None]


def _size(streams: Streams) -> int:
    return sum(len(stream) for channel in streams for stream in channel)


def _with_palette(header: Header, pixels: np.ndarray) -> Streams | None:
    """The streams of a tile of few colours, all but the first empty; None if it has many."""
    if header.deep:
        return None
    colours = pixels[..., : header.channels].astype(np.uint32)
    packed: np.ndarray = np.zeros(colours.shape[:2], np.uint32)
    for c in range(header.channels):
        packed = packed << 8 | colours[..., c]
    if len(np.unique(packed.ravel()[:: max(1, packed.size // PROBED)])) > COLOURS // 2:
        return None
    palette, indices = np.unique(packed, return_inverse=True)
    if len(palette) > COLOURS:
        return None
    bits = (len(palette) - 1).bit_length()
    (stream,) = ops.encode_indices([indices.reshape(packed.shape).astype(np.uint16)], bits)
    entries = np.stack([palette >> (8 * (header.channels - 1 - c)) & 255 for c in range(header.channels)])
    steps = np.diff(entries, axis=1, prepend=0).astype(np.uint8)
    stored = zlib.compress(steps.tobytes(), 9)
    first = b"".join([PALETTE, encode_varint(len(palette)), encode_varint(len(stored)), stored, stream])
    streams = [[b""] * header.maps for _ in range(header.channels)]
    streams[0][0] = first
    return streams


def _from_palette(header: Header, box: Box, streams: Streams) -> np.ndarray:
    """The pixels of a tile of few colours. Raises ``CorruptChunk``."""
    if any(stream for c, channel in enumerate(streams) for m, stream in enumerate(channel) if c or m):
        raise CorruptChunk("map 0", "a tile with a palette has one stream")
    cursor = Cursor(memoryview(streams[0][0])[1:], "map 0")
    count = cursor.varint()
    if header.deep or not 1 <= count <= COLOURS:
        raise CorruptChunk("map 0", f"a palette of 8-bit samples has 1 to {COLOURS} colours, found {count}")
    steps = inflate(cursor.take(cursor.varint()), "map 0", count * header.channels)
    if steps is None or len(steps) != count * header.channels:
        raise CorruptChunk("map 0", f"a palette must have {count} colours")
    palette = np.frombuffer(steps, np.uint8).reshape(header.channels, count)
    palette = np.cumsum(palette, axis=1, dtype=np.uint8)
    rest = bytes(cursor.view[cursor.at :])
    (indices,) = ops.decode_indices([(box.height, box.width)], (count - 1).bit_length(), [rest])
    if indices is None:
        raise CorruptChunk("map 0", "the stream is not one that an encoder writes")
    if indices.max() >= count:
        raise CorruptChunk("map 0", f"indices must be below {count}, found {indices.max()}")
    pixels = palette.T[indices]
    return np.repeat(pixels, 3, 2) if header.grey else pixels


def shape_of(header: Header, box: Box) -> TileShape:
    """Of the tile that is a box of an image."""
    return TileShape(box.height, box.width, header.channels, 16 if header.deep else 8, header.maps, header.bound)


def planes_of(pixels: np.ndarray, grey: bool) -> np.ndarray:
    """channels x h x w uint16, in the order of coding, from h x w x 3."""
    channels = (0,) if grey else ORDER
    return np.stack([pixels[..., channel] for channel in channels]).astype(np.uint16)


def pixels_of(planes: np.ndarray, deep: bool) -> np.ndarray:
    """The inverse: h x w x 3, uint8 or uint16."""
    pixels = np.empty((*planes.shape[1:], 3), np.uint16 if deep else np.uint8)
    for number, channel in enumerate(ORDER):
        pixels[..., channel] = planes[min(number, len(planes) - 1)]
    return pixels


class Digest:
    """The first 16 bytes of the SHA-256 of an image's samples, row by row; those of 16 bits with the high byte first."""

    def __init__(self, grey: bool) -> None:
        self._grey, self._hash = grey, hashlib.sha256()

    def add(self, pixels: np.ndarray) -> None:
        """The next rows, h x w x 3."""
        for row in pixels:
            samples = row[:, 0] if self._grey else row
            self._hash.update(
                np.ascontiguousarray(samples, ">u2" if samples.dtype == np.uint16 else np.uint8).tobytes()
            )

    @property
    def value(self) -> bytes:
        return self._hash.digest()[:DIGEST_SIZE]


def digest(pixels: np.ndarray, grey: bool) -> bytes:
    """The :class:`Digest` of a whole image."""
    made = Digest(grey)
    made.add(pixels)
    return made.value


class SampleCanvas:
    """The samples of an image as far as they are known. See :class:`vqcodec.codec.decoder.Canvas`.

    known: slices of every tile that are in its pixels. 0 again for tiles that :meth:`forget` has let go.
    """

    def __init__(self, header: Header) -> None:
        self.header, self.boxes = header, list(header.tiling)
        self.count = header.maps
        self.known = [0] * len(self.boxes)
        self._pixels: dict[int, np.ndarray] = {}
        # Of tiles that miss slices: the streams so far, and of the last ones what was learned about them.
        self._streams: dict[int, list[list[bytes]]] = {}
        self._learned: OrderedDict[int, SampleTile] = OrderedDict()
        self._palettes: set[int] = set()  # tiles that have one: they are whole with the first slice

    @property
    def maps(self) -> list[np.ndarray]:
        raise InvalidArgument("the image is coded as samples: it has no code maps")

    def decode(self, tiles: Sequence[int], streams: Sequence[Sequence[bytes]]) -> None:
        """Decode the next slices of some tiles, all at the same one; ``streams[m]`` has those of all channels for each tile."""
        channels = self.header.channels
        for begin in range(0, len(tiles), BATCH):
            some = list(tiles[begin : begin + BATCH])
            first = self.known[some[0]]
            handed = [
                [[each[i * channels + c] for each in streams] for c in range(channels)]
                for i in range(begin, begin + len(some))
            ]
            for number, fresh in zip(some, handed):
                if first == 0:
                    self._begin(number, fresh)
            left = [i for i, number in enumerate(some) if number not in self._palettes]
            if first and any(
                stream for i, fresh in enumerate(handed) if i not in left for each in fresh for stream in each
            ):
                raise CorruptChunk(f"map {first}", "a tile with a palette has one stream")
            made = [self._tile(some[i]) for i in left]
            self._decode(made, first, first + len(streams), [handed[i] for i in left])
            for i, tile in zip(left, made):
                number = some[i]
                before = self._streams.pop(number, [[] for _ in range(channels)])
                if first + len(streams) < self.count:
                    self._streams[number] = [a + b for a, b in zip(before, handed[i])]
                    self._learned[number] = tile
                self._show(number, tile, first + len(streams))
            for number in some:
                self.known[number] = first + len(streams)
            while len(self._learned) > LEARNED:
                self._learned.popitem(last=False)

    def _begin(self, number: int, streams: list[list[bytes]]) -> None:
        """Look at what the first stream of a tile begins with: the whole tile, if that is a palette."""
        kind, streams[0][0] = streams[0][0][:1], streams[0][0][1:] if streams[0][0][:1] == SAMPLES else streams[0][0]
        if kind == PALETTE:
            self._pixels[number] = _from_palette(self.header, self.boxes[number], streams)
            self._palettes.add(number)
        elif kind != SAMPLES:
            raise CorruptChunk("map 0", f"a tile must begin with 0 or 1, found {kind.hex() or 'nothing'}")

    @staticmethod
    def _decode(tiles: Sequence[SampleTile], first: int, end: int, streams: Sequence[list[list[bytes]]]) -> None:
        if tiles and not all(ops.decode_samples(tiles, end, streams)):
            raise CorruptChunk(f"map {first}", "the stream is not one that an encoder writes")

    def _tile(self, number: int) -> SampleTile:
        """A tile as far as it is known."""
        if found := self._learned.pop(number, None):
            return found
        tile = ops.sample_tile(shape_of(self.header, self.boxes[number]))
        if streams := self._streams.get(number):
            self._decode([tile], 0, self.known[number], [streams])
        return tile

    def draw(self, tiles: Sequence[int], seed: int) -> None:
        """Draw the missing slices of some tiles."""
        for number in tiles:
            if number in self._palettes:
                self.known[number] = self.count
                continue
            tile = self._tile(number)
            ops.draw_samples([tile], self.count, [(seed + number * 0x9E3779B97F4A7C15) % 2**64])
            self._show(number, tile, self.count)

    def _show(self, number: int, tile: SampleTile, known: int) -> None:
        if known < self.count:
            tile.fill()
        self._pixels[number] = pixels_of(tile.samples(), self.header.deep)
        self.known[number] = known

    def forget(self, wanted: Sequence[int]) -> None:
        """Let go of tiles other than these if many are kept."""
        held = sum(pixels.nbytes for pixels in self._pixels.values())
        needed = set(wanted)
        for number in [number for number in self._pixels if number not in needed]:
            if held <= KEPT:
                break
            held -= self._pixels.pop(number).nbytes
            self.known[number] = 0
            self._streams.pop(number, None)
            self._learned.pop(number, None)
            self._palettes.discard(number)

    def tiles(self, box: Box) -> list[int]:
        """The tiles that the pixels of a box depend on."""
        return [number for number, _ in self.header.tiling.touching(box)]

    def memory(self, tiles: Sequence[int], strip: Box | None = None) -> int:
        """About how many bytes of working memory it takes at most to decode these tiles, a strip at a time."""
        first, size = self.boxes[tiles[0]], 2 if self.header.deep else 1
        coded = min(BATCH + LEARNED, len(tiles)) * self.header.channels * (MODEL + 8 * first.area)
        shown = len(tiles) if strip is None else len(self.tiles(strip))
        return coded + KEPT + shown * first.area * 3 * size + (0 if strip is None else 6 * size * strip.area)

    def work(self, tiles: Sequence[int], maps: int, area: int) -> int:
        """See :meth:`vqcodec.codec.decoder.Canvas.work`."""
        return work.of_samples(self.header, self.boxes[0], len(tiles)) if maps else 0

    def pixels(self, box: Box, maps: int) -> np.ndarray:
        """A box of the image, h x w x 3; where slices are missing, means of the nearest samples that are known."""
        made = np.zeros((box.height, box.width, 3), np.uint16 if self.header.deep else np.uint8)
        for number, tile in self.header.tiling.touching(box):
            part = Box(max(box.x0, tile.x0), max(box.y0, tile.y0), min(box.x1, tile.x1), min(box.y1, tile.y1))
            to, at = part.seen_from(box), part.seen_from(tile)
            made[to.y0 : to.y1, to.x0 : to.x1] = self._pixels[number][at.y0 : at.y1, at.x0 : at.x1]
        return made


def upscaled(image: RasterImage, doublings: int, seed: int | None) -> RasterImage:
    """An image twice as large, or 4 times, ...: its pixels are every second one, those between are drawn.

    What they may be is learned from the image itself. Without a seed, predictions are taken.
    """
    for turn in range(doublings):
        height, width = image.pixels.shape[:2]
        channels = 1 if image.grey else 3
        deep = image.pixels.dtype == np.uint16
        tile = ops.sample_tile(TileShape(2 * height, 2 * width, channels, 16 if deep else 8, SLICES, 0))
        planes = np.zeros((channels, 2 * height, 2 * width), np.uint16)
        planes[:, ::2, ::2] = planes_of(image.pixels, image.grey)
        tile.set_samples(planes)
        ops.encode_samples([tile], UPSCALED)
        ops.draw_samples([tile], SLICES, [None if seed is None else (seed + turn) % 2**64])
        alpha = None if image.alpha is None else np.repeat(np.repeat(image.alpha, 2, 0), 2, 1)
        image = RasterImage(pixels_of(tile.samples(), deep), image.grey, alpha, image.metadata)
    return image


def slices_for(header: Header, scale: int) -> int:
    """How many slices an image needs that is reduced by ``scale``: a grid of samples twice as fine as its pixels."""
    return header.maps if header.maps == 1 else {1: 6, 2: 6, 4: 3, 8: 2}.get(scale, 1)
