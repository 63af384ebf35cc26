"""A time limit: training that stops in time, with everything saved, and goes on another day."""

from __future__ import annotations

import time

from training import distributed


class TimeIsUp(Exception):
    """Raised once everything is saved."""


class Deadline:
    """So many minutes from now; None: never."""

    def __init__(self, minutes: float | None = None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    def passed(self) -> bool:
        """Whether it is time to save and to raise :class:`TimeIsUp`: the same answer on all ranks."""
        if self._end is None:
            return False
        return distributed.mean(float(time.monotonic() >= self._end)) > 0


FOREVER = Deadline()
