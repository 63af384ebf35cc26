"""One picture on its way into a file: code maps and streams for any quality, and the search for a quality."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from vqcodec import entropy, geometry, ops
from vqcodec.engine import Engine, memory_errors, torch
from vqcodec.errors import InvalidArgument
from vqcodec.geometry import part
from vqcodec.header import Box, tile_grid

if TYPE_CHECKING:
    from torch import Tensor

    from vqcodec.models.quantizer import Rate

Maps = list[np.ndarray]
#: Candidates per code that each step of effort adds.
CANDIDATES = 4


class Encoding:
    """A picture, and how it is to be coded.

    pixels: H x W x 3 uint8. tile: side of the tiles, 0 for one. effort: 0 chooses codes by distortion and
    how common they are; 1 to 9 compare ever more candidates by what they will cost under the
    prior of class ``class_id``, given the codes before.
    """

    def __init__(self, engine: Engine, pixels: np.ndarray, *, tile: int, effort: int, class_id: int) -> None:
        from vqcodec.models.windows import Windows

        self._engine, self._config = engine, engine.model.config
        self._pixels, self._tile, self._effort, self._class_id = pixels, tile, effort, class_id
        self._height, self._width = pixels.shape[:2]
        self._windows = Windows(engine.autoencoder, self._height, self._width)

    def maps(self, quality: float) -> Maps:
        """Code maps, coarse to fine: int32, each ceil'd to whole codes."""
        from vqcodec.models.quantizer import Rate

        auto = self._config.autoencoder
        rate = Rate.at(auto, auto.position(quality))
        maps = [np.zeros(shape, np.int32) for shape in geometry.map_shapes(self._config, self._height, self._width)]
        with torch().inference_mode(), memory_errors():
            for stride in auto.strides:
                before = self._engine.autoencoder.maps_before(stride)
                for area in geometry.areas(self._height, self._width, self._tile):
                    z = self._windows.latents(self._pixels, stride, maps[:before], area)
                    for number, codes in enumerate(self._codes(stride, z, rate, maps, area), before):
                        part(self._config, maps[number], number, area)[...] = codes.cpu().numpy()
        return maps

    def _codes(self, stride: int, z: Tensor, rate: Rate | None, maps: Maps, area: Box) -> list[Tensor]:
        """The code maps of a stride in an area."""
        autoencoder = self._engine.autoencoder
        if rate is None or self._effort == 0:
            found = autoencoder.quantize(stride, z[None], autoencoder.maps_before(stride), rate)[1]
            return [each.codes[0] for each in found]
        return autoencoder.choose(stride, z, rate, CANDIDATES * self._effort, self._chooser(rate, maps, area))

    def _chooser(self, rate: Rate, maps: Maps, area: Box) -> Callable[..., list[Tensor]]:
        """Chooses codes by the prior that will code them, tile by tile; fills in ``maps`` on the way."""
        model, autoencoder = self._engine.model, self._engine.autoencoder

        def choose(first: int, candidates: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
            numbers = range(first, first + len(candidates))
            arrays = []
            for number, (codes, costs) in zip(numbers, candidates):
                # Half of the rate by how common a code is, half by the prior: better than either alone.
                common = autoencoder.quantizers[number].bits(rate.level)[codes]
                shape = *part(self._config, maps[number], number, area).shape, -1
                arrays.append((codes.cpu().numpy().astype(np.int32).reshape(shape),
                               (2 * costs + common).cpu().numpy().reshape(shape)))
            for box in self._tiles(area):
                tiles = [part(self._config, codes, number, box) for number, codes in enumerate(maps[: numbers.stop])]
                inner = geometry.shifted(box, area)
                streams = []
                for number, pair in zip(numbers, arrays):
                    order = ops.coding_order(*tiles[number].shape, model.priors[number].lag)
                    streams.append(tuple(part(self._config, array, number, inner)[order] for array in pair))
                chosen = ops.wavefront_choose(
                    model.priors[first : numbers.stop], [tiles[number].shape for number in numbers], streams,
                    self._class_id, rate.level, given=tiles[:first])
                for number, codes in zip(numbers, chosen):
                    tiles[number][...] = codes
            return [torch().from_numpy(part(self._config, maps[number], number, area).astype(np.int64)) for number in numbers]

        return choose

    def _tiles(self, area: Box) -> list[Box]:
        return [box for box in tile_grid(self._width, self._height, self._tile) if geometry.within(box, area)]


def code_streams(engine: Engine, maps: Maps, boxes: list[Box], class_id: int, level: int, count: int) -> list[list[bytes]]:
    """The range coder's bytes of the first ``count`` maps: one stream for every tile of each."""
    streams: list[list[bytes]] = [[] for _ in range(count)]
    for box in boxes:
        tiles = [part(engine.model.config, codes, number, box) for number, codes in enumerate(maps)]
        for number in range(count):
            start, frequency = ops.prior_frequencies(
                engine.model.priors[number], tiles[number], tiles[:number], class_id, level, backend=engine.backend)
            streams[number].append(entropy.encode_stream(start, frequency))
    return streams


# -- the search for a quality ----------------------------------------------------------------

#: A file is good enough when it takes this share of the bytes that it may.
FULL = 0.985
#: A picture is good enough when it is no better than asked for by this many decibels.
SLACK = 0.05


def largest_file(target: int, make: Callable[[float], bytes]) -> bytes:
    """The file of the best quality that takes at most ``target`` bytes; that of quality 0 if even that takes more.

    make: the file of a quality. Sizes grow about exponentially with the quality.
    """
    def miss(data: bytes) -> float:
        return math.log(len(data) / target)

    found = bracket(make, miss, goal=math.log(FULL) / 2, tolerance=-math.log(FULL) / 2)
    fitting = [data for data in found if len(data) <= target]
    return max(fitting, key=len) if fitting else min(found, key=len)


def smallest_file(target: float, make: Callable[[float], tuple[bytes, float]]) -> bytes:
    """The smallest file whose picture has a PSNR of at least ``target`` dB.

    make: the file of a quality, and its PSNR. Raises :class:`InvalidArgument` if quality 100 does not reach it.
    """
    found = bracket(make, lambda made: made[1] - target, goal=SLACK / 2, tolerance=SLACK / 2)
    good = [made for made in found if made[1] >= target]
    if not good:
        best = max(made[1] for made in found)
        raise InvalidArgument(f"target_psnr {target:g} cannot be reached: the best quality gives {best:.2f} dB")
    return min(good, key=lambda made: len(made[0]))[0]


def bracket(make: Callable[[float], object], miss: Callable[..., float], *, goal: float, tolerance: float,
            tries: int = 12) -> list:
    """What ``make`` gives at qualities that close in on ``miss`` = ``goal``, to within ``tolerance``, by false position.

    ``miss`` grows with the quality. Ends early at 0 and 100 if the goal lies beyond.
    """
    made = []

    def at(quality: float) -> float:
        made.append(make(quality))
        return miss(made[-1]) - goal

    middle = at(50.0)
    if abs(middle) <= tolerance:
        return made
    low, high = ((50.0, middle), (100.0, at(100.0))) if middle < 0 else ((0.0, at(0.0)), (50.0, middle))
    for turn in range(tries):
        if low[1] >= -tolerance or high[1] <= tolerance or high[0] - low[0] < 0.01:
            break
        share = -low[1] / (high[1] - low[1])
        if turn % 3 == 2:  # false position may creep from one side
            share = 0.5
        quality = low[0] + min(max(share, 0.05), 0.95) * (high[0] - low[0])
        value = at(quality)
        if abs(value) <= tolerance:
            break
        low, high = ((quality, value), high) if value < 0 else (low, (quality, value))
    return made
