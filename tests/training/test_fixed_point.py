"""Quantised fixed-point modules compute, in float64, the very numbers of the integer networks that they export."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support.autoencoders import (
    autoencoder_configs,
    integer_autoencoder,
    random_autoencoder,
    random_code_maps,
    random_images,
)
from training.networks import fixed_point
from training.networks.fixed_point import FixedConv2d, FixedConvTranspose2d, Format, Plane, ResidualBlock, calibrate
from vqcodec.model.integer_network import (
    Activation,
    Convolution,
    IntegerNetwork,
    Kernel,
    Layer,
    PlaneShape,
    Residual,
    Unshuffle,
    square_offsets,
)
from vqcodec.ops.reference import integer_network as reference


def to_integers(plane: Plane) -> np.ndarray:
    """H x W x C int16 of the first of the batch."""
    exact = plane.values[0].detach().permute(1, 2, 0).numpy() * 2.0**plane.fraction
    assert np.array_equal(exact, np.round(exact))
    assert exact.min() >= -32768 and exact.max() <= 32767
    return exact.astype(np.int16)


def plane_of(x: np.ndarray, fraction: int) -> Plane:
    values = torch.from_numpy(x.astype(np.float64)).permute(2, 0, 1)[None] / 2.0**fraction
    return Plane(values, Format(fraction), True)


def randomised(module: nn.Module, seed: int, scale: float) -> nn.Module:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=scale)
    return module.double()


def check(layer: Layer, x: np.ndarray, made: Plane) -> None:
    stride = layer.upscale if isinstance(layer, Convolution) else 1
    net = IntegerNetwork((PlaneShape(x.shape[2], stride),), (layer,), (1,))
    assert np.array_equal(reference.run(net, [x])[0], to_integers(made))


def kernel_of(exported: dict[str, np.ndarray], offsets) -> Kernel:
    return Kernel(exported["weight"], exported["bias"], exported["shift"], offsets)


LAYER = dict(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    inputs=st.integers(1, 4),
    outputs=st.integers(1, 3),
    fractions=st.tuples(st.integers(4, 14), st.integers(0, 12)),
    scale=st.sampled_from([1e-5, 0.05, 1.0, 8.0]),
    activation=st.sampled_from(["none", "relu", "leaky"]),
    seed=st.integers(0, 2**31),
)


def drawn(seed: int, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(0, rng.choice([50, 5000, 40000]), shape), -32768, 32767).astype(np.int16)


@settings(deadline=None, max_examples=60)
@given(
    **LAYER,
    kind=st.sampled_from([(1, 1, 1), (3, 1, 1), (5, 1, 1), (2, 2, 1), (4, 2, 1), (1, 1, 2), (3, 1, 2), (3, 1, 4)]),
)
def test_convolution(rows, columns, inputs, outputs, fractions, scale, activation: Activation, seed, kind):
    kernel, stride, upscale = kind
    read, made = fractions
    conv = randomised(FixedConv2d(inputs, outputs, kernel, stride=stride, upscale=upscale, fraction=made), seed, scale)
    x = drawn(seed, rows * stride, columns * stride, inputs)
    parameters = kernel_of(conv.export(read, made), conv.offsets * upscale**2)
    check(Convolution(0, parameters, stride, upscale, activation), x, conv(plane_of(x, read), activation))


@settings(deadline=None, max_examples=40)
@given(**LAYER, kernel=st.sampled_from([2, 4, 6]))
def test_transposed_convolution(rows, columns, inputs, outputs, fractions, scale, activation: Activation, seed, kernel):
    read, made = fractions
    conv = randomised(FixedConvTranspose2d(inputs, outputs, kernel, fraction=made), seed, scale)
    x = drawn(seed, rows, columns, inputs)
    parameters = kernel_of(conv.export(read, made), conv.offsets)
    check(Convolution(0, parameters, upscale=2, activation=activation), x, conv(plane_of(x, read), activation))


@settings(deadline=None, max_examples=40)
@given(**LAYER)
def test_residual(rows, columns, inputs, outputs, fractions, scale, activation: Activation, seed):
    read, inner = fractions
    block = randomised(ResidualBlock(inputs, outputs, zero=False), seed, scale)
    block.conv1.format.fraction.fill_(inner)
    x = drawn(seed, rows, columns, inputs)
    first = kernel_of(block.conv1.export(read, inner), square_offsets(3))
    second = kernel_of(block.conv2.export(inner, read), square_offsets(1))
    check(Residual(0, first, second, activation), x, block(plane_of(x, read), activation))


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_shuffles_have_the_order_of_the_integer_network(rows, columns, channels, factor):
    x = drawn(1, rows * factor, columns * factor, channels)
    values = fixed_point.unshuffle(plane_of(x, 8).values, factor)
    assert np.array_equal(reference.apply(Unshuffle(0, factor), [x]), to_integers(Plane(values, Format(8), True)))
    assert torch.equal(fixed_point.shuffle(values, factor), plane_of(x, 8).values)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    autoencoder_configs(), st.integers(1, 2), st.integers(1, 3), st.integers(0, 2**31), st.sampled_from([0.5, 1.0, 2.0])
)
def test_autoencoder(config, rows, columns, seed, gain):
    """Every network of it: features, latents given the vectors of coarser maps, synthesis, pixels."""
    model = random_autoencoder(config, seed, gain=gain)
    exported = integer_autoencoder(model)
    image = random_images(config, rows, columns, seed)
    height, width = image.shape[:2]
    maps = random_code_maps(config, height, width, seed)
    codes = [torch.from_numpy(m)[None] for m in maps]
    vectors = reference.vectors(exported, maps, height, width)
    features = reference.run(exported.analysis, [reference.pixel_plane(image)])
    with torch.no_grad():
        x = torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255
        found = model.analysis(x)
        for number, stride in enumerate(config.strides):
            assert np.array_equal(features[number], to_integers(found[stride]))
            context = model.context(codes, config.strides[:number])
            (latent,) = reference.run(exported.latent[stride], [features[number], *vectors[:number]])
            assert np.array_equal(latent, to_integers(model.transform.latent(stride, found, context)))
        planes = [to_integers(plane) for plane in model.transform.synthesis(model.context(codes, config.strides))]
        decoded = model.decode(codes)
    made = reference.run(exported.synthesis, vectors)
    assert len(made) == len(planes) and all(np.array_equal(a, b) for a, b in zip(made, planes))
    grey = (decoded[0] * 255).permute(1, 2, 0).numpy()
    assert np.array_equal(np.rint(grey), reference.pixels(*made)) and np.abs(grey - np.rint(grey)).max() < 1e-9


class TestExponents:
    def test_the_largest_that_fits(self):
        weight = torch.tensor([[127.0 / 64], [127.01 / 64], [1.0], [0.0], [1e-9]]).double()
        assert fixed_point.exponents(weight, torch.zeros(5).double(), 8, 8).tolist() == [6, 5, 6, 16, 16]

    def test_shifts_stay_between_0_and_30(self):
        weight = torch.tensor([[100.0], [1e-9]]).double()
        assert fixed_point.exponents(weight, torch.zeros(2).double(), 8, 12).tolist() == [4, 16]
        assert fixed_point.exponents(weight, torch.zeros(2).double(), 14, 0).tolist() == [0, 16]
        assert fixed_point.exponents(weight, torch.zeros(2).double(), 14, -2).tolist() == [0, 14]

    def test_sums_that_would_overflow_lower_it(self):
        weight = torch.full((1, 2000), 0.9).double()
        p = fixed_point.exponents(weight, torch.zeros(1).double(), 8, 8)
        assert p == 5  # 2000 * round(0.9 * 2**p) * 2**15 < 2**31 only up to 2000 * 29
        assert (
            fixed_point.exponents(weight[:, :1], torch.tensor([2.0**14]).double(), 11, 8) == 5
        )  # the bias's 2**(14 + p + 11)

    def test_single_and_double_precision_agree(self):
        """A network trained in float32 and its float64 twin store the same weights."""
        conv = randomised(FixedConv2d(7, 50, 3), 0, 0.3).float()
        twin = FixedConv2d(7, 50, 3).double()
        twin.load_state_dict(conv.state_dict())
        for a, b in zip(conv.export(9, 8).values(), twin.export(9, 8).values()):
            assert np.array_equal(a, b)


class TestFormats:
    def test_calibration_leaves_room_for_twice_what_it_saw(self):
        conv = FixedConv2d(1, 1, 1)
        with torch.no_grad():
            conv.weight.fill_(1)
            conv.bias.zero_()
        for largest, fraction in ((1.0, 13), (0.9, 14), (1e-9, 14), (7.9, 11), (1e9, 0)):
            calibrate(conv, lambda: conv(Plane(torch.full((1, 1, 1, 1), largest), Format(8), False)))
            assert int(conv.format.fraction) == fraction

    def test_streams_are_measured_to_their_end(self):
        block, conv = ResidualBlock(1, 1, zero=False), FixedConv2d(1, 1, 1)
        with torch.no_grad():
            for parameter in (*block.parameters(), *conv.parameters()):
                parameter.fill_(1.0)
        net = nn.Sequential(conv, block)
        calibrate(net, lambda: net(Plane(torch.ones(1, 1, 1, 1), Format(8), False)))
        assert int(conv.format.fraction) == 9  # 2 enters, 2 + 1 + 9 * 2 + 1 leaves

    def test_fixed_formats_stay_and_checkpoints_keep_the_others(self):
        conv, fixed = FixedConv2d(1, 1, 1), FixedConv2d(1, 1, 1, fraction=11)
        for module in (conv, fixed):
            calibrate(module, lambda: module(Plane(torch.ones(1, 1, 1, 1) * 1000, Format(8), False)))
        assert int(fixed.format.fraction) == 11
        other = FixedConv2d(1, 1, 1)
        other.load_state_dict(conv.state_dict())
        assert int(other.format.fraction) == int(conv.format.fraction) != fixed_point.START_FRACTION

    def test_planes_of_different_formats_do_not_mix(self):
        a, b = plane_of(np.zeros((1, 1, 1), np.int16), 8), plane_of(np.zeros((1, 1, 1), np.int16), 9)
        for combine in (fixed_point.add, fixed_point.subtract, fixed_point.concatenate):
            with pytest.raises(ValueError, match="fractions 8 and 9"):
                combine(a, b)


class TestGradients:
    def gradient(self, sums: Tensor, activation: Activation) -> list[float]:
        sums.requires_grad_()
        Format(8).plane(sums, True, activation).values.sum().backward()
        assert sums.grad is not None
        return sums.grad.tolist()

    def test_they_pass_roundings_and_stop_at_saturation(self):
        values = [0.3001, -0.3001, 200.0, -200.0, -2000.0]
        assert self.gradient(torch.tensor(values), "none") == [1, 1, 0, 0, 0]
        assert self.gradient(torch.tensor(values), "relu") == [1, 0, 0, 0, 0]
        assert self.gradient(torch.tensor(values), "leaky") == [1, 0.125, 0, 0.125, 0]

    def test_a_stream_passes_them_to_both(self):
        base = torch.tensor([1.0], requires_grad=True)
        sums = torch.tensor([0.1], requires_grad=True)
        Format(8).plane(sums, True, "none", base).values.sum().backward()
        assert base.grad == 1 and sums.grad == 1

    def test_quantised_and_float_gradients_are_alike(self):
        torch.manual_seed(0)
        block = ResidualBlock(4, 6, zero=False)
        found = []
        for quantized in (False, True):
            x = torch.linspace(-1, 1, 4 * 36).reshape(1, 4, 6, 6).requires_grad_()
            block.zero_grad()
            block(Plane(x, Format(11), quantized)).values.square().sum().backward()
            found.append(torch.cat([x.grad.flatten(), *(p.grad.flatten() for p in block.parameters())]))
        assert torch.cosine_similarity(*found, dim=0) > 0.999
