"""What a bit costs while codes are chosen, as whole numbers: the same on every machine."""

from __future__ import annotations

import decimal
from dataclasses import dataclass

from vqcodec.model.config import AutoencoderConfig
from vqcodec.model.integer_network import LATENT

#: Units of an octave.
UNIT = 256
#: A bit is never cheaper than this many octaves above the model's least lambda, whatever an error weighs: finer,
#: codebooks are exhausted.
FINEST = round(UNIT * 1.585)  # a factor of three


@dataclass(frozen=True)
class Rate:
    """The exchange rate of bits and errors. Logarithms are in 1/256 octaves: 256 log2 x.

    lagrangian: squared error (summed over channels, of pixels in [0, 1]) per bit. level: rate level whose code lengths apply.
    weights: how much an error counts in each map; empty: 1 in all. least: no weight makes a bit cheaper than this.
    """

    lagrangian: int
    level: int
    weights: tuple[int, ...] = ()
    least: int = -(1 << 30)

    @classmethod
    def of_quality(cls, config: AutoencoderConfig, quality: float, level: int | None = None) -> Rate:
        """The rate of a quality in [0, 100], at the rate level that was trained for it or at another one."""
        position = config.position(quality)
        low, high = octaves(config.lambda_max), octaves(config.lambda_min)
        level = config.level(position) if level is None else level
        weights = tuple(map(octaves, config.distortion_weights))
        return cls(round(low + position * (high - low)), level, weights, high + FINEST)

    def exponent(self, number: int) -> int:
        """What a unit of squared error of latents costs in map ``number``, in 1/256 bit: its logarithm."""
        weight = self.weights[number] if self.weights else 0
        lagrangian = max(self.lagrangian - weight, min(self.least, self.lagrangian))
        return UNIT * 8 - UNIT * 2 * LATENT - lagrangian


def octaves(x: float) -> int:
    """256 log2 x, rounded, of a positive number. By decimals, whose logarithms are rounded correctly everywhere."""
    context = decimal.Context(prec=40)
    exact = decimal.Decimal(x)
    return int(
        (context.divide(context.ln(exact), context.ln(decimal.Decimal(2))) * UNIT).to_integral_value(
            decimal.ROUND_HALF_EVEN
        )
    )
