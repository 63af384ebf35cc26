"""The GPU backend: available GPUs, and calls to them.

A GPU is only used after it has computed golden maps exactly (`vqcodec.ops.backend.trusted`):
one wrong frequency turns a file into noise, so a GPU that fails is rejected. Without nvcc at
build time, or without a driver or GPU, BackendError gives the reason.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcodec.errors import BackendError, InvalidArgument
from vqcodec.model.autoencoder import IntegerAutoencoder
from vqcodec.model.integer_network import IntegerNetwork
from vqcodec.model.prior import Condition, IntegerPrior
from vqcodec.ops import cpu
from vqcodec.ops.jobs import ChooseJob, DecodeJob, SampleJob
from vqcodec.ops.packing import kept, maps_of, network_of, packed, tuples
from vqcodec.tiling import Box

if TYPE_CHECKING:
    from vqcodec.ops.samples import Streams, TileShape

#: (address, rows, columns, row stride, column stride): a float32 matrix on the device; strides in elements.
Matrix = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Device:
    """A GPU: a backend (see `vqcodec.ops.backend.Backend`), and the quantiser's ops on device memory."""

    number: int
    core: ModuleType  #: vqcodec._native.cuda, or the same kernels run on the CPU (tests)
    memory: int = 64 << 20  #: bytes that the planes of a network may take: larger images go in windows

    def describe(self) -> str:
        """Name, compute capability, multiprocessors."""
        name, (major, minor), multiprocessors = self.core.describe(self.number)
        return f"{name} (compute capability {major}.{minor}, {multiprocessors} multiprocessors)"

    def multiprocessors(self) -> int:
        return self.core.describe(self.number)[2]

    def load_prior(self, **tensors: Any) -> Any:
        return self.core.load_prior(self.number, **tensors)

    def prior_frequencies(
        self, prior: IntegerPrior, codes: np.ndarray, coarser: list[np.ndarray], condition: Condition
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.core.prior_frequencies(packed(prior, self), codes, coarser, *condition)

    def decode(
        self, priors: Sequence[IntegerPrior], jobs: Sequence[DecodeJob]
    ) -> tuple[list[list[np.ndarray]], list[int]]:
        return self.core.wavefront_decode(self._all(priors), tuples(jobs))

    def sample(
        self, priors: Sequence[IntegerPrior], jobs: Sequence[SampleJob], sharpness: int, nucleus: int
    ) -> list[list[np.ndarray]]:
        return self.core.wavefront_sample(self._all(priors), tuples(jobs), sharpness, nucleus)[0]

    def choose(self, priors: Sequence[IntegerPrior], jobs: Sequence[ChooseJob]) -> list[list[np.ndarray]]:
        """The choice only affects which file is written, so the CPU does this."""
        return cpu.Cpu().choose(priors, jobs)

    def _all(self, priors: Sequence[IntegerPrior]) -> list[Any]:
        return [packed(prior, self) for prior in priors]

    def run_network(self, network: IntegerNetwork, planes: Sequence[np.ndarray]) -> list[np.ndarray]:
        return self.core.run_network(kept(network, self, self._load_network), planes, self.memory)

    def autoencoder_pixels(
        self, autoencoder: IntegerAutoencoder, maps: list[np.ndarray], height: int, width: int, box: Box
    ) -> np.ndarray:
        part = (box.y0, box.x0, box.height, box.width)
        return self.core.autoencoder_pixels(self._loaded(autoencoder), maps, (height, width), part, self.memory)

    def autoencoder_features(self, autoencoder: IntegerAutoencoder, pixels: np.ndarray) -> list[np.ndarray]:
        return self.core.autoencoder_features(self._loaded(autoencoder), pixels, self.memory)

    def autoencoder_latents(
        self, autoencoder: IntegerAutoencoder, stride: int, features: np.ndarray, maps: list[np.ndarray]
    ) -> np.ndarray:
        number = autoencoder.config.strides.index(stride)
        return self.core.autoencoder_latents(self._loaded(autoencoder), number, features, maps, self.memory)

    def nearest_codes(
        self, z: np.ndarray, codebook: np.ndarray, lengths: np.ndarray, exponents: np.ndarray, base: int
    ) -> np.ndarray:
        """By the CPU, as `choose`."""
        return cpu.Cpu().nearest_codes(z, codebook, lengths, exponents, base)

    def code_candidates(
        self, z: np.ndarray, codebook: np.ndarray, lengths: np.ndarray, exponents: np.ndarray, base: int, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """By the CPU, as `choose`."""
        return cpu.Cpu().code_candidates(z, codebook, lengths, exponents, base, count)

    def sample_tile(self, shape: TileShape) -> Any:
        """Samples are coded one by one: by the CPU, here and below."""
        return cpu.Cpu().sample_tile(shape)

    def encode_samples(self, tiles: Sequence[Any], end: int) -> list[Streams]:
        return cpu.Cpu().encode_samples(tiles, end)

    def decode_samples(self, tiles: Sequence[Any], end: int, streams: Sequence[Streams]) -> list[bool]:
        return cpu.Cpu().decode_samples(tiles, end, streams)

    def encode_indices(self, planes: Sequence[np.ndarray], bits: int) -> list[bytes]:
        return cpu.Cpu().encode_indices(planes, bits)

    def decode_indices(
        self, sizes: Sequence[tuple[int, int]], bits: int, streams: Sequence[bytes]
    ) -> list[np.ndarray | None]:
        return cpu.Cpu().decode_indices(sizes, bits, streams)

    def draw_samples(self, tiles: Sequence[Any], end: int, seeds: Sequence[int | None]) -> None:
        cpu.Cpu().draw_samples(tiles, end, seeds)

    def _load_network(self, network: IntegerNetwork) -> Any:
        return self.core.load_network(self.number, *network_of(network))

    def _loaded(self, autoencoder: IntegerAutoencoder) -> Any:
        return kept(autoencoder, self, self._load_autoencoder)

    def _load_autoencoder(self, autoencoder: IntegerAutoencoder) -> Any:
        latents = [self._load_network(autoencoder.latent[stride]) for stride in autoencoder.config.strides]
        networks = self._load_network(autoencoder.analysis), latents, self._load_network(autoencoder.synthesis)
        return self.core.load_autoencoder(maps_of(autoencoder), *networks)

    def nearest_codebook(self, z: Matrix, codebook: Matrix, bias: int, indices: int, *, stream: int = 0) -> None:
        """Addresses of device memory; ``bias`` may be 0. Waits for ``stream``."""
        self.core.nearest_codebook(self.number, stream, z, codebook, bias, indices)

    def codebook_statistics(
        self, z: Matrix, indices: int, codes: int, counts: int, sums: int, *, stream: int = 0
    ) -> None:
        self.core.codebook_statistics(self.number, stream, z, indices, codes, counts, sums)


def device_count() -> int:
    """Number of usable GPUs; 0 without a GPU, without a driver, or in a build without CUDA."""
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


def number_of(name: str) -> int:
    """The number in "cuda" (0) or "cuda:1" (1)."""
    kind, separator, number = name.partition(":")
    if kind != "cuda" or (separator and not number.isdecimal()):
        raise InvalidArgument(f"a GPU is named cuda or cuda:NUMBER, got {name!r}")
    return int(number or 0)


def _core() -> ModuleType:
    return cpu.cuda_core()
