"""How much errors show: less where texture hides them."""

from __future__ import annotations

import numpy as np

from vqcodec.ops.reference.rate import LOG2

#: The variance of the luma (white is 1) at which texture begins to hide errors is 1 / 1000, and the exponent
#: (docs/MODEL.md says how they were chosen).
_VARIANCES, _MASKING = 1000, 90  # of 256
#: The luma of white, the side of a block.
_WHITE, _SIDE = 255 * 256, 8


def visibility(pixels: np.ndarray, stride: int, shape: tuple[int, int]) -> np.ndarray:
    """How much an error shows at each code of a stride, as a logarithm in 1/256 octaves: ``shape`` int32, 0 where the image is flat.

    (1 + 1000 v) ** -0.35, v the mean variance of the luma in the code's blocks of 8 x 8 pixels. pixels: H x W x 3
    uint8, of which the codes cover all; its last pixels go on beyond. All in whole numbers.
    """
    height, width = shape
    side = min(stride, _SIDE)
    luma = pixels @ np.array([77, 150, 29], np.int64)  # of 256
    luma = np.pad(luma, [(0, codes * stride - n) for codes, n in zip(shape, luma.shape)], "edge")
    blocks = luma.reshape(height, stride // side, side, width, stride // side, side)
    count = side * side
    spread = count * np.square(blocks).sum((2, 5)) - np.square(blocks.sum((2, 5)))  # count**2 variances
    mean = spread.sum((1, 3)) // (stride // side) ** 2
    one = count**2 * _WHITE**2 // _VARIANCES
    return np.asarray(-((log2(one + mean) - log2(one)) * _MASKING + 128 >> 8), np.int32)


def log2(x: np.ndarray | int) -> np.ndarray:
    """256 log2 of whole numbers from 1 to 2**62, by the table of their first 8 bits after the leading one: int64."""
    x = np.asarray(x, np.int64)
    whole = np.frexp(x.astype(np.float64))[1].astype(np.int64) - 1
    whole -= x >> whole == 0  # floats may have been rounded up to the next power of two
    mantissa = np.where(whole >= 8, x >> np.maximum(whole - 8, 0), x << np.maximum(8 - whole, 0)) & 255
    return np.asarray(256 * whole + LOG2[mantissa])
