"""The integer prior: its float twin, its two schedules, its frequency tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.networks import CLASSES, LEVELS, integer_prior, prior_cases, random_maps, random_prior
from training.networks.prior import Prior
from vqcodec.errors import InvalidArgument, ModelError
from vqcodec.model.config import CodeMap, PriorConfig
from vqcodec.model.prior import Tables, load_prior
from vqcodec.ops.reference import prior as reference_prior


@pytest.mark.slow
@given(prior_cases(), st.integers(0, CLASSES), st.integers(0, LEVELS - 1))
@settings(max_examples=60, deadline=None)
def test_float_twin_computes_the_same_logits(case, class_id, level):
    """The network that is trained, with quantisation on, *is* the integer network."""
    config, maps, shape, seed = case
    prior = random_prior(config, maps, seed)
    codes = random_maps(maps, shape, seed)
    with torch.no_grad():
        tensors = [torch.from_numpy(c).long()[None] for c in codes]
        logits = prior(tensors[-1], tensors[:-1], torch.tensor([class_id]), torch.tensor([level]))
    expected = reference_prior.cumulative_frequencies(
        (logits[0].permute(1, 2, 0).double().numpy() * 32).astype(np.int64).reshape(-1, maps[-1].codes),
        Tables.standard().exp,
    )
    state = reference_prior.PriorState(integer_prior(prior, config, maps), shape, codes[:-1], class_id, level)
    rows, columns = (i.reshape(-1) for i in np.indices(shape))
    state.set_codes(rows, columns, codes[-1][rows, columns])
    np.testing.assert_array_equal(state.cumulative(rows, columns), expected)


@pytest.mark.slow
@given(prior_cases(), st.integers(0, CLASSES), st.integers(0, LEVELS - 1))
@settings(max_examples=60, deadline=None)
def test_whole_map_equals_step_by_step(case, class_id, level):
    """Frequencies of the encoder's schedule == frequencies of the decoder's, and nothing later leaks in."""
    config, maps, shape, seed = case
    prior = integer_prior(random_prior(config, maps, seed), config, maps)
    *coarser, codes = random_maps(maps, shape, seed)
    start, frequency = reference_prior.prior_frequencies(prior, codes, coarser, class_id, level)
    rows, columns = reference_prior.coding_order(*shape, config.lag)
    symbols = codes[rows, columns]
    seen = 0

    def choose(cumulative: np.ndarray) -> np.ndarray:
        nonlocal seen
        part = slice(seen, seen + len(cumulative))
        index = np.arange(len(cumulative))
        np.testing.assert_array_equal(cumulative[index, symbols[part]], start[part])
        np.testing.assert_array_equal(cumulative[index, symbols[part] + 1], (start + frequency)[part])
        seen += len(cumulative)
        return symbols[part]

    np.testing.assert_array_equal(reference_prior.wavefront(prior, shape, coarser, class_id, level, choose), codes)
    assert seen == codes.size


@given(st.integers(3, 700), st.integers(0, 2**31), st.sampled_from([1, 30, 1000, 10**6]))
@settings(max_examples=100, deadline=None)
def test_frequency_tables(k, seed, spread):
    logits = np.random.default_rng(seed).integers(-spread, spread + 1, (3, k))
    cumulative = reference_prior.cumulative_frequencies(logits, Tables.standard().exp)
    assert (cumulative[:, 0] == 0).all() and (cumulative[:, -1] == reference_prior.TOTAL).all()
    assert (np.diff(cumulative) >= 1).all()
    exact = np.exp((logits - logits.max(1, keepdims=True)) / 32)
    exact /= exact.sum(1, keepdims=True)
    np.testing.assert_allclose(np.diff(cumulative) / reference_prior.TOTAL, exact, atol=k * 2e-5)


def test_frequency_table_worked_example():
    """The example of docs/FORMAT.md, by hand: weights 65535, 24109 (32 steps below), 0."""
    cumulative = reference_prior.cumulative_frequencies(np.array([[40, 8, -1000]]), Tables.standard().exp)
    assert cumulative.tolist() == [[0, 12265123, 16777215, 16777216]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5, 4), (9, 16)])
@pytest.mark.parametrize("lag", [1, 2, 3, 4])
def test_wavefront_order(shape, lag):
    rows, columns = reference_prior.coding_order(*shape, lag)
    assert sorted(zip(rows, columns)) == [(r, c) for r in range(shape[0]) for c in range(shape[1])]
    key = [(c + lag * r, r) for r, c in zip(rows, columns)]
    assert key == sorted(key)


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 30))
def test_rounding_shift(x, shift):
    assert int(reference_prior.rounding_shift(np.int64(x), shift)) == (x + ((1 << shift) >> 1)) // (1 << shift)


def test_inverse_cdf():
    cumulative = np.array([[0, 5, 6, 10]])
    assert [int(reference_prior.inverse_cdf(cumulative, np.array([w]))[0]) for w in (0, 4, 5, 6, 9)] == [0, 0, 1, 2, 2]


class TestLoading:
    config = PriorConfig(hidden=8, residual=4, layers=1)
    maps = (CodeMap(stride=4, dim=1, codes=9), CodeMap(stride=2, dim=1, codes=7))

    def tensors(self) -> dict[str, np.ndarray]:
        return random_prior(self.config, self.maps, 0).export()

    def load(self, tensors: dict[str, np.ndarray]):
        return load_prior(self.config, self.maps, CLASSES, LEVELS, tensors, Tables.standard())

    def test_every_tensor_is_needed_and_checked(self):
        tensors = self.tensors()
        self.load(tensors)
        for name, array in tensors.items():
            without = {k: v for k, v in tensors.items() if k != name}
            with pytest.raises(ModelError, match="missing"):
                self.load(without)
            for wrong in (array[..., None], array.astype(np.float32), array[:-1]):
                with pytest.raises(ModelError, match="expected"):
                    self.load({**tensors, name: wrong})

    def test_superfluous_tensor(self):
        with pytest.raises(ModelError, match="unexpected"):
            self.load({**self.tensors(), "extra": np.zeros(1, np.int8)})

    def test_overflow_is_refused(self):
        tensors = self.tensors()
        tensors["logits.bias"] = np.full_like(tensors["logits.bias"], 2**31 - 1000)
        with pytest.raises(ModelError, match="int32"):
            self.load(tensors)

    def test_restore_inverts_export(self):
        exported = self.tensors()
        prior = Prior(self.config, self.maps, CLASSES, LEVELS + 2)
        prior.restore(exported)
        again = prior.export()
        assert exported.keys() == again.keys()
        assert np.array_equal(again["level"][:LEVELS], exported["level"])
        assert (again["level"][LEVELS:] == exported["level"][-1]).all()
        for name in exported.keys() - {"level"}:
            assert np.array_equal(exported[name], again[name]), name
        with pytest.raises(InvalidArgument, match="not one to go on from: first"):
            Prior(PriorConfig(hidden=9, residual=4, layers=1), self.maps, CLASSES, LEVELS).restore(exported)

    def test_negative_bias_counts_too(self):
        tensors = self.tensors()
        tensors["first.bias"] = np.full_like(tensors["first.bias"], -(2**31))
        with pytest.raises(ModelError, match="int32"):
            self.load(tensors)


def test_gradients_reach_every_parameter():
    config = PriorConfig(hidden=8, residual=4, layers=2, attention_layers=1, heads=2, output_layers=1)
    maps = (CodeMap(stride=4, dim=1, codes=9), CodeMap(stride=2, dim=1, codes=7))
    prior = random_prior(config, maps, 1)
    *coarser, codes = (torch.from_numpy(c).long()[None] for c in random_maps(maps, (8, 8), 1))
    logits = prior(codes, coarser, torch.tensor([1]), torch.tensor([0]))
    torch.nn.functional.cross_entropy(logits, codes).backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_paper_presets_build():
    """Tables 3 and 4 as networks: head dimension, lag and parameter counts of the top prior's pieces."""
    from vqcodec.model.config import imagenet256

    preset = imagenet256()
    top = preset.priors[0]
    assert (top.hidden, top.residual, top.layers, top.attention_layers, top.heads, top.output_layers) == (
        512,
        2048,
        20,
        4,
        8,
        20,
    )
    assert top.lag == 3 and [i for i in range(20) if top.attends_after(i)] == [4, 9, 14, 19]
    with torch.device("meta"):
        prior = Prior(top, preset.autoencoder.maps[:1], 1000, 1)
    assert prior.blocks[0].conv.weight.shape == (4096, 512, 3, 5) and len(prior.blocks) == 20


def test_training_rounds_as_the_tables():
    """The float twin recomputes the tables: exactly equal, and no entry is near a rounding boundary."""
    x = np.arange(-128, 128) / 32
    for table, values in ((Tables.standard().tanh, np.tanh(x)), (Tables.standard().sigmoid, 1 / (1 + np.exp(-x)))):
        scaled = values * 128 + 0.5
        distance = np.abs(scaled - np.rint(scaled))
        assert (distance[np.abs(values) < 0.99] > 1e-4)[values[np.abs(values) < 0.99] != 0].all()
        assert (np.clip(np.floor(scaled), -127, 127) == table).all()
