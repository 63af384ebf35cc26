"""Arguments that users give: each as what it should be, or :class:`InvalidArgument` with what was expected and found."""

from __future__ import annotations

import numbers
import operator
from typing import Any

from vqcodec.errors import InvalidArgument
from vqcodec.format.header import TILE_UNIT

#: One sample is one tile: its attention is quadratic in the number of codes.
MAX_SAMPLE_SIDE = 2048


def whole_number(name: str, value: Any, low: int, end: int) -> int:
    """``value`` as an int in [low, end), or :class:`InvalidArgument`."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not low <= number < end:
        raise InvalidArgument(f"{name} must be a whole number from {low} to {end - 1}, got {value!r}")
    return number


def check_quality(quality: float) -> float:
    """``quality`` as a float in [0, 100], or :class:`InvalidArgument`."""
    if isinstance(quality, bool) or not isinstance(quality, numbers.Real) or not 0 <= quality <= 100:
        raise InvalidArgument(f"quality must be a number from 0 to 100, got {quality!r}")
    return float(quality)


def check_effort(effort: int) -> int:
    """``effort`` as an int in 0 .. 9, or :class:`InvalidArgument`."""
    return whole_number("effort", effort, 0, 10)


def check_sample_size(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) as ints that one tile can hold, or :class:`InvalidArgument`."""
    try:
        width, height = size
    except (TypeError, ValueError):
        raise InvalidArgument(f"size must be (width, height), got {size!r}") from None
    width, height = (whole_number(name, v, 1, MAX_SAMPLE_SIDE + 1) for name, v in (("width", width), ("height", height)))
    return width, height


def check_candidates(n: int, candidates: int | None, keep: int | None, critic: Any) -> int:
    """How many samples to return, or :class:`InvalidArgument`: ``keep``, or ``n`` where it is not given."""
    if candidates is None:
        if keep is not None or critic is not None:
            raise InvalidArgument("keep and critic choose among candidates: say how many candidates to draw")
        return n
    if critic is not None and not callable(critic):
        raise InvalidArgument(f"critic must be callable, got {type(critic).__name__}")
    candidates = whole_number("candidates", candidates, 1, 1 << 32)
    if keep is not None and n not in (1, keep):
        raise InvalidArgument(f"n and keep both say how many to return: got {n!r} and {keep!r}")
    kept = whole_number("n" if keep is None else "keep", n if keep is None else keep, 0, 1 << 32)
    if kept > candidates:
        raise InvalidArgument(f"cannot keep {kept} of {candidates} candidates")
    return kept


def check_tile(tile: int | None) -> int | None:
    """``tile`` as None, 0 or a multiple of 64, or :class:`InvalidArgument`."""
    if tile is None:
        return None
    tile = whole_number("tile", tile, 0, 1 << 30)
    if tile % TILE_UNIT:
        raise InvalidArgument(f"tile must be a multiple of {TILE_UNIT}, or 0 for one tile, got {tile}")
    return tile


def check_decibels(psnr: float) -> float:
    """A PSNR as a float, or :class:`InvalidArgument`."""
    if isinstance(psnr, bool) or not isinstance(psnr, numbers.Real) or not 0 < psnr < 200:
        raise InvalidArgument(f"target_psnr must be a number of decibels, got {psnr!r}")
    return float(psnr)


def check_temperature(temperature: float) -> float:
    """``temperature`` as a float in [1/256, 256], or :class:`InvalidArgument`."""
    if not isinstance(temperature, numbers.Real) or not 1 / 256 <= temperature <= 256:
        raise InvalidArgument(f"temperature must be a number from 1/256 to 256, got {temperature!r}")
    return float(temperature)
