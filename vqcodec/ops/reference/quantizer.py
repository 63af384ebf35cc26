"""`nearest_codebook` and `codebook_statistics` in NumPy: the definition that every other backend
must equal bit for bit. The rule is explained in csrc/kernels/nearest_codebook.h.
"""

from __future__ import annotations

import numpy as np

from vqcodec.errors import InvalidArgument


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a * b + c in float32, rounded once, like the CPU's fused multiply-add.

    The product of two float32 is exact in float64, the sum with c is not, and rounding it to
    float64 and then to float32 may differ from rounding it once. So the float64 sum is rounded
    *to odd*: where it is inexact and even, it moves to the odd neighbour on the side of the true
    value. Odd float64 are never ties of float32, so the second rounding is then right
    (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums").
    """
    with np.errstate(invalid="ignore", over="ignore"):
        product = np.multiply(a, b, dtype=np.float64)
        c = np.asarray(c, np.float64)
        total = product + c
        # Knuth's TwoSum: product + c == total + error, exactly.
        c_part = total - product
        error = (product - (total - c_part)) + (c - c_part)
        bits = total.view(np.int64)
        wrong = np.isfinite(total) & (error != 0) & (bits & 1 == 0)
        outwards = (error > 0) == (total > 0)  # the true value has the larger magnitude
        bits[wrong] += np.where(outwards, 1, -1)[wrong]
        return total.astype(np.float32)


def codebook_offsets(codebook: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """bias + |e|^2 for every code: summed in float64, in order, and rounded to float32."""
    codes, dims = codebook.shape
    offsets = np.zeros(codes) if bias is None else bias.astype(np.float64)
    for d in range(dims):
        offsets += codebook[:, d].astype(np.float64) ** 2
    with np.errstate(over="ignore"):
        return offsets.astype(np.float32)


def nearest_codebook(
    z: np.ndarray, codebook: np.ndarray, bias: np.ndarray | None = None
) -> np.ndarray:
    """argmin_k |z - e_k|^2 + bias_k for every row of z: int64 indices, lowest on ties.

    z: N x D, codebook: K x D, bias: K, all float32.
    """
    if not np.isfinite(codebook).all():
        raise InvalidArgument("codebook must be finite")
    if bias is not None and not (bias > -np.inf).all():
        raise InvalidArgument("bias must be finite or +inf")
    score = np.tile(codebook_offsets(codebook, bias), (len(z), 1))  # N x K
    with np.errstate(over="ignore"):
        factors = np.float32(-2) * z
    for d in range(codebook.shape[1]):
        score = fma(codebook[None, :, d], factors[:, d, None], score)
    score[np.isnan(score)] = np.inf  # a NaN is never the lowest
    indices = score.argmin(axis=1)  # the first of equals
    lowest = np.take_along_axis(score, indices[:, None], axis=1)[:, 0]
    if not np.isfinite(lowest).all():
        raise InvalidArgument(f"row {np.isfinite(lowest).argmin()} has no code with a finite score")
    return indices


def codebook_statistics(
    z: np.ndarray, indices: np.ndarray, codes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows per code (K) and their sums (K x D), as float32.

    Sums run in float64, in the order of the rows, and are rounded at the end.
    """
    counts = np.zeros(codes)
    sums = np.zeros((codes, z.shape[1]))
    for row, index in zip(z, indices, strict=True):
        counts[index] += 1
        sums[index] += row
    return counts.astype(np.float32), sums.astype(np.float32)
