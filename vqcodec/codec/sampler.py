"""Code maps drawn from the prior: whole images of a class, and missing parts of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import PIL.Image

from vqcodec import ops
from vqcodec.codec import images
from vqcodec.codec.code_maps import Maps
from vqcodec.codec.engine import Engine
from vqcodec.codec.images import RasterImage
from vqcodec.codec.options import SampleOptions
from vqcodec.errors import InvalidArgument
from vqcodec.model.prior import Condition

#: Images and the class number they should show -> a score for each, higher is better.
Classifier = Callable[[list[PIL.Image.Image], int], Sequence[float] | np.ndarray]
#: Samples are drawn as if they had been compressed at this quality.
SAMPLE_QUALITY = 50


def draw(engine: Engine, class_id: int, options: SampleOptions) -> list[Maps]:
    """Code maps of new images of a class, see :meth:`vqcodec.Codec.sample_maps`."""
    width, height = options.size
    shapes = engine.config.map_shapes(height, width)
    auto = engine.config.autoencoder
    condition = Condition(class_id, auto.level(auto.position(SAMPLE_QUALITY)))
    jobs = [ops.SampleJob(shapes, uniform_words(options.seed, i, shapes), condition) for i in range(options.drawn)]
    sharpness, nucleus = max(1, round(256 / options.temperature)), max(1, round(65536 * options.top_p))
    return ops.wavefront_sample_batch(
        engine.model.priors, jobs, sharpness=sharpness, nucleus=nucleus, backend=engine.backend
    )


def fill(
    engine: Engine, maps: Maps, unknown: Sequence[np.ndarray], condition: Condition, *, seed: int, temperature: float
) -> Maps:
    """Code maps of one tile with the codes redrawn where ``unknown`` (bool, of each map's shape) is set.

    Each code is drawn from the prior given all codes before it in coding order: what is known
    to the right and below has an effect only through the coarser maps. Drawing uses the Gumbel-max trick
    (the most likely code after adding noise), which :func:`vqcodec.ops.wavefront_choose` computes.
    """
    found: Maps = []
    for number, (codes, missing) in enumerate(zip(maps, unknown)):
        prior = engine.model.priors[number]
        height, width = codes.shape
        order = ops.coding_order(height, width, prior.lag)
        k = engine.config.autoencoder.maps[number].codes
        words = np.random.Philox(key=seed, counter=[0, 0, 0, number]).random_raw(codes.size * k)
        gumbel = -np.log2(-np.log(((words >> np.uint64(40)) + 0.5) / 2**24)).reshape(-1, k)
        costs = np.where(missing[order][:, None], np.rint(-256 * temperature * gumbel), 0).astype(np.int32)
        candidates = np.where(missing[order][:, None], np.arange(k), codes[order][:, None]).astype(np.int32)
        found += ops.wavefront_choose([prior], [codes.shape], [(candidates, costs)], condition, given=found)
    return found


def best_first(drawn: Sequence[RasterImage], class_id: int, classifier: Classifier) -> list[int]:
    """Indices of the images in order of score; ties keep their original order."""
    found = classifier([images.to_pil(image) for image in drawn], class_id)
    try:
        scores = np.asarray(found, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"the classifier must return numbers: {error}") from error
    if scores.shape != (len(drawn),) or not np.isfinite(scores).all():
        raise InvalidArgument(
            f"the classifier must return {len(drawn)} finite scores, got {scores.size} of shape {scores.shape}"
        )
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
