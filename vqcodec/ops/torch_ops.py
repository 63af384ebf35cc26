"""The ops of the compiled core as PyTorch custom ops, `torch.ops.vqcodec.*`, on the CPU and on GPUs.

Imported when the first tensor arrives, so that `vqcodec.ops` does not load PyTorch. Defined by schema, not by
`torch.library.custom_op`, whose first call loads PyTorch's compiler, which takes seconds.
Tensors share their memory with the core: nothing is copied. On a GPU the work is queued on
PyTorch's current stream.
"""

from __future__ import annotations

import functools
import warnings

import numpy as np
import torch
from torch import Tensor

from vqcodec.errors import BackendError, InvalidArgument
from vqcodec.ops import cpu, cuda, selftest

torch.library.define("vqcodec::nearest_codebook", "(Tensor z, Tensor codebook, Tensor? bias=None, str? variant=None) -> Tensor")
torch.library.define("vqcodec::codebook_statistics", "(Tensor z, Tensor indices, int codes) -> (Tensor, Tensor)")


def nearest_codebook(z: Tensor, codebook: Tensor, bias: Tensor | None = None, variant: str | None = None) -> Tensor:
    found: Tensor = torch.ops.vqcodec.nearest_codebook(z, codebook, bias, variant)
    return found


def codebook_statistics(z: Tensor, indices: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = torch.ops.vqcodec.codebook_statistics(z, indices, codes)
    return found


@torch.library.impl("vqcodec::nearest_codebook", "cpu")
def _nearest_on_cpu(z: Tensor, codebook: Tensor, bias: Tensor | None = None, variant: str | None = None) -> Tensor:
    indices = cpu.nearest_codebook(
        z.detach().numpy(),
        codebook.detach().numpy(),
        None if bias is None else bias.detach().numpy(),
        variant,
    )
    return torch.from_numpy(indices)


@torch.library.impl("vqcodec::nearest_codebook", "cuda")
def _nearest_on_gpu(z: Tensor, codebook: Tensor, bias: Tensor | None = None, variant: str | None = None) -> Tensor:
    _check(z, "z", z, torch.float32, (None, None))
    _check(z, "codebook", codebook, torch.float32, (None, z.shape[1]))
    if bias is not None:
        _check(z, "bias", bias, torch.float32, (len(codebook),))
        bias = bias.contiguous()
    indices = z.new_empty(len(z), dtype=torch.int64)
    device, stream = _queue(z)
    address = 0 if bias is None else bias.data_ptr()
    device.nearest_codebook(_matrix(z), _matrix(codebook), address, indices.data_ptr(), stream=stream)
    return indices


@torch.library.register_fake("vqcodec::nearest_codebook")
def _nearest_fake(z: Tensor, codebook: Tensor, bias: Tensor | None = None, variant: str | None = None) -> Tensor:
    return z.new_empty(z.shape[0], dtype=torch.int64)


@torch.library.impl("vqcodec::codebook_statistics", "cpu")
def _statistics_on_cpu(z: Tensor, indices: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    counts, sums = cpu.codebook_statistics(z.detach().numpy(), indices.numpy(), codes)
    return torch.from_numpy(counts), torch.from_numpy(sums)


@torch.library.impl("vqcodec::codebook_statistics", "cuda")
def _statistics_on_gpu(z: Tensor, indices: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    _check(z, "z", z, torch.float32, (None, None))
    _check(z, "indices", indices, torch.int64, (len(z),))
    indices = indices.contiguous()
    counts, sums = z.new_empty(codes), z.new_empty(codes, z.shape[1])
    device, stream = _queue(z)
    device.codebook_statistics(_matrix(z), indices.data_ptr(), codes, counts.data_ptr(), sums.data_ptr(), stream=stream)
    return counts, sums


@torch.library.register_fake("vqcodec::codebook_statistics")
def _statistics_fake(z: Tensor, indices: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    return z.new_empty(codes), z.new_empty(codes, z.shape[1])


def _check(z: Tensor, name: str, x: Tensor, dtype: torch.dtype, shape: tuple[int | None, ...]) -> None:
    """What addresses do not tell the kernels. None in a shape stands for any size."""
    fits = x.dim() == len(shape) and all(want in (None, have) for want, have in zip(shape, x.shape))
    if x.device != z.device or x.dtype != dtype or not fits:
        raise InvalidArgument(f"{name}: expected {dtype} {list(shape)} on {z.device}, got {x.dtype} {list(x.shape)} on {x.device}")


def _matrix(x: Tensor) -> cuda.Matrix:
    return x.data_ptr(), *x.shape, *x.stride()


def _queue(x: Tensor) -> tuple[cuda.Device, int]:
    """The GPU that holds a tensor, and the address of PyTorch's current stream there."""
    number = x.device.index
    if not _trusted(number):
        raise BackendError(f"CUDA device {number} does not compute what it must")
    return cuda.device(number), torch.cuda.current_stream(x.device).cuda_stream


@functools.cache
def _trusted(number: int) -> bool:
    """Whether a GPU finds the codes that the CPU finds, near-ties and both kinds of kernels included."""
    if not cuda.trusted(number):
        return False
    z, codebook = selftest.golden_vectors()
    device, place = cuda.device(number), f"cuda:{number}"
    stream = torch.cuda.current_stream(place).cuda_stream
    for dims in (z.shape[1], 3):
        rows, codes = (torch.from_numpy(np.ascontiguousarray(a[:, :dims])) for a in (z, codebook))
        expected = torch.from_numpy(cpu.nearest_codebook(rows.numpy(), codes.numpy()))
        rows, codes, found = rows.to(place), codes.to(place), torch.full((len(z),), -1, device=place)
        device.nearest_codebook(_matrix(rows), _matrix(codes), 0, found.data_ptr(), stream=stream)
        if not torch.equal(found.cpu(), expected):
            warnings.warn(f"CUDA device {number}, {device.describe()}, finds wrong codes", RuntimeWarning, stacklevel=4)
            return False
    return True
