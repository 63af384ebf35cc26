"""The compiled engine against the definition in NumPy: always ==, for every variant that runs here.

Variants are printed by the first test; a machine without one of them tests the others.
"""

from __future__ import annotations

import gc
import signal
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.networks import CLASSES, LEVELS, integer_prior, prior_cases, random_maps, random_prior
from vqcodec import ops
from vqcodec.errors import BackendError, CorruptChunk, FormatError, InvalidArgument
from vqcodec.model.config import CodeMap, PriorConfig
from vqcodec.model.prior import IntegerPrior, Tables
from vqcodec.ops import cpu, range_coder
from vqcodec.ops import prior as prior_ops
from vqcodec.ops.reference import prior as reference_prior
from vqcodec.ops.reference.range_decoder import RangeDecoder

VARIANTS = [*cpu.cpu_variants(), "cuda"]
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_backend = pytest.mark.parametrize("backend", ["reference", *VARIANTS])
pytestmark = pytest.mark.usefixtures("cuda_kernels")


@pytest.fixture(autouse=True)
def number_of_threads() -> Iterator[None]:
    """Whatever a test sets, the next one begins with the default."""
    before = cpu.get_num_threads()
    yield
    cpu.set_num_threads(before)


def prior_of(config: PriorConfig, maps: tuple[CodeMap, ...], seed: int = 0) -> IntegerPrior:
    return integer_prior(random_prior(config, maps, seed), config, maps)


class Hierarchy:
    """Four maps at three strides: attention on top, conditioning of several depths below."""

    maps = (CodeMap(8, 1, 40), CodeMap(4, 1, 9), CodeMap(2, 1, 130), CodeMap(2, 1, 3))
    configs = (
        PriorConfig(hidden=12, residual=5, layers=2, attention_layers=1, heads=3, output_layers=1),
        PriorConfig(hidden=9, residual=7, layers=1, condition_blocks=0, condition_embedding=3),
        PriorConfig(hidden=16, residual=8, layers=2, kernel=5, condition_blocks=2, condition_embedding=1),
        PriorConfig(hidden=5, residual=3, layers=1, kernel=1, first_kernel=3, embedding=2, condition_embedding=2),
    )

    def __init__(self) -> None:
        self.priors = [prior_of(c, self.maps[: m + 1], m) for m, c in enumerate(self.configs)]

    def shapes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Of a picture of so many codes at stride 2, rounded up to whole codes of the top map."""
        height, width = -(-height // 4) * 4, -(-width // 4) * 4
        return [(height * 2 // m.stride, width * 2 // m.stride) for m in self.maps]

    def encode(self, codes: list[np.ndarray], class_id: int, level: int, backend: str) -> list[bytes]:
        return [
            range_coder.encode_stream(*ops.prior_frequencies(p, codes[m], codes[:m], class_id, level, backend=backend))
            for m, p in enumerate(self.priors)
        ]


@pytest.fixture(scope="module")
def hierarchy() -> Hierarchy:
    return Hierarchy()


def random_words(shapes: list[tuple[int, int]], seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 1 << 24, h * w, dtype=np.uint32) for h, w in shapes]


def assert_same_maps(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert a.dtype == np.int32
        np.testing.assert_array_equal(a, b)


def test_which_variants_run(capsys):
    with capsys.disabled():
        print(f"\n[engine: testing {', '.join(VARIANTS)} against the reference]", end=" ")
    assert VARIANTS[0] == "scalar"


# -- equality ------------------------------------------------------------------------------


@every_variant
@given(prior_cases(), st.integers(0, CLASSES), st.integers(0, LEVELS - 1), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_frequencies(variant, case, class_id, level, threads):
    """Whole maps, random networks."""
    config, maps, shape, seed = case
    prior = prior_of(config, maps, seed)
    *coarser, codes = random_maps(maps, shape, seed)
    cpu.set_num_threads(threads)
    found = ops.prior_frequencies(prior, codes, coarser, class_id, level, backend=variant)
    for a, b in zip(found, reference_prior.prior_frequencies(prior, codes, coarser, class_id, level), strict=True):
        assert a.dtype == np.int64
        np.testing.assert_array_equal(a, b)


@every_variant
@given(prior_cases(), st.integers(0, CLASSES), st.integers(0, LEVELS - 1), st.sampled_from([1, 77, 256, 300, 65536]),
       st.sampled_from([1, 30000, 60000, 65535, 65536]))
@settings(max_examples=40, deadline=None)
def test_sampling(variant, case, class_id, level, sharpness, nucleus):
    """Step by step, random networks, all temperatures, all nuclei."""
    config, maps, shape, seed = case
    prior = prior_of(config, maps, seed)
    *coarser, _ = random_maps(maps, shape, seed)
    arguments = [prior], [shape], random_words([shape], seed), class_id, level
    rule = dict(sharpness=sharpness, nucleus=nucleus)
    expected = ops.wavefront_sample(*arguments, **rule, given=coarser, backend="reference")
    found = ops.wavefront_sample(*arguments, **rule, given=coarser, backend=variant)
    assert_same_maps(found, expected)


@every_variant
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (4, 20), (12, 8), (8, 28)])
def test_decoding_what_constriction_encoded(hierarchy, variant, threads, size):
    """decode(encode(x)) == x through real bytes, maps of a picture one behind the other."""
    cpu.set_num_threads(threads)
    shapes = hierarchy.shapes(*size)
    codes = [
        np.random.default_rng(m).integers(0, k.codes, s).astype(np.int32)
        for m, (k, s) in enumerate(zip(hierarchy.maps, shapes))
    ]
    streams = hierarchy.encode(codes, 2, 1, variant)
    assert streams == hierarchy.encode(codes, 2, 1, "reference")
    for backend in ("reference", variant):
        assert_same_maps(ops.wavefront_decode(hierarchy.priors, shapes, streams, 2, 1, backend=backend), codes)


def test_nucleus_keeps_the_likeliest_codes():
    """By hand: weights of exp[0], exp[8], exp[8], exp[16], exp[64] are about 1, .78, .78, .61, .14 of 3.3."""
    exp = Tables.standard().exp
    logits = np.array([[64, 0, 56, 48, 56]])

    def kept(top_p: float) -> list[int]:
        cumulative = reference_prior.cumulative_frequencies(logits, exp, nucleus=round(top_p * 65536))
        return np.flatnonzero(np.diff(cumulative[0]) > 1).tolist()

    assert kept(0.2) == kept(0.3) == [0]
    assert kept(0.4) == kept(0.7) == [0, 2, 4]  # equals stay together
    assert kept(0.9) == [0, 2, 3, 4]
    assert kept(0.99) == kept(1) == [0, 1, 2, 3, 4]


def candidates_of(codes: list[np.ndarray], priors: list[IntegerPrior], count: int, spread: float, seed: int):
    """For every code `count` candidates with random costs."""
    rng = np.random.default_rng(seed)
    return [(rng.integers(0, p.codes, (m.size, count)).astype(np.int32),
             np.rint(256 * spread * rng.random((m.size, count))).astype(np.int32) - 500) for m, p in zip(codes, priors)]


@pytest.mark.parametrize("backend", ["reference", *cpu.cpu_variants()])
@pytest.mark.parametrize("threads", [1, 2])
def test_choosing_for_an_encoder(hierarchy, backend, threads):
    cpu.set_num_threads(threads)
    shapes = hierarchy.shapes(12, 16)
    zeros = [np.zeros(shape, np.int32) for shape in shapes]
    candidates = candidates_of(zeros, hierarchy.priors, 5, 12.0, 0)
    found = ops.wavefront_choose(hierarchy.priors, shapes, candidates, 1, 0, backend=backend)
    expected = ops.wavefront_choose(hierarchy.priors, shapes, candidates, 1, 0, backend="reference")
    assert_same_maps(found, expected)
    # One candidate leaves no choice, and where distortion decides, bits do not.
    alone = [(codes[:, :1], costs[:, :1]) for codes, costs in candidates]
    for codes, (only, _), prior in zip(ops.wavefront_choose(hierarchy.priors, shapes, alone, 1, 0, backend=backend),
                                       alone, hierarchy.priors):
        np.testing.assert_array_equal(codes[reference_prior.coding_order(*codes.shape, prior.lag)], only[:, 0])
    far = [(codes, costs * 10**5) for codes, costs in candidates]
    for codes, (numbers, costs), prior in zip(ops.wavefront_choose(hierarchy.priors, shapes, far, 1, 0, backend=backend),
                                              far, hierarchy.priors):
        nearest = np.take_along_axis(numbers, costs.argmin(1)[:, None], 1)[:, 0]
        np.testing.assert_array_equal(codes[reference_prior.coding_order(*codes.shape, prior.lag)], nearest)


def test_choosing_saves_bits(hierarchy):
    """Candidates of equal distortion: the chosen ones cost fewer bits than any fixed choice."""
    shapes = hierarchy.shapes(12, 16)
    zeros = [np.zeros(shape, np.int32) for shape in shapes]
    candidates = [(codes, np.zeros_like(costs)) for codes, costs in candidates_of(zeros, hierarchy.priors, 4, 1.0, 1)]

    def bits(maps: list[np.ndarray]) -> float:
        return sum(24 * m.size - np.log2(ops.prior_frequencies(p, m, maps[:i], 1, 0)[1]).sum()
                   for i, (m, p) in enumerate(zip(maps, hierarchy.priors)))

    chosen = bits(ops.wavefront_choose(hierarchy.priors, shapes, candidates, 1, 0))
    for i in range(4):
        fixed = [(codes[:, i : i + 1], costs[:, i : i + 1]) for codes, costs in candidates]
        assert chosen < 0.8 * bits(ops.wavefront_choose(hierarchy.priors, shapes, fixed, 1, 0))


def test_wrong_candidates(hierarchy):
    prior, shape = hierarchy.priors[0], (2, 3)
    codes, costs = np.zeros((6, 2), np.int32), np.zeros((6, 2), np.int32)
    for wrong in ((codes[:5], costs[:5]), (codes, costs[:, :1]), (codes[:, :0], costs[:, :0]), (codes[0], costs[0])):
        with pytest.raises(InvalidArgument, match="must be 6 x count"):
            ops.wavefront_choose([prior], [shape], [wrong], 0, 0)
    with pytest.raises(InvalidArgument, match="costs must be int32"):
        ops.wavefront_choose([prior], [shape], [(codes, costs.astype(np.float32))], 0, 0)
    codes[3, 1] = prior.codes
    with pytest.raises(InvalidArgument, match=f"candidates: codes must be in 0..{prior.codes - 1}"):
        ops.wavefront_choose([prior], [shape], [(codes, costs)], 0, 0)


@every_variant
@pytest.mark.parametrize("threads", [1, 2])
def test_batches_equal_single_pictures(hierarchy, variant, threads):
    """Tiles of equal and of different shapes, classes and levels; whole map == wavefront."""
    cpu.set_num_threads(threads)
    sizes = [(8, 8), (8, 8), (4, 24), (8, 8), (1, 1), (20, 4), (8, 8)]
    samples, decodes, expected = [], [], []
    for i, size in enumerate(sizes):
        shapes = hierarchy.shapes(*size)
        words = random_words(shapes, i)
        maps = ops.wavefront_sample(hierarchy.priors, shapes, words, i % 3, i % 2, backend=variant)
        assert_same_maps(
            maps, ops.wavefront_sample(hierarchy.priors, shapes, words, i % 3, i % 2, backend="reference"))
        streams = hierarchy.encode(maps, i % 3, i % 2, variant)
        samples.append(ops.SampleJob(shapes, words, i % 3, i % 2))
        decodes.append(ops.DecodeJob(shapes, streams, i % 3, i % 2))
        expected.append(maps)
    for found in (
        ops.wavefront_sample_batch(hierarchy.priors, samples, backend=variant),
        ops.wavefront_decode_batch(hierarchy.priors, decodes, backend=variant),
    ):
        for maps, wanted in zip(found, expected, strict=True):
            assert_same_maps(maps, wanted)


@every_backend
def test_given_maps(hierarchy, backend):
    """The finer maps alone, the coarser ones known already, from views of larger arrays."""
    shapes = hierarchy.shapes(12, 16)
    maps = ops.wavefront_sample(hierarchy.priors, shapes, random_words(shapes, 5), 1, 0, backend=backend)
    streams = hierarchy.encode(maps, 1, 0, backend)
    given_maps = []
    for codes in maps[:2]:
        larger = np.zeros((codes.shape[0] + 3, 2 * codes.shape[1]), np.int64)
        larger[3:, ::2] = codes
        given_maps.append(larger[3:, ::2])
    found = ops.wavefront_decode(
        hierarchy.priors[2:], shapes[2:], streams[2:], 1, 0, given=given_maps, backend=backend)
    assert_same_maps(found, maps[2:])


@every_backend
def test_a_picture_may_end_inside_a_coarser_code(hierarchy, backend):
    """Coarser maps may be larger than this one needs; what is outside is not seen."""
    prior = hierarchy.priors[1]
    top = np.arange(12, dtype=np.int32).reshape(3, 4)
    changed = top.copy()
    changed[2:], changed[:, 3:] = 39, 39
    codes = np.random.default_rng(0).integers(0, 9, (3, 5)).astype(np.int32)
    first, second = (ops.prior_frequencies(prior, codes, [c], 0, 0, backend=backend) for c in (top, changed))
    np.testing.assert_array_equal(first, second)


WIDE = {
    "many codes": (PriorConfig(hidden=8, residual=4, layers=1), 1000, (6, 9)),
    "most codes": (PriorConfig(hidden=2, residual=2, layers=1, embedding=1), 65536, (2, 3)),
    "odd channels": (PriorConfig(hidden=3, residual=1, layers=3, attention_layers=3, heads=1), 5, (9, 11)),
    "heads of one channel": (PriorConfig(hidden=5, residual=3, layers=1, attention_layers=1, heads=5), 5, (7, 30)),
    "paper, narrow": (PriorConfig(hidden=32, residual=128, layers=4, kernel=5, embedding=32, attention_layers=2,
                                  heads=8, output_layers=4, condition_blocks=0), 512, (20, 16)),
    "default, top": (PriorConfig(hidden=64, residual=64, attention_layers=2, heads=4, output_layers=1), 512, (16, 24)),
    "default, fine": (PriorConfig(), 512, (12, 20)),
}


@every_variant
@pytest.mark.parametrize("case", WIDE)
def test_sizes_that_the_random_networks_do_not_reach(case, variant):
    config, codes, shape = WIDE[case]
    prior = prior_of(config, (CodeMap(8, 1, codes),), 3)
    words = random_words([shape], 3)
    expected = ops.wavefront_sample([prior], [shape], words, 1, 1, backend="reference")
    assert_same_maps(ops.wavefront_sample([prior], [shape], words, 1, 1, backend=variant), expected)
    found = ops.prior_frequencies(prior, expected[0], [], 1, 1, backend=variant)
    np.testing.assert_array_equal(found, reference_prior.prior_frequencies(prior, expected[0], [], 1, 1))


# -- damage --------------------------------------------------------------------------------


@every_variant
@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_bytes_give_the_same_codes_or_the_same_error(hierarchy, variant, data):
    shapes = hierarchy.shapes(8, 8)
    streams = [data.draw(st.binary(max_size=60) | st.just(b"\xff" * 9)) for _ in shapes]
    results = []
    for backend in ("reference", variant):
        try:
            results.append(ops.wavefront_decode(hierarchy.priors, shapes, streams, 0, 0, backend=backend))
        except CorruptChunk as error:
            results.append(str(error))
    if isinstance(results[0], str):
        assert results[0] == results[1]
    else:
        assert_same_maps(results[1], results[0])


@every_backend
def test_errors_name_the_map(hierarchy, backend):
    shapes = hierarchy.shapes(8, 8)
    streams = [b"", b"", b"\xff" * 8, b"\xff" * 8]
    with pytest.raises(CorruptChunk, match="map 2: the stream is not one that an encoder writes") as caught:
        ops.wavefront_decode(hierarchy.priors, shapes, streams, 0, 0, backend=backend)
    assert caught.value.chunk == "map 2"
    jobs = [ops.DecodeJob(shapes, [b""] * 4), ops.DecodeJob(shapes, streams)]
    with pytest.raises(CorruptChunk, match=r"map 2: .* \(job 1\)"):
        ops.wavefront_decode_batch(hierarchy.priors, jobs, backend=backend)


# -- the range decoder ---------------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(3, 300), st.integers(0, 400), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_reference_range_decoder_is_constrictions(seed, codes, count, cut):
    rng = np.random.default_rng(seed)
    weights = rng.exponential(size=(count, codes)) ** 4
    exact = np.cumsum(weights, 1) / weights.sum(1, keepdims=True) * (reference_prior.TOTAL - codes)
    cumulative = np.zeros((count, codes + 1), np.int64)
    cumulative[:, 1:] = np.floor(exact).astype(np.int64) + np.arange(1, codes + 1)
    cumulative[:, -1] = reference_prior.TOTAL
    symbols = rng.integers(0, codes, count)
    start = np.take_along_axis(cumulative, symbols[:, None], 1)[:, 0]
    frequency = np.take_along_axis(cumulative, symbols[:, None] + 1, 1)[:, 0] - start
    stream = range_coder.encode_stream(start, frequency)
    np.testing.assert_array_equal(RangeDecoder(stream).decode(cumulative), symbols)

    damaged = rng.bytes(cut) + stream[cut:]
    outcomes = []
    for decode in (RangeDecoder(damaged).decode, range_coder.StreamDecoder(damaged).decode):
        try:
            outcomes.append(decode(cumulative).tolist())
        except FormatError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]


# -- arguments and backends ----------------------------------------------------------------


@every_backend
def test_refusals(hierarchy, backend):
    priors, shapes = hierarchy.priors, hierarchy.shapes(8, 8)
    words, streams = random_words(shapes, 0), [b""] * 4

    def decode(p=priors, s=shapes, b=streams, class_id=0, level=0, **more):
        ops.wavefront_decode(p, s, b, class_id, level, backend=backend, **more)

    def sample(s=shapes, w=words, **more):
        ops.wavefront_sample(priors, s, w, 0, 0, backend=backend, **more)

    def frequencies(codes, coarser=()):
        ops.prior_frequencies(priors[len(coarser)], codes, coarser, 0, 0, backend=backend)

    decode()
    sample()
    top = np.zeros(shapes[0], np.int32)
    for call in (
        lambda: decode(class_id=CLASSES + 1),
        lambda: decode(class_id=-1),
        lambda: decode(level=LEVELS),
        lambda: decode(s=shapes[:3]),
        lambda: decode(b=streams[:3]),
        lambda: decode(p=priors[1:], s=shapes[1:], b=streams[1:]),
        lambda: decode(given=[top]),
        lambda: decode(s=[(1, 1), *shapes[1:]]),
        lambda: decode(s=[(0, 2), *shapes[1:]]),
        lambda: decode(p=priors[1:], s=shapes[1:], b=streams[1:], given=[top + 40]),
        lambda: decode(p=priors[1:], s=shapes[1:], b=streams[1:], given=[top - 1]),
        lambda: decode(p=priors[1:], s=shapes[1:], b=streams[1:], given=[top.astype(float)]),
        lambda: sample(w=words[:3]),
        lambda: sample(w=[words[0] + (1 << 24), *words[1:]]),
        lambda: sample(w=[words[0][1:], *words[1:]]),
        lambda: sample(sharpness=0),
        lambda: sample(sharpness=65537),
        lambda: frequencies(top + 40),
        lambda: frequencies(top.astype(np.int64) + 2**32),
        lambda: frequencies(top[0]),
        lambda: frequencies(top[:0]),
        lambda: frequencies(np.zeros(shapes[1], np.int32), [top[1:]]),
        lambda: frequencies(np.zeros(shapes[1], np.int32), [top + 40]),
    ):
        with pytest.raises(InvalidArgument):
            call()


def test_unknown_backend(hierarchy, monkeypatch):
    with pytest.raises(InvalidArgument, match="backend must be one of reference, native, .* got 'abacus'"):
        ops.wavefront_decode([], [], [], 0, 0, backend="abacus")
    monkeypatch.setenv("VQCODEC_BACKEND", "sundial")
    with pytest.raises(InvalidArgument, match="sundial"):
        ops.wavefront_decode([], [], [], 0, 0)


def test_reference_needs_no_compiled_core(hierarchy, monkeypatch):
    shapes = hierarchy.shapes(4, 4)
    expected = ops.wavefront_decode(hierarchy.priors, shapes, [b"abc"] * 4, 0, 0)

    def missing():
        raise BackendError("there is no compiled core")

    monkeypatch.setattr(cpu, "_core", missing)
    with pytest.raises(BackendError):
        ops.wavefront_decode(hierarchy.priors, shapes, [b"abc"] * 4, 0, 0, backend="native")
    monkeypatch.setenv("VQCODEC_BACKEND", "reference")
    assert_same_maps(ops.wavefront_decode(hierarchy.priors, shapes, [b"abc"] * 4, 0, 0), expected)


def test_no_jobs(hierarchy):
    for backend in ("reference", "native"):
        assert ops.wavefront_decode_batch(hierarchy.priors, [], backend=backend) == []
        assert ops.wavefront_decode([], [], [], 0, 0, backend=backend) == []


def test_packed_priors_live_as_long_as_the_prior():
    prior = prior_of(PriorConfig(hidden=4, residual=2, layers=1), (CodeMap(2, 1, 7),))
    codes = np.zeros((2, 2), np.int32)
    ops.prior_frequencies(prior, codes, [], 0, 0)
    key, alive = (id(prior), None), weakref.ref(prior)
    packed = prior_ops._networks[key]
    ops.prior_frequencies(prior, codes, [], 0, 0)
    assert prior_ops._networks[key] is packed
    del prior
    gc.collect()
    assert alive() is None and key not in prior_ops._networks


def test_several_python_threads(hierarchy):
    """The core may be called from any number of threads at once."""
    shapes = hierarchy.shapes(12, 20)
    words = random_words(shapes, 1)
    expected = ops.wavefront_sample(hierarchy.priors, shapes, words, 0, 0)
    results: list[list[np.ndarray]] = []

    def work() -> None:
        for _ in range(5):
            results.append(ops.wavefront_sample(hierarchy.priors, shapes, words, 0, 0))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 20
    for maps in results:
        assert_same_maps(maps, expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_interrupt(threads):
    """A signal's handler runs while the core is at work, and its exception ends the call."""
    cpu.set_num_threads(threads)
    maps = (CodeMap(8, 1, 512), CodeMap(8, 1, 512))
    priors = [prior_of(PriorConfig(), maps[: m + 1]) for m in range(2)]
    shapes = [(1500, 1500)] * 2  # many seconds of work

    def handler(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            ops.wavefront_decode(priors, shapes, [b"", b""], 0, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
