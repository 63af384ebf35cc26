"""The codec's options: the names, defaults and checks used by API, command line, Pillow plugin and batches.

Invalid values raise :class:`~vqcodec.errors.InvalidArgument`, which says what was expected and what was found.
"""

from __future__ import annotations

import dataclasses
import numbers
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from vqcodec.errors import InvalidArgument
from vqcodec.format.header import MAX_BOUND
from vqcodec.format.limits import Limits
from vqcodec.tiling import UNIT, Box

#: Limits on an image or a file unless the caller gives others.
LIMITS = Limits()
#: Factors by which a decoded image may be reduced.
SCALES = (1, 2, 4, 8, 16)
#: Qualities above CODED store samples, which differ by at most this much from the original's; 100 is lossless.
CODED = 95
BOUNDS = {96: 10, 97: 6, 98: 4, 99: 2, 100: 1}
#: One sample is one tile: its attention is quadratic in the number of codes.
MAX_SAMPLE_SIDE = 2048
SEEDS = 1 << 64


@dataclass(frozen=True)
class EncodeOptions:
    """How an image becomes a file, see :func:`vqcodec.compress`."""

    quality: float = 50
    effort: int = 3
    class_id: int | str | None = None
    target_bytes: int | None = None
    target_psnr: float | None = None
    lossless: bool = False
    max_error: int | None = None
    tile: int | None = None
    metadata: bool = True
    limits: Limits = LIMITS

    def __post_init__(self) -> None:
        _settle(
            self,
            quality=check_quality,
            effort=check_effort,
            tile=check_tile,
            target_psnr=_check_decibels,
            target_bytes=_whole(1, 1 << 62),
            lossless=_check_flag,
            max_error=_whole(0, MAX_BOUND + 1),
            limits=check_limits,
        )
        chosen = {"lossless": self.lossless or None, **{name: getattr(self, name) for name in _CHOICES}}
        if len(given := [name for name, value in chosen.items() if value is not None]) > 1:
            raise InvalidArgument(f"{' and '.join(given)} each choose the quality: give one of them")

    @property
    def exact(self) -> bool:
        """Whether all bits of a sample are to be kept, even of 16."""
        return self.lossless or self.max_error is not None

    @property
    def bound(self) -> int | None:
        """By how much samples may differ from the original's, or None to store code maps."""
        if self.lossless:
            return 0
        return self.max_error if self.max_error is not None else bound_of(self.quality)


@dataclass(frozen=True)
class DecodeOptions:
    """How a file becomes an image, see :func:`vqcodec.decompress`."""

    partial: bool = False
    region: Sequence[int] | None = None
    scale: int = 1
    maps: int | None = None
    complete: str | None = None
    seed: int = 0
    limits: Limits = LIMITS

    def __post_init__(self) -> None:
        _settle(
            self,
            region=_check_region,
            scale=_check_scale,
            maps=_whole(1, 256),
            seed=_whole(0, SEEDS),
            limits=check_limits,
        )
        if self.complete not in (None, "sample"):
            raise InvalidArgument(f'complete must be None or "sample", got {self.complete!r}')

    @property
    def whole(self) -> bool:
        """Whether the whole image is requested."""
        return self.region is None and self.maps is None and self.scale == 1

    def box(self, whole: Box) -> Box:
        """The region, which must lie in the image; the whole image if none is given."""
        if self.region is None:
            return whole
        box = Box(*self.region)
        if not (box.x0 < box.x1 and box.y0 < box.y1 and box.within(whole)):
            raise InvalidArgument(
                f"region must lie in the image of {whole.x1} x {whole.y1} and hold pixels, got {tuple(box)}"
            )
        return box


@dataclass(frozen=True)
class SampleOptions:
    """How new images are drawn, see :func:`vqcodec.sample`."""

    n: int = 1
    size: tuple[int, int] = (256, 256)
    seed: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    candidates: int | None = None
    keep: int | None = None
    classifier: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        _settle(
            self,
            size=check_sample_size,
            n=_whole(0, 1 << 32),
            keep=_whole(0, 1 << 32),
            seed=_whole(0, SEEDS),
            temperature=check_temperature,
            top_p=_check_share,
            candidates=_whole(1, 1 << 32),
        )
        if self.candidates is None:
            if self.keep is not None or self.classifier is not None:
                raise InvalidArgument("keep and classifier choose among candidates: also give the number of candidates")
            return
        if self.classifier is not None and not callable(self.classifier):
            raise InvalidArgument(f"classifier must be callable, got {type(self.classifier).__name__}")
        if self.keep is not None and self.n not in (1, self.keep):
            raise InvalidArgument(f"n and keep both give the number to return: got {self.n!r} and {self.keep!r}")
        if self.kept > self.candidates:
            raise InvalidArgument(f"cannot keep {self.kept} of {self.candidates} candidates")

    @property
    def drawn(self) -> int:
        """How many images to draw."""
        return self.n if self.candidates is None else self.candidates

    @property
    def kept(self) -> int:
        """How many of them to return."""
        return self.n if self.keep is None else self.keep


_CHOICES = ("max_error", "target_bytes", "target_psnr")


def bound_of(quality: float) -> int | None:
    """See :attr:`EncodeOptions.bound`."""
    if quality >= 100:
        return 0
    return next((bound for end, bound in BOUNDS.items() if CODED < quality < end), None)


def bound_quality(bound: int) -> int:
    """The quality, as a file states it, that samples with this bound have: the highest that allows it."""
    return 100 if bound == 0 else max((end - 1 for end, most in BOUNDS.items() if bound <= most), default=CODED)


Options = TypeVar("Options", EncodeOptions, DecodeOptions, SampleOptions)


def names(kind: type[Any]) -> tuple[str, ...]:
    """The option names of one kind."""
    return tuple(field.name for field in dataclasses.fields(kind))


def options(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """Options by name, such as a caller's keyword arguments. Raises InvalidArgument for an unknown name."""
    if unknown := set(given) - set(names(kind)):
        raise InvalidArgument(f"unknown option {', '.join(sorted(unknown))}; there are {', '.join(names(kind))}")
    return kind(**given)


def _settle(given: Any, **checks: Callable[[str, Any], Any]) -> None:
    """Replace each given field by the value that its check returns."""
    for name, check in checks.items():
        value = getattr(given, name)
        if name == "limits" or value is not None or getattr(type(given), name) is not None:
            object.__setattr__(given, name, check(name, value))


# -- checks ------------------------------------------------------------------------------


def whole_number(name: str, value: Any, low: int, end: int) -> int:
    """``value`` as an int in [low, end), or :class:`InvalidArgument`."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not low <= number < end:
        raise InvalidArgument(f"{name} must be a whole number from {low} to {end - 1}, got {value!r}")
    return number


def _whole(low: int, end: int) -> Callable[[str, Any], int]:
    return lambda name, value: whole_number(name, value, low, end)


def _real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_quality(name: str, value: Any) -> float:
    """A float in [0, 100], or :class:`InvalidArgument`."""
    if not _real(value) or not 0 <= value <= 100:
        raise InvalidArgument(f"{name} must be a number from 0 to 100, got {value!r}")
    return float(value)


def check_effort(name: str, value: Any) -> int:
    """An int in 0 .. 9, or :class:`InvalidArgument`."""
    return whole_number(name, value, 0, 10)


def check_tile(name: str, value: Any) -> int:
    """0 or a multiple of 64, or :class:`InvalidArgument`."""
    tile = whole_number(name, value, 0, 1 << 30)
    if tile % UNIT:
        raise InvalidArgument(f"{name} must be a multiple of {UNIT}, or 0 for one tile, got {tile}")
    return tile


def check_sample_size(name: str, value: Any) -> tuple[int, int]:
    """(width, height) as ints that one tile can hold, or :class:`InvalidArgument`."""
    try:
        width, height = value
    except (TypeError, ValueError):
        raise InvalidArgument(f"{name} must be (width, height), got {value!r}") from None
    end = MAX_SAMPLE_SIDE + 1
    return whole_number("width", width, 1, end), whole_number("height", height, 1, end)


def check_temperature(name: str, value: Any) -> float:
    """A float in [1/256, 256], or :class:`InvalidArgument`."""
    if not _real(value) or not 1 / 256 <= value <= 256:
        raise InvalidArgument(f"{name} must be a number from 1/256 to 256, got {value!r}")
    return float(value)


def _check_flag(name: str, value: Any) -> bool:
    if type(value).__name__ not in ("bool", "bool_"):  # also NumPy's
        raise InvalidArgument(f"{name} must be True or False, got {value!r}")
    return bool(value)


def _check_share(name: str, value: Any) -> float:
    if not _real(value) or not 0 < value <= 1:
        raise InvalidArgument(f"{name} must be a number above 0 and at most 1, got {value!r}")
    return float(value)


def _check_decibels(name: str, value: Any) -> float:
    if not _real(value) or not 0 < value < 200:
        raise InvalidArgument(f"{name} must be a number of decibels, got {value!r}")
    return float(value)


def _check_scale(name: str, value: Any) -> int:
    if value not in SCALES:
        raise InvalidArgument(f"{name} must be one of {', '.join(map(str, SCALES))}, got {value!r}")
    return int(value)


def _check_region(name: str, value: Any) -> tuple[int, ...]:
    try:
        x0, y0, x1, y1 = (whole_number(name, v, 0, 1 << 31) for v in value)
    except (TypeError, ValueError):
        raise InvalidArgument(f"{name} must be (x0, y0, x1, y1) in pixels, got {value!r}") from None
    return x0, y0, x1, y1


def check_limits(name: str, value: Any) -> Limits:
    """``value``, the usual limits for None, or :class:`InvalidArgument`."""
    if value is None:
        return LIMITS
    if not isinstance(value, Limits):
        raise InvalidArgument(f"{name} must be vqcodec.Limits, got {type(value).__name__}")
    return value
