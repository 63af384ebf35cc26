"""Who computes: one interface, and the choice of what stands behind it.

    "reference"                            NumPy, the definition (`vqcodec.ops.reference`): slow
    "native"                               the compiled core, with the best instruction set
    "scalar", "avx2", "avx512", "neon"     the compiled core, with that instruction set
    "cuda", "cuda:1"                       a GPU, by number (`vqcodec.ops.cuda`)
    None                                   what the environment variable VQCODEC_BACKEND names, or "native"

All give the same codes, frequencies and pixels to the last bit, on any number of threads.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vqcodec.errors import BackendError, InvalidArgument
from vqcodec.model.autoencoder import IntegerAutoencoder
from vqcodec.model.integer_network import IntegerNetwork
from vqcodec.model.prior import Condition, IntegerPrior
from vqcodec.ops import cuda
from vqcodec.ops.cpu import Cpu
from vqcodec.ops.jobs import ChooseJob, DecodeJob, SampleJob
from vqcodec.tiling import Box

if TYPE_CHECKING:
    from vqcodec.ops.samples import Streams, TileShape

Maps = list[np.ndarray]


class Backend(Protocol):
    """The ops of priors, of integer networks, of codes for latents, and of samples.

    Arguments have been checked by the ops of the same names; what only they know, backends check themselves.
    """

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

    def run_network(self, network: IntegerNetwork, planes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `vqcodec.ops.run_network`."""

    def autoencoder_pixels(
        self, autoencoder: IntegerAutoencoder, maps: Maps, height: int, width: int, box: Box
    ) -> np.ndarray:
        """See `vqcodec.ops.autoencoder_pixels`."""

    def autoencoder_features(self, autoencoder: IntegerAutoencoder, pixels: np.ndarray) -> list[np.ndarray]:
        """See `vqcodec.ops.autoencoder_features`."""

    def autoencoder_latents(
        self, autoencoder: IntegerAutoencoder, stride: int, features: np.ndarray, maps: Maps
    ) -> np.ndarray:
        """See `vqcodec.ops.autoencoder_latents`."""

    def nearest_codes(
        self, z: np.ndarray, codebook: np.ndarray, lengths: np.ndarray, exponents: np.ndarray, base: int
    ) -> np.ndarray:
        """See `vqcodec.ops.nearest_codes`."""

    def code_candidates(
        self, z: np.ndarray, codebook: np.ndarray, lengths: np.ndarray, exponents: np.ndarray, base: int, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `vqcodec.ops.code_candidates`."""

    def sample_tile(self, shape: TileShape) -> Any:
        """See `vqcodec.ops.sample_tile`; the others take tiles that it made."""

    def encode_samples(self, tiles: Sequence[Any], end: int) -> list[Streams]:
        """See `vqcodec.ops.encode_samples`."""

    def decode_samples(self, tiles: Sequence[Any], end: int, streams: Sequence[Streams]) -> list[bool]:
        """See `vqcodec.ops.decode_samples`."""

    def encode_indices(self, planes: Sequence[np.ndarray], bits: int) -> list[bytes]:
        """See `vqcodec.ops.encode_indices`."""

    def decode_indices(
        self, sizes: Sequence[tuple[int, int]], bits: int, streams: Sequence[bytes]
    ) -> list[np.ndarray | None]:
        """See `vqcodec.ops.decode_indices`."""

    def draw_samples(self, tiles: Sequence[Any], end: int, seeds: Sequence[int | None]) -> None:
        """See `vqcodec.ops.draw_samples`."""


def backend(name: str | None = None) -> Backend:
    """The backend of a name. Raises InvalidArgument for an unknown one, BackendError for one that is not there."""
    name = name or os.environ.get("VQCODEC_BACKEND") or "native"
    if name == "reference":
        from vqcodec.ops.reference.backend import Reference  # slow, and rarely wanted

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
    """Whether GPU ``number`` computes what it must. Tried once per process; a failure is a RuntimeWarning."""
    try:
        from vqcodec.ops import selftest

        failure = selftest.failure(cuda.device(number))
    except BackendError as error:  # such as one that no kernel was compiled for
        failure = str(error)
    if failure is None:
        return True
    warnings.warn(
        f"CUDA device {number}, {cuda.device(number).describe()}, is refused: {failure}. The CPU computes instead.",
        RuntimeWarning,
        stacklevel=3,
    )
    return False
