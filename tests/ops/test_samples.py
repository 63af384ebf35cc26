"""Samples in subscale order: every backend against the definition, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import installed
from vqcodec import ops
from vqcodec.errors import InvalidArgument
from vqcodec.ops import cpu

BACKENDS = cpu.cpu_variants()


@st.composite
def shapes(draw, most: int = 24) -> ops.TileShape:
    return ops.TileShape(
        height=draw(st.integers(1, most)),
        width=draw(st.integers(1, most)),
        channels=draw(st.integers(1, 4)),
        depth=draw(st.sampled_from([8, 16])),
        slices=draw(st.sampled_from([1, 6])),
        bound=draw(st.sampled_from([0, 0, 1, 2, 3, 7, 16, 64])),
    )


def planes(shape: ops.TileShape, seed: int, kind: str) -> np.ndarray:
    """Noise, a soft surface, one value, or a few values."""
    rng = np.random.default_rng(seed)
    size, top = (shape.channels, shape.height, shape.width), 1 << shape.depth
    if kind == "noise":
        made = rng.integers(0, top, size)
    elif kind == "few":
        made = rng.choice(rng.integers(0, top, 3), size)
    elif kind == "ends":
        made = rng.choice([0, top - 1], size)
    else:
        y, x = np.mgrid[: shape.height, : shape.width]
        soft = (np.sin(x / 5 + rng.random()) + np.cos(y / 7)) * top / 5 + top / 2
        made = (soft + rng.normal(0, top / 300, size)).clip(0, top - 1) * (kind == "soft")
    return made.astype(np.uint16)


KINDS = st.sampled_from(["soft", "noise", "few", "ends", "zero"])


@contextmanager
def threads(n: int) -> Iterator[None]:
    before = cpu.get_num_threads()
    cpu.set_num_threads(n)
    try:
        yield
    finally:
        cpu.set_num_threads(before)


def encoded(shape: ops.TileShape, samples: np.ndarray, backend: str | None = None) -> tuple[list, np.ndarray]:
    tile = ops.sample_tile(shape, backend=backend)
    tile.set_samples(samples)
    (streams,) = ops.encode_samples([tile], shape.slices, backend=backend)
    return streams, tile.samples()


@settings(deadline=None, max_examples=60)
@given(shapes(10), st.integers(0, 2**31), KINDS, st.data())
def test_backends_equal_the_reference(shape, seed, kind, data):
    samples = planes(shape, seed, kind)
    streams, seen = encoded(shape, samples, "reference")
    assert np.abs(seen.astype(int) - samples).max() <= shape.bound
    cut = data.draw(st.integers(1, shape.slices))
    first = [channel[:cut] for channel in streams]
    for backend in BACKENDS:
        found, again = encoded(shape, samples, backend)
        assert found == streams and np.array_equal(again, seen)
    tiles = {}
    for backend in ["reference", *BACKENDS]:
        tile = tiles[backend] = ops.sample_tile(shape, backend=backend)
        assert ops.decode_samples([tile], cut, [first], backend=backend) == [True]
        tile.fill()
    assert all(np.array_equal(tile.samples(), tiles["reference"].samples()) for tile in tiles.values())
    for backend, tile in tiles.items():
        if cut < shape.slices:
            ops.draw_samples([tile], shape.slices, [seed if seed % 4 else None], backend=backend)
        assert tile.known == shape.slices
    assert all(np.array_equal(tile.samples(), tiles["reference"].samples()) for tile in tiles.values())


@settings(deadline=None, max_examples=80)
@given(st.lists(shapes(), min_size=1, max_size=4), st.integers(0, 2**31), KINDS, st.integers(1, 3))
def test_round_trips(several, seed, kind, count):
    """Whatever the threads, tiles side by side, and the slices decoded at a time."""
    several = [ops.TileShape(s.height, s.width, s.channels, s.depth, several[0].slices, s.bound) for s in several]
    samples = [planes(shape, seed + i, kind) for i, shape in enumerate(several)]
    slices = several[0].slices
    made = [ops.sample_tile(shape) for shape in several]
    for tile, each in zip(made, samples):
        tile.set_samples(each)
    with threads(count):
        streams = ops.encode_samples(made, slices)
    for shape, each, written in zip(several, samples, streams):
        assert written == encoded(shape, each, BACKENDS[seed % len(BACKENDS)])[0]
    fresh = [ops.sample_tile(shape) for shape in several]
    for end in range(1, slices + 1):
        with threads(1 + end % 3):
            part = [[channel[end - 1 : end] for channel in each] for each in streams]
            assert ops.decode_samples(fresh, end, part) == [True] * len(fresh)
    for shape, tile, before, each in zip(several, fresh, made, samples):
        assert np.array_equal(tile.samples(), before.samples())
        assert np.abs(tile.samples().astype(int) - each).max() <= shape.bound


@settings(deadline=None, max_examples=60)
@given(shapes(), st.integers(0, 2**31), st.data())
def test_any_stream_is_safe(shape, seed, data):
    """Bytes that no encoder wrote give some samples, or are refused; by all backends alike."""
    streams = [[data.draw(st.binary(max_size=30)) for _ in range(shape.slices)] for _ in range(shape.channels)]
    found = []
    for backend in BACKENDS:
        tile = ops.sample_tile(shape, backend=backend)
        sound = ops.decode_samples([tile], shape.slices, [streams], backend=backend)
        found.append((sound, tile.samples() if sound == [True] else None))
    assert all(sound == found[0][0] and np.array_equal(samples, found[0][1]) for sound, samples in found)


def test_a_wrong_stream_stops_all_channels():
    """The largest number is beyond every interval."""
    shape = ops.TileShape(300, 300, 3)
    streams = [[b"\xff" * 9] + [b""] * 5] * 3
    assert ops.decode_samples([ops.sample_tile(shape)], 6, [streams]) == [False]


def test_bits():
    """A soft picture with noise of one level takes little more than its entropy."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:256, :256]
    soft = 128 + 60 * np.sin(x / 40) * np.cos(y / 30)
    samples = np.rint(soft + rng.normal(0, 1, (1, 256, 256))).astype(np.uint16)
    streams, _ = encoded(ops.TileShape(256, 256, 1), samples)
    bits = 8 * sum(map(len, streams[0])) / samples.size
    assert bits < 2.05 + 0.22  # log2(sqrt(2 pi e)) = 2.05, and predictions from noisy samples


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("slices", [1, 6])
def test_noise_takes_no_more_than_it_must(depth, slices):
    samples = np.random.default_rng(2).integers(0, 1 << depth, (3, 100, 120)).astype(np.uint16)
    streams, _ = encoded(ops.TileShape(100, 120, 3, depth, slices), samples)
    assert sum(len(stream) for channel in streams for stream in channel) <= samples.size * depth // 8


@pytest.mark.parametrize(
    "wrong",
    [dict(height=0), dict(width=0), dict(channels=5), dict(depth=12), dict(slices=2), dict(bound=-1), dict(bound=65)],
)
def test_wrong_shapes(wrong):
    with pytest.raises(InvalidArgument):
        ops.sample_tile(ops.TileShape(**{"height": 4, "width": 4, "channels": 1, **wrong}))


def test_wrong_calls():
    tile = ops.sample_tile(ops.TileShape(4, 5, 1))
    with pytest.raises(InvalidArgument, match="channels x height x width"):
        tile.set_samples(np.zeros((1, 5, 4), np.uint16))
    with pytest.raises(InvalidArgument, match="below 256"):
        tile.set_samples(np.full((1, 4, 5), 256, np.uint16))
    for end in (0, 7):
        with pytest.raises(InvalidArgument, match="up to 6"):
            ops.encode_samples([tile], end)
    for streams in ([], [[]], [[[b""]]]):
        with pytest.raises(InvalidArgument, match="expected"):
            ops.decode_samples([tile], 6, streams)
    with pytest.raises(InvalidArgument, match="seeds"):
        ops.draw_samples([tile], 6, [])


# -- indices -----------------------------------------------------------------------------


@st.composite
def index_planes(draw) -> tuple[np.ndarray, int]:
    """Noise, or glyphs in rows."""
    bits = draw(st.integers(0, 12))
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 16))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    glyph = rng.integers(0, 1 << bits, (3, 4))
    plane = np.tile(glyph, (height // 3 + 1, width // 4 + 1))[:height, :width]
    if draw(st.booleans()):
        plane = rng.integers(0, 1 << bits, (height, width))
    return plane.astype(np.uint16), bits


@settings(deadline=None, max_examples=60)
@given(index_planes())
def test_indices_equal_the_reference(made):
    plane, bits = made
    (stream,) = ops.encode_indices([plane], bits, backend="reference")
    for backend in ["reference", *BACKENDS]:
        assert ops.encode_indices([plane], bits, backend=backend) == [stream]
        (found,) = ops.decode_indices([plane.shape], bits, [stream], backend=backend)
        assert np.array_equal(found, plane)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 12), st.binary(max_size=40))
def test_any_stream_of_indices_is_safe(height, width, bits, stream):
    found = [
        ops.decode_indices([(height, width)], bits, [stream], backend=name)[0] for name in ["reference", *BACKENDS]
    ]
    assert all((each is None) == (found[0] is None) for each in found)
    if found[0] is not None:
        assert all(np.array_equal(each, found[0]) for each in found) and found[0].max() < 1 << bits


def test_text_takes_few_bits():
    """A glyph that repeats is known after some lines."""
    rng = np.random.default_rng(3)
    plane = np.tile(rng.integers(0, 2, (9, 8)), (20, 30)).astype(np.uint16)
    (stream,) = ops.encode_indices([plane], 1)
    assert 8 * len(stream) < 0.05 * plane.size


def test_wrong_indices():
    plane = np.zeros((3, 4), np.uint16)
    for planes, bits in (([plane + np.uint16(2)], 1), ([plane], 13), ([plane[0]], 1), ([plane.astype(np.int32)], 1)):
        with pytest.raises(InvalidArgument):
            ops.encode_indices(planes, bits)
    for sizes, bits, streams in (([(0, 4)], 1, [b""]), ([(4, 4)], 13, [b""]), ([(4, 4)], 1, [])):
        with pytest.raises(InvalidArgument):
            ops.decode_indices(sizes, bits, streams)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_what_other_processors_must_compute(backend):
    """tests/installed.py compares this on aarch64 and s390x (make cross)."""
    installed.check_samples(backend)
