"""The NumPy definition of integer networks against Python integers, position by position."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.autoencoders import integer_autoencoder, random_autoencoder, random_code_maps, random_kernel
from vqcodec.model.config import preset
from vqcodec.model.integer_network import (
    Add,
    Concatenate,
    Convolution,
    IntegerNetwork,
    Kernel,
    PlaneShape,
    Residual,
    Subtract,
    Unshuffle,
    square_offsets,
    upscale_offsets,
)
from vqcodec.ops.reference import integer_network as reference


def clamp(x: int, low: int = -32768, high: int = 32767) -> int:
    return min(max(x, low), high)


def sums(x: np.ndarray, kernel: Kernel, stride: int, upscale: int) -> np.ndarray:
    """Rounded sums, one at a time."""
    rows, columns, _ = x.shape
    out = np.zeros((rows // stride * upscale, columns // stride * upscale, kernel.outputs), np.int64)
    for p in range(kernel.phases):
        for y in range(rows // stride):
            for z in range(columns // stride):
                for o in range(kernel.outputs):
                    total = int(kernel.bias[p, o])
                    for t, (dy, dx) in enumerate(kernel.offsets[p]):
                        at = x[clamp(stride * y + dy, 0, rows - 1), clamp(stride * z + dx, 0, columns - 1)]
                        total += sum(int(w) * int(v) for w, v in zip(kernel.weight[p, o, t], at))
                    assert -(2**31) <= total < 2**31
                    shift = int(kernel.shift[p, o])
                    out[y * upscale + p // upscale, z * upscale + p % upscale, o] = (
                        total + ((1 << shift) >> 1)
                    ) >> shift
    return out


def activated(x: int, activation: str) -> int:
    return max(x, 0) if activation == "relu" else (x + 4) >> 3 if activation == "leaky" and x < 0 else x


def finished(x: np.ndarray, activation: str) -> np.ndarray:
    return np.array([clamp(activated(int(v), activation)) for v in x.ravel()], np.int16).reshape(x.shape)


PLANES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))


@settings(deadline=None, max_examples=60)
@given(
    PLANES,
    st.integers(1, 3),
    st.sampled_from(["none", "relu", "leaky"]),
    st.sampled_from(["1", "3", "5", "2/2", "4/2", "x2", "x3", "t2", "t4", "t6"]),
    st.integers(0, 2**31),
    st.sampled_from([5, 300, 32768]),
)
def test_convolution(size, outputs, activation, kind, seed, largest):
    rng = np.random.default_rng(seed)
    stride, upscale, offsets = {
        "1": (1, 1, square_offsets(1)),
        "3": (1, 1, square_offsets(3)),
        "5": (1, 1, square_offsets(5)),
        "2/2": (2, 1, square_offsets(2, 2)),
        "4/2": (2, 1, square_offsets(4, 2)),
        "x2": (1, 2, square_offsets(3) * 4),
        "x3": (1, 3, square_offsets(1) * 9),
        "t2": (1, 2, upscale_offsets(2)),
        "t4": (1, 2, upscale_offsets(4)),
        "t6": (1, 2, upscale_offsets(6)),
    }[kind]
    rows, columns, channels = size
    x = rng.integers(-largest, largest, (rows * stride, columns * stride, channels)).astype(np.int16)
    kernel = random_kernel(rng, channels, outputs, offsets, shift=14)
    net = IntegerNetwork((PlaneShape(channels, upscale),), (Convolution(0, kernel, stride, upscale, activation),), (1,))
    (found,) = reference.run(net, [x])
    assert found.dtype == np.int16 and np.array_equal(found, finished(sums(x, kernel, stride, upscale), activation))


@settings(deadline=None, max_examples=30)
@given(PLANES, st.integers(1, 3), st.sampled_from(["none", "relu", "leaky"]), st.integers(0, 2**31))
def test_residual(size, inner, activation, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-32768, 32768, size).astype(np.int16)
    first, second = (
        random_kernel(rng, size[2], inner, square_offsets(3), shift=14),
        random_kernel(rng, inner, size[2], square_offsets(1), shift=14),
    )
    net = IntegerNetwork((PlaneShape(size[2], 1),), (Residual(0, first, second, activation),), (1,))
    within = finished(sums(x, first, 1, 1), "leaky")
    assert np.array_equal(reference.run(net, [x])[0], finished(x + sums(within, second, 1, 1), activation))


def test_transposed_convolution_spreads_as_its_name_says():
    """Away from the edges: every input adds kernel x kernel weights, two apart (kernel 4, padding 1)."""
    rng = np.random.default_rng(3)
    weight = rng.integers(-20, 20, (4, 4))
    x = np.zeros((4, 4, 1), np.int16)
    x[2, 1] = 1
    spread = np.zeros((8, 8), int)
    spread[2 * 2 - 1 : 2 * 2 + 3, 2 * 1 - 1 : 2 * 1 + 3] = weight
    offsets = upscale_offsets(4)
    taps = [
        [weight[i + 1 - 2 * dy, j + 1 - 2 * dx] for dy, dx in offsets[2 * i + j]] for i in range(2) for j in range(2)
    ]
    kernel = Kernel(
        np.array(taps, np.int8).reshape(4, 1, 4, 1), np.zeros((4, 1), np.int32), np.zeros((4, 1), np.uint8), offsets
    )
    net = IntegerNetwork((PlaneShape(1, 2),), (Convolution(0, kernel, upscale=2),), (1,))
    assert np.array_equal(reference.run(net, [x])[0][:, :, 0], spread)


def test_worked_examples():
    """Halves up, slope 1/8, saturation, edges: numbers of the document."""

    def made(x: int, weight: int, bias: int, shift: int, activation: str = "none") -> int:
        kernel = Kernel(
            np.array(weight, np.int8).reshape(1, 1, 1, 1),
            np.array([[bias]], np.int32),
            np.array([[shift]], np.uint8),
            square_offsets(1),
        )
        net = IntegerNetwork((PlaneShape(1, 1),), (Convolution(0, kernel, activation=activation),), (1,))
        return int(reference.run(net, [np.full((1, 1, 1), x, np.int16)])[0][0, 0, 0])

    assert [made(x, 1, 0, 1) for x in (5, -5, 4, -4, 3, -3)] == [3, -2, 2, -2, 2, -1]
    assert [made(x, 1, 0, 0, "leaky") for x in (7, -3, -4, -5, -12, -13, -32768)] == [7, 0, 0, -1, -1, -2, -4096]
    assert [made(x, 127, 0, 0) for x in (300, -300)] == [32767, -32768]
    assert made(32767, 127, 0, 0, "leaky") == 32767
    assert made(-32768, 127, 0, 3, "leaky") == -32768 and made(-32768, 127, 0, 3) == -32768
    assert made(-9, 1, 0, 0, "relu") == 0 and made(10, 3, 7, 2) == 9


def test_unshuffle_concatenate_add_subtract():
    x = np.arange(2 * 4 * 3, dtype=np.int16).reshape(2, 4, 3)
    y = np.full_like(x, 32760)
    net = IntegerNetwork(
        (PlaneShape(3, 1), PlaneShape(3, 1)),
        (Unshuffle(0, 2), Concatenate((1, 0)), Add(0, 1), Subtract(0, 1), Subtract(5, 1)),
        (2, 3, 4, 5, 6),
    )
    a, b, c, d, e = reference.run(net, [x, y])
    assert np.array_equal(a[0, 1], np.concatenate([x[0, 2], x[0, 3], x[1, 2], x[1, 3]]))
    assert np.array_equal(b, np.concatenate([y, x], 2))
    assert np.array_equal(c, np.minimum(x.astype(int) + y, 32767)) and np.array_equal(d, x - y.astype(int))
    assert (e == -32768).all()


def test_pixels():
    a = np.array([0, 31, 32, -33, -32, 8127, 8160, 32767, -8192, -8161, -8160, -32768], np.int16).reshape(1, 4, 3)
    assert reference.pixels(a).ravel().tolist() == [128, 128, 129, 127, 128, 255, 255, 255, 0, 0, 1, 0]
    assert reference.pixels(a, np.full_like(a, 32767)).ravel().tolist() == [255] * 11 + [128]
    assert reference.pixels(np.full_like(a, -32768), np.full_like(a, -32768)).max() == 0
    assert np.array_equal(reference.pixel_plane(np.array([0, 128, 255], np.uint8)), np.array([-128, 0, 127], np.int16))


def test_vectors():
    """Groups side by side, maps that refine added with saturation, missing maps zero."""
    config = preset("tiny").autoencoder
    model = integer_autoencoder(random_autoencoder(config, 1))
    maps = random_code_maps(config, 32, 16, 2)
    coarse, fine = reference.vectors(model, maps, 32, 16)
    books = [book.astype(int) for book in model.codebooks]
    assert np.array_equal(coarse, books[0][maps[0]])
    assert np.array_equal(fine[..., :2], books[1][maps[1]])
    assert np.array_equal(fine[..., 2:], np.clip(books[2][maps[2]] + books[3][maps[3]], -32768, 32767))
    fewer = reference.vectors(model, maps[:2], 32, 16)
    assert (
        np.array_equal(fewer[0], coarse)
        and np.array_equal(fewer[1][..., :2], fine[..., :2])
        and not fewer[1][..., 2:].any()
    )
    assert all(x.dtype == np.int16 for x in (coarse, fine, *fewer))
    assert reference.decode(model, maps[:1], 32, 16).shape == (32, 16, 3)
