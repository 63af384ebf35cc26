"""From one image to a file: code maps and streams for any quality."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vqcodec import ops
from vqcodec.codec.code_maps import Maps, part
from vqcodec.codec.engine import Engine
from vqcodec.model.prior import Condition
from vqcodec.model.rate import Rate
from vqcodec.ops.range_coder import encode_stream
from vqcodec.tiling import Box, Tiling

#: Candidates per code that each step of effort adds.
CANDIDATES = 4
#: Lower limit on lambda, as a multiple of the model's smallest, whatever the error weights: below it, codebooks are exhausted.
FINEST = 3.0
#: Masking of errors by texture: the variance at which it starts, and the exponent (docs/MODEL.md says how they were chosen).
TEXTURE, MASKING = 1e-3, 0.35


class Encoding:
    """An image, and how to code it.

    pixels: H x W x 3 uint8. tiling: of the image. effort: 0 chooses codes by distortion and by how common they are; 1 to 9
    compare more and more candidates by how visible their errors are and by their cost under the prior of class
    ``class_id``, given the preceding codes.
    """

    def __init__(self, engine: Engine, pixels: np.ndarray, tiling: Tiling, *, effort: int, class_id: int) -> None:
        self._engine, self._config = engine, engine.config
        self._pixels, self._tiling, self._effort, self._class_id = pixels, tiling, effort, class_id
        self._autoencoder = engine.autoencoder(tiling.height, tiling.width)

    def rate(self, quality: float, level: int | None = None) -> Rate:
        """lambda at a quality, for ``level`` or the rate level trained for it."""
        auto = self._config.autoencoder
        position = auto.position(quality)
        level = auto.level(position) if level is None else level
        return Rate(auto.lagrangian(position), level, auto.distortion_weights, FINEST * auto.lambda_min)

    def maps(self, rate: Rate) -> Maps:
        """Code maps, coarse to fine: int32, sizes rounded up to whole codes."""
        auto = self._config.autoencoder
        maps = [np.zeros(shape, np.int32) for shape in self._config.map_shapes(self._tiling.height, self._tiling.width)]
        for stride in auto.strides:
            first = auto.maps_before(stride)
            for area in self._tiling.areas():
                z = self._autoencoder.latents(self._pixels, stride, maps[:first], area)
                self._quantise(stride, z, rate, maps, area)
        return maps

    def _quantise(self, stride: int, z: np.ndarray, rate: Rate, maps: Maps, area: Box) -> None:
        """Fill in the maps of a stride in an area, where their latent tensor is ``z`` (D x h x w).

        Maps that quantise the residual of others come after those; the rest are chosen together.
        """
        auto = self._config.autoencoder
        first, vectors = auto.maps_before(stride), np.zeros_like(z)
        numbers = range(first, first + len(auto.maps_at(stride)))
        channels = dict(zip(numbers, auto.channels(stride)))
        weights = (
            visibility(self._pixels[area.y0 : area.y1, area.x0 : area.x1], stride, z.shape[1:])
            if self._effort
            else None
        )
        for group in self._groups(numbers):
            targets = [_rows(z[channels[number]] - vectors[channels[number]]) for number in group]
            if weights is None or not auto.null_code:
                for number, target in zip(group, targets):
                    codes = self._autoencoder.nearest(number, target, rate if auto.null_code else None)
                    self._part(maps, number, area)[...] = codes.reshape(z.shape[1:])
            else:
                self._choose(group, targets, weights.ravel(), rate, maps, area)
            for number in group if group.stop < numbers.stop else ():
                found = self._autoencoder.code_vectors(number, self._part(maps, number, area).ravel())
                vectors[channels[number]] += found.T.reshape(-1, *z.shape[1:])

    def _groups(self, numbers: range) -> list[range]:
        """The maps of a stride, split before every map that quantises a residual."""
        cuts = [
            number for number in numbers if number == numbers.start or self._config.autoencoder.maps[number].residual
        ]
        return [range(begin, end) for begin, end in zip(cuts, [*cuts[1:], numbers.stop])]

    def _choose(
        self, group: range, targets: list[np.ndarray], weights: np.ndarray, rate: Rate, maps: Maps, area: Box
    ) -> None:
        """Choose the codes of a group of maps by the prior that will code them, tile by tile."""
        shape = self._part(maps, group.start, area).shape
        candidates = [
            [
                array.reshape(*shape, -1)
                for array in self._autoencoder.candidates(number, target, rate, CANDIDATES * self._effort, weights)
            ]
            for number, target in zip(group, targets)
        ]
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


def _rows(z: np.ndarray) -> np.ndarray:
    """D x h x w -> h*w x D, row by row."""
    return z.reshape(len(z), -1).T


def visibility(pixels: np.ndarray, stride: int, shape: Sequence[int]) -> np.ndarray:
    """How visible an error is at each code of a stride, less where texture masks it: ``shape`` float32, 1 where the image is flat.

    (1 + v / TEXTURE) ** -MASKING, v the mean variance of the luma in the code's blocks of 8 x 8 pixels. pixels: H x W x 3
    uint8, all covered by the codes; the last pixels are repeated beyond the edge.
    """
    height, width = shape
    side = min(stride, 8)
    luma = pixels @ np.array([0.299, 0.587, 0.114], np.float32) / np.float32(255)
    luma = np.pad(luma, [(0, codes * stride - n) for codes, n in zip(shape, luma.shape)], "edge")
    blocks = luma.reshape(height, stride // side, side, width, stride // side, side)
    variance = blocks.var((2, 5)).mean((1, 3))
    return np.asarray((1 + variance / TEXTURE) ** -MASKING, np.float32)


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
