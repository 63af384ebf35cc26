"""What codes cost, in integers: logarithms, errors in bits, the most promising codes. The definition of every backend.

Factors travel as logarithms in 1/256 octaves (256 log2 x), bits in 1/256 bit. Two tables, of 8 bits of precision,
go back and forth; no float decides what an encoder writes.
"""

from __future__ import annotations

import numpy as np

#: Units of an octave and of a bit.
UNIT = 256
#: EXP2[i] = 2**15 * 2**(i / 256), rounded; LOG2[i] = 256 * log2(1 + i / 256), rounded (docs/FORMAT.md, "Encoder").
EXP2 = np.array([round(2 ** (15 + i / UNIT)) for i in range(UNIT)], np.int64)
LOG2 = np.round(UNIT * np.log2(1 + np.arange(UNIT) / UNIT)).astype(np.int64)
#: Costs end here: no sum of three leaves int32.
MOST = 1 << 29
#: Exponents lie between -LARGEST and LARGEST.
LARGEST = 64 * UNIT
_FREQUENCY_BITS = 24


def log2(x: np.ndarray | int) -> np.ndarray:
    """256 log2 of whole numbers from 1 to 2**62, by the table of their first 8 bits after the leading one: int64."""
    x = np.asarray(x, np.int64)
    whole = np.frexp(x.astype(np.float64))[1] - 1  # of a float that may have been rounded up to the next power of two
    whole = np.where(x >> np.clip(whole, 0, 62) == 0, whole - 1, whole).astype(np.int64)
    mantissa = np.where(whole >= 8, x >> np.maximum(whole - 8, 0), x << np.maximum(8 - whole, 0)) & (UNIT - 1)
    return UNIT * whole + LOG2[mantissa]


def scaled(x: np.ndarray, exponent: np.ndarray | int) -> np.ndarray:
    """x * 2**(exponent / 256), cut to a whole number of at most ``MOST``: int64; 0 <= x < 2**47, |exponent| <= LARGEST."""
    exponent = np.asarray(exponent, np.int64)
    shift = 15 - (exponent >> 8)
    product = np.asarray(x, np.int64) * EXP2[exponent & (UNIT - 1)]  # below 2**63
    right = product >> np.clip(shift, 0, 63)
    room = np.clip(-shift, 0, 30)
    left = np.where(right > MOST >> room, MOST, right << room)
    return np.minimum(np.where((shift < -30) & (right > 0), MOST, left), MOST)


def distances(z: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Squared distances of vectors (N x D) and codes (K x D), both int16: N x K int64."""
    difference = z[:, None].astype(np.int64) - codebook[None]
    return np.asarray((difference * difference).sum(2))


def code_costs(z: np.ndarray, codebook: np.ndarray, lengths: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Error and length of every code (K) for every vector (N), in 1/256 bit: N x K int64.

    lengths: K uint8, eighths of a bit. exponents: N int32, what a unit of squared error costs.
    """
    return scaled(distances(z, codebook), exponents[:, None]) + 32 * lengths.astype(np.int64)


def nearest_codes(z: np.ndarray, codebook: np.ndarray, lengths: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """The code of lowest error and length for each vector, the first of equals: N int32."""
    return np.concatenate(
        [code_costs(part, codebook, lengths, e).argmin(1) for part, e in _parts(z, exponents)]
    ).astype(np.int32)


def code_candidates(
    z: np.ndarray, codebook: np.ndarray, lengths: np.ndarray, exponents: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` codes of lowest error and length, best first, the first of equals, for each vector.

    Returns codes and 2 * error + length (in 1/256 bit), N x count int32 each: half of the rate by how common a code
    is, the other half is for the prior. Better than either alone.
    """
    found = []
    for part, e in _parts(z, exponents):
        costs = code_costs(part, codebook, lengths, e)
        best = costs.argsort(1, kind="stable")[:, :count]
        found.append((best, 2 * np.take_along_axis(costs, best, 1) - 32 * lengths.astype(np.int64)[best]))
    codes, both = (np.concatenate(arrays).astype(np.int32) for arrays in zip(*found))
    return codes, both


def frequency_bits(frequency: np.ndarray) -> np.ndarray:
    """What coding a symbol of a frequency in 1 .. 2**24 costs, in 1/256 bit: int64."""
    return _FREQUENCY_BITS * UNIT - log2(frequency)


def _parts(z: np.ndarray, exponents: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Some vectors at a time: the differences of all would take much memory."""
    return [(z[i : i + 256], exponents[i : i + 256]) for i in range(0, max(len(z), 1), 256)]
