"""The hierarchical VQ autoencoder (VQ-VAE-2, section 3.1, algorithm 1), in float and in fixed point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.fixed_point import BOTTOM, TOP, Format, Plane, calibrate, scale_format
from training.networks.quantizer import Quantized, Quantizer, Rate, lloyd
from training.networks.transforms import TRANSFORMS
from vqcodec.errors import InvalidArgument
from vqcodec.model.config import AutoencoderConfig
from vqcodec.model.integer_network import LATENT, PIXELS_IN

IntegerTensors = Mapping[str, np.ndarray]
#: How often the scales of planes are passed on from one convolution to the next.
SCALING_PASSES = 8


@dataclass(frozen=True)
class Reconstruction:
    """What :meth:`Autoencoder.forward` returns."""

    pixels: Tensor  #: B x 3 x H x W, not clamped
    codes: list[Tensor]  #: per map: B x H/stride x W/stride, int64
    commitment: Tensor  #: |z - e|^2 summed over channels, per pixel
    bits: Tensor  #: expected bits per pixel (soft choice), 0 without a rate


class Autoencoder(nn.Module):
    """Pixels -> code maps -> pixels.

    The strides are walked from coarse to fine; the maps of a stride quantise
    consecutive channel groups of its latent tensor (or what the maps before leave
    over of some channels), as :mod:`training.networks.transforms` shows.

    With ``quantized`` set the networks compute what the exported integer networks compute, see
    :mod:`training.networks.fixed_point`; :meth:`calibrate` must have been called once before.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.pixels_in, self.latents = Format(PIXELS_IN), Format(LATENT)
        self.transform = TRANSFORMS[config.transform](config)
        self.quantizers: Sequence[Quantizer] = nn.ModuleList(  # type: ignore[assignment]  # what it holds
            Quantizer(m, decay=config.decay, null_code=config.null_code, levels=config.levels) for m in config.maps
        )
        self._quantized = False

    @property
    def quantized(self) -> bool:
        """Whether numbers are rounded as the integer networks round them."""
        return self._quantized

    @quantized.setter
    def quantized(self, value: bool) -> None:
        self._quantized = value
        for quantizer in self.quantizers:
            quantizer.quantized = value

    def calibrate(self, images: Tensor) -> None:
        """Choose the formats of all planes from sample ``images`` (B x 3 x H x W in [0, 1])."""
        before, training, self.quantized = self.quantized, self.training, False
        calibrate(self, lambda: [self.eval()(part) for part in images.split(8)])
        self.transform.align_formats()
        self.quantized = before
        self.train(training)

    def forward(self, x: Tensor, rate: Rate | None = None, *, keep: int | None = None) -> Reconstruction:
        """Encode and decode ``x`` (B x 3 x H x W in [0, 1]) with straight-through gradients.

        ``keep`` decodes from the first maps only; the others count as zero vectors.
        """
        context, parts, commitment, bits = self._analyse(x, rate, keep)
        return Reconstruction(self.synthesis(context), [part.codes for part in parts], commitment, bits)

    def analysis(self, x: Tensor) -> dict[int, Plane]:
        """Features per stride of ``x`` (B x 3 x H x W in [0, 1])."""
        return self.transform.analysis(self._pixels(x))

    def _pixels(self, x: Tensor) -> Plane:
        return self.pixels_in.plane((255 * x - 128) / 256, self.quantized)

    def synthesis(self, context: Plane) -> Tensor:
        """Pixels in [0, 1], neither rounded nor clamped: B x 3 x H x W."""
        planes = self.transform.synthesis(context)
        total = sum((plane.values for plane in planes[1:]), planes[0].values)
        return (256 * total + 128) / 255

    def _analyse(self, x: Tensor, rate: Rate | None, keep: int | None) -> tuple[Plane, list[Quantized], Tensor, Tensor]:
        """The walk from coarse to fine: context after the last map, quantised maps, commitment, bits per pixel."""
        config = self.config
        features = self.analysis(x)
        found: list[Quantized] = []
        commitment = bits = x.new_zeros(())
        context: Plane | None = None
        for stride in config.strides:
            z = self.transform.latent(stride, features, context).values
            if keep is not None and len(found) >= keep:
                context = self.transform.merge(stride, context, self._plane(torch.zeros_like(z)))
                continue
            vectors, parts = self.quantize(stride, z, len(found), rate, keep)
            found += parts
            commitment = commitment + sum(part.error for part in parts) / stride**2
            bits = bits + sum(part.bits for part in parts) / stride**2
            context = self.transform.merge(stride, context, self._plane(z + (vectors - z).detach()))
        assert context is not None
        return context, found, commitment, bits

    def quantize(
        self, stride: int, z: Tensor, first: int, rate: Rate | None, keep: int | None = None
    ) -> tuple[Tensor, list[Quantized]]:
        """Quantise the latent tensor of one stride with its maps, the first of which is ``first``."""
        vectors = torch.zeros_like(z)
        parts = []
        for number, c in enumerate(self.config.channels(stride), first):
            if keep is not None and number >= keep:
                break
            part = self.quantizers[number](z[:, c] - vectors[:, c], rate)
            added = self._plane(vectors[:, c] + part.vectors).values
            vectors = torch.cat([vectors[:, : c.start], added, vectors[:, c.stop :]], 1)
            parts.append(part)
        return vectors, parts

    def _plane(self, vectors: Tensor) -> Plane:
        """Vectors as a plane: rounded and saturated if need be."""
        return self.latents.plane(vectors, self.quantized)

    @torch.no_grad()
    def encode(self, x: Tensor, rate: Rate | None = None) -> list[Tensor]:
        """Code maps of ``x``: B x 3 x H x W in [0, 1], H and W multiples of the largest stride."""
        return [part.codes for part in self.eval()._analyse(x, rate, None)[1]]

    @torch.no_grad()
    def decode(self, codes: Sequence[Tensor]) -> Tensor:
        """Pixels (B x 3 x H x W, float, in [0, 1]) from code maps (B x h x w, int64).

        Fewer maps than the model has give the coarser image. Quantised, the pixels are whole grey levels,
        multiples of 1/255.
        """
        config = self.config
        if not codes or len(codes) > len(config.maps):
            raise InvalidArgument(f"expected 1 to {len(config.maps)} code maps, got {len(codes)}")
        context = self.context(codes, config.strides)
        assert context is not None  # a model has a stride
        pixels = self.synthesis(context)
        return (pixels * 255).add_(0.5).floor_().clamp_(0, 255) / 255 if self.quantized else pixels.clamp(0, 1)

    @torch.no_grad()
    def context(self, codes: Sequence[Tensor], strides: Sequence[int]) -> Plane | None:
        """The context after the maps of ``strides``, the model's first; those past ``codes`` count as zero vectors."""
        context: Plane | None = None
        number = 0
        for stride in strides:
            b, h, w = codes[0].shape
            factor = self.config.maps[0].stride // stride
            vectors = self.quantizers[0].codebook.new_zeros(b, self.config.latent_dim(stride), h * factor, w * factor)
            for part in self.config.channels(stride):
                if number < len(codes):
                    found = F.embedding(codes[number], self.quantizers[number].vectors()).permute(0, 3, 1, 2)
                    vectors[:, part] = self._plane(vectors[:, part] + found).values
                number += 1
            context = self.transform.merge(stride, context, self._plane(vectors))
        return context

    @torch.no_grad()
    def start(self, images: Tensor, rate: Rate | None, model: IntegerTensors | None = None) -> None:
        """Prepare for training from sample ``images`` (B x 3 x H x W): KLT, then Lloyd codebooks.

        ``model``: the arrays of an exported autoencoder (:meth:`export`) to go on from instead, of this
        configuration or of one that has fewer maps.
        """
        known = 0
        if model is None:
            self.transform.start(self._pixels(images))
        else:
            known = self.restore(model, images)
        if rate is None:
            return
        features = self.analysis(images)
        context: Plane | None = None
        first = 0
        for stride in self.config.strides:
            z = self.transform.latent(stride, features, context).values
            left = z.clone()
            for number, (m, c) in enumerate(zip(self.config.maps_at(stride), self.config.channels(stride)), first):
                rows = left[:, c].permute(0, 2, 3, 1).reshape(-1, m.dim)
                quantizer = self.quantizers[number]
                if number >= known:
                    quantizer.reset(*lloyd(rows, m.codes, rate.lagrangian))
                left[:, c] -= quantizer.eval()(left[:, c], rate).vectors
            first += len(self.config.maps_at(stride))
            context = self.transform.merge(stride, context, self._plane(z - left))
        self.train()

    def restore(self, model: IntegerTensors, images: Tensor) -> int:
        """Take weights and codebooks from exported arrays; returns how many maps they have.

        ``images``: samples from which maps that they lack get channels of their own.

        How planes of features are scaled is not in a model file, and makes no difference to what the networks
        compute: they are scaled so that weights are about as large as new ones.
        """
        for _ in range(SCALING_PASSES):
            for part in self.transform.convolutions():
                try:
                    arrays = {name: model[f"{part.name}.{name}"] for name in ("weight", "bias", "shift")}
                    part.convolution.restore(arrays, part.read, part.made)
                except (KeyError, RuntimeError) as error:
                    raise InvalidArgument(f"the model is not one to go on from: {part.name}: {error}") from error
                scale_format(part.convolution)
        known = 0
        for number, quantizer in enumerate(self.quantizers):
            if f"codebook.{number}" not in model:
                break
            quantizer.restore(model[f"codebook.{number}"], model[f"code_lengths.{number}"])
            known += 1
        fine = range(self.config.maps_before(self.config.strides[-1]), known)
        dim = sum(m.dim for m in (self.config.maps[n] for n in fine) if m.refines is None)
        if dim < self.config.latent_dim(self.config.strides[-1]):
            self.transform.widen(self._pixels(images), dim)
        return known

    def export(self) -> dict[str, np.ndarray]:
        """The integer networks as named arrays (docs/FORMAT.md, "Model file")."""
        tensors = {
            f"{part.name}.{name}": array
            for part in self.transform.convolutions()
            for name, array in part.convolution.export(part.read, part.made).items()
        }
        for m, quantizer in enumerate(self.quantizers):
            codebook = torch.floor(quantizer.codebook.double() * 2.0**LATENT + 0.5).clamp(BOTTOM, TOP)
            tensors[f"codebook.{m}"] = codebook.to(torch.int16).cpu().numpy()
            usage = quantizer.usage.double()
            lengths = -torch.log2((usage / usage.sum(1, keepdim=True)).clamp(min=2.0**-31))
            tensors[f"code_lengths.{m}"] = torch.round(8 * lengths).to(torch.uint8).cpu().numpy()
        return tensors
