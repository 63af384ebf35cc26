"""One image on its way into a file: code maps and streams for any quality."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from vqcodec import ops
from vqcodec.codec.code_maps import Maps, part
from vqcodec.codec.engine import Engine
from vqcodec.codec.visibility import visibility
from vqcodec.model.prior import Condition
from vqcodec.model.rate import Rate
from vqcodec.ops.range_coder import encode_stream
from vqcodec.tiling import Box, Tiling

#: An exponent of 0 leaves errors as they are.
BASE = 15
#: Candidates per code that each step of effort adds.
CANDIDATES = 4


class Encoding:
    """An image, and how it is to be coded.

    pixels: H x W x 3 uint8. tiling: of the image. effort: 0 chooses codes by distortion and how common they are; 1 to 9
    compare ever more candidates by how much their errors show and by what they will cost under the prior of class
    ``class_id``, given the codes before.
    """

    def __init__(self, engine: Engine, pixels: np.ndarray, tiling: Tiling, *, effort: int, class_id: int) -> None:
        self._engine, self._config = engine, engine.config
        self._pixels, self._tiling, self._effort, self._class_id = pixels, tiling, effort, class_id
        self._windows = engine.windows(tiling.height, tiling.width)
        self._autoencoder = engine.model.autoencoder

    def rate(self, quality: float, level: int | None = None) -> Rate:
        """What a bit costs at a quality, for ``level`` or the rate level that was trained for it."""
        return Rate.of_quality(self._config.autoencoder, quality, level)

    def maps(self, rate: Rate) -> Maps:
        """Code maps, coarse to fine: int32, each ceil'd to whole codes."""
        auto = self._config.autoencoder
        maps = [np.zeros(shape, np.int32) for shape in self._config.map_shapes(self._tiling.height, self._tiling.width)]
        for stride in auto.strides:
            first = auto.maps_before(stride)
            for area in self._tiling.areas():
                z = self._windows.latents(self._pixels, stride, maps[:first], area)
                self._quantise(stride, z, rate, maps, area)
        return maps

    def _quantise(self, stride: int, z: np.ndarray, rate: Rate, maps: Maps, area: Box) -> None:
        """Fill in the maps of a stride in an area, where their latents are ``z`` (h x w x D int16).

        Maps that quantise what others leave over come after those; the others are chosen together.
        """
        auto = self._config.autoencoder
        first, left = auto.maps_before(stride), z.copy()
        numbers = range(first, first + len(auto.maps_at(stride)))
        channels = dict(zip(numbers, auto.channels(stride)))
        shown = np.zeros(z.shape[:2], np.int32)
        if self._effort:
            shown = visibility(self._pixels[area.y0 : area.y1, area.x0 : area.x1], stride, z.shape[:2])
        for group in self._groups(numbers):
            targets = [
                np.ascontiguousarray(left[..., channels[number]]).reshape(-1, auto.maps[number].dim) for number in group
            ]
            if self._effort and auto.null_code:
                self._choose(group, targets, shown.ravel(), rate, maps, area)
            else:
                for number, target in zip(group, targets):
                    codes = ops.nearest_codes(
                        target, *self._prices(number, rate, shown.ravel()), BASE, backend=self._engine.backend
                    )
                    self._part(maps, number, area)[...] = codes.reshape(z.shape[:2])
            for number in group if group.stop < numbers.stop else ():
                vectors = self._autoencoder.codebooks[number][self._part(maps, number, area)]
                rest = left[..., channels[number]].astype(np.int32) - vectors
                left[..., channels[number]] = rest.clip(-(2**15), 2**15 - 1)

    def _prices(self, number: int, rate: Rate, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Codebook, code lengths, and what errors cost at each code, of a map."""
        codebook, lengths = self._autoencoder.codebooks[number], self._autoencoder.code_lengths[number][rate.level]
        if not self._config.autoencoder.null_code:  # errors alone, divided by 64 so that none reaches the largest cost
            return codebook, np.zeros_like(lengths), np.full_like(shown, -6 * 256)
        return codebook, lengths, (rate.exponent(number) + shown).astype(np.int32)

    def _groups(self, numbers: range) -> list[range]:
        """The maps of a stride, cut before every map that refines channels of its own group."""
        auto = self._config.autoencoder
        cuts, taken = [numbers.start], 0  # the channels that the group has
        for number, channels in zip(numbers, auto.channels(auto.maps[numbers.start].stride)):
            own = ((1 << channels.stop - channels.start) - 1) << channels.start
            if taken & own:
                cuts.append(number)
                taken = 0
            taken |= own
        return [range(begin, end) for begin, end in pairwise([*cuts, numbers.stop])]

    def _choose(
        self, group: range, targets: list[np.ndarray], shown: np.ndarray, rate: Rate, maps: Maps, area: Box
    ) -> None:
        """Choose the codes of a group of maps by the prior that will code them, tile by tile."""
        shape = self._part(maps, group.start, area).shape
        candidates = []
        for number, target in zip(group, targets):
            prices = self._prices(number, rate, shown)
            count = min(CANDIDATES * self._effort, len(prices[0]))
            found = ops.code_candidates(target, *prices, BASE, count, backend=self._engine.backend)
            candidates.append([array.reshape(*shape, -1) for array in found])
        priors = self._engine.model.priors
        for _, box in self._tiling.touching(area):
            tiles = [self._part(maps, number, box) for number in range(group.stop)]
            inner = box.seen_from(area)
            streams = []
            for number, pair in zip(group, candidates):
                height, width = tiles[number].shape
                order = ops.coding_order(height, width, priors[number].lag)
                codes, costs = (part(self._config, array, number, inner)[order] for array in pair)
                streams.append((codes, costs))
            chosen = ops.wavefront_choose(
                priors[group.start : group.stop],
                [tiles[number].shape for number in group],
                streams,
                Condition(self._class_id, rate.level),
                given=tiles[: group.start],
            )
            for number, best in zip(group, chosen):
                tiles[number][...] = best

    def _part(self, maps: Maps, number: int, box: Box) -> np.ndarray:
        return part(self._config, maps[number], number, box)


def code_streams(engine: Engine, maps: Maps, tiling: Tiling, condition: Condition, count: int) -> list[list[bytes]]:
    """The range coder's bytes of the first ``count`` maps: one stream for every tile of each."""
    streams: list[list[bytes]] = [[] for _ in range(count)]
    for box in tiling:
        tiles = [part(engine.config, codes, number, box) for number, codes in enumerate(maps)]
        for number in range(count):
            start, frequency = ops.prior_frequencies(
                engine.model.priors[number], tiles[number], tiles[:number], condition, backend=engine.backend
            )
            streams[number].append(encode_stream(start, frequency))
    return streams
