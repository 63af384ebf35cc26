"""The networks around the quantisers: pixels -> latents -> pixels, in fixed point.

A transform offers

    analysis(x)                        pixels -> features per stride
    latent(stride, features, context)  what the maps of this stride quantise
    merge(stride, context, vectors)    context after the maps of this stride
    synthesis(context)                 -> one or two planes whose sum is the pixels
    convolutions()                     all of them, with their names in a model file

and the autoencoder walks the strides from coarse to fine:

    x -> analysis -> latent(16) -> quantise -> merge -+-> latent(8) -> quantise -> merge -> synthesis -> x
                                                      '--- context ---^

Pixel planes hold (pixel - 128) / 256, B x 3 x H x W, with H and W multiples of the largest stride. Latents,
vectors and contexts have the format LATENT. The names of the modules are those of the tensors in a model file.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.networks.fixed_point import (
    FixedConv2d,
    FixedConvTranspose2d,
    Format,
    Plane,
    ResidualBlock,
    add,
    align,
    concatenate,
    subtract,
    unshuffle,
    zero_convolution,
)
from vqcodec.model.config import AutoencoderConfig
from vqcodec.model.integer_network import LATENT, PIXELS_IN, PIXELS_OUT, Activation


@dataclass(frozen=True)
class Named:
    """A convolution, its name in a model file, and the fractions of the planes that it reads and makes."""

    name: str
    convolution: FixedConv2d | FixedConvTranspose2d
    read: int
    made: int


def named(name: str, convolution: FixedConv2d | FixedConvTranspose2d, read: int) -> Named:
    """For a convolution that makes a plane of its own."""
    return Named(name, convolution, read, int(convolution.format.fraction))


class ResidualStack(nn.ModuleList):
    """Residual blocks one after the other; the last one ends with an activation."""

    def __init__(self, channels: int, inner: int, blocks: int, *, zero: bool) -> None:
        super().__init__(ResidualBlock(channels, inner, zero=zero) for _ in range(blocks))

    def forward(self, x: Plane, activation: Activation = "none") -> Plane:
        for number, block in enumerate(self, 1):
            x = block(x, activation if number == len(self) else "none")
        return x

    def convolutions(self, name: str, fraction: int) -> Iterator[Named]:
        """``fraction``: of the plane that enters and of all that the blocks make."""
        for number, block in enumerate(self):
            assert isinstance(block, ResidualBlock)
            first = named(f"{name}.{number}.conv1", block.conv1, fraction)
            yield first
            yield Named(f"{name}.{number}.conv2", block.conv2, first.made, fraction)


class LappedTransform(nn.Module):
    """3x3 convolutions over 8x8 blocks, started as the KLT of image patches.

    The synthesis is a linear 24x24 window per block (a lapped transform once trained)
    plus a filter at a quarter of the resolution that sees the features.
    """

    block = 8

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        c, inner, pixels = config.hidden, config.residual, 3 * self.block**2
        self.latent_dim = config.latent_dim(self.block)
        self.patch = FixedConv2d(pixels, c, 3)
        self.encoder = ResidualStack(c, inner, config.encoder_blocks, zero=True)
        self.to_latent = FixedConv2d(c, self.latent_dim, 1, fraction=LATENT)
        # Each coarser stride takes a 2x2 block of the latent tensor below it.
        self.down: MutableMapping[str, FixedConv2d] = nn.ModuleDict()  # type: ignore[assignment]  # what it holds
        self.up: MutableMapping[str, FixedConvTranspose2d] = nn.ModuleDict()  # type: ignore[assignment]  # what it holds
        below = self.latent_dim
        for stride in reversed(config.strides[:-1]):
            dim = config.latent_dim(stride)
            self.down[str(stride)] = FixedConv2d(below, dim, 2, stride=2, fraction=LATENT)
            self.up[str(stride)] = FixedConvTranspose2d(dim, below, 2, fraction=LATENT)
            below = dim
        self.from_latent = FixedConv2d(self.latent_dim, c, 1)
        self.decoder = ResidualStack(c, inner, config.decoder_blocks, zero=True)
        self.unpatch = FixedConv2d(c, 3, 3, upscale=self.block, fraction=PIXELS_OUT)
        r = config.refine
        self.refine_in = FixedConv2d(c, r, 1, upscale=2)
        self.refine = ResidualStack(r, r, config.refine_blocks, zero=True)
        self.refine_out = FixedConv2d(r, 3, 3, upscale=self.block // 2, fraction=PIXELS_OUT)
        zero_convolution(self.refine_out)

    def analysis(self, x: Plane) -> dict[int, Plane]:
        blocks = Plane(unshuffle(x.values, self.block), x.format, x.quantized)
        latent = self.to_latent(self.encoder(self.patch(blocks)))
        latents = {self.block: latent}
        for stride, down in self.down.items():
            latent = latents[int(stride)] = down(latent)
        return latents

    def latent(self, stride: int, features: dict[int, Plane], context: Plane | None) -> Plane:
        return features[stride] if context is None else subtract(features[stride], context)

    def merge(self, stride: int, context: Plane | None, vectors: Plane) -> Plane:
        merged = vectors if context is None else add(context, vectors)
        return self.up[str(stride)](merged) if str(stride) in self.up else merged

    def synthesis(self, context: Plane) -> tuple[Plane, ...]:
        h = self.decoder(self.from_latent(context))
        last: Activation = "leaky"
        fine = self.refine(self.refine_in(h, "none" if len(self.refine) else last), last)
        return self.unpatch(h), self.refine_out(fine)

    def align_formats(self) -> None:
        """Nothing is concatenated."""

    def convolutions(self) -> Iterator[Named]:
        features, h, fine = (int(conv.format.fraction) for conv in (self.patch, self.from_latent, self.refine_in))
        yield named("patch", self.patch, PIXELS_IN)
        yield from self.encoder.convolutions("encoder", features)
        yield named("to_latent", self.to_latent, features)
        for s, down in self.down.items():
            yield named(f"down.{s}", down, LATENT)
        for s, up in self.up.items():
            yield named(f"up.{s}", up, LATENT)
        yield named("from_latent", self.from_latent, LATENT)
        yield from self.decoder.convolutions("decoder", h)
        yield named("unpatch", self.unpatch, h)
        yield named("refine_in", self.refine_in, h)
        yield from self.refine.convolutions("refine", fine)
        yield named("refine_out", self.refine_out, fine)

    @torch.no_grad()
    def widen(self, x: Plane, dim: int) -> None:
        """Let the finest latents from channel ``dim`` on, which are zero, tell what the others leave out of ``x``.

        A reduced-rank regression: the directions of the missing pixels that the encoder's features predict best.
        """
        features = self.encoder(self.patch(Plane(unshuffle(x.values, self.block), x.format, False)))
        planes = self.synthesis(self.to_latent(features))
        missing = unshuffle(x.values - sum(plane.values for plane in planes), self.block)
        h, wanted = (part.permute(0, 2, 3, 1).flatten(0, 2).double() for part in (features.values, missing))
        gram = h.t() @ h
        gram.diagonal().add_(1e-6 * gram.trace())
        predictor = torch.linalg.solve(gram, h.t() @ wanted)  # features x pixels
        directions = _principal(h @ predictor, self.latent_dim - dim).double()  # latents x pixels
        self.to_latent.weight[dim:, :, 0, 0] = (predictor @ directions.t()).t().float()
        window = self.unpatch.weight[:, :, 1, 1].double()  # pixels x features
        normal = window.t() @ window
        normal.diagonal().add_(0.1 * normal.diagonal().mean())
        self.from_latent.weight[:, dim:, 0, 0] = torch.linalg.solve(normal, window.t() @ directions.t()).float()

    @torch.no_grad()
    def start(self, x: Plane) -> None:
        """Make the network a transform codec: KLT of 8x8 patches of the images in ``x``."""
        c = self.patch.outputs
        rows = unshuffle(x.values, self.block).permute(0, 2, 3, 1).reshape(-1, self.patch.inputs)
        basis = _principal(rows, c)
        for conv in (
            self.patch,
            self.to_latent,
            self.from_latent,
            self.unpatch,
            *self.down.values(),
            *self.up.values(),
        ):
            zero_convolution(conv)
        self.patch.weight[:, :, 1, 1] = basis
        self.unpatch.weight[:, :, 1, 1] = basis.t()
        keep = torch.arange(self.latent_dim)
        self.to_latent.weight[keep, keep] = 1
        self.from_latent.weight[keep, keep] = 1
        latent = self.analysis(x)[self.block]
        for stride, down in self.down.items():
            two = unshuffle(latent.values, 2).permute(0, 2, 3, 1).flatten(0, 2)
            basis = _principal(two, down.outputs)
            weight = basis.reshape(down.outputs, 2, 2, -1).permute(0, 3, 1, 2)
            down.weight.copy_(weight)
            self.up[stride].weight.copy_(weight)
            latent = down(latent)


class ConvEncoder(nn.Module):
    """Strided convolutions, a plain one, residual blocks, ReLU."""

    def __init__(self, config: AutoencoderConfig, inputs: int, factor: int) -> None:
        super().__init__()
        c, steps = config.hidden, factor.bit_length() - 1
        self.resize = nn.ModuleList(
            FixedConv2d(inputs if i == 0 else c, c, config.upsample_kernel, stride=2) for i in range(steps)
        )
        self.plain = FixedConv2d(c, c, config.encoder_kernel)
        self.blocks = ResidualStack(c, config.residual, config.encoder_blocks, zero=False)

    @property
    def made(self) -> Format:
        """Of the plane that it makes."""
        return self.plain.format

    def forward(self, x: Plane) -> Plane:
        for resize in self.resize:
            x = resize(x, "relu")
        last: Activation = "relu"
        return self.blocks(self.plain(x, "none" if len(self.blocks) else last), last)

    def convolutions(self, name: str, fraction: int) -> Iterator[Named]:
        """``fraction``: of the plane that enters."""
        for number, resize in enumerate(self.resize):
            yield named(f"{name}.resize.{number}", resize, fraction)
            fraction = int(resize.format.fraction)
        yield named(f"{name}.plain", self.plain, fraction)
        yield from self.blocks.convolutions(f"{name}.blocks", int(self.plain.format.fraction))


class ConvDecoder(nn.Module):
    """A plain convolution, residual blocks, ReLU, transposed convolutions with ReLU between them."""

    def __init__(
        self, config: AutoencoderConfig, inputs: int, outputs: int, factor: int, *, fraction: int | None = None
    ) -> None:
        super().__init__()
        c, steps = config.hidden, factor.bit_length() - 1
        self.plain = FixedConv2d(inputs, c, config.encoder_kernel)
        self.blocks = ResidualStack(c, config.residual, config.decoder_blocks, zero=False)
        self.resize = nn.ModuleList(
            FixedConvTranspose2d(
                c,
                outputs if i == steps - 1 else c,
                config.upsample_kernel,
                fraction=fraction if i == steps - 1 else None,
            )
            for i in range(steps)
        )

    @property
    def made(self) -> Format:
        """Of the plane that it makes."""
        last = self.resize[-1]
        assert isinstance(last, FixedConvTranspose2d)
        return last.format

    def forward(self, x: Plane) -> Plane:
        last: Activation = "relu"
        x = self.blocks(self.plain(x, "none" if len(self.blocks) else last), last)
        for number, resize in enumerate(self.resize, 1):
            x = resize(x, "relu" if number < len(self.resize) else "none")
        return x

    def convolutions(self, name: str, fraction: int) -> Iterator[Named]:
        """``fraction``: of the plane that enters."""
        yield named(f"{name}.plain", self.plain, fraction)
        fraction = int(self.plain.format.fraction)
        yield from self.blocks.convolutions(f"{name}.blocks", fraction)
        for number, resize in enumerate(self.resize):
            yield named(f"{name}.resize.{number}", resize, fraction)
            fraction = int(resize.format.fraction)


class ConvTransform(nn.Module):
    """The paper's encoder and decoder (figure 2a, table 5; layer order as in Sonnet's VQ-VAE)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        c, kernel = config.hidden, config.upsample_kernel
        self.strides = config.strides
        self.encoders: MutableMapping[str, ConvEncoder] = nn.ModuleDict()  # type: ignore[assignment]  # what it holds
        self.decoders: MutableMapping[str, ConvDecoder] = nn.ModuleDict()  # type: ignore[assignment]  # what it holds
        self.to_latent, self.upsample = nn.ModuleDict(), nn.ModuleDict()
        below, inputs = 1, 3
        for stride in config.strides[::-1]:  # fine to coarse
            self.encoders[str(stride)] = ConvEncoder(config, inputs, stride // below)
            below, inputs = stride, c
        seen = 0  # channels of all quantised maps so far, upsampled to this stride
        for above, stride in zip((None, *config.strides), config.strides):
            dim = config.latent_dim(stride)
            if above is not None:
                factor = above // stride
                self.decoders[str(above)] = ConvDecoder(config, seen, c, factor)
                self.upsample[str(above)] = nn.ModuleList(
                    FixedConvTranspose2d(seen, seen, kernel, fraction=LATENT) for _ in range(factor.bit_length() - 1)
                )
            self.to_latent[str(stride)] = FixedConv2d(c if above is None else 2 * c, dim, 1, fraction=LATENT)
            seen += dim
        self.output = ConvDecoder(config, seen, 3, config.strides[-1], fraction=PIXELS_OUT)

    def analysis(self, x: Plane) -> dict[int, Plane]:
        features = {}
        for stride, encoder in self.encoders.items():
            x = features[int(stride)] = encoder(x)
        return features

    def latent(self, stride: int, features: dict[int, Plane], context: Plane | None) -> Plane:
        h = features[stride]
        if context is not None:
            h = concatenate(self.decoders[str(self._above(stride))](context), h)
        return self.to_latent[str(stride)](h)

    def merge(self, stride: int, context: Plane | None, vectors: Plane) -> Plane:
        if context is None:
            return vectors
        for up in self.upsample[str(self._above(stride))]:
            context = up(context)
        assert context is not None
        return concatenate(context, vectors)

    def synthesis(self, context: Plane) -> tuple[Plane, ...]:
        return (self.output(context),)

    def align_formats(self) -> None:
        """Decoded contexts and features lie side by side: give them the same formats."""
        for above, stride in zip(self.strides, self.strides[1:]):
            align(self.decoders[str(above)].made, self.encoders[str(stride)].made)

    def convolutions(self) -> Iterator[Named]:
        read = PIXELS_IN
        for s, encoder in self.encoders.items():
            yield from encoder.convolutions(f"encoders.{s}", read)
            read = int(encoder.made.fraction)
        for s, decoder in self.decoders.items():
            yield from decoder.convolutions(f"decoders.{s}", LATENT)
        for s, steps in self.upsample.items():
            for number, up in enumerate(steps):
                yield named(f"upsample.{s}.{number}", up, LATENT)
        for s, conv in self.to_latent.items():
            yield named(f"to_latent.{s}", conv, int(self.encoders[s].made.fraction))
        yield from self.output.convolutions("output", LATENT)

    def start(self, x: Plane) -> None:
        """Nothing to prepare: the paper starts from random weights."""

    def widen(self, x: Plane, dim: int) -> None:
        """Latents that a model lacks stay zero: they have no place of their own in the features."""

    def _above(self, stride: int) -> int:
        return self.strides[self.strides.index(stride) - 1]


def _principal(rows: Tensor, components: int) -> Tensor:
    """The first principal directions of ``rows`` (N x D) about zero: components x D."""
    rows = rows.double()
    _, vectors = torch.linalg.eigh(rows.t() @ rows / len(rows))
    return vectors.flip(1)[:, :components].t().float()


TRANSFORMS: dict[str, type[LappedTransform] | type[ConvTransform]] = {"lapped": LappedTransform, "conv": ConvTransform}
