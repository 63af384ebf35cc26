"""Vector quantisation with EMA codebooks (VQ-VAE-2, equation 2 and the update below it)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.fixed_point import BOTTOM, TOP
from vqcodec.model.config import AutoencoderConfig, CodeMap
from vqcodec.model.integer_network import LATENT
from vqcodec.ops import codebook_statistics, nearest_codebook

#: Code lengths are clamped here: a code that was never seen can still be chosen.
MAX_BITS = 18.0


@dataclass(frozen=True)
class Rate:
    """How much a bit costs while choosing codes."""

    lagrangian: float  #: squared error (summed over channels) per bit
    level: int  #: rate level whose code lengths apply

    @classmethod
    def at(cls, config: AutoencoderConfig, position: float) -> Rate | None:
        """The rate at a position in [0, 1] (0: fewest bits); None for models without a null code."""
        return cls(config.lagrangian(position), config.level(position)) if config.null_code else None


@dataclass(frozen=True)
class Quantized:
    vectors: Tensor  #: B x D x H x W, the chosen codebook vectors (no gradient)
    codes: Tensor  #: B x H x W int64
    error: Tensor  #: scalar, |z - e|^2 summed over channels, mean over positions
    bits: Tensor  #: scalar, differentiable expected bits per code (0 without a rate)


class Quantizer(nn.Module):
    """Codebook of one map: K vectors of D dimensions, updated by moving averages.

    ``N`` and ``m`` of the paper are ``count`` and ``total``; the codebook is
    ``total / count`` with Laplace smoothing, recomputed after each update, so the
    three never disagree. ``usage`` counts codes per rate level and gives the code
    lengths of the entropy-constrained choice

        argmin_k |z - e_k|^2 + lambda * bits_k.

    Dead codes are moved to badly coded vectors *with all their state* (count,
    total and usage), so that the next update does not pull them back.

    With torch.distributed, statistics are summed over the ranks (which hold equally many
    vectors each) and dead codes are moved as rank 0 chooses: codebooks are the same on all.
    """

    codebook: Tensor
    count: Tensor
    total: Tensor
    usage: Tensor

    def __init__(self, m: CodeMap, *, decay: float, null_code: bool, levels: int) -> None:
        super().__init__()
        self.decay, self.null_code = decay, null_code
        self.quantized = False
        self.register_buffer("codebook", torch.zeros(m.codes, m.dim))
        self.register_buffer("count", torch.full((m.codes,), 1.0 / m.codes))
        self.register_buffer("total", torch.zeros(m.codes, m.dim))
        self.register_buffer("usage", torch.full((levels, m.codes), 1.0 / m.codes))
        self.reset(torch.randn(m.codes, m.dim) / m.codes)

    @torch.no_grad()
    def reset(self, codebook: Tensor, count: Tensor | None = None) -> None:
        """Start from ``codebook`` (K x D) used ``count`` (K, any scale) often."""
        if self.null_code:
            codebook = codebook.clone()
            codebook[0] = 0
        self.codebook.copy_(codebook)
        if count is not None:
            self.count.copy_((count / count.sum()).clamp(min=1e-6))
        self.total.copy_(self.codebook * self.count[:, None])
        self.usage.copy_(self.count.expand_as(self.usage))

    @torch.no_grad()
    def restore(self, codebook: np.ndarray, lengths: np.ndarray) -> None:
        """Go on from a codebook (K x D int16) and code lengths (levels x K uint8) of a model file."""
        levels = torch.from_numpy(np.exp2(lengths / -8.0)).float()
        levels = levels / levels.sum(1, keepdim=True)
        self.reset(torch.from_numpy(codebook / 2.0**LATENT).float(), levels.mean(0))
        self.usage.copy_(levels[torch.arange(len(self.usage)).clamp(max=len(levels) - 1)])

    def bits(self, level: int) -> Tensor:
        """Length of every code in bits at a rate level: K."""
        usage = self.usage[level]
        return -torch.log2(usage / usage.sum()).clamp(min=-MAX_BITS)

    def vectors(self) -> Tensor:
        """The codebook, K x D; with ``quantized`` set, in the format LATENT that model files store."""
        if not self.quantized:
            return self.codebook
        unit = 2.0**LATENT
        return (self.codebook * unit).add_(0.5).floor_().clamp_(BOTTOM, TOP).mul_(1 / unit)

    def forward(self, z: Tensor, rate: Rate | None = None) -> Quantized:
        """Quantise ``z`` (B x D x H x W, computed in float32); in training mode, learn from it."""
        b, d, h, w = z.shape
        flat = z.permute(0, 2, 3, 1).reshape(-1, d).float()
        with torch.no_grad():
            bias = None if rate is None else (rate.lagrangian * self.bits(rate.level)).float()
            codebook = self.vectors()
            codes = nearest_codebook(flat, codebook.float(), bias)
            vectors = F.embedding(codes, codebook)
        bits = z.new_zeros(())
        if self.training:
            if rate is not None:
                bits = self.expected_bits(flat, rate)
            self.update(flat.detach(), codes, vectors, rate)
        error = (flat - vectors).square().sum(1).mean()
        return Quantized(vectors.reshape(b, h, w, d).permute(0, 3, 1, 2), codes.reshape(b, h, w), error, bits)

    def expected_bits(self, z: Tensor, rate: Rate) -> Tensor:
        """Bits per code under a soft choice: what tells the encoder what bits cost.

        The softness 1.5 * lambda is the scale at which one bit matters. Every second
        vector is enough for a gradient.
        """
        codebook, bits = self.codebook.clone(), self.bits(rate.level)  # the gradient outlives the next update
        bias = codebook.square().sum(1) + rate.lagrangian * bits
        cost = torch.addmm(bias[None], z[::2], codebook.t(), alpha=-2)
        return (torch.softmax(cost / (-1.5 * rate.lagrangian), dim=1) @ bits).mean()

    @torch.no_grad()
    def update(self, z: Tensor, codes: Tensor, vectors: Tensor, rate: Rate | None) -> None:
        """One EMA step from the vectors ``z`` (N x D) coded as ``codes`` (N)."""
        k = len(self.count)
        counts, sums = codebook_statistics(z, codes, k)
        rows = sum_over_ranks(counts, sums) * len(z)
        n = counts / rows
        self.count.lerp_(n, 1 - self.decay)
        self.total.lerp_(sums / rows, 1 - self.decay)
        self.usage[rate.level if rate else 0].lerp_(n, 1 - self.decay)
        self.revive(z, (z - vectors).square().sum(1))
        smooth = (self.count + 1e-8) / (1 + k * 1e-8 / self.count.sum())
        self.codebook.copy_(self.total / smooth[:, None])
        if self.null_code:
            self.codebook[0] = 0

    @torch.no_grad()
    def revive(self, z: Tensor, error: Tensor, threshold: float = 1e-5, share: float = 3e-5) -> None:
        """Move codes used less than ``threshold`` of the time to vectors coded badly."""
        dead = self.count < threshold
        if self.null_code:
            dead[0] = False
        number = int(dead.sum())
        if number == 0:
            return
        chosen = z[torch.multinomial(error + 1e-12, number, replacement=True)]
        if distributed():
            torch.distributed.broadcast(chosen, 0)
        self.count[dead] = share
        self.total[dead] = chosen * share
        self.usage[:, dead] = share


def distributed() -> bool:
    """Whether other processes train the same model."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def sum_over_ranks(*tensors: Tensor) -> int:
    """Sum each tensor in place over all ranks; returns how many ranks there are."""
    if not distributed():
        return 1
    for tensor in tensors:
        torch.distributed.all_reduce(tensor)
    return torch.distributed.get_world_size()


@torch.no_grad()
def lloyd(z: Tensor, codes: int, lagrangian: float, steps: int = 12) -> tuple[Tensor, Tensor]:
    """Entropy-constrained Lloyd iterations (Chou, Lookabaugh and Gray 1989).

    ``z`` is N x D. Returns a K x D codebook whose code 0 is the zero vector and how
    often each code is used (K, sums to 1).
    """
    codebook = z[torch.multinomial(z.square().sum(1) + 1e-9, codes, replacement=len(z) < codes)].clone()
    codebook[0] = 0
    usage = z.new_full((codes,), 1 / codes)
    for _ in range(steps):
        bits = -torch.log2(usage / usage.sum() + 1e-9).clamp(min=-MAX_BITS)
        bias = codebook.square().sum(1) + lagrangian * bits
        chosen = torch.cat(
            [torch.addmm(bias[None], part, codebook.t(), alpha=-2).argmin(1) for part in torch.split(z, 65536)]
        )
        n = torch.bincount(chosen, minlength=codes).float()
        total = torch.zeros_like(codebook).index_add_(0, chosen, z)
        codebook = torch.where(n[:, None] > 0, total / n.clamp(min=1)[:, None], codebook)
        codebook[0] = 0
        usage = n / len(z)
    return codebook, usage
