"""The nearest code of a codebook, the heart of vector quantisation."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np

from vqcodec.errors import InvalidArgument
from vqcodec.ops import cpu

if TYPE_CHECKING:
    import torch

    Array = np.ndarray | torch.Tensor

__all__ = ["CodebookStatistics", "codebook_statistics", "nearest_codebook"]


class CodebookStatistics(NamedTuple):
    """What an exponential moving average of a codebook needs (VQ-VAE-2, section 2.1)."""

    # Arrays of the kind that was given.
    counts: Any
    """K, float32: how many rows have each code."""

    sums: Any
    """K x D, float32: the sum of those rows."""


@overload
def nearest_codebook(
    z: np.ndarray, codebook: np.ndarray, bias: np.ndarray | None = None, *, return_statistics: Literal[False] = False,
    variant: str | None = None,
) -> np.ndarray: ...
@overload
def nearest_codebook(
    z: torch.Tensor, codebook: torch.Tensor, bias: torch.Tensor | None = None, *, return_statistics: Literal[False] = False,
    variant: str | None = None,
) -> torch.Tensor: ...
@overload
def nearest_codebook(
    z: Array, codebook: Array, bias: Array | None = None, *, return_statistics: Literal[True], variant: str | None = None,
) -> tuple[Any, CodebookStatistics]: ...
def nearest_codebook(
    z: Array,
    codebook: Array,
    bias: Array | None = None,
    *,
    return_statistics: bool = False,
    variant: str | None = None,
) -> Array | tuple[Array, CodebookStatistics]:
    """argmin_k |z_n - e_k|^2 + bias_k for every row of z; the lowest k wins ties.

        >>> z, codebook = np.float32([[0.9, 1.2], [0, 0]]), np.float32([[0, 0], [1, 1], [2, 2]])
        >>> nearest_codebook(z, codebook)
        array([1, 0])

    The indices are the same to the last one whatever the CPU, the number of threads and the
    split of z into calls: the arithmetic is defined in csrc/kernels/nearest_codebook.h. The
    N x K matrix of distances never exists; beside the result the call needs one more copy of
    the codebook. Not differentiable: gradients go around it (straight-through).

    z: N x D, float32. Any strides; adjacent elements in a row are fastest.
    codebook: K x D, float32, finite.
    bias: K, float32, added to the squared distances, such as lambda times the bits of each code.
        +inf disables a code.
    All are NumPy arrays or all are PyTorch tensors on one device, a CPU or a GPU; they are read in place.
    return_statistics: also return `codebook_statistics` of the result.
    variant: "scalar", "avx2" or "avx512" instead of the best one, for tests; of no effect on a GPU.

    Returns N indices (int64) of the same kind as z, or (indices, statistics).
    Raises InvalidArgument for wrong kinds, types or shapes, and if a row of z has a NaN or an
    infinity, or is so large that no score is finite. In PyTorch also torch.ops.vqcodec.nearest_codebook.
    """
    arrays = _Arrays.like(z)
    z = arrays.checked("z", z, "float32", ("N", "D"))
    codebook = arrays.checked("codebook", codebook, "float32", ("K", z.shape[1]))
    if bias is not None:
        bias = arrays.checked("bias", bias, "float32", (codebook.shape[0],))
    indices: Array = arrays.backend.nearest_codebook(z, codebook, bias, variant)
    if not return_statistics:
        return indices
    statistics = arrays.backend.codebook_statistics(z, indices, codebook.shape[0])
    return indices, CodebookStatistics(*statistics)


def codebook_statistics(z: Array, indices: Array, codes: int) -> CodebookStatistics:
    """How often each of `codes` codes was chosen, and the sum of the rows that chose it.

        >>> codebook_statistics(np.float32([[1, 2], [3, 4]]), np.array([2, 2]), 3).counts
        array([0., 0., 2.], dtype=float32)

    z: N x D, float32. indices: N, int64, in 0..codes-1. NumPy or PyTorch.
    Sums run in float64 in the order of the rows, so they do not depend on the number of threads.
    Raises InvalidArgument for wrong kinds, types, shapes or indices.
    """
    arrays = _Arrays.like(z)
    z = arrays.checked("z", z, "float32", ("N", "D"))
    indices = arrays.checked("indices", indices, "int64", (z.shape[0],))
    return CodebookStatistics(*arrays.backend.codebook_statistics(z, indices, codes))


class _Arrays(NamedTuple):
    """One kind of array: its type, the module with its dtypes, and who computes on it."""

    kind: type
    module: ModuleType
    backend: ModuleType
    place: object = None  #: the device of z, if it is a tensor

    @classmethod
    def like(cls, x: Array) -> _Arrays:
        if isinstance(x, np.ndarray):
            return cls(np.ndarray, np, cpu)
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(x, torch.Tensor):
            from vqcodec.ops import torch_ops

            return cls(torch.Tensor, torch, torch_ops, x.device)
        raise InvalidArgument(f"z must be a NumPy array or a PyTorch tensor, got {type(x).__name__}")

    def checked(self, name: str, x: Array, dtype: str, shape: tuple[int | str, ...]) -> Array:
        """x, of the given type and shape (letters stand for any size), as the backend can read it."""
        if not isinstance(x, self.kind):
            raise InvalidArgument(
                f"{name} must be a {self.kind.__name__} as z is, got {type(x).__name__}"
            )
        if x.dtype != getattr(self.module, dtype):
            raise InvalidArgument(f"{name} must be {dtype}, got {x.dtype}")
        fits = len(x.shape) == len(shape) and all(
            isinstance(want, str) or want == have for want, have in zip(shape, x.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join(map(str, shape))
            raise InvalidArgument(f"{name} must have shape [{wanted}], got {list(x.shape)}")
        if not isinstance(x, np.ndarray):
            if x.device.type not in ("cpu", "cuda", "meta"):
                raise InvalidArgument(f"{name} must be on the CPU or on a CUDA device, got {x.device}")
            if self.place not in (None, x.device):
                raise InvalidArgument(f"{name} must be on {self.place} as z is, got {x.device}")
            return x.detach().contiguous() if len(shape) == 1 else x.detach()
        # Vectors are small. A matrix is copied only when its elements are not aligned.
        return np.ascontiguousarray(x) if len(shape) == 1 else np.require(x, requirements="A")
