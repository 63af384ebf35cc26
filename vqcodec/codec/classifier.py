"""Scoring pictures by the integer classifier (VQ-VAE-2, section 3.3): the same scores on every machine.

    picture, any size -> central square, area-scaled to side x side -> integer network -> class probabilities

It chooses among samples; files and code maps do not depend on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import PIL.Image

from vqcodec.errors import InvalidArgument
from vqcodec.model import classifier
from vqcodec.model.classifier import SCORE, IntegerClassifier
from vqcodec.model.integer_network import PIXELS_IN
from vqcodec.ops import run_network

#: Probabilities are rounded to so many decimals: more than that may depend on the exponential function of a machine.
DECIMALS = 12


class Classifier:
    """A classifier that is ready to score: callable like any classifier that :func:`vqcodec.sample` takes.

    ``classes`` are the names of classes 1, 2, ...; ``card`` says what it was trained on and how often it is right.
    """

    def __init__(self, loaded: IntegerClassifier, *, backend: str | None = None) -> None:
        self._loaded, self._backend = loaded, backend
        self.classes = loaded.config.classes
        self.card = dict(loaded.card)

    def __call__(self, pictures: Sequence[PIL.Image.Image | np.ndarray], class_id: int) -> np.ndarray:
        """How probable class ``class_id`` (1, 2, ...) is for each picture: float64 in [0, 1]."""
        if not 1 <= class_id <= len(self.classes):
            raise InvalidArgument(f"the classifier scores classes 1 to {len(self.classes)}, got {class_id}")
        scores: np.ndarray = self.probabilities(pictures)[:, class_id - 1]
        return scores

    def probabilities(self, pictures: Sequence[PIL.Image.Image | np.ndarray]) -> np.ndarray:
        """N x classes, float64. Pictures: PIL images or H x W x 3 uint8 arrays, of any sizes."""
        logits = self.logits(pictures)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        probabilities: np.ndarray = np.round(weights / weights.sum(1, keepdims=True), DECIMALS)
        return probabilities

    def logits(self, pictures: Sequence[PIL.Image.Image | np.ndarray]) -> np.ndarray:
        """N x classes, float64: exact, a sum of integers divided by a power of two and the number of positions."""
        found = np.zeros((len(pictures), len(self.classes)))
        for row, picture in zip(found, pictures):
            plane = prepared(picture, self._loaded.config.side).astype(np.int16) - 2 ** (PIXELS_IN - 1)
            (scores,) = run_network(self._loaded.network, [plane], backend=self._backend)
            row[...] = scores.sum((0, 1), dtype=np.int64) / (scores.shape[0] * scores.shape[1] * 2**SCORE)
        return found


def prepared(picture: PIL.Image.Image | np.ndarray, side: int) -> np.ndarray:
    """side x side x 3 uint8: the central square, each pixel the mean of the area that it covers, rounded."""
    pixels = picture if isinstance(picture, np.ndarray) else np.asarray(picture.convert("RGB"))
    height, width = pixels.shape[:2]
    length = min(height, width)
    top, left = (height - length) // 2, (width - length) // 2
    sums = np.zeros((length + 1, length + 1, 3), np.int64)
    sums[1:, 1:] = pixels[top : top + length, left : left + length]
    sums = sums.cumsum(0).cumsum(1)
    index = np.arange(side)
    first, end = index * length // side, -(-(index + 1) * length // side)
    rows = sums[end] - sums[first]
    total = rows[:, end] - rows[:, first]
    area = ((end - first)[:, None] * (end - first))[..., None]
    means: np.ndarray = ((2 * total + area) // (2 * area)).astype(np.uint8)
    return means


@cache
def shipped() -> Classifier:
    """The classifier that comes with the shipped model."""
    return Classifier(classifier.shipped())
