"""The ops of the compiled core as PyTorch custom ops, `torch.ops.vqcodec.*`, on the CPU and on GPUs.

Imported when the first tensor arrives, so that `vqcodec.ops` does not load PyTorch.
Tensors share their memory with the core: nothing is copied. On a GPU the work is queued on
PyTorch's current stream.
"""

from __future__ import annotations

from typing import Optional  # torch.library reads the annotations, of Python 3.10 too

import torch
from torch import Tensor

from vqcodec.errors import BackendError
from vqcodec.ops import cuda, native


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


@nearest_codebook.register_kernel("cuda")
def _(z, codebook, bias=None, variant=None):
    indices = z.new_empty(len(z), dtype=torch.int64)
    device, stream = _queue(z)
    address = 0 if bias is None else bias.data_ptr()
    device.nearest_codebook(_matrix(z), _matrix(codebook), address, indices.data_ptr(), stream=stream)
    return indices


@nearest_codebook.register_fake
def _(z, codebook, bias=None, variant=None):
    return z.new_empty(z.shape[0], dtype=torch.int64)


@torch.library.custom_op("vqcodec::codebook_statistics", mutates_args=(), device_types="cpu")
def codebook_statistics(z: Tensor, indices: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    counts, sums = native.codebook_statistics(z.detach().numpy(), indices.numpy(), codes)
    return torch.from_numpy(counts), torch.from_numpy(sums)


@codebook_statistics.register_kernel("cuda")
def _(z, indices, codes):
    counts, sums = z.new_empty(codes), z.new_empty(codes, z.shape[1])
    device, stream = _queue(z)
    device.codebook_statistics(_matrix(z), indices.data_ptr(), codes, counts.data_ptr(), sums.data_ptr(), stream=stream)
    return counts, sums


@codebook_statistics.register_fake
def _(z, indices, codes):
    return z.new_empty(codes), z.new_empty(codes, z.shape[1])


def _matrix(x: Tensor) -> cuda.Matrix:
    return x.data_ptr(), *x.shape, *x.stride()


def _queue(x: Tensor) -> tuple[cuda.Device, int]:
    """The GPU that holds a tensor, and the address of PyTorch's current stream there."""
    number = x.device.index
    if not cuda.trusted(number):
        raise BackendError(f"CUDA device {number} does not compute what it must")
    return cuda.device(number), torch.cuda.current_stream(x.device).cuda_stream
