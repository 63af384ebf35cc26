"""Means over pictures, and BD-rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    Point = tuple[float, float]  # bits per pixel, quality

#: Bits per pixel of vqcodec that the narrower BD-rate is about.
RANGE = 0.15, 0.7


def mean(points: Iterable[Sequence[Point | None]]) -> list[Point]:
    """The mean curve of pictures: point i is the mean of their points i. Pictures without a measure (None) do not count."""
    known = [picture for picture in points if all(point is not None for point in picture)]
    return [(float(bpp), float(value)) for bpp, value in np.mean(np.asarray(known, float), axis=0)] if known else []


def bd_rate(ours: Sequence[Point], theirs: Sequence[Point], rates: tuple[float, float] = (0, np.inf)) -> float | None:
    """Mean difference in rate at equal quality, in percent, where ours lies in ``rates``; None without overlap.

    Bjontegaard 2001, with linear interpolation of the logarithm of the rate, which needs no fit.

    >>> round(bd_rate([(0.5, 30), (1, 40)], [(1, 30), (2, 40)]), 9)
    -50.0
    """
    if not ours or not theirs:
        return None
    curves = [sorted((value, np.log(bpp)) for bpp, value in points) for points in (ours, theirs)]
    low, high = max(c[0][0] for c in curves), min(c[-1][0] for c in curves)
    if low >= high:
        return None
    grid = np.linspace(low, high, 400)
    a, b = (np.interp(grid, [value for value, _ in curve], [rate for _, rate in curve]) for curve in curves)
    kept = (np.exp(a) >= rates[0]) & (np.exp(a) <= rates[1])
    return float(100 * np.expm1(np.mean((a - b)[kept]))) if kept.any() else None
