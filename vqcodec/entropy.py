"""Range coding of one stream (docs/FORMAT.md, "Range coder").

The coder is constriction's `stream.queue` (Bamler 2022): 32-bit words, 64-bit state,
24-bit frequencies. Frequencies are given as integers and used exactly. Words are written
big-endian, so that a stream is one long number, and its flush is trimmed to the byte:
a decoder reads zeros past the end.
"""

from __future__ import annotations

import constriction
import numpy as np

from vqcodec.errors import FormatError, InvalidArgument

TOTAL = 1 << 24

# With probabilities that are whole numbers and sum to TOTAL minus their count,
# constriction's scale is exactly 1 and its table has exactly the frequencies p + 1.
_FAMILY = constriction.stream.model.Categorical(perfect=False)


def encode_stream(start: np.ndarray, frequency: np.ndarray) -> bytes:
    """Code n symbols that occupy [start, start + frequency) of 2**24 (int64, n each).

    The result is within two bytes of the information content.

        >>> encode_stream(np.array([0, 4194304]), np.array([4194304, 4194304])).hex()
        '10'
    """
    start, frequency = np.asarray(start, np.int64), np.asarray(frequency, np.int64)
    if start.shape != frequency.shape or start.ndim != 1:
        raise InvalidArgument(f"start and frequency must be of equal length, got {start.shape} and {frequency.shape}")
    if np.any(start < 0) or np.any(frequency < 1) or np.any(start + frequency > TOTAL):
        raise InvalidArgument("every symbol needs a frequency of at least 1 inside [0, 2**24)")
    encoder = constriction.stream.queue.RangeEncoder()
    symbols, tables = _three_way(start, frequency)
    certain = frequency == TOTAL  # nothing to code; constriction has no table for it
    if not certain.all():
        encoder.encode(symbols[~certain], _FAMILY, tables[~certain])
    return _trimmed(encoder)


def _three_way(start: np.ndarray, frequency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per symbol a table of three codes, one of which occupies exactly its interval.

    Entries are frequencies minus one: usually [before, symbol, after]; at either end of
    the range the third code is a filler of frequency 1.
    """
    after = TOTAL - start - frequency
    symbols = np.where(start == 0, 0, np.where(after == 0, 2, 1)).astype(np.int32)
    tables = np.stack([start - 1, frequency - 1, after - 1], 1).astype(np.float64)
    first, last = symbols == 0, symbols == 2
    tables[first] = np.stack([frequency - 1, after - 2, np.zeros_like(start)], 1)[first]
    tables[last] = np.stack([np.zeros_like(start), start - 2, frequency - 1], 1)[last]
    # One unit of room beside a symbol at the end of the range: no place for a filler.
    for edge, other in ((first & (after == 1), 0), (last & (start == 1), 2)):
        if edge.any():
            raise InvalidArgument("a frequency of 2**24 - 1 needs a third code; use codebooks of at least 3")
    return symbols, tables


def _trimmed(encoder: constriction.stream.queue.RangeEncoder) -> bytes:
    """The shortest bytes that lie, zeros appended, inside the encoder's final interval."""
    words, (lower, width) = encoder.pos()
    sealed = encoder.get_compressed()
    bits = 32 * (words + 2)  # the state is the last two words of a number of this many bits
    number = int.from_bytes(sealed.astype(">u4").tobytes(), "big") << (bits - 32 * len(sealed))
    lowest = number - ((number - lower) & (2**64 - 1))
    for drop in range(bits // 8, -1, -1):
        kept = -(-lowest >> (8 * drop))  # rounded up to whole kept bytes
        if kept << (8 * drop) < lowest + width:
            return kept.to_bytes(bits // 8 - drop, "big").rstrip(b"\0")
    raise AssertionError("unreachable: drop = 0 always fits")


class StreamDecoder:
    """Decodes one stream, a batch of symbols at a time, from cumulative frequencies.

        >>> StreamDecoder(bytes.fromhex('10')).decode(np.array([[0, 4194304, 8388608, 16777216]]))
        array([0], dtype=int32)
    """

    def __init__(self, data: bytes) -> None:
        words = np.frombuffer(data + bytes(-len(data) % 4), ">u4").astype(np.uint32)
        self._decoder = constriction.stream.queue.RangeDecoder(words)

    def decode(self, cumulative: np.ndarray) -> np.ndarray:
        """n codes (int32) from n rows of cumulative frequencies (n x K+1, int64, 0 to 2**24)."""
        if not len(cumulative):
            return np.zeros(0, np.int32)
        try:
            return self._decoder.decode(_FAMILY, (np.diff(cumulative) - 1).astype(np.float64))
        except (AssertionError, ValueError) as error:
            raise FormatError(f"range coder: the stream is not valid ({error})") from error
