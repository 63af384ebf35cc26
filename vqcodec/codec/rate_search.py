"""The search for a quality: the best image within a file size, or the smallest file with a given PSNR."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from vqcodec.errors import InvalidArgument
from vqcodec.format import container
from vqcodec.format.container import Container

#: A file is good enough when it uses this share of the bytes allowed.
FULL = 0.985
#: An image is good enough when it exceeds the target by no more than this many decibels.
SLACK = 0.05
#: How far a rate level may be used below the qualities it was trained for.
STRETCH = 30.0


@dataclass(frozen=True)
class Trial:
    """A file made during the search."""

    quality: float
    content: Container
    data: bytes  #: of the content
    psnr: float = math.nan  #: of the decoded image in dB, where it matters

    @property
    def level(self) -> int:
        """Rate level."""
        return self.content.header.level


#: Makes the file for a quality, at the rate level trained for it or at a given one.
Make = Callable[[float, "int | None"], Trial]


def largest_file(target: int, make: Make) -> bytes:
    """The best-quality file of at most ``target`` bytes.

    Sizes grow roughly exponentially with quality. If even quality 0 takes more, its finer maps are left out.
    Raises :class:`InvalidArgument` if that is not enough.
    """

    def miss(trial: Trial) -> float:
        return math.log(len(trial.data) / target)

    found = search(make, miss, goal=math.log(FULL) / 2, tolerance=-math.log(FULL) / 2)
    fitting = [trial.data for trial in found if len(trial.data) <= target]
    return max(fitting, key=len) if fitting else _shortened(min(found, key=lambda trial: len(trial.data)), target)


def _shortened(trial: Trial, target: int) -> bytes:
    """A trial's file with as many of its maps as fit into ``target`` bytes."""
    content, data = trial.content, trial.data
    while len(data) > target and len(content.maps) > 1:
        maps = content.maps[:-1]
        content = replace(content, maps=maps, header=replace(content.header, maps=len(maps)))
        data = container.write(content)
    if len(data) > target:
        raise InvalidArgument(
            f"target_bytes must be at least {len(data)} for this image and its metadata, got {target}"
        )
    return data


def smallest_file(target: float, make: Make) -> bytes:
    """The smallest file whose image has a PSNR of at least ``target`` dB.

    Raises :class:`InvalidArgument` if quality 100 does not reach it.
    """
    found = search(make, lambda trial: trial.psnr - target, goal=SLACK / 2, tolerance=SLACK / 2)
    good = [trial.data for trial in found if trial.psnr >= target]
    if not good:
        best = max(trial.psnr for trial in found)
        raise InvalidArgument(f"target_psnr {target:g} cannot be reached: the best quality gives {best:.2f} dB")
    return min(good, key=len)


def search(make: Make, miss: Callable[[Trial], float], *, goal: float, tolerance: float) -> list[Trial]:
    """The results of ``make`` at qualities that converge on ``miss`` = ``goal``, to within ``tolerance``.

    ``miss`` grows with quality and jumps where the rate level changes. If the goal lies in a jump, the search
    continues with the upper level at lower qualities, where sizes decrease without a jump.
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


def bracket(
    make: Callable[[float], Trial],
    miss: Callable[[Trial], float],
    goal: float,
    tolerance: float,
    low: float,
    high: float,
    tries: int = 12,
) -> list[Trial]:
    """Trials between two qualities that converge on ``miss`` = ``goal``, by false position.

    Stops early, at the two ends, if the goal lies outside them.
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
        if turn % 3 == 2:  # false position may converge slowly from one side
            share = 0.5
        found = at(below[0] + min(max(share, 0.05), 0.95) * (above[0] - below[0]))
        if abs(found[1]) <= tolerance:
            break
        below, above = (found, above) if found[1] < 0 else (below, found)
    return made
