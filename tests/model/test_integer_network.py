"""What an integer network is: checks, sizes, work and reach."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.autoencoders import autoencoder_configs, integer_autoencoder, random_autoencoder, random_kernel
from vqcodec.errors import ModelError
from vqcodec.model.autoencoder import load_autoencoder
from vqcodec.model.config import AutoencoderConfig, CodeMap, preset
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

RNG = np.random.default_rng(0)
POINT = random_kernel(RNG, 3, 3, square_offsets(1))
WINDOW = random_kernel(RNG, 3, 2, square_offsets(3))


IMAGE = (PlaneShape(3, 1),)


def network(*layers, inputs=IMAGE, outputs=(-1,)) -> IntegerNetwork:
    last = len(inputs) + len(layers) - 1
    return IntegerNetwork(inputs, layers, tuple(last if o == -1 else o for o in outputs))


def test_offsets():
    assert square_offsets(1) == (((0, 0),),)
    assert square_offsets(3)[0][:4] == ((-1, -1), (-1, 0), (-1, 1), (0, -1))
    assert square_offsets(4, 2)[0][:5] == ((-1, -1), (-1, 0), (-1, 1), (-1, 2), (0, -1))
    assert square_offsets(2, 2) == (((0, 0), (0, 1), (1, 0), (1, 1)),)
    assert upscale_offsets(2) == (((0, 0),),) * 4
    assert upscale_offsets(4) == (
        ((-1, -1), (-1, 0), (0, -1), (0, 0)),
        ((-1, 0), (-1, 1), (0, 0), (0, 1)),
        ((0, -1), (0, 0), (1, -1), (1, 0)),
        ((0, 0), (0, 1), (1, 0), (1, 1)),
    )


class TestKernel:
    @pytest.mark.parametrize(
        "change, complaint",
        [
            (dict(weight=WINDOW.weight.astype(np.int16)), "expected weights of int8"),
            (dict(weight=WINDOW.weight[0]), "expected weights of int8"),
            (dict(bias=WINDOW.bias.astype(np.int64)), r"expected bias of int32 \(1, 2\), found int64"),
            (dict(bias=WINDOW.bias[:, :1]), r"expected bias of int32 \(1, 2\), found int32 \(1, 1\)"),
            (dict(shift=WINDOW.shift.astype(np.int8)), "expected shift of uint8"),
            (dict(shift=np.full((1, 2), 31, np.uint8)), "expected shifts of at most 30, found 31"),
            (dict(offsets=square_offsets(1)), "expected 9 offsets for each of 1 phases"),
            (dict(offsets=square_offsets(3) * 2), "expected 9 offsets for each of 1 phases"),
        ],
    )
    def test_checks(self, change, complaint):
        with pytest.raises(ModelError, match=complaint):
            network(Convolution(0, dataclasses.replace(WINDOW, **change)))

    @pytest.mark.parametrize("sign", [1, -1])
    def test_overflow_is_refused(self, sign):
        """32768 * sum |w| + |bias| + half: 2**31 - 1 is the most."""
        weight = np.full((1, 1, 1, 4), 127, np.int8)
        room = 2**31 - 1 - 4 * 127 * 2**15 - 2**3
        fits = Kernel(weight, np.array([[sign * room]], np.int32), np.array([[4]], np.uint8), square_offsets(1))
        fits.check("x")
        assert fits.largest_sum() == 2**31 - 1
        with pytest.raises(ModelError, match="a sum can reach 2147483648"):
            dataclasses.replace(fits, bias=fits.bias + sign).check("x")

    def test_the_least_bias_counts_in_full(self):
        kernel = Kernel(
            np.ones((1, 1, 1, 1), np.int8),
            np.array([[-(2**31)]], np.int32),
            np.zeros((1, 1), np.uint8),
            square_offsets(1),
        )
        assert kernel.largest_sum() == 2**31 + 2**15


class TestNetwork:
    @pytest.mark.parametrize(
        "layers, complaint",
        [
            ([Convolution(1, POINT)], "layer 0: expected sources among 1 planes, found 1"),
            ([Convolution(-1, POINT)], "found -1"),
            ([Convolution(0, random_kernel(RNG, 4, 3, square_offsets(1)))], "expected 3 inputs, found 4"),
            ([Convolution(0, POINT, stride=2, upscale=2)], "expected a stride, or an upscale"),
            ([Convolution(0, POINT, stride=0)], "expected a stride, or an upscale"),
            ([Convolution(0, random_kernel(RNG, 3, 3, square_offsets(1) * 4), upscale=2)], "an upscale that divides 1"),
            (
                [Unshuffle(0, 2), Convolution(1, random_kernel(RNG, 12, 3, square_offsets(1)), upscale=2)],
                "expected 4 phases, found 1",
            ),
            ([Convolution(0, POINT, activation="tanh")], "expected an activation"),
            ([Residual(0, WINDOW, POINT)], "second: expected 2 inputs, found 3"),
            ([Residual(0, WINDOW, random_kernel(RNG, 2, 4, square_offsets(1)))], "expected 3 channels to add, found 4"),
            ([Unshuffle(0, 0)], "expected a factor of at least 1"),
            ([Concatenate(())], "expected at least one source"),
            ([Unshuffle(0, 2), Concatenate((0, 1))], "expected planes of one stride"),
            ([Convolution(0, WINDOW), Add(0, 1)], "expected two planes of 3 channels, found 2"),
            ([Convolution(0, WINDOW), Subtract(1, 0)], "expected two planes of 2 channels, found 3"),
        ],
    )
    def test_checks(self, layers, complaint):
        with pytest.raises(ModelError, match=complaint):
            network(*layers)

    def test_inputs_and_outputs_are_checked(self):
        with pytest.raises(ModelError, match="input 0"):
            network(inputs=(PlaneShape(0, 1),), outputs=())
        with pytest.raises(ModelError, match="outputs among 1 planes, found 1"):
            network(outputs=(1,))

    def test_planes_sizes_and_work(self):
        found = network(
            Unshuffle(0, 4),
            Convolution(1, random_kernel(RNG, 48, 3, square_offsets(1))),
            Residual(2, WINDOW, random_kernel(RNG, 2, 3, square_offsets(1))),
            Convolution(3, random_kernel(RNG, 3, 5, upscale_offsets(4)), upscale=2),
        )
        assert found.planes() == [
            PlaneShape(3, 1),
            PlaneShape(48, 4),
            PlaneShape(3, 4),
            PlaneShape(3, 4),
            PlaneShape(5, 2),
        ]
        assert found.sizes(8, 12) == [(8, 12, 3), (2, 3, 48), (2, 3, 3), (2, 3, 3), (4, 6, 5)]
        assert found.macs() == (48 * 3 + 3 * 2 * 9 + 2 * 3 + 4 * 5 * 4 * 3) / 16
        with pytest.raises(ValueError, match="multiple of 4, got 8 x 10"):
            found.sizes(8, 10)

    @pytest.mark.parametrize(
        "layers, reach",
        [
            ([], 0),
            ([Unshuffle(0, 8)], 0),
            ([Convolution(0, WINDOW)], 1),
            ([Convolution(0, POINT), Convolution(1, WINDOW)], 1),
            ([Convolution(0, WINDOW), Convolution(1, random_kernel(RNG, 2, 3, square_offsets(5)))], 3),
            ([Convolution(0, random_kernel(RNG, 3, 3, square_offsets(4, 2)), stride=2)], 1),
            ([Convolution(0, random_kernel(RNG, 3, 3, square_offsets(2, 2)), stride=2)], 0),
            ([Convolution(0, random_kernel(RNG, 3, 3, square_offsets(4, 2)), stride=2), Convolution(1, WINDOW)], 3),
            (
                [
                    Unshuffle(0, 4),
                    Convolution(1, random_kernel(RNG, 48, 3, upscale_offsets(4)), upscale=2),
                    Convolution(2, WINDOW),
                ],
                8,
            ),
        ],
    )
    def test_reach(self, layers, reach):
        assert network(*layers).reach() == reach

    @pytest.mark.slow
    @settings(deadline=None, max_examples=20)
    @given(autoencoder_configs(), st.integers(0, 2**31))
    def test_nothing_beyond_the_reach_matters(self, config, seed):
        """Every network of a random autoencoder: a box of the outputs, given what box and reach hold."""
        model = integer_autoencoder(random_autoencoder(config, seed, gain=1.0))
        unit, rng = config.strides[0], np.random.default_rng(seed)
        for net in (model.analysis, *model.latent.values(), model.synthesis):
            margin = -(-net.reach() // unit) * unit
            size = unit + 2 * margin
            wide = size + 2 * unit  # the window, and as much around it that must not matter
            planes = [
                rng.integers(-2000, 2000, (wide // p.stride, wide // p.stride, p.channels)).astype(np.int16)
                for p in net.inputs
            ]
            changed = [rng.integers(-2000, 2000, x.shape).astype(np.int16) for x in planes]
            for x, y, p in zip(planes, changed, net.inputs):
                inside = slice(unit // p.stride, (unit + size) // p.stride)
                y[inside, inside] = x[inside, inside]
            low = unit + margin
            for a, b, output in zip(reference.run(net, planes), reference.run(net, changed), net.outputs):
                stride = net.planes()[output].stride
                box = slice(low // stride, (low + unit) // stride)
                assert np.array_equal(a[box, box], b[box, box])


class TestAutoencoder:
    CONFIG = preset("tiny").autoencoder

    def tensors(self) -> dict[str, np.ndarray]:
        return random_autoencoder(self.CONFIG, 0, gain=1.0).export()

    def test_every_tensor_is_needed_and_checked(self):
        tensors = self.tensors()
        load_autoencoder(self.CONFIG, tensors)
        for name, array in tensors.items():
            for wrong in (array.astype(np.float32), array[..., :-1], array[None]):
                with pytest.raises(ModelError, match=f"{name}: expected"):
                    load_autoencoder(self.CONFIG, tensors | {name: wrong})
            with pytest.raises(ModelError, match=f"{name}' is missing"):
                load_autoencoder(self.CONFIG, {other: a for other, a in tensors.items() if other != name})
        with pytest.raises(ModelError, match="unexpected tensors extra"):
            load_autoencoder(self.CONFIG, tensors | {"extra": np.zeros(1)})

    def test_overflow_and_shifts_are_refused(self):
        tensors = self.tensors()
        with pytest.raises(ModelError, match="patch: a sum can reach"):
            load_autoencoder(self.CONFIG, tensors | {"patch.weight": np.full_like(tensors["patch.weight"], -128)})
        with pytest.raises(ModelError, match="patch: expected shifts"):
            load_autoencoder(self.CONFIG, tensors | {"patch.shift": np.full_like(tensors["patch.shift"], 31)})

    @pytest.mark.parametrize(
        "config",
        [
            AutoencoderConfig(maps=(CodeMap(8, 1), CodeMap(4, 1))),
            AutoencoderConfig(maps=(CodeMap(32, 1), CodeMap(8, 1))),
            AutoencoderConfig(maps=(CodeMap(1, 1),), transform="conv"),
            AutoencoderConfig(maps=(CodeMap(8, 1),), transform="conv", encoder_kernel=2),
            AutoencoderConfig(maps=(CodeMap(8, 1),), transform="conv", upsample_kernel=3),
        ],
    )
    def test_networks_that_there_cannot_be(self, config):
        with pytest.raises(ModelError, match="autoencoder: expected"):
            load_autoencoder(config, {})

    def test_work_and_reach_of_the_default_model(self):
        """Numbers that others rely on: the decoder's limit is 40,000 multiply-accumulates a pixel."""
        from training.networks.autoencoder import Autoencoder

        config = preset("default").autoencoder
        model = load_autoencoder(config, Autoencoder(config).export())
        assert round(model.analysis.macs()) == 10954
        assert round(model.synthesis.macs()) == 24890
        assert (model.analysis.reach(), model.latent[16].reach(), model.latent[8].reach(), model.synthesis.reach()) == (
            40,
            0,
            0,
            96,
        )
