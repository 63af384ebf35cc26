"""What a bit costs while codes are chosen."""

from __future__ import annotations

from dataclasses import dataclass

from vqcodec.model.config import AutoencoderConfig


@dataclass(frozen=True)
class Rate:
    """The exchange rate of bits and errors.

    lagrangian: squared error (summed over channels) per bit. level: rate level whose code lengths apply.
    weights: how much an error counts in each map; empty: 1 in all. least: no weight makes a bit cheaper than this.
    """

    lagrangian: float
    level: int
    weights: tuple[float, ...] = ()
    least: float = 0.0

    @classmethod
    def at(cls, config: AutoencoderConfig, position: float) -> Rate | None:
        """The rate at a position in [0, 1] (0: fewest bits); None for models without a null code."""
        return cls(config.lagrangian(position), config.level(position)) if config.null_code else None

    def of(self, number: int) -> Rate:
        """The rate of one map, without weights."""
        weight = self.weights[number] if self.weights else 1.0
        return Rate(max(self.lagrangian / weight, min(self.least, self.lagrangian)), self.level)
