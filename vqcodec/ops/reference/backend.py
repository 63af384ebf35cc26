"""Priors and autoencoder in NumPy: the definition of every backend. See `vqcodec.ops.backend.Backend`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vqcodec.errors import FormatError, InvalidArgument
from vqcodec.model.autoencoder import IntegerAutoencoder
from vqcodec.model.integer_network import IntegerNetwork
from vqcodec.model.prior import Condition, IntegerPrior
from vqcodec.ops.jobs import ChooseJob, DecodeJob, Job, SampleJob, Shape, check_codes
from vqcodec.ops.reference import indices, integer_network, rate, samples
from vqcodec.ops.reference import prior as reference
from vqcodec.ops.reference.range_decoder import RangeDecoder
from vqcodec.tiling import Box

if TYPE_CHECKING:
    from vqcodec.ops.samples import Streams, TileShape

Maps = list[np.ndarray]
#: Codes of a step from their cumulative frequencies.
Choose = Callable[[np.ndarray], np.ndarray]


class Reference:
    """Slow, and always right."""

    def prior_frequencies(
        self, prior: IntegerPrior, codes: np.ndarray, coarser: Maps, condition: Condition
    ) -> tuple[np.ndarray, np.ndarray]:
        _check([prior], [codes.shape], condition, coarser)
        check_codes("codes", codes, prior.codes)
        return reference.prior_frequencies(prior, codes, coarser, *condition)

    def decode(self, priors: Sequence[IntegerPrior], jobs: Sequence[DecodeJob]) -> tuple[list[Maps], list[int]]:
        found, corrupt = [], []
        for job in jobs:
            maps, number = _maps(priors, job, lambda m, job=job: RangeDecoder(job.streams[m]).decode)  # type: ignore[misc]
            found.append(maps)
            corrupt.append(number)
        return found, corrupt

    def sample(
        self, priors: Sequence[IntegerPrior], jobs: Sequence[SampleJob], sharpness: int, nucleus: int
    ) -> list[Maps]:
        return [
            _maps(priors, job, lambda m, job=job: _Draw(job.streams[m]), sharpness, nucleus)[0]  # type: ignore[misc]
            for job in jobs
        ]

    def choose(self, priors: Sequence[IntegerPrior], jobs: Sequence[ChooseJob]) -> list[Maps]:
        return [_maps(priors, job, lambda m, job=job: _Choose(*job.streams[m]))[0] for job in jobs]  # type: ignore[misc]

    def sample_tile(self, shape: TileShape) -> samples.Tile:
        return samples.Tile(shape)

    def encode_samples(self, tiles: Sequence[samples.Tile], end: int) -> list[Streams]:
        return [samples.encode(tile, end) for tile in tiles]

    def decode_samples(self, tiles: Sequence[samples.Tile], end: int, streams: Sequence[Streams]) -> list[bool]:
        return [samples.decode(tile, end, each) for tile, each in zip(tiles, streams)]

    def draw_samples(self, tiles: Sequence[samples.Tile], end: int, seeds: Sequence[int | None]) -> None:
        for tile, seed in zip(tiles, seeds):
            samples.draw(tile, end, seed)

    def encode_indices(self, planes: Sequence[np.ndarray], bits: int) -> list[bytes]:
        return [indices.encode(plane, bits) for plane in planes]

    def decode_indices(
        self, sizes: Sequence[tuple[int, int]], bits: int, streams: Sequence[bytes]
    ) -> list[np.ndarray | None]:
        return [indices.decode(*size, bits, stream) for size, stream in zip(sizes, streams)]

    def run_network(self, network: IntegerNetwork, planes: Sequence[np.ndarray]) -> list[np.ndarray]:
        return integer_network.run(network, planes)

    def autoencoder_pixels(
        self, autoencoder: IntegerAutoencoder, maps: Maps, height: int, width: int, box: Box
    ) -> np.ndarray:
        return integer_network.decode(autoencoder, maps, height, width)[box.y0 : box.y1, box.x0 : box.x1]

    def autoencoder_features(self, autoencoder: IntegerAutoencoder, pixels: np.ndarray) -> list[np.ndarray]:
        return integer_network.run(autoencoder.analysis, [integer_network.pixel_plane(pixels)])

    def autoencoder_latents(
        self, autoencoder: IntegerAutoencoder, stride: int, features: np.ndarray, maps: Maps
    ) -> np.ndarray:
        height, width = (side * stride for side in features.shape[:2])
        strides = autoencoder.config.strides
        vectors = integer_network.vectors(autoencoder, maps, height, width)[: strides.index(stride)]
        return integer_network.run(autoencoder.latent[stride], [features, *vectors])[0]

    def nearest_codes(
        self, z: np.ndarray, codebook: np.ndarray, lengths: np.ndarray, exponents: np.ndarray, base: int
    ) -> np.ndarray:
        return rate.nearest_codes(z, codebook, lengths, exponents, base)

    def code_candidates(
        self, z: np.ndarray, codebook: np.ndarray, lengths: np.ndarray, exponents: np.ndarray, base: int, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        return rate.code_candidates(z, codebook, lengths, exponents, base, count)


def _maps(
    priors: Sequence[IntegerPrior],
    job: Job,
    chooser: Callable[[int], Choose],
    sharpness: int = 256,
    nucleus: int = reference.WHOLE,
) -> tuple[Maps, int]:
    """The maps of a job, made by what ``chooser`` says of each, and the first corrupt one (with the maps before it) or -1."""
    maps, known = list(job.given), len(job.given)
    _check(priors, job.shapes, job.condition, maps)
    for m, (prior, shape) in enumerate(zip(priors, job.shapes, strict=True)):
        try:
            maps.append(reference.wavefront(prior, shape, maps, *job.condition, chooser(m), sharpness, nucleus))
        except FormatError:
            return maps[known:], known + m
    return maps[known:], -1


class _Draw:
    """Codes from words, step by step: the counterpart of `RangeDecoder.decode`."""

    def __init__(self, words: np.ndarray) -> None:
        self._words = words
        self._next = 0

    def __call__(self, cumulative: np.ndarray) -> np.ndarray:
        words = self._words[self._next : self._next + len(cumulative)]
        self._next += len(cumulative)
        return reference.inverse_cdf(cumulative, words)


class _Choose:
    """Codes from candidates, step by step."""

    def __init__(self, codes: np.ndarray, costs: np.ndarray) -> None:
        self._codes, self._costs = codes, costs
        self._next = 0

    def __call__(self, cumulative: np.ndarray) -> np.ndarray:
        here = slice(self._next, self._next + len(cumulative))
        self._next += len(cumulative)
        codes = self._codes[here]
        frequency = np.take_along_axis(np.diff(cumulative, axis=1), codes.astype(np.int64), 1)
        cost = self._costs[here] + rate.code_bits(frequency)
        return np.take_along_axis(codes, cost.argmin(1)[:, None], 1)[:, 0]


def _check(priors: Sequence[IntegerPrior], shapes: Sequence[Shape], condition: Condition, given: Maps) -> None:
    """What the compiled core checks itself."""
    class_id, level = condition
    sizes = [codes.shape for codes in given] + list(shapes)
    for m, (prior, (height, width)) in enumerate(zip(priors, shapes, strict=True), len(given)):
        if len(prior.factors) != m:
            raise InvalidArgument(f"map {m}: its prior has {len(prior.factors)} coarser maps, expected {m}")
        if height < 1 or width < 1:
            raise InvalidArgument(f"map {m}: must have at least one code, got {height} x {width}")
        for name, value, size in (("class", class_id, len(prior.classes)), ("level", level, len(prior.levels))):
            if not 0 <= value < size:
                raise InvalidArgument(f"{name} must be in 0..{size - 1}, got {value}")
        for j, factor in enumerate(prior.factors):
            if sizes[j][0] * factor < height or sizes[j][1] * factor < width:
                raise InvalidArgument(f"map {m}: map {j} is too small for it: {sizes[j]} times {factor}")
        for j, codes in enumerate(given):
            check_codes(f"map {j}", codes, len(prior.coarser[j]))
