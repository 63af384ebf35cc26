"""The networks around the quantisers: pixels -> latents -> pixels.

A transform offers

    analysis(x)                     pixels -> features per stride
    latent(stride, features, context)  what the maps of this stride quantise
    merge(stride, context, vectors)    context after the maps of this stride
    synthesis(context)              -> pixels
    encoder_reach, decoder_reach    how many pixels beside a latent or a pixel they depend on, at most

and the autoencoder walks the strides from coarse to fine:

    x -> analysis -> latent(16) -> quantise -> merge -+-> latent(8) -> quantise -> merge -> synthesis -> x
                                                      '--- context ---^

Pixels are float in [0, 1], B x 3 x H x W, with H and W multiples of the largest stride.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.model.config import AutoencoderConfig


class ResidualBlock(nn.Module):
    """x + conv1x1(act(conv3x3(act(x)))); the last convolution starts at zero if asked."""

    def __init__(self, channels: int, inner: int, *, zero: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 3, padding=1)
        self.conv2 = nn.Conv2d(inner, channels, 1)
        if zero:
            zero_convolution(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.leaky_relu(self.conv1(x), 0.1))


def zero_convolution(conv: nn.modules.conv._ConvNd) -> None:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def residual_stack(channels: int, inner: int, blocks: int, *, zero: bool) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels, inner, zero=zero) for _ in range(blocks)))


def reach(scale: int, *parts: nn.Module) -> int:
    """How far the output of convolutions in sequence looks, in pixels, at most; ``scale``: pixels per input position."""
    total = 0
    for module in (inner for part in parts for inner in part.modules()):
        if isinstance(module, nn.ConvTranspose2d):
            kernel, stride = module.kernel_size[0], module.stride[0]
            total += -(-(kernel - stride) // (2 * stride)) * scale
            scale //= stride
        elif isinstance(module, nn.Conv2d):
            total += (module.kernel_size[0] - module.stride[0] + 1) // 2 * scale
            scale *= module.stride[0]
        elif isinstance(module, nn.PixelShuffle):
            scale //= module.upscale_factor
    return total


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
        self.patch = nn.Conv2d(pixels, c, 3, padding=1)
        self.encoder = residual_stack(c, inner, config.encoder_blocks, zero=True)
        self.to_latent = nn.Conv2d(c, self.latent_dim, 1)
        # Each coarser stride takes a 2x2 block of the latent tensor below it.
        self.down: MutableMapping[str, nn.Conv2d] = nn.ModuleDict()  # type: ignore[assignment]  # what it holds
        self.up: MutableMapping[str, nn.ConvTranspose2d] = nn.ModuleDict()  # type: ignore[assignment]  # what it holds
        below = self.latent_dim
        for stride in reversed(config.strides[:-1]):
            dim = config.latent_dim(stride)
            self.down[str(stride)] = nn.Conv2d(below, dim, 2, stride=2)
            self.up[str(stride)] = nn.ConvTranspose2d(dim, below, 2, stride=2)
            below = dim
        self.from_latent = nn.Conv2d(self.latent_dim, c, 1)
        self.decoder = residual_stack(c, inner, config.decoder_blocks, zero=True)
        self.unpatch = nn.Conv2d(c, pixels, 3, padding=1)
        r = config.refine
        self.refine = nn.Sequential(
            nn.Conv2d(c, 4 * r, 1), nn.PixelShuffle(2),
            residual_stack(r, r, config.refine_blocks, zero=True),
            nn.LeakyReLU(0.1), last := nn.Conv2d(r, pixels // 4, 3, padding=1),
        )
        zero_convolution(last)

    @property
    def encoder_reach(self) -> int:
        return reach(self.block, self.patch, self.encoder)

    @property
    def decoder_reach(self) -> int:
        after = max(reach(self.block, self.unpatch), reach(self.block, self.refine))
        return reach(self.block, self.decoder) + after

    def analysis(self, x: Tensor) -> dict[int, Tensor]:
        blocks = F.pixel_unshuffle(x - 0.5, self.block)
        latent = self.to_latent(self.encoder(self.patch(blocks)))
        latents = {self.block: latent}
        for stride, down in self.down.items():
            latent = latents[int(stride)] = down(latent)
        return latents

    def latent(self, stride: int, features: dict[int, Tensor], context: Tensor | None) -> Tensor:
        return features[stride] if context is None else features[stride] - context

    def merge(self, stride: int, context: Tensor | None, vectors: Tensor) -> Tensor:
        merged = vectors if context is None else context + vectors
        return self.up[str(stride)](merged) if str(stride) in self.up else merged

    def synthesis(self, context: Tensor) -> Tensor:
        h = self.decoder(self.from_latent(context))
        linear = F.pixel_shuffle(self.unpatch(h), self.block)
        return linear + F.pixel_shuffle(self.refine(h), self.block // 2) + 0.5

    @torch.no_grad()
    def start(self, images: Tensor) -> None:
        """Make the network a transform codec: KLT of 8x8 patches of ``images`` (B x 3 x H x W)."""
        c = self.patch.out_channels
        blocks = F.pixel_unshuffle(images - 0.5, self.block).permute(0, 2, 3, 1).reshape(-1, self.patch.in_channels)
        basis = _principal(blocks, c)
        for conv in (self.patch, self.to_latent, self.from_latent, self.unpatch, *self.down.values(), *self.up.values()):
            zero_convolution(conv)
        self.patch.weight[:, :, 1, 1] = basis
        self.unpatch.weight[:, :, 1, 1] = basis.t()
        keep = torch.arange(self.latent_dim)
        self.to_latent.weight[keep, keep] = 1
        self.from_latent.weight[keep, keep] = 1
        latent = self.analysis(images)[self.block]
        for stride, down in self.down.items():
            two = F.pixel_unshuffle(latent, 2).permute(0, 2, 3, 1).flatten(0, 2)
            basis = _principal(two, down.out_channels)
            weight = basis.reshape(down.out_channels, -1, 2, 2)
            down.weight.copy_(weight)
            self.up[stride].weight.copy_(weight)
            latent = down(latent)


class ConvTransform(nn.Module):
    """The paper's encoder and decoder (figure 2a, table 5; layer order as in Sonnet's VQ-VAE)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        c, inner = config.hidden, config.residual
        plain: dict[str, Any] = dict(kernel_size=config.encoder_kernel, padding=config.encoder_kernel // 2)
        resize: dict[str, Any] = dict(kernel_size=config.upsample_kernel, stride=2, padding=(config.upsample_kernel - 2) // 2)

        def encoder(inputs: int, factor: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for i in range(factor.bit_length() - 1):
                layers += [nn.Conv2d(inputs if i == 0 else c, c, **resize), nn.ReLU()]
            return nn.Sequential(*layers, nn.Conv2d(c, c, **plain),
                                 residual_stack(c, inner, config.encoder_blocks, zero=False), nn.ReLU())

        def decoder(inputs: int, outputs: int, factor: int) -> nn.Sequential:
            layers: list[nn.Module] = [nn.Conv2d(inputs, c, **plain),
                                       residual_stack(c, inner, config.decoder_blocks, zero=False), nn.ReLU()]
            steps = factor.bit_length() - 1
            for i in range(steps):
                last = i == steps - 1
                layers.append(nn.ConvTranspose2d(c, outputs if last else c, **resize))
                if not last:
                    layers.append(nn.ReLU())
            return nn.Sequential(*layers)

        fine_to_coarse = config.strides[::-1]
        self.strides = config.strides
        self.encoders, self.to_latent = nn.ModuleDict(), nn.ModuleDict()
        self.decoders, self.upsample = nn.ModuleDict(), nn.ModuleDict()
        below, inputs = 1, 3
        for stride in fine_to_coarse:
            self.encoders[str(stride)] = encoder(inputs, stride // below)
            below, inputs = stride, c
        seen = 0  # channels of all quantised maps so far, upsampled to this stride
        for above, stride in zip((None, *config.strides), config.strides):
            dim = config.latent_dim(stride)
            if above is not None:
                factor = above // stride
                self.decoders[str(above)] = decoder(seen, c, factor)
                self.upsample[str(above)] = nn.Sequential(*(
                    nn.ConvTranspose2d(seen, seen, **resize) for _ in range(factor.bit_length() - 1)))
            self.to_latent[str(stride)] = nn.Conv2d(c if above is None else 2 * c, dim, 1)
            seen += dim
        self.output = decoder(seen, 3, config.strides[-1])

    @property
    def encoder_reach(self) -> int:
        pixels = reach(1, *self.encoders.values())
        return max([pixels, *(reach(int(stride), decoder) + self._context_reach for stride, decoder in self.decoders.items())])

    @property
    def decoder_reach(self) -> int:
        return reach(self.strides[-1], self.output) + self._context_reach

    @property
    def _context_reach(self) -> int:
        return sum(reach(int(stride), up) for stride, up in self.upsample.items())

    def analysis(self, x: Tensor) -> dict[int, Tensor]:
        features, h = {}, x - 0.5
        for stride, encoder in self.encoders.items():
            h = features[int(stride)] = encoder(h)
        return features

    def latent(self, stride: int, features: dict[int, Tensor], context: Tensor | None) -> Tensor:
        h = features[stride]
        if context is not None:
            above = self.strides[self.strides.index(stride) - 1]
            h = torch.cat([self.decoders[str(above)](context), h], 1)
        return self.to_latent[str(stride)](h)

    def merge(self, stride: int, context: Tensor | None, vectors: Tensor) -> Tensor:
        if context is None:
            return vectors
        above = self.strides[self.strides.index(stride) - 1]
        return torch.cat([self.upsample[str(above)](context), vectors], 1)

    def synthesis(self, context: Tensor) -> Tensor:
        return self.output(context) + 0.5

    def start(self, images: Tensor) -> None:
        """Nothing to prepare: the paper starts from random weights."""


def _principal(rows: Tensor, components: int) -> Tensor:
    """The first principal directions of ``rows`` (N x D) about zero: components x D."""
    rows = rows.double()
    _, vectors = torch.linalg.eigh(rows.t() @ rows / len(rows))
    return vectors.flip(1)[:, :components].t().float()


TRANSFORMS: dict[str, type[LappedTransform] | type[ConvTransform]] = {"lapped": LappedTransform, "conv": ConvTransform}
