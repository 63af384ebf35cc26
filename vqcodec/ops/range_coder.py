"""Range coding of one stream (docs/FORMAT.md, "Range coder").

The coder is constriction's ``stream.queue`` (Bamler 2022, arXiv:2201.01741): 32-bit words,
64-bit state, 24-bit frequencies. The frequencies are given as integers and used exactly.
Words are written most significant byte first, so a stream is one long number, and its
end is trimmed to whole bytes: a decoder reads zeros past it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from vqcodec.errors import FormatError, InvalidArgument

if TYPE_CHECKING:  # at run time it is imported where it is used: the core decodes by itself
    import constriction

TOTAL = 1 << 24
"""The sum of the frequencies in a symbol's table."""


@functools.cache
def _table() -> constriction.stream.model.Categorical:
    """Tables given with each symbol, as weights.

    Integer weights that sum to TOTAL minus their count give a scale of exactly 1, so that
    constriction's table has exactly the frequencies weight + 1.
    """
    import constriction

    return constriction.stream.model.Categorical(perfect=False)


def encode_stream(start: np.ndarray, frequency: np.ndarray) -> bytes:
    """Code n symbols, each of which owns [start, start + frequency) in its table.

    start: int64, n; the sum of the frequencies before the symbol's, 0 <= start.
    frequency: int64, n; 1 <= frequency < 2**24, start + frequency <= 2**24.

    Returns the shortest stream for these symbols: their information content, rounded up
    to bytes, plus at most one byte.
    Raises ``InvalidArgument``.

    >>> encode_stream(np.array([0, 4194304]), np.array([4194304, 4194304])).hex()
    '10'
    """
    start, frequency = np.asarray(start, np.int64), np.asarray(frequency, np.int64)
    if start.shape != frequency.shape or start.ndim != 1:
        raise InvalidArgument(f"start and frequency must have one length, got {start.shape} and {frequency.shape}")
    wrong = (start < 0) | (frequency < 1) | (frequency >= TOTAL) | (start + frequency > TOTAL)
    if wrong.any():
        i = int(wrong.argmax())
        raise InvalidArgument(
            f"a symbol must own 1 to {TOTAL - 1} of {TOTAL}, got [{start[i]}, {start[i] + frequency[i]}) at {i}"
        )
    import constriction

    encoder = constriction.stream.queue.RangeEncoder()
    # A symbol that leaves only one unit needs a table of two, so the batch must be split.
    for run in np.split(np.arange(len(start)), _changes(frequency == TOTAL - 1)):
        if len(run):
            encoder.encode(*_small_tables(start[run], frequency[run]))
    return _trimmed(encoder)


def _changes(flags: np.ndarray) -> np.ndarray:
    """Indices at which ``flags`` differs from its predecessor."""
    return np.flatnonzero(flags[1:] != flags[:-1]) + 1


def _small_tables(start: np.ndarray, frequency: np.ndarray) -> tuple[np.ndarray, object, np.ndarray]:
    """Arguments for constriction's ``encode``: symbols, and tables in which they own their intervals.

    The coder only uses the interval, so a table of three is enough: what is before, the
    symbol, what is after; if one of these is empty, the other is split.

        [before, symbol, after]   symbol 1
        [symbol, after - 1, 1]    symbol 0, if nothing is before
        [1, before - 1, symbol]   symbol 2, if nothing is after

    The frequencies in a batch are either all TOTAL - 1 or all smaller.
    """
    after = TOTAL - start - frequency
    if len(start) and frequency[0] == TOTAL - 1:
        symbols = start  # [symbol, 1] or [1, symbol]
        tables = np.where(start[:, None] == 0, [TOTAL - 1, 1], [1, TOTAL - 1])
    else:
        one = np.ones_like(start)
        symbols = np.select([start == 0, after == 0], [0, 2], 1)
        tables = np.select(
            [(start == 0)[:, None], (after == 0)[:, None]],
            [np.stack([frequency, after - 1, one], 1), np.stack([one, start - 1, frequency], 1)],
            np.stack([start, frequency, after], 1),
        )
    return symbols.astype(np.int32), _table(), (tables - 1).astype(np.float64)


def _trimmed(encoder: constriction.stream.queue.RangeEncoder) -> bytes:
    """The shortest bytes that, followed by zeros, lie in the encoder's final interval.

    The interval [lower, lower + width) is a 64-bit window after the ``words`` that are
    final except for a carry. Any number in it decodes; take the one with the most trailing zeros.
    """
    words, (lower, width) = encoder.pos()
    sealed: bytes = encoder.get_compressed().astype(">u4").tobytes().ljust(4 * words + 8, b"\0")
    # Sealing chose a number in the interval, less than 2**64 above its lower end: undo it.
    number = int.from_bytes(sealed, "big")
    bottom = number - ((number - lower) & (2**64 - 1))
    for zeros in range(64, -8, -8):
        rounded = -(-bottom >> zeros) << zeros
        if rounded < bottom + width:
            break
    stream: bytes = rounded.to_bytes(len(sealed), "big").rstrip(b"\0")
    return stream


class StreamDecoder:
    """Decodes one stream, a batch of symbols at a time.

    >>> StreamDecoder(bytes.fromhex("10")).decode(np.array([[0, 4194304, 16777216]] * 2))
    array([0, 1], dtype=int32)
    """

    def __init__(self, data: bytes) -> None:
        import constriction

        words = np.frombuffer(data + bytes(-len(data) % 4), ">u4").astype(np.uint32)
        self._decoder = constriction.stream.queue.RangeDecoder(words)

    def decode(self, cumulative: np.ndarray) -> np.ndarray:
        """The next n symbols.

        cumulative: int64, n x (K + 1), K >= 2; row i holds the sums of the frequencies
        before each symbol: 0, increasing, 2**24.

        Returns int32, n. Raises ``FormatError`` if no encoder can have written the stream.
        """
        cumulative = np.asarray(cumulative, np.int64)
        if cumulative.ndim != 2 or cumulative.shape[1] < 3:
            raise InvalidArgument(f"cumulative must be n x (K + 1) with K >= 2, got {cumulative.shape}")
        if not len(cumulative):
            return np.zeros(0, np.int32)
        frequency = np.diff(cumulative)
        if (frequency < 1).any() or (cumulative[:, 0] != 0).any() or (cumulative[:, -1] != TOTAL).any():
            raise InvalidArgument(f"every row of cumulative must increase from 0 to {TOTAL}")
        try:
            symbols: np.ndarray = self._decoder.decode(_table(), (frequency - 1).astype(np.float64))
        except AssertionError as error:
            raise FormatError("the stream must hold a number below its coder's range, found a larger one") from error
        return symbols
