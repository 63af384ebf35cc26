"""The number formats of the integer prior, in one place (docs/FORMAT.md, "Prior: integer arithmetic").

Every value is an integer that stands for ``integer / 2**fraction``:

    name         type    fraction  range         holds
    ACTIVATION   int8        4     -8 .. 8       inputs of convolutions, queries, keys, values
    STREAM       int16       8     -128 .. 128   the residual feature stream
    GATE_INPUT   int8        5     -4 .. 4       index of the tanh and sigmoid tables
    GATE         int8        7     -1 .. 1       tanh * sigmoid
    LOGIT        int32       5                   index of the exponential table

Scales are powers of two, so that rescaling is "add half, arithmetic shift right" with
one shift per output channel: the shift absorbs the exponent of that channel's weights.
"""

from __future__ import annotations

import numpy as np

ACTIVATION, STREAM, GATE_INPUT, GATE, LOGIT = 4, 8, 5, 7, 5
#: Attention scores are dropped to this fraction before the exponential table.
EXP_STEP = 5
EXP_SIZE = 512
FREQUENCY_BITS = 24
WEIGHT_MAX = 127


def tanh_table() -> np.ndarray:
    """int8[256]: entry i is tanh((i - 128) / 32) in GATE format."""
    x = np.arange(-128, 128) / 2**GATE_INPUT
    return np.clip(np.floor(np.tanh(x) * 2**GATE + 0.5), -127, 127).astype(np.int8)


def sigmoid_table() -> np.ndarray:
    """int8[256]: entry i is sigmoid((i - 128) / 32) in GATE format."""
    x = np.arange(-128, 128) / 2**GATE_INPUT
    return np.clip(np.floor(2**GATE / (1 + np.exp(-x)) + 0.5), 0, 127).astype(np.int8)


def exp_table() -> np.ndarray:
    """uint16[512]: entry d is 65535 * exp(-d / 32); later entries count as zero."""
    return np.floor(65535 * np.exp(-np.arange(EXP_SIZE) / 2**EXP_STEP) + 0.5).astype(np.uint16)


def causal_offsets(kernel: int, *, center: bool) -> list[tuple[int, int]]:
    """(row, column) offsets that a raster-masked convolution sees, in raster order."""
    half = kernel // 2
    window = [(r, c) for r in range(-half, half + 1) for c in range(-half, half + 1)]
    return [o for o in window if o < (0, 0) or (center and o == (0, 0))]


def window_offsets(kernel: int) -> list[tuple[int, int]]:
    """(row, column) offsets of a plain convolution, in raster order."""
    half = kernel // 2
    return [(r, c) for r in range(-half, half + 1) for c in range(-half, half + 1)]
