"""Integer networks and the autoencoder on the GPU's kernels, against their definition in NumPy and the CPU."""

from __future__ import annotations

import signal
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops.test_row_pass import BROKEN, deep_network, equal, networks, planes_of
from tests.support.autoencoders import (
    autoencoder_configs,
    integer_autoencoder,
    random_autoencoder,
    random_code_maps,
    random_images,
    random_kernel,
)
from vqcodec import ops
from vqcodec.errors import InvalidArgument
from vqcodec.model.integer_network import Convolution, IntegerNetwork, PlaneShape, Residual, square_offsets
from vqcodec.ops import cuda
from vqcodec.ops.reference import integer_network as reference
from vqcodec.tiling import Box

pytestmark = pytest.mark.usefixtures("cuda_kernels")

#: Bytes for the planes of a window: the smallest one, some, the whole image.
MEMORY = st.sampled_from([1, 20_000, 64 << 20])
WHOLE = 64 << 20


def device(memory: int = WHOLE) -> cuda.Device:
    return replace(cuda.device(0), memory=memory)


@settings(deadline=None, max_examples=100)
@given(networks(), st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**31), st.sampled_from([100, 32768]), MEMORY)
def test_any_network(network, rows, columns, seed, largest, memory):
    planes = planes_of(network, rows, columns, seed, largest)
    found = device(memory).run_network(network, planes)
    assert equal(found, reference.run(network, planes))
    assert equal(found, ops.run_network(network, planes, backend="native"))


@pytest.mark.parametrize("size", [(1, 1), (1, 17), (16, 2), (3, 33), (9, 7)], ids=str)
@pytest.mark.parametrize("memory", [1, 30_000, WHOLE])
def test_sizes(size, memory):
    rng = np.random.default_rng(5)
    network = deep_network(rng)
    planes = [rng.integers(-32768, 32768, (*size, 34)).astype(np.int16)]
    assert equal(device(memory).run_network(network, planes), reference.run(network, planes))


@pytest.mark.parametrize("inputs", [8, 516])
@pytest.mark.parametrize("sign", [-1, 1])
def test_extremes(inputs, sign):
    """The largest sums that the proof of overflow allows, at both ends."""
    kernel = random_kernel(np.random.default_rng(1), inputs, 17, square_offsets(1))
    kernel.weight[:] = -127 * sign
    kernel.bias[:] = (2**31 - 1 - 127 * inputs * 32768) * sign
    kernel.shift[:] = 0
    kernel.check("largest")
    planes = [np.full((2, 3, inputs), -32768, np.int16)]
    for activation in ("none", "leaky"):
        network = IntegerNetwork((PlaneShape(inputs, 1),), (Convolution(0, kernel, activation=activation),), (1,))
        assert equal(device().run_network(network, planes), reference.run(network, planes))


def test_windows_are_bounded():
    """Memory does not grow with the image, and margins are those that the layers need."""
    rng = np.random.default_rng(2)
    kernel = random_kernel(rng, 6, 6, square_offsets(3), shift=14)
    layers = tuple(Residual(i, kernel, kernel) for i in range(3))
    network = IntegerNetwork((PlaneShape(6, 1),), layers, (3,))
    planes = [rng.integers(-32768, 32768, (61, 47, 6)).astype(np.int16)]
    expected = reference.run(network, planes)
    for memory in (1, 5_000, 9_000, 40_000):
        assert equal(device(memory).run_network(network, planes), expected)


@settings(deadline=None, max_examples=25)
@given(autoencoder_configs(), st.integers(1, 2), st.integers(1, 3), st.integers(0, 2**31), MEMORY, st.data())
def test_any_autoencoder(config, rows, columns, seed, memory, data):
    autoencoder = integer_autoencoder(random_autoencoder(config, seed))
    height, width = rows * config.strides[0], columns * config.strides[0]
    maps = [codes.astype(np.int32) for codes in random_code_maps(config, height, width, seed)]
    maps = maps[: data.draw(st.integers(0, len(maps)))]
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(left, top, data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height)))
    image = random_images(config, rows, columns, seed)
    kernels = device(memory)

    expected = ops.autoencoder_pixels(autoencoder, maps, height, width, backend="reference")
    assert np.array_equal(ops.autoencoder_pixels(autoencoder, maps, height, width, backend="native"), expected)
    whole = kernels.autoencoder_pixels(autoencoder, maps, height, width, Box(0, 0, width, height))
    assert np.array_equal(whole, expected)
    part = kernels.autoencoder_pixels(autoencoder, maps, height, width, box)
    assert np.array_equal(part, expected[box.y0 : box.y1, box.x0 : box.x1])

    features = ops.autoencoder_features(autoencoder, image, backend="reference")
    assert equal(kernels.autoencoder_features(autoencoder, image), features)
    for stride, plane in zip(config.strides, features):
        coarser = maps[: config.maps_before(stride)]
        found = kernels.autoencoder_latents(autoencoder, stride, plane, coarser)
        assert equal([found], [ops.autoencoder_latents(autoencoder, stride, plane, coarser, backend="reference")])


@pytest.mark.parametrize("name", BROKEN)
def test_broken_networks_are_refused(name):
    with pytest.raises(InvalidArgument):
        device().core.load_network(0, [(3, 4)], BROKEN[name], [0])


def test_planes_and_maps_are_checked():
    network = IntegerNetwork((PlaneShape(3, 2), PlaneShape(1, 4)), (), (0,))
    fine, coarse = np.zeros((4, 2, 3), np.int16), np.zeros((2, 1, 1), np.int16)
    assert equal(device().run_network(network, [fine, coarse]), [fine])
    for wrong in ([fine], [coarse, fine], [fine[0], coarse], [fine, coarse[:1]], [fine[:3], coarse]):
        with pytest.raises(InvalidArgument):
            device().run_network(network, wrong)


def test_interrupt():
    """A signal handler runs between windows, and its exception ends the call."""

    def handler(number, frame):
        raise KeyboardInterrupt

    rng = np.random.default_rng(3)
    network = deep_network(rng)
    planes = [rng.integers(-32768, 32768, (150, 150, 34)).astype(np.int16)]  # 22,500 windows
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            device(1).run_network(network, planes)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
