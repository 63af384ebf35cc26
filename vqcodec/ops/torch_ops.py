"""The ops of the compiled core as PyTorch custom ops, `torch.ops.vqcodec.*`.

Imported when the first tensor arrives, so that `vqcodec.ops` does not load PyTorch.
Tensors share their memory with the core: nothing is copied.
"""

from __future__ import annotations

from typing import Optional  # torch.library reads the annotations, of Python 3.10 too

import torch
from torch import Tensor

from vqcodec.ops import native


@torch.library.custom_op("vqcodec::nearest_codebook", mutates_args=(), device_types="cpu")
def nearest_codebook(
    z: Tensor, codebook: Tensor, bias: Optional[Tensor] = None, variant: Optional[str] = None
) -> Tensor:
    indices = native.nearest_codebook(
        z.detach().numpy(),
        codebook.detach().numpy(),
        None if bias is None else bias.detach().numpy(),
        variant,
    )
    return torch.from_numpy(indices)


@nearest_codebook.register_fake
def _(z, codebook, bias=None, variant=None):
    return z.new_empty(z.shape[0], dtype=torch.int64)


@torch.library.custom_op("vqcodec::codebook_statistics", mutates_args=(), device_types="cpu")
def codebook_statistics(z: Tensor, indices: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    counts, sums = native.codebook_statistics(z.detach().numpy(), indices.numpy(), codes)
    return torch.from_numpy(counts), torch.from_numpy(sums)


@codebook_statistics.register_fake
def _(z, indices, codes):
    return z.new_empty(codes), z.new_empty(codes, z.shape[1])
