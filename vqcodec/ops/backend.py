"""The backends that compute the priors: one interface, and the choice of implementation.

    "reference"                            NumPy, the definition (`vqcodec.ops.reference`): slow
    "native"                               the compiled core, with the best instruction set
    "scalar", "avx2", "avx512", "neon"     the compiled core, with that instruction set
    "cuda", "cuda:1"                       a GPU, by number (`vqcodec.ops.cuda`)
    None                                   the one named by the environment variable VQCODEC_BACKEND, or "native"

All give exactly the same codes and frequencies, with any number of threads.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vqcodec.errors import BackendError, InvalidArgument
from vqcodec.model.prior import Condition, IntegerPrior
from vqcodec.ops import cuda, selftest
from vqcodec.ops.cpu import Cpu
from vqcodec.ops.jobs import ChooseJob, DecodeJob, SampleJob
from vqcodec.ops.reference.backend import Reference

Maps = list[np.ndarray]


class Backend(Protocol):
    """The priors' ops. Arguments have passed `vqcodec.ops.jobs.checked`; backends make any further checks themselves."""

    def prior_frequencies(
        self, prior: IntegerPrior, codes: np.ndarray, coarser: Maps, condition: Condition
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `vqcodec.ops.prior_frequencies`."""

    def decode(self, priors: Sequence[IntegerPrior], jobs: Sequence[DecodeJob]) -> tuple[list[Maps], list[int]]:
        """The maps of every job, and for each job its first corrupt map or -1."""

    def sample(
        self, priors: Sequence[IntegerPrior], jobs: Sequence[SampleJob], sharpness: int, nucleus: int
    ) -> list[Maps]:
        """The maps of every job."""

    def choose(self, priors: Sequence[IntegerPrior], jobs: Sequence[ChooseJob]) -> list[Maps]:
        """The maps of every job."""


def backend(name: str | None = None) -> Backend:
    """The backend with this name. Raises InvalidArgument if it is unknown, BackendError if it is not available."""
    name = name or os.environ.get("VQCODEC_BACKEND") or "native"
    if name == "reference":
        return Reference()
    if name == "native":
        return Cpu()
    if name in ("scalar", "avx2", "avx512", "neon"):
        return Cpu(name)
    if name.startswith("cuda"):
        number = cuda.number_of(name)
        device = cuda.device(number)
        return device if trusted(number) else Cpu()
    raise InvalidArgument(f"backend must be one of reference, native, scalar, avx2, avx512, neon, cuda, got {name!r}")


@functools.cache
def trusted(number: int = 0) -> bool:
    """Whether GPU ``number`` passes its self-test. Run once per process; a failure gives a RuntimeWarning."""
    try:
        failure = selftest.failure(cuda.device(number))
    except BackendError as error:  # such as a GPU for which no kernel was compiled
        failure = str(error)
    if failure is None:
        return True
    warnings.warn(
        f"CUDA device {number}, {cuda.device(number).describe()}, is refused: {failure}. "
        "The CPU computes the prior instead.",
        RuntimeWarning,
        stacklevel=3,
    )
    return False
