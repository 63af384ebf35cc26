"""An encoder's choice of codes: the NumPy definition against exact arithmetic, the core against NumPy."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqcodec import ops
from vqcodec.errors import InvalidArgument
from vqcodec.ops import selftest
from vqcodec.ops.reference import rate as reference

BACKENDS = ["reference", *ops.cpu.cpu_variants()]


def test_tables():
    """Nothing but the nearest integers: both neighbours are further away."""
    assert [int(x) for x in reference.EXP2] == [round(2 ** (15 + i / 256)) for i in range(256)]
    assert [int(x) for x in reference.LOG2] == [round(256 * math.log2(1 + i / 256)) for i in range(256)]
    assert reference.EXP2.max() < 2**16 and reference.LOG2.max() < 256


def test_bits_of_frequencies():
    frequency = np.array([1, 2, 3, 255, 256, 257, 2**22, 2**24 - 1, 2**24])
    assert reference.code_bits(frequency).tolist() == [6144, 5888, 5738, 4097, 4096, 4095, 512, 1, 0]
    frequency = np.unique(np.random.default_rng(1).integers(1, 2**24, 10000))
    exact = 256 * (24 - np.log2(frequency))
    assert np.abs(reference.code_bits(frequency) - exact).max() < 2.5  # the table has 256 entries
    assert (np.diff(reference.code_bits(frequency)) <= 0).all()


@settings(deadline=None, max_examples=80)
@given(
    st.integers(1, 70),
    st.integers(1, 60),
    st.integers(1, 13),
    st.sampled_from([3, 2000, 12000, 32768]),
    st.integers(-5, 50),
    st.integers(0, 2**31),
    st.integers(1, 3),
    st.data(),
)
def test_every_variant(positions, codes, channels, largest, base, seed, threads, data):
    rng = np.random.default_rng(seed)
    z = rng.integers(-largest, largest, (positions, channels)).astype(np.int16)
    book = rng.integers(-largest, largest, (codes, channels)).astype(np.int16)
    lengths = rng.integers(0, 256, codes).astype(np.uint8)
    exponents = rng.integers(-3000, 6000, positions).astype(np.int32)
    count = data.draw(st.integers(1, codes))
    expected = reference.code_candidates(z, book, lengths, exponents, base, count)
    before = ops.cpu.get_num_threads()
    ops.cpu.set_num_threads(threads)
    try:
        for backend in BACKENDS:
            found = ops.code_candidates(z, book, lengths, exponents, base, count, backend=backend)
            assert all(a.dtype == np.int32 and np.array_equal(a, b) for a, b in zip(found, expected))
            nearest = ops.nearest_codes(z, book, lengths, exponents, base, backend=backend)
            assert nearest.dtype == np.int32 and np.array_equal(nearest, expected[0][:, 0])
    finally:
        ops.cpu.set_num_threads(before)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(-2000, 4000), st.integers(-2, 70), st.integers(0, 2**31))
def test_the_definition_in_python_integers(channels, exponent, base, seed):
    rng = np.random.default_rng(seed)
    z, book = (rng.integers(-32768, 32768, (n, channels)).astype(np.int16) for n in (1, 5))
    lengths = rng.integers(0, 256, 5).astype(np.uint8)
    mantissa, shift = round(2 ** (15 + (exponent & 255) / 256)), min(max(base - (exponent >> 8), 0), 62)
    errors = [min(sum((int(a) - int(b)) ** 2 for a, b in zip(z[0], e)) * mantissa >> shift, 2**30) for e in book]
    order = sorted(range(5), key=lambda k: (errors[k] + 32 * int(lengths[k]), k))
    codes, costs = ops.code_candidates(z, book, lengths, np.array([exponent], np.int32), base, 5)
    assert codes[0].tolist() == order
    assert costs[0].tolist() == [min(2 * errors[k] + 32 * int(lengths[k]), 2**30) for k in order]
    if 0 < base - (exponent >> 8) < 40:  # what the exponent means
        distance = sum((int(a) - int(b)) ** 2 for a, b in zip(z[0], book[0]))
        exact = Fraction(distance) * Fraction(2.0 ** (exponent / 256 + 15 - base))
        assert errors[0] == 2**30 or abs(errors[0] - exact) <= 1 + exact / 2**15


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_and_extremes(backend):
    z, exponents = np.array([[0], [-32768], [32767]], np.int16), np.zeros(3, np.int32)
    book = np.array([[3], [-3], [3], [0], [32767], [-32768]], np.int16)
    lengths = np.array([0, 0, 0, 255, 0, 0], np.uint8)
    codes, costs = ops.code_candidates(z, book, lengths, exponents, 15, 6, backend=backend)
    assert codes[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert costs[0].tolist()[:4] == [18, 18, 18, 8160] and costs.max() == 2**30
    assert codes[1, 0] == 5 and codes[2, 0] == 4
    assert ops.nearest_codes(z, book, lengths, exponents, 15, backend=backend).tolist() == [0, 5, 4]
    empty = ops.code_candidates(z[:0], book, lengths, exponents[:0], 15, 2, backend=backend)
    assert all(x.shape == (0, 2) for x in empty)


def test_arguments_are_checked():
    z, book, lengths, exponents = (
        np.zeros((4, 2), np.int16),
        np.zeros((3, 2), np.int16),
        np.zeros(3, np.uint8),
        np.zeros(4, np.int32),
    )
    for wrong in (
        (z.astype(np.int32), book, lengths, exponents),
        (z, book[:, :1], lengths, exponents),
        (z, book, lengths[:2], exponents),
        (z, book, lengths, exponents[:3]),
        (z[0], book, lengths, exponents),
        (z[:, :0], book[:, :0], lengths, exponents),
        (z, book[:0], lengths[:0], exponents),
    ):
        with pytest.raises(InvalidArgument):
            ops.nearest_codes(*wrong, 15)
        with pytest.raises((InvalidArgument, TypeError)):  # TypeError: another dtype
            ops.cpu._native.nearest_codes(*wrong, 15)
    for count in (0, 4):
        with pytest.raises(InvalidArgument, match="count must be"):
            ops.code_candidates(z, book, lengths, exponents, 15, count)
        with pytest.raises(InvalidArgument, match="count must be"):
            ops.cpu._native.code_candidates(z, book, lengths, exponents, 15, count)


def test_golden_hashes():
    """Those that tests/installed.py compares on other processors."""
    network, planes = selftest.golden_network()
    for backend in BACKENDS:
        assert selftest.digest(*ops.run_network(network, planes, backend=backend)) == selftest.PLANES
        assert selftest.digest(*selftest.coded(ops.backend.backend(backend))) == selftest.AUTOENCODER
        found = ops.code_candidates(*selftest.golden_choice(), 20, backend=backend)
        assert selftest.digest(*found) == selftest.CANDIDATES
