"""An encoder's choice of codes in NumPy integers: the definition that every backend is tested against.

Costs are in 1/256 bit. What scales an error is an exponent in 1/256 octaves, so that no float has a say:

    cost of an error   min((distance * EXP2[exponent & 255]) >> (base - (exponent >> 8)), 2**30)
    cost of a length   32 times eighths of a bit
    bits of a code     24 * 256 - log2 of its frequency out of 2**24

with the shift kept within 0 .. 62.
"""

from __future__ import annotations

import math

import numpy as np

LIMIT = 1 << 30
LARGEST_SHIFT = 62


def _exp2(i: int) -> int:
    """round(2**(15 + i / 256)): the largest r with (2 r - 1)**256 <= 2**(4096 + i)."""
    root = 1 << (4096 + i)
    for _ in range(8):
        root = math.isqrt(root)
    return (root + 1) // 2


def _log2(i: int) -> int:
    """round(256 * log2(1 + i / 256)): the largest n with 2**(2 n - 1) <= (1 + i / 256)**512."""
    return (((256 + i) ** 512).bit_length() - 1 - 4096 + 1) // 2


EXP2 = np.array([_exp2(i) for i in range(256)], np.uint64)
LOG2 = np.array([_log2(i) for i in range(256)], np.int64)


def code_bits(frequency: np.ndarray) -> np.ndarray:
    """1/256 bits of codes with these frequencies, 1 .. 2**24: int64. 2**24 -> 0, 2**22 -> 512, 1 -> 6144, 3 -> 5738."""
    frequency = np.asarray(frequency, np.int64)
    exponent = np.frexp(frequency.astype(np.float64))[1].astype(np.int64) - 1  # floor(log2), exactly
    return 24 * 256 - (256 * exponent + LOG2[(frequency << (24 - exponent) >> 16) & 255])


def error_costs(z: np.ndarray, codebook: np.ndarray, exponents: np.ndarray, base: int) -> np.ndarray:
    """What each code of K x D would cost by its error, N x K int64. z: N x D; both int16."""
    difference = z[:, None].astype(np.int64) - codebook[None]
    distance = np.square(difference).sum(2).astype(np.uint64)
    shift = np.clip(base - (exponents.astype(np.int64) >> 8), 0, LARGEST_SHIFT).astype(np.uint64)
    cost = (distance * EXP2[exponents & 255][:, None]) >> shift[:, None]
    return np.minimum(cost, np.uint64(LIMIT)).astype(np.int64)


def code_candidates(
    z: np.ndarray, codebook: np.ndarray, lengths: np.ndarray, exponents: np.ndarray, base: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` codes of the lowest error + length at every position, best first, the lower code first of equals.

    Returns codes and min(2 * error + length, 2**30), both N x count int32.
    """
    error = error_costs(z, codebook, exponents, base)
    length = 32 * lengths.astype(np.int64)
    codes = np.argsort(error + length, axis=1, kind="stable")[:, :count]
    costs = 2 * np.take_along_axis(error, codes, 1) + length[codes]
    return codes.astype(np.int32), np.minimum(costs, LIMIT).astype(np.int32)


def nearest_codes(
    z: np.ndarray, codebook: np.ndarray, lengths: np.ndarray, exponents: np.ndarray, base: int
) -> np.ndarray:
    """The code of the lowest error + length at every position, the lowest of equals: N int32."""
    return code_candidates(z, codebook, lengths, exponents, base, 1)[0][:, 0]
