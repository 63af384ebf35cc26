"""The CPU backend: the only importer of the compiled core, `vqcodec._native`.

The core is loaded by the first call that needs it. Environment variables:

    VQCODEC_CPU           scalar | avx2 | avx512 | neon: the instruction set of the kernels
                          (default: the best that the CPU supports), read at every call
    VQCODEC_NUM_THREADS   number of threads (default: the cores that the process may use),
                          read once, when the core is loaded
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcodec.errors import BackendError, InvalidArgument
from vqcodec.model.autoencoder import IntegerAutoencoder
from vqcodec.model.integer_network import IntegerNetwork
from vqcodec.model.prior import Condition, IntegerPrior
from vqcodec.ops.jobs import ChooseJob, DecodeJob, SampleJob
from vqcodec.ops.packing import kept, maps_of, network_of, packed, tuples
from vqcodec.tiling import Box

if TYPE_CHECKING:
    from vqcodec import _native
    from vqcodec.ops.samples import Streams, TileShape


@functools.cache
def _core() -> ModuleType:
    try:
        from vqcodec import _native
    except ImportError as error:
        raise BackendError(
            f"the compiled core vqcodec._native cannot be loaded ({error}); "
            "build it with `pip install .`, or with `make build` in a source checkout"
        ) from error
    threads = os.environ.get("VQCODEC_NUM_THREADS")
    if threads:
        try:
            _native.set_num_threads(int(threads))
        except ValueError as error:  # InvalidArgument is one
            raise InvalidArgument(f"VQCODEC_NUM_THREADS must be a number from 1 to 1024, got {threads!r}") from error
    return _native


class _Lazy:
    """Stands in for the compiled core until it is first used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_core(), name)


if not TYPE_CHECKING:
    _native = _Lazy()


def cuda_core() -> ModuleType:
    """The GPU kernels. Raises BackendError in a build without them."""
    core: ModuleType | None = getattr(_native, "cuda", None)
    if core is None:
        raise BackendError("this build of vqcodec has no CUDA kernels: it was compiled without nvcc")
    return core


def set_num_threads(n: int) -> None:
    """Set how many threads the compiled core uses, 1 to 1024. Results never depend on it."""
    _native.set_num_threads(n)


def get_num_threads() -> int:
    """How many threads the compiled core uses: by default the cores that the process may use."""
    return _native.get_num_threads()


def cpu_variants() -> list[str]:
    """The kernel variants that this CPU supports: "scalar" and possibly "avx2", "avx512" or "neon"."""
    return _native.cpu_variants()


def select_variant(requested: str | None = None) -> str:
    """The variant that a kernel would use: the requested one, else VQCODEC_CPU, else the best.

    Raises InvalidArgument for an unknown name, BackendError if this CPU cannot run it.
    """
    return _native.select_variant(requested or "")


def nearest_codebook(
    z: np.ndarray,
    codebook: np.ndarray,
    bias: np.ndarray | None = None,
    variant: str | None = None,
) -> np.ndarray:
    """See `vqcodec.ops.nearest_codebook`."""
    return _native.nearest_codebook(z, codebook, bias, variant or "")


def codebook_statistics(z: np.ndarray, indices: np.ndarray, codes: int) -> tuple[np.ndarray, np.ndarray]:
    """See `vqcodec.ops.codebook_statistics`."""
    return _native.codebook_statistics(z, indices, codes)


@dataclass(frozen=True)
class Cpu:
    """The priors on the CPU, see `vqcodec.ops.backend.Backend`. variant: an instruction set; "": the best."""

    variant: str = ""

    def prior_frequencies(
        self, prior: IntegerPrior, codes: np.ndarray, coarser: list[np.ndarray], condition: Condition
    ) -> tuple[np.ndarray, np.ndarray]:
        return _native.prior_frequencies(packed(prior, CORE), codes, coarser, *condition, self.variant)

    def decode(
        self, priors: Sequence[IntegerPrior], jobs: Sequence[DecodeJob]
    ) -> tuple[list[list[np.ndarray]], list[int]]:
        return _native.wavefront_decode(_all(priors), tuples(jobs), self.variant)

    def sample(
        self, priors: Sequence[IntegerPrior], jobs: Sequence[SampleJob], sharpness: int, nucleus: int
    ) -> list[list[np.ndarray]]:
        return _native.wavefront_sample(_all(priors), tuples(jobs), sharpness, nucleus, self.variant)[0]

    def choose(self, priors: Sequence[IntegerPrior], jobs: Sequence[ChooseJob]) -> list[list[np.ndarray]]:
        return _native.wavefront_choose(_all(priors), tuples(jobs), self.variant)[0]

    def run_network(self, network: IntegerNetwork, planes: Sequence[np.ndarray]) -> list[np.ndarray]:
        return _native.run_network(kept(network, CORE, _load_network), planes, self.variant)

    def autoencoder_pixels(
        self, autoencoder: IntegerAutoencoder, maps: list[np.ndarray], height: int, width: int, box: Box
    ) -> np.ndarray:
        part = (box.y0, box.x0, box.height, box.width)
        core = kept(autoencoder, CORE, _load_autoencoder)
        return _native.autoencoder_pixels(core, maps, (height, width), part, self.variant)

    def autoencoder_features(self, autoencoder: IntegerAutoencoder, pixels: np.ndarray) -> list[np.ndarray]:
        return _native.autoencoder_features(kept(autoencoder, CORE, _load_autoencoder), pixels, self.variant)

    def autoencoder_latents(
        self, autoencoder: IntegerAutoencoder, stride: int, features: np.ndarray, maps: list[np.ndarray]
    ) -> np.ndarray:
        number = autoencoder.config.strides.index(stride)
        core = kept(autoencoder, CORE, _load_autoencoder)
        return _native.autoencoder_latents(core, number, features, maps, self.variant)

    def nearest_codes(
        self, z: np.ndarray, codebook: np.ndarray, lengths: np.ndarray, exponents: np.ndarray, base: int
    ) -> np.ndarray:
        return _native.nearest_codes(z, codebook, lengths, exponents, base, self.variant)

    def code_candidates(
        self, z: np.ndarray, codebook: np.ndarray, lengths: np.ndarray, exponents: np.ndarray, base: int, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        return _native.code_candidates(z, codebook, lengths, exponents, base, count, self.variant)

    def sample_tile(self, shape: TileShape) -> Any:
        return _native.SampleTile(**vars(shape), variant=self.variant)

    def encode_samples(self, tiles: Sequence[Any], end: int) -> list[Streams]:
        return _native.encode_samples(list(tiles), end)

    def decode_samples(self, tiles: Sequence[Any], end: int, streams: Sequence[Streams]) -> list[bool]:
        return _native.decode_samples(list(tiles), end, list(streams))

    def encode_indices(self, planes: Sequence[np.ndarray], bits: int) -> list[bytes]:
        return _native.encode_indices(list(planes), bits, self.variant)

    def decode_indices(
        self, sizes: Sequence[tuple[int, int]], bits: int, streams: Sequence[bytes]
    ) -> list[np.ndarray | None]:
        return _native.decode_indices(list(sizes), bits, list(streams), self.variant)

    def draw_samples(self, tiles: Sequence[Any], end: int, seeds: Sequence[int | None]) -> None:
        _native.draw_samples(list(tiles), end, list(seeds))


class _CpuCore:
    """Packs priors for the CPU, once for all variants."""

    def load_prior(self, **tensors: Any) -> Any:
        return _native.load_prior(**tensors)


CORE = _CpuCore()


def _all(priors: Sequence[IntegerPrior]) -> list[Any]:
    return [packed(prior, CORE) for prior in priors]


def _load_network(network: IntegerNetwork) -> Any:
    return _native.load_network(*network_of(network))


def _load_autoencoder(autoencoder: IntegerAutoencoder) -> Any:
    latents = [_load_network(autoencoder.latent[stride]) for stride in autoencoder.config.strides]
    networks = _load_network(autoencoder.analysis), latents, _load_network(autoencoder.synthesis)
    return _native.load_autoencoder(maps_of(autoencoder), *networks)
