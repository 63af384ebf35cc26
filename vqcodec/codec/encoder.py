"""One picture on its way into a file: code maps and streams for any quality, and the search for a quality."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vqcodec import ops
from vqcodec.codec import geometry
from vqcodec.codec.engine import Engine, memory_errors, torch
from vqcodec.codec.geometry import part
from vqcodec.errors import InvalidArgument
from vqcodec.format.header import Box, tiles_touching
from vqcodec.ops import range_coder

if TYPE_CHECKING:
    from torch import Tensor

    from vqcodec.networks.quantizer import Rate

Maps = list[np.ndarray]
#: Candidates per code that each step of effort adds.
CANDIDATES = 4
#: A bit is never cheaper than so many times the model's least lambda, whatever an error weighs: finer, codebooks are exhausted.
FINEST = 3.0
#: How texture hides errors: the variance at which it begins to, and the exponent (docs/MODEL.md says how they were chosen).
TEXTURE, MASKING = 1e-3, 0.35


class Encoding:
    """A picture, and how it is to be coded.

    pixels: H x W x 3 uint8. tile: side of the tiles, 0 for one. effort: 0 chooses codes by distortion and
    how common they are; 1 to 9 compare ever more candidates by how much their errors show and by what they will cost
    under the prior of class ``class_id``, given the codes before.
    """

    def __init__(self, engine: Engine, pixels: np.ndarray, *, tile: int, effort: int, class_id: int) -> None:
        from vqcodec.networks.windows import Windows

        self._engine, self._config = engine, engine.model.config
        self._pixels, self._tile, self._effort, self._class_id = pixels, tile, effort, class_id
        self._height, self._width = pixels.shape[:2]
        self._windows = Windows(engine.autoencoder, self._height, self._width)

    def rate(self, quality: float, level: int | None = None) -> Rate:
        """What a bit costs at a quality, for ``level`` or the rate level that was trained for it."""
        from vqcodec.networks.quantizer import Rate

        auto = self._config.autoencoder
        position = auto.position(quality)
        level = auto.level(position) if level is None else level
        return Rate(auto.lagrangian(position), level, auto.distortion_weights, FINEST * auto.lambda_min)

    def maps(self, rate: Rate) -> Maps:
        """Code maps, coarse to fine: int32, each ceil'd to whole codes."""
        auto = self._config.autoencoder
        maps = [np.zeros(shape, np.int32) for shape in geometry.map_shapes(self._config, self._height, self._width)]
        with torch().inference_mode(), memory_errors():
            for stride in auto.strides:
                before = self._engine.autoencoder.maps_before(stride)
                for area in geometry.areas(self._height, self._width, self._tile):
                    z = self._windows.latents(self._pixels, stride, maps[:before], area)
                    for number, codes in enumerate(self._codes(stride, z, rate, maps, area), before):
                        part(self._config, maps[number], number, area)[...] = codes.cpu().numpy()
        return maps

    def _codes(self, stride: int, z: Tensor, rate: Rate, maps: Maps, area: Box) -> list[Tensor]:
        """The code maps of a stride in an area."""
        autoencoder = self._engine.autoencoder
        entropy_constrained = self._config.autoencoder.null_code
        if self._effort == 0 or not entropy_constrained:
            found = autoencoder.quantize(stride, z[None], autoencoder.maps_before(stride), rate if entropy_constrained else None)[1]
            return [each.codes[0] for each in found]
        y, x = slice(area.y0, area.y1), slice(area.x0, area.x1)
        weights = torch().from_numpy(visibility(self._pixels[y, x], stride, z.shape[1:])).to(z.device)
        return autoencoder.choose(stride, z, weights, rate, CANDIDATES * self._effort, self._chooser(rate, maps, area))

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
                               np.rint(256 * (2 * costs + common).cpu().numpy()).clip(0, 2**30).astype(np.int32).reshape(shape)))
            for box in self._tiles(area):
                tiles = [part(self._config, codes, number, box) for number, codes in enumerate(maps[: numbers.stop])]
                inner = geometry.shifted(box, area)
                streams = []
                for number, pair in zip(numbers, arrays):
                    height, width = tiles[number].shape
                    order = ops.coding_order(height, width, model.priors[number].lag)
                    streams.append(tuple(part(self._config, array, number, inner)[order] for array in pair))
                chosen = ops.wavefront_choose(
                    model.priors[first : numbers.stop], [tiles[number].shape for number in numbers], streams,
                    self._class_id, rate.level, given=tiles[:first])
                for number, best in zip(numbers, chosen):
                    tiles[number][...] = best
            return [torch().from_numpy(part(self._config, maps[number], number, area).astype(np.int64)) for number in numbers]

        return choose

    def _tiles(self, area: Box) -> list[Box]:
        return [box for _, box in tiles_touching(self._width, self._height, self._tile, area)]


def visibility(pixels: np.ndarray, stride: int, shape: Sequence[int]) -> np.ndarray:
    """How much an error shows at each code of a stride, less where texture hides it: ``shape`` float32, 1 where the picture is flat.

    (1 + v / TEXTURE) ** -MASKING, v the mean variance of the luma in the code's blocks of 8 x 8 pixels. pixels: H x W x 3
    uint8, of which the codes cover all; its last pixels go on beyond.
    """
    height, width = shape
    side = min(stride, 8)
    luma = pixels @ np.array([0.299, 0.587, 0.114], np.float32) / np.float32(255)
    luma = np.pad(luma, [(0, codes * stride - n) for codes, n in zip(shape, luma.shape)], "edge")
    blocks = luma.reshape(height, stride // side, side, width, stride // side, side)
    variance = blocks.var((2, 5)).mean((1, 3))
    return np.asarray((1 + variance / TEXTURE) ** -MASKING, np.float32)


def code_streams(engine: Engine, maps: Maps, boxes: list[Box], class_id: int, level: int, count: int) -> list[list[bytes]]:
    """The range coder's bytes of the first ``count`` maps: one stream for every tile of each."""
    streams: list[list[bytes]] = [[] for _ in range(count)]
    for box in boxes:
        tiles = [part(engine.model.config, codes, number, box) for number, codes in enumerate(maps)]
        for number in range(count):
            start, frequency = ops.prior_frequencies(
                engine.model.priors[number], tiles[number], tiles[:number], class_id, level, backend=engine.backend)
            streams[number].append(range_coder.encode_stream(start, frequency))
    return streams


# -- the search for a quality ----------------------------------------------------------------

#: A file is good enough when it takes this share of the bytes that it may.
FULL = 0.985
#: A picture is good enough when it is no better than asked for by this many decibels.
SLACK = 0.05
#: How far below the qualities that a rate level was trained for it may be used.
STRETCH = 30.0


@dataclass(frozen=True)
class Trial:
    """A file that the search made on its way."""

    quality: float
    level: int  #: rate level
    data: bytes
    psnr: float = math.nan  #: of the decoded picture in dB, where it counts


#: Makes the file of a quality, at the rate level that was trained for it or at a given one.
Make = Callable[[float, "int | None"], Trial]


def largest_file(target: int, make: Make) -> bytes:
    """The file of the best quality that takes at most ``target`` bytes; that of quality 0 if even that takes more.

    Sizes grow about exponentially with the quality.
    """
    def miss(trial: Trial) -> float:
        return math.log(len(trial.data) / target)

    found = search(make, miss, goal=math.log(FULL) / 2, tolerance=-math.log(FULL) / 2)
    fitting = [trial.data for trial in found if len(trial.data) <= target]
    return max(fitting, key=len) if fitting else min((trial.data for trial in found), key=len)


def smallest_file(target: float, make: Make) -> bytes:
    """The smallest file whose picture has a PSNR of at least ``target`` dB.

    Raises :class:`InvalidArgument` if quality 100 does not reach it.
    """
    found = search(make, lambda trial: trial.psnr - target, goal=SLACK / 2, tolerance=SLACK / 2)
    good = [trial.data for trial in found if trial.psnr >= target]
    if not good:
        best = max(trial.psnr for trial in found)
        raise InvalidArgument(f"target_psnr {target:g} cannot be reached: the best quality gives {best:.2f} dB")
    return min(good, key=len)


def search(make: Make, miss: Callable[[Trial], float], *, goal: float, tolerance: float) -> list[Trial]:
    """What ``make`` gives at qualities that close in on ``miss`` = ``goal``, to within ``tolerance``.

    ``miss`` grows with the quality, and jumps where the rate level changes. If the goal lies in a jump, the search
    goes on with the upper level at lower qualities, where its sizes fall without a jump.
    """
    found = bracket(lambda quality: make(quality, None), miss, goal, tolerance, 0, 100)
    below = [trial for trial in found if miss(trial) <= goal]
    above = [trial for trial in found if miss(trial) > goal]
    if below and above and min(abs(miss(trial) - goal) for trial in found) > tolerance:
        upper, lower = min(above, key=miss), max(below, key=miss)
        if upper.level != lower.level:
            low = max(0.0, lower.quality - STRETCH)
            found += bracket(lambda quality: make(quality, upper.level), miss, goal, tolerance, low, upper.quality)
    return found


def bracket(make: Callable[[float], Trial], miss: Callable[[Trial], float], goal: float, tolerance: float,
            low: float, high: float, tries: int = 12) -> list[Trial]:
    """Trials between two qualities that close in on ``miss`` = ``goal``, by false position.

    Ends early at the two ends if the goal lies beyond.
    """
    made = []

    def at(quality: float) -> tuple[float, float]:
        made.append(make(quality))
        return quality, miss(made[-1]) - goal

    middle = at((low + high) / 2)
    if abs(middle[1]) <= tolerance:
        return made
    below, above = (middle, at(high)) if middle[1] < 0 else (at(low), middle)
    for turn in range(tries):
        if below[1] >= -tolerance or above[1] <= tolerance or above[0] - below[0] < 0.1:
            break
        share = -below[1] / (above[1] - below[1])
        if turn % 3 == 2:  # false position may creep from one side
            share = 0.5
        found = at(below[0] + min(max(share, 0.05), 0.95) * (above[0] - below[0]))
        if abs(found[1]) <= tolerance:
            break
        below, above = (found, above) if found[1] < 0 else (below, found)
    return made
