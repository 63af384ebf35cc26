"""The kernels on GPUs: which GPUs there are, whether they can be trusted, and the calls.

A GPU is only used after it has computed the frequencies of a golden map exactly (`selftest`):
one wrong frequency makes noise of every file, so a GPU that fails is refused. A build without
nvcc, a machine without a driver or a GPU raise BackendError with the reason.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from vqcodec.errors import BackendError, InvalidArgument
from vqcodec.ops import cpu

__all__ = ["Device", "device", "device_count", "number_of", "trusted"]

#: (address, rows, columns, row stride, column stride): a float32 matrix on the device; strides in elements.
Matrix = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Device:
    """A GPU. The prior's ops take and give NumPy arrays, as `vqcodec.ops.cpu` does."""

    number: int
    core: ModuleType  #: vqcodec._native.cuda, or the same kernels run by the CPU (tests)

    def describe(self) -> str:
        """Name, compute capability, multiprocessors."""
        name, (major, minor), multiprocessors = self.core.describe(self.number)
        return f"{name} (compute capability {major}.{minor}, {multiprocessors} multiprocessors)"

    def multiprocessors(self) -> int:
        return self.core.describe(self.number)[2]

    def load_prior(self, **tensors: Any) -> Any:
        return self.core.load_prior(self.number, **tensors)

    def prior_frequencies(self, prior: Any, codes: np.ndarray, coarser: list[np.ndarray], class_id: int,
                          level: int) -> tuple[np.ndarray, np.ndarray]:
        return self.core.prior_frequencies(prior, codes, coarser, class_id, level)

    def wavefront_decode(self, priors: list[Any], jobs: list[Any]) -> tuple[list[list[np.ndarray]], list[int]]:
        return self.core.wavefront_decode(priors, jobs)

    def wavefront_sample(self, priors: list[Any], jobs: list[Any], sharpness: int,
                         nucleus: int) -> tuple[list[list[np.ndarray]], list[int]]:
        return self.core.wavefront_sample(priors, jobs, sharpness, nucleus)

    def nearest_codebook(self, z: Matrix, codebook: Matrix, bias: int, indices: int, *, stream: int = 0) -> None:
        """Addresses of device memory; ``bias`` may be 0. Waits for ``stream``."""
        self.core.nearest_codebook(self.number, stream, z, codebook, bias, indices)

    def codebook_statistics(self, z: Matrix, indices: int, codes: int, counts: int, sums: int, *, stream: int = 0) -> None:
        self.core.codebook_statistics(self.number, stream, z, indices, codes, counts, sums)


def device_count() -> int:
    """How many GPUs the kernels could run on; 0 without one, without a driver, or in a build without CUDA."""
    try:
        return _core().devices()[0]
    except BackendError:
        return 0


@functools.cache
def device(number: int = 0) -> Device:
    """GPU ``number``. Raises BackendError if there is none, with the reason."""
    core = _core()
    count, reason = core.devices()
    if count == 0:
        raise BackendError(f"no CUDA device: {reason or 'none found'} (is there an NVIDIA GPU, and its driver?)")
    if not 0 <= number < count:
        raise BackendError(f"there is no CUDA device {number}, only 0 to {count - 1}")
    return Device(number, core)


@functools.cache
def trusted(number: int = 0) -> bool:
    """Whether GPU ``number`` computes what it must. Tried once per process; a failure is a RuntimeWarning."""
    from vqcodec.ops import selftest

    try:
        failure = selftest.failure(device(number))
    except BackendError as error:  # such as one that no kernel was compiled for
        failure = str(error)
    if failure is None:
        return True
    warnings.warn(
        f"CUDA device {number}, {device(number).describe()}, is refused: {failure}. "
        "The CPU computes the prior instead.", RuntimeWarning, stacklevel=3)
    return False


def number_of(name: str) -> int:
    """The number in "cuda" (0) or "cuda:1" (1)."""
    kind, separator, number = name.partition(":")
    if kind != "cuda" or (separator and not number.isdecimal()):
        raise InvalidArgument(f"a GPU is named cuda or cuda:NUMBER, got {name!r}")
    return int(number or 0)


def _core() -> ModuleType:
    return cpu.cuda_core()

