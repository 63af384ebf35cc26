"""The search for a quality: the best image within a file size, or the smallest file with a given PSNR."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from vqcodec.codec.options import CODED
from vqcodec.errors import InvalidArgument
from vqcodec.format import container
from vqcodec.format.container import Container
from vqcodec.format.header import MAX_BOUND

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


#: Makes the file of code maps for a quality, at the rate level trained for it or at a given one.
Make = Callable[[float, "int | None"], Trial]
#: Makes the file of samples for a bound of their errors.
MakeSamples = Callable[[int], Trial]


def largest_file(target: int, make: Make, make_samples: MakeSamples) -> bytes:
    """The best-quality file of at most ``target`` bytes.

    Sizes grow roughly exponentially with quality. If even quality 0 takes more, its finer maps are left out; if the best code
    maps take less, samples are tried.
    Raises :class:`InvalidArgument` if the first map alone takes more.
    """

    def miss(trial: Trial) -> float:
        return math.log(len(trial.data) / target)

    found = search(make, miss, goal=math.log(FULL) / 2, tolerance=-math.log(FULL) / 2)
    fitting = [trial.data for trial in found if len(trial.data) <= target]
    if len(fitting) == len(found) and all(miss(trial) < math.log(FULL) for trial in found):
        finest = finest_bound(lambda bound: len(make_samples(bound).data) <= target)
        if finest is not None:
            return make_samples(finest).data
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


def smallest_file(target: float, make: Make, make_samples: MakeSamples) -> bytes:
    """The smallest file whose image has a PSNR of at least ``target`` dB: of code maps, or of samples if these do not reach it."""
    found = search(make, lambda trial: trial.psnr - target, goal=SLACK / 2, tolerance=SLACK / 2)
    good = [trial.data for trial in found if trial.psnr >= target]
    if good:
        return min(good, key=len)
    coarsest = finest_bound(lambda bound: make_samples(bound).psnr < target)
    return make_samples(MAX_BOUND if coarsest is None else max(0, coarsest - 1)).data


def finest_bound(holds: Callable[[int], bool]) -> int | None:
    """The least bound for which something holds that holds for all larger ones, or None if it does not hold for the largest."""
    low, high = 0, MAX_BOUND + 1  # it does not hold below `low`; it holds from `high` on
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low if low <= MAX_BOUND else None


def search(make: Make, miss: Callable[[Trial], float], *, goal: float, tolerance: float) -> list[Trial]:
    """The results of ``make`` at qualities that converge on ``miss`` = ``goal``, to within ``tolerance``.

    ``miss`` grows with quality and jumps where the rate level changes. If the goal lies in a jump, the search
    continues with the upper level at lower qualities, where sizes decrease without a jump.
    """
    found = bracket(lambda quality: make(quality, None), miss, goal, tolerance, 0, CODED)
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
