"""vqcodec/ops/range_coder.py against constriction's own words, an exact big-integer encoder and the specification."""

from __future__ import annotations

import constriction
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.reference_decoder import container as reference_container
from vqcodec.errors import FormatError, InvalidArgument
from vqcodec.ops.range_coder import TOTAL, StreamDecoder, encode_stream


def tables(n: int, codes: int, sharpness: float, seed: int) -> np.ndarray:
    """n cumulative tables (int64, n x codes + 1), from flat to nearly certain; some are as extreme as can be."""
    rng = np.random.default_rng(seed)
    weights = rng.random((n, codes)) ** sharpness + 1e-300
    frequency = 1 + np.floor(weights / weights.sum(1, keepdims=True) * (TOTAL - codes)).astype(np.int64)
    extreme = rng.random(n) < 0.2
    frequency[extreme] = 1
    favourite = rng.integers(0, codes, n)
    frequency[np.arange(n), favourite] += TOTAL - frequency.sum(1)
    return np.pad(frequency.cumsum(1), ((0, 0), (1, 0)))


def intervals(cumulative: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(len(codes))
    start = cumulative[rows, codes]
    return start, cumulative[rows, codes + 1] - start


@st.composite
def messages(draw) -> tuple[np.ndarray, np.ndarray]:
    """Tables and codes: drawn from the tables, or, for long improbable runs, without regard to them."""
    n, codes = draw(st.integers(0, 80)), draw(st.sampled_from([2, 3, 4, 17, 600]))
    seed = draw(st.integers(0, 2**32 - 1))
    cumulative = tables(n, codes, draw(st.sampled_from([0, 1, 8, 200])), seed)
    rng = np.random.default_rng(seed + 1)
    likely = (cumulative[:, 1:] <= rng.integers(0, TOTAL, (n, 1))).sum(1)
    chosen = np.where(rng.random(n) < draw(st.sampled_from([0, 0.1, 1])), rng.integers(0, codes, n), likely)
    return cumulative, chosen


def exact_interval(start: np.ndarray, frequency: np.ndarray) -> tuple[int, int, int]:
    """Lower end, size and length in bytes of the encoder's final interval, in big integers."""
    lower, size, words = 0, 2**64 - 1, 2
    for before, own in zip(start.tolist(), frequency.tolist()):
        scale = size >> 24
        lower, size = lower + scale * before, scale * own
        if size < 2**32:
            lower, size, words = lower << 32, size << 32, words + 1
    return lower, size, 4 * words


@given(messages(), st.integers(1, 90))
def test_round_trip(message, step):
    cumulative, codes = message
    data = encode_stream(*intervals(cumulative, codes))
    decoder = StreamDecoder(data)
    decoded = [decoder.decode(cumulative[i : i + step]) for i in range(0, len(codes), step)]
    assert all(part.dtype == np.int32 for part in decoded)
    assert np.array_equal(np.concatenate([np.zeros(0, np.int32), *decoded]), codes)


@given(messages())
def test_specified_decoder_agrees(message):
    cumulative, codes = message
    decoder = reference_container.RangeDecoder(encode_stream(*intervals(cumulative, codes)))
    assert [decoder.symbol(np.diff(row).tolist()) for row in cumulative] == codes.tolist()


@given(messages())
def test_is_the_shortest_number_in_the_exact_interval(message):
    start, frequency = intervals(*message)
    data = encode_stream(start, frequency)
    lower, size, length = exact_interval(start, frequency)
    assert lower <= int.from_bytes(data.ljust(length, b"\0"), "big") < lower + size
    assert not data.endswith(b"\0")
    if data:
        unit = 256 ** (length - len(data) + 1)  # of a stream that is one byte shorter
        assert -(-lower // unit) * unit >= lower + size


@given(messages())
def test_agrees_with_constriction_words(message):
    """All words but the last two, in which the streams choose different numbers, up to a carry."""
    cumulative, codes = message
    encoder = constriction.stream.queue.RangeEncoder()
    weights = (np.diff(cumulative) - 1).astype(np.float64)
    if len(codes):
        encoder.encode(codes.astype(np.int32), constriction.stream.model.Categorical(perfect=False), weights)
    settled, (lower, size) = encoder.pos()
    assert (lower, size) == tuple(v % 2**64 for v in exact_interval(*intervals(cumulative, codes))[:2])
    length = 4 * settled + 8
    theirs = encoder.get_compressed().astype(">u4").tobytes().ljust(length, b"\0")
    ours = encode_stream(*intervals(cumulative, codes)).ljust(length, b"\0")
    assert abs(int.from_bytes(ours, "big") - int.from_bytes(theirs, "big")) < size


@given(messages())
def test_size_is_the_information_content(message):
    start, frequency = intervals(*message)
    bits = -np.log2(frequency / TOTAL).sum()
    # floor(range / 2**24) rounds away less than 2**-8 of the range, and much less on average.
    rounding = -np.log2(1 - 2**-8) * len(start)
    assert len(encode_stream(start, frequency)) <= (bits + rounding) / 8 + 2


@settings(max_examples=25)
@given(st.integers(2, 600), st.integers(0, 2**32 - 1))
def test_every_code_of_an_extreme_table(codes, seed):
    """One code has all but the least, at every place; each code is coded once."""
    for favourite in {0, 1, codes // 2, codes - 1}:
        frequency = np.ones(codes, np.int64)
        frequency[favourite] = TOTAL - codes + 1
        cumulative = np.tile(np.concatenate([[0], frequency.cumsum()]), (codes, 1))
        order = np.random.default_rng(seed).permutation(codes)
        data = encode_stream(*intervals(cumulative, order))
        assert np.array_equal(StreamDecoder(data).decode(cumulative), order)


EMPTY = np.zeros(0, np.int64)


@pytest.mark.parametrize(
    ("start", "frequency", "stream"),
    [
        ([], [], ""),
        ([0], [TOTAL - 1], ""),
        ([1], [TOTAL - 1], "01"),
        ([TOTAL // 2], [TOTAL // 2], "80"),
        ([TOTAL - 1], [1], "ffffff"),
        ([0] * 100, [TOTAL - 1] * 100, ""),
        ([0, 4194304], [4194304, 4194304], "10"),
        ([0x123456, 0x789ABC, 0xDEF012], [1, 1, 1], "123456789a320fdd34"),
    ],
)
def test_golden_streams(start, frequency, stream):
    """Pinned bytes: a change here is a change of the format."""
    assert encode_stream(np.array(start, np.int64), np.array(frequency, np.int64)).hex() == stream


def test_long_stream():
    """A million bits and more, in time that grows with the length alone."""
    cumulative = np.tile(np.arange(0, TOTAL + 1, TOTAL // 256), (1, 1))
    codes = np.random.default_rng(0).integers(0, 256, 200_000)
    data = encode_stream(codes * (TOTAL // 256), np.full(200_000, TOTAL // 256))
    assert len(codes) <= len(data) <= len(codes) * 1.0001 + 2
    decoder = StreamDecoder(data)
    decoded = [decoder.decode(np.repeat(cumulative, 1000, 0)) for _ in range(200)]
    assert np.array_equal(np.concatenate(decoded), codes)


@pytest.mark.parametrize(
    ("start", "frequency"),
    [([0], [0]), ([0], [TOTAL]), ([-1], [5]), ([TOTAL - 1], [2]), ([0, 0], [1]), ([[0]], [[1]])],
)
def test_encode_refuses(start, frequency):
    with pytest.raises(InvalidArgument):
        encode_stream(np.array(start), np.array(frequency))


@pytest.mark.parametrize(
    "row", [[0, TOTAL], [0, 5, TOTAL - 1], [1, 5, TOTAL], [0, 5, 5, TOTAL], [0, 9, 5, TOTAL]], ids=str
)
def test_decode_refuses(row):
    with pytest.raises(InvalidArgument, match="cumulative"):
        StreamDecoder(b"").decode(np.array([row]))
    with pytest.raises(InvalidArgument, match="cumulative"):
        StreamDecoder(b"").decode(np.array(row))


@example(b"\xff" * 8)
@example(b"\xff" * 7 + b"\xfe")
@given(st.binary(max_size=40))
def test_any_bytes_decode_or_are_refused(data):
    """Random bytes are mostly valid. The library and the specification agree on which are not."""
    cumulative = tables(30, 5, 4, seed=len(data))
    specified = reference_container.RangeDecoder(data)
    try:
        expected = [specified.symbol(np.diff(row).tolist()) for row in cumulative]
    except reference_container.Invalid:
        with pytest.raises(FormatError, match="range"):
            StreamDecoder(data).decode(cumulative)
    else:
        assert StreamDecoder(data).decode(cumulative).tolist() == expected
