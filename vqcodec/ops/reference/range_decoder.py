"""The range decoder in plain integers: the definition that csrc/core/range_decoder.h must equal.

Bit-compatible with constriction's queue ``RangeDecoder``: 32-bit words (big-endian here, zeros
past the end), 64-bit state, 24-bit frequencies (docs/FORMAT.md, "Range coder").
"""

from __future__ import annotations

import numpy as np

from vqcodec.errors import FormatError

__all__ = ["RangeDecoder"]

_MASK = 2**64 - 1


class RangeDecoder:
    """Decodes one stream, a batch of codes at a time, from cumulative frequencies.

        >>> RangeDecoder(bytes.fromhex("10")).decode(np.array([[0, 4194304, 8388608, 16777216]]))
        array([0], dtype=int32)
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._next = 0
        self._lower, self._range = 0, _MASK
        self._point = self._word() << 32 | self._word()

    def _word(self) -> int:
        word = self._data[self._next : self._next + 4]
        self._next += 4
        return int.from_bytes(word.ljust(4, b"\0"), "big")

    def decode(self, cumulative: np.ndarray) -> np.ndarray:
        """n codes (int32) from n x K+1 cumulative frequencies (int64, from 0 to 2**24).

        Raises FormatError if no encoder can have written the stream.
        """
        codes = np.empty(len(cumulative), np.int32)
        for i, table in enumerate(cumulative):
            scale = self._range >> 24
            quantile = ((self._point - self._lower) & _MASK) // scale
            if quantile >= 1 << 24:
                raise FormatError("the stream is not one that an encoder writes")
            code = int(np.searchsorted(table, quantile, side="right")) - 1
            start, end = int(table[code]), int(table[code + 1])
            self._lower = (self._lower + scale * start) & _MASK
            self._range = scale * (end - start)
            if self._range < 1 << 32:
                self._lower = self._lower << 32 & _MASK
                self._range = self._range << 32 & _MASK
                self._point = (self._point << 32 & _MASK) | self._word()
            codes[i] = code
        return codes
