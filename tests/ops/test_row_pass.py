"""Integer networks and the autoencoder on the compiled core, against their definition in NumPy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from vqcodec.model.integer_network import (
    Add,
    Concatenate,
    Convolution,
    IntegerNetwork,
    Layer,
    PlaneShape,
    Residual,
    Subtract,
    Unshuffle,
    square_offsets,
    upscale_offsets,
)
from vqcodec.ops.reference import integer_network as reference
from vqcodec.tiling import Box

VARIANTS = ops.cpu.cpu_variants()
ACTIVATIONS = st.sampled_from(["none", "relu", "leaky"])


def equal(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return len(found) == len(expected) and all(
        a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b) for a, b in zip(found, expected)
    )


@pytest.fixture(params=[1, 2, 3])
def threads(request) -> Iterator[int]:
    before = ops.cpu.get_num_threads()
    ops.cpu.set_num_threads(request.param)
    yield request.param
    ops.cpu.set_num_threads(before)


@st.composite
def networks(draw: st.DrawFn) -> IntegerNetwork:
    """Layers of every kind in any order, on planes of strides 1 to 12."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    shapes = [
        PlaneShape(draw(st.integers(1, 20)), draw(st.sampled_from([1, 2, 4, 6])))
        for _ in range(draw(st.integers(1, 3)))
    ]
    inputs = tuple(shapes)
    layers: list[Layer] = []

    def source() -> int:
        return draw(st.integers(0, len(shapes) - 1))

    def add(layer: Layer, channels: int, stride: int) -> None:
        layers.append(layer)
        shapes.append(PlaneShape(channels, stride))

    for _ in range(draw(st.integers(1, 7))):
        a, kind = (
            source(),
            draw(
                st.sampled_from(["convolution", "convolution", "residual", "stride", "upscale", "unshuffle", "combine"])
            ),
        )
        read, outputs = shapes[a], draw(st.sampled_from([1, 3, 8, 15, 16, 17, 32, 40]))
        if kind == "convolution":
            taps = tuple((int(y), int(x)) for y, x in rng.integers(-3, 4, (draw(st.integers(1, 5)), 2)))
            offsets = draw(st.sampled_from([square_offsets(1), square_offsets(3), (taps,)]))
            kernel = random_kernel(rng, read.channels, outputs, offsets, shift=12)
            add(Convolution(a, kernel, activation=draw(ACTIVATIONS)), outputs, read.stride)
        elif kind == "residual":
            first = random_kernel(rng, read.channels, outputs, square_offsets(draw(st.sampled_from([1, 3]))), shift=14)
            second = random_kernel(
                rng, outputs, read.channels, square_offsets(draw(st.sampled_from([1, 1, 3]))), shift=14
            )
            add(Residual(a, first, second, draw(ACTIVATIONS)), read.channels, read.stride)
        elif kind == "stride" and read.stride < 4:
            stride = draw(st.sampled_from([2, 3]))
            kernel = random_kernel(
                rng, read.channels, outputs, square_offsets(draw(st.sampled_from([stride, stride + 2])), stride)
            )
            add(Convolution(a, kernel, stride, activation=draw(ACTIVATIONS)), outputs, read.stride * stride)
        elif kind == "upscale" and read.stride > 1:
            factor = 2 if read.stride % 2 == 0 else read.stride
            shuffled = square_offsets(draw(st.sampled_from([1, 3]))) * factor**2
            offsets = (
                draw(st.sampled_from([shuffled, upscale_offsets(2), upscale_offsets(4)])) if factor == 2 else shuffled
            )
            kernel = random_kernel(rng, read.channels, outputs, offsets)
            add(Convolution(a, kernel, 1, factor, draw(ACTIVATIONS)), outputs, read.stride // factor)
        elif kind == "unshuffle" and read.stride < 4 and read.channels < 10:
            factor = draw(st.integers(1, 3))
            add(Unshuffle(a, factor), read.channels * factor**2, read.stride * factor)
        else:
            same = [i for i, shape in enumerate(shapes) if shape.stride == read.stride]
            b = draw(st.sampled_from([i for i in same if shapes[i] == read]))
            several = tuple(draw(st.lists(st.sampled_from(same), min_size=1, max_size=3)))
            layer = draw(st.sampled_from([Add(a, b), Subtract(a, b), Concatenate(several)]))
            add(
                layer,
                sum(shapes[i].channels for i in several) if isinstance(layer, Concatenate) else read.channels,
                read.stride,
            )
    outputs_of = draw(st.lists(st.integers(0, len(shapes) - 1), min_size=1, max_size=3))
    return IntegerNetwork(inputs, tuple(layers), (len(shapes) - 1, *outputs_of))


def planes_of(network: IntegerNetwork, rows: int, columns: int, seed: int, largest: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    unit = int(np.lcm.reduce([plane.stride for plane in network.planes()]))
    sizes = network.sizes(rows * unit, columns * unit)[: len(network.inputs)]
    return [rng.integers(-largest, largest, size).astype(np.int16) for size in sizes]


@settings(deadline=None, max_examples=150)
@given(
    networks(),
    st.integers(1, 6),
    st.integers(1, 9),
    st.integers(0, 2**31),
    st.sampled_from([100, 32768]),
    st.integers(1, 3),
)
def test_any_network(network, rows, columns, seed, largest, number):
    planes = planes_of(network, rows, columns, seed, largest)
    expected = reference.run(network, planes)
    before = ops.cpu.get_num_threads()
    try:
        ops.cpu.set_num_threads(number)
        for variant in VARIANTS:
            assert equal(ops.run_network(network, planes, backend=variant), expected)
    finally:
        ops.cpu.set_num_threads(before)


def deep_network(rng: np.random.Generator) -> IntegerNetwork:
    """Residual blocks, up by 2 and by 4, as decoders have them."""

    def kernel(inputs: int, outputs: int, size: int, phases: int = 1):
        return random_kernel(rng, inputs, outputs, square_offsets(size) * phases, shift=12)

    layers = (
        Residual(0, kernel(34, 18, 3), kernel(18, 34, 1)),
        Residual(1, kernel(34, 16, 3), kernel(16, 34, 3), "leaky"),
        Convolution(2, kernel(34, 16, 1, 4), upscale=2, activation="leaky"),
        Convolution(3, kernel(16, 3, 3, 16), upscale=4),
        Convolution(2, kernel(34, 3, 3, 64), upscale=8),
    )
    return IntegerNetwork((PlaneShape(34, 8),), layers, (4, 5))


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 40), (40, 1), (2, 63), (3, 64), (5, 65), (3, 71), (2, 72), (2, 73), (1, 129), (70, 3)], ids=str
)
def test_sizes_around_those_of_chunks_and_blocks(size, threads):
    rng = np.random.default_rng(5)
    network = deep_network(rng)
    planes = [rng.integers(-32768, 32768, (*size, 34)).astype(np.int16)]
    expected = reference.run(network, planes)
    for variant in VARIANTS:
        assert equal(ops.run_network(network, planes, backend=variant), expected)


def test_extremes():
    """The largest sums that the proof of overflow allows, at both ends."""
    inputs = 516
    for sign in (-1, 1):
        kernel = random_kernel(np.random.default_rng(1), inputs, 17, square_offsets(1))
        kernel.weight[:] = -127 * sign
        room = 2**31 - 1 - 127 * inputs * 32768
        kernel.bias[:] = room * sign
        kernel.shift[:] = 0
        kernel.check("largest")
        planes = [np.full((2, 3, inputs), -32768, np.int16)]
        for layer in (Convolution(0, kernel), Convolution(0, kernel, activation="leaky")):
            network = IntegerNetwork((PlaneShape(inputs, 1),), (layer,), (1,))
            expected = reference.run(network, planes)
            assert all(equal(ops.run_network(network, planes, backend=variant), expected) for variant in VARIANTS)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(autoencoder_configs(), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**31), st.data())
def test_any_autoencoder(config, rows, columns, seed, data):
    autoencoder = integer_autoencoder(random_autoencoder(config, seed))
    height, width = rows * config.strides[0], columns * config.strides[0]
    maps = random_code_maps(config, height, width, seed)
    maps = maps[: data.draw(st.integers(0, len(maps)))]
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(left, top, data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height)))
    image = random_images(config, rows, columns, seed)
    features = ops.autoencoder_features(autoencoder, image, backend="reference")
    pixels = ops.autoencoder_pixels(autoencoder, maps, height, width, backend="reference")
    for variant in VARIANTS:
        assert np.array_equal(ops.autoencoder_pixels(autoencoder, maps, height, width, backend=variant), pixels)
        part = ops.autoencoder_pixels(autoencoder, maps, height, width, box, backend=variant)
        assert np.array_equal(part, pixels[box.y0 : box.y1, box.x0 : box.x1])
        assert equal(ops.autoencoder_features(autoencoder, image, backend=variant), features)
        for stride, plane in zip(config.strides, features):
            coarser = maps[: sum(m.stride > stride for m in config.maps)]
            found = ops.autoencoder_latents(autoencoder, stride, plane, coarser, backend=variant)
            expected = ops.autoencoder_latents(autoencoder, stride, plane, coarser, backend="reference")
            assert equal([found], [expected])


def test_planes_are_checked():
    network = IntegerNetwork((PlaneShape(3, 2), PlaneShape(1, 4)), (), (0,))
    fine, coarse = np.zeros((4, 2, 3), np.int16), np.zeros((2, 1, 1), np.int16)
    for backend in ("reference", "native"):
        assert equal(ops.run_network(network, [fine, coarse], backend=backend), [fine])
        for wrong in (
            [fine],
            [coarse, fine],
            [fine.astype(np.int32), coarse],
            [fine[0], coarse],
            [fine, coarse[:1]],
            [fine[:0], coarse[:0]],
            [fine[:3], coarse],
        ):
            with pytest.raises(InvalidArgument):
                ops.run_network(network, wrong, backend=backend)


KERNEL = (
    np.ones((1, 2, 1, 3), np.int8),
    np.zeros((1, 2), np.int32),
    np.zeros((1, 2), np.uint8),
    np.zeros((1, 1, 2), np.int32),
)
BROKEN = {
    "a source that does not exist": [("add", 0, 1)],
    "itself": [("unshuffle", 1, 1)],
    "a negative source": [("unshuffle", -1, 1)],
    "an unknown layer": [("pool", 0, 2)],
    "too few parts": [("unshuffle", 0)],
    "a factor of zero": [("unshuffle", 0, 0)],
    "no sources": [("concatenate", [])],
    "strides that differ": [("unshuffle", 0, 2), ("concatenate", [0, 1])],
    "channels that differ": [("convolution", 0, KERNEL, 1, 1, "none"), ("add", 0, 1)],
    "an unknown activation": [("convolution", 0, KERNEL, 1, 1, "tanh")],
    "stride and upscale": [("convolution", 0, KERNEL, 2, 2, "none")],
    "upscale beyond the plane": [("convolution", 0, tuple(np.repeat(a, 9, 0) for a in KERNEL), 1, 3, "none")],
    "too few phases": [("convolution", 0, KERNEL, 1, 2, "none")],
    "other inputs": [("convolution", 0, KERNEL, 1, 1, "none"), ("convolution", 1, KERNEL, 1, 1, "none")],
    "a residual of other outputs": [("residual", 0, KERNEL, KERNEL, "none")],
    "a shift of 31": [("convolution", 0, (*KERNEL[:2], np.full((1, 2), 31, np.uint8), KERNEL[3]), 1, 1, "none")],
    "a far tap": [("convolution", 0, (*KERNEL[:3], np.full((1, 1, 2), 65, np.int32)), 1, 1, "none")],
    "a bias that overflows": [
        ("convolution", 0, (KERNEL[0], np.full((1, 2), 2**31 - 3 * 32768, np.int32), *KERNEL[2:]), 1, 1, "none")
    ],
    "offsets of another shape": [("convolution", 0, (*KERNEL[:3], np.zeros((1, 2, 2), np.int32)), 1, 1, "none")],
    "weights of another type": [("convolution", 0, (KERNEL[0].astype(np.int16), *KERNEL[1:]), 1, 1, "none")],
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_core_refuses(name):
    with pytest.raises(InvalidArgument):
        ops.cpu._native.load_network([(3, 4)], BROKEN[name], [0])


def test_the_core_proves_the_same_overflow():
    largest = 2**31 - 1 - 3 * 32768
    ops.cpu._native.load_network(
        [(3, 1)], [("convolution", 0, (KERNEL[0], np.full((1, 2), largest, np.int32), *KERNEL[2:]), 1, 1, "none")], [1]
    )
    for inputs, outputs in (
        ([], [0]),
        ([(0, 1)], [0]),
        ([(3, 0)], [0]),
        ([(3, 1)], []),
        ([(3, 1)], [1]),
        ([(3, 1)], [-1]),
    ):
        with pytest.raises(InvalidArgument):
            ops.cpu._native.load_network(inputs, [], outputs)
