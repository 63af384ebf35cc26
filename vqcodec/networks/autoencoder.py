"""The hierarchical VQ autoencoder (VQ-VAE-2, section 3.1, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.errors import InvalidArgument
from vqcodec.model.config import AutoencoderConfig
from vqcodec.networks.quantizer import Quantized, Quantizer, Rate, lloyd
from vqcodec.networks.transforms import TRANSFORMS


@dataclass(frozen=True)
class Reconstruction:
    """What :meth:`Autoencoder.forward` returns."""

    pixels: Tensor  #: B x 3 x H x W, not clamped
    codes: list[Tensor]  #: per map: B x H/stride x W/stride, int64
    commitment: Tensor  #: |z - e|^2 summed over channels, per pixel
    bits: Tensor  #: expected bits per pixel (soft choice), 0 without a rate


#: Number of a map; candidates and costs of it and maps after it -> code maps. See `Autoencoder.choose`.
Choose = Callable[[int, list[tuple[Tensor, Tensor]]], list[Tensor]]


class Autoencoder(nn.Module):
    """Pixels -> code maps -> pixels.

    The strides are walked from coarse to fine; the maps of a stride quantise
    consecutive channel groups of its latent tensor (or the error left by the map
    before), see :mod:`vqcodec.networks.transforms` for the picture.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.transform = TRANSFORMS[config.transform](config)
        self.quantizers: Sequence[Quantizer] = nn.ModuleList(  # type: ignore[assignment]  # what it holds
            Quantizer(m, decay=config.decay, null_code=config.null_code, levels=config.levels) for m in config.maps
        )

    def forward(self, x: Tensor, rate: Rate | None = None, *, keep: int | None = None) -> Reconstruction:
        """Encode and decode ``x`` (B x 3 x H x W in [0, 1]) with straight-through gradients.

        ``keep`` decodes from the first maps only; the others count as zero vectors.
        """
        context, parts, commitment, bits = self._analyse(x, rate, keep)
        return Reconstruction(self.transform.synthesis(context), [part.codes for part in parts], commitment, bits)

    def _analyse(self, x: Tensor, rate: Rate | None, keep: int | None) -> tuple[Tensor, list[Quantized], Tensor, Tensor]:
        """The walk from coarse to fine: context after the last map, quantised maps, commitment, bits per pixel."""
        config = self.config
        features = self.transform.analysis(x)
        found: list[Quantized] = []
        commitment = bits = x.new_zeros(())
        context: Tensor | None = None
        for stride in config.strides:
            z = self.transform.latent(stride, features, context).float()
            if keep is not None and len(found) >= keep:
                context = self.transform.merge(stride, context, torch.zeros_like(z))
                continue
            vectors, parts = self.quantize(stride, z, len(found), rate, keep)
            found += parts
            commitment = commitment + sum(part.error for part in parts) / stride**2
            bits = bits + sum(part.bits for part in parts) / stride**2
            context = self.transform.merge(stride, context, z + (vectors - z).detach())
        assert context is not None
        return context, found, commitment, bits

    def quantize(self, stride: int, z: Tensor, first: int, rate: Rate | None,
                 keep: int | None = None) -> tuple[Tensor, list[Quantized]]:
        """Quantise the latent tensor of one stride with its maps, the first of which is ``first``."""
        vectors = torch.zeros_like(z)
        parts = []
        for number, (m, c) in enumerate(zip(self.config.maps_at(stride), self.channels(stride)), first):
            if keep is not None and number >= keep:
                break
            target = z[:, c] - vectors[:, c] if m.residual else z[:, c]
            part = self.quantizers[number](target, rate and rate.of(number))
            vectors = torch.cat([vectors[:, : c.start], vectors[:, c] + part.vectors, vectors[:, c.stop :]], 1)
            parts.append(part)
        return vectors, parts

    @torch.no_grad()
    def encode(self, x: Tensor, rate: Rate | None = None) -> list[Tensor]:
        """Code maps of ``x``: B x 3 x H x W in [0, 1], H and W multiples of the largest stride."""
        return [part.codes for part in self.eval()._analyse(x, rate, None)[1]]

    @torch.no_grad()
    def choose(self, stride: int, z: Tensor, weights: Tensor, rate: Rate, count: int, choose: Choose) -> list[Tensor]:
        """Code maps (h x w) of one picture's latent tensor of a stride (D x h x w), as ``choose`` says.

        ``weights`` (h x w): how much an error counts at each position.
        ``choose(first, candidates)`` gets the number of a map and, for it and perhaps for maps after it,
        candidates and their squared error in bits (h*w x count each, row by row), and returns as
        many code maps. Maps that quantise what others leave over are asked for after those.
        """
        maps: list[Tensor] = []
        before = self.maps_before(stride)
        vectors = torch.zeros_like(z)
        waiting: list[slice] = []  # channels of maps to choose together

        def settle() -> None:
            first = before + len(maps)
            targets = [(z[part] - vectors[part]).flatten(1).t() for part in waiting]
            chosen = choose(first, [self.quantizers[number].candidates(target, rate.of(number), count, weights.flatten())
                                    for number, target in enumerate(targets, first)])
            for number, (part, codes) in enumerate(zip(waiting, chosen), first):
                vectors[part] += F.embedding(codes.to(z.device), self.quantizers[number].codebook).permute(2, 0, 1)
                maps.append(codes)
            waiting.clear()

        for m, part in zip(self.config.maps_at(stride), self.channels(stride)):
            if m.residual and waiting:
                settle()
            waiting.append(part)
        settle()
        return maps

    @torch.no_grad()
    def decode(self, codes: Sequence[Tensor]) -> Tensor:
        """Pixels (B x 3 x H x W, float, in [0, 1]) from code maps (B x h x w, int64).

        Fewer maps than the model has give the coarser picture.
        """
        config = self.config
        if not codes or len(codes) > len(config.maps):
            raise InvalidArgument(f"expected 1 to {len(config.maps)} code maps, got {len(codes)}")
        context = self.context(codes, config.strides)
        assert context is not None  # a model has a stride
        return self.transform.synthesis(context).clamp(0, 1)

    @torch.no_grad()
    def context(self, codes: Sequence[Tensor], strides: Sequence[int]) -> Tensor | None:
        """The context after the maps of ``strides``, the first of the model's; those past ``codes`` count as zero vectors."""
        context: Tensor | None = None
        number = 0
        for stride in strides:
            b, h, w = codes[0].shape
            factor = self.config.maps[0].stride // stride
            vectors = torch.zeros(b, self.config.latent_dim(stride), h * factor, w * factor, device=codes[0].device)
            vectors = vectors.to(self.quantizers[0].codebook.dtype)
            for part in self.channels(stride):
                if number < len(codes):
                    vectors[:, part] += F.embedding(codes[number], self.quantizers[number].codebook).permute(0, 3, 1, 2)
                number += 1
            context = self.transform.merge(stride, context, vectors)
        return context

    def maps_before(self, stride: int) -> int:
        """How many maps are coarser than those of a stride."""
        return sum(m.stride > stride for m in self.config.maps)

    def channels(self, stride: int) -> list[slice]:
        """The channels of the latent tensor of a stride that each of its maps quantises."""
        found, end = [], 0
        for m in self.config.maps_at(stride):
            begin = end - m.dim if m.residual else end
            end = begin + m.dim
            found.append(slice(begin, end))
        return found

    @torch.no_grad()
    def start(self, images: Tensor, rate: Rate | None) -> None:
        """Prepare for training from sample ``images`` (B x 3 x H x W): KLT, then Lloyd codebooks."""
        self.transform.start(images)
        if rate is None:
            return
        features = self.transform.analysis(images)
        context: Tensor | None = None
        first = 0
        for stride in self.config.strides:
            z = self.transform.latent(stride, features, context)
            left = z.clone()
            for number, (m, c) in enumerate(zip(self.config.maps_at(stride), self.channels(stride)), first):
                rows = left[:, c].permute(0, 2, 3, 1).reshape(-1, m.dim)
                quantizer = self.quantizers[number]
                quantizer.reset(*lloyd(rows, m.codes, rate.lagrangian))
                left[:, c] -= quantizer.eval()(left[:, c], rate).vectors
            first += len(self.config.maps_at(stride))
            context = self.transform.merge(stride, context, z - left)
        self.train()
