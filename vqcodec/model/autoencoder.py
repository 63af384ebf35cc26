"""The exported integer autoencoder: networks between pixels and latents, built from a description and named arrays.

NumPy only. This is what a model file holds and what every backend executes. With the strides 16 and 8, and
latents and vectors of fraction LATENT:

    pixels -> analysis -> features 16, 8
    features 16                      -> latent[16] -> what the maps of stride 16 quantise
    features 8, vectors 16           -> latent[8]  -> what the maps of stride 8 quantise
    vectors 16, vectors 8            -> synthesis  -> one or two planes that add up to the pixels
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vqcodec.errors import ModelError
from vqcodec.model.config import AutoencoderConfig
from vqcodec.model.integer_network import (
    Activation,
    Add,
    Concatenate,
    Convolution,
    IntegerNetwork,
    Kernel,
    Layer,
    Offsets,
    PlaneShape,
    Residual,
    Subtract,
    Unshuffle,
    square_offsets,
    upscale_offsets,
)

#: Side of the blocks of the lapped transform, in pixels.
BLOCK = 8


@dataclass(frozen=True)
class IntegerAutoencoder:
    """Codebooks and networks. Built by :func:`load_autoencoder`, which checks everything.

    Planes of pixels hold pixel - 128. Where networks take the vectors of several strides they come coarse to fine.
    """

    config: AutoencoderConfig
    codebooks: tuple[np.ndarray, ...]  #: for each map int16, K x dim
    code_lengths: tuple[np.ndarray, ...]  #: for each map uint8, levels x K: eighths of a bit
    analysis: IntegerNetwork  #: pixels -> features for each stride, coarse to fine
    latent: Mapping[
        int, IntegerNetwork
    ]  #: by stride: its features, vectors of all coarser strides -> what its maps quantise
    synthesis: IntegerNetwork  #: vectors of all strides -> one or two planes that add up to the pixels

    @property
    def encoder_reach(self) -> int:
        """How many pixels beside a box of latents the pixels, and the codes of coarser maps, matter at most.

        For boxes that begin and end at multiples of the coarsest stride, or with the image.
        """
        return max(network.reach() for network in self.latent.values()) + self.analysis.reach()

    @property
    def decoder_reach(self) -> int:
        """How many pixels beside a box of pixels the codes matter, at most; for boxes as above."""
        return self.synthesis.reach()


def load_autoencoder(config: AutoencoderConfig, tensors: Mapping[str, np.ndarray]) -> IntegerAutoencoder:
    """The autoencoder of a description from its named arrays (docs/FORMAT.md, "Model file").

    Raises :class:`ModelError` if there is no such network, if an array is missing, superfluous, of another type
    or shape than the description says, or if a sum could leave int32.
    """
    _check(config)
    left = dict(tensors)

    def take(name: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
        if name not in left:
            raise ModelError(f"autoencoder: tensor {name!r} is missing")
        array = left.pop(name)
        if array.dtype != dtype or array.shape != shape:
            raise ModelError(
                f"autoencoder: {name}: expected {np.dtype(dtype)} {shape}, found {array.dtype} {array.shape}"
            )
        return np.ascontiguousarray(array)

    known: dict[str, Kernel] = {}

    def kernel(name: str, inputs: int, outputs: int, offsets: Offsets) -> Kernel:
        if name not in known:  # some serve in two networks
            phases = len(offsets)
            known[name] = Kernel(
                take(f"{name}.weight", np.int8, (phases, outputs, len(offsets[0]), inputs)),
                take(f"{name}.bias", np.int32, (phases, outputs)),
                take(f"{name}.shift", np.uint8, (phases, outputs)),
                offsets,
            )
            known[name].check(f"autoencoder: {name}")
        return known[name]

    codebooks = tuple(take(f"codebook.{m}", np.int16, (part.codes, part.dim)) for m, part in enumerate(config.maps))
    lengths = tuple(
        take(f"code_lengths.{m}", np.uint8, (config.levels, part.codes)) for m, part in enumerate(config.maps)
    )
    networks = {"lapped": _lapped, "conv": _conv}[config.transform](config, kernel)
    if left:
        raise ModelError(f"autoencoder: unexpected tensors {', '.join(sorted(left))}")
    return IntegerAutoencoder(config, codebooks, lengths, *networks)


def _check(config: AutoencoderConfig) -> None:
    """Raise :class:`ModelError` unless the transform can have these strides and windows."""
    strides = config.strides
    if config.transform == "lapped":
        expected = tuple(BLOCK << n for n in reversed(range(len(strides))))
        if strides != expected:
            raise ModelError(f"autoencoder: expected strides {expected} of the lapped transform, found {strides}")
    elif strides[-1] == 1 or config.encoder_kernel % 2 == 0 or config.upsample_kernel % 2:
        raise ModelError(
            "autoencoder: expected a finest stride of at least 2, an odd encoder_kernel and an even upsample_kernel, "
            f"found {strides[-1]}, {config.encoder_kernel} and {config.upsample_kernel}"
        )


Networks = tuple[IntegerNetwork, dict[int, IntegerNetwork], IntegerNetwork]
GetKernel = Callable[[str, int, int, Offsets], Kernel]


class _Builder:
    """A network in the making: every method adds layers and returns the number of the plane that they make."""

    def __init__(self, kernel: GetKernel, *inputs: PlaneShape) -> None:
        self.kernel, self.inputs = kernel, inputs
        self.channels = [shape.channels for shape in inputs]
        self.layers: list[Layer] = []

    def add(self, layer: Layer, channels: int) -> int:
        self.layers.append(layer)
        self.channels.append(channels)
        return len(self.channels) - 1

    def convolution(
        self,
        name: str,
        source: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        upscale: int = 1,
        activation: Activation = "none",
    ) -> int:
        """A window of kernel x kernel; ``upscale``: the same one for each position of a block."""
        offsets = square_offsets(kernel, stride) * upscale**2
        parameters = self.kernel(name, self.channels[source], outputs, offsets)
        return self.add(Convolution(source, parameters, stride, upscale, activation), outputs)

    def transposed(self, name: str, source: int, outputs: int, kernel: int, *, activation: Activation = "none") -> int:
        """Twice as many rows and columns."""
        parameters = self.kernel(name, self.channels[source], outputs, upscale_offsets(kernel))
        return self.add(Convolution(source, parameters, upscale=2, activation=activation), outputs)

    def residual_stack(
        self, name: str, source: int, inner: int, blocks: int, *, activation: Activation = "none"
    ) -> int:
        """The last block ends with the activation; without blocks nothing is added."""
        channels = self.channels[source]
        for number in range(blocks):
            first = self.kernel(f"{name}.{number}.conv1", channels, inner, square_offsets(3))
            second = self.kernel(f"{name}.{number}.conv2", inner, channels, square_offsets(1))
            last = number == blocks - 1
            source = self.add(Residual(source, first, second, activation if last else "none"), channels)
        return source

    def build(self, *outputs: int) -> IntegerNetwork:
        return IntegerNetwork(self.inputs, tuple(self.layers), outputs)


def _vectors(config: AutoencoderConfig, strides: tuple[int, ...]) -> list[PlaneShape]:
    return [PlaneShape(config.latent_dim(stride), stride) for stride in strides]


def _lapped(config: AutoencoderConfig, kernel: GetKernel) -> Networks:
    strides, c = config.strides, config.hidden
    b = _Builder(kernel, PlaneShape(3, 1))
    h = b.convolution("patch", b.add(Unshuffle(0, BLOCK), 3 * BLOCK**2), c, 3)
    h = b.residual_stack("encoder", h, config.residual, config.encoder_blocks)
    features = [b.convolution("to_latent", h, config.latent_dim(BLOCK), 1)]
    for stride in reversed(strides[:-1]):
        features.insert(0, b.convolution(f"down.{stride}", features[0], config.latent_dim(stride), 2, stride=2))
    analysis = b.build(*features)

    def context(b: _Builder, planes: list[int], strides: tuple[int, ...]) -> int:
        """What the vectors of ``strides`` say about the stride below the last of them."""
        merged = planes[0]
        for number, (stride, plane) in enumerate(zip(strides, planes)):
            if number:
                merged = b.add(Add(merged, plane), b.channels[plane])
            merged = b.transposed(f"up.{stride}", merged, config.latent_dim(stride // 2), 2)
        return merged

    latent = {}
    for number, stride in enumerate(strides):
        b = _Builder(kernel, PlaneShape(config.latent_dim(stride), stride), *_vectors(config, strides[:number]))
        z = 0
        if number:
            above = context(b, list(range(1, number + 1)), strides[:number])
            z = b.add(Subtract(0, above), config.latent_dim(stride))
        latent[stride] = b.build(z)

    b = _Builder(kernel, *_vectors(config, strides))
    h = len(strides) - 1
    if h:
        h = b.add(Add(context(b, list(range(h)), strides[:-1]), h), config.latent_dim(BLOCK))
    h = b.convolution("from_latent", h, c, 1)
    h = b.residual_stack("decoder", h, config.residual, config.decoder_blocks)
    linear = b.convolution("unpatch", h, 3, 3, upscale=BLOCK)
    blocks = config.refine_blocks
    fine = b.convolution("refine_in", h, config.refine, 1, upscale=2, activation="none" if blocks else "leaky")
    fine = b.residual_stack("refine", fine, config.refine, blocks, activation="leaky")
    return analysis, latent, b.build(linear, b.convolution("refine_out", fine, 3, 3, upscale=BLOCK // 2))


def _conv(config: AutoencoderConfig, kernel: GetKernel) -> Networks:
    strides, c, resize = config.strides, config.hidden, config.upsample_kernel

    def plain_and_blocks(b: _Builder, name: str, source: int, blocks: int) -> int:
        h = b.convolution(f"{name}.plain", source, c, config.encoder_kernel, activation="none" if blocks else "relu")
        return b.residual_stack(f"{name}.blocks", h, config.residual, blocks, activation="relu")

    def decoder(b: _Builder, name: str, source: int, outputs: int, factor: int) -> int:
        h = plain_and_blocks(b, name, source, config.decoder_blocks)
        steps = factor.bit_length() - 1
        for i in range(steps):
            last = i == steps - 1
            h = b.transposed(
                f"{name}.resize.{i}", h, outputs if last else c, resize, activation="none" if last else "relu"
            )
        return h

    def context(b: _Builder, planes: list[int], strides: tuple[int, ...]) -> int:
        """The vectors of ``strides``, as large as those of the last and side by side."""
        merged = planes[0]
        for above, stride, plane in zip(strides, strides[1:], planes[1:]):
            for i in range((above // stride).bit_length() - 1):
                merged = b.transposed(f"upsample.{above}.{i}", merged, b.channels[merged], resize)
            merged = b.add(Concatenate((merged, plane)), b.channels[merged] + b.channels[plane])
        return merged

    b = _Builder(kernel, PlaneShape(3, 1))
    h, below = 0, 1
    features: list[int] = []
    for stride in reversed(strides):
        for i in range((stride // below).bit_length() - 1):
            h = b.convolution(f"encoders.{stride}.resize.{i}", h, c, resize, stride=2, activation="relu")
        h = plain_and_blocks(b, f"encoders.{stride}", h, config.encoder_blocks)
        features.insert(0, h)
        below = stride
    analysis = b.build(*features)

    latent = {}
    for number, stride in enumerate(strides):
        b = _Builder(kernel, PlaneShape(c, stride), *_vectors(config, strides[:number]))
        h = 0
        if number:
            above = strides[number - 1]
            decoded = decoder(
                b, f"decoders.{above}", context(b, list(range(1, number + 1)), strides[:number]), c, above // stride
            )
            h = b.add(Concatenate((decoded, 0)), 2 * c)
        latent[stride] = b.build(b.convolution(f"to_latent.{stride}", h, config.latent_dim(stride), 1))

    b = _Builder(kernel, *_vectors(config, strides))
    merged = context(b, list(range(len(strides))), strides)
    return analysis, latent, b.build(decoder(b, "output", merged, 3, strides[-1]))
