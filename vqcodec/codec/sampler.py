"""Code maps that nobody encoded: whole pictures of a class, and what is missing in a picture."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence

import numpy as np
import PIL.Image

from vqcodec import ops
from vqcodec.codec import geometry, images
from vqcodec.codec.engine import Engine
from vqcodec.codec.images import Picture
from vqcodec.codec.options import check_sample_size, check_temperature, whole_number
from vqcodec.errors import InvalidArgument
from vqcodec.model.config import ModelConfig

Maps = list[np.ndarray]
#: Pictures and the number of the class that they should show -> a score for each, higher is better.
Critic = Callable[[list[PIL.Image.Image], int], Sequence[float] | np.ndarray]
#: Samples are drawn as if they had been compressed at this quality.
SAMPLE_QUALITY = 50


def draw(engine: Engine, class_id: int, n: int, *, size: tuple[int, int], seed: int, temperature: float, top_p: float) -> list[Maps]:
    """Code maps of ``n`` new pictures of a class, see :meth:`vqcodec.Codec.sample_maps`."""
    width, height = check_sample_size(size)
    n, seed = whole_number("n", n, 0, 1 << 32), whole_number("seed", seed, 0, 1 << 64)
    temperature = check_temperature(temperature)
    if not isinstance(top_p, numbers.Real) or not 0 < top_p <= 1:
        raise InvalidArgument(f"top_p must be a number above 0 and at most 1, got {top_p!r}")
    shapes = geometry.map_shapes(engine.model.config, height, width)
    auto = engine.model.config.autoencoder
    level = auto.level(auto.position(SAMPLE_QUALITY))
    jobs = [ops.SampleJob(shapes, uniform_words(seed, i, shapes), class_id, level) for i in range(n)]
    rule: dict[str, int] = dict(sharpness=max(1, round(256 / temperature)), nucleus=max(1, round(65536 * top_p)))
    return ops.wavefront_sample_batch(engine.model.priors, jobs, **rule, backend=engine.backend)


def fill(engine: Engine, maps: Maps, unknown: Sequence[np.ndarray], class_id: int, level: int, *, seed: int,
         temperature: float) -> Maps:
    """Code maps of one tile with the codes redrawn where ``unknown`` (bool, of each map's shape) is set.

    Each drawn code follows the prior given all codes before it in coding order: what is known
    to the right and below has its say only through the coarser maps. The draw is the Gumbel-max trick
    (the likeliest code after noise), which :func:`vqcodec.ops.wavefront_choose` computes.
    """
    seed, temperature = whole_number("seed", seed, 0, 1 << 64), check_temperature(temperature)
    found: Maps = []
    for number, (codes, missing) in enumerate(zip(maps, unknown)):
        prior = engine.model.priors[number]
        height, width = codes.shape
        order = ops.coding_order(height, width, prior.lag)
        k = engine.model.config.autoencoder.maps[number].codes
        words = np.random.Philox(key=seed, counter=[0, 0, 0, number]).random_raw(codes.size * k)
        gumbel = -np.log2(-np.log(((words >> np.uint64(40)) + 0.5) / 2**24)).astype(np.float32).reshape(-1, k)
        costs = np.where(missing[order][:, None], np.rint(-256 * temperature * gumbel), 0).astype(np.int32)
        candidates = np.where(missing[order][:, None], np.arange(k), codes[order][:, None]).astype(np.int32)
        found += ops.wavefront_choose([prior], [codes.shape], [(candidates, costs)], class_id, level, given=found)
    return found


def best_first(pictures: Sequence[Picture], class_id: int, critic: Critic) -> list[int]:
    """Numbers of the pictures in order of score; equals in their own order."""
    found = critic([images.to_pil(picture) for picture in pictures], class_id)
    try:
        scores = np.asarray(found, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"the critic must give numbers: {error}") from error
    if scores.shape != (len(pictures),) or not np.isfinite(scores).all():
        raise InvalidArgument(f"the critic must give {len(pictures)} finite scores, got {scores.size} of shape {scores.shape}")
    return [int(number) for number in np.argsort(-scores, kind="stable")]


def uniform_words(seed: int, index: int, shapes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """24-bit words for one sample, per map in coding order: Philox counters, stable across NumPy versions.

    ``seed`` is an int in [0, 2**64).
    """
    words = []
    for number, (height, width) in enumerate(shapes):
        generator = np.random.Philox(key=seed, counter=[0, 0, index, number])
        words.append((generator.random_raw(height * width) >> np.uint64(40)).astype(np.uint32))
    return words


def covered_codes(config: ModelConfig, mask: np.ndarray) -> list[np.ndarray]:
    """For every map, which codes lie in a block of pixels that ``mask`` (bool, H x W) touches."""
    found: list[np.ndarray] = []
    for (height, width), m in zip(geometry.map_shapes(config, *mask.shape), config.autoencoder.maps):
        padded = np.zeros((height * m.stride, width * m.stride), bool)
        padded[: mask.shape[0], : mask.shape[1]] = mask
        found.append(np.any(padded.reshape(height, m.stride, width, m.stride), (1, 3)))
    return found
