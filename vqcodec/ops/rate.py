"""An encoder's choice of codes by distortion and rate, in integers (`vqcodec.ops.reference.rate`)."""

from __future__ import annotations

import numpy as np

from vqcodec.errors import InvalidArgument
from vqcodec.ops import backend as backends


def nearest_codes(
    z: np.ndarray,
    codebook: np.ndarray,
    lengths: np.ndarray,
    exponents: np.ndarray,
    base: int,
    *,
    backend: str | None = None,
) -> np.ndarray:
    """The code of the lowest cost for every vector, the lowest of equals: N int32.

    z: N x D int16. codebook: K x D int16. lengths: K uint8, in eighths of a bit.
    exponents, base: an error at position i costs about 2**(exponents[i] / 256 + 15 - base) / 256 bits for each unit of
        squared distance; N int32, in 1/256 octaves.
    """
    _check(z, codebook, lengths, exponents, base)
    z, codebook, lengths, exponents = map(np.ascontiguousarray, (z, codebook, lengths, exponents))
    return backends.backend(backend).nearest_codes(z, codebook, lengths, exponents, base)


def code_candidates(
    z: np.ndarray,
    codebook: np.ndarray,
    lengths: np.ndarray,
    exponents: np.ndarray,
    base: int,
    count: int,
    *,
    backend: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` codes of the lowest cost for every vector, best first, and twice their error plus their length.

    Both N x count int32, the costs in 1/256 bit and at most 2**30: `wavefront_choose` adds the bits under the prior.
    Other arguments are those of `nearest_codes`; count: 1 .. K.
    """
    _check(z, codebook, lengths, exponents, base)
    if not 1 <= count <= len(codebook):
        raise InvalidArgument(f"count must be in 1..{len(codebook)}, got {count}")
    z, codebook, lengths, exponents = map(np.ascontiguousarray, (z, codebook, lengths, exponents))
    return backends.backend(backend).code_candidates(z, codebook, lengths, exponents, base, count)


def _check(z: np.ndarray, codebook: np.ndarray, lengths: np.ndarray, exponents: np.ndarray, base: int) -> None:
    for name, array, dtype, dimensions in (
        ("z", z, np.int16, 2),
        ("codebook", codebook, np.int16, 2),
        ("lengths", lengths, np.uint8, 1),
        ("exponents", exponents, np.int32, 1),
    ):
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != dimensions:
            raise InvalidArgument(f"{name} must be an array of {np.dtype(dtype)} with {dimensions} dimensions")
    if not 1 <= z.shape[1] <= 1 << 15 or not len(codebook) or codebook.shape[1] != z.shape[1]:
        raise InvalidArgument(f"codebook must be K x {z.shape[1]}, D at most 32768, got {codebook.shape}")
    if len(lengths) != len(codebook) or len(exponents) != len(z):
        raise InvalidArgument(
            f"expected {len(codebook)} lengths and {len(z)} exponents, got {len(lengths)} and {len(exponents)}"
        )
    if not -(1 << 24) <= base <= 1 << 24:
        raise InvalidArgument(f"base must be in -2**24..2**24, got {base}")
